"""The report: one HTML page with its pictures beside it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from cropray.bands import FEATURE_COLUMNS
from cropray.report import tables
from cropray.report.class_pictures import (
    draw_class_by_region,
    draw_class_distribution,
    draw_class_scores,
    draw_confusion,
)
from cropray.report.doubts import doubts
from cropray.report.drawing import MODEL_COLOURS
from cropray.report.results import ModelResult, Params, ReportInputs
from cropray.report.score_pictures import draw_curves, draw_scores, draw_zone_scores
from cropray.report.study import CITATION, PUBLISHED, WHY_NOT_COMPARABLE
from cropray.workspace import whole_folder

PAGE_FILE: Final = "index.html"


@dataclass(frozen=True, slots=True)
class SearchRow:
    """One configuration in the table of a search."""

    params: str
    metrics: dict[str, str]
    """Score → `mean ± deviation`."""
    is_best: bool


@dataclass(frozen=True, slots=True)
class Pictures:
    """File names beside the page."""

    fixed: tuple[str, ...]
    curves: dict[str, str]
    """Model → learning curves; models without history are left out."""
    previews: tuple[tuple[str, str], ...]
    """(caption, file)."""


def write_report(inputs: ReportInputs, folder: Path) -> Path:
    """Write page and pictures whole, replacing an earlier report.

    Args:
        inputs: what to report; at least one model.
        folder: gets `index.html` and PNG files.

    Returns:
        Path of the page.
    """
    with whole_folder(folder) as temporary:
        pictures = draw_pictures(inputs, temporary)
        (temporary / PAGE_FILE).write_text(render_page(inputs, pictures), encoding="utf-8")
    return folder / PAGE_FILE


def draw_pictures(inputs: ReportInputs, folder: Path) -> Pictures:
    """Draw every picture of a report into a folder; also what an evaluation stores with its run."""
    drawings = {
        "scores.png": draw_scores,
        "zone_scores.png": draw_zone_scores,
        "class_scores.png": draw_class_scores,
        "class_distribution.png": draw_class_distribution,
        "class_by_region.png": draw_class_by_region,
    }
    for name, draw in drawings.items():
        draw(inputs, folder / name)
    curves = {}
    for model in inputs.models:
        draw_confusion(model, inputs.manifest, folder / f"confusion_{model.name}.png")
        if draw_curves(model, folder / f"curves_{model.name}.png"):
            curves[model.name] = f"curves_{model.name}.png"
    previews = []
    for preview in inputs.previews:
        name = f"map_{preview.model_label.lower()}_{preview.zone_id}.png"
        shutil.copyfile(preview.path, folder / name)
        previews.append((f"{preview.model_label}, {preview.zone_id}", name))
    return Pictures(tuple(drawings), curves, tuple(previews))


def render_page(inputs: ReportInputs, pictures: Pictures) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("cropray.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "score": tables.format_score,
        "params": tables.format_params,
        "thousands": lambda count: f"{count:,}",
        "percent": lambda share: f"{100 * share:.0f} %",
    }
    page: str = environment.get_template("page.html.j2").render(
        inputs=inputs,
        manifest=inputs.manifest,
        pictures=pictures,
        columns=tables.SCORE_COLUMNS,
        colours=MODEL_COLOURS,
        interval=tables.format_interval,
        class_rows=tables.class_rows(inputs),
        zone_rows=tables.zone_rows(inputs),
        search_rows={model.name: search_rows(model) for model in inputs.models},
        doubts=doubts(inputs),
        n_features=len(FEATURE_COLUMNS),
        study={"citation": CITATION, "rows": PUBLISHED, "reasons": WHY_NOT_COMPARABLE},
    )
    return page


def search_rows(model: ModelResult) -> tuple[SearchRow, ...]:
    """One row per configuration, in the order of the search."""
    return tuple(
        SearchRow(
            tables.format_params(configuration.params),
            {key: _mean_and_deviation(configuration.metrics, f"val_{key}") for key, _ in tables.SCORE_COLUMNS},
            configuration.params == model.best,
        )
        for configuration in model.configurations
    )


def _mean_and_deviation(metrics: Params, key: str) -> str:
    mean, deviation = metrics.get(f"{key}_mean"), metrics.get(f"{key}_std", 0.0)
    return "–" if mean is None else f"{mean:.3f} ± {deviation:.3f}"
