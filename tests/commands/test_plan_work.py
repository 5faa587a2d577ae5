"""What a plan says about the memory budget of workers, and which films it counts."""

from dataclasses import replace

import pytest

from cropray.cluster.placement import Node
from cropray.commands.plan.work import count_work
from cropray.core.errors import ConfigError
from cropray.planning.limits import over_budget
from cropray.planning.work import Cluster, JobWork
from tests.drawn_dataset import drawn_job
from tests.planning.test_estimate import ZONES, job
from tests.synthetic import entry, zone


def counted(config, zones):
    """As scaled up from the first zone."""
    return count_work(config, zones, [entry("a", counts={"wheat": 9})], 1, zones[:1])


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
    node, zones = Node(2, memory_bytes=8e9), replace(ZONES, train_rows=rows, n_classes=4)
    taken = {("memory", "a worker: CNN"): network_gb * 1e9, ("memory", "a worker: XGBoost"): 9e9}
    found = over_budget(JobWork(drawn, zones, Cluster((node,))), taken)
    assert len(found) == len(reasons)
    assert all(words in reason for words, reason in zip(reasons, found, strict=True))
    unbounded = drawn_job(tmp_path)
    assert over_budget(JobWork(unbounded, zones, Cluster((Node(2),))), taken) == []


@pytest.mark.parametrize("films", ["one_per_region", "all", "none", ["a", "t"]])
def test_films_are_counted_by_the_rule_that_draws_them(films):
    zones = [zone("a"), zone("b"), zone("c", region="south"), zone("t", "test", "west")]
    n_films = {"one_per_region": 3, "all": 4, "none": 0}.get(str(films), 2)
    assert counted(job(report={"films": films}), zones).n_films == n_films
    with_red = {"bands": ["B04"], "step": "month"}
    assert counted(job(report={"films": films}, cube=with_red), zones).n_films == 0


def test_films_of_unknown_zones_are_refused():
    with pytest.raises(ConfigError, match=r"report\.films names \['z'\]"):
        counted(job(report={"films": ["z"]}), [zone("a")])
