"""Keeping training and test data apart: no zone, parcel or pixel on both sides of a border of splits.

Groups are the test split and each validation fold: what is compared is every pair of zones of different groups.
Where the settings say `trim`, the training side gives way to the test side, and among training zones the later in
the table gives way to the earlier, so that the test labels never change. Zones are found by an index of rectangles,
parcels by who holds them: the work grows with the zones and with what is found, not with the pairs of zones.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import shapely
from shapely import STRtree

from cropray.core.errors import LeakageError
from cropray.core.grid import Grid
from cropray.core.missing import is_missing
from cropray.io.systems import Bounds, bounds_in
from cropray.io.zones import Zone

_FAR_APART: Final = (
    "The zones are not near each other: where these are different parcels, their ids are not unique, and "
    "parcels.id_column must name a column whose values are"
)
Positions = npt.NDArray[np.intp]


@dataclass(slots=True)
class Trim:
    """What one zone must give up."""

    parcels: set[str] = field(default_factory=set)
    """Ids of parcels whose labels are removed."""
    keep_away: list[Bounds] = field(default_factory=list)
    """Rectangles (x_min, y_min, x_max, y_max) in the zone's own system, already grown by the buffer."""


@dataclass(frozen=True, slots=True)
class _NearPair:
    """Two zones that are too near, as positions in the table."""

    first: int
    second: int
    giver: int
    """Which of the two gives way."""
    keep_away: Bounds
    """The other one's rectangle in the giver's system, grown by the buffer."""


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
        parcel_ids: zone → ids of its labelled parcels; a missing id (empty, `nan`) is nobody's and shared with none.
        buffer_m: zones of different groups must be this far apart, m.
        on_overlap: `refuse` raises; `trim` returns what the giving side must drop.

    Returns:
        zone → what it must drop; zones that drop nothing are absent.

    Raises:
        LeakageError: something crosses a border and `on_overlap` is `refuse`.
    """
    groups = [_group(zone, folds) for zone in zones]
    ids = [set(parcel_ids.get(zone.zone_id, ())) for zone in zones]
    holders, near = _several_holders(ids), _near(zones, groups, buffer_m)
    if on_overlap == "refuse":
        first_near = [(pair.first, pair.second) for pair in near[:1]]
        pairs = [*first_near, *filter(None, (_first_pair(held, groups) for held in holders.values()))]
        if pairs:
            first, second = min(pairs)
            giver, keeper = (first, second) if zones[second].split == "test" else (second, first)
            shared = ids[giver] & ids[keeper] & holders.keys()
            refusal = _refusal(zones[giver], zones[keeper], folds, shared, buffer_m)
            is_near = any((pair.first, pair.second) == (first, second) for pair in near)
            raise LeakageError(refusal if is_near else f"{refusal}. {_FAR_APART}")
    trims: dict[str, Trim] = defaultdict(Trim)
    for parcel_id, held in holders.items():
        for giver in _givers(held, groups):
            trims[zones[giver].zone_id].parcels.add(parcel_id)
    for pair in near:
        trims[zones[pair.giver].zone_id].keep_away.append(pair.keep_away)
    return dict(trims)


def given_away(
    parcels: npt.NDArray[np.int32], parcel_ids: Sequence[str], grid: Grid, trim: Trim
) -> npt.NDArray[np.bool_]:
    """[H, W] true where the zone gives way: labels are dropped and statistics look away, labelled or not.

    `parcels` is [H, W] the index of each pixel's parcel in `parcel_ids`, -1 = no parcel.
    """
    dropped = np.zeros(len(parcel_ids) + 1, bool)  # the last element serves index -1
    dropped[:-1] = [parcel_id in trim.parcels for parcel_id in parcel_ids]
    away: npt.NDArray[np.bool_] = dropped[parcels]
    x = grid.x_min + (np.arange(grid.width) + 0.5) * grid.resolution_m
    y = grid.y_max - (np.arange(grid.height) + 0.5) * grid.resolution_m
    for x_min, y_min, x_max, y_max in trim.keep_away:
        away |= ((y > y_min) & (y < y_max))[:, None] & ((x > x_min) & (x < x_max))[None, :]
    return away


def _group(zone: Zone, folds: Mapping[str, int]) -> str | int:
    return "test" if zone.split == "test" else folds[zone.zone_id]


def _several_holders(ids: Sequence[set[str]]) -> dict[str, list[int]]:
    """Parcel id → positions of the zones that hold it, ascending, where they are several; a missing id is nobody's."""
    seen: set[str] = set()
    several: set[str] = set()
    for own in ids:
        several |= seen & own
        seen |= own
    holders: dict[str, list[int]] = {parcel_id: [] for parcel_id in several if not is_missing(parcel_id)}
    for position, own in enumerate(ids):
        for parcel_id in own & holders.keys():
            holders[parcel_id].append(position)
    return holders


def _first_pair(held: Sequence[int], groups: Sequence[str | int]) -> tuple[int, int] | None:
    """The first two holders of a parcel that are of different groups."""
    return next(((held[0], other) for other in held[1:] if groups[other] != groups[held[0]]), None)


def _givers(held: Sequence[int], groups: Sequence[str | int]) -> Iterator[int]:
    """Which holders give a parcel up: training zones, to any test zone or to an earlier zone of another fold."""
    in_test = any(groups[position] == "test" for position in held)
    before: set[str | int] = set()
    for position in held:
        if groups[position] != "test" and (in_test or before - {groups[position]}):
            yield position
        before.add(groups[position])


def _near(zones: Sequence[Zone], groups: Sequence[str | int], buffer_m: float) -> list[_NearPair]:
    """Zones of different groups closer than the buffer, in the order of pairs; every zone is seen from each system once."""
    is_test = np.array([zone.split == "test" for zone in zones])
    codes = {group: code for code, group in enumerate(dict.fromkeys(groups))}
    group = np.array([codes[one] for one in groups])
    by_system: defaultdict[int, list[int]] = defaultdict(list)
    for position, zone in enumerate(zones):
        by_system[zone.grid.epsg].append(position)
    found = []
    for epsg, members in by_system.items():
        grown = np.array([_grown_bounds(zone.grid, epsg, buffer_m) for zone in zones])  # [N, 4]
        own = np.array([zones[position].grid.bounds for position in members])
        keeper, nth = _meeting(grown, own)
        giver = np.array(members)[nth]
        gives = (group[giver] != group[keeper]) & ~is_test[giver] & (is_test[keeper] | (giver > keeper))
        for k, g in zip(keeper[gives].tolist(), giver[gives].tolist(), strict=True):
            found.append(_NearPair(min(k, g), max(k, g), g, tuple(grown[k].tolist())))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def _meeting(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> tuple[Positions, Positions]:
    """Positions (in a, in b) of rectangles [N, 4] that share an area; edges that touch share none."""
    seen = np.flatnonzero(np.isfinite(a).all(axis=1))  # what a system cannot show is far from its own zones
    in_a, in_b = STRtree(shapely.box(*b.T)).query(shapely.box(*a[seen].T))
    in_a = seen[in_a]
    meets = ((a[in_a, :2] < b[in_b, 2:]) & (b[in_b, :2] < a[in_a, 2:])).all(axis=1)
    return in_a[meets], in_b[meets]


def describe_zone(zone_id: str, folds: Mapping[str, int]) -> str:
    """A zone and its group, for messages."""
    return f"zone '{zone_id}' ({f'fold {folds[zone_id]}' if zone_id in folds else 'the test split'})"


def _refusal(giver: Zone, keeper: Zone, folds: Mapping[str, int], shared: set[str], buffer_m: float) -> str:
    pair = f"{describe_zone(giver.zone_id, folds)} and {describe_zone(keeper.zone_id, folds)}"
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
    x_min, y_min, x_max, y_max = bounds_in(grid, epsg)
    return x_min - buffer_m, y_min - buffer_m, x_max + buffer_m, y_max + buffer_m
