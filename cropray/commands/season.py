"""`season`: how good a model would be, crop by crop and region by region, if the season ended earlier.

For each last step of time the job's recipe is searched again by fits, and scored by predictions, that see no later step
(`until_step`). Scores are of what the winner's folds say of training zones that they did not see: test zones take no part.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from cropray.config import JobConfig
from cropray.core.closure import code_digest
from cropray.core.errors import ConfigError
from cropray.core.fingerprint import fingerprint
from cropray.core.intervals import bootstrap_f1, bootstrap_intervals, why_no_intervals
from cropray.core.metrics import Counts, metric_of, region_scores, score
from cropray.core.progress import Progress
from cropray.datasets.manifest import Manifest, load_manifest
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, write_json
from cropray.report.season_picture import draw_season
from cropray.search.decision import learnt_elsewhere
from cropray.stages.decision import asked, read_evidence
from cropray.stages.family_search import FamilySearch
from cropray.stages.pipeline import run_stages
from cropray.stages.results import load_search, worth_of
from cropray.stages.samples import Samples
from cropray.training.family import DEFAULT_FAMILIES, family

_SHOWN: Final = "accuracy", "macro_f1"
_MOST_REGIONS: Final = 12  # in the table of the terminal


@dataclass(frozen=True, slots=True)
class _Sweep:
    """What is asked of every step."""

    config: str | Location
    overrides: Sequence[str]
    job: JobConfig
    manifest: Manifest
    models: Sequence[str]
    """The family that is scored comes last; before it are those that it is built from."""

    def at(self, step: int) -> tuple[JobConfig, list[str]]:
        """(the job of a step, the overrides that make it)."""
        job, n_steps = self.job, self.manifest.cube.n_steps
        settings: dict[str, Any] = {
            "workspace": str(job.artefacts.early_seasons / f"{step:02d}"),
            "dataset_of": str(job.dataset_of or job.workspace),
            "name": f"{job.name} season",  # apart from the job's own runs
            "search.models": self.models,
            "search.leave_region_out": False,
            "until_step": step if step < n_steps else None,  # the whole season shares the job's own fits
        }
        if isinstance(job.workspace, Path):
            settings["tracking_uri"] = None
        if not job.search.oof_rows:
            settings["search.oof_rows"] = type(job.search).model_fields["oof_rows"].default
        changed = [*self.overrides, *(f"{name}={json.dumps(value)}" for name, value in settings.items())]
        return load_settings(JobConfig, self.config, changed), changed


def run_season(
    config: str | Location, overrides: Sequence[str], *, steps: Sequence[int], model: str | None, reliable: float
) -> None:
    """Print the table and write `season/<family>.json` and `.png`. Finished steps, and units of others, are kept.

    Args:
        config: job file.
        overrides: of its settings.
        steps: last steps of time; none: every second one from a third of the season on.
        model: family; None: the one of pixels that was best in validation, or the first one.
        reliable: F1 that the lower end of a crop's interval must reach.

    Raises:
        CroprayError: the config or an input cannot be used, or a search failed.
    """
    job, progress = load_settings(JobConfig, config, overrides), Progress()
    if job.until_step is not None:
        raise ConfigError("'until_step' is what `cropray season` tries: leave it out, and give the steps by --steps")
    if not 0 < reliable <= 1:
        raise ConfigError(f"--reliable {reliable:g}: an F1 is above 0 and 1 at most")
    steps = steps_of(job.cube_spec.n_steps, steps)
    if job.dataset_of is None:
        run_stages(("dataset",), config, overrides)
    manifest = load_manifest(job.artefacts.manifest)
    model = _chosen(job, manifest) if model is None else model
    members = () if family(model).combine is None else job.settings_of(model).builds_on(job.search.models)[0]
    sweep, rows = _Sweep(config, overrides, job, manifest, (*members, model)), list[dict[str, Any]]()
    for number, step in enumerate(steps, start=1):
        progress.stage("season", f"{number} of {len(steps)}: {model} until {manifest.cube.noun} {step}")
        rows.append(_row(sweep, step, progress))
    record = {
        "model": model, "recipe": job.recipe, "seed": job.seed, "step": manifest.cube.noun,
        "reliable": reliable, "reliable_from": reliable_from(rows, reliable), "steps": rows,
    }  # fmt: skip
    folder = job.artefacts.early_seasons
    write_json(folder / f"{model}.json", record)
    draw_season(record, folder / f"{model}.png")
    print("\n" + "\n".join([*_lines(record), *_doubts(job, manifest, rows)]), flush=True)
    print(f"written to {folder / model}.json and .png; the models are in {folder}/<step>", flush=True)


def steps_of(n_steps: int, asked_for: Sequence[int]) -> tuple[int, ...]:
    """The steps to try, in order: those that were asked for, or every second one, the last one included.

    Raises:
        ConfigError: there are no such steps.
    """
    if n_steps < 2 or not all(1 <= step <= n_steps for step in asked_for):
        raise ConfigError(
            f"--steps {','.join(map(str, asked_for))}: the cube has {n_steps} step(s); give some of 1 … {n_steps}"
        )
    return tuple(sorted(set(asked_for or range(n_steps, max(n_steps // 3, 1) - 1, -2))))


def reliable_from(rows: Sequence[Mapping[str, Any]], least: float) -> dict[str, int | None]:
    """Crop → the first step from which on the lower end of its F1's interval is never below `least`; None: there is none."""
    found: dict[str, int | None] = {}
    for crop in rows[-1]["classes"]:
        found[crop] = None
        for row in reversed(rows):
            low = row["classes"].get(crop, {}).get("low")
            if low is None or low < least:
                break
            found[crop] = row["step"]
    return found


def _chosen(job: JobConfig, manifest: Manifest) -> str:
    """The family of pixels that was best in validation; where none was searched yet, the first one."""
    fitted = [name for name in job.search.models if family(name).sample == "pixel" and family(name).combine is None]
    worth = {}
    for name in fitted:
        if job.artefacts.search_result(name).exists():
            summary = load_search(job.artefacts, name)
            if summary["dataset"] == manifest.fingerprint() and summary["objective"] == job.search.objective:
                worth[name] = worth_of(summary) * (1 if metric_of(job.search.objective).higher_is_better else -1)
    return max(worth, key=lambda name: worth[name]) if worth else [*fitted, DEFAULT_FAMILIES[0]][0]


def _row(sweep: _Sweep, step: int, progress: Progress) -> dict[str, Any]:
    """One step, made now or before."""
    (job, changed), manifest, model = sweep.at(step), sweep.manifest, sweep.models[-1]
    samples = Samples(job.artefacts, manifest)
    keys = [FamilySearch(job, manifest, name, samples).key.digest for name in sweep.models]
    settings = [job.search.model_dump(mode="json"), asked(job), manifest.fingerprint(), code_digest(_record)]
    key, file = fingerprint([keys, settings]), job.artefacts.root / f"{model}.json"
    row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if row.get("key") == key and not row["left_out"]:
        progress.note("finished before")
        return row
    run_stages(("search",), sweep.config, changed)
    row = {"step": step, "key": key, **_record(job, manifest, model)}
    write_json(file, row)
    return row


def _record(job: JobConfig, manifest: Manifest, model: str) -> dict[str, Any]:
    """What the winner's folds are worth on the zones that they did not see; a rule that decides was learnt on other folds."""
    found, summary = read_evidence(job.artefacts, manifest, model), load_search(job.artefacts, model)
    cube = cast(
        "Counts", found.counts_of(learnt_elsewhere(found, job.decision).predicted)
    )  # drawn rows stand for several pixels
    names = [crop.name for crop in manifest.classes]
    zones = [z for z in manifest.of_split("train") if job.artefacts.out_of_fold(model, z.zone_id).exists()]
    regions = [zone.region for zone in sorted(zones, key=lambda zone: zone.zone_id)]  # as the evidence is
    scores, of_class = score(cube.sum(0)), bootstrap_f1(cube, job.seed)
    return {
        "best": summary["best"],
        "left_out": [*summary.get("left_out", ()), *["not proposed"] * summary.get("not_proposed", 0)],
        "zones": len(cube),
        "metrics": {**scores.as_metrics("val"), "val_pixels": scores.n_pixels},
        "intervals": bootstrap_intervals(cube, job.seed) or None,
        "no_intervals": why_no_intervals(cube),
        "classes": {
            names[each.class_id]: {
                **asdict(each),
                **dict(zip(("low", "high"), of_class.get(each.class_id, ()), strict=False)),
            }
            for each in scores.classes
            if each.support
        },
        "regions": {name: one.as_metrics("val") for name, one in region_scores(cube, regions).items()},
    }


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    rows, noun = record["steps"], record["step"]
    classes, regions = rows[-1]["classes"], rows[-1]["regions"]
    width = max(map(len, ("F1 of each crop", *classes, *regions)))

    def line(name: str, values: Sequence[float | None], more: str = "") -> str:
        cells = "".join(" " * 7 if value is None else f"{value:7.3f}" for value in values)
        return f"  {name:<{width}}{cells}  {more}".rstrip()

    yield f"{record['model']}, out of fold, if the season ended with {noun}"
    yield f"  {'':<{width}}" + "".join(f"{row['step']:7d}" for row in rows) + f"  reliable from {noun}"
    for key in _SHOWN:
        yield line(metric_of(f"val_{key}").called, [row["metrics"][f"val_{key}"] for row in rows])
    yield "F1 of each crop"
    for name in sorted(classes, key=lambda name: -classes[name]["support"]):
        yield line(name, [_f1(row, name) for row in rows], str(record["reliable_from"][name] or "–"))
    yield "macro F1 of each region"
    for name in [*regions][:_MOST_REGIONS]:
        yield line(name, [row["regions"][name]["val_macro_f1"] for row in rows])
    if len(regions) > _MOST_REGIONS:
        yield f"  and {len(regions) - _MOST_REGIONS} more, which the JSON has"
    yield (
        f"{rows[-1]['metrics']['val_pixels']:,} labelled pixels of {rows[-1]['zones']} training zones. Reliable: from there on the lower "
        f"end of the 95 % interval over zones of the crop's F1 is at least {record['reliable']:g}."
    )


def _f1(row: Mapping[str, Any], name: str) -> float | None:
    value: float | None = row["classes"].get(name, {}).get("f1")
    return value


def _doubts(job: JobConfig, manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a reader of the table must know."""
    if reason := rows[-1]["no_intervals"]:
        yield f"No crop can be called reliable: {reason}."
    elif few := [name for name, found in rows[-1]["classes"].items() if "low" not in found]:
        yield f"In too few zones for an interval: {', '.join(few)}."
    files = [job.artefacts.acquisition_record(zone.zone_id) for zone in manifest.of_split("train")]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    if shares := [1 - record["share_clear"] for record in records if record.get("is_filled", True)]:
        yield (
            f"{sum(shares) / len(shares):.0%} of the composites' steps were filled from those before and after, which an unfinished "
            f"season does not have: where the last steps were not seen clear, these scores know something of later ones."
        )
