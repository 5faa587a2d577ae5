"""Scores of groups of the legend, and answers that fall back to them, against loops."""

from dataclasses import replace

import numpy as np
import pytest

from cropray.core.legend import bundled_legend, legend_from_names
from cropray.core.metrics import confusion
from cropray.evaluation.detail import cubes_of, detail, headline
from cropray.evaluation.levels import fall_back, groups_of, merged
from cropray.training.decision import Decision
from tests.evaluation.test_tally import MANIFEST, RULED, drawn, tallied, zones
from tests.maps.builders import CLASSES
from tests.synthetic import entry, manifest

GROUPS = {"level_1": (0, 0, 0, 0, 1), "level_2": (0, 0, 1, 2, 3)}  # wheat and barley; maize; rapeseed; meadow


def test_levels_are_the_legend_s_and_tell_something():
    assert groups_of(CLASSES) == GROUPS
    assert groups_of(CLASSES[:2]) == {}  # one group alone
    assert groups_of(CLASSES[2:4]) == {}
    assert groups_of(legend_from_names(["b", "a"]).classes) == {}
    deeper = [replace(crop, more_levels=("same",) if crop.id < 2 else (crop.name,)) for crop in CLASSES]
    assert groups_of(deeper) == GROUPS  # the third level has the groups of the second
    same_name = [replace(crop, level2="other") for crop in CLASSES]  # below two groups of the first level
    assert groups_of(same_name) == {"level_1": GROUPS["level_1"]}
    assert list(groups_of(bundled_legend().classes)) == ["level_1", "level_2"]


@pytest.mark.parametrize("groups", GROUPS.values())
def test_merged_counts_are_of_merged_labels(groups):
    rng = np.random.default_rng(5)
    true, decided = rng.integers(0, 5, (2, 3, 200))
    cube = np.stack([confusion(*pair, 5) for pair in zip(true, decided, strict=True)])
    of = np.array(groups)
    wanted = [confusion(of[t], of[d], max(groups) + 1) for t, d in zip(true, decided, strict=True)]
    np.testing.assert_array_equal(merged(cube, groups), wanted)


@pytest.mark.parametrize("decision", [Decision(), RULED], ids=["likeliest", "rule"])
def test_unsure_pixels_are_answered_by_the_group_with_most_probability(decision):
    table, true, chances = drawn(2)
    weights = np.array(decision.multipliers or [1.0] * 5, np.float32)
    groups, rows, differs = np.array(GROUPS["level_2"]), [], 0
    for truth, of_pixel in zip(true, chances.T, strict=True):
        weighed = of_pixel * weights
        decided = int(weighed.argmax())
        group = int(np.argmax([weighed[groups == g].sum() for g in range(4)]))
        differs += group != groups[decided]
        rows.append((round(100 * float(of_pixel[decided])), decided == truth, group == groups[truth]))
    assert differs > 10  # a group may be likelier than the one of the likeliest class
    counts = tallied(table, true, chances, decision=decision)["confidence"]
    for row in fall_back(counts):
        sure = [(right, of_group) for percent, right, of_group in rows if percent >= row["threshold_percent"]]
        unsure = [(right, of_group) for percent, right, of_group in rows if percent < row["threshold_percent"]]
        assert row["share_of_class"] == len(sure) / 900
        n_right, n_of_group = sum(right for right, _ in sure), sum(of_group for _, of_group in unsure)
        assert row["accuracy"] == (n_right + n_of_group) / 900
        assert row["accuracy_of_class"] == (n_right / len(sure) if sure else None)
        assert row["accuracy_of_group"] == (n_of_group / len(unsure) if unsure else None)


def test_scores_of_levels_stand_beside_those_of_classes():
    zone_ids, cube, found = zones(5)
    record = detail(MANIFEST, zone_ids, cube, cubes_of(zone_ids, cube, found), seed=0)
    assert list(record["levels"]) == ["level_1", "level_2"]
    right = sum(cube[:, t, d].sum() for t in range(5) for d in range(5) if GROUPS["level_2"][t] == GROUPS["level_2"][d])
    level = record["levels"]["level_2"]
    assert (level["groups"], level["n"]) == (4, cube.sum())
    assert level["metrics"]["test_accuracy"] == right / cube.sum()
    assert headline(record)["test_level_2_accuracy"] == right / cube.sum()
    curve = record["fall_back"]["curve"]
    assert record["fall_back"]["level"] == "level_2"
    assert curve[0]["accuracy"] == np.trace(cube.sum(0)) / cube.sum()  # all keep their class
    assert (curve[-1]["share_of_class"], curve[-1]["threshold_percent"]) == (0, 101)


def test_a_legend_without_groups_has_no_levels_and_nothing_to_fall_back_to():
    flat = manifest(entry("a", None), names=("a", "b", "c", "d", "e"))
    zone_ids, cube, found = zones(2)
    without = [{name: counts for name, counts in each.items() if name != "confidence"} for each in found]
    record = detail(flat, zone_ids, cube, cubes_of(zone_ids, cube, without), seed=0)
    assert (record["levels"], record["fall_back"]) == ({}, None)
    assert not [key for key in headline(record) if "level" in key]
