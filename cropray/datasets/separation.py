"""Keeping training and test data apart: no zone, parcel or pixel on both sides of a border of splits.

Groups are the test split and each validation fold: what is compared is every pair of zones of different groups.
Where the settings say `trim`, the training side gives way to the test side, and among training zones the later in
the table gives way to the earlier, so that the test labels never change.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

from cropray.errors import LeakageError
from cropray.grid import Grid
from cropray.legend import IGNORE
from cropray.zones import Zone

Bounds = tuple[float, float, float, float]


@dataclass(slots=True)
class Trim:
    """What one zone must give up."""

    parcels: set[str] = field(default_factory=set)
    """Ids of parcels whose labels are removed."""
    keep_away: list[Bounds] = field(default_factory=list)
    """Rectangles (x_min, y_min, x_max, y_max) in the zone's own system, already grown by the buffer."""


def separate(
    zones: Sequence[Zone],
    folds: Mapping[str, int],
    parcel_ids: Mapping[str, Iterable[str]],
    buffer_m: float,
    on_overlap: Literal["refuse", "trim"],
) -> dict[str, Trim]:
    """Find what crosses a border of splits.

    Args:
        zones: all zones of the dataset, in table order.
        folds: training zone → validation fold.
        parcel_ids: zone → ids of its labelled parcels.
        buffer_m: zones of different groups must be this far apart, m.
        on_overlap: `refuse` raises; `trim` returns what the giving side must drop.

    Returns:
        zone → what it must drop; zones that drop nothing are absent.

    Raises:
        LeakageError: something crosses a border and `on_overlap` is `refuse`.
    """
    trims: dict[str, Trim] = defaultdict(Trim)
    ids = {zone.zone_id: set(parcel_ids.get(zone.zone_id, ())) for zone in zones}
    for first, second in itertools.combinations(zones, 2):
        if _group(first, folds) == _group(second, folds):
            continue
        giver, keeper = (first, second) if second.split == "test" else (second, first)
        shared = ids[giver.zone_id] & ids[keeper.zone_id]
        keep_away = _grown_bounds(keeper.grid, giver.grid.epsg, buffer_m)
        is_near = _intersects(giver.grid.bounds, keep_away)
        if on_overlap == "refuse" and (shared or is_near):
            raise LeakageError(_refusal(giver, keeper, folds, shared, buffer_m))
        if shared:
            trims[giver.zone_id].parcels |= shared
        if is_near:
            trims[giver.zone_id].keep_away.append(keep_away)
    return dict(trims)


def trim_labels(
    labels: npt.NDArray[np.uint8], parcels: npt.NDArray[np.int32], parcel_ids: Sequence[str], grid: Grid, trim: Trim
) -> npt.NDArray[np.uint8]:
    """Labels [H, W] uint8 with IGNORE where the zone gives way.

    Args:
        labels: [H, W] class ids; not changed.
        parcels: [H, W] parcel index, -1 = no parcel.
        parcel_ids: id of each parcel index.
        grid: the zone's grid.
        trim: what to drop.
    """
    dropped = np.zeros(len(parcel_ids) + 1, bool)  # the last element serves index -1
    dropped[:-1] = [parcel_id in trim.parcels for parcel_id in parcel_ids]
    away = dropped[parcels]
    x = grid.x_min + (np.arange(grid.width) + 0.5) * grid.resolution_m
    y = grid.y_max - (np.arange(grid.height) + 0.5) * grid.resolution_m
    for x_min, y_min, x_max, y_max in trim.keep_away:
        away |= ((y > y_min) & (y < y_max))[:, None] & ((x > x_min) & (x < x_max))[None, :]
    return np.where(away, np.uint8(IGNORE), labels)


def _group(zone: Zone, folds: Mapping[str, int]) -> str | int:
    return "test" if zone.split == "test" else folds[zone.zone_id]


def _describe(zone: Zone, folds: Mapping[str, int]) -> str:
    where = "the test split" if zone.split == "test" else f"fold {folds[zone.zone_id]}"
    return f"zone '{zone.zone_id}' ({where})"


def _refusal(giver: Zone, keeper: Zone, folds: Mapping[str, int], shared: set[str], buffer_m: float) -> str:
    pair = f"{_describe(giver, folds)} and {_describe(keeper, folds)}"
    if shared:
        some = ", ".join(sorted(shared)[:5])
        seen = f"{pair} share {len(shared)} parcels ({some}{', …' if len(shared) > 5 else ''})"
    else:
        seen = f"{pair} are closer than buffer_m = {buffer_m:g} m"
    return (
        f"{seen}: neighbouring pixels would be trained on and scored. Move one of them, put both in the same "
        f"split, or set dataset.on_overlap to 'trim' to drop the shared labels from '{giver.zone_id}'"
    )


def _grown_bounds(grid: Grid, epsg: int, buffer_m: float) -> Bounds:
    x_min, y_min, x_max, y_max = grid.bounds
    if grid.epsg != epsg:
        transformer = Transformer.from_crs(grid.epsg, epsg, always_xy=True)
        x_min, y_min, x_max, y_max = transformer.transform_bounds(x_min, y_min, x_max, y_max)
    return x_min - buffer_m, y_min - buffer_m, x_max + buffer_m, y_max + buffer_m


def _intersects(a: Bounds, b: Bounds) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
