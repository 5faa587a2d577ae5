"""Fold tables: which zone validates in which fold.

The zone is the unit; a zone's pixels and tiles are never divided. Heaviest zone first, each to the fold
where it does most good: classes that the fold still lacks, then the smallest sum of labelled pixels.
"""

from collections.abc import Mapping, Sequence

from cropray.errors import ConfigError


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
    pixels = [0] * n_folds
    seen: list[set[str]] = [set() for _ in range(n_folds)]
    regions: list[list[str]] = [[] for _ in range(n_folds)]
    for zone_id in sorted(zones, key=lambda z: (-sum(zones[z].values()), z)):
        counts = {name: n for name, n in zones[zone_id].items() if n > 0}
        rarity = {name: 1 / sum(name in table and table[name] > 0 for table in zones.values()) for name in counts}

        def badness(
            fold: int, rarity: Mapping[str, float] = rarity, region: str = groups[zone_id]
        ) -> tuple[float, ...]:
            gained = sum(weight for name, weight in rarity.items() if name not in seen[fold])
            return (len(regions[fold]) > 0, regions[fold].count(region), -gained, pixels[fold], fold)

        # An empty fold comes first, then the fold with the fewest zones of this region.
        best = min(_open_folds(regions, len(zones)), key=badness)
        assigned[zone_id] = best
        pixels[best] += sum(counts.values())
        seen[best] |= counts.keys()
        regions[best].append(groups[zone_id])
    return assigned


def _open_folds(members: Sequence[Sequence[str]], n_zones: int) -> list[int]:
    """Folds that may still take a zone: sizes differ by at most one."""
    smallest, n_larger = divmod(n_zones, len(members))
    may_grow = sum(len(zones) > smallest for zones in members) < n_larger
    return [fold for fold, zones in enumerate(members) if len(zones) < smallest + may_grow]
