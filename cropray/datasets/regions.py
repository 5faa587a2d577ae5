"""Leave-region-out: the folds of the second protocol, and whether its zones stand apart.

The usual folds spread every region over all of them, so that scores are of a new zone in a known region. Here each
region is a fold: what is trained on the other regions is scored on its training zones. Test zones take no part, they
are read once, by `evaluate`. What stands apart for the usual folds need not do so here: two zones of one fold may be
neighbours across a border of regions.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from cropray.core.errors import ConfigError, LeakageError
from cropray.datasets.manifest import Manifest
from cropray.datasets.point_separation import GivenWay, separate_points
from cropray.datasets.separation import Trim, separate
from cropray.io.zones import Zone

FoundT = TypeVar("FoundT")
OnOverlap = Literal["refuse", "trim"]
_OFF = "or set search.leave_region_out to false"


def require_two(regions: Iterable[str]) -> None:
    """Raises: ConfigError: the regions of the training zones are fewer than two, so that none can be left out."""
    names = sorted(set(regions))
    if len(names) < 2:
        raise ConfigError(
            f"leave-region-out needs training zones in at least two regions, there are {names}: add zones of another "
            f"region, {_OFF}"
        )


def require_regions(manifest: Manifest) -> None:
    """Prove that leave-region-out can be scored on a dataset.

    Raises:
        ConfigError: it has one region only, or a region of which the others know nothing.
        LeakageError: zones of two regions are neighbours, or nobody looked.
    """
    require_two(manifest.train_regions)
    for region in manifest.train_regions:
        train, scored = manifest.region_zones(region)
        n_pixels = sum(manifest.labelled(scored).values())
        if n_pixels == sum(manifest.untrained(train, scored).values()):
            raise ConfigError(
                f"leave-region-out: the training zones of region '{region}' hold {n_pixels:,} labelled pixels, none of them "
                f"of a class that other regions hold: add zones, {_OFF}"
            )
    if manifest.region_conflict is None:
        raise LeakageError(
            "leave-region-out: nobody has looked yet whether zones of different regions are neighbours; run `cropray "
            f"dataset CONFIG.yaml` again, {_OFF}"
        )
    if manifest.region_conflict:
        raise LeakageError(
            f"leave-region-out: {manifest.region_conflict}. Run `cropray dataset CONFIG.yaml` with "
            f"search.leave_region_out: true, {_OFF}"
        )


def across_regions(
    find: Callable[[OnOverlap], FoundT], on_overlap: OnOverlap, *, is_wanted: bool
) -> tuple[FoundT | None, str]:
    """Look for neighbours across borders of regions, and part them where leave-region-out is wanted.

    `find` raises LeakageError where there are some and it is called with `refuse`; else it says what gives way.

    Returns:
        (what gives way, None where nothing is to; which zones are neighbours, empty where none are any more).

    Raises:
        LeakageError: there are some, leave-region-out is wanted, and `on_overlap` is `refuse`.
    """
    try:
        found = find(on_overlap if is_wanted else "refuse")
    except LeakageError as error:
        if is_wanted:
            raise LeakageError(f"leave-region-out, where each region is a fold: {error}, {_OFF}") from None
        return None, str(error)
    return (found if is_wanted else None), ""


def separate_regions(
    zones: Sequence[Zone], folds: Mapping[str, int], parcel_ids: Mapping[str, Sequence[str]], buffer_m: float,
    on_overlap: OnOverlap,
) -> dict[str, Trim]:  # fmt: skip
    """What crosses a border of regions inside a fold; borders of folds are left to `separate`, whose words these are."""
    region_of = {zone.zone_id: zone.region for zone in zones if zone.split == "train"}
    regions = number_regions(region_of)
    trims: dict[str, Trim] = {}
    for fold in sorted(set(folds.values())):
        own = [zone for zone in zones if folds.get(zone.zone_id) == fold]
        with _names_for_numbers(region_of):
            trims |= separate(own, regions, parcel_ids, buffer_m, on_overlap)
    return trims


def separate_point_regions(
    table: pa.Table, folds: Mapping[str, int], buffer_m: float, on_overlap: OnOverlap
) -> tuple[pa.Table, list[GivenWay]]:
    """The same for a table of points: (points that stay, what each zone gave up); test zones stay as they are."""
    pairs = zip(table["zone_id"].to_pylist(), table["region"].to_pylist(), strict=True)
    region_of = {zone_id: region for zone_id, region in pairs if zone_id in folds}
    regions = number_regions(region_of)
    ids = {fold: pa.array([zone_id for zone_id in folds if folds[zone_id] == fold]) for fold in {*folds.values()}}
    numbered = table.append_column("number", pa.array(range(table.num_rows)))
    stay, given = [numbered.filter(pc.invert(pc.is_in(table["zone_id"], pa.array(list(folds)))))], []
    for own in ids.values():
        of_fold = numbered.filter(pc.is_in(table["zone_id"], own))
        with _names_for_numbers(region_of):
            kept, gave = separate_points(of_fold, regions, buffer_m, on_overlap)
        stay.append(kept)
        given += gave
    return pa.concat_tables(stay).sort_by("number").drop_columns(["number"]), given


@contextlib.contextmanager
def _names_for_numbers(region_of: Mapping[str, str]) -> Iterator[None]:
    """Say regions where the words of a refusal say folds."""
    names = sorted(set(region_of.values()))
    try:
        yield
    except LeakageError as error:
        raise LeakageError(
            re.sub(r"fold (\d+)", lambda number: f"region {names[int(number[1])]}", str(error))
        ) from None


def number_regions(regions: Mapping[str, str]) -> dict[str, int]:
    """Training zone → region-out fold, of training zone → region: the number of its region, in alphabetical order."""
    names = sorted(set(regions.values()))
    return {zone_id: names.index(region) for zone_id, region in regions.items()}


def join(first: Mapping[str, Trim], second: Mapping[str, Trim]) -> dict[str, Trim]:
    """What each zone gives up of both."""
    none = Trim()
    return {
        zone_id: Trim(a.parcels | b.parcels, a.keep_away + b.keep_away)
        for zone_id in {**first, **second}
        for a, b in [(first.get(zone_id, none), second.get(zone_id, none))]
    }
