"""The predicted crop of each parcel: the class that most of its pixels got."""

from collections.abc import Sequence

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cropray.core.errors import SchemaError
from cropray.core.legend import IGNORE, CropClass
from cropray.io.storage import Location


def vote(
    parcels: gpd.GeoDataFrame,
    parcel_index: npt.NDArray[np.int32],
    class_id: npt.NDArray[np.uint8],
    classes: Sequence[CropClass],
) -> gpd.GeoDataFrame:
    """Add each parcel's majority class.

    Args:
        parcels: the zone's parcels with the columns `parcel_index`, `parcel_id`, `code`, `class_id`, `area_ha`.
        parcel_index: [H, W], value of the column `parcel_index`, -1 = no parcel.
        class_id: [H, W] predicted legend class id, 255 = no data.
        classes: legend classes that are predicted or declared.

    Returns:
        `parcel_id`, `code`, `declared` and `predicted` class name (missing where there is none), `share` of the parcel's
        predicted pixels that voted for it (NaN without any), `n_pixels` predicted, `area_ha` and `geometry`. Equal
        votes go to the class with the smaller id.
    """
    names = np.full(IGNORE + 1, None, object)
    names[[crop.id for crop in classes]] = [crop.name for crop in classes]
    rows = parcels["parcel_index"].to_numpy()
    votes = count_votes(parcel_index, class_id, n_parcels=int(rows.max(initial=-1)) + 1)[rows]
    n_pixels = votes.sum(1)
    winner = np.where(n_pixels > 0, votes.argmax(1), IGNORE)
    share = np.full(len(votes), np.nan)
    np.divide(votes.max(1), n_pixels, out=share, where=n_pixels > 0)
    table = parcels[["parcel_id", "code"]].assign(
        declared=names[parcels["class_id"]],
        predicted=names[winner],
        share=share,
        n_pixels=n_pixels.astype(np.int32),
        area_ha=parcels["area_ha"],
    )
    return gpd.GeoDataFrame(table, geometry=parcels.geometry, crs=parcels.crs)


def count_votes(
    parcel_index: npt.NDArray[np.int32], class_id: npt.NDArray[np.uint8], n_parcels: int
) -> npt.NDArray[np.int64]:
    """[parcel 0 … n_parcels − 1, class id 0–254] int64: predicted pixels."""
    has_vote = (parcel_index >= 0) & (parcel_index < n_parcels) & (class_id != IGNORE)
    pairs = parcel_index[has_vote].astype(np.int64) * IGNORE + class_id[has_vote]
    return np.bincount(pairs, minlength=n_parcels * IGNORE).reshape(n_parcels, IGNORE)


def parcel_areas(path: Location) -> npt.NDArray[np.float64]:
    """Area of the whole parcel of each row of a zone's parcel table, ha; none where the table is not there any more.

    Raises:
        SchemaError: the file is damaged or no parcel table.
    """
    if not path.exists():
        return np.empty(0)
    try:
        with path.open("rb") as stream:
            areas: npt.NDArray[np.float64] = pq.ParquetFile(stream).read(["area_ha"])["area_ha"].to_numpy()
            return areas
    except (OSError, pa.ArrowException, KeyError) as error:
        raise SchemaError(f"parcel table '{path}' cannot be read ({error}); run `cropray labels` again") from None
