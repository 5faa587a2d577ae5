"""Monthly median of one zone-month: ours against numpy.nanmedian, 12 scenes × 4 bands × 1 million pixels."""

import warnings

import numpy as np

from cropray.imagery.composite import monthly_median
from tests import oracles
from tests.benchmarks.timing import best_seconds, print_table

N_SCENES, N_BANDS, SIZE = 12, 4, 1000
WANTED = 100.0  # least ratio


def main() -> bool:
    """Run; true where the wanted ratio is reached."""
    rng = np.random.default_rng(0)
    stack = rng.integers(1, 10_001, (N_SCENES, N_BANDS, SIZE, SIZE), dtype=np.uint16)
    scl = rng.integers(0, 12, (N_SCENES, SIZE, SIZE), dtype=np.uint8)
    masked = np.where(((scl >= 4) & (scl <= 7))[:, None], stack, np.nan).astype(
        np.float32
    )  # not timed: in numpy's favour
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a clear observation
        actions = {
            "numpy.nanmedian": lambda: np.nanmedian(masked, axis=0),
            "cropray monthly_median": lambda: monthly_median(stack, scl),
        }
        seconds = best_seconds(actions, {"numpy.nanmedian": 2, "cropray monthly_median": 9})
    corner = np.s_[..., :100, :100]
    expected, _ = oracles.monthly_median(stack[corner], scl[corner])
    np.testing.assert_array_equal(monthly_median(stack, scl)[0][corner], expected)
    title = f"monthly median, {N_SCENES} scenes × {N_BANDS} bands × {SIZE}² pixels (one core)"
    return print_table(title, seconds, "numpy.nanmedian", "cropray monthly_median") >= WANTED


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
