"""A family that is built from the winners of others: when its units come, what they depend on, and what is told."""

import io

import pytest

from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.core.progress import Progress
from cropray.io.storage import write_json
from cropray.io.workspace import MISSING
from cropray.search.fit import SearchData, fit_job
from cropray.stages import search
from cropray.stages.family_search import FamilySearch, Samples
from cropray.stages.search_verdict import Searched
from tests.search.test_space import job as job_of
from tests.stages.test_family_search import ZONES, finish

SEARCH = {
    "models": ["blend", "xgboost", "forest"],
    "xgboost": {"learning_rate": [0.2, 0.4], "n_estimators": [10, 20]},
    "forest": {"n_estimators": [8]},
}


@pytest.fixture
def make(tmp_path):
    """A search of two families of trees and the one that is built from them; nothing is fitted."""

    def make(**changes):
        made = job_of(workspace=tmp_path / "work", **{"search": SEARCH, **changes})
        samples = Samples(made.artefacts, ZONES)
        members = [FamilySearch(made, ZONES, model, samples) for model in ("xgboost", "forest")]
        return members, lambda: FamilySearch(made, ZONES, "blend", samples, members)

    return make


def finish_members(members, best_rate=0.2):
    for member in members:
        finish(member.units, lambda trial: 8 if trial.values.get("learning_rate") == best_rate else 6)
        _, best = member._configurations()
        finish([member.refit(best), *member.regions(best).values()])


def test_members_whose_time_was_up_have_winners(make):
    members, built = make(search={**SEARCH, "time_budget_s": 60})
    finish(members[0].units[:3])  # one rate of two, on all folds
    finish(members[1].units)
    assert built().is_waiting
    finish([member.refit(member._configurations()[1]) for member in members])
    assert not members[0].is_finished()
    assert not built().is_waiting
    assert len(built().units) == ZONES.n_folds


def names(searched):
    return [unit.folder.name for unit in searched.units]


def test_it_waits_for_its_members(make):
    members, built = make()
    waiting = built()
    assert waiting.is_waiting
    assert waiting.units == []
    assert not waiting.advance()
    assert not waiting.is_finished()
    assert list(waiting.out_of_fold()) == []
    finish_members(members)
    ready = built()
    assert len(ready.units) == ZONES.n_folds
    assert not ready.is_finished()
    finish(ready.units)
    finish([ready.refit(ready._configurations()[1])])
    assert ready.is_finished()


def test_each_unit_is_built_from_the_winners_fits_of_the_same_zones(make):
    members, built = make(search={**SEARCH, "leave_region_out": True})
    finish_members(members)
    ready = built()
    data = SearchData(ready.family, ZONES, ready.settings, dict.fromkeys(ZONES.zone_ids), 0, None, ready._built_from)
    for unit in ready.units:
        job = fit_job(unit.unit, "folder", data, None)
        assert [member.name for member in job.members] == ["xgboost", "forest"]
        assert all(f"fold={unit.unit.fold}" in member.folder.name for member in job.members)
        assert "learning_rate=0.2" in job.members[0].folder.name
        assert job.members[0].step == 10  # the first of equals
    finish(ready.units)
    _, best = ready._configurations()
    refit, *regions = ready.refit(best), *ready.regions(best).values()
    assert [m.folder.name.rsplit("-", 1)[0].split("_")[-1] for m in fit_job(refit.unit, "f", data, None).members] == [
        "refit"
    ] * 2
    for region in regions:
        assert all("without" in member.folder.name for member in fit_job(region.unit, "f", data, None).members)


def test_other_winners_make_other_units(make):
    members, built = make()
    finish_members(members)
    before = names(built())
    assert names(built()) == before
    finish_members(members, best_rate=0.4)
    assert not set(names(built())) & set(before)


def test_weights_depend_on_what_is_said_out_of_fold(make):
    for changes, is_heeded in (({}, False), ({"blend": {"weighting": "greedy"}}, True)):
        members, built = make(**changes)
        finish_members(members)
        path = members[0].workspace.out_of_fold("xgboost", "k2")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"some")
        before = built()
        read = {place: set(of[0].out_of_fold) for place, of in before._built_from.items()}
        assert read == {(0, None): {"k2"}, (1, None): set(), (2, None): {"k2"}, (None, None): {"k2"}}
        path.write_bytes(b"others")
        after = names(built())
        changed = [unit.unit.fold for unit, name in zip(before.units, after, strict=True) if unit.folder.name != name]
        assert changed == ([0, 2] if is_heeded else [])  # fold 1 is scored on this zone


def why_stale(searched):
    verdict = Searched(
        searched.job, ZONES, "blend", searched.key, searched.units, searched.is_finished, searched.members
    )
    return verdict.why_stale()


def test_why_it_is_stale_is_said_of_its_members(make):
    members, built = make()
    assert why_stale(built()) == [MISSING]
    finish_members(members)
    ready = built()
    finish(ready.units)
    refit = ready.refit(ready._configurations()[1])
    finish([refit])
    of_search = {
        "key": ready.key.parts, "objective": ready.job.search.objective, "units": names(ready), "dataset": ZONES.fingerprint(),
    }  # fmt: skip
    write_json(ready.workspace.search_result("blend"), of_search)
    ready.workspace.model("blend").mkdir(parents=True)
    assert why_stale(built()) == []
    finish_members(members, best_rate=0.4)
    assert why_stale(built()) == [
        "winners of xgboost, forest, from which it is built, changed, or setting search.blend"
    ]
    (members[1].units[0].folder / "result.json").unlink()
    assert "searches of xgboost, forest, from which it is built, are not finished" in why_stale(built())


def test_units_of_fitted_families_know_nothing_of_it(make, tmp_path):
    members, _ = make()
    alone = job_of(workspace=tmp_path / "work", search={**SEARCH, "models": ["xgboost", "forest"]})
    assert names(members[0]) == names(FamilySearch(alone, ZONES, "xgboost", Samples(alone.artefacts, ZONES)))


def test_the_stage_lists_it_after_its_members(make):
    members, _ = make()
    write_json(members[0].workspace.manifest, {})
    listed = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "load_manifest", lambda _: ZONES)
        listed = [artefact.group for artefact in search.artefacts(members[0].job)]
    assert listed == ["search/xgboost", "search/forest", "search/blend"]


@pytest.mark.parametrize("models", [["blend"], ["blend", "forest"]])
def test_a_job_with_too_few_members_is_refused_when_it_is_read(models):
    with pytest.raises((ConfigError, ValueError), match="at least 2 other families"):
        job_of(search={"models": models})


def test_points_may_be_averaged_and_static_features_too():
    points = {"path": "/p.parquet", "static": [{"id": "slope", "unit": "degree", "scale": 1, "offset": -1}]}
    content = {"name": "a", "workspace": "/w", "points": points}
    assert JobConfig.model_validate({**content, "search": SEARCH}).search.in_turn() == (
        ["xgboost", "forest"],
        ["blend"],
    )


def test_who_is_left_out_is_told(make, monkeypatch):
    members, _ = make(blend={"families": ["xgboost", "forest", "temp_cnn"]})
    job, log = members[0].job, io.StringIO()
    monkeypatch.setattr(search, "load_manifest", lambda _: ZONES)
    monkeypatch.setattr(search, "ray_session", lambda *_, **__: __import__("contextlib").nullcontext())
    monkeypatch.setattr(search, "_run_searches", lambda *_: None)
    search.run(job, Progress(log))
    assert "blend is built from the winners of xgboost, forest; temp_cnn are left out" in log.getvalue()


def test_what_the_data_cannot_give_of_a_recipe_is_told(tmp_path, monkeypatch):
    content = {"name": "a", "workspace": str(tmp_path), "points": {"path": "/p"}, "recipe": "best"}
    job, log = JobConfig.model_validate({**content, "cube": {"step": "season"}}), io.StringIO()
    monkeypatch.setattr(search, "load_manifest", lambda _: ZONES)
    monkeypatch.setattr(search, "ray_session", lambda *_, **__: __import__("contextlib").nullcontext())
    monkeypatch.setattr(search, "require_devices", lambda *_: None)
    monkeypatch.setattr(search, "_run_searches", lambda *_: None)
    search.run(job, Progress(log))
    told = [line.strip() for line in log.getvalue().splitlines() if "left out of" in line]
    assert told == job.left_out_in_words
    assert [line.partition(" (")[0] for line in told] == [
        "left out of search.models: temp_cnn",
        "left out of xgboost.features and forest.features: differences",
    ]
