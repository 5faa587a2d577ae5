"""What a source does for a job: what it has is looked at, composites of zones are made, a person is told what came.

Nothing here knows of Ray: zones are made by whoever calls what `make` gives, and a service that limits how it is asked
(`SourceSettings.quota`) is asked by clients that stand ready elsewhere.
"""

import datetime as dt
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cropray.core.closure import closure
from cropray.core.cube import CubeSpec, Season
from cropray.core.keys import Key, key_of
from cropray.core.progress import Progress
from cropray.imagery import acquire
from cropray.imagery.cubes import acquire_cube
from cropray.imagery.scenes import Found
from cropray.io.storage import Location, write_json
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone, zone_fingerprint

if TYPE_CHECKING:
    from cropray.imagery.registry import CompositeSettings, SceneSettings, SourceSettings

SettingsT = TypeVar("SettingsT", bound="SourceSettings")
_CHOOSING: Final = frozenset(
    f"imagery.{name}"
    for name in ("source", "folder", "pattern", "counts", "url", "collection", "assets", "max_cloud_cover", "exclude")
)
"""Settings that say which scenes there are; an account lists the scenes themselves."""


@dataclass(frozen=True, slots=True)
class Order:
    """The composites that a job wants of a source."""

    zones: Sequence[Zone]
    season_start: str
    """First month `YYYY-MM` of zones that have none of their own."""
    cube: CubeSpec
    workspace: Workspace

    def season(self, zone: Zone) -> Season:
        """A zone's."""
        return Season(zone.season_start or self.season_start, self.cube)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one acquisition asks for, and how long that takes."""

    requests: int
    bytes: float
    seconds: float
    """At least, whatever the workers do meanwhile."""
    eecu_hours: float | None = None
    """Of computing at Earth Engine; None: the source has no such quota."""
    zone_s: float = 0.0
    """That a worker waits for each zone besides."""
    note: str = ""
    """What is assumed."""


Ask = Callable[[Iterable[Any]], Iterator[tuple[Any, Any, str | None]]]
"""(unit, answer, why there is none) of some units of work, as they come from clients that keep to a quota."""


class Acquisition(Generic[SettingsT]):
    """The work of one source for one order."""

    _what = "medians per {}"

    def __init__(self, settings: SettingsT, order: Order) -> None:
        self.settings, self.order = settings, order
        self.failures: dict[str, str] = {}
        """Zone → why it could not be given out by `ready`."""

    @property
    def title(self) -> str:
        """What is made of what."""
        return f"{self._what.format(self.order.cube.noun)} of {self.settings.describe()}"

    def check(self) -> None:
        """Look at what every zone will be made from, before any pixel is read; a quota is not spent on it.

        Raises:
            InputError: it cannot be used, or a zone has nothing.
        """

    def announce(self) -> list[str]:
        """What `check` found, for people; also left in the workspace.

        Raises:
            InputError: as `check`.
        """
        raise NotImplementedError

    def inputs(self, zone: Zone) -> Key:
        """Account of everything that a zone's composite depends on; `check` or `announce` goes before."""
        season, (roots, content) = self.order.season(zone), self._made_from(zone)
        common = {"zone": zone_fingerprint(zone), "season": season.first_month, **season.cube.in_content()}
        return key_of(closure(*roots), {"imagery": self.settings}, {**common, **content}, apart=_CHOOSING)

    def _made_from(self, zone: Zone) -> tuple[Sequence[Any], Mapping[str, object]]:
        """(roots of the code that makes a zone's composite, what is read)."""
        raise NotImplementedError

    def earlier(self, zone: Zone) -> str | None:  # noqa: ARG002
        """See `Workspace.why_stale`."""
        return None

    def outputs(self, zone: Zone) -> tuple[Location, ...]:
        """Files that a zone's composite needs to be up to date."""
        of, zone_id = self.order.workspace, zone.zone_id
        return of.composite(zone_id), of.n_obs(zone_id), of.acquisition_record(zone_id)

    def make(self, zone: Zone) -> Callable[[], acquire.ZoneAcquisition]:
        """Makes a zone's composite, in any process."""
        raise NotImplementedError

    @property
    def client(self) -> Callable[[Callable[[], None]], Callable[[Any], Any]]:
        """Makes a client of a service with a quota, in a process of its own: see `cropray.cluster.clients`."""
        raise NotImplementedError

    def tidy(self, todo: Collection[str], *, overwrite: bool) -> list[str]:  # noqa: ARG002
        """Remove what killed runs left; what is told of it.

        Zones of ids `todo` are made now, with `overwrite` though they were up to date.
        """
        n_left = acquire.remove_unfinished(self.order.workspace, {zone.zone_id for zone in self.order.zones})
        return [f"{n_left} unfinished files of an interrupted run are removed"] if n_left else []

    def ready(self, todo: Sequence[Zone], ask: Ask | None, progress: Progress) -> Generator[Zone | None, None, None]:  # noqa: ARG002
        """Zones `todo` as soon as they can be made; None where another request has been answered, and none is.

        Requests go through `ask`, where the source has a quota.
        """
        yield from todo

    def ended(self, zone_id: str, place: tuple[int, int], progress: Progress, *, is_made: bool) -> None:  # noqa: ARG002
        """A zone is done with, as the first of the two numbers in `place`, of so many."""
        progress.step(*place, zone_id, "zones")

    def conclude(self, records: Collection[acquire.ZoneAcquisition]) -> list[str]:
        """What is told of what was made."""
        return [acquire.describe_clear(records)]


class SceneAcquisition(Acquisition["SceneSettings"]):
    """Medians of scenes that workers read."""

    def __init__(self, settings: "SceneSettings", order: Order) -> None:
        super().__init__(settings, order)
        self.source = settings.scenes(order.cube.bands)
        self.found: Mapping[str, Found] = {}
        """Zone → its scenes, and what was left out."""

    def check(self) -> None:
        """See `Acquisition.check`."""
        order = self.order
        self.found = acquire.survey_zones(self.source, order.zones, order.season_start, order.cube)

    def announce(self) -> list[str]:
        """See `Acquisition.announce`: what is not used of what lies there, and which steps have nothing."""
        self.check()
        scenes = [scene for each in self.found.values() for scene in each.scenes]
        left_out = acquire.gather_left_out(self.found.values(), self.source.never_used(scenes))
        left_out |= self.settings.unheard(left_out)
        write_json(self.order.workspace.left_out, left_out)
        empty, seasons = {}, {zone.zone_id: self.order.season(zone) for zone in self.order.zones}
        for zone_id, season in seasons.items():
            steps = acquire.acquisitions_by_month(self.found[zone_id].scenes, season)
            empty[zone_id] = acquire.months_without([len(step) for step in steps], season)
        today = dt.datetime.now(dt.UTC).date()
        return [
            *acquire.describe_left_out(left_out),
            *acquire.describe_empty_months(empty, self.order.cube),
            *(
                f"a season ends on {end}, after today: run `cropray acquire` again then, what is missing is filled"
                for end in sorted({season.end for season in seasons.values() if season.end > today})
            ),
        ]

    def _made_from(self, zone: Zone) -> tuple[Sequence[Any], Mapping[str, object]]:
        scenes = self.found[zone.zone_id].scenes
        offsets = {f"scene {one.scene_id}": str(one.offsets) if one.offsets else one.offset for one in scenes}
        return (acquire.acquire_zone, type(self.source)), {**offsets, "scenes": self.source.fingerprint(scenes)}

    def make(self, zone: Zone) -> Callable[[], acquire.ZoneAcquisition]:
        """See `Acquisition.make`."""
        order = self.order
        return partial(acquire.acquire_zone, self.source, zone, order.season_start, order.workspace, order.cube)

    def conclude(self, records: Collection[acquire.ZoneAcquisition]) -> list[str]:
        """See `Acquisition.conclude`."""
        warnings = {warning for record in records for warning in record.warnings}
        return [*sorted(warnings), *super().conclude(records)]


class CubeAcquisition(Acquisition["CompositeSettings"]):
    """Ready cubes, taken over."""

    _what = "ready cubes"

    def __init__(self, settings: "CompositeSettings", order: Order) -> None:
        super().__init__(settings, order)
        self.source = settings.composites()

    def check(self) -> None:
        """See `Acquisition.check`."""
        self._remarks()

    def announce(self) -> list[str]:
        """See `Acquisition.announce`."""
        left_out = {remark: sorted(names) for remark, names in self._remarks().items()}
        write_json(self.order.workspace.left_out, left_out)
        return acquire.describe_left_out(left_out)

    def _remarks(self) -> Mapping[str, Sequence[str]]:
        return self.source.survey([(zone, self.order.season(zone)) for zone in self.order.zones])

    def _made_from(self, zone: Zone) -> tuple[Sequence[Any], Mapping[str, object]]:
        files = self.source.fingerprint(zone, self.order.season(zone))
        return (acquire_cube, type(self.source)), {"files": files}

    def make(self, zone: Zone) -> Callable[[], acquire.ZoneAcquisition]:
        """See `Acquisition.make`."""
        return partial(acquire_cube, self.source, zone, self.order.season(zone), self.order.workspace)

    def conclude(self, records: Collection[acquire.ZoneAcquisition]) -> list[str]:
        """See `Acquisition.conclude`."""
        not_filled = f"values that are missing stay no data: the source '{self.settings.source}' does not fill them"
        return super().conclude(records) if self.source.fills else [not_filled]
