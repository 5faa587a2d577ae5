"""What a plan says about the memory budget of workers, and which films it counts."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from cropray.cluster.placement import Node, need_of, place_units
from cropray.commands.plan.work import count_zones, over_budget
from cropray.core.errors import ConfigError
from tests.drawn_dataset import drawn_job
from tests.planning.test_estimate import job
from tests.synthetic import zone


def sampled(of):
    return SimpleNamespace(zone=of, rows=9, n_tiles=1, classes=())


@pytest.mark.parametrize(
    ("rows", "network_gb", "reasons"),
    [
        (1e6, 1.9, []),
        (20e6, 1.9, ["trees on 20,000,000 rows of 4 classes take 3 GB"]),
        (1e6, 2.1, ["a worker of the CNN takes 2.1 GB and may take 2 GB: lower cnn.batch_size"]),
    ],
)
def test_a_worker_that_cannot_keep_its_budget_is_refused(rows, network_gb, reasons, tmp_path):
    drawn = drawn_job(tmp_path, cnn={"memory_gb": 2}, xgboost={"memory_gb": 2})
    placement = place_units([Node(2, memory_bytes=8e9)], need_of("cnn", drawn.cnn), None)
    zones = SimpleNamespace(train_rows=rows, n_classes=4)
    work = SimpleNamespace(placements={"xgboost": placement, "cnn": placement}, zones=zones)
    found = over_budget(drawn, work, {"CNN": network_gb * 1e9, "XGBoost": 9e9})
    assert len(found) == len(reasons)
    assert all(words in reason for words, reason in zip(reasons, found, strict=True))
    unknown = replace(placement, memory_bytes=float("inf"))
    work.placements = {"xgboost": unknown, "cnn": unknown}
    assert over_budget(drawn, work, {"CNN": network_gb * 1e9, "XGBoost": 9e9}) == []


@pytest.mark.parametrize("films", ["one_per_region", "all", "none", ["a", "t"]])
def test_films_are_counted_by_the_rule_that_draws_them(films):
    zones = [zone("a"), zone("b"), zone("c", region="south"), zone("t", "test", "west")]
    counted = {"one_per_region": 3, "all": 4, "none": 0}.get(str(films), 2)
    assert count_zones(job(report={"films": films}), zones, [sampled(zones[0])], None).n_films == counted
    with_red = {"bands": ["B04"], "step": "month"}
    assert count_zones(job(report={"films": films}, cube=with_red), zones, [sampled(zones[0])], None).n_films == 0


def test_films_of_unknown_zones_are_refused():
    with pytest.raises(ConfigError, match=r"report\.films names \['z'\]"):
        count_zones(job(report={"films": ["z"]}), [zone("a")], [sampled(zone("a"))], None)
