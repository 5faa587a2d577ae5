"""Fold tables: every zone once, no fold favoured."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.errors import ConfigError
from cropray.core.folds import make_folds
from tests.oracles import folds_one_by_one


@st.composite
def problems(draw):
    n_folds = draw(st.integers(2, 5))
    n_zones = draw(st.integers(n_folds, 16))
    counts = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 50))
    zones = {f"z{i}": draw(counts) for i in range(n_zones)}
    groups = {zone_id: draw(st.sampled_from("NSW")) for zone_id in zones}
    return zones, groups, n_folds


@given(problems())
def test_folds_partition_the_zones_evenly(problem):
    zones, groups, n_folds = problem
    folds = make_folds(zones, groups, n_folds)
    sizes = Counter(folds.values())
    assert set(folds) == set(zones)
    assert set(sizes) == set(range(n_folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1


@given(problems(), st.randoms())
def test_folds_do_not_depend_on_the_order_of_zones(problem, random):
    zones, groups, n_folds = problem
    shuffled = random.sample(sorted(zones), len(zones))
    assert make_folds({z: zones[z] for z in shuffled}, groups, n_folds) == make_folds(zones, groups, n_folds)


@given(problems())
def test_folds_are_those_of_counting_anew_for_each_zone(problem):
    assert make_folds(*problem) == folds_one_by_one(*problem)


@pytest.mark.parametrize("seed", range(3))
def test_folds_of_many_zones_are_those_of_counting_anew(seed):
    rng = np.random.default_rng(seed)
    groups = {f"z{i:03d}": f"r{rng.integers(12)}" for i in range(120)}
    names = rng.permuted([f"c{k}" for k in range(15)])
    zones = {z: {c: int(n) for c, n in zip(names, rng.poisson(0.7, 15) * 40, strict=True)} for z in groups}
    assert make_folds(zones, groups, 5) == folds_one_by_one(zones, groups, 5)


@given(st.integers(2, 5), st.lists(st.integers(0, 50), min_size=5, max_size=16))
def test_a_single_region_is_spread_over_all_folds(n_folds, pixels):
    zones = {f"z{i}": {"wheat": n} for i, n in enumerate(pixels)}
    folds = make_folds(zones, dict.fromkeys(zones, "north"), n_folds)
    assert set(folds.values()) == set(range(n_folds))


@pytest.mark.parametrize("seed", range(10))
def test_no_region_of_the_study_is_left_to_one_fold(seed):
    # 8 regions of 4 training zones; a region inside one fold would be validated as an unknown region.
    rng = np.random.default_rng(seed)
    groups = {f"r{i // 4}-{i % 4}": f"r{i // 4}" for i in range(32)}
    zones = {zone_id: {f"c{k}": int(n) for k, n in enumerate(rng.lognormal(6, 1, 8))} for zone_id in groups}
    folds = make_folds(zones, groups, 3)
    for region in set(groups.values()):
        spread = Counter(folds[zone_id] for zone_id in zones if groups[zone_id] == region)
        assert len(spread) >= 2, region


def test_heaviest_zones_go_to_different_folds():
    zones = {"a": {"wheat": 90}, "b": {"wheat": 80}, "c": {"wheat": 20}, "d": {"wheat": 10}}
    # a → 0, b → 1; c to the lighter fold 1 (80 < 90); d fills fold 0. Sums: 100 and 100.
    assert make_folds(zones, {z: z for z in zones}, 2) == {"a": 0, "b": 1, "c": 1, "d": 0}


def test_a_rare_class_goes_to_the_fold_that_lacks_it():
    zones = {"a": {"wheat": 50, "hops": 40}, "b": {"wheat": 10}, "c": {"hops": 5}, "d": {"wheat": 1}}
    folds = make_folds(zones, {z: z for z in zones}, 2)
    assert folds["c"] == folds["b"] != folds["a"]


def test_too_few_zones_are_refused():
    with pytest.raises(ConfigError, match=r"3 folds need at least 3 .* there are 2"):
        make_folds({"a": {"wheat": 1}, "b": {"wheat": 1}}, {"a": "n", "b": "n"}, 3)
