"""The first half of `zones` where a job chooses its zones: read land cover, choose, say why, draw."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from cropray.config import JobConfig
from cropray.core.closure import closure
from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid
from cropray.core.keys import key_of
from cropray.core.progress import Progress
from cropray.io.artefacts import Stamped
from cropray.io.raw_files import source_fingerprint
from cropray.io.storage import Location, content_id, whole_file, write_json
from cropray.io.zones import write_zones
from cropray.report.zones_picture import draw_zones, read_outline
from cropray.zone_selection.land_cover import LandCoverMap, input_files, land_cover_map
from cropray.zone_selection.regions import Region, bundled_regions, read_regions
from cropray.zone_selection.selection import RegionChoice, choose_zones, search_areas
from cropray.zone_selection.settings import ZoneSelectionSettings


def choose(job: JobConfig, settings: ZoneSelectionSettings, progress: Progress) -> None:
    """Write `zones.csv`, `zones.json` and `zones.png`.

    Raises:
        InputError: the region table, the land cover map or the outline cannot be used, or too few zones fit.
    """
    regions = bundled_regions() if settings.region_table is None else read_regions(settings.region_table)
    workspace = job.artefacts
    progress.stage("zones", f"{settings.zones_per_region} in each of {len(regions)} regions, by cropland")
    chosen = choice(job, settings)
    if chosen.is_current(progress, "choice of zones", overwrite=job.overwrite):
        return
    outline = read_outline(settings.outline)
    areas = search_areas(regions, settings, outline)
    classes = _read_classes(land_cover_map(settings.worldcover), regions, [area.grid for area in areas], progress)
    choices = choose_zones(regions, areas, classes, settings)
    chosen.forget()
    _write(job, settings, choices)
    draw_zones(workspace.zone_picture, choices, outline, settings.radius_km)
    chosen.mark()
    _report(choices, workspace.zone_reasons, workspace.zone_picture, progress)


def choice(job: JobConfig, settings: ZoneSelectionSettings) -> Stamped:
    """What `choose` makes. A remote map is known by its address alone: published land cover does not change.

    Raises:
        InputError: the region table or the land cover map cannot be read.
    """
    workspace, outline = job.artefacts, settings.outline
    regions = bundled_regions() if settings.region_table is None else read_regions(settings.region_table)
    content = {
        **{f"region {region.region}": fingerprint(asdict(region)) for region in regions},
        "regions' order": fingerprint([region.region for region in regions]),
        "outline": None if outline is None else content_id(outline),
        "land cover": source_fingerprint(input_files(settings.worldcover), "zone_selection.worldcover.path"),
    }
    code = closure(read_outline, search_areas, land_cover_map, choose_zones, draw_zones)
    return Stamped(
        group="zones/chosen",
        unit="",
        workspace=workspace,
        stamp=("zones", "chosen"),
        inputs=key_of(code, {"zone_selection": settings}, content),
        outputs=(workspace.chosen_zones, workspace.zone_reasons, workspace.zone_picture),
    )


def _read_classes(
    source: LandCoverMap, regions: Sequence[Region], grids: Sequence[Grid], progress: Progress
) -> list[npt.NDArray[np.uint8]]:
    classes = []
    with ThreadPoolExecutor(source.n_readers) as pool:
        for region, cover in zip(regions, pool.map(source.read, grids), strict=True):
            classes.append(cover)
            progress.step(len(classes), len(regions), region.region, "regions")
    return classes


def _write(job: JobConfig, settings: ZoneSelectionSettings, choices: Sequence[RegionChoice]) -> None:
    chosen = [one for choice in choices for one in choice.chosen]
    with whole_file(job.artefacts.chosen_zones) as path:
        write_zones([one.zone for one in chosen], path)
    reasons = {"settings": settings.model_dump(mode="json"), "zones": [one.record() for one in chosen]}
    write_json(job.artefacts.zone_reasons, reasons)


def _report(choices: Sequence[RegionChoice], reasons: Location, picture: Location, progress: Progress) -> None:
    width = max(len(choice.region.region) for choice in choices)
    for choice in choices:
        shares = " ".join(f"{one.cropland_share:4.0%}" for one in choice.chosen)
        test = next(one.zone.zone_id for one in choice.chosen if one.zone.split == "test")
        progress.note(f"{choice.region.region:<{width}}  cropland {shares}  test: {test}")
    n_unknown = sum(one.unknown_share > 0 for choice in choices for one in choice.chosen)
    if n_unknown:
        progress.note(f"{n_unknown} zones lie partly where the land cover map has no data: see '{reasons.name}'")
    progress.note(f"why each zone was chosen: {reasons}; map: {picture}")
