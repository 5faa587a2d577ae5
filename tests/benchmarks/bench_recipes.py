"""`recipe: best` beside `recipe: study`, every zone tested once: `python -m tests.benchmarks.bench_recipes FOLDER [PICTURE]`.

Runs `cropray nested` with five outer folds, for both recipes, on the points of `tests/real_jobs`, and prints what one recipe
scores beside the other with paired intervals over zones. FOLDER keeps the workspaces: what has ended there is not run again, and
the time of a run is of one that nothing cut off.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cropray.core.intervals import Difference
from cropray.evaluation.pooled import compare, read_counted
from cropray.io.pictures import INK, MUTED, picture
from cropray.report.drawing import MODEL_COLOURS, TITLE

JOBS = Path("tests/real_jobs")
TABLES = {"Argentina, 4 × 12": "argentina", "Argentina, 6 × 24": "argentina_6x24", "Arkansas, 4 × 12": "arkansas"}
MODELS = {"study": "xgboost", "best": "blend"}  # what each recipe ends with on points
_SEARCH: dict[str, Any] = {"study": {"models": ["xgboost"]}, "best": {}}  # the study's CNN needs tiles
SCORES = {"macro_f1": "macro F1", "accuracy": "accuracy"}
STUDY, BEST = MODEL_COLOURS[1], MODEL_COLOURS[0]


@dataclass(frozen=True)
class Row:
    """One table by both recipes."""

    table: str
    n: int
    n_zones: int
    scores: dict[str, dict[str, float]]
    """Recipe → score → value."""
    gains: dict[str, Difference]
    """Score → best less study."""
    seconds: dict[str, float]


def run(work: Path, job: str, recipe: str) -> None:
    """Test every zone of a job once, by the recipe alone: what the job searches itself is left out."""
    settings = yaml.safe_load((JOBS / f"{job}.yaml").read_text(encoding="utf-8"))
    settings |= {"workspace": str(work / f"{job}_{recipe}"), "recipe": recipe, "search": _SEARCH[recipe]}
    file = work / f"{job}_{recipe}.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    started = time.monotonic()
    subprocess.run([Path(sys.executable).with_name("cropray"), "nested", file, "--folds", "5"], check=True)
    (work / f"{job}_{recipe}.seconds").write_text(f"{time.monotonic() - started:.0f}", encoding="utf-8")


def row_of(work: Path, table: str, job: str) -> Row:
    """What both recipes scored."""
    folders = {recipe: work / f"{job}_{recipe}" / "nested" / model for recipe, model in MODELS.items()}
    found: dict[str, dict[str, Any]] = {
        recipe: json.loads((folder / "scores.json").read_text(encoding="utf-8")) for recipe, folder in folders.items()
    }
    paired = compare(read_counted(folders["best"]), read_counted(folders["study"]), seed=0)
    return Row(
        table,
        found["best"]["metrics"]["test_pixels"],
        len(paired.zone_ids),
        {recipe: {key: each["metrics"][f"test_{key}"] for key in SCORES} for recipe, each in found.items()},
        {key: paired.scores[f"test_{key}"] for key in SCORES},
        {recipe: float((work / f"{job}_{recipe}.seconds").read_text(encoding="utf-8")) for recipe in MODELS},
    )


def lines(rows: list[Row]) -> Iterator[str]:
    """The table in Markdown."""
    yield "| table | points, zones | macro F1: study → best | gain | accuracy: study → best | gain | time, best / study |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        cells = []
        for key in SCORES:
            gain = row.gains[key]
            cells.append(f"{row.scores['study'][key]:.3f} → {row.scores['best'][key]:.3f}")
            cells.append(f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
        took = f"{row.seconds['best']:.0f} s / {row.seconds['study']:.0f} s = {row.seconds['best'] / row.seconds['study']:.1f}"
        yield f"| {row.table} | {row.n:,}, {row.n_zones} | {' | '.join(cells)} | {took} |"
    means = [sum(row.gains[key].value for row in rows) / len(rows) for key in SCORES]
    yield f"| mean gain | | | {means[0]:+.3f} | | {means[1]:+.3f} | |"


def draw(rows: list[Row], path: Path) -> None:
    """A line from the study's score to that of `best` for each table, with the gain and its interval."""
    with picture(path, 8.6, 0.95 + 0.42 * len(rows)) as figure:
        panels = figure.subplots(1, len(SCORES), sharey=True)
        for axes, (key, title) in zip(panels, SCORES.items(), strict=True):
            for place, row in enumerate(rows):
                study, best = (row.scores[recipe][key] for recipe in ("study", "best"))
                axes.plot([study, best], [place, place], color=MUTED, linewidth=1.5, zorder=1)
                axes.scatter([study], [place], color=STUDY, s=36, label="recipe: study" if place == 0 else None)
                axes.scatter([best], [place], color=BEST, s=36, label="recipe: best" if place == 0 else None)
                gain = row.gains[key]
                words = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
                axes.text((study + best) / 2, place - 0.16, words, ha="center", va="bottom", fontsize=7, color=INK)
            axes.set(
                title=title, ylim=(len(rows) - 0.6, -0.7), yticks=range(len(rows)), yticklabels=[r.table for r in rows]
            )
            axes.margins(x=0.25)
            axes.grid(axis="x")
        figure.suptitle("Every zone tested once, by the whole procedure repeated without it", **TITLE)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7.5, labelcolor=MUTED)


def main(work: Path, *pictures: str) -> None:
    """Run what is missing, print the table, draw it."""
    work.mkdir(parents=True, exist_ok=True)
    for job in TABLES.values():
        for recipe in MODELS:
            if not (work / f"{job}_{recipe}.seconds").exists():
                run(work, job, recipe)
    rows = [row_of(work, table, job) for table, job in TABLES.items()]
    print("\n".join(lines(rows)))
    for path in pictures:
        draw(rows, Path(path))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
