"""Fold tables: which zone validates in which fold.

The zone is the unit; a zone's pixels and tiles are never divided. Heaviest zone first, each to the fold
where it does most good: classes that the fold still lacks, then the smallest sum of labelled pixels.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from cropray.core.errors import ConfigError


def make_folds(zones: Mapping[str, Mapping[str, int]], groups: Mapping[str, str], n_folds: int) -> dict[str, int]:
    """Assign training zones to folds, balanced by labelled pixels, region and class coverage.

    Deterministic: ties are broken by zone id.

    Args:
        zones: training zone → class name → labelled pixels.
        groups: training zone → region; a region's zones are spread over the folds.
        n_folds: number of folds, at least 2.

    Returns:
        zone → fold, 0 … n_folds − 1; no fold is empty.

    Raises:
        ConfigError: fewer zones than folds.
    """
    if len(zones) < n_folds:
        raise ConfigError(
            f"{n_folds} folds need at least {n_folds} training zones with labels, there are {len(zones)}; "
            f"add zones or lower dataset.n_folds"
        )
    assigned: dict[str, int] = {}
    sizes, pixels = [0] * n_folds, [0] * n_folds
    seen: list[set[str]] = [set() for _ in range(n_folds)]
    regions: list[Counter[str]] = [Counter() for _ in range(n_folds)]
    n_holding = Counter(name for counts in zones.values() for name, n in counts.items() if n > 0)
    for zone_id in sorted(zones, key=lambda z: (-sum(zones[z].values()), z)):
        counts = {name: n for name, n in zones[zone_id].items() if n > 0}
        rarity = {name: 1 / n_holding[name] for name in counts}

        def badness(
            fold: int, rarity: Mapping[str, float] = rarity, region: str = groups[zone_id]
        ) -> tuple[float, ...]:
            gained = sum(weight for name, weight in rarity.items() if name not in seen[fold])
            return (sizes[fold] > 0, regions[fold][region], -gained, pixels[fold], fold)

        # An empty fold comes first, then the fold with the fewest zones of this region.
        best = min(_open_folds(sizes, len(zones)), key=badness)
        assigned[zone_id] = best
        sizes[best] += 1
        pixels[best] += sum(counts.values())
        seen[best] |= counts.keys()
        regions[best][groups[zone_id]] += 1
    return assigned


def _open_folds(sizes: Sequence[int], n_zones: int) -> list[int]:
    """Folds that may still take a zone: sizes differ by at most one."""
    smallest, n_larger = divmod(n_zones, len(sizes))
    may_grow = sum(size > smallest for size in sizes) < n_larger
    return [fold for fold, size in enumerate(sizes) if size < smallest + may_grow]
