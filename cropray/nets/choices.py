"""What a configuration may choose of the network; apart from it, so that a job file is read without loading torch."""

from typing import Any, Literal

Pool = Literal["max", "mean", "flatten"]


def odd(steps: int) -> int:
    """A `kernel_size` in steps of time that has a middle.

    Raises:
        ValueError: it has none.
    """
    if steps % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that steps stay aligned; got {steps}")
    return steps


def require_ranges(config: Any, *sizes: str) -> None:
    """See that the settings of a network that several have are in range: `dropout`, sizes, and `ratios` where there are some.

    Raises:
        ValueError: one is not.
    """
    if not 0.0 <= config.dropout < 1.0:
        raise ValueError(f"dropout must be at least 0 and below 1; got {config.dropout}")
    for name in sizes:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1; got {getattr(config, name)}")
    if strange := [pair for pair in getattr(config, "ratios", ()) if not set(pair) <= set(range(config.n_bands))]:
        raise ValueError(f"ratios name bands from 0 to {config.n_bands - 1}; got {strange}")
