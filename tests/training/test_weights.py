"""Class weights, beside scikit-learn's and the formulas that they come from."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from cropray.training.weights import class_weights

COUNTS = np.array([900, 0, 90, 10])


def test_inverse_is_what_scikit_learn_calls_balanced():
    labels = np.repeat(np.arange(4), COUNTS)
    balanced = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=labels)
    assert class_weights(COUNTS, "inverse")[[0, 2, 3]] == pytest.approx(balanced)


@pytest.mark.parametrize("weighting", ["sqrt_inverse", "inverse", "effective"])
def test_the_mean_over_pixels_is_one_and_classes_without_pixels_have_none(weighting):
    weights = class_weights(COUNTS, weighting)
    assert (weights * COUNTS).sum() == pytest.approx(COUNTS.sum())
    assert weights[1] == 0
    assert weights[0] < weights[2] < weights[3]


def test_ratios_are_those_of_the_formulas():
    roots = class_weights(COUNTS, "sqrt_inverse")
    assert roots[3] / roots[0] == pytest.approx(90**0.5)
    many = np.array([10, 10**6, 10**7])
    effective = class_weights(many, "effective")
    # (1 - βⁿ) with β = 0.9999: 10 pixels count as 9.9955, a million as 1 / (1 - β) = 10 000, as do ten millions.
    assert effective[0] / effective[1] == pytest.approx(10_000 / 9.9955, rel=1e-4)
    assert effective[1] == pytest.approx(effective[2])


def test_none_weighs_nothing_and_other_names_are_refused():
    assert class_weights(COUNTS, "none").tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="it can be none, sqrt_inverse, inverse, effective"):
        class_weights(COUNTS, "balanced")
