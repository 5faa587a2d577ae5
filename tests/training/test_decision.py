"""What is done with probabilities: how a class is decided for, and how they are tempered."""

import numpy as np
import pytest

from cropray.training.decision import LIKELIEST, Decision, decision_of, recorded_decision

K = 4


@pytest.fixture
def probabilities():
    """[K, 6, 5] float32."""
    drawn = np.random.default_rng(5).gamma(0.4, size=(K, 6, 5)).astype(np.float32)
    return drawn / drawn.sum(0)


def test_without_a_rule_nothing_is_touched(probabilities):
    assert LIKELIEST.tempered(probabilities) is probabilities
    assert LIKELIEST.weighed(probabilities) is probabilities
    np.testing.assert_array_equal(LIKELIEST.decide(probabilities), probabilities.argmax(0))
    assert decision_of(object()) == recorded_decision({"classes": [{}] * K}) == LIKELIEST


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_favoured_is_compared_pixel_by_pixel(probabilities, axis):
    given = np.moveaxis(probabilities, 0, axis)
    decided = Decision((1.0, 3.5, 0.25, 1.0)).decide(given, axis)
    for row, col in np.ndindex(6, 5):
        of_pixel = [float(p) * by for p, by in zip(probabilities[:, row, col], (1.0, 3.5, 0.25, 1.0), strict=True)]
        assert decided[row, col] == of_pixel.index(max(of_pixel))
    assert (decided != probabilities.argmax(0)).any()


def test_equal_ones_go_to_the_first():
    assert Decision((2.0, 1.0, 4.0)).decide(np.array([[0.25], [0.5], [0.125]], np.float32)).tolist() == [0]


@pytest.mark.parametrize(("temperature", "is_surer"), [(2.0, False), (0.5, True)])
def test_a_temperature_tells_how_sure_a_model_is_and_changes_no_order(probabilities, temperature, is_surer):
    tempered = Decision(temperature=temperature).tempered(probabilities)
    assert tempered.dtype == np.float32
    powers = probabilities.astype(np.float64) ** (1 / temperature)
    np.testing.assert_allclose(tempered, powers / powers.sum(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(tempered.argsort(0), probabilities.argsort(0))
    assert ((tempered.max(0) > probabilities.max(0)) == is_surer).all()


def test_certainty_stays_what_it_is():
    sure = np.array([[1.0, 0.0, 0.0]], np.float32)
    for temperature in (0.2, 5.0):
        np.testing.assert_array_equal(Decision(temperature=temperature).tempered(sure, 1), sure)


def test_a_rule_for_other_classes_is_refused():
    card = {"classes": [{}] * K, "decision": {"multipliers": [1.0, 2.0], "temperature": 1.0}}
    with pytest.raises(ValueError, match="2 multipliers for 4 classes"):
        recorded_decision(card)
