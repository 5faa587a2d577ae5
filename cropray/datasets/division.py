"""Who is trained on with whom: the folds of a dataset, and what gives way at their borders and at those of splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from cropray.core.folds import make_folds
from cropray.core.legend import Legend
from cropray.datasets.point_separation import GivenWay, require_folds, separate_points
from cropray.datasets.points import points_folds
from cropray.datasets.regions import across_regions, join, require_two, separate_point_regions, separate_regions
from cropray.datasets.separation import Trim, separate
from cropray.datasets.settings import DatasetSettings
from cropray.io.zones import Zone

Counted = Mapping[str, tuple[Mapping[int, int], Sequence[str]]]
"""Zone → (class id → labelled pixels, ids of labelled parcels)."""


@dataclass(frozen=True, slots=True)
class Division:
    """Of zones."""

    folds: Mapping[str, int]
    """Training zone → validation fold."""
    trims: Mapping[str, Trim]
    """Zone → what it gives up; zones that give nothing are absent."""
    parcel_ids: Mapping[str, Sequence[str]]
    """Zone → ids of its labelled parcels, before any gave way."""
    region_conflict: str
    """See `Manifest`."""


@dataclass(frozen=True, slots=True)
class PointDivision:
    """Of a table of points."""

    table: pa.Table
    """The points that stay."""
    folds: Mapping[str, int]
    """Training zone → validation fold."""
    given: Sequence[GivenWay]
    """What did not stay."""
    region_conflict: str
    """See `Manifest`."""


def divide_zones(
    zones: Sequence[Zone], counted: Counted, legend: Legend, settings: DatasetSettings, *, by_region: bool
) -> Division:
    """Folds of all zones (in table order), and what gives way; `by_region`, where regions have to stand apart as well.

    Raises:
        LeakageError: something crosses a border, and `settings.on_overlap` is `refuse`.
    """
    folds = make_folds(
        {z.zone_id: _by_name(counted[z.zone_id][0], legend) for z in zones if z.split == "train"},
        {z.zone_id: z.region for z in zones},
        settings.n_folds,
    )
    parcel_ids = {zone_id: ids for zone_id, (_, ids) in counted.items()}
    trims = separate(zones, folds, parcel_ids, settings.buffer_m, settings.on_overlap)
    find = partial(separate_regions, zones, folds, parcel_ids, settings.buffer_m)
    of_regions, conflict = across_regions(find, settings.on_overlap, is_wanted=by_region)
    return Division(folds, join(trims, of_regions or {}), parcel_ids, conflict)


def divide_points(whole: pa.Table, settings: DatasetSettings, *, by_region: bool) -> PointDivision:
    """The same for a checked table of points.

    Raises:
        ConfigError: `by_region`, and there is one region only.
        InputError: a fold has lost all its points.
        LeakageError: points are too near, and `settings.on_overlap` is `refuse`.
    """
    folds = points_folds(whole, settings.n_folds)
    if by_region:
        pairs = zip(whole["zone_id"].to_pylist(), whole["region"].to_pylist(), strict=True)
        require_two(region for zone_id, region in pairs if zone_id in folds)
    table, given = separate_points(whole, folds, settings.buffer_m, settings.on_overlap)
    find = partial(separate_point_regions, table, folds, settings.buffer_m)
    of_regions, conflict = across_regions(find, settings.on_overlap, is_wanted=by_region)
    if of_regions is not None:
        table, given = of_regions[0], [*given, *of_regions[1]]
    require_folds(table, folds, settings.buffer_m)
    return PointDivision(table, folds, given, conflict)


def _by_name(counts: Mapping[int, int], legend: Legend) -> dict[str, int]:
    return {legend.names[class_id]: n for class_id, n in counts.items()}
