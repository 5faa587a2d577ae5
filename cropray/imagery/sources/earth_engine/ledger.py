"""The account of what Earth Engine was asked for: one line per unit of work, one record per run."""

import datetime as dt
import json
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from cropray.io.storage import append_line, write_json
from cropray.io.workspace import Workspace

LISTING = "listing"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class Account:
    """What some requests came to."""

    requests: int = 0
    """HTTP requests that were sent, those that failed too."""
    bytes: int = 0
    """Bytes of the answers' bodies."""
    splits: int = 0
    """Windows that were asked for in quarters."""
    errors: Counter[str] = field(default_factory=Counter)
    """Failed attempts by class of error."""

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        rounded = {name: round(value, 3) for name, value in values.items() if isinstance(value, float)}
        return {**values, **rounded, "errors": dict(self.errors)}

    def add(self, other: "Account") -> None:
        """Count another account in."""
        self.requests += other.requests
        self.bytes += other.bytes
        self.splits += other.splits
        self.errors += other.errors


@dataclass(frozen=True, slots=True)
class UnitOutcome:
    """What became of one unit of work: a zone's listing, or one of its months."""

    zone_id: str
    unit: str
    """`listing`, or `YYYY-MM`."""
    account: Account
    seconds: float
    error: str | None = None
    """Why it failed; None: done."""
    assets: tuple[str, ...] = ()
    """What was listed."""
    is_cut_off: bool = False
    """Whether the service could not be reached at all: no other unit would fare better."""

    def to_record(self) -> dict[str, Any]:
        """A line of the ledger."""
        state: Literal["done", "failed"] = "done" if self.error is None else "failed"
        unit = {"time": _now(), "zone_id": self.zone_id, "unit": self.unit, "state": state, "reason": self.error}
        return {**unit, **self.account.to_record(), "seconds": round(self.seconds, 3)}


@dataclass(slots=True)
class RunAccount(Account):
    """What one run came to."""

    started: str = field(default_factory=_now)
    """Time, UTC."""
    listings: int = 0
    """Zones that were listed."""
    months: int = 0
    """Months of zones that came."""
    pixels: int = 0
    """Pixels of these months."""
    failed: int = 0
    """Units that failed."""
    seconds: float = 0.0
    """From first to last request."""
    unit_seconds: float = 0.0
    """The units' own times added up: divided by `seconds`, how many were in flight."""

    def count(self, outcome: UnitOutcome, n_pixels: int) -> None:
        """Count one unit of work, of so many pixels."""
        self.add(outcome.account)
        self.unit_seconds += outcome.seconds
        if outcome.error is not None:
            self.failed += 1
        elif outcome.unit == LISTING:
            self.listings += 1
        else:
            self.months += 1
            self.pixels += n_pixels

    def describe(self) -> str:
        """For people."""
        errors = ", ".join(f"{n} × {kind}" for kind, n in sorted(self.errors.items())) or "none"
        return (
            f"{self.requests} requests, {self.bytes / 1e6:.1f} MB, {self.seconds:.0f} s; "
            f"failed attempts: {errors}; windows split: {self.splits}"
        )


def append_outcome(workspace: Workspace, outcome: UnitOutcome) -> None:
    """Add a line to the ledger. One process writes it."""
    append_line(workspace.acquisition_ledger, json.dumps(outcome.to_record(), ensure_ascii=False))


def append_run(workspace: Workspace, account: RunAccount) -> None:
    """Add a run to the list of runs."""
    write_json(workspace.acquisition_runs, [*read_runs(workspace), {"source": "earth_engine", **account.to_record()}])


def read_runs(workspace: Workspace) -> list[dict[str, Any]]:
    """All runs, oldest first."""
    try:
        runs: list[dict[str, Any]] = json.loads(workspace.acquisition_runs.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return runs
