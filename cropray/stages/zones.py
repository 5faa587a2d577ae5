"""`zones`: choose the zones where the job asks for it; the zone table as GeoParquet, for whoever joins it."""

from collections.abc import Iterator, Sequence
from functools import partial

import geopandas
import pyproj
import shapely

from cropray.config import JobConfig
from cropray.core.closure import closure
from cropray.core.fingerprint import fingerprint
from cropray.core.keys import key_of
from cropray.core.progress import Progress
from cropray.io.artefacts import Stamped
from cropray.io.storage import whole_file
from cropray.io.zones import Zone, zone_fingerprint
from cropray.report.zones_picture import read_outline
from cropray.stages.inputs import job_zones, season_of
from cropray.stages.preflight import Ahead, Check
from cropray.stages.zone_selection import choice, choose
from cropray.zone_selection.land_cover import input_files
from cropray.zone_selection.regions import read_regions


def run(job: JobConfig, progress: Progress) -> None:
    """Write `zones.parquet`: zone_id, region, split, season_start, epsg, transform, shape, geometry (EPSG:4326).

    Where the job has a `zone_selection`, the zones are chosen first: `zones.csv`, `zones.json`, `zones.png`.
    """
    if job.zone_selection is not None:
        choose(job, job.zone_selection, progress)
    zones = job_zones(job)
    workspace = job.artefacts
    regions = len({zone.region for zone in zones})
    n_test = sum(zone.split == "test" for zone in zones)
    progress.stage("zones", f"{len(zones)} zones in {regions} regions, {n_test} held out as test")
    table = _table(job, zones)
    if table.is_current(progress, "zone table", overwrite=job.overwrite):
        return
    with whole_file(workspace.zones_table) as path:
        table_of(zones, [season_of(zone, job).first_month for zone in zones]).to_parquet(path)
    table.mark()


def artefacts(job: JobConfig) -> Iterator[Stamped]:
    """What the stage makes."""
    if job.zone_selection is not None:
        yield choice(job, job.zone_selection)
    yield _table(job, job_zones(job))


def checks(job: JobConfig, _ahead: Ahead) -> Iterator[Check]:
    """Looks at what zones are chosen by."""
    if (choice := job.zone_selection) is None:
        return
    if choice.region_table is not None:
        yield partial(read_regions, choice.region_table)
    if choice.outline is not None:
        yield partial(read_outline, choice.outline)
    yield partial(input_files, choice.worldcover)


def _table(job: JobConfig, zones: Sequence[Zone]) -> Stamped:
    workspace = job.artefacts
    content = {
        f"zone {zone.zone_id}": fingerprint([zone_fingerprint(zone), season_of(zone, job).first_month])
        for zone in zones
    }
    inputs = key_of(closure(table_of), {}, {**content, "zones' order": fingerprint([*content])})
    return Stamped("zones", "", workspace, ("zones", "all"), inputs, (workspace.zones_table,))


def table_of(zones: Sequence[Zone], seasons: Sequence[str]) -> geopandas.GeoDataFrame:
    """The zone table; `seasons` are the first months, `YYYY-MM`."""
    return geopandas.GeoDataFrame(
        {
            "zone_id": [zone.zone_id for zone in zones],
            "region": [zone.region for zone in zones],
            "split": [zone.split for zone in zones],
            "season_start": list(seasons),
            "epsg": [zone.grid.epsg for zone in zones],
            "transform": [list(zone.grid.transform) for zone in zones],
            "shape": [list(zone.grid.shape) for zone in zones],
        },
        geometry=[_outline(zone.grid.bounds, zone.grid.epsg) for zone in zones],
        crs="EPSG:4326",
    )


def _outline(bounds: tuple[float, float, float, float], epsg: int) -> shapely.Polygon:
    to_degrees = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    ring = shapely.get_coordinates(shapely.segmentize(shapely.box(*bounds).exterior, 1000.0))
    lon, lat = to_degrees.transform(ring[:, 0], ring[:, 1])
    return shapely.Polygon(list(zip(lon, lat, strict=True)))
