"""Tests of several splits put together, and of two models side by side."""

import json

import numpy as np
import pytest

from cropray.core.errors import AccountingError, InputError
from cropray.core.intervals import Difference, bootstrap_class_differences, bootstrap_difference
from cropray.core.metrics import score
from cropray.evaluation.pooled import Counted, compare, pool, read_counted, verdict

WHEAT, RAPE, HOPS = "wheat", "rape", "hops"


def counted(zone_ids, matrices, classes=(WHEAT, RAPE), loss=1.0):
    return Counted(tuple(zone_ids), classes, np.array(matrices, np.int64), loss)


def drawn(seed, n_zones=9, right=0.8):
    """[zone, true, predicted] of three classes, of which the last is seldom."""
    rng = np.random.default_rng(seed)
    cube = np.zeros((n_zones, 3, 3), np.int64)
    for zone in range(n_zones):
        for true, n in enumerate((40, 30, 6)):
            cube[zone, true] = rng.multinomial(n, np.where(np.arange(3) == true, right, (1 - right) / 2))
    return cube


def test_pooled_counts_are_of_every_zone_and_class():
    first = counted(["a", "b"], [[[3, 1], [0, 2]], [[1, 0], [0, 1]]], loss=2.5)
    second = counted(["c"], [[[5, 0, 0], [0, 4, 1], [1, 0, 0]]], classes=(HOPS, WHEAT, RAPE))  # in another order
    both = pool([first, second])
    assert (both.zone_ids, both.classes, both.loss_sum) == (("a", "b", "c"), (WHEAT, RAPE, HOPS), 3.5)
    np.testing.assert_array_equal(both.cube[0], [[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(both.cube[2], [[4, 1, 0], [0, 0, 1], [0, 0, 5]])  # wheat, rape, hops


def test_a_zone_that_was_tested_twice_is_refused():
    with pytest.raises(AccountingError, match="'b'"):
        pool([counted(["a", "b"], np.ones((2, 2, 2))), counted(["b"], np.ones((1, 2, 2)))])


def test_what_an_evaluation_wrote_is_read_back(tmp_path):
    cube = drawn(1)
    np.save(tmp_path / "cube.npy", cube)
    ids = [f"z{i}" for i in range(9)]
    (tmp_path / "scores.json").write_text(json.dumps({"zone_ids": ids, "loss_sum": 3.0, "classes": ["x", "y", "z"]}))
    found = read_counted(tmp_path)
    assert (found.zone_ids, found.classes, found.loss_sum) == (tuple(ids), ("x", "y", "z"), 3.0)
    assert read_counted(tmp_path, ("p", "q", "r")).classes == ("p", "q", "r")
    with pytest.raises(InputError, match="of an earlier dataset"):
        read_counted(tmp_path, ("p", "q"))


def test_models_are_compared_on_the_zones_that_both_have():
    names, ids = (WHEAT, RAPE, HOPS), [f"z{i}" for i in range(9)]
    good, bad = drawn(1, right=0.95), drawn(1, right=0.5)
    a, b = counted(ids, good, names), counted(ids[::-1], bad[::-1], names)
    found = compare(a, counted(ids[1:], bad[1:], names), seed=3)
    assert found.zone_ids == tuple(ids[1:])
    whole = compare(a, b, seed=3)  # zones stand in another order there
    assert whole.scores == bootstrap_difference(good, bad, 3)
    assert whole.scores["test_macro_f1"].value == pytest.approx(
        score(good.sum(0)).macro_f1 - score(bad.sum(0)).macro_f1
    )
    assert {key: verdict(whole.scores[key], "A", "B") for key in whole.scores} == dict.fromkeys(
        whole.scores, "A is better"
    )


def test_the_f1_of_a_class_has_a_difference_of_its_own():
    names, ids = (WHEAT, RAPE, HOPS), [f"z{i}" for i in range(9)]
    good, bad = drawn(1, right=0.95), drawn(1, right=0.5)
    found = compare(counted(ids, good, names), counted(ids, bad, names), seed=3).classes
    f1 = {c.class_id: c.f1 for c in score(good.sum(0)).classes}, {c.class_id: c.f1 for c in score(bad.sum(0)).classes}
    for index, name in enumerate(names):
        assert found[name].value == pytest.approx(f1[0][index] - f1[1][index])
        assert found[name].low < found[name].value < found[name].high
    # The macro score is the mean of the classes, and so is its difference.
    assert np.mean([each.value for each in found.values()]) == pytest.approx(
        bootstrap_difference(good, bad, 3)["test_macro_f1"].value
    )


def test_a_class_without_labels_has_no_difference():
    cube = drawn(2)
    cube[:, 1] = 0
    assert set(bootstrap_class_differences(cube, cube, 0)) == {0, 2}
    assert bootstrap_class_differences(cube[:3], cube[:3], 0) == {}


def test_other_labels_or_zones_are_not_compared():
    names, ids = (WHEAT, RAPE, HOPS), [f"z{i}" for i in range(9)]
    cube = drawn(1)
    more = cube.copy()
    more[4, 0, 0] += 1
    with pytest.raises(InputError, match=r"1 of 9 zones, the first is 'z4'"):
        compare(counted(ids, cube, names), counted(ids, more, names), 0)
    with pytest.raises(InputError, match="no test zone in common"):
        compare(counted(ids, cube, names), counted([f"y{i}" for i in range(9)], cube, names), 0)


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.01, 0.2, "A is better"), (-0.2, -0.01, "B is better"), (-0.1, 0.2, "not distinguish")]
)
def test_an_interval_around_nothing_tells_nothing(low, high, said):
    assert verdict(Difference(0.05, low, high), "A", "B").startswith(said)
