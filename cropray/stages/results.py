"""Results of finished stages, read back for tables, pages and the tracker."""

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from cropray.config import JobConfig
from cropray.core.cube import CubeSpec
from cropray.core.fingerprint import fingerprint
from cropray.core.metrics import metric_of
from cropray.datasets.manifest import Manifest
from cropray.evaluation.detail import headline
from cropray.evaluation.models import load_model
from cropray.evaluation.results import ModelResult
from cropray.io.storage import folder_hash, local_file
from cropray.io.workspace import Workspace, require
from cropray.search.results import (
    RESULT_FILE,
    ConfigurationResult,
    RegionOut,
    group_by_configuration,
    load_results,
)
from cropray.tracking import Candidate, EvaluationNote, Merit, ModelForm, Tracker, as_keys
from cropray.training.family import family


def load_search(workspace: Workspace, model: str) -> dict[str, Any]:
    """Summary of a finished search.

    Raises:
        MissingArtefactError: the search has not finished.
    """
    path = require(workspace.search_result(model), "search")
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def load_configurations(
    workspace: Workspace, model: str, summary: Mapping[str, Any]
) -> tuple[ConfigurationResult, ...]:
    """Every configuration of a finished search; not those that lack folds, whose time was up.

    Raises:
        SchemaError: results of a unit are damaged or of another version.
    """
    folders = [workspace.unit(model, name) for name in summary["units"]]
    found = group_by_configuration(r for folder in folders for r in load_results(folder / RESULT_FILE))
    whole = [configuration["params"] for configuration in summary["configurations"]]
    return tuple(configuration for configuration in found if configuration.params in whole)


def load_region_out(workspace: Workspace, model: str, units: Mapping[str, str]) -> RegionOut:
    """The winner's scores on new regions; `units` are region → folder of the finished unit that left it out."""
    results = {region: load_results(workspace.unit(model, name) / RESULT_FILE) for region, name in units.items()}
    return RegionOut({region: result for region, (result,) in results.items()})


def load_scores(workspace: Workspace, model: str) -> dict[str, Any]:
    """The content of `scores.json`.

    Raises:
        MissingArtefactError: the model has not been evaluated.
    """
    path = require(workspace.evaluation(model) / "scores.json", "evaluate")
    scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return scores


def why_no_scores(workspace: Workspace, manifest: Manifest, model: str) -> str:
    """Why a model has no scores that belong to it and to this dataset; empty when it has."""
    if not workspace.search_result(model).exists():
        return "not searched yet"
    if load_search(workspace, model)["dataset"] != manifest.fingerprint():
        return "searched on an earlier version of the dataset"
    if not (workspace.evaluation(model) / "scores.json").exists():
        return "not evaluated yet"
    scores = load_scores(workspace, model)
    is_old = "no_intervals" not in scores
    if is_old or scores.get("model") != folder_hash(workspace.model(model)):
        return "evaluated by an earlier version of cropray" if is_old else "evaluated on an earlier model"
    zone_ids = scores["zone_ids"]
    with local_file(workspace.evaluation(model) / "cube.npy") as file:
        cube = np.load(file, allow_pickle=False)
    n_labelled = dict(zip(zone_ids, cube.sum((1, 2)).tolist(), strict=True))
    test_zones = [zone.zone_id for zone in manifest.of_split("test")]
    if cube.shape[1] != manifest.n_classes or n_labelled != manifest.labelled(test_zones):
        return "evaluated on an earlier version of the dataset"
    return ""


def load_model_result(workspace: Workspace, manifest: Manifest, model: str) -> ModelResult:
    """Search and test of one model.

    Raises:
        MissingArtefactError: the model has not been searched or evaluated.
    """
    summary, scores = load_search(workspace, model), load_scores(workspace, model)
    with local_file(workspace.evaluation(model) / "cube.npy") as file:
        cube = np.load(file, allow_pickle=False)
    assert cube.shape[1:] == (manifest.n_classes, manifest.n_classes)
    saved = summary.get("region_out")  # absent where the search left no region out
    region_out = None if saved is None else load_region_out(workspace, model, saved["units"])
    return ModelResult(
        name=model,
        label=family(model).label,
        configurations=load_configurations(workspace, model, summary),
        best=summary["best"],
        zone_ids=tuple(scores["zone_ids"]),
        cube=cube,
        loss_sum=scores["loss_sum"],
        step_name=family(model).step_name,
        warnings=tuple(summary.get("warnings", ())),  # a search of an earlier version has none
        decision=summary.get("decision"),
        new_region=None if region_out is None else region_out.scores,
        new_regions={} if region_out is None else region_out.scores_by_region,
        intervals={key: (low, high) for key, (low, high) in (scores["intervals"] or {}).items()},
        no_intervals=scores["no_intervals"],
        seed=scores["seed"],
        detail=scores.get("detail", {}),
    )


def evaluation_note(job: JobConfig, manifest: Manifest, model: str, tracker: Tracker) -> EvaluationNote:
    """What the tracker is told of the test of a model; what it was told of the same test before stands."""
    workspace = job.artefacts
    summary, scores = load_search(workspace, model), load_scores(workspace, model)
    tested = fingerprint([folder_hash(workspace.model(model)), scores["metrics"], manifest.fingerprint()])[:16]
    if summary.get("run") is None:  # a search of an earlier version did not note its run
        tracker.notes.append(
            f"{model}: the test is not linked to its search; run `cropray search` again, which fits nothing twice"
        )
    note = EvaluationNote(
        experiment=job.name,
        key=f"evaluate/{model}/{tested}",
        model=model,
        time_ms=round(time.time() * 1000),
        params={
            **summary["best"],
            "refit_steps": summary["refit_steps"],
            "seed": job.seed,
            **_decision_params(summary),
        },
        metrics={
            **scores["metrics"],
            **interval_metrics(scores),
            **headline(scores.get("detail", {})),  # an evaluation of an earlier version has none
            **_decision_metrics(summary),
        },
        search=summary.get("run"),
    )
    before = tracker.tested(model)
    if before is None or (before.key, before.experiment) != (note.key, note.experiment):
        return note
    return note.model_copy(update={name: getattr(before, name) for name in ("time_ms", "maps", "candidate")})


def candidate_of(job: JobConfig, model: str) -> Candidate:
    """A tested model as a version of the job's registered model."""
    workspace = job.artefacts
    summary = load_search(workspace, model)
    trained = load_model(workspace.model(model))
    form = ModelForm(
        loader=trained.loader,
        columns=trained.columns,
        input_shape=trained.input_shape,
        output_shape=trained.output_shape,
        classes=tuple(crop.name for crop in trained.classes),
        layout=_layout(trained.cube),
    )
    objective = summary["objective"]
    merit = Merit(model, summary["dataset"], objective, worth_of(summary), metric_of(objective).higher_is_better)
    return Candidate(folder_hash(workspace.model(model)), form, merit, round(time.time() * 1000))


def _layout(cube: CubeSpec) -> dict[str, Any]:
    """What a model's input means."""
    is_plain = all(band.is_plain_reflectance for band in (*cube.bands, *cube.static))
    meaning = "reflectance × 10 000" if is_plain else "(value − offset) / scale of the band in `cube`"
    return {
        "bands": list(cube.band_ids),
        "n_months": cube.n_steps,
        "values": f"digital numbers: {meaning}, 0 = no data",
        "columns": f"<band>_<position of the {cube.noun} in the season, {cube.step_names[0]} to {cube.step_names[-1]}>",
        **({"static": list(cube.static_ids)} if cube.static else {}),
        "axes": f"tile, {cube.noun}, band, row, column",
        "cube": cube.to_record(),
    }


def interval_metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """Tracker keys `test_…_low` and `test_…_high`; none where there are no intervals."""
    intervals = scores["intervals"] or {}
    return {
        f"{key}_{end}": value
        for key, ends in intervals.items()
        for end, value in zip(("low", "high"), ends, strict=True)
    }


def worth_of(summary: Mapping[str, Any]) -> float:
    """What validation says of the winner of a search, by its objective, with what its decision adds."""
    objective = summary["objective"]
    best = next(c for c in summary["configurations"] if c["params"] == summary["best"])
    worth: float = best[f"{objective}_mean"] + _gain(summary.get("decision"), metric_of(objective).key)
    return worth


def _gain(decision: Mapping[str, Any] | None, key: str) -> float:
    """What a decision adds to a score of the folds, as out-of-fold predictions tell, with tau chosen on other folds.

    Folds are counted by the likeliest class: without it, an alias would stay on the same fits without the decision.
    """
    if decision is None:
        return 0.0
    after = decision["after"] if key == "loss" else decision["other_folds"] or {}
    gain: float = after[key] - decision["before"][key] if key in after else 0.0
    return gain


def _decision_params(summary: Mapping[str, Any]) -> dict[str, Any]:
    """How the model decides; nothing where that is the likeliest class."""
    decision = summary.get("decision")
    if decision is None:
        return {}
    return {
        "decision.rule": decision["settings"]["rule"],
        **{f"decision.{n}": decision[n] for n in ("tau", "temperature")},
    }


def _decision_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """`oof_…` of the decision and the probabilities as they are, `oof_…_argmax` of what they would be without.

    `oof_ece.REGION` and `oof_ece_argmax.REGION` of each region with enough rows, `oof_rows.REGION` of each; `oof_unlike`,
    the share of pixels that are flagged.
    """
    decision = summary.get("decision")
    if decision is None:
        return {}
    found, whens = dict[str, float](), (("", "after"), ("_argmax", "before"))
    for end, when in whens:
        found |= {f"oof_{key}{end}": value for key, value in decision[when].items()}
    if "unlike" in decision:
        found["oof_unlike"] = decision["unlike"]["share"]
    regions = decision.get("reliability", {}).get("regions", {})
    for region, name in as_keys(regions).items():
        table = regions[region]
        found[f"oof_rows.{name}"] = table["rows"]
        found |= {f"oof_ece{end}.{name}": table["ece"][when] for end, when in whens if "ece" in table}
    return found
