"""The report: one HTML page with its pictures beside it; what is already scored comes first, then the data."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from cropray.core.metrics import headlines, score_columns
from cropray.evaluation.levels import groups_of
from cropray.evaluation.results import ModelResult, ReportInputs, ZonePictures
from cropray.io.storage import Location, copy_file, size_of, whole_folder
from cropray.report import tables
from cropray.report.class_pictures import draw_class_scores, draw_confusion
from cropray.report.detail_pictures import detail_rows, draw_detail, group_rows
from cropray.report.doubts import doubts
from cropray.report.drawing import MODEL_COLOURS
from cropray.report.score_pictures import draw_curves, draw_reliability, draw_scores, draw_zone_scores
from cropray.report.study import CITATION, PUBLISHED, WHY_NOT_COMPARABLE
from cropray.search.decision import decision_in_words
from cropray.search.results import Params

PAGE_FILE: Final = "index.html"
FILMS_PER_ZONE: Final = 2  # true and false colour; single bands are linked
MAX_FILM_BYTES: Final = 12_000_000  # of films and observation maps on the page, so that it stays quick to open


@dataclass(frozen=True, slots=True)
class SearchRow:
    """One configuration in the table of a search."""

    params: str
    metrics: dict[str, str]
    """Score → `mean ± deviation`."""
    is_best: bool


@dataclass(frozen=True, slots=True)
class ShownZone:
    """A zone on the page."""

    zone_id: str
    region: str
    films: tuple[tuple[str, str], ...]
    """(what it shows, file beside the page)."""
    links: tuple[tuple[str, str], ...]
    """(what it shows, link to a film that is not on the page)."""
    n_obs: str | None
    """File beside the page; None where the page was full."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """File names beside the page."""

    overviews: tuple[tuple[str, str], ...]
    """(what it shows, file)."""
    zones: tuple[ShownZone, ...]
    curves: dict[str, str]
    """Model → learning curves; models without history are left out."""
    previews: tuple[tuple[str, str], ...]
    """(caption, file)."""


def write_report(inputs: ReportInputs, folder: Location) -> Location:
    """Write page and pictures whole (`index.html`, PNG and GIF files), replacing an earlier report.

    Without a model the page, whose path is returned, shows the data alone.
    """
    with whole_folder(folder, last=PAGE_FILE) as temporary:
        overviews = tuple((title, _copy(path, temporary)) for title, path in inputs.pictures.overviews)
        zones = _copy_zones(inputs.pictures.zones, temporary, folder)
        curves = draw_scored(inputs, temporary)
        previews = tuple(
            (f"{p.model_label}, {p.zone_id}", _copy(p.path, temporary, f"map_{p.model_label.lower()}_{p.zone_id}.png"))
            for p in inputs.previews
        )
        pictures = Pictures(overviews, zones, curves, previews)
        (temporary / PAGE_FILE).write_text(render_page(inputs, pictures), encoding="utf-8")
    return folder / PAGE_FILE


def draw_scored(inputs: ReportInputs, folder: Path) -> dict[str, str]:
    """Draw every picture of the scores into a folder, nothing without a model.

    Model → file of its learning curves is returned, for models with a history.
    """
    if not inputs.models:
        return {}
    draw_scores(inputs, folder / "scores.png")
    draw_zone_scores(inputs, folder / "zone_scores.png")
    draw_class_scores(inputs, folder / "class_scores.png")
    draw_detail(inputs, folder / "detail.png")
    curves = {}
    for model in inputs.models:
        draw_confusion(model, inputs.manifest, folder / f"confusion_{model.name}.png")
        if model.decision is not None:
            draw_reliability(model, folder / f"reliability_{model.name}.png")
        if draw_curves(model, folder / f"curves_{model.name}.png"):
            curves[model.name] = f"curves_{model.name}.png"
    return curves


def _copy_zones(zones: Sequence[ZonePictures], folder: Path, page: Location) -> tuple[ShownZone, ...]:
    """Copy what fits on the page, zone by zone; the rest is linked where it lies, seen from the page's last folder."""
    shown, n_bytes = [], 0
    for zone in zones:
        on_page = [path for _, path in zone.films[:FILMS_PER_ZONE]] + [zone.n_obs]
        n_bytes += sum(map(size_of, on_page))
        n_films = FILMS_PER_ZONE if n_bytes <= MAX_FILM_BYTES else 0
        shown.append(
            ShownZone(
                zone.zone_id,
                zone.region,
                tuple(
                    (title, _copy(path, folder, f"{zone.zone_id}_{path.name}")) for title, path in zone.films[:n_films]
                ),
                tuple(
                    (title, quote(os.path.relpath(path.as_posix(), page.as_posix())))
                    for title, path in zone.films[n_films:]
                ),
                _copy(zone.n_obs, folder, f"{zone.zone_id}_{zone.n_obs.name}") if n_films else None,
            )
        )
    return tuple(shown)


def _copy(path: Location, folder: Path, name: str | None = None) -> str:
    """Copy a picture beside the page and return its name there."""
    name = name or path.name
    copy_file(path, folder / name)
    return name


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
        columns=[(metric.key, metric.label) for metric in score_columns()],
        headlines=headlines(),
        colours=MODEL_COLOURS,
        interval=tables.format_interval,
        difference_interval=tables.format_difference_interval,
        difference_rows=tables.difference_rows(inputs.models),
        region_rows=tables.region_rows(inputs),
        no_intervals=list(dict.fromkeys(model.no_intervals for model in inputs.models if model.no_intervals)),
        class_rows=tables.class_rows(inputs),
        detail_rows=detail_rows(inputs.models),
        group_rows=group_rows(inputs.models),
        levels=groups_of(inputs.manifest.classes),
        zone_rows=tables.zone_rows(inputs),
        search_rows={model.name: search_rows(model) for model in inputs.models},
        doubts=doubts(inputs),
        decision_in_words=decision_in_words,
        new_region=tables.NEW_REGION if any(model.new_region for model in inputs.models) else tables.NO_NEW_REGION,
        cube=inputs.manifest.cube,
        study={"citation": CITATION, "rows": PUBLISHED, "reasons": WHY_NOT_COMPARABLE},
    )
    return page


def search_rows(model: ModelResult) -> tuple[SearchRow, ...]:
    """One row per configuration, in the order of the search."""
    return tuple(
        SearchRow(
            tables.format_params(configuration.params),
            {m.key: _mean_and_deviation(configuration.metrics, f"val_{m.key}") for m in score_columns()},
            configuration.params == model.best,
        )
        for configuration in model.configurations
    )


def _mean_and_deviation(metrics: Params, key: str) -> str:
    mean, deviation = metrics.get(f"{key}_mean"), metrics.get(f"{key}_std", 0.0)
    return "–" if mean is None else f"{mean:.3f} ± {deviation:.3f}"
