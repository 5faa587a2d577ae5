"""Composites by Earth Engine: every zone is listed, its steps of time are asked for, its composite is written.

What came stays in the workspace: an interrupted run goes on where it stood, and asks for nothing that is there.
"""

import datetime as dt
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from functools import partial
from typing import Any

from cropray.core.errors import CroprayError, InputError
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import Key
from cropray.core.progress import Progress
from cropray.imagery import acquire
from cropray.imagery.acquisition import Acquisition, Ask, Order
from cropray.imagery.scenes import Found, Scene
from cropray.imagery.sources.earth_engine import months
from cropray.imagery.sources.earth_engine.ledger import RunAccount, UnitOutcome, append_outcome, append_run
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.imagery.sources.earth_engine.units import ListingUnit, UnitClient, failed
from cropray.io.storage import Location, write_json
from cropray.io.zones import Zone


class EarthEngineAcquisition(Acquisition[EarthEngineSettings]):
    """One run: what is known of each zone so far."""

    def __init__(self, settings: EarthEngineSettings, order: Order) -> None:
        super().__init__(settings, order)
        self._noun = order.cube.noun
        self._workspace = order.workspace
        self._zones = {zone.zone_id: zone for zone in order.zones}
        self._account = RunAccount()
        self._found: list[Found] = []
        self._units: dict[str, tuple[months.MonthUnit, ...]] = {}

    @property
    def client(self) -> Callable[[Callable[[], None]], Callable[[Any], Any]]:
        """See `Acquisition.client`."""
        return partial(UnitClient, self.settings, self._workspace)

    def announce(self) -> list[str]:
        """See `Acquisition.announce`: nothing is asked yet."""
        require_past(self.order, dt.datetime.now(dt.UTC).date())
        return []

    def inputs(self, zone: Zone) -> Key:
        """See `Acquisition.inputs`. Code is no part of it: a changed line must not ask for a country again (`RECIPE`)."""
        season, grid = self.order.season(zone), zone.grid
        content = {
            "zone": fingerprint([grid.epsg, grid.bounds, grid.shape]),
            "season": season.first_month,
            "recipe": months.RECIPE,
            **season.cube.in_content(),
        }
        decided = {"imagery.source": self.settings.source, "imagery.collection": self.settings.collection}
        return Key({"content": content, "settings": decided, "libraries": {}, "code": {}})

    def earlier(self, zone: Zone) -> str:
        """See `Acquisition.earlier`."""
        return months.listing_key(self.settings, zone, self.order.season(zone))

    def outputs(self, zone: Zone) -> tuple[Location, ...]:
        """See `Acquisition.outputs`."""
        return super().outputs(zone)[:2]

    def make(self, zone: Zone) -> Callable[[], acquire.ZoneAcquisition]:
        """See `Acquisition.make`; `ready` gave the zone out."""
        units = self._units.get(zone.zone_id, ())
        return partial(months.assemble_zone, self._workspace, zone, self.order.season(zone), units)

    def tidy(self, todo: Collection[str], *, overwrite: bool) -> list[str]:
        """See `Acquisition.tidy`."""
        for zone_id in self._zones:
            months.remove_leftovers(self._workspace, zone_id)
            if zone_id not in todo:
                months.drop_months(self._workspace, zone_id)
            elif overwrite:
                months.forget_zone(self._workspace, zone_id)
        return []

    def ready(self, todo: Sequence[Zone], ask: Ask | None, progress: Progress) -> Generator[Zone | None, None, None]:
        """See `Acquisition.ready`; what the run came to is written down and said, however it ends."""
        assert ask is not None
        started = time.monotonic()
        try:
            self._list_zones(todo, ask, progress)
            yield from self._fetch_months(ask, progress)
        finally:
            self._account.seconds = time.monotonic() - started
            if self._account.requests:
                append_run(self._workspace, self._account)
                progress.note(self._account.describe())

    def ended(self, zone_id: str, place: tuple[int, int], progress: Progress, *, is_made: bool) -> None:  # noqa: ARG002
        """See `Acquisition.ended`: the months of a composite that is written are not needed any more."""
        if is_made:
            months.drop_months(self._workspace, zone_id)

    def _list_zones(self, zones: Sequence[Zone], ask: Ask, progress: Progress) -> None:
        """Find the scenes of every zone, as they were listed before, or by one request each; InputError where there is none."""
        unlisted, empty = [], []
        for zone in zones:
            indexes = months.read_listing(self._workspace, self.settings, zone, self.order.season(zone))
            if indexes is None:
                unlisted.append(ListingUnit(zone, self.order.season(zone)))
            else:
                self._take_listing(zone, indexes)
        for done, outcome in enumerate(self._outcomes(unlisted, ask), start=1):
            zone = self._zones[outcome.zone_id]
            if outcome.error is None and self._take_listing(zone, outcome.assets) == ():
                empty.append(zone)
            progress.step(done, len(unlisted), zone.zone_id, "zones listed")
        acquire.require_scenes(empty, self.order.season_start, self.order.cube)
        left_out = acquire.gather_left_out(self._found, {})
        write_json(self._workspace.left_out, left_out)
        for line in [*acquire.describe_left_out(left_out), *self._empty_months()]:
            progress.note(line)

    def _fetch_months(self, ask: Ask, progress: Progress) -> Iterator[Zone | None]:
        """Ask for the steps that are not there; give out each zone when its last one has come."""
        progress.restart()
        missing = {
            zone_id: {unit.month: unit for unit in units if not months.has_month(self._workspace, unit)}
            for zone_id, units in self._units.items()
        }
        todo = [unit for units in missing.values() for unit in units.values()]
        n_months = sum(map(len, self._units.values()))
        if len(todo) < n_months:
            progress.note(f"{n_months - len(todo)} of {n_months} {self._noun}s are here already")
        yield from [self._zones[zone_id] for zone_id, units in missing.items() if not units]
        for done, outcome in enumerate(self._outcomes(todo, ask), start=1):
            progress.step(done, len(todo), f"{outcome.zone_id} {outcome.unit}", f"{self._noun}s")
            if outcome.error is None:
                del missing[outcome.zone_id][outcome.unit]
            is_last = outcome.error is None and not missing[outcome.zone_id]
            yield self._zones[outcome.zone_id] if is_last else None

    def _empty_months(self) -> list[str]:
        empty = {}
        for zone_id, units in self._units.items():
            season, listed = self.order.season(self._zones[zone_id]), {unit.month for unit in units}
            empty[zone_id] = acquire.months_without([name in listed for name in season.names], season)
        return acquire.describe_empty_months(empty, self.order.cube)

    def _outcomes(self, units: Sequence[ListingUnit] | Sequence[months.MonthUnit], ask: Ask) -> Iterator[UnitOutcome]:
        """Outcomes of units, written down and counted."""
        for unit, answer, death in ask(units):
            outcome: UnitOutcome = answer if death is None else failed(unit, death)
            append_outcome(self._workspace, outcome)
            grid = self._zones[outcome.zone_id].grid
            self._account.count(outcome, grid.height * grid.width)
            if outcome.is_cut_off:
                raise CroprayError(str(outcome.error))
            if outcome.error is not None:
                self._fail(outcome.zone_id, f"{outcome.unit}: {outcome.error}")
            yield outcome

    def _fail(self, zone_id: str, reason: str) -> None:
        before = self.failures.get(zone_id)
        self.failures[zone_id] = reason if before is None else f"{before}; {reason}"

    def _take_listing(self, zone: Zone, indexes: Sequence[str]) -> tuple[Scene, ...] | None:
        """The zone's scenes; None where they cannot be used, which is recorded."""
        season, collection = self.order.season(zone), self.settings.collection
        try:
            scenes = months.scenes_of(indexes, collection, zone.grid, season)
            units = months.month_units(zone, season, scenes)
        except InputError as error:
            self._fail(zone.zone_id, str(error))
            return None
        if scenes:
            elsewhere = months.assets_elsewhere(indexes, collection, zone.grid, season)
            months.write_listing(self._workspace, zone.zone_id, self.earlier(zone), scenes, elsewhere)
            self._units[zone.zone_id] = units
            older = months.older_assets(units)
            self._found.append(Found(scenes, {months.ELSEWHERE: elsewhere}, {months.OLDER: older} if older else {}))
        return scenes


def require_past(order: Order, today: dt.date) -> None:
    """Raises: InputError: a season has not ended: what was computed once is not asked for again."""
    unfinished = [zone.zone_id for zone in order.zones if order.season(zone).end > today]
    if unfinished:
        raise InputError(
            f"the season of {', '.join(map(repr, unfinished[:5]))} ends after today ({today}): its last {order.cube.noun}s would be "
            f"taken for {order.cube.noun}s without a scene; set season_start to {order.cube.months} months that are over"
        )
