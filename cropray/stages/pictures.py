"""Pictures of the data, made by `report` before any training: one zone a task, then the overviews of all zones."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cropray.cluster.session import ray_session
from cropray.cluster.zone_jobs import ZoneTask, run_zone_tasks, stamped
from cropray.config import JobConfig
from cropray.core.closure import Code, closure
from cropray.core.cube import CubeSpec, Season
from cropray.core.errors import ConfigError
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import key_of
from cropray.core.progress import Progress
from cropray.datasets.manifest import Manifest, ZoneEntry
from cropray.datasets.storage import read_pixels
from cropray.evaluation.results import DataPictures, ReportInputs, ZonePictures
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.io.artefacts import Stamped
from cropray.io.storage import Location, content_id, remove, whole_folder
from cropray.io.workspace import Workspace, require
from cropray.io.zones import Zone
from cropray.report.class_pictures import draw_class_by_region, draw_class_distribution
from cropray.report.drawing import common_steps, step_names
from cropray.report.films import View, draw_film, views_of, zone_year
from cropray.report.observation_pictures import ObservedZone, draw_n_obs, draw_observed_months
from cropray.report.profile_pictures import ProfileData, draw_band_profiles, draw_ndvi_profiles
from cropray.report.summary import (
    NDVI,
    Observations,
    ZoneSummary,
    count_observations,
    count_profiles,
    no_profiles,
    read_summary,
    save_summary,
    series_of,
)
from cropray.stages.inputs import job_zones, season_of

STAGE = "pictures"
N_OBS_FILE = "n_obs.png"
SUMMARY_FILE = "summary.npz"
_NOT_IN_NAMES: Final = re.compile(r"[^\w.-]", re.ASCII)
ALL_ZONES = "@all"  # name of the overviews' stamp; no zone can have it


@dataclass(frozen=True, slots=True)
class ZoneDrawing:
    """What is needed to draw one zone; travels to a worker."""

    zone_id: str
    counts_profiles: bool
    """Whether its labelled pixels are looked at: training zones only."""
    has_images: bool
    """Zones of points have none."""
    has_film: bool
    film_px: int
    months: tuple[str, ...]
    n_classes: int
    """Legend class ids are below this."""
    workspace: Workspace
    cube: CubeSpec


def make_pictures(
    job: JobConfig, manifest: Manifest, progress: Progress
) -> tuple[DataPictures, dict[str, Observations]]:
    """Draw what is not up to date: where the pictures lie; zone → how often it was observed, for zones with images.

    Raises:
        ConfigError: `report.films` names zones that the dataset has not.
        MissingArtefactError: a composite or a pixel table is missing.
        StageFailedError: some zones failed.
    """
    workspace = job.artefacts
    drawings = _drawings(job, manifest)
    tasks = _tasks(job, drawings, manifest)
    if job.overwrite or not all(workspace.is_current(STAGE, t.zone_id, t.inputs, t.outputs) for t in tasks):
        with ray_session(job.cluster):
            run_zone_tasks(STAGE, tasks, workspace, progress, overwrite=job.overwrite, wait_s=job.cluster.wait_s)
    else:
        progress.note(f"pictures of all {len(tasks)} zones are up to date")
    _remove_others(workspace, manifest)
    summaries = _Summaries(workspace, manifest)
    overviews = _draw_overviews(job, manifest, tasks, summaries, progress)
    films, views = [drawing.zone_id for drawing in drawings if drawing.has_film], views_of(manifest.cube)
    if not views and manifest.source == "parcels" and job.report.films != "none":
        progress.note(f"no films: they need B04, B03 and B02, and the cube has {' '.join(manifest.cube.band_ids)}")
    zones = tuple(_zone_pictures(workspace, zone, views) for zone in manifest.zones if zone.zone_id in films)
    return DataPictures(overviews, zones), summaries.observed


def draw_zone(drawing: ZoneDrawing) -> None:
    """Write one zone's summary, and its films and observation maps if it has some, whole.

    Raises:
        MissingArtefactError: a composite or a pixel table is missing.
    """
    workspace, zone_id, cube = drawing.workspace, drawing.zone_id, drawing.cube
    profiles, observations = None, None
    with whole_folder(workspace.zone_pictures(zone_id)) as folder:
        if drawing.counts_profiles:
            profiles = count_profiles(read_pixels(workspace, zone_id, cube), drawing.n_classes, cube)
        if drawing.has_images:
            n_obs = read_n_obs(workspace.n_obs(zone_id), cube=cube)
            observations = count_observations(n_obs)
            if drawing.has_film:
                draw_n_obs(zone_id, n_obs, drawing.months, folder / N_OBS_FILE)
                composite = read_composite(workspace.composite(zone_id), cube=cube)
                year = zone_year(zone_id, drawing.months, composite, n_obs, drawing.film_px, cube)
                for view in views_of(cube):
                    draw_film(year, view, folder / f"{view.name}.gif")
        save_summary(ZoneSummary(profiles, observations), folder / SUMMARY_FILE)


def film_zones(job: JobConfig, manifest: Manifest) -> tuple[str, ...]:
    """Zones that get films and observation maps, in table order.

    Raises:
        ConfigError: `report.films` names zones that the dataset has not.
    """
    return () if manifest.source == "points" else filmed(job, manifest.zones, manifest.cube)


def filmed(job: JobConfig, of: Sequence[ZoneEntry] | Sequence[Zone], cube: CubeSpec) -> tuple[str, ...]:
    """Zones, of some that have images of a cube, that get films; raises as `film_zones`."""
    films, zone_ids = job.report.films, [zone.zone_id for zone in of]
    if films == "none" or not views_of(cube):
        return ()
    if isinstance(films, tuple):
        unknown = sorted(set(films) - set(zone_ids))
        if unknown:
            raise ConfigError(f"report.films names {unknown}; the dataset has the zones {zone_ids}")
        return tuple(zone_id for zone_id in zone_ids if zone_id in films)
    zones = [zone for zone in of if job.zones is None or zone.zone_id in job.zones]
    if films == "one_per_region":
        first: dict[str, str] = {}
        for zone in sorted(zones, key=lambda zone: zone.split != "train"):  # training zones before test zones
            first.setdefault(zone.region, zone.zone_id)
        zones = [zone for zone in zones if zone.zone_id in first.values()]
    return tuple(zone.zone_id for zone in zones)


def _drawings(job: JobConfig, manifest: Manifest) -> list[ZoneDrawing]:
    months, films = _months(job, manifest), film_zones(job, manifest)
    n_classes = 1 + max(crop.id for crop in manifest.classes)
    return [
        ZoneDrawing(
            zone_id=zone.zone_id,
            counts_profiles=zone.split == "train",
            has_images=manifest.source == "parcels",
            has_film=zone.zone_id in films,
            film_px=job.report.film_px,
            months=months[zone.zone_id],
            n_classes=n_classes,
            workspace=job.artefacts,
            cube=manifest.cube,
        )
        for zone in manifest.zones
    ]


def _months(job: JobConfig, manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Zone → name of each step of its season."""
    seasons = dict.fromkeys(manifest.zone_ids, job.season_start)
    if manifest.source == "parcels":
        every_zone = job.model_copy(update={"zones": None})
        seasons |= {zone.zone_id: season_of(zone, job).first_month for zone in job_zones(every_zone)}
    return {zone_id: step_names(Season(seasons[zone_id], manifest.cube)) for zone_id in manifest.zone_ids}


def artefacts(job: JobConfig, manifest: Manifest) -> Iterator[Stamped]:
    """The pictures of each zone, and the overviews of all.

    Raises:
        MissingArtefactError: a composite is missing.
    """
    tasks = _tasks(job, _drawings(job, manifest), manifest)
    yield from stamped("report", STAGE, tasks, job.artefacts)
    yield _overviews(job, manifest, tasks)


def _tasks(job: JobConfig, drawings: Sequence[ZoneDrawing], manifest: Manifest) -> list[ZoneTask[None]]:
    code = closure(draw_zone)
    return [_task(job, code, drawing, zone) for drawing, zone in zip(drawings, manifest.zones, strict=True)]


def _task(job: JobConfig, code: Code, drawing: ZoneDrawing, zone: ZoneEntry) -> ZoneTask[None]:
    workspace, folder = drawing.workspace, drawing.workspace.zone_pictures(zone.zone_id)
    content: dict[str, object] = {**drawing.cube.in_content()}
    if drawing.counts_profiles:
        content["zone of the dataset"] = fingerprint(zone.files)
    if drawing.has_images:
        content["observation counts"] = content_id(require(workspace.n_obs(zone.zone_id), "acquire"))
    if drawing.has_film:
        content["composite"] = content_id(require(workspace.composite(zone.zone_id), "acquire"))
        content["months"] = " ".join(drawing.months)
    inputs = key_of(code, {"report": job.report} if drawing.has_film else {}, content, apart=("report.films",))
    drawn = [f"{view.name}.gif" for view in views_of(drawing.cube)] + [N_OBS_FILE] if drawing.has_film else []
    outputs = tuple(folder / name for name in (SUMMARY_FILE, *drawn))
    return ZoneTask(zone.zone_id, partial(draw_zone, drawing), inputs, outputs)


class _Summaries:
    """The summaries of all zones, read one after the other."""

    def __init__(self, workspace: Workspace, manifest: Manifest) -> None:
        self.profiles = no_profiles(manifest.n_classes, manifest.cube)
        """Over the training zones and the dataset's class indices."""
        self.observed: dict[str, Observations] = {}
        lookup = manifest.lookup()
        for zone_id in manifest.zone_ids:
            summary = read_summary(workspace.zone_pictures(zone_id) / SUMMARY_FILE, lookup, manifest.cube)
            if summary.profiles is not None:
                self.profiles.add(summary.profiles)
            if summary.observations is not None:
                self.observed[zone_id] = summary.observations


def _overviews(job: JobConfig, manifest: Manifest, tasks: Sequence[ZoneTask[None]]) -> Stamped:
    """The pictures of all zones together; `tasks` are those of the zones, in the manifest's order."""
    workspace, drawn = job.artefacts, _drawn(manifest)
    content = {
        **{f"pictures of zone {task.zone_id}": task.inputs.digest for task in tasks},
        "dataset": manifest.fingerprint(),
        "months": " ".join(common_steps(_months(job, manifest).values())),
    }
    inputs = key_of(closure(*(picture.draw for picture in drawn.values())), {}, content)
    outputs = tuple(workspace.pictures / f"{name}.png" for name in drawn)
    return Stamped("report/overviews", "", workspace, (STAGE, ALL_ZONES), inputs, outputs)


@dataclass(frozen=True, slots=True)
class _Overview:
    """A picture of all zones together."""

    title: str
    draw: Callable[..., None]
    shows: str
    """Key of `_shown`."""
    options: Mapping[str, str] = field(default_factory=dict)


def _drawn(manifest: Manifest) -> dict[str, _Overview]:
    """File → what it shows, and what draws it."""
    drawn = {
        "class_distribution": _Overview("Labelled pixels per class", draw_class_distribution, "inputs"),
        "class_by_region": _Overview("Labelled pixels per class and region", draw_class_by_region, "inputs"),
    }
    if NDVI in series_of(manifest.cube):
        drawn["ndvi_profiles"] = _Overview("NDVI of each class through the year", draw_ndvi_profiles, "profiles")
    for unit in dict.fromkeys(band.unit for band in manifest.cube.bands):
        name = "band_profiles" if unit == "reflectance" else f"band_profiles_{_NOT_IN_NAMES.sub('-', unit)}"
        title = f"{unit[:1].upper()}{unit[1:]} of each class through the year"
        drawn[name] = _Overview(title, draw_band_profiles, "profiles", {"unit": unit})
    if manifest.source == "parcels":  # points have no images
        noun = {"noun": manifest.cube.noun}
        drawn["observations"] = _Overview("Clear observations by zone", draw_observed_months, "observed", noun)
    return drawn


def _draw_overviews(
    job: JobConfig, manifest: Manifest, tasks: Sequence[ZoneTask[None]], summaries: _Summaries, progress: Progress
) -> tuple[tuple[str, Location], ...]:
    """(what it shows, file) of the pictures of all zones together."""
    drawn, overviews = _drawn(manifest), _overviews(job, manifest, tasks)
    if not overviews.is_current(progress, "pictures of all zones together", overwrite=job.overwrite):
        overviews.forget()
        shown = _shown(job, manifest, summaries)
        for picture, path in zip(drawn.values(), overviews.outputs, strict=True):
            picture.draw(*shown[picture.shows], path, **picture.options)
        overviews.mark()
    return tuple((picture.title, path) for picture, path in zip(drawn.values(), overviews.outputs, strict=True))


def _shown(job: JobConfig, manifest: Manifest, summaries: _Summaries) -> dict[str, tuple[object, ...]]:
    """What pictures show → the first arguments of what draws them."""
    months = common_steps(_months(job, manifest).values())
    n_pixels = manifest.class_counts(zone.zone_id for zone in manifest.of_split("train"))
    profiles = ProfileData(summaries.profiles, manifest.classes, n_pixels, months)
    observed = [
        ObservedZone(z.zone_id, z.region, summaries.observed[z.zone_id])
        for z in manifest.zones
        if z.zone_id in summaries.observed
    ]
    inputs = ReportInputs(manifest)
    return {"inputs": (inputs,), "profiles": (profiles,), "observed": (observed, months)}


def _zone_pictures(workspace: Workspace, zone: ZoneEntry, views: Sequence[View]) -> ZonePictures:
    folder = workspace.zone_pictures(zone.zone_id)
    films = tuple((view.title, folder / f"{view.name}.gif") for view in views)
    return ZonePictures(zone.zone_id, zone.region, films, folder / N_OBS_FILE)


def _remove_others(workspace: Workspace, manifest: Manifest) -> None:
    """Remove pictures of zones that the dataset no longer has, and what an interruption left half-drawn."""
    for folder in (workspace.pictures / "zones").iterdir():
        if folder.name not in manifest.zone_ids:
            remove(folder)
