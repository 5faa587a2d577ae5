"""The files of a drawn landscape, written byte for byte the same every time."""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
import shapely
from affine import Affine

from cropray.core.grid import Grid
from cropray.core.sensors import NODATA, REFLECTANCE_SCALE, Band
from cropray.io.systems import between
from cropray.landscape import worldcover

RPG_EPSG: Final = 2154  # Lambert-93, in which IGN ships the register
RPG_LAYER: Final = "PARCELLES_GRAPHIQUES"

_FIXED_DATE: Final = "2024-01-01T00:00:00.000Z"  # GeoPackages hold the date of their last change


@dataclass(frozen=True, slots=True)
class Declaration:
    """A parcel as its farmer declares it."""

    outline: shapely.Polygon
    """In the UTM system `epsg`, m."""
    epsg: int
    code: str


def write_scene(path: Path, scene: npt.NDArray[np.uint16], grid: Grid, bands: Sequence[Band]) -> None:
    """Write one acquisition, [C + 1, H, W]: B2 B3 B4 … SCL; its tags say that the bands hold no offset."""
    profile = {"crs": f"EPSG:{grid.epsg}", "transform": Affine(*grid.transform), "predictor": 2}
    names = (*(band.earth_engine_id for band in bands), "SCL")
    _write_raster(path, scene, names, profile, (*(REFLECTANCE_SCALE for _ in bands), 1.0))


def write_worldcover(path: Path, cover: npt.NDArray[np.uint8]) -> None:
    """Write the land cover raster, [rows, cols]."""
    step = worldcover.STEP_DEG
    transform = Affine(step, 0, worldcover.WEST_DEG, 0, -step, worldcover.NORTH_DEG)
    _write_raster(path, cover[None], ("Map",), {"crs": "EPSG:4326", "transform": transform})


def write_parcels(path: Path, declarations: Sequence[Declaration]) -> None:
    """Write the parcel register with the columns of IGN's GeoPackage."""
    groups = _group_of_code()
    frame = gpd.GeoDataFrame(
        {
            "ID_PARCEL": [str(number) for number in range(1, len(declarations) + 1)],
            "SURF_PARC": [round(parcel.outline.area / 1e4, 2) for parcel in declarations],
            "CODE_CULTU": [parcel.code for parcel in declarations],
            "CODE_GROUP": [groups.get(parcel.code, "28") for parcel in declarations],  # 28: miscellaneous
            "CULTURE_D1": "",
            "CULTURE_D2": "",
        },
        geometry=[_to_lambert(parcel) for parcel in declarations],
        crs=RPG_EPSG,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with _fixed_date():
        pyogrio.write_dataframe(frame, path, layer=RPG_LAYER, driver="GPKG")


def _write_raster(
    path: Path,
    bands: npt.NDArray[Any],
    names: Sequence[str],
    profile: dict[str, Any],
    scales: tuple[float, ...] | None = None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", nodata=NODATA, **shape, **profile) as file:
        file.write(bands)
        file.descriptions = tuple(names)
        if scales is not None:
            file.scales = scales


def _to_lambert(parcel: Declaration) -> shapely.Polygon:
    to_lambert = between(parcel.epsg, RPG_EPSG).transform
    outline: shapely.Polygon = shapely.transform(parcel.outline, to_lambert, interleaved=False)
    return shapely.set_precision(outline, 1e-3)  # IGN's coordinates carry millimetres


def _group_of_code() -> dict[str, str]:
    table = resources.files("cropray").joinpath("data", "rpg_codes.csv").read_text(encoding="utf-8")
    return {row["code"]: row["group_code"] for row in csv.DictReader(table.splitlines())}


@contextlib.contextmanager
def _fixed_date() -> Iterator[None]:
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _FIXED_DATE})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
