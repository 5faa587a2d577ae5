"""Sentinel-2 L2A products as ESA ships them, with pixels of one's own: folders or zips, of old and new layouts."""

import datetime as dt
import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio

from cropray.core.grid import Grid

FINE = ("B02", "B03", "B04", "B08")
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")
NUMBERS = dict(
    zip(
        ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"],
        range(13),
        strict=True,
    )
)


@dataclass
class Draft:
    """A product to be written; every text can be changed before that."""

    grid: Grid
    """Of 10 m, with an even number of rows and columns."""
    images: dict
    """Band → digital numbers as ESA stores them, [H, W] at its own resolution; `SCL` uint8 at 20 m."""
    started: dt.datetime = dt.datetime(2023, 5, 1, 10, 50, 31, 24_000, dt.UTC)
    tile: str = "31UFS"
    baseline: str = "05.09"
    made: str = "20230501T171309"
    satellite: str = "S2A"
    is_old: bool = False
    """Names as they were until 2017 (PSD 13)."""
    offsets: dict | None = None
    """Band → BOA_ADD_OFFSET; None: as ESA has them of the baseline."""
    sensed_after_s: int = 341
    changes: list = field(default_factory=list)
    """(text, another) in both files of metadata."""

    @property
    def name(self) -> str:
        major, minor = self.baseline.split(".")
        return (
            f"{self.satellite}_MSIL2A_{self.started:%Y%m%dT%H%M%S}_N{major}{minor}_R051_T{self.tile}_{self.made}.SAFE"
        )

    def write(self, folder: Path, *, zipped: bool = False, name: str | None = None) -> Path:
        """The folder, or a zip of it."""
        root = folder / (name or self.name)
        granule = root / "GRANULE" / f"L2A_T{self.tile}_A041032_{self.started:%Y%m%dT%H%M%S}"
        for band, image in self.images.items():
            step = self.grid.width // image.shape[1]
            write_jp2(granule / "IMG_DATA" / self._image_name(band, step * 10), image, self.grid, step)
        names = ("S2A_USER_MTD_SAFL2A_PDMC_20170501T171309_R051.xml", "S2A_USER_MTD_L2A_TL_SGS__2017.xml")
        product, tile = names if self.is_old else ("MTD_MSIL2A.xml", "MTD_TL.xml")
        (root / product).write_text(self._changed(self._product()))
        (granule / tile).write_text(self._changed(self._tile()))
        if not zipped:
            return root
        packed = folder / f"{root.stem}.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(root.rglob("*")):
                archive.write(path, path.relative_to(folder))
        shutil.rmtree(root)
        return packed

    def _image_name(self, band: str, resolution_m: int) -> str:
        if not self.is_old:
            return f"R{resolution_m}m/T{self.tile}_{self.started:%Y%m%dT%H%M%S}_{band}_{resolution_m}m.jp2"
        if band == "SCL":
            return f"S2A_USER_SCL_L2A_TL_SGS__20170501T171309_A009711_T{self.tile}_{resolution_m}m.jp2"
        return (
            f"R{resolution_m}m/S2A_USER_MSI_L2A_TL_SGS__20170501T171309_A009711_T{self.tile}_{band}_{resolution_m}m.jp2"
        )

    def _changed(self, text: str) -> str:
        for before, after in self.changes:
            text = text.replace(before, after)
        return text

    def _product(self) -> str:
        old = "L2A_" if self.is_old else ""
        uri = "PRODUCT_URI_2A" if self.is_old else "PRODUCT_URI"
        ids = "".join(
            f'<Spectral_Information bandId="{n}" physicalBand="{b.replace("B0", "B")}"/>' for b, n in NUMBERS.items()
        )
        offsets = (
            dict.fromkeys(NUMBERS, -1000) if self.offsets is None and self.baseline >= "04.00" else self.offsets or {}
        )
        stated = "".join(
            f'<BOA_ADD_OFFSET band_id="{NUMBERS[b]}">{offset}</BOA_ADD_OFFSET>' for b, offset in offsets.items()
        )
        stated = f"<BOA_ADD_OFFSET_VALUES_LIST>{stated}</BOA_ADD_OFFSET_VALUES_LIST>" if stated else ""
        special = "".join(
            f"<Special_Values><SPECIAL_VALUE_TEXT>{text}</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>{index}</SPECIAL_VALUE_INDEX></Special_Values>"
            for text, index in (("NODATA", 0), ("SATURATED", 65535))
        )
        made = dt.datetime.fromisoformat(self.made)
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<n1:General_Info><{old}Product_Info>
<PRODUCT_START_TIME>{self.started:%Y-%m-%dT%H:%M:%S.024Z}</PRODUCT_START_TIME><{uri}>{self.name}</{uri}>
<PROCESSING_LEVEL>Level-2A{"p" if self.is_old else ""}</PROCESSING_LEVEL><PROCESSING_BASELINE>{self.baseline}</PROCESSING_BASELINE>
<GENERATION_TIME>{made:%Y-%m-%dT%H:%M:%S.000000Z}</GENERATION_TIME>
<Datatake><SPACECRAFT_NAME>Sentinel-2{self.satellite[2]}</SPACECRAFT_NAME>
<DATATAKE_SENSING_START>{self.started:%Y-%m-%dT%H:%M:%S.024Z}</DATATAKE_SENSING_START></Datatake></{old}Product_Info>
<{old}Product_Image_Characteristics>{special}
<{old}BOA_QUANTIFICATION_VALUE unit="none">10000</{old}BOA_QUANTIFICATION_VALUE>{stated}
<Spectral_Information_List>{ids}</Spectral_Information_List>
</{old}Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>
"""

    def _tile(self) -> str:
        sensed = self.started + dt.timedelta(seconds=self.sensed_after_s)
        places = "".join(
            f'<Size resolution="{step * 10}"><NROWS>{self.grid.height // step}</NROWS><NCOLS>{self.grid.width // step}</NCOLS></Size>'
            f'<Geoposition resolution="{step * 10}"><ULX>{self.grid.x_min:.0f}</ULX><ULY>{self.grid.y_max:.0f}</ULY>'
            f"<XDIM>{step * 10}</XDIM><YDIM>-{step * 10}</YDIM></Geoposition>"
            for step in (1, 2, 6)
        )
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
<n1:General_Info><TILE_ID metadataLevel="Brief">S2A_OPER_MSI_L2A_TL_2APS_{self.made}_A041032_T{self.tile}_N{self.baseline}</TILE_ID>
<SENSING_TIME metadataLevel="Standard">{sensed:%Y-%m-%dT%H:%M:%S.919283Z}</SENSING_TIME></n1:General_Info>
<n1:Geometric_Info><Tile_Geocoding><HORIZONTAL_CS_NAME>WGS84 / UTM zone 31N</HORIZONTAL_CS_NAME>
<HORIZONTAL_CS_CODE>EPSG:{self.grid.epsg}</HORIZONTAL_CS_CODE>{places}</Tile_Geocoding></n1:Geometric_Info></n1:Level-2A_Tile_ID>
"""


def write_jp2(path: Path, image: np.ndarray, grid: Grid, step: int) -> None:
    """One band, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    side = grid.resolution_m * step
    profile = {
        "driver": "JP2OpenJPEG", "dtype": image.dtype, "count": 1, "height": image.shape[0], "width": image.shape[1],
        "crs": f"EPSG:{grid.epsg}", "transform": rasterio.Affine(side, 0, grid.x_min, 0, -side, grid.y_max),
        "QUALITY": 100, "REVERSIBLE": "YES",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(image, 1)


def images_of(pixels: np.ndarray) -> dict:
    """Images of all bands from [5, H, W]: B02, B03, B04, B08, SCL; those of 20 m are made up from them."""
    coarse = {
        band: pixels[index % 4, ::2, 1::2] // (index + 2) + (pixels[0, ::2, 1::2] > 0)
        for index, band in enumerate(COARSE)
    }
    images = dict(zip(FINE, pixels, strict=False)) | {band: image.astype(np.uint16) for band, image in coarse.items()}
    return images | {"SCL": pixels[4, ::2, ::2].astype(np.uint8)}
