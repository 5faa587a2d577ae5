"""What a STAC item says of a Sentinel-2 L2A scene: when it was sensed, by which processing, on which grid, in which files.

Catalogues describe the same products with small differences; what is read here is common to Earth Search, Planetary
Computer and others that follow the `s2`, `proj` and `grid` extensions.
"""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.core.redaction import redact
from cropray.imagery.offsets import BOA_OFFSET, Baseline, is_esas, offset_of_baseline, offset_of_scale
from cropray.imagery.scenes import Scene
from cropray.imagery.sources.stac.doors import absolute
from cropray.imagery.sources.stac.settings import SCL, USUAL_ASSETS

# GS2B_20230505T105031_012345_N05.09 and S2B_MSIL2A_20230505T105031_N0509_R051_T31UES_20230505T145630.SAFE
_DATA_TAKE: Final = re.compile(r"(?:^GS2[A-Z]_|_MSIL2A_)(\d{8}T\d{6})_")
_BASELINE: Final = re.compile(r"(?:^|_N)(\d{1,2})\.?(\d{2})(?:_|$)")
_DATA_STRIP: Final = re.compile(r"_S(\d{8}T\d{6})_")
_TILE: Final = re.compile(r"(?:^|MGRS-|_T)(\d{1,2}[C-X][A-Z]{2})(?:_|$)")


@dataclass(frozen=True, slots=True)
class ItemScene:
    """One item, understood."""

    scene: Scene
    """Its `offset` is what the item's metadata ask for."""
    mgrs_tile: str
    data_strip: str
    """Start of sensing of its data strip: a tile at the seam of two strips is delivered as two products.
    The product itself where the item does not say: no other is a version of it then."""
    baseline: Baseline
    """(0, 0) where it is none of ESA's."""
    generated: str
    """When it was processed, ISO 8601."""
    epsg: int
    outline: Grid | None
    """Grid of its first band, where the item states it."""
    cloud_cover: float
    """Percent of the whole tile; 0 where the item does not say."""

    @property
    def product(self) -> tuple[str, dt.datetime, str]:
        """What stays the same when the product is processed again."""
        return self.mgrs_tile, self.scene.acquired, self.data_strip


def understand(
    item: dict[str, Any],
    asset_names: dict[str, str] | None,
    offset: int | None,
    band_ids: Sequence[str] = STUDY_CUBE.band_ids,
) -> ItemScene:
    """Read an item, given as GeoJSON, with the wanted bands and SCL.

    `asset_names` are band id (and `SCL`) → key of the asset; None: the usual ones. `offset` is digital numbers to add; None:
    by processing baseline.

    Raises:
        InputError: it lacks an asset, its coordinate system, its time, or its baseline while that is needed, or is none.
    """
    try:
        return _understand(item, asset_names, offset, band_ids)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"item '{item.get('id')}' is not as STAC describes items ({type(error).__name__}: {redact(str(error))}); put "
            f"its id into 'exclude', or use another collection"
        ) from None


def _understand(
    item: dict[str, Any], asset_names: dict[str, str] | None, offset: int | None, band_ids: Sequence[str]
) -> ItemScene:
    properties = item["properties"]
    item_id = str(item["id"])
    product = str(properties.get("s2:product_uri") or item_id).removesuffix(".SAFE")
    assets = _assets(item, asset_names, band_ids)
    baseline = _baseline(properties, product)
    stated = _stated_offset(item, [key for key, band in assets if band != SCL])
    if offset is None:
        offset = _expected_offset(item_id, properties, baseline, stated)
    of_asset = item["assets"][assets[0][0]]
    first = {**properties, **{key: value for key, value in of_asset.items() if value is not None}}
    epsg = _epsg(item_id, first)
    hrefs = tuple((band, _href(item, key)) for (key, band) in assets)
    acquired = _acquired(item_id, properties, product)
    return ItemScene(
        scene=Scene(product, acquired, _page(item), hrefs, offset),
        mgrs_tile=_mgrs_tile(item_id, properties, product),
        data_strip=_first_match(_DATA_STRIP, *_named(properties, "datastrip_id")) or product,
        baseline=baseline if baseline and is_esas(baseline) else (0, 0),
        generated=str(properties.get("s2:generation_time") or properties.get("processing:datetime") or product),
        epsg=epsg,
        outline=_outline(first, epsg),
        cloud_cover=float(properties.get("eo:cloud_cover") or 0),
    )


def newest_versions(items: list[ItemScene]) -> list[ItemScene]:
    """One item per product, the last processing of each, in order of time and tile."""
    newest = {item.product: item for item in sorted(items, key=_processed)}
    # Strips that were timed anew, or not said, are kept twice: the newer processing comes first, and its pixels count.
    newer_first = sorted(newest.values(), key=_processed, reverse=True)
    return sorted(newer_first, key=lambda item: (item.scene.acquired, item.mgrs_tile))


def _processed(item: ItemScene) -> tuple[Baseline, str, str]:
    return item.baseline, item.generated, item.scene.scene_id


def _assets(item: dict[str, Any], asset_names: dict[str, str] | None, band_ids: Sequence[str]) -> list[tuple[str, str]]:
    """(key, band id) of the wanted bands and of SCL."""
    there = item.get("assets") or {}
    usual = {band: (name,) for band, name in asset_names.items()} if asset_names else USUAL_ASSETS
    keys = {band: next((name for name in usual[band] if name in there), None) for band in (*band_ids, SCL)}
    missing = [f"{band} ({' or '.join(usual[band])})" for band, key in keys.items() if key is None]
    if missing:
        raise InputError(
            f"item '{item['id']}' has no asset {', '.join(missing)}; it has {', '.join(sorted(there)) or 'none'}: "
            f"set 'assets' to their names, or put the item's id into 'exclude'"
        )
    return [(key, band) for band, key in keys.items() if key is not None]


def _acquired(item_id: str, properties: dict[str, Any], product: str) -> dt.datetime:
    """Start of the data take: one instant for all tiles of one pass, unlike an item's own `datetime` in some catalogues."""
    start = _first_match(_DATA_TAKE, *_named(properties, "datatake_id"), product)
    if start:
        return dt.datetime.strptime(start, "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC)
    try:
        instant = dt.datetime.fromisoformat(properties.get("datetime") or properties["start_datetime"])
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"item '{item_id}' says by no 's2:datatake_id' or 'datetime' when it was sensed; "
            f"put its id into 'exclude', or use another collection"
        ) from None
    return instant.astimezone(dt.UTC) if instant.tzinfo else instant.replace(tzinfo=dt.UTC)  # STAC's times are UTC


def _baseline(properties: dict[str, Any], product: str) -> Baseline | None:
    texts = (properties.get("s2:processing_baseline"), properties.get("processing:version"), product)
    for match in (_BASELINE.search(str(text)) for text in texts if text):
        if match:
            return int(match[1]), int(match[2])
    return None


def _expected_offset(item_id: str, properties: dict[str, Any], baseline: Baseline | None, stated: int | None) -> int:
    """Earth Search states scale and offset of every item alike: they count only where no baseline of ESA's does."""
    if any(str(flag).lower() == "true" for flag in _named(properties, "boa_offset_applied")):
        return 0
    if baseline is not None and is_esas(baseline):
        return offset_of_baseline(baseline)
    if stated is not None:
        return stated
    seen = (
        "no processing baseline"
        if baseline is None
        else "processing baseline {:02d}.{:02d}, none of ESA's".format(*baseline)
    )
    raise InputError(
        f"item '{item_id}' has {seen} ('s2:processing_baseline'), and its assets no 'raster:bands' with scale and offset: "
        f"it is not known whether its digital numbers are shifted by {-BOA_OFFSET}; set 'offset' to 0 or {BOA_OFFSET}, "
        f"or put the item's id into 'exclude'"
    )


def _stated_offset(item: dict[str, Any], keys: list[str]) -> int | None:
    """Digital numbers to add by the raster extension, version 1 (`raster:bands`) or 2; None: it says nothing."""
    offsets = set()
    for key in keys:
        asset = item["assets"][key]
        band: dict[str, Any] = next(iter(asset.get("raster:bands") or asset.get("bands") or ()), {})
        said = {"scale": asset.get("raster:scale"), "offset": asset.get("raster:offset")}
        said |= {name: band.get(name, band.get(f"raster:{name}")) for name in said if said[name] is None}
        if said["scale"] is None:
            return None
        try:
            offsets.add(offset_of_scale(float(said["scale"]), float(said["offset"] or 0)))
        except ValueError as error:
            raise InputError(
                f"item '{item['id']}': asset '{key}' has {error}; put the item's id into 'exclude', set 'assets' to others, "
                f"or use another collection"
            ) from None
    if len(offsets) > 1:
        raise InputError(
            f"item '{item['id']}': the tags of its assets state different offsets, {sorted(map(str, offsets))}; put the item's id "
            f"into 'exclude', or use another collection"
        )
    return offsets.pop() if offsets else None


def _epsg(item_id: str, properties: dict[str, Any]) -> int:
    """From `proj:code` (projection extension 2) or `proj:epsg` (1)."""
    code = str(properties.get("proj:code") or properties.get("proj:epsg") or "").removeprefix("EPSG:")
    if not code.isdigit():
        raise InputError(
            f"item '{item_id}' does not say its coordinate system ('proj:epsg'); put its id into 'exclude', "
            f"or use another collection"
        )
    return int(code)


def _outline(properties: dict[str, Any], epsg: int) -> Grid | None:
    transform, shape = properties.get("proj:transform"), properties.get("proj:shape")
    if not transform or not shape:
        return None
    return Grid(epsg, transform[2], transform[5], int(shape[0]), int(shape[1]), transform[0])


def _mgrs_tile(item_id: str, properties: dict[str, Any], product: str) -> str:
    """The tile, or the item's own id: then no other item is a version of it."""
    known = (properties.get("s2:mgrs_tile"), properties.get("grid:code"), product)
    return _first_match(_TILE, *known) or item_id


def _href(item: dict[str, Any], key: str) -> str:
    try:
        return absolute(str(item["assets"][key]["href"]), _self(item))
    except (KeyError, ValueError) as error:
        reason = "it has no 'href'" if isinstance(error, KeyError) else error
        raise InputError(
            f"item '{item['id']}': asset '{key}' cannot be found: {reason}; put the item's id into 'exclude', or use a "
            f"catalogue that gives full addresses"
        ) from None


def _self(item: dict[str, Any]) -> str | None:
    links = (str(link["href"]) for link in item.get("links", ()) if link.get("rel") == "self")
    return next(links, None)


def _page(item: dict[str, Any]) -> str:
    return redact(_self(item) or str(item["id"]))


def _named(properties: dict[str, Any], name: str) -> list[Any]:
    """What the item says under a name, whichever extension spells it: `s2:datastrip_id`, `eopf:datastrip_id` and others."""
    return [value for key, value in sorted(properties.items()) if key.rpartition(":")[2].lower() == name]


def _first_match(pattern: re.Pattern[str], *texts: object) -> str | None:
    return next((match[1] for text in texts if text and (match := pattern.search(str(text)))), None)
