"""Monthly median of one zone-month: our whole task against the bare call of numpy.nanmedian, 12 scenes × 4 bands × 1 million pixels."""

import warnings

import numpy as np
import numpy.typing as npt

from cropray.imagery.composite import monthly_median
from tests import oracles
from tests.benchmarks.timing import best_seconds, print_table

N_SCENES, N_BANDS, SIZE = 12, 4, 1000
WANTED = 100.0  # least ratio


def by_numpy(stack: npt.NDArray[np.uint16], scl: npt.NDArray[np.uint8]) -> tuple[object, object]:
    """The same task with numpy: mask, nanmedian, round half up, count."""
    valid = (scl >= 4) & (scl <= 7)
    median = np.nanmedian(np.where(valid[:, None], stack.astype(np.float32), np.float32(np.nan)), axis=0)
    return np.floor(np.nan_to_num(median) + 0.5).astype(np.uint16), valid.sum(0, dtype=np.uint8)


def main() -> bool:
    """Run; true where the wanted ratio is reached."""
    rng = np.random.default_rng(0)
    stack = rng.integers(1, 10_001, (N_SCENES, N_BANDS, SIZE, SIZE), dtype=np.uint16)
    scl = rng.integers(0, 12, (N_SCENES, SIZE, SIZE), dtype=np.uint8)
    valid = (scl >= 4) & (scl <= 7)
    masked = np.where(valid[:, None], stack.astype(np.float32), np.float32(np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a clear observation
        actions = {
            "the call of numpy.nanmedian alone, ready input": lambda: np.nanmedian(masked, axis=0),
            "numpy.nanmedian, the same task": lambda: by_numpy(stack, scl),
            "cropray monthly_median": lambda: monthly_median(stack, scl),
        }
        seconds = best_seconds(actions, dict(zip(actions, (2, 2, 9), strict=True)))
    corner = np.s_[..., :100, :100]
    expected, _ = oracles.monthly_median(stack[corner], scl[corner])
    np.testing.assert_array_equal(monthly_median(stack, scl)[0][corner], expected)
    title = (
        f"monthly median, {N_SCENES} scenes × {N_BANDS} bands × {SIZE}² pixels: mask, median, round, count (one core)"
    )
    return (
        print_table(title, seconds, "the call of numpy.nanmedian alone, ready input", "cropray monthly_median")
        >= WANTED
    )


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
