"""Windows that compute little twice, within a task's memory."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.maps.layout import NUMBER_BYTES, PROCESS_BYTES, choose_window, window_note
from cropray.maps.predict import windows


@dataclass
class Reach:
    """A model as far as windows look at it."""

    margin_px: int = 160
    stride_px: int = 16
    bytes_per_px: int = 2200
    cube: CubeSpec = STUDY_CUBE


def computed(shape, window, model):
    parts = windows(shape, window, model.margin_px, model.stride_px)
    return sum(outer.height * outer.width for outer, _ in parts) / (shape[0] * shape[1])


def task_bytes(shape, window_px, model):
    """Memory that just holds windows of so many pixels."""
    return PROCESS_BYTES + NUMBER_BYTES * model.cube.n_features * shape[0] * shape[1] + window_px * model.bytes_per_px


@pytest.mark.parametrize(
    ("room_px", "most"),
    [(1000 * 1000, 1.0), (700 * 1000, 1.32), (700 * 700, 1.75), (600 * 600, 2.69), (500 * 500, 3.85), (1, 3.85)],
)
def test_a_zone_of_10_km(room_px, most):
    shape, model = (1000, 1000), Reach()
    window = choose_window(shape, model, task_bytes(shape, room_px, model))
    assert window[0] * window[1] <= max(room_px, 496 * 496)
    assert computed(shape, window, model) <= most


def test_windows_of_a_given_size_compute_no_more_than_they_must():
    # 352 + 192 + 192 + 264 kept pixels along an axis: 1000 + 3 × 320 computed ones.
    assert computed((1000, 1000), (512, 512), Reach()) == pytest.approx(1.96**2)


def test_a_model_without_reach_takes_small_windows():
    assert choose_window((1000, 700), Reach(0, 1), 1e12) == (334, 350)


@given(
    shape=st.tuples(st.integers(1, 2500), st.integers(1, 2500)),
    margin=st.sampled_from([0, 12, 72, 160]),
    gigabytes=st.floats(0.1, 20),
)
def test_windows_fit_the_memory_or_are_the_smallest(shape, margin, gigabytes):
    model = Reach(margin, {0: 1, 12: 2, 72: 8, 160: 16}[margin])
    height, width = choose_window(shape, model, 1e9 * gigabytes)
    assert height <= shape[0]
    assert width <= shape[1]
    need = task_bytes(shape, height * width, model)
    assert need <= 1e9 * gigabytes or (height, width) == choose_window(shape, model, 0)
    assert computed(shape, (height, width), model) < 9 or margin == 0


def test_who_is_told_of_a_memory_that_is_too_small():
    note = window_note([(480, 480), (1000, 660)], Reach(), 4e9)
    assert note == "the model reads up to 1000 × 660 pixels at once: 2.2 GB"
    assert "a task's share of the memory is 1.5 GB; if tasks are killed, lower cluster.num_cpus" in window_note(
        [(1000, 660)], Reach(), 1.5e9
    )
