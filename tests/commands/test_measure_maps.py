"""Mapping a zone out of a few of its windows."""

import time

import numpy as np
import pytest

from cropray.commands.plan import measure_maps
from cropray.commands.plan.measure_maps import SampledModel
from cropray.core.cube import STUDY_CUBE
from cropray.maps.predict import predict_zone

WINDOW_S = 1.0  # by a clock of the tests


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Seconds that pass while a model predicts, and at no other time."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(measure_maps.time, "perf_counter", clock.perf_counter)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


class Slow:
    """Takes the same time for every pixel; class 1 where the first band is bright."""

    cube = STUDY_CUBE
    classes = ()
    margin_px = 0
    stride_px = 1
    bytes_per_px = 100
    n_calls = 0

    def predict_tiles(self, x):
        self.n_calls += 1
        time.sleep(WINDOW_S * x[0, 0, 0].size / 64)
        bright = (x[:, 0, 0] > 500).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


def windows(n):
    rng = np.random.default_rng(0)
    return [rng.integers(1, 1000, (1, 12, 4, 8, 8 if i % 2 else 4)).astype(np.uint16) for i in range(n)]


def test_windows_that_are_left_out_are_counted_by_their_pixels(monkeypatch):
    monkeypatch.setattr(measure_maps, "MOST_S", 3.5 * WINDOW_S)
    model = Slow()
    sampled = SampledModel(model)
    for x in windows(20):
        probabilities = sampled.predict_tiles(x)
        assert probabilities.shape == (1, 2, *x.shape[-2:])
        assert (probabilities.sum(1) == 1).all()
    assert model.n_calls == 5  # 0.5 + 1 + 0.5 + 1 + 0.5 windows of 64 pixels reach the limit
    assert sampled.spent_s == pytest.approx(3.5 * WINDOW_S)
    assert sampled.predicted_s == pytest.approx(15 * WINDOW_S)  # the other 15: 8 of 64 and 7 of 32 pixels


def test_of_each_window_a_few_rows_are_predicted(monkeypatch):
    monkeypatch.setattr(measure_maps, "MOST_PX", 64)
    x = np.random.default_rng(0).integers(1, 1000, (1, 12, 4, 20, 10)).astype(np.uint16)
    model = Slow()
    sampled = SampledModel(model)
    for _ in range(2):
        assert sampled.predict_tiles(x).shape == (1, 2, 20, 10)
    assert model.n_calls == 2  # 6 rows of 20 take 60 / 64 of a window's time
    assert sampled.spent_s == pytest.approx(2 * 60 / 64 * WINDOW_S)
    assert sampled.predicted_s == pytest.approx(2 * 200 / 64 * WINDOW_S)


def test_small_windows_are_predicted_whole():
    model = Slow()
    sampled = SampledModel(model)
    for x in windows(6):
        np.testing.assert_array_equal(sampled.predict_tiles(x), Slow().predict_tiles(x))
    assert model.n_calls == 6
    assert sampled.predicted_s == sampled.spent_s


def test_it_maps_a_zone_as_the_model_does(monkeypatch):
    class TwoClasses(Slow):
        classes = tuple(type("Crop", (), {"id": i})() for i in (3, 7))

    composite = np.random.default_rng(1).integers(1, 1000, (12, 4, 32, 32)).astype(np.uint16)
    n_obs = np.ones((12, 32, 32), np.uint8)
    expected = predict_zone(TwoClasses(), composite, n_obs, (16, 16))
    monkeypatch.setattr(measure_maps, "MOST_S", 60)
    found = predict_zone(SampledModel(TwoClasses()), composite, n_obs, (16, 16))
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    monkeypatch.setattr(measure_maps, "MOST_S", 0)
    assert set(np.unique(predict_zone(SampledModel(TwoClasses()), composite, n_obs, (16, 16)).class_id)) == {3, 7}


@pytest.mark.parametrize("name", ["classes", "margin_px", "stride_px", "bytes_per_px"])
def test_it_is_cut_like_the_model(name):
    assert getattr(SampledModel(Slow()), name) == getattr(Slow(), name)
