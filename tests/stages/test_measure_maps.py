"""Mapping a zone out of a few of its windows."""

import time

import numpy as np
import pytest

from cropray.maps.predict import predict_zone
from cropray.stages.measure_maps import SampledModel

WINDOW_S = 0.02


class Slow:
    """Takes the same time for every pixel; class 1 where the first band is bright."""

    classes = ()
    margin_px = 0
    stride_px = 1
    n_calls = 0

    def predict_tiles(self, x):
        self.n_calls += 1
        time.sleep(WINDOW_S * x[0, 0, 0].size / 64)
        bright = (x[:, 0, 0] > 500).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


def windows(n):
    rng = np.random.default_rng(0)
    return [rng.integers(1, 1000, (1, 12, 4, 8, 8 if i % 2 else 4)).astype(np.uint16) for i in range(n)]


def test_windows_that_are_left_out_are_counted_by_their_pixels():
    model = Slow()
    sampled = SampledModel(model, 3.5 * WINDOW_S)
    for x in windows(20):
        probabilities = sampled.predict_tiles(x)
        assert probabilities.shape == (1, 2, *x.shape[-2:])
        assert (probabilities.sum(1) == 1).all()
    assert model.n_calls == 5  # 0.5 + 1 + 0.5 + 1 + 0.5 windows of 64 pixels pass the limit
    # The other 15: 8 of 64 and 7 of 32 pixels; never less than the model slept, and not much more.
    assert 1 <= sampled.left_out_s / (11.5 * WINDOW_S) < 2


def test_a_quick_zone_is_predicted_whole():
    model = Slow()
    sampled = SampledModel(model, 60)
    for x in windows(6):
        np.testing.assert_array_equal(sampled.predict_tiles(x), Slow().predict_tiles(x))
    assert model.n_calls == 6
    assert sampled.left_out_s == 0


def test_it_maps_a_zone_as_the_model_does():
    class TwoClasses(Slow):
        classes = tuple(type("Crop", (), {"id": i})() for i in (3, 7))

    composite = np.random.default_rng(1).integers(1, 1000, (12, 4, 32, 32)).astype(np.uint16)
    n_obs = np.ones((12, 32, 32), np.uint8)
    expected = predict_zone(TwoClasses(), composite, n_obs, 16)
    found = predict_zone(SampledModel(TwoClasses(), 60), composite, n_obs, 16)
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    assert set(np.unique(predict_zone(SampledModel(TwoClasses(), 0), composite, n_obs, 16).class_id)) == {3, 7}


@pytest.mark.parametrize("name", ["classes", "margin_px", "stride_px"])
def test_it_is_cut_like_the_model(name):
    assert getattr(SampledModel(Slow(), 1), name) == getattr(Slow(), name)
