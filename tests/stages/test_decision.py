"""How the decision of a search's winner gets into its card, and what depends on it: no fit, no Ray."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import LeakageError, MissingArtefactError, SchemaError
from cropray.core.progress import Progress
from cropray.datasets.schema import pixel_schema
from cropray.io.storage import folder_hash, write_json
from cropray.search.decision import TAUS
from cropray.stages.decision import _drawn_pixels, asked, learn_of_winner, read_evidence, require_decision
from cropray.stages.family_search import FamilySearch, Samples
from cropray.stages.search_verdict import Searched
from cropray.training.decision import recorded_decision
from cropray.training.likeness import recorded_likeness
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
    *(entry(f"k{zone}", zone % 3, counts(zone), region=("hills", "plain")[zone % 2]) for zone in range(6)), entry("t1", None, dict.fromkeys(NAMES, 9000)),
    names=NAMES, source="points", n_folds=3,
)  # fmt: skip

LOOKUP = np.array([crop.id for crop in ZONES.classes], np.uint8)


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


def write_pixels(workspace, zone_id, labels, seed, step=50, late=0):
    """The pixel table of a zone whose classes are told apart by one number, and by another after step 5."""
    rng, n = np.random.default_rng(seed), len(labels)
    x = rng.integers(900, 1100, (n, 48)) + step * labels[:, None].astype(int)
    x += late * labels[:, None].astype(int) * (np.arange(48) % 12 >= 5)
    columns = dict(zip(STUDY_CUBE.columns, x.T.astype(np.uint16), strict=True))
    columns |= {
        "zone_id": [zone_id] * n,
        "region": ["hills"] * n,
        "label": LOOKUP[labels],
        "n_clear": np.zeros(n, np.uint8),
    }
    columns |= {name: np.arange(n, dtype=np.int32) for name in ("parcel", "row", "col")}
    schema = pixel_schema()
    folder = workspace.pixels(zone_id)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table([columns[name] for name in schema.names], schema=schema), folder / "part-0.parquet")


@pytest.fixture
def make(tmp_path):
    """Make a job whose search has published its winner and written what its folds say."""

    def make(**decision):
        job = job_of(workspace=tmp_path / "work", search={"models": ["xgboost"]}, decision=decision)
        workspace = job.artefacts
        for zone in range(6):
            write_zone(workspace, zone)
            write_pixels(workspace, f"k{zone}", FOUND.labels[FOUND.zones == zone], zone)
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
    assert "calibration error by region, worst first: " in said
    assert result["decision"]["reliability"]["regions"].keys() == {"hills", "plain"}


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
    assert found.regions == ("hills", "plain") * 3
    others = ZONES.class_counts(["k1", "k2", "k4", "k5"])
    np.testing.assert_allclose(found.frequencies[3], others / others.sum())
    assert np.abs(found.frequencies[3] - SHARES).max() < 0.1


def test_the_test_zone_has_no_part_in_it(make):
    """A file of its predictions that lies where it should not: nothing is learnt from it."""
    job = make(rule="prior", calibrate=True)
    wanted = learnt(job)
    write_test_zone(job.artefacts.out_of_fold("xgboost", "t1"))
    assert learnt(job) == wanted


def test_inverted_labels_of_a_test_zone_change_no_byte(make):
    """Neither of tau, temperature and the threshold of sets, nor of what pixels are called unlike; with its pixels at hand."""
    job = make(rule="prior", calibrate=True, coverage=0.7, unlike=0.3)
    workspace = job.artefacts
    record = learnt(job)
    assert min(record["tau"], abs(record["temperature"] - 1), record["set_threshold"], record["unlike"]["least"]) > 0
    hashes = folder_hash(workspace.model("xgboost")), workspace.search_result("xgboost").read_bytes()
    inverted = 4 - FOUND.labels
    write(workspace.out_of_fold("xgboost", "t1"), ["t1"] * 900, inverted, FOUND.probabilities)
    write_pixels(workspace, "t1", inverted, 7, step=900)
    assert learnt(job) == record
    assert (folder_hash(workspace.model("xgboost")), workspace.search_result("xgboost").read_bytes()) == hashes
    # And they are no trifle: as a training zone's they teach something else.
    leaking = manifest(*ZONES.zones[:6], entry("t1", 0, dict.fromkeys(NAMES, 9000)), names=NAMES, n_folds=3)
    learn_of_winner(job, leaking, "xgboost", Progress(io.StringIO()))
    card = json.loads((workspace.model("xgboost") / "card.json").read_text())
    for name in ("tau", "temperature", "set_threshold", "unlike"):
        assert card["decision"][name] != record[name]


@pytest.mark.parametrize("decision", [{"calibrate": True, "coverage": 0.7}, {"unlike": 0.3}])
def test_inverted_labels_of_a_test_zone_under_another_name_are_refused(make, decision):
    job = make(**decision)
    write(job.artefacts.out_of_fold("xgboost", "k4"), ["t1"] * 900, 4 - FOUND.labels, FOUND.probabilities)
    with pytest.raises(LeakageError, match=r"no training zones \(t1\)"):
        learnt(job)
    card = json.loads((job.artefacts.model("xgboost") / "card.json").read_text())
    assert not {"decision", "likeness"} & card.keys()


def test_the_card_says_which_pixels_are_unlike_the_training_zones(make):
    log, job = io.StringIO(), make(unlike=0.3)
    record = learnt(job, log)
    folder = job.artefacts.model("xgboost")
    card = json.loads((folder / "card.json").read_text())
    likeness = recorded_likeness(card)
    found = read_evidence(job.artefacts, ZONES, "xgboost")
    x, rows = _drawn_pixels(job.artefacts, ZONES, "xgboost", found)
    assert rows.tolist() == list(range(900))
    np.testing.assert_allclose(likeness.mean, np.average(x, 0, found.weights), rtol=1e-6)
    assert likeness.least == record["unlike"]["least"] > 0
    assert 0 < record["unlike"]["share"] < 0.3
    assert "pixels unlike the training zones, to be 30% of a new zone's at most" in log.getvalue()
    assert "whitening" not in job.artefacts.search_result("xgboost").read_text()
    rule = learnt(make(rule="prior"))
    assert rule["settings"]["unlike"] is None
    assert "likeness" not in json.loads((folder / "card.json").read_text())


def test_of_a_part_of_the_season_no_later_step_tells_where_pixels_lie(make):
    """What lies after it is missing when such a model is used."""
    job = make(unlike=0.3).model_copy(update={"until_step": 5})
    found = read_evidence(job.artefacts, ZONES, "xgboost")
    learnt(job)
    likeness = recorded_likeness(json.loads((job.artefacts.model("xgboost") / "card.json").read_text()))
    seen, _ = _drawn_pixels(job.artefacts, ZONES, "xgboost", found)
    expected = np.average(seen, 0, found.weights) * (np.arange(48) % 12 < 5)
    np.testing.assert_allclose(likeness.mean, expected, rtol=1e-6)


def test_no_later_step_tells_what_is_unlike(make):
    kept = []
    for step in (50, 900):  # what tells the classes apart, in later steps alone
        job = make(unlike=0.3).model_copy(update={"until_step": 5})
        for zone in range(6):
            labels = FOUND.labels[FOUND.zones == zone]
            write_pixels(job.artefacts, f"k{zone}", labels, zone, late=step)
        learnt(job)
        kept.append(recorded_likeness(json.loads((job.artefacts.model("xgboost") / "card.json").read_text())))
    np.testing.assert_array_equal(kept[0].whitening, kept[1].whitening)
    assert kept[0].least == kept[1].least > 0
    assert kept[0].mean.reshape(4, 12)[:, 5:].max() == 0 < kept[0].mean.reshape(4, 12)[:, :5].min()


def test_the_card_says_when_a_pixel_is_answered_by_its_group(make):
    """Groups are those of the legend's finest level that says something, and two that are called alike are told apart."""
    of_levels = (
        ("annual", "cereals"),
        ("annual", "other"),
        ("annual", "cereals"),
        ("annual", "other"),
        ("perennial", "other"),
    )
    classes = tuple(
        replace(crop, level1=one, level2=two) for crop, (one, two) in zip(ZONES.classes, of_levels, strict=True)
    )
    log, job, grouped = io.StringIO(), make(fall_back=0.9), replace(ZONES, classes=classes)
    learn_of_winner(job, grouped, "xgboost", Progress(log))
    card = json.loads((job.artefacts.model("xgboost") / "card.json").read_text())
    record = card["decision"]["fall_back"]
    assert (record["level"], record["groups"]) == ("level_2", [0, 1, 0, 1, 2])
    assert record["names"] == ["annual / cereals", "annual / other", "perennial / other"]
    assert 30 < record["below_percent"] < 100
    decision = recorded_decision(card)
    assert (decision.group_below, decision.groups) == (record["below_percent"], (0, 1, 0, 1, 2))
    assert (
        f"pixels below {record['below_percent']} % of confidence fall back to their group of level_2" in log.getvalue()
    )
    assert json.loads(job.artefacts.search_result("xgboost").read_text())["decision"]["fall_back"] == record
    assert "the legend has no groups" in learnt(job)["fall_back"]["why"]  # of names alone
    with pytest.raises(SchemaError, match=r"decision\.fall_back_below is 60, was None"):
        require_decision(make(fall_back=0.9, fall_back_below=60), "xgboost")
    assert asked(make()) is None
    assert asked(make(coverage=0.7))["code"] != asked(make(coverage=0.7, fall_back_below=60))["code"]


def test_inverted_labels_of_a_test_zone_move_no_threshold(make):
    groups = tuple(replace(crop, level1="ab"[i % 2]) for i, crop in enumerate(ZONES.classes))
    job, grouped, found = make(fall_back=0.9), replace(ZONES, classes=groups), []
    for _ in range(2):
        learn_of_winner(job, grouped, "xgboost", Progress(io.StringIO()))
        found.append(json.loads((job.artefacts.model("xgboost") / "card.json").read_text())["decision"]["fall_back"])
        write(job.artefacts.out_of_fold("xgboost", "t1"), ["t1"] * 900, 4 - FOUND.labels, FOUND.probabilities)
    assert found[0] == found[1]


def test_too_few_zones_flag_nothing_and_say_so(make):
    log = io.StringIO()
    assert learnt(make(unlike=0.05), log)["unlike"]["least"] == 0
    assert "too few to promise that not more than 5% of a new zone's are, 20 or more are needed" in log.getvalue()


def test_of_many_rows_some_tell_where_pixels_lie(make, monkeypatch):
    job = make(unlike=0.3)
    found = read_evidence(job.artefacts, ZONES, "xgboost")
    monkeypatch.setattr("cropray.stages.decision._MOST_PIXELS", 400)
    x, rows = _drawn_pixels(job.artefacts, ZONES, "xgboost", found)
    assert 280 < len(x) == len(rows) < 320
    assert (np.abs(x.astype(int) - 1000 - 50 * found.labels[rows][:, None].astype(int)) <= 100).all()


def test_pixel_tables_of_other_labels_are_seen(make):
    job = make(unlike=0.3)
    labels = FOUND.labels[FOUND.zones == 3]
    for wrong in (labels[::-1], labels[:-1]):
        write_pixels(job.artefacts, "k3", wrong, 3)
        with pytest.raises(SchemaError, match="of zone 'k3' by xgboost are not of its pixel table"):
            learnt(job)


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
