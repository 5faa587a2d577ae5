"""A plan as records and as a table; after a run with what it really took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cropray.planning.estimate import Estimate

TOTAL: Final = "total"


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity."""

    group: str
    name: str
    unit: str
    """`s`, `bytes`, `n` or `EECU-h`."""
    planned: float
    actual: float | None = None
    """None: not run, not measured, or only a part was made."""

    @property
    def ratio(self) -> float | None:
        """Planned over actual."""
        return self.planned / self.actual if self.actual else None


def lines_of(estimate: Estimate) -> tuple[Line, ...]:
    """All quantities of an estimate."""
    lines = []
    if estimate.traffic is not None:
        traffic = estimate.traffic
        lines += [Line("source", "requests", "n", traffic.requests), Line("source", "download", "bytes", traffic.bytes)]
        if traffic.eecu_hours is not None:
            lines.append(Line("source", "computing", "EECU-h", traffic.eecu_hours))
    lines += _with_total("time", "s", estimate.seconds)
    lines += _with_total("disk", "bytes", estimate.disk_bytes)
    lines.append(Line("memory", "object store", "bytes", estimate.object_store_bytes))
    lines += [Line("memory", f"a worker: {name}", "bytes", size) for name, size in estimate.worker_bytes.items()]
    return tuple(lines)


def compare(lines: Sequence[Line], actual: Mapping[tuple[str, str], float]) -> tuple[Line, ...]:
    """The same lines with what was measured; a total covers the parts that were.

    Args:
        lines: the plan.
        actual: (group, name) → measured quantity.
    """
    compared = [
        Line(line.group, line.name, line.unit, line.planned, actual.get((line.group, line.name)))
        for line in lines
        if line.name != TOTAL
    ]
    result: list[Line] = []
    for group in dict.fromkeys(line.group for line in lines):
        own = [line for line in compared if line.group == group]
        result += own
        if any(line.group == group and line.name == TOTAL for line in lines):
            result.append(_total(own))
    return tuple(result)


def _total(lines: Sequence[Line]) -> Line:
    """Sum of all lines; where some were measured, of these alone: what a ratio compares must be the same things."""
    measured = [line for line in lines if line.actual is not None]
    counted = measured or lines
    actual = sum(line.actual for line in measured if line.actual is not None) if measured else None
    return Line(lines[0].group, TOTAL, lines[0].unit, sum(line.planned for line in counted), actual)


def _with_total(group: str, unit: str, parts: Mapping[str, float]) -> list[Line]:
    return [
        *(Line(group, name, unit, value) for name, value in parts.items()),
        Line(group, TOTAL, unit, sum(parts.values())),
    ]


def table(lines: Sequence[Line]) -> str:
    """The plan for people; with measured quantities in two more columns where there are some."""
    has_actual = any(line.actual is not None for line in lines)
    head = f"{'':<8}{'':<22}{'planned':>12}" + (f"{'actual':>12}{'planned/actual':>16}" if has_actual else "")
    rows, group = [head], ""
    for line in lines:
        if line.group != group:
            rows.append("─" * len(head))
        row = f"{line.group if line.group != group else '':<8}{line.name:<22}{quantity(line.planned, line.unit):>12}"
        group = line.group
        if has_actual and line.actual is not None:
            row += f"{quantity(line.actual, line.unit):>12}"
            row += "" if line.ratio is None else f"{line.ratio:>16.2f}"
        rows.append(row)
    return "\n".join(rows)


def quantity(value: float, unit: str) -> str:
    """A number with its unit, as a person would write it."""
    if unit == "s":
        return _duration(value)
    if unit == "bytes":
        power = next(p for p in (1e12, 1e9, 1e6, 1e3, 1) if value >= p or p == 1)
        name = {1e12: "TB", 1e9: "GB", 1e6: "MB", 1e3: "kB", 1: "B"}[power]
        return f"{value / power:.3g} {name}" if value / power < 100 else f"{value / power:.0f} {name}"
    return f"{value:,.0f}" if unit == "n" else f"{value:.1f} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
