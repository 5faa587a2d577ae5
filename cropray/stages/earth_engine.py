"""`acquire` from Earth Engine: every zone is listed, its steps of time are asked for, its composite is written.

What came stays in the workspace: an interrupted run goes on where it stood, and asks for nothing that is there.
"""

import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Sequence
from functools import partial

import ray

from cropray.cluster.session import ray_session, require_cpus
from cropray.cluster.zone_jobs import ZoneOutcome, ZoneTask, submit
from cropray.config import JobConfig
from cropray.core.cube import Season
from cropray.core.errors import CroprayError, InputError, StageFailedError
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import Key
from cropray.core.progress import Progress
from cropray.imagery.acquire import (
    ZoneAcquisition,
    describe_clear,
    describe_empty_months,
    describe_left_out,
    gather_left_out,
    months_without,
    require_scenes,
)
from cropray.imagery.scenes import Found, Scene
from cropray.imagery.sources.earth_engine.ledger import RunAccount, UnitOutcome, append_outcome, append_run
from cropray.imagery.sources.earth_engine.months import (
    ELSEWHERE,
    OLDER,
    RECIPE,
    MonthUnit,
    assemble_zone,
    assets_elsewhere,
    drop_months,
    forget_zone,
    has_month,
    listing_key,
    month_units,
    older_assets,
    read_listing,
    remove_leftovers,
    scenes_of,
    write_listing,
)
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.io.artefacts import Stamped, describe_again
from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.stages.earth_engine_pool import ClientPool, ListingUnit
from cropray.stages.inputs import job_zones, season_of, steps_of

STAGE = "acquire"


def run(job: JobConfig, settings: EarthEngineSettings, progress: Progress) -> None:
    """Write the composite and the observation counts of every zone.

    Raises:
        ConfigError: there is no CPU that could run a client.
        InputError: zones have no scene in their season.
        CroprayError: the service cannot be used at all.
        StageFailedError: some zones failed.
    """
    zones = job_zones(job)
    require_past(job, zones, dt.datetime.now(dt.UTC).date())
    progress.stage(
        STAGE, f"medians per {job.cube_spec.noun} of {settings.collection} on Earth Engine for {len(zones)} zones"
    )
    todo = _prepare(job, settings, zones, progress)
    if len(todo) < len(zones):
        progress.note(f"{len(zones) - len(todo)} of {len(zones)} zones are up to date and skipped")
    if not todo:
        return
    with ray_session(job.cluster), ClientPool(settings, job.artefacts) as pool:
        require_cpus(1, job.cluster.wait_s)
        acquisition = _Acquisition(job, settings, pool, progress)
        with acquisition.accounted():
            acquisition.list_zones(todo)
            acquisition.fetch_months()
    if acquisition.records:
        progress.note(describe_clear(acquisition.records))
    if acquisition.failures:
        raise StageFailedError(STAGE, acquisition.failures, len(zones) - len(acquisition.failures))


def require_past(job: JobConfig, zones: Sequence[Zone], today: dt.date) -> None:
    """Refuse a season that has not ended: what was computed once is not asked for again.

    Raises:
        InputError: there is such a zone.
    """
    unfinished = [zone.zone_id for zone in zones if steps_of(zone, job).end > today]
    if unfinished:
        raise InputError(
            f"the season of {', '.join(map(repr, unfinished[:5]))} ends after today ({today}): its last {job.cube_spec.noun}s would be "
            f"taken for {job.cube_spec.noun}s without a scene; set season_start to {job.cube.months} months that are over"
        )


def _prepare(job: JobConfig, settings: EarthEngineSettings, zones: Sequence[Zone], progress: Progress) -> list[Zone]:
    """The zones that are not up to date; what killed runs left of any is tidied up."""
    workspace, todo = job.artefacts, []
    stale: dict[str, str] = {}
    for zone in zones:
        remove_leftovers(workspace, zone.zone_id)
        artefact = _artefact(job, settings, zone)
        if job.overwrite:
            forget_zone(workspace, zone.zone_id)
        elif why := artefact.why_stale():
            stale[zone.zone_id] = why[0]
        else:
            drop_months(workspace, zone.zone_id)
            continue
        artefact.forget()
        todo.append(zone)
    if again := describe_again(stale, len(zones)):
        progress.note(again)
    return todo


def artefacts(job: JobConfig, settings: EarthEngineSettings) -> Iterator[Stamped]:
    """What the stage makes."""
    return (_artefact(job, settings, zone) for zone in job_zones(job))


def _artefact(job: JobConfig, settings: EarthEngineSettings, zone: Zone) -> Stamped:
    """No code is in its account: a changed line must not ask for a country again (see `RECIPE`)."""
    workspace, zone_id, grid = job.artefacts, zone.zone_id, zone.grid
    content = {
        "zone": fingerprint([grid.epsg, grid.bounds, grid.shape]),
        "season": season_of(zone, job),
        "recipe": RECIPE,
        **job.cube_spec.in_content(),
    }
    decided = {"imagery.source": settings.source, "imagery.collection": settings.collection}
    return Stamped(
        group=STAGE,
        unit=zone_id,
        workspace=workspace,
        stamp=(STAGE, zone_id),
        inputs=Key({"content": content, "settings": decided, "libraries": {}, "code": {}}),
        outputs=(workspace.composite(zone_id), workspace.n_obs(zone_id)),
        earlier=listing_key(settings, zone, steps_of(zone, job)),
    )


class _Acquisition:
    """One run: what is known of each zone so far."""

    def __init__(self, job: JobConfig, settings: EarthEngineSettings, pool: ClientPool, progress: Progress) -> None:
        self.records: list[ZoneAcquisition] = []
        self.failures: dict[str, str] = {}
        self._job = job
        self._settings = settings
        self._pool = pool
        self._progress = progress
        self._noun = job.cube_spec.noun
        self._workspace: Workspace = job.artefacts
        self._account = RunAccount(dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
        self._zones: dict[str, Zone] = {}
        self._found: list[Found] = []
        self._units: dict[str, tuple[MonthUnit, ...]] = {}
        self._assembling: dict[ray.ObjectRef, str] = {}

    @contextlib.contextmanager
    def accounted(self) -> Iterator[None]:
        """Write down and say what the run came to, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._account.seconds = time.monotonic() - started
            if self._account.total.requests:
                append_run(self._workspace, self._account)
                self._progress.note(self._account.describe())

    def list_zones(self, zones: Sequence[Zone]) -> None:
        """Find the scenes of every zone: as they were listed before, or by one request each.

        Raises:
            InputError: zones have no scene in their season.
        """
        self._zones = {zone.zone_id: zone for zone in zones}
        unlisted, empty = [], []
        for zone in zones:
            indexes = read_listing(self._workspace, self._settings, zone, self._season(zone))
            if indexes is None:
                unlisted.append(ListingUnit(zone, self._season(zone)))
            else:
                self._take_listing(zone, indexes)
        for done, outcome in enumerate(self._outcomes(unlisted), start=1):
            zone = self._zones[outcome.zone_id]
            if outcome.error is None and self._take_listing(zone, outcome.assets) == ():
                empty.append(zone)
            self._progress.step(done, len(unlisted), zone.zone_id, "zones listed")
        require_scenes(empty, self._job.season_start, self._job.cube_spec)
        left_out = gather_left_out(self._found, {})
        write_json(self._workspace.left_out, left_out)
        for line in [*describe_left_out(left_out), *self._empty_months()]:
            self._progress.note(line)

    def fetch_months(self) -> None:
        """Ask for the steps that are not there; write each zone's composite when its last one has come."""
        self._progress.restart()
        missing = {
            zone_id: {unit.month: unit for unit in units if not has_month(self._workspace, unit)}
            for zone_id, units in self._units.items()
        }
        todo = [unit for units in missing.values() for unit in units.values()]
        n_months = sum(map(len, self._units.values()))
        if len(todo) < n_months:
            self._progress.note(f"{n_months - len(todo)} of {n_months} {self._noun}s are here already")
        for zone_id in [zone_id for zone_id, units in missing.items() if not units]:
            self._assemble(zone_id)
        for done, outcome in enumerate(self._outcomes(todo), start=1):
            if outcome.error is None:
                del missing[outcome.zone_id][outcome.unit]
                if not missing[outcome.zone_id]:
                    self._assemble(outcome.zone_id)
            self._finish(timeout_s=0.0)
            self._progress.step(done, len(todo), f"{outcome.zone_id} {outcome.unit}", f"{self._noun}s")
        while self._assembling:
            self._finish(timeout_s=None)

    def _empty_months(self) -> list[str]:
        empty = {}
        for zone_id, units in self._units.items():
            season, listed = self._season(self._zones[zone_id]), {unit.month for unit in units}
            empty[zone_id] = months_without([name in listed for name in season.names], season)
        return describe_empty_months(empty, self._job.cube_spec)

    def _season(self, zone: Zone) -> Season:
        return steps_of(zone, self._job)

    def _outcomes(self, units: Sequence[ListingUnit] | Sequence[MonthUnit]) -> Iterator[UnitOutcome]:
        """Outcomes of units, written down and counted."""
        for outcome in self._pool.outcomes(units):
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
        season = self._season(zone)
        try:
            scenes = scenes_of(indexes, self._settings.collection, zone.grid, season)
            units = month_units(zone, season, scenes)
        except InputError as error:
            self._fail(zone.zone_id, str(error))
            return None
        if scenes:
            elsewhere = assets_elsewhere(indexes, self._settings.collection, zone.grid, season)
            write_listing(self._workspace, zone.zone_id, listing_key(self._settings, zone, season), scenes, elsewhere)
            self._units[zone.zone_id] = units
            older = older_assets(units)
            self._found.append(Found(scenes, {ELSEWHERE: elsewhere}, {OLDER: older} if older else {}))
        return scenes

    def _assemble(self, zone_id: str) -> None:
        zone = self._zones[zone_id]
        run_ = partial(assemble_zone, self._workspace, zone, self._season(zone), self._units[zone_id])
        inputs = _artefact(self._job, self._settings, zone).inputs
        self._assembling[submit(ZoneTask(zone_id, run_, inputs, ()), STAGE, self._workspace)] = zone_id

    def _finish(self, timeout_s: float | None) -> None:
        """Take the composites that are written; their months are not needed any more."""
        if not self._assembling:
            return
        ready, _ = ray.wait(list(self._assembling), num_returns=1, timeout=timeout_s)
        for ref in ready:
            zone = self._zones[self._assembling.pop(ref)]
            try:
                outcome: ZoneOutcome[ZoneAcquisition] = ray.get(ref)
            except ray.exceptions.RayError as error:  # the worker itself died
                outcome = ZoneOutcome(zone.zone_id, None, f"{type(error).__name__}: {error}")
            if outcome.result is None:
                self._fail(zone.zone_id, str(outcome.error))
            else:
                drop_months(self._workspace, zone.zone_id)
                self.records.append(outcome.result)
