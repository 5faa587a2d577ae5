"""Costs of mapping a zone out of a few of its rows."""

import time

import numpy as np
import pytest

from cropray.commands.plan import measure_maps
from cropray.commands.plan.measure_maps import Answered, measure_map
from cropray.core.cube import STUDY_CUBE
from cropray.core.grid import Grid
from cropray.imagery.composites import write_composite, write_n_obs
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.maps.predict import predict_zone
from cropray.maps.settings import MapSettings
from cropray.maps.zone import MapJob
from tests.training.tree_rows import CLASSES, LEGEND

PIXEL_S = 1e-4  # by a clock of the tests


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
    """Takes the same time for every pixel; the second class where the first band is bright."""

    cube = STUDY_CUBE
    classes = CLASSES[:2]
    margin_px = 3
    stride_px = 1
    bytes_per_px = 100
    n_calls = 0

    def predict_tiles(self, x):
        self.n_calls += 1
        time.sleep(x[0, 0, 0].size * PIXEL_S)
        bright = (x[:, 0, 0] > 500).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


@pytest.fixture
def place(tmp_path):
    """A zone of 40 × 30 pixels whose composite stands, and the workspace."""
    workspace, of = Workspace(tmp_path), Zone("z", "north", "test", Grid(32631, 600_000, 5_400_000, 40, 30))
    composite = np.random.default_rng(1).integers(1, 1000, (12, 4, 40, 30)).astype(np.uint16)
    write_composite(workspace.composite("z"), composite, of.grid)
    write_n_obs(workspace.n_obs("z"), np.ones((12, 40, 30), np.uint8), of.grid)
    return of, workspace, composite


@pytest.mark.parametrize(("window_px", "rows"), [(32, 5), (32, 40), (64, 5)])
def test_of_a_zone_a_few_rows_are_predicted_and_all_that_it_reads_counted(window_px, rows, place, monkeypatch):
    zone, workspace, composite = place
    monkeypatch.setattr(measure_maps, "MOST_PX", 30 * rows)
    model, whole = Slow(), Slow()
    pixel_s, map_s, n_bytes = measure_map(
        model, zone, MapJob("slow", LEGEND, MapSettings(window_px=window_px), workspace)
    )
    assert model.n_calls == 2  # quick: done twice, as the first time may pay for imports
    started = time.perf_counter()
    predict_zone(whole, composite, np.ones((12, 40, 30), np.uint8), (window_px, window_px))
    assert pixel_s * 40 * 30 == pytest.approx(time.perf_counter() - started)
    assert map_s == 0  # by the clock
    files = [workspace.map("slow", "z"), workspace.map_preview("slow", "z")]
    assert n_bytes == sum(file.stat().st_size for file in files) > 0


def test_what_takes_long_is_not_done_twice(place, monkeypatch):
    zone, workspace, _ = place
    monkeypatch.setattr(measure_maps, "_QUICK_S", 0.5 * 40 * 30 * PIXEL_S)
    model = Slow()
    measure_map(model, zone, MapJob("slow", LEGEND, MapSettings(), workspace))
    assert model.n_calls == 1


def test_the_map_looks_like_the_rows_that_were_predicted(place):
    _, _, composite = place
    some = Slow().predict_tiles(composite[None, ..., :5, :])
    found = predict_zone(Answered(Slow(), some), composite, np.ones((12, 40, 30), np.uint8), (64, 64))
    expected = predict_zone(Slow(), composite, np.ones((12, 40, 30), np.uint8), (64, 64))
    for first in range(0, 40, 5):
        np.testing.assert_array_equal(found.class_id[first : first + 5], expected.class_id[:5])


@pytest.mark.parametrize("name", ["classes", "margin_px", "stride_px", "bytes_per_px"])
def test_it_is_cut_like_the_model(name):
    assert getattr(Answered(Slow(), np.zeros((1, 2, 4, 4), np.float32)), name) == getattr(Slow(), name)
