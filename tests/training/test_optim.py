"""Optimisers and schedules by name."""

import pytest
import torch

from cropray.training.deep.loop import scheduled_rate
from cropray.training.deep.optim import OPTIMIZERS, SCHEDULES
from tests.training.small_fits import plan, small_fit


def test_one_cycle_is_torch_s():
    """At the steps where torch's own schedule turns, and between them."""
    n_steps, warmup = 201, 0.25
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=n_steps + 1, pct_start=51 / 202, div_factor=25, final_div_factor=1e4
    )
    schedule = SCHEDULES.make({"name": "one_cycle", "warmup": warmup, "start": 1 / 25, "end": 1 / 25e4})
    for step in range(200):
        rate = optimizer.param_groups[0]["lr"]
        assert schedule.factor(step * 0.05, 10) == pytest.approx(rate, abs=0.02), step
        optimizer.step()
        reference.step()
    assert schedule.factor(0.0, 10) == pytest.approx(1 / 25)
    assert schedule.factor(2.5, 10) == pytest.approx(1.0)
    assert schedule.factor(9.9999, 10) < 1e-4


def test_rates_change_by_step_or_by_epoch():
    rates = [scheduled_rate(plan(schedule="one_cycle", epochs=10), 1, done) for done in (0.0, 0.5)]
    assert rates[0] < rates[1] < 3e-3
    assert SCHEDULES.make("one_cycle").by_step
    assert not SCHEDULES.make("cosine").by_step


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"name": "sgd", "momentum": 0.8}, "learning_rate": 0.05},
        {"schedule": "one_cycle", "learning_rate": 1e-2},
        {"loss": {"name": "focal", "gamma": 1.0}, "learning_rate": 1e-2},
    ],
    ids=["sgd", "one_cycle", "focal"],
)
def test_it_learns_by_other_recipes(changes):
    result = small_fit(epochs=30, patience=30, **changes)
    assert max(record["val_accuracy"] for record in result.history) > 0.7  # chance is 0.3


def test_weight_decay_reaches_the_optimiser():
    parameter = torch.nn.Parameter(torch.ones(1))
    for name in ("adamw", "sgd"):
        (group,) = OPTIMIZERS.make(name).make([parameter], 0.1, 0.3).param_groups
        assert (group["lr"], group["weight_decay"]) == (0.1, 0.3)
