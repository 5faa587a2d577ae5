"""What a fit of fewer steps would have taken, where one fit stands for several."""

import numpy as np
import pytest

from cropray.training.family import FitScore
from cropray.training.pixels import with_seconds

STEPS = [1.0, 2.0, 3.0, 4.0, 5.0]


def prefixes(*scoring):
    empty = np.zeros((2, 2), np.int64)
    return [
        FitScore(step, empty, 0.0, (), 0.0, history=(), seconds=seconds)
        for step, seconds in zip((2, 5), scoring, strict=True)
    ]


@pytest.mark.parametrize(
    ("fit_s", "expected"),
    [
        (20.0, (20 - 12, 20)),  # the later steps are not the prefix's; what is no step is every prefix's
        (10.0, (3, 15)),  # a fit that went on after a loss: never less than its own steps
    ],
)
def test_seconds_of_prefixes(fit_s, expected):
    timed = with_seconds(prefixes(0.5, 0.25), STEPS, fit_s)
    assert [score.seconds for score in timed] == pytest.approx([expected[0] + 0.5, expected[1] + 0.25])
