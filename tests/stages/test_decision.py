"""How the decision of a search's winner gets into its card, and what depends on it: no fit, no Ray."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cropray.core.errors import LeakageError, MissingArtefactError, SchemaError
from cropray.core.progress import Progress
from cropray.io.storage import folder_hash, write_json
from cropray.search.decision import TAUS
from cropray.stages.decision import asked, learn_of_winner, read_evidence, require_decision
from cropray.stages.family_search import FamilySearch, Samples
from cropray.stages.search_verdict import Searched
from tests.maps.builders import save_trees
from tests.search.drawn_predictions import SHARES, drawn
from tests.search.test_space import job as job_of
from tests.synthetic import entry, manifest

NAMES = ("wheat", "maize", "rape", "beet", "vine")
FOUND = drawn(900, n_zones=6, noise=1.2, pull=0.5)
TIMES = 4  # labelled pixels that each kept row stands for


def counts(zone):
    n = np.bincount(FOUND.labels[FOUND.zones == zone], minlength=5)
    return {name: int(TIMES * n_rows) for name, n_rows in zip(NAMES, n, strict=True)}


ZONES = manifest(
    *(entry(f"k{zone}", zone % 3, counts(zone)) for zone in range(6)), entry("t1", None, dict.fromkeys(NAMES, 9000)),
    names=NAMES, source="points", n_folds=3,
)  # fmt: skip


def write(path, zone_ids, labels, probabilities):
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = pa.array(probabilities.reshape(-1), pa.float32())
    table = {"zone_id": zone_ids, "index": np.arange(len(labels), dtype=np.int32), "label": labels}
    pq.write_table(pa.table({**table, "probabilities": pa.FixedSizeListArray.from_arrays(flat, 5)}), path)


def write_zone(workspace, zone, called=None):
    """What a fold said of a zone that it did not see."""
    rows = FOUND.zones == zone
    name = called or f"k{zone}"
    write(
        workspace.out_of_fold("xgboost", f"k{zone}"), [name] * rows.sum(), FOUND.labels[rows], FOUND.probabilities[rows]
    )


def write_test_zone(path, called="t1"):
    """The test zone, which a model reads perfectly wrong: whoever learns from it, learns something else."""
    labels = np.repeat(np.arange(5), 200).astype(np.uint8)
    write(path, [called] * 1000, labels, np.eye(5, dtype=np.float32)[(labels + 1) % 5] * 0.6 + 0.08)


@pytest.fixture
def make(tmp_path):
    """Make a job whose search has published its winner and written what its folds say."""

    def make(**decision):
        job = job_of(workspace=tmp_path / "work", search={"models": ["xgboost"]}, decision=decision)
        workspace = job.artefacts
        for zone in range(6):
            write_zone(workspace, zone)
        save_trees(workspace.model("xgboost"))
        write_json(workspace.search_result("xgboost"), {"model": "xgboost", "objective": "val_macro_f1"})
        return job

    return make


def learnt(job, log=None):
    learn_of_winner(job, ZONES, "xgboost", Progress(log or io.StringIO()))
    return json.loads((job.artefacts.model("xgboost") / "card.json").read_text()).get("decision")


def test_the_card_says_how_the_winner_decides_and_what_it_is_worth(make):
    log, job = io.StringIO(), make(rule="prior", calibrate=True)
    before = json.loads((job.artefacts.model("xgboost") / "card.json").read_text())
    record = learnt(job, log)
    card = json.loads((job.artefacts.model("xgboost") / "card.json").read_text())
    assert {name: value for name, value in card.items() if name != "decision"} == before
    shares = ZONES.class_counts([f"k{zone}" for zone in range(6)]) / (TIMES * 900)
    assert record["frequencies"] == pytest.approx(shares)  # of the training zones: the test zone is even
    assert record["multipliers"] == pytest.approx(shares ** -record["tau"])
    assert record["tau"] in TAUS[1:]
    assert record["after"]["macro_f1"] > record["before"]["macro_f1"]
    result = json.loads(job.artefacts.search_result("xgboost").read_text())
    assert result["objective"] == "val_macro_f1"
    assert result["decision"] == {
        "asked": asked(job), **record, "taus": result["decision"]["taus"], "reliability": result["decision"]["reliability"]
    }  # fmt: skip
    said = log.getvalue()
    assert (
        f"probability / frequency^{record['tau']:g}; out of fold macro F1 {record['before']['macro_f1']:.4f} ->" in said
    )
    assert f"with the exponent chosen on other folds {record['other_folds']['macro_f1']:.4f}" in said
    assert f"tempered by {record['temperature']:.3f}; out of fold loss" in said


def test_the_likeliest_class_leaves_every_byte_as_it_was(make):
    log, job = io.StringIO(), make()
    was = folder_hash(job.artefacts.root)
    assert learnt(job, log) is None
    assert folder_hash(job.artefacts.root) == was
    assert log.getvalue() == ""


def test_learning_again_learns_the_same_and_another_rule_makes_another_model(make):
    first = learnt(make(rule="prior"))
    assert learnt(make(rule="prior")) == first
    hashes = set()
    for decision in ({}, {"rule": "prior"}, {"calibrate": True}):
        job = make(**decision)
        learnt(job)
        hashes.add(folder_hash(job.artefacts.model("xgboost")))
    assert len(hashes) == 3  # what the keys of scores, maps and registered models hold


def test_rows_stand_for_the_pixels_of_their_zone_and_class(make):
    found = read_evidence(make(rule="prior").artefacts, ZONES, "xgboost")
    assert found.weights.tolist() == [TIMES] * 900
    assert found.folds.tolist() == [0, 1, 2, 0, 1, 2]
    others = ZONES.class_counts(["k1", "k2", "k4", "k5"])
    np.testing.assert_allclose(found.frequencies[3], others / others.sum())
    assert np.abs(found.frequencies[3] - SHARES).max() < 0.1


def test_the_test_zone_has_no_part_in_it(make):
    """A file of its predictions that lies where it should not: nothing is learnt from it."""
    job = make(rule="prior", calibrate=True)
    wanted = learnt(job)
    write_test_zone(job.artefacts.out_of_fold("xgboost", "t1"))
    assert learnt(job) == wanted


@pytest.mark.parametrize("called", ["t1", "another dataset's"])
def test_predictions_of_the_test_under_another_name_are_seen(make, called):
    job = make(rule="prior")
    write_test_zone(job.artefacts.out_of_fold("xgboost", "k2"), called)
    with pytest.raises(LeakageError, match=rf"no training zones \({called}\): a decision learnt from them"):
        learnt(job)
    assert "decision" not in json.loads((job.artefacts.model("xgboost") / "card.json").read_text())


def test_pixels_that_a_zone_does_not_have_are_seen(make):
    job = make(rule="prior")
    write_test_zone(job.artefacts.out_of_fold("xgboost", "k2"), "k2")
    with pytest.raises(SchemaError, match="not of this dataset's pixels"):
        learnt(job)


def test_the_breach_would_have_paid(make):
    """What is refused above is no trifle: another temperature would be learnt."""
    job = make(calibrate=True)
    honest = learnt(job)["temperature"]
    write_test_zone(job.artefacts.out_of_fold("xgboost", "t1"))
    leaking = manifest(*ZONES.zones[:6], entry("t1", 0, dict.fromkeys(NAMES, 9000)), names=NAMES, n_folds=3)
    learn_of_winner(job, leaking, "xgboost", Progress(io.StringIO()))
    card = json.loads((job.artefacts.model("xgboost") / "card.json").read_text())
    assert card["decision"]["temperature"] > 1.5 * honest


def test_nothing_to_learn_from_is_an_error(make):
    job = make(rule="prior")
    for zone in range(6):
        job.artefacts.out_of_fold("xgboost", f"k{zone}").unlink()
    with pytest.raises(MissingArtefactError, match=r"search\.oof_rows is above 0"):
        learnt(job)
    with pytest.raises(ValidationError, match=r"set search\.oof_rows above 0"):
        job_of(search={"models": ["xgboost"], "oof_rows": 0}, decision={"rule": "prior"})


def test_a_model_that_decides_otherwise_than_the_job_asks_is_neither_scored_nor_mapped(make):
    plain, ruled = make(), make(rule="prior")
    require_decision(plain, "xgboost")
    with pytest.raises(SchemaError, match=r"\(decision\.rule is prior, was argmax\).*fits nothing twice"):
        require_decision(ruled, "xgboost")
    learnt(ruled)
    require_decision(ruled, "xgboost")
    with pytest.raises(SchemaError, match="run `cropray search"):
        require_decision(plain, "xgboost")


def test_a_model_of_another_part_of_the_season_is_neither_scored_nor_mapped(make):
    job = make()
    early = job.model_copy(update={"until_step": 5})
    with pytest.raises(SchemaError, match=r"until_step = None, the job has 5: set it so, or run `cropray search"):
        require_decision(early, "xgboost")
    path = job.artefacts.model("xgboost") / "card.json"
    write_json(path, {**json.loads(path.read_text()), "until_step": 5})
    require_decision(early, "xgboost")
    with pytest.raises(SchemaError, match="until_step = 5, the job has None"):
        require_decision(job, "xgboost")


def test_a_card_may_know_fewer_settings_than_there_are(make):
    job = make(rule="prior")
    learnt(job)
    path = job.artefacts.model("xgboost") / "card.json"
    card = json.loads(path.read_text())
    del card["decision"]["settings"]["coverage"]
    write_json(path, card)
    require_decision(job, "xgboost")


def test_another_rule_fits_nothing_again_and_is_learnt_again(make, monkeypatch):
    def verdict(job, result):
        search = FamilySearch(job, ZONES, "xgboost", Samples(job.artefacts, ZONES))
        units = [unit.folder.name for unit in search.units]
        whole = {
            "key": search.key.parts,
            "objective": job.search.objective,
            "units": units,
            "dataset": ZONES.fingerprint(),
        }
        write_json(job.artefacts.search_result("xgboost"), {**whole, **result})
        return units, Searched(job, ZONES, "xgboost", search.key, search.units, lambda: True).why_stale()

    plain, ruled = make(), make(rule="prior")
    units, said = verdict(ruled, {})
    assert said == ["setting decision.rule was argmax, is prior"]
    assert verdict(plain, {}) == (units, [])
    of_rule = {"decision": {"asked": asked(ruled)}}
    assert verdict(ruled, of_rule) == (units, [])
    assert verdict(plain, of_rule)[1] == ["setting decision.rule was prior, is argmax"]
    del of_rule["decision"]["asked"]["coverage"]  # a setting that came later
    assert verdict(ruled, of_rule)[1] == []
    monkeypatch.setattr("cropray.stages.decision._digest", lambda *_: "another")
    assert verdict(ruled, of_rule)[1] == ["code that learns how the winner decides changed"]
