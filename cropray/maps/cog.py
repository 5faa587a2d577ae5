"""Maps on disk: a cloud-optimised GeoTIFF of four bytes per pixel."""

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
CLASSES_TAG: Final = "CROPRAY_CLASSES"  # JSON: class id → name, label and colour
VERSION_TAG: Final = "CROPRAY_VERSION"


def write_map(
    path: Location, zone_map: ZoneMap, grid: Grid, classes: Sequence[CropClass], tags: Mapping[str, str]
) -> None:
    """Write a map whole: bands class, confidence, second_class, n_clear, uint8, 255 = no data.

    Classes that may occur are stored with names and colours, further metadata (model, dataset) as tags.
    """
    names = {crop.id: {"name": crop.name, "label": crop.label_en, "colour": crop.colour} for crop in classes}
    profile = {
        "driver": "COG",
        "compress": "deflate",
        "blocksize": 256,
        "overview_resampling": "nearest",  # class ids have no mean
        "dtype": "uint8",
        "count": len(BANDS),
        "height": grid.height,
        "width": grid.width,
        "nodata": MAP_NODATA,
        "crs": f"EPSG:{grid.epsg}",
        "transform": rasterio.Affine(*grid.transform),
    }
    with whole_file(path) as temporary, rasterio.open(temporary, "w", **profile) as dataset:
        dataset.write(np.stack(list(asdict(zone_map).values())))
        dataset.descriptions = BANDS
        dataset.update_tags(**{VERSION_TAG: __version__, CLASSES_TAG: json.dumps(names, ensure_ascii=False)}, **tags)
