"""Tiny parcels on a grid near the meridian of UTM 31N."""

import geopandas as gpd
import numpy as np
import shapely

from cropray.core.grid import Grid
from cropray.core.legend import EXCLUDED, CropCode, Legend, legend_from_names

GRID = Grid(32631, 600_000.0, 5_400_000.0, 20, 24)
LEGEND = Legend(
    legend_from_names(["Wheat", "Maize"]).classes,
    (
        CropCode("BTH", "Wheat", label="soft wheat"),
        CropCode("JAC", EXCLUDED, 2023, 2024, "fallow"),
        CropCode("MIS", "Maize", 2015, 2022, "maize"),
        CropCode("MIS", "Maize", 2023, 2024, "maize but sweet maize"),
        CropCode("OHR", "Wheat", 2015, 2022),
        CropCode("OHR", "Maize", 2023, 2024),
    ),
)


def square(row, col, height, width, grid=GRID):
    """A rectangle of whole pixels."""
    west, _, _, north = grid.bounds
    top, left = north - row * grid.resolution_m, west + col * grid.resolution_m
    return shapely.box(left, top - height * grid.resolution_m, left + width * grid.resolution_m, top)


def parcel_frame(*parcels, epsg=GRID.epsg):
    """Raw RPG-like rows from (id, code, polygon)."""
    ids, codes, polygons = zip(*parcels, strict=True)
    frame = {"ID_PARCEL": list(ids), "CODE_CULTU": list(codes), "SURF_PARC": 1.0}
    return gpd.GeoDataFrame(frame, geometry=list(polygons), crs=f"EPSG:{GRID.epsg}").to_crs(epsg=epsg)


def read_frame(polygons, ids=None):
    """Parcels as `read_parcels` returns them."""
    area_ha = shapely.area(np.array(polygons, dtype=object)) / 10_000
    ids = [str(i) for i in range(len(polygons))] if ids is None else ids
    return gpd.GeoDataFrame(
        {"parcel_id": ids, "code": "", "area_ha": area_ha}, geometry=list(polygons), crs="EPSG:32631"
    )
