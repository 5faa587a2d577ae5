"""Maps on disk: a cloud-optimised GeoTIFF of four bytes per pixel, and one more for each flag that was asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import numpy as np
import rasterio

from cropray import __version__
from cropray.core.grid import Grid
from cropray.core.legend import CropClass
from cropray.io.storage import Location, whole_file
from cropray.maps.predict import MAP_NODATA, ZoneMap

BANDS: Final = ("class", "confidence", "second_class", "n_clear")
MORE_BANDS: Final = ("group", "unlike")  # where the job asks for them, see `ZoneMap`
CLASSES_TAG: Final = "CROPRAY_CLASSES"  # JSON: class id → name, label and colour
GROUPS_TAG: Final = "CROPRAY_GROUPS"  # JSON: number in the band `group` → name
GROUP_BELOW_TAG: Final = "CROPRAY_GROUP_BELOW"  # confidence in % below which the group is answered
VERSION_TAG: Final = "CROPRAY_VERSION"


def write_map(
    path: Location, zone_map: ZoneMap, grid: Grid, classes: Sequence[CropClass], tags: Mapping[str, str]
) -> None:
    """Write a map whole: `BANDS`, and those of `MORE_BANDS` that it has, each called so, uint8, 255 = no data.

    Classes that may occur are stored with names and colours, further metadata (model, dataset) as tags.
    """
    bands = {
        name: band
        for name, band in zip((*BANDS, *MORE_BANDS), asdict(zone_map).values(), strict=True)
        if band is not None
    }
    names = {crop.id: {"name": crop.name, "label": crop.label_en, "colour": crop.colour} for crop in classes}
    profile = {
        "driver": "COG",
        "compress": "deflate",
        "blocksize": 256,
        "overview_resampling": "nearest",  # class ids have no mean
        "dtype": "uint8",
        "count": len(bands),
        "height": grid.height,
        "width": grid.width,
        "nodata": MAP_NODATA,
        "crs": f"EPSG:{grid.epsg}",
        "transform": rasterio.Affine(*grid.transform),
    }
    with whole_file(path) as temporary, rasterio.open(temporary, "w", **profile) as dataset:
        dataset.write(np.stack(list(bands.values())))
        dataset.descriptions = tuple(bands)
        dataset.update_tags(**{VERSION_TAG: __version__, CLASSES_TAG: json.dumps(names, ensure_ascii=False)}, **tags)
