"""Parcels to pixels."""

from typing import Final

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features

from cropray.grid import Grid
from cropray.legend import IGNORE

NO_PARCEL: Final = -1


def rasterize_parcels(
    parcels: gpd.GeoDataFrame, class_ids: npt.NDArray[np.uint8], grid: Grid
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """The class and the parcel of each pixel, by pixel centre.

    Where parcels overlap, the smaller one lies on top; of two with the same area, the one whose `parcel_id` sorts
    first; of two with the same id, the earlier row. The result does not depend on the order of rows otherwise.

    Args:
        parcels: columns `parcel_id` and `area_ha`, polygons in the grid's coordinate system.
        class_ids: [n] uint8, class id of each parcel, 255 where it has none.
        grid: the pixels.

    Returns:
        Labels [H, W] uint8, 255 where no parcel with a class lies, and parcel index [H, W] int32: the row in `parcels`,
        -1 where no parcel lies.
    """
    if len(class_ids) != len(parcels):
        raise ValueError(f"{len(parcels)} parcels need as many class ids; got {len(class_ids)}")
    index = np.full(grid.shape, NO_PARCEL, np.int32)
    bottom_up = _by_size(parcels)
    geometries = parcels.geometry.to_numpy()
    shapes = [(geometries[row], int(row)) for row in bottom_up if not geometries[row].is_empty]
    if shapes:  # rasterio refuses an empty list; later shapes overwrite earlier ones
        rasterio.features.rasterize(shapes, out=index, transform=rasterio.Affine(*grid.transform), all_touched=False)
    labels = np.append(class_ids, np.uint8(IGNORE)).astype(np.uint8)[index]  # index -1 takes the appended IGNORE
    return labels, index


def _by_size(parcels: gpd.GeoDataFrame) -> npt.NDArray[np.int64]:
    """Row numbers, the parcel that lies on top last."""
    rows = np.arange(len(parcels))
    ids = parcels["parcel_id"].to_numpy(dtype=str)
    on_top_first = np.lexsort((rows, ids, parcels["area_ha"].to_numpy(dtype=float)))
    return on_top_first[::-1]
