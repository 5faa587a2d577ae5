"""Losses by name, beside torch's own and beside their formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cropray.core.errors import ConfigError
from cropray.core.legend import IGNORE, CropClass, legend_from_names
from cropray.core.registry import name_of
from cropray.training.cnn.fit import CNN
from cropray.training.cnn.settings import CnnSettings
from cropray.training.deep import losses
from cropray.training.deep.fit import NetworkData, _Job
from cropray.training.deep.losses import LOSSES, made_loss
from tests.training import small_fits

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


def grouped(*levels):
    return tuple(CropClass(i, f"c{i}", *of[:2], "", "", "", of[2:]) for i, of in enumerate(levels))


TREE = grouped(("grain", "winter", "a"), ("grain", "summer", "b"), ("grass", "grass", "c"), ("grain", "winter", "d"))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_groups_have_the_probabilities_of_their_classes(weights):
    logits, labels = drawn()
    of_pixels = 1.0 + torch.arange(60).view(2, 5, 6) / 30
    loss = made_loss({"name": "hierarchical", "weights": (0.2, 0.7)}, TREE)
    expected, probabilities = 0.0, logits.double().softmax(1).numpy()
    for b, i, j in np.argwhere((labels != IGNORE).numpy()):
        k, p = int(labels[b, i, j]), probabilities[b, :, i, j]
        of_pixel = -np.log(p[k])
        for level, weight in enumerate((0.2, 0.7)):
            of_pixel -= weight * np.log(sum(p[c] for c in range(4) if TREE[c].levels[level] == TREE[k].levels[level]))
        expected += of_pixel * float(of_pixels[b, i, j]) * (1.0 if weights is None else float(weights[k]))
    assert float(loss(logits, labels, weights, of_pixels)) == pytest.approx(expected, rel=1e-5)


def test_a_confusion_within_a_group_costs_less():
    loss, truth = made_loss("hierarchical", TREE), torch.zeros(1, 1, 1, dtype=torch.int64)
    taken_for = [8.0 * F.one_hot(torch.tensor([k]), 4)[..., None, None] for k in range(4)]
    of_itself, summer, grass, winter = (float(loss(logits, truth)) for logits in taken_for)
    assert of_itself < winter < summer < grass
    for logits in (100 * taken_for[0], 100 * taken_for[2]):  # sure and right, sure and wrong
        loss(logits.requires_grad_(), truth).backward()
        assert logits.grad.isfinite().all()


def test_a_level_without_weight_does_not_count():
    (logits, labels), other = drawn(), grouped(*(("all", *crop.levels[1:]) for crop in TREE))
    one, same = (made_loss({"name": "hierarchical", "weights": (0.0, 0.5)}, tree) for tree in (TREE, other))
    assert torch.equal(one(logits, labels), same(logits, labels))


@pytest.mark.parametrize(
    ("weights", "classes", "said"),
    [
        ((0.1, 0.3), legend_from_names("abcd").classes, "no two classes.*level_1, level_2.*cross_entropy"),
        ((0.0, 0.0, 0.5), TREE, "no two classes"),
        ((0.1, 0.1, 0.1, 0.1), TREE, "4 weights, and the legend 3 levels"),
        ((0.1,), (), "1 weights, and the legend 0 levels"),
    ],
)
def test_legends_without_the_groups_are_refused(weights, classes, said):
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        made_loss({"name": "hierarchical", "weights": weights}, classes)


def test_a_fit_tells_the_loss_its_classes():
    """A flat legend is refused where the first epoch begins."""
    with pytest.raises(ConfigError, match="no two classes"):
        small_fits.small_fit(loss="hierarchical", classes=small_fits.CLASSES)
    data = NetworkData({}, None, small_fits.STATS, small_fits.LOOKUP, TREE, "h")
    assert _Job(CnnSettings(loss="hierarchical"), data, 0, kind=CNN).plan().classes == TREE
    for wrong in ((), (0.0,), (-1.0, 2.0)):
        with pytest.raises(ValueError, match="weights must be at least 0"):
            LOSSES.make({"name": "hierarchical", "weights": wrong})
