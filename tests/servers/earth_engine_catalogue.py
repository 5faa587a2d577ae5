"""The scenes of local files as assets of an Earth Engine collection."""

import datetime as dt
import re
from collections import Counter

import rasterio

from tests.servers.earth_engine_graph import Asset

COLLECTION = "COPERNICUS/S2_SR_HARMONIZED"
BANDS = {"B02": "B2", "B03": "B3", "B04": "B4", "B08": "B8"}


def catalogue(paths):
    """One collection; files of one instant become its tiles AA, AB, … in the order of their paths."""
    parts = Counter()
    assets = []
    for path in sorted(paths, key=str):
        stamp = re.search(r"\d{8}T\d{6}", path.name)[0]
        with rasterio.open(path) as dataset:
            epsg, west, north = dataset.crs.to_epsg(), dataset.transform.c, dataset.transform.f
            names = [BANDS.get(name, name) for name in dataset.descriptions]
            bands = {name: (dataset.res[0], dataset.read(i)) for i, name in enumerate(names, start=1)}
        bands["SCL"] = (bands["SCL"][0], bands["SCL"][1].astype("u1"))
        tile = f"T{epsg % 100:02d}TA{chr(ord('A') + parts[stamp])}"
        parts[stamp] += 1
        # Sensing of the tile begins some seconds after that of the datatake.
        time = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC) + dt.timedelta(
            seconds=7 * parts[stamp]
        )
        assets.append(
            Asset(f"{COLLECTION}/{stamp}_{time:%Y%m%dT%H%M%S}_{tile}", time, f"EPSG:{epsg}", west, north, bands)
        )
    return {COLLECTION: assets}
