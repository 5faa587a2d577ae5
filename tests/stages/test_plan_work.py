"""What a plan says about the memory budget of workers."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from cropray.search.placement import Node, need_of, place_units
from cropray.stages.plan_work import over_budget
from tests.drawn_dataset import drawn_job


@pytest.mark.parametrize(
    ("rows", "network_gb", "reasons"),
    [
        (1e6, 1.9, []),
        (20e6, 1.9, ["trees on 20,000,000 rows of 4 classes take 3 GB"]),
        (1e6, 2.1, ["a worker of the CNN takes 2.1 GB and may take 2 GB: lower cnn.batch_size"]),
    ],
)
def test_a_worker_that_cannot_keep_its_budget_is_refused(rows, network_gb, reasons, tmp_path):
    job = drawn_job(tmp_path, cnn={"memory_gb": 2}, xgboost={"memory_gb": 2})
    placement = place_units([Node(2, memory_bytes=8e9)], need_of("cnn", job.cnn), None)
    zones = SimpleNamespace(train_rows=rows, n_classes=4)
    work = SimpleNamespace(placements={"xgboost": placement, "cnn": placement}, zones=zones)
    found = over_budget(job, work, {"CNN": network_gb * 1e9, "XGBoost": 9e9})
    assert len(found) == len(reasons)
    assert all(words in reason for words, reason in zip(reasons, found, strict=True))
    unknown = replace(placement, memory_bytes=float("inf"))
    work.placements = {"xgboost": unknown, "cnn": unknown}
    assert over_budget(job, work, {"CNN": network_gb * 1e9, "XGBoost": 9e9}) == []
