"""Keeping points of training and test data apart: no sample within the buffer of a sample of another group.

Groups are the test split and each validation fold. The training side gives way to the test side, and among training
zones the later gives way to the earlier, by zone id. A point that has given way asks nothing of the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from cropray.core.errors import InputError, LeakageError
from cropray.datasets.doubts import some
from cropray.datasets.separation import describe_zone

SAME_PLACE_M: Final = 1e-6  # equal places meet even where the buffer is 0; 180° east and 180° west are equal
_MOST_NAMED: Final = 3  # zones in a note
_TEST: Final = -1  # beside the numbers of the folds
_EQUATOR_M, _FLATTENING, _MEAN_RADIUS_M = 6_378_137.0, 1 / 298.257223563, 6_371_008.8  # WGS 84

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class GivenWay:
    """Points of one zone that lie too near to those of other groups."""

    zone_id: str
    n_points: int
    nearest_zone: str
    """The zone that the nearest of them is too near to."""
    distance_m: float


@dataclass(frozen=True, slots=True)
class _Points:
    """What separation sees of a table of points."""

    zone_ids: tuple[str, ...]
    """In the order of precedence."""
    zone: Rows
    """[N] position in `zone_ids`."""
    group: npt.NDArray[np.int64]
    """[N] fold, or −1 for the test split."""
    xyz: npt.NDArray[np.float64]
    """[N, 3] earth-centred coordinates on the ellipsoid, m."""


def separate_points(
    table: pa.Table, folds: Mapping[str, int], buffer_m: float, on_overlap: Literal["refuse", "trim"]
) -> tuple[pa.Table, list[GivenWay]]:
    """Leave out the points that are too near to points of another group, or refuse them (`on_overlap`).

    Points of different groups must be `buffer_m` apart on the ground, m, and never at the same place. The table is a checked
    one, with `zone_id`, `lon` and `lat` (degrees, WGS 84); zones that have no fold are test.

    Returns:
        (the points that stay, in the table's order, perhaps none of some zones; what each zone gave up, without zones
        that gave nothing).

    Raises:
        LeakageError: some points are too near and `on_overlap` is `refuse`.
    """
    points = _points(table, folds)
    nearest, distance_m = _too_near(points, buffer_m)
    is_near = nearest >= 0
    given = [_given_way(points, zone, nearest, distance_m) for zone in np.unique(points.zone[is_near]).tolist()]
    if given and on_overlap == "refuse":
        raise LeakageError(_refusal(given, folds, buffer_m))
    return table.filter(pa.array(~is_near)), given


def require_folds(table: pa.Table, folds: Mapping[str, int], buffer_m: float) -> None:
    """Raises: InputError: a fold has lost all its points."""
    stay = set(pc.unique(table["zone_id"]).to_pylist())
    empty = sorted({*folds.values()} - {fold for zone_id, fold in folds.items() if zone_id in stay})
    if empty:
        raise InputError(
            f"folds {empty} have no point left: all lie within dataset.buffer_m = {buffer_m:g} m of other groups' points; "
            f"lower dataset.buffer_m or dataset.n_folds, or give neighbouring zones the same zone_id"
        )


def separation_doubts(
    table: pa.Table, folds: Mapping[str, int], given: Sequence[GivenWay], buffer_m: float
) -> list[str]:
    """What a reader of the scores must know: how near the points were that were left out, and which stand twice.

    The table holds the points that stay, `given` is what `separate_points` left out by its buffer.
    """
    doubts = []
    if given:
        nearest = sorted(given, key=lambda one: one.distance_m)
        listing = some([f"{one.zone_id} to {one.nearest_zone} {one.distance_m:,.2f} m" for one in nearest], _MOST_NAMED)
        n_points = sum(one.n_points for one in given)
        doubts.append(
            f"{n_points:,} points were closer than {buffer_m:g} m to another split or fold and are left out; the "
            f"nearest: {listing}"
        )
    ids = table["zone_id"].to_pylist()
    left = set(ids)
    whole = [f"{one.zone_id} {one.n_points:,}" for one in given if one.zone_id not in left]
    if whole:
        doubts.append(f"zones that lost all their points in this way and are no part of the dataset: {some(whole)}")
    group = [folds.get(zone_id, _TEST) for zone_id in ids]
    places = pa.table({"group": group, "lon": table["lon"], "lat": table["lat"]})
    n_twice = table.num_rows - places.group_by(["group", "lon", "lat"]).aggregate([]).num_rows
    if n_twice:
        doubts.append(
            f"{n_twice:,} points stand where their split or fold has another point already, and count as well"
        )
    return doubts


def _points(table: pa.Table, folds: Mapping[str, int]) -> _Points:
    ids = table["zone_id"].to_pylist()
    order = sorted(set(ids), key=lambda zone_id: (zone_id in folds, zone_id))
    position = {zone_id: i for i, zone_id in enumerate(order)}
    zone = np.array([position[zone_id] for zone_id in ids], np.intp)
    groups = np.array([folds.get(zone_id, _TEST) for zone_id in order], np.int64)
    return _Points(tuple(order), zone, groups[zone], _earth_centred(table["lon"].to_numpy(), table["lat"].to_numpy()))


def _earth_centred(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[N, 3] m: straight lines between such points know no poles and no 180th meridian."""
    squared = _FLATTENING * (2 - _FLATTENING)  # eccentricity
    east, north = np.radians(lon), np.radians(lat)
    radius = _EQUATOR_M / np.sqrt(1 - squared * np.sin(north) ** 2)
    flat = radius * np.cos(north)
    return np.stack([flat * np.cos(east), flat * np.sin(east), radius * (1 - squared) * np.sin(north)], axis=-1)


def _chord(ground_m: float) -> float:
    """Straight line between two places, m; to the millimetre up to 50 km along the ground."""
    return 2 * _MEAN_RADIUS_M * float(np.sin(min(ground_m / (2 * _MEAN_RADIUS_M), np.pi / 2)))


def _too_near(points: _Points, buffer_m: float) -> tuple[Rows, npt.NDArray[np.float64]]:
    """([N] row of the nearest point that one must give way to, or −1; [N] their distance, m).

    Zones are settled in halves: the earlier half among itself, then what it keeps against the later half, then the
    later half. So a point is compared with kept points only, and no list of all pairs is ever made.
    """
    reach = max(_chord(buffer_m), SAME_PLACE_M)
    nearest, distance = np.full(len(points.zone), -1, np.intp), np.full(len(points.zone), np.inf)

    def give_way(later: Rows, earlier: Rows) -> None:
        for group in np.unique(points.group[later]):
            mine, others = later[points.group[later] == group], earlier[points.group[earlier] != group]
            metres, found = _nearest(points.xyz[mine], points.xyz[others], reach)
            is_nearer = metres < distance[mine]
            distance[mine[is_nearer]] = metres[is_nearer]
            nearest[mine[is_nearer]] = others[found[is_nearer]]

    def settle(zones: Sequence[Rows]) -> None:
        if len(zones) > 1:
            earlier, later = zones[: len(zones) // 2], zones[len(zones) // 2 :]
            settle(earlier)
            kept = np.concatenate(earlier)
            give_way(np.concatenate(later), kept[nearest[kept] < 0])
            settle(later)

    every = np.arange(len(points.zone))
    give_way(every, every)  # most points are far from all borders
    border = np.flatnonzero(nearest >= 0)
    nearest[:], distance[:] = -1, np.inf
    border = border[np.argsort(points.zone[border], kind="stable")]
    settle(np.split(border, np.flatnonzero(np.diff(points.zone[border])) + 1))
    return nearest, 2 * _MEAN_RADIUS_M * np.arcsin(np.minimum(distance / (2 * _MEAN_RADIUS_M), 1))


def _nearest(
    xyz: npt.NDArray[np.float64], others: npt.NDArray[np.float64], reach: float
) -> tuple[npt.NDArray[np.float64], Rows]:
    """Distance to the nearest of others and its position; infinite, and one beyond the last, where none is in reach."""
    if not len(xyz) or not len(others):
        return np.full(len(xyz), np.inf), np.full(len(xyz), len(others), np.intp)
    distance, found = cKDTree(others).query(xyz, distance_upper_bound=reach)
    return distance, found


def _given_way(points: _Points, zone: int, nearest: Rows, distance_m: npt.NDArray[np.float64]) -> GivenWay:
    rows = np.flatnonzero((points.zone == zone) & (nearest >= 0))
    closest = rows[np.argmin(distance_m[rows])]
    keeper = points.zone_ids[points.zone[nearest[closest]]]
    return GivenWay(points.zone_ids[zone], len(rows), keeper, float(distance_m[closest]))


def _refusal(given: Sequence[GivenWay], folds: Mapping[str, int], buffer_m: float) -> str:
    first = min(given, key=lambda one: one.distance_m)
    n_points = sum(one.n_points for one in given)
    return (
        f"{n_points} points in {len(given)} zones are closer than dataset.buffer_m = {buffer_m:g} m to points of another "
        f"split or fold; the nearest: {describe_zone(first.zone_id, folds)} and {describe_zone(first.nearest_zone, folds)}, "
        f"{first.distance_m:,.2f} m apart: neighbours would be trained on and scored. Set dataset.on_overlap to 'trim' "
        f"to leave these {n_points} points out, lower dataset.buffer_m, or give neighbouring zones the same zone_id"
    )
