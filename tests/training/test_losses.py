"""Losses by name, beside torch's own and beside their formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cropray.core.legend import IGNORE
from cropray.core.registry import name_of
from cropray.training.deep import losses
from cropray.training.deep.losses import LOSSES

WEIGHTS = torch.tensor([0.5, 1.0, 3.0, 0.25])


def drawn():
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, 4, 5, 6, generator=generator)
    labels = torch.randint(4, (2, 5, 6), generator=generator)
    labels[0, :2] = IGNORE
    return logits, labels


def test_ignored_labels_are_the_legend_s():
    assert losses.IGNORE == IGNORE


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torch_s_sum(weights, smoothing):
    logits, labels = drawn()
    loss = LOSSES.make({"name": "cross_entropy", "label_smoothing": smoothing})
    expected = torch.nn.CrossEntropyLoss(weights, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
    assert torch.equal(loss(logits, labels, weights), expected(logits, labels))
    if not smoothing:
        assert torch.equal(LOSSES.make("cross_entropy")(logits, labels, weights), expected(logits, labels))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_is_its_formula(gamma, weights):
    logits, labels = drawn()
    probabilities = logits.double().softmax(1).numpy()
    expected = 0.0
    for b, i, j in np.argwhere((labels != IGNORE).numpy()):
        k = int(labels[b, i, j])
        p = probabilities[b, k, i, j]
        expected -= (1.0 if weights is None else float(weights[k])) * (1 - p) ** gamma * np.log(p)
    assert float(LOSSES.make({"name": "focal", "gamma": gamma})(logits, labels, weights)) == pytest.approx(
        expected, rel=1e-5
    )


def test_focal_without_focus_is_cross_entropy():
    logits, labels = drawn()
    focal = LOSSES.make({"name": "focal", "gamma": 0.0})(logits, labels, WEIGHTS)
    assert torch.allclose(focal, F.cross_entropy(logits, labels, WEIGHTS, ignore_index=IGNORE, reduction="sum"))


@pytest.mark.parametrize("choice", ["cross_entropy", {"name": "focal", "gamma": 0.5}, {"name": "focal", "gamma": 0.0}])
def test_gradients_are_numbers_however_sure_a_pixel_is(choice):
    logits, labels = drawn()
    logits[1] = 200.0 * F.one_hot(labels[1], 4).permute(2, 0, 1)  # probability 1 of the true class
    logits.requires_grad_()
    LOSSES.make(choice)(logits, labels).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[0, :, :2] == 0).all(), name_of(choice)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="gamma must be at least 0"):
        LOSSES.make({"name": "focal", "gamma": -1})
    with pytest.raises(ValueError, match="label_smoothing must be"):
        LOSSES.make({"name": "cross_entropy", "label_smoothing": 1.0})
