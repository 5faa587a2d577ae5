"""How often a store that does not answer is asked again."""

import random
import time
from collections.abc import Callable
from typing import Final

LONGEST_WAIT_S: Final = 30.0
FIRST_WAIT_S: Final = 1.0
# A try that takes long (a server that accepts and never answers) is repeated less often: waits are this many times longer.
WAIT_PER_COST: Final = 10.0


class Breaker:
    """Open (no tries) for a while after each failure: 1, 2, 4 … 30 s, with jitter, and longer after costly tries.

    Attributes:
        n_failures: failures since the last success.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed.

        Args:
            clock: seconds.
        """
        self.n_failures = 0
        self._clock = clock
        self._next_try = clock()

    def allows_try(self) -> bool:
        """Whether the wait after the last failure is over."""
        return self._clock() >= self._next_try

    def failed(self, cost_s: float) -> None:
        """Record a failed try that took `cost_s` seconds."""
        limit = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.n_failures, 10))
        # Half is certain, so that a dead store is not asked at once; half is random, so that jobs do not ask together.
        wait = max(random.uniform(limit / 2, limit), min(LONGEST_WAIT_S, WAIT_PER_COST * cost_s))
        self.n_failures += 1
        self._next_try = self._clock() + wait

    def succeeded(self) -> None:
        """Record a success."""
        self.n_failures = 0

    def be_patient_anew(self) -> None:
        """Allow a try at once, and short waits after it: somebody waits for the store."""
        self.n_failures = min(self.n_failures, 1)
        self._next_try = self._clock()
