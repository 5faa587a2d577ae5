"""What a configuration may choose of the network; apart from it, so that a job file is read without loading torch."""

from typing import Literal

Pool = Literal["max", "mean", "flatten"]


def odd(steps: int) -> int:
    """A `kernel_size` in steps of time that has a middle.

    Raises:
        ValueError: it has none.
    """
    if steps % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that steps stay aligned; got {steps}")
    return steps
