"""The numbers of a report as rows: for the page, and as plain text for a terminal."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cropray.core.intervals import Difference, bootstrap_difference
from cropray.core.metrics import ClassScore, Scores, region_scores, score, score_columns
from cropray.evaluation.results import ModelResult, ReportInputs
from cropray.report.study import PUBLISHED
from cropray.search.results import Params
from cropray.search.space import value_text

_MISSING: Final = "–"
NEW_REGION: Final = (
    "Above: new zones in known regions. New region: training zones, each scored by a fit that saw none of its region."
)
NO_NEW_REGION: Final = (
    "Scores are of new zones in known regions. New regions are not scored: set search.leave_region_out to true."
)
_GAP: Final = "  "  # between the columns of the plain-text table


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class: how much of it there is, and how well each model knows it."""

    name: str
    label: str
    colour: str
    n_train: int
    n_test: int
    scores: tuple[ClassScore | None, ...]
    """Per model; None where the class is neither in the test labels nor predicted."""


@dataclass(frozen=True, slots=True)
class ZoneRow:
    """One test zone: scores of each model."""

    zone_id: str
    region: str
    scores: tuple[Scores, ...]


@dataclass(frozen=True, slots=True)
class RegionRow:
    """The test zones of one region: scores of each model."""

    region: str
    n_zones: int
    scores: tuple[Scores, ...]


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """One model against another one on the same zones."""

    label: str
    """`CNN − XGBoost`."""
    differences: dict[str, Difference]
    """Score (`accuracy` …) → difference; none of what has no intervals."""


def class_rows(inputs: ReportInputs) -> tuple[ClassRow, ...]:
    """One row per class, most frequent training class first."""
    manifest = inputs.manifest
    n_train = manifest.class_counts(zone.zone_id for zone in manifest.of_split("train"))
    n_test = manifest.class_counts(zone.zone_id for zone in manifest.of_split("test"))
    by_model = [{c.class_id: c for c in model.scores.classes} for model in inputs.models]
    rows = [
        ClassRow(
            crop.name,
            crop.label_en,
            crop.colour,
            int(n_train[i]),
            int(n_test[i]),
            tuple(table.get(i) for table in by_model),
        )
        for i, crop in enumerate(manifest.classes)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.n_train, -row.n_test, row.label)))


def zone_rows(inputs: ReportInputs) -> tuple[ZoneRow, ...]:
    """One row per test zone that every model has scored, in the order of the first model."""
    regions = {zone.zone_id: zone.region for zone in inputs.manifest.zones}
    tables = [
        {zone: score(matrix) for zone, matrix in zip(m.zone_ids, m.cube, strict=True) if matrix.any()}
        for m in inputs.models
    ]
    shared = [zone for zone in (tables[0] if tables else ()) if all(zone in table for table in tables)]
    return tuple(ZoneRow(zone, regions[zone], tuple(table[zone] for table in tables)) for zone in shared)


def region_rows(inputs: ReportInputs) -> tuple[RegionRow, ...]:
    """One row per region of the test zones, in the order of the dataset."""
    regions = {zone.zone_id: zone.region for zone in inputs.manifest.of_split("test")}
    tables = [region_scores(model.cube, [regions[zone] for zone in model.zone_ids]) for model in inputs.models]
    return tuple(
        RegionRow(region, sum(r == region for r in regions.values()), tuple(table[region] for table in tables))
        for region in dict.fromkeys(regions.values())
        if tables and all(region in table for table in tables)
    )


def difference_rows(results: Sequence[ModelResult]) -> tuple[DifferenceRow, ...]:
    """Every pair of models, each with the intervals of its differences; none where zones are too few for intervals."""
    rows = []
    for a, b in itertools.combinations(results, 2):
        found = bootstrap_difference(a.cube, b.cube, a.seed)
        if found:
            named = {key.removeprefix("test_"): difference for key, difference in found.items()}
            rows.append(DifferenceRow(f"{a.label} − {b.label}", named))
    return tuple(rows)


def score_table(results: Sequence[ModelResult]) -> str:
    """The summary as aligned lines: all models, their intervals, and the study's published scores."""
    header = ("", *(metric.called for metric in score_columns()), "pixels")
    rows = [row for result in results for row in _model_lines(result)]
    rows += [row for difference in difference_rows(results) for row in _difference_lines(difference)]
    quoted = [
        (f"{study.label} (study)", *(format_score(study[metric.key]) for metric in score_columns()), "")
        for study in PUBLISHED
    ]
    new_region = [
        _line(f"{result.label}, new region", result.new_region) for result in results if result.new_region is not None
    ]
    widths = [max(len(row[i]) for row in (header, *rows, *new_region, *quoted)) for i in range(len(header))]
    rule = "─" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    lines = [_align(header, widths), rule, *(_align(row, widths) for row in rows), rule]
    lines += [*(_align(row, widths) for row in new_region), rule] if new_region else []
    lines += [_align(row, widths) for row in quoted]
    lines += [
        f"{_interval_text(results)} Macro scores: classes present in the test labels.",
        NEW_REGION if new_region else NO_NEW_REGION,
        "study: published scores on other data; the background counts as a class there. Not comparable.",
    ]
    return "\n".join(lines)


def _model_lines(result: ModelResult) -> Iterator[tuple[str, ...]]:
    """Scores, then intervals where there are any, of one model."""
    yield _line(result.label, result.scores)
    if result.intervals:
        yield ("", *(format_interval(result, metric.key) for metric in score_columns()), "")


def _line(name: str, scores: Scores) -> tuple[str, ...]:
    return (name, *(format_score(scores[metric.key]) for metric in score_columns()), f"{scores.n_pixels:,}")


def _difference_lines(row: DifferenceRow) -> Iterator[tuple[str, ...]]:
    """Differences, then their intervals."""
    found = [row.differences.get(metric.key) for metric in score_columns()]
    yield (row.label, *(_MISSING if d is None else f"{d.value:+.4f}" for d in found), "")
    yield ("", *(format_difference_interval(d) for d in found), "")


def _interval_text(results: Sequence[ModelResult]) -> str:
    reasons = dict.fromkeys(result.no_intervals for result in results if result.no_intervals)
    return f"No intervals: {'; '.join(reasons)}." if reasons else "[…] 95 % interval, bootstrap over test zones."


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return _GAP.join(cells).rstrip()


def format_score(value: float | None) -> str:
    """Four decimals; a dash where the score was not computed."""
    return _MISSING if value is None else f"{value:.4f}"


def format_interval(result: ModelResult, key: str) -> str:
    """`[0.51–0.73]`; empty where there is no interval."""
    interval = result.intervals.get(f"test_{key}")
    return "" if interval is None else f"[{interval[0]:.2f}–{interval[1]:.2f}]"


def format_difference_interval(difference: Difference | None) -> str:
    """`[-0.02, +0.07]`; empty where there is none."""
    return "" if difference is None else f"[{difference.low:+.2f}, {difference.high:+.2f}]"


def format_params(params: Params) -> str:
    """`kernel size 3 · learning rate 0.001`."""
    return " · ".join(f"{key.replace('_', ' ')} {value_text(value)}" for key, value in sorted(params.items()))
