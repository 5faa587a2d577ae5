"""STAC items in the shape of Earth Search's `sentinel-2-l2a`, with a raster file per band."""

import datetime as dt

import numpy as np
import rasterio
import rasterio.warp

from cropray.core.grid import Grid

COLLECTION = "sentinel-2-l2a"
ASSETS = ("blue", "green", "red", "nir", "scl")
EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
]
OFFSET = 1000  # what products of baseline 04.00 and later add to their digital numbers


def write_item(
    root, acquired, pixels, grid, tile="31UES", *, baseline="02.06", raw=None, flag=None, scl_step=1, driver="GTiff",
    sequence=0, seen_after_s=341, generated="2024-01-01T00:00:00Z", cloud_cover=10.0, names=ASSETS,
):  # fmt: skip
    """Write the files of one scene below `root`; returns its item, with hrefs relative to `root`.

    Args:
        acquired: start of the data take, UTC; the item's own `datetime` is `seen_after_s` later.
        pixels: [5, H, W] harmonised digital numbers and scene classes, on `grid`.
        raw: whether the files hold the offset; None: as the baseline has it.
        flag: what the item says of the offset being gone; None: the truth.
        scl_step: every how many pixels a scene class is stored.
    """
    raw = baseline >= "04.00" if raw is None else raw
    item_id = f"S2B_{tile}_{acquired:%Y%m%d}_{sequence}_L2A"
    folder = f"{item_id}_{acquired:%H%M%S}_{baseline}"
    numbers = np.where((pixels[:4] > 0) & raw, pixels[:4] + OFFSET, pixels[:4]).astype(np.uint16)
    assets = {}
    for name, values in zip(names, [*numbers, pixels[4].astype(np.uint8)], strict=True):
        step = scl_step if values.dtype == np.uint8 else 1
        coarse = Grid(
            grid.epsg, grid.x_min, grid.y_max, grid.height // step, grid.width // step, grid.resolution_m * step
        )
        write_band(root / folder / f"{name}.tif", values[::step, ::step], coarse, driver)
        place = {"proj:transform": list(coarse.transform), "proj:shape": list(coarse.shape)}
        kind = {"raster:bands": [{"nodata": 0, "data_type": values.dtype.name}]}
        assets[name] = {"href": f"{folder}/{name}.tif", "type": "image/tiff", **place, **kind}
    bbox = rasterio.warp.transform_bounds(f"EPSG:{grid.epsg}", "EPSG:4326", *grid.bounds)
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": item_id, "collection": COLLECTION, "bbox": list(bbox),
        "geometry": box(bbox), "assets": assets, "links": [], "stac_extensions": EXTENSIONS,
        "properties": {
            "datetime": f"{acquired + dt.timedelta(seconds=seen_after_s):%Y-%m-%dT%H:%M:%S.262000Z}",
            "proj:epsg": grid.epsg, "grid:code": f"MGRS-{tile}", "eo:cloud_cover": cloud_cover,
            "s2:datatake_id": f"GS2B_{acquired:%Y%m%dT%H%M%S}_041904_N{baseline}",
            "s2:datastrip_id": f"S2B_OPER_MSI_L2A_DS_2APS_20240101T000000_S{acquired:%Y%m%d}T1{seen_after_s:05d}_N{baseline}",
            "s2:product_uri": f"S2B_MSIL2A_{acquired:%Y%m%dT%H%M%S}_N{baseline.replace('.', '')}_R008_T{tile}_{generated[:10].replace('-', '')}T000000.SAFE",
            "s2:generation_time": generated, "s2:processing_baseline": baseline,
            "earthsearch:boa_offset_applied": (not raw) if flag is None else flag,
        },
    }  # fmt: skip


def write_band(path, values, grid, driver="GTiff", **profile):
    """Write one band as a compressed raster, whole blocks of 256 pixels where it is large enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"count": 1, "height": grid.height, "width": grid.width, "dtype": values.dtype.name, "nodata": 0}
    place = {"crs": f"EPSG:{grid.epsg}", "transform": rasterio.Affine(*grid.transform)}
    with rasterio.open(path, "w", driver=driver, compress="deflate", **shape, **place, **profile) as dataset:
        dataset.write(values, 1)


def box(bbox):
    """GeoJSON outline of (west, south, east, north)."""
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}
