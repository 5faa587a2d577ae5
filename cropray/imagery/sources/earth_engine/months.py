"""What Earth Engine is asked for, and what has come: a zone's listing, its steps on disk, its composite.

The unit of work is one step of time of one zone, a month in the study's cube. It is kept as a file of its own until the zone's composite is written, so
that an interrupted run goes on where it stood.
"""

import datetime as dt
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.cube import STUDY_CUBE, Season
from cropray.core.errors import InputError
from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid
from cropray.imagery.acquire import ZoneAcquisition, acquisitions_by_month, finish_zone, write_record
from cropray.imagery.scenes import Scene
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings, ids_of
from cropray.io.storage import local_file, remove, whole_file, write_json
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone

RECIPE: Final = 1  # of the expression that is sent; another recipe makes every month stale, and costs its quota again

ELSEWHERE: Final = "assets of another UTM system than the zone's"
OLDER: Final = "assets of the same tile and instant as a newer one, read only where that has no data"

# `20230714T105031_20230714T105028_T31TEL`: start of sensing of the datatake, of the tile, and MGRS tile.
_ASSET: Final = re.compile(r"\d{8}T\d{6}_\w+_T(?P<utm>\d{2})(?P<belt>[C-HJ-NP-X])[A-Z]{2}")


@dataclass(frozen=True, slots=True)
class MonthUnit:
    """One step of one zone: the pixels that one request asks for."""

    zone_id: str
    month: str
    """Its name: `2023-05`, or the first day of a step that is no month."""
    grid: Grid
    acquisitions: tuple[tuple[str, ...], ...]
    """Asset ids; those of one instant together, the first with data counts."""
    band_ids: tuple[str, ...] = ids_of(STUDY_CUBE.bands)
    """Earth Engine's."""

    def key(self) -> str:
        """Fingerprint of everything that the pixels depend on."""
        grid = self.grid
        others = [] if self.band_ids == ids_of(STUDY_CUBE.bands) else [self.band_ids]
        return fingerprint([RECIPE, self.acquisitions, grid.epsg, grid.bounds, grid.shape, *others])


@dataclass(frozen=True, slots=True)
class MonthPixels:
    """One step of one zone, as it came."""

    median: npt.NDArray[np.uint16]
    """[C, H, W]; 0 where no observation is clear."""
    n_obs: npt.NDArray[np.uint8]
    """[H, W] clear observations."""


def listing_key(settings: EarthEngineSettings, zone: Zone, season: Season) -> str:
    """Fingerprint of what a listing, and with it the whole composite, depends on besides the archive itself.

    Code is not hashed: a changed line must not ask for a country again. What changes pixels raises `RECIPE`.
    """
    grid = zone.grid
    place = [grid.epsg, grid.bounds, grid.shape]
    return fingerprint([RECIPE, settings.collection, season.first_month, *place, *season.cube.in_content().values()])


def scenes_of(indexes: Sequence[str], collection: str, grid: Grid, season: Season) -> tuple[Scene, ...]:
    """Scenes of a zone's season from the names of its assets (`system:index`), in time order.

    Tiles of the neighbouring UTM system are left out (`assets_elsewhere`): their pixels lie askew to the zone's, and the
    tiles of the zone's own system hold the same acquisition. Of one tile and instant the last product comes first.

    Raises:
        InputError: a name is no Sentinel-2 asset's, or all scenes are in another UTM system than the zone.
    """
    here = _assets_of(indexes, collection, season)
    scenes = [(tile, scene) for epsg, tile, scene in here if epsg == grid.epsg]
    elsewhere = {epsg for epsg, _, _ in here} - {grid.epsg}
    if elsewhere and not scenes:
        raise InputError(
            f"all scenes there are in {', '.join(f'EPSG:{epsg}' for epsg in sorted(elsewhere))}, and the zone is in "
            f"EPSG:{grid.epsg}; give the zone's grid in one of theirs"
        )
    first: dict[tuple[dt.datetime, str], str] = {}
    for tile, scene in sorted(scenes, key=lambda pair: pair[1].href):
        first.setdefault((scene.acquired, tile), scene.href)
    scenes.sort(key=lambda pair: pair[1].href, reverse=True)
    scenes.sort(key=lambda pair: (pair[1].acquired, first[pair[1].acquired, pair[0]]))
    return tuple(scene for _, scene in scenes)


def assets_elsewhere(indexes: Sequence[str], collection: str, grid: Grid, season: Season) -> tuple[str, ...]:
    """The names of a season's assets whose tiles are of another UTM system than the zone's.

    Raises:
        InputError: a name is no Sentinel-2 asset's.
    """
    here = _assets_of(indexes, collection, season)
    return tuple(scene.scene_id for epsg, _, scene in here if epsg != grid.epsg)


def older_assets(units: Sequence[MonthUnit]) -> tuple[str, ...]:
    """The names of assets of a tile of which the same acquisition has a newer one."""
    older = []
    for parts in (parts for unit in units for parts in unit.acquisitions):
        names = [asset.rpartition("/")[2] for asset in parts]
        tiles = [name.rpartition("_T")[2] for name in names]
        older += [name for place, name in enumerate(names) if tiles[place] in tiles[:place]]
    return tuple(older)


def _assets_of(indexes: Sequence[str], collection: str, season: Season) -> list[tuple[int, str, Scene]]:
    """EPSG code, MGRS tile and scene of each asset of a season."""
    found = []
    for index in indexes:
        match = _ASSET.fullmatch(index)
        if match is None:
            raise InputError(
                f"collection '{collection}' has an asset '{index}'; a Sentinel-2 asset is named like "
                f"'20230714T105031_20230714T105028_T31TEL': set imagery.collection to a Sentinel-2 L2A collection"
            )
        acquired = dt.datetime.strptime(index[:15], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
        epsg = (32600 if match["belt"] >= "N" else 32700) + int(match["utm"])
        if season.start <= acquired.date() < season.end:
            found.append((epsg, index.rpartition("_T")[2], Scene(index, acquired, f"{collection}/{index}")))
    return found


def write_listing(
    workspace: Workspace, zone_id: str, key: str, scenes: Sequence[Scene], elsewhere: Sequence[str] = ()
) -> None:
    """Keep a zone's scenes, and the names of the assets that `assets_elsewhere` gives."""
    content = {"key": key, "assets": [scene.href for scene in scenes], "elsewhere": list(elsewhere)}
    write_json(workspace.listing(zone_id), content)


def read_listing(workspace: Workspace, settings: EarthEngineSettings, zone: Zone, season: Season) -> list[str] | None:
    """The `system:index` of a zone's assets as they were listed; None: never, for something else, or unreadable."""
    try:
        content = json.loads(workspace.listing(zone.zone_id).read_text(encoding="utf-8"))
        if content["key"] != listing_key(settings, zone, season):
            return None
        assets = [str(asset).rpartition("/")[2] for asset in content["assets"]]
        return assets + [str(asset) for asset in content.get("elsewhere", ())]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def month_units(zone: Zone, season: Season, scenes: Sequence[Scene]) -> tuple[MonthUnit, ...]:
    """The steps of a zone that have a scene, in time order: an empty one needs no request.

    Raises as `acquisitions_by_month`.
    """
    units, band_ids = [], ids_of(season.cube.bands)
    for name, acquisitions in zip(season.names, acquisitions_by_month(scenes, season), strict=True):
        if acquisitions:
            assets = tuple(tuple(scene.href for scene in parts) for parts in acquisitions)
            units.append(MonthUnit(zone.zone_id, name, zone.grid, assets, band_ids))
    return tuple(units)


def write_month(workspace: Workspace, unit: MonthUnit, pixels: MonthPixels) -> None:
    """Keep one month, whole."""
    with whole_file(workspace.acquired_month(unit.zone_id, unit.month)) as temporary:
        np.savez(temporary, key=np.array(unit.key()), median=pixels.median, n_obs=pixels.n_obs)


def has_month(workspace: Workspace, unit: MonthUnit) -> bool:
    """Whether the month is there, made from these assets on this grid, and undamaged."""
    return _read_month(workspace, unit) is not None


def _read_month(workspace: Workspace, unit: MonthUnit) -> MonthPixels | None:
    try:
        with local_file(workspace.acquired_month(unit.zone_id, unit.month)) as path, np.load(path) as file:
            if str(file["key"]) != unit.key():
                return None
            return MonthPixels(file["median"], file["n_obs"])  # reading checks each member's CRC
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def assemble_zone(workspace: Workspace, zone: Zone, season: Season, units: Sequence[MonthUnit]) -> ZoneAcquisition:
    """Write a zone's composite from its months; they stay until `drop_months`.

    Raises:
        InputError: a month is missing, or no pixel is ever clear.
    """
    cube = season.cube
    composite = np.zeros((*cube.shape, *zone.grid.shape), np.uint16)
    n_obs = np.zeros((cube.n_steps, *zone.grid.shape), np.uint8)
    n_scenes = [0] * cube.n_steps
    for unit in units:
        pixels = _read_month(workspace, unit)
        if pixels is None:
            raise InputError(
                f"{cube.noun} {unit.month} is not in '{workspace.acquisition}' any more; run the stage again"
            )
        position = season.names.index(unit.month)
        composite[position], n_obs[position] = pixels.median, pixels.n_obs
        n_scenes[position] = len(unit.acquisitions)
    record = finish_zone(zone, season, n_scenes, composite, n_obs, workspace)
    assets = [asset.rpartition("/")[2] for unit in units for parts in unit.acquisitions for asset in parts]
    remarks = {ELSEWHERE: _listed_elsewhere(workspace, zone.zone_id), OLDER: older_assets(units)}
    write_record(workspace, record, assets, {remark: names for remark, names in remarks.items() if names})
    return record


def _listed_elsewhere(workspace: Workspace, zone_id: str) -> tuple[str, ...]:
    try:
        return tuple(json.loads(workspace.listing(zone_id).read_text(encoding="utf-8")).get("elsewhere", ()))
    except FileNotFoundError:
        return ()


def drop_months(workspace: Workspace, zone_id: str) -> None:
    """Remove the months of a zone whose composite is written and recorded."""
    for path in workspace.listing(zone_id).parent.glob("*.npz"):
        remove(path)


def forget_zone(workspace: Workspace, zone_id: str) -> None:
    """Remove what came of a zone: it is wanted again from the service."""
    remove(workspace.listing(zone_id).parent)


def remove_leftovers(workspace: Workspace, zone_id: str) -> None:
    """Remove the temporary files of a zone that a killed run left behind."""
    if not isinstance(workspace.root, Path):
        return  # an object appears whole, under its own name
    left = [*workspace.listing(zone_id).parent.glob(".*")]
    for path in (workspace.composite(zone_id), workspace.n_obs(zone_id), workspace.acquisition_record(zone_id)):
        left += path.parent.glob(f".{path.stem}.*{path.suffix}")
    for file in left:
        file.unlink(missing_ok=True)
