"""Rows and the plain-text table follow from the cubes."""

from dataclasses import replace

import numpy as np
import pytest

from cropray.core.metrics import score
from cropray.evaluation.results import ReportInputs
from cropray.report.doubts import doubts
from cropray.report.page import Pictures, render_page
from cropray.report.study import PUBLISHED
from cropray.report.tables import (
    NEW_REGION,
    class_rows,
    difference_rows,
    format_params,
    region_rows,
    score_table,
    zone_rows,
)
from tests.report.builders import draw_inputs


@pytest.fixture(scope="module")
def inputs():
    return draw_inputs()


def test_the_score_table_lists_both_models_and_the_study(inputs):
    lines = score_table(inputs.models).splitlines()
    starts = [line.split("  ")[0] for line in lines]
    assert [name for name in starts if name[:1].isalpha()][:5] == [
        "CNN", "XGBoost", "CNN − XGBoost", "CNN (study)", "XGBoost (study)",
    ]  # fmt: skip
    cnn = next(line for line in lines if line.startswith("CNN "))
    matrix = inputs.models[0].cube.sum(0)
    assert cnn.split()[1] == f"{np.trace(matrix) / matrix.sum():.4f}"
    assert cnn.split()[-1] == f"{matrix.sum():,}"
    assert "Not comparable" in lines[-1]


def test_the_columns_of_the_score_table_line_up(inputs):
    lines = score_table(inputs.models).splitlines()
    rows = [lines[0], *(line for line in lines if line.startswith(("CNN ", "XGBoost ")))]
    ends = [[i for i in range(len(row)) if row[i] != " " and row[i + 1 : i + 2] in ("", " ")] for row in rows]
    assert all(row[-1] == ends[0][-1] for row in ends[1:3])
    assert len({line.index("0.") for line in rows[1:3]}) == 1


def test_the_quoted_scores_are_the_published_ones():
    # Source: the study, table of test results.
    assert [(s.accuracy, s.macro_f1, s.loss) for s in PUBLISHED] == [(0.8721, 0.3516, 0.5222), (0.8045, 0.2524, 0.7358)]


def test_class_rows_hold_every_class_with_its_supports(inputs):
    rows = class_rows(inputs)
    assert len(rows) == inputs.manifest.n_classes
    assert [row.n_train for row in rows] == sorted((row.n_train for row in rows), reverse=True)
    truth = inputs.models[0].cube.sum((0, 2))
    assert {row.name: row.n_test for row in rows} == dict(
        zip((crop.name for crop in inputs.manifest.classes), truth.tolist(), strict=True)
    )
    for row in rows:
        assert all(item.support == row.n_test for item in row.scores if item)


def test_zone_rows_hold_every_scored_zone(inputs):
    rows = zone_rows(inputs)
    assert [row.zone_id for row in rows] == [zone.zone_id for zone in inputs.manifest.of_split("test")]
    assert sum(row.scores[1].n_pixels for row in rows) == inputs.models[1].scores.n_pixels


def test_doubts_name_what_the_scores_rest_on(inputs):
    text = "\n".join(doubts(inputs))
    n_test = sum(zone.n_labelled for zone in inputs.manifest.of_split("test"))
    assert f"{n_test:,} labelled pixels in 8 test zones" in text
    assert "No test zone holds Hop" in text
    assert "Fewer than 100 test pixels" in text
    assert "XYZ (12.4 ha)" in text
    assert "Class 'Rye' occurs only in test zones (31 pixels): no model can predict it." in text


def test_a_dataset_of_points_has_no_image_doubts(inputs):
    text = "\n".join(doubts(ReportInputs(inputs.manifest, inputs.models)))
    assert "pixel-months" not in text
    assert "legend does not know" not in text


def test_params_are_readable():
    assert format_params({"learning_rate": 0.0001, "kernel_size": 5}) == "kernel size 5 · learning rate 0.0001"


def with_new_region(inputs):
    """The second model was scored on new regions as well."""
    scores = score(inputs.models[1].cube[:3].sum(0), 100.0)
    return replace(inputs, models=(inputs.models[0], replace(inputs.models[1], new_region=scores))), scores


def test_new_regions_stand_under_the_scores(inputs):
    both, scores = with_new_region(inputs)
    text = score_table(both.models)
    (line,) = [line for line in text.splitlines() if line.startswith("XGBoost, new region")]
    assert line.split()[3:] == [
        f"{scores.accuracy:.4f}", f"{scores.macro_precision:.4f}", f"{scores.macro_recall:.4f}", f"{scores.macro_f1:.4f}",
        f"{scores.loss:.4f}", f"{scores.n_pixels:,}",
    ]  # fmt: skip
    assert NEW_REGION in text
    assert f"in a new region XGBoost macro F1 {scores.macro_f1:.3f}" in "\n".join(doubts(both))


def test_how_to_score_new_regions_is_told_where_they_are_not(inputs):
    assert "set search.leave_region_out to true" in score_table(inputs.models)
    assert "search.leave_region_out: true" in "\n".join(doubts(inputs))


def test_doubts_tell_the_warnings_of_a_search(inputs):
    warned = replace(inputs, models=(replace(inputs.models[0], warnings=("the best epoch was the last",)),))
    assert "CNN: the best epoch was the last." in doubts(warned)


def test_doubts_tell_what_folds_cannot_have_learnt(inputs):
    zones = [
        replace(zone, counts={**zone.counts, "Hops": 40 * (zone.zone_id == "beauce-1")})
        for zone in inputs.manifest.zones
    ]
    lone = replace(inputs, manifest=replace(inputs.manifest, zones=tuple(zones)))
    assert any(doubt.startswith("Fold 1: 40 of ") and "(Hops 40)" in doubt for doubt in doubts(lone))


def test_models_are_compared_on_the_same_draws(inputs):
    (row,) = difference_rows(inputs.models)
    assert list(row.differences) == ["accuracy", "macro_precision", "macro_recall", "macro_f1"]
    f1, (cnn, trees) = row.differences["macro_f1"], inputs.models
    assert f1.value == pytest.approx(cnn.scores.macro_f1 - trees.scores.macro_f1)
    lines = score_table(inputs.models).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("CNN − XGBoost"))
    assert f"{f1.value:+.4f}" in lines[at]
    assert f"[{f1.low:+.2f}, {f1.high:+.2f}]" in lines[at + 1]
    assert difference_rows(inputs.models[:1]) == ()


def test_too_few_zones_are_told_instead_of_intervals():
    inputs = draw_inputs(n_regions=3)
    text = score_table(inputs.models)
    assert "No intervals: 3 test zones, an interval needs 5 or more. Macro scores" in text
    assert "[" not in text
    assert all(text.splitlines())
    assert "3 test zones are too few for intervals" in " ".join(doubts(inputs))
    page = render_page(inputs, Pictures((), (), {}, ()))
    assert "There are no intervals: 3 test zones, an interval needs 5 or more." in page


def test_regions_are_scored_zone_by_zone_together(inputs):
    manifest = inputs.manifest
    joined = replace(
        manifest, zones=tuple(replace(z, region="a") if i < 10 else z for i, z in enumerate(manifest.zones))
    )
    rows = region_rows(replace(inputs, manifest=joined))
    assert [row.region for row in rows] == ["a", *dict.fromkeys(z.region for z in manifest.zones[10:])]
    assert [row.n_zones for row in rows] == [2, 1, 1, 1, 1, 1, 1]
    assert rows[0].scores[1] == score(inputs.models[1].cube[:2].sum(0))
    page = render_page(replace(inputs, manifest=joined), Pictures((), (), {}, ()))
    assert f"<td>a</td><td>2</td><td>{rows[0].scores[0].n_pixels:,}</td>" in page
