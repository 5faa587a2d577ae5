"""Progress that a person can follow: stage, units done, rate and time left."""

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, TextIO

LOG_EVERY_S: Final = 5  # least time between two counting lines where they cannot be rewritten in place


@dataclass(slots=True)
class Progress:
    """Prints one line per stage event; on a terminal the counting line is rewritten in place."""

    stream: TextIO = field(default_factory=lambda: sys.stdout)
    made: Counter[str] = field(default_factory=Counter, init=False)
    """Units that were finished so far, by what they are."""
    _started: float = field(default=0.0, init=False)
    _printed: float = field(default=0.0, init=False)
    _open_line: bool = field(default=False, init=False)

    def stage(self, name: str, detail: str = "") -> None:
        """Announce a stage."""
        self._started = self._printed = time.monotonic()
        self._write(f"{name:<9} {detail}".rstrip(), end="\n")

    def step(self, done: int, total: int, unit: str, noun: str) -> None:
        """One unit is finished.

        Args:
            done: finished units.
            total: all units.
            unit: name of the one just finished.
            noun: what is counted, plural.
        """
        self.made[noun] += 1
        now = time.monotonic()
        if done < total and not self.stream.isatty() and now - self._printed < LOG_EVERY_S:
            return
        self._printed = now
        elapsed = max(now - self._started, 1e-3)
        rate = done / elapsed
        pace = f"{rate:.1f} {noun}/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s each"
        left = f", {_duration((total - done) / rate)} left" if 0 < done < total else ""
        text = f"          {done}/{total} {noun}  {unit}  ({pace}{left})"
        self._write(text, end="" if self.stream.isatty() and done < total else "\n")

    def restart(self) -> None:
        """Count rate and time left from now on: another kind of unit follows in the same stage."""
        self._started = time.monotonic()

    def note(self, text: str) -> None:
        """A line worth reading on its own."""
        self._write(f"          {text}", end="\n")

    def _write(self, text: str, end: str) -> None:
        if self._open_line:
            print("\r\x1b[K", end="", file=self.stream)
        print(text, end=end, file=self.stream, flush=True)
        self._open_line = end == ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
