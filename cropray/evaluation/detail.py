"""The same test counted otherwise: by parcel, its size, clear steps, level of the legend, and from the worst zone to the best.

Comes from the one prediction that the cube counts; every figure is a score of a cube [zone, true, predicted].
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cropray.core.errors import AccountingError
from cropray.core.intervals import bootstrap_intervals
from cropray.core.metrics import Counts, headlines, score
from cropray.datasets.manifest import Manifest
from cropray.evaluation.levels import fall_back, groups_of, merged
from cropray.evaluation.tally import PARCEL_RULES, clear_titles, size_titles

_QUARTILES: Final = {"lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75}
FEWEST_OF_ZONE: Final = 30
"""Labels of a zone that is compared with others: the score of a few points is their luck."""


def cubes_of(zone_ids: Sequence[str], cube: Counts, otherwise: Sequence[Mapping[str, Counts]]) -> dict[str, Counts]:
    """The counts of all zones together, proved to hold each labelled pixel, and each parcel, once.

    Args:
        zone_ids: zone of each cube row.
        cube: [zone, true, predicted].
        otherwise: of each zone, see `Tally.counts`.

    Returns:
        `clear_steps` and, where there are parcels, `parcel_sizes`, [group, zone, true, predicted] pixels, and
        `parcels_majority` and `parcels_mean_probability`, [size, zone, true, predicted] parcels; where the legend has
        groups `confidence`, [zone, %, (pixels, whose class is right, whose group is)].

    Raises:
        AccountingError: pixels or parcels were lost, or counted twice.
    """
    found = {name: np.stack([zone[name] for zone in otherwise], -3) for name in otherwise[0]}
    for name, counts in found.items():
        if name == "confidence":
            of_cube = np.stack([cube.sum((1, 2)), np.trace(cube, axis1=1, axis2=2)], 1)
            _require_none(zone_ids, counts[..., :2].sum(1) != of_cube, "pixels by confidence do not add up to the cube")
        elif name != "parcels":
            _require_none(zone_ids, counts.sum(0) != cube, f"pixels by {name} do not add up to the cube")
    if (parcels := found.pop("parcels", None)) is not None:
        found |= {f"parcels_{rule}": counts for rule, counts in zip(PARCEL_RULES, parcels, strict=True)}
        majority, mean = (counts.sum(-1).swapaxes(0, 1) for counts in parcels)  # [zone, size, true]
        pixels = found["parcel_sizes"].sum(-1).swapaxes(0, 1)
        _require_none(zone_ids, mean != majority, "the rules do not decide the same parcels")
        lost = (majority > pixels) | ((majority == 0) & (pixels > 0))
        _require_none(zone_ids, lost, "there are other parcels than the labelled pixels have")
    return found


def _require_none(zone_ids: Sequence[str], is_wrong: npt.NDArray[np.bool_], what: str) -> None:
    """`is_wrong`: [zone, …]."""
    wrong = [zone for zone, found in zip(zone_ids, is_wrong, strict=True) if found.any()]
    if wrong:
        raise AccountingError(
            f"{what} in {len(wrong)} of {len(zone_ids)} zones, the first is '{wrong[0]}'; rebuild the dataset and evaluate "
            f"again"
        )


def detail(
    manifest: Manifest, zone_ids: Sequence[str], cube: Counts, cubes: Mapping[str, Counts], seed: int
) -> dict[str, Any]:
    """What `scores.json` says of the same test counted otherwise.

    Args:
        manifest: of the dataset.
        zone_ids: zone of each cube row.
        cube: [zone, true, predicted].
        cubes: see `cubes_of`.
        seed: of the intervals.

    Returns:
        JSON: `zones` (by score the worst zone, the smallest value, the quartiles and how many zones these are of: those
        of `FEWEST_OF_ZONE` labels and more, {} where there is none), `clear_steps`, `levels` (of the
        legend, of classes merged to their groups), `fall_back` (to the groups of the finest of them, see
        `levels.fall_back`; None without levels) and, where there are parcels, `parcels` (by rule) and `parcel_sizes`;
        groups without a pixel are left out.
    """
    levels = groups_of(manifest.classes)
    record: dict[str, Any] = {
        "zones": _spread(zone_ids, cube),
        "clear_steps": _groups(clear_titles(manifest.cube.n_steps), cubes["clear_steps"], seed),
        "levels": {
            name: {"groups": max(groups) + 1, **scored(merged(cube, groups), seed)} for name, groups in levels.items()
        },
        "fall_back": {"level": [*levels][-1], "curve": fall_back(cubes["confidence"].sum(0))} if levels else None,
    }
    if "parcel_sizes" in cubes:
        of_rules = {rule: cubes[f"parcels_{rule}"] for rule in PARCEL_RULES}
        record["parcels"] = {rule: scored(parcels.sum(0), seed) for rule, parcels in of_rules.items()}
        record["parcel_sizes"] = _groups(size_titles(), cubes["parcel_sizes"], seed)
        for row in record["parcel_sizes"]:
            parcels = of_rules["majority"][size_titles().index(row["group"])]
            row["parcels"] = scored(parcels, seed)
    return record


def scored(cube: Counts, seed: int) -> dict[str, Any]:
    """Scores of [zone, true, predicted] as JSON: `n` counted, `classes` present, `metrics`, and `intervals` or None."""
    scores = score(cube.sum(0))
    return {
        "n": scores.n_pixels,
        "classes": int(cube.any((0, 2)).sum()),
        "metrics": scores.as_metrics("test"),
        "intervals": bootstrap_intervals(cube, seed) or None,
    }


def headline(record: Mapping[str, Any]) -> dict[str, float]:
    """The few figures of `detail` that the tracker gets beside the scores of pixels; none of an evaluation without it."""
    found = {}
    for metric in headlines():
        if (zone := record.get("zones", {}).get(metric.key)) is not None:
            found[f"test_worst_zone_{metric.key}"] = zone["worst"]
        for level, scores in record.get("levels", {}).items():
            found[f"test_{level}_{metric.key}"] = scores["metrics"][f"test_{metric.key}"]
        if "parcels" in record:
            parcels = record["parcels"]["majority"]
            ends = (parcels["intervals"] or {}).get(f"test_{metric.key}", ())
            found[f"test_parcel_{metric.key}"] = parcels["metrics"][f"test_{metric.key}"]
            found |= {f"test_parcel_{metric.key}_{end}": x for end, x in zip(("low", "high"), ends, strict=False)}
    return found


def _spread(zone_ids: Sequence[str], cube: Counts) -> dict[str, dict[str, Any]]:
    """Of each headline score over the zones with labels enough."""
    counted = [(zone, score(m)) for zone, m in zip(zone_ids, cube, strict=True) if m.sum() >= FEWEST_OF_ZONE]
    spread: dict[str, dict[str, Any]] = {}
    for metric in headlines() if counted else ():
        pairs = [(scores.known(metric.key), zone) for zone, scores in counted]
        worst, worst_zone = min(pairs) if metric.higher_is_better else max(pairs)
        quartiles = np.quantile([value for value, _ in pairs], [*_QUARTILES.values()]).tolist()
        spread[metric.key] = {"n": len(pairs), "worst_zone": worst_zone, "worst": worst}
        spread[metric.key] |= dict(zip(_QUARTILES, quartiles, strict=True))
    return spread


def _groups(titles: Iterable[str], cubes: Counts, seed: int) -> list[dict[str, Any]]:
    return [{"group": title, **scored(cube, seed)} for title, cube in zip(titles, cubes, strict=True) if cube.any()]
