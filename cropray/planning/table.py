"""A plan as records and as a table; after a run with what it really took."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

Amounts = Mapping[tuple[str, str], float]
"""(group, name) → quantity: what is expected, what is needed at least, or what was really taken."""
OBJECT_STORE: Final = "object store"
WORKER: Final = "a worker: "  # before the kind of a process
TOTAL: Final = "total"
_UNITS: Final = {"time": "s", "disk": "bytes", "memory": "bytes"}
_SOURCE_UNITS: Final = {"requests": "n", "download": "bytes", "computing": "EECU-h"}
_ADDED_UP: Final = ("time", "disk")


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


def lines_of(amounts: Amounts) -> tuple[Line, ...]:
    """A line of each quantity, and totals."""
    return _with_totals(
        [Line(group, name, _UNITS.get(group) or _SOURCE_UNITS[name], v) for (group, name), v in amounts.items()]
    )


def compare(lines: Sequence[Line], actual: Amounts) -> tuple[Line, ...]:
    """The same lines with what was measured; a total covers the parts that were."""
    parts = [line for line in lines if line.name != TOTAL]
    return _with_totals([replace(line, actual=actual.get((line.group, line.name))) for line in parts])


def _with_totals(lines: Sequence[Line]) -> tuple[Line, ...]:
    """With the sum of each group that has one; where some parts were measured, of these alone: a ratio compares the same."""
    result: list[Line] = []
    for group, of_group in itertools.groupby(lines, lambda line: line.group):
        own = list(of_group)
        result += own
        if group in _ADDED_UP:
            measured = [line for line in own if line.actual is not None]
            actual = sum(line.actual or 0.0 for line in measured) if measured else None
            result.append(Line(group, TOTAL, own[0].unit, sum(line.planned for line in measured or own), actual))
    return tuple(result)


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


def scaling_table(results: Mapping[int, Amounts]) -> str:
    """Time of each stage by number of nodes, the fewest first; speed-up and efficiency of the whole beside these."""
    numbers = sorted(results)
    times = {name: [results[n][group, name] for n in numbers] for group, name in results[numbers[0]] if group == "time"}
    totals = [sum(column) for column in zip(*times.values(), strict=True)]
    faster = {n: totals[0] / total for n, total in zip(numbers, totals, strict=True)}

    def row(name: str, cells: Iterable[str]) -> str:
        return f"{name:<12}" + "".join(f"{cell:>14}" for cell in cells)

    head = row("time", [f"{n} node{'s' * (n > 1)}" for n in numbers])
    rows = {stage: [quantity(value, "s") for value in values] for stage, values in times.items()}
    ends = {
        TOTAL: [quantity(total, "s") for total in totals],
        "speed-up": [f"{value:.2f}" for value in faster.values()],
        "efficiency": [f"{value * numbers[0] / n:.0%}" for n, value in faster.items()],
    }
    rule = "─" * len(head)
    return "\n".join([head, rule, *map(row, rows, rows.values()), rule, *map(row, ends, ends.values())])


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
