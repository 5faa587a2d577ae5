"""`compare`: whether one model is better than another one on the same test zones, or cannot be told from it."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from cropray.config import JobConfig
from cropray.core.errors import ConfigError, InputError, MissingArtefactError
from cropray.core.fingerprint import fingerprint
from cropray.core.intervals import Difference, why_no_intervals
from cropray.core.metrics import METRICS, metric_of
from cropray.datasets.manifest import load_manifest
from cropray.evaluation.pooled import BETTER, Comparison, Counted, compare, read_counted, verdict
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, as_location, relative, remove, write_json
from cropray.io.workspace import Workspace, require
from cropray.stages.results import load_search, why_no_scores, worth_of
from cropray.tracking import ResultNote, as_keys, beside_stages
from cropray.training.family import families

_WIDTH: Final = 24


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two models."""

    job: JobConfig
    model: str
    tested: Counted

    @property
    def title(self) -> str:
        """For people, and the name of a file."""
        return f"{self.job.name} {self.model} ({self.job.recipe})"


def run_compare(a: str, b: str, overrides: Sequence[str], *, is_nested: bool) -> None:
    """Print the differences of two models with paired intervals over zones, and write them as JSON into the first one's workspace.

    They are a run of MLflow as well, in the first one's experiment.

    Args:
        a: a job file or the folder of a workspace, and `:family` where several were evaluated; else it is the one that
            was best in validation.
        b: the other model.
        overrides: of the settings of both jobs.
        is_nested: compare what `cropray nested` tested, all zones, instead of the test zones.

    Raises:
        ConfigError: they are the same model, or a family was not searched.
        InputError: they were tested on other zones, or other labels.
        MissingArtefactError: one was not evaluated.
    """
    one, other = (_side(given, overrides, is_nested=is_nested) for given in (a, b))
    if (one.job.workspace, one.model) == (other.job.workspace, other.model):
        raise ConfigError(f"'{a}' and '{b}' are the same model, {one.model} in '{one.job.workspace}'; name two of them")
    found = compare(one.tested, other.tested, one.job.seed)
    if not found.scores:
        raise ConfigError(
            f"the two cannot be compared: {why_no_intervals(one.tested.cube)}; `cropray nested CONFIG.yaml` tests every zone"
        )
    titles = one.title, other.title
    for line in _lines(found, titles, _n_alone(one.tested, other.tested)):
        print(line, flush=True)
    folder = one.job.artefacts.nested if is_nested else one.job.artefacts.root / "evaluation"
    there = other.job.artefacts.root
    file = folder / f"{one.model}-and-{other.model}-of-{there.name}-{fingerprint(str(there))[:6]}.json"
    pair = f"compare/{one.model}-and-{other.model}-{fingerprint([str(there), is_nested])[:8]}"
    remove(one.job.artefacts.run(pair))  # what is noted of the file that is replaced
    write_json(file, {"a": titles[0], "b": titles[1], "verdict": _verdicts(found, titles), **asdict(found)})
    print(f"written to {file}", flush=True)
    note = _note(pair, (one, other), found, file, is_nested=is_nested)
    for line in beside_stages(one.job.artefacts, one.job.name, one.job.tracking_uri, [note]).outcome():
        print(line, flush=True)


def _note(pair: str, sides: tuple[_Side, _Side], found: Comparison, file: Location, *, is_nested: bool) -> ResultNote:
    """The comparison as a run: `difference_<score>`, `difference_f1.<class>`, and the ends of their intervals."""
    one, other = sides
    metrics: dict[str, float] = {"zones": len(found.zone_ids)}
    for key, difference in found.scores.items():
        metrics |= {f"difference_{key}{end}": value for end, value in _ends(difference)}
    for name, called in as_keys(found.classes).items():
        metrics |= {f"difference_f1{end}.{called}": value for end, value in _ends(found.classes[name])}
    params = {
        side: {
            "experiment": of.job.name,
            "model": of.model,
            "recipe": of.job.recipe,
            "workspace": str(of.job.workspace),
        }
        for side, of in (("a", one), ("b", other))
    }
    tags = {"cropray.a": one.title, "cropray.b": other.title}
    tags |= {f"cropray.verdict.{key}": said for key, said in _verdicts(found, (one.title, other.title)).items()}
    return ResultNote(
        experiment=one.job.name, key=f"{pair}/{fingerprint([params, metrics, tags])[:16]}", model=one.model, kind="compare",
        name=f"{one.title} − {other.title}", time_ms=round(time.time() * 1000),
        params={**params, "tested": "nested" if is_nested else "evaluate", "seed": one.job.seed}, tags=tags,
        metrics=metrics, files=(relative(file, one.job.artefacts.root),),
    )  # fmt: skip


def _ends(difference: Difference) -> Iterator[tuple[str, float]]:
    return zip(("", "_low", "_high"), (difference.value, difference.low, difference.high), strict=True)


def _side(given: str, overrides: Sequence[str], *, is_nested: bool) -> _Side:
    place, _, named = given.rpartition(":")
    if not place or named not in families():
        place, named = given, ""
    job = _job(place, overrides)
    if named and named not in job.search.models:
        raise ConfigError(f"'{place}' searches {', '.join(job.search.models)}, and not {named}")
    model = named or _best(job, place, is_nested=is_nested)
    if is_nested:
        folder = require(job.artefacts.nested / model, "nested")
        was = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["recipe"]
        if was != job.recipe:
            raise InputError(
                f"'{folder}' was tested with the recipe {was}, the job's is {job.recipe}: run `cropray nested` again"
            )
        return _Side(job, model, read_counted(folder))
    manifest = load_manifest(job.artefacts.manifest)
    if why := why_no_scores(job.artefacts, manifest, model):
        raise MissingArtefactError(f"{model} in '{job.workspace}' is {why}; run `cropray evaluate CONFIG.yaml` first")
    return _Side(job, model, read_counted(job.artefacts.evaluation(model), [crop.name for crop in manifest.classes]))


def _job(place: str, overrides: Sequence[str]) -> JobConfig:
    """Of a job file, or of a workspace, which keeps the config of each stage as it last ran."""
    try:
        workspace = Workspace(as_location(place))
    except ValueError as error:
        raise ConfigError(f"'{place}': {error}") from None
    kept = [config for stage in ("evaluate", "dataset") if (config := workspace.config(stage)).exists()]
    if not kept and workspace.root.is_dir():
        raise ConfigError(f"'{place}' is a folder, and no stage has run in it: give a job file, or a workspace")
    return load_settings(JobConfig, kept[0] if kept else place, overrides)


def _best(job: JobConfig, place: str, *, is_nested: bool) -> str:
    """The family that was best in validation; the test chooses nothing."""
    models = job.search.models
    if len(models) == 1:
        return models[0]
    if is_nested:
        raise ConfigError(f"'{place}' has {', '.join(models)}; say which is meant: {place}:{models[0]}")
    merits = {}
    for model in models:
        summary = load_search(job.artefacts, model)
        objective = summary["objective"]
        merits[model] = worth_of(summary) * (1 if metric_of(objective).higher_is_better else -1)
    return max(merits, key=lambda model: merits[model])


def _n_alone(a: Counted, b: Counted) -> int:
    return len({*a.zone_ids} ^ {*b.zone_ids})


def _verdicts(found: Comparison, titles: tuple[str, str]) -> dict[str, str]:
    return {key: verdict(found.scores[f"test_{key}"], *titles) for key in BETTER}


def _lines(found: Comparison, titles: tuple[str, str], n_alone: int) -> Iterator[str]:
    yield f"A = {titles[0]}"
    yield f"B = {titles[1]}"
    alone = f" ({n_alone} more that only one was tested on are left out)" if n_alone else ""
    yield f"A − B on {len(found.zone_ids)} zones{alone} [95 % interval, paired bootstrap over zones]"
    said = _verdicts(found, ("A", "B"))
    for metric in METRICS:
        if (difference := found.scores.get(f"test_{metric.key}")) is not None:
            yield f"  {metric.called:<{_WIDTH}} {_in_words(difference)}  {said.get(metric.key, '')}".rstrip()
    yield "  F1 of each class"
    for name, difference in found.classes.items():
        yield f"  {name:<{_WIDTH}} {_in_words(difference)}"


def _in_words(difference: Difference) -> str:
    return f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
