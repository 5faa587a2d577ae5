"""`season` tells from which step of time on crops are known, and no later step tells anything."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cropray.cli import main
from cropray.commands import season
from cropray.commands.season import reliable_from, steps_of
from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.core.metrics import score
from cropray.datasets.manifest import load_manifest
from cropray.evaluation.out_of_fold import read_out_of_fold
from cropray.io.job_file import load_settings
from cropray.io.workspace import Workspace
from tests.commands.test_ablate import imitate
from tests.study import FEATURE_COLUMNS, N_MONTHS

N_ZONES = 9
KNOWN_FROM = 8  # month


def write_points(path, seed=0):
    """Rape stands out in every month; barley and oats differ from month 8 on, and by nothing before."""
    rng = np.random.default_rng(seed)
    zones = np.repeat(np.arange(N_ZONES), 30)
    label = np.arange(len(zones)) % 3
    month = np.tile(np.arange(1, N_MONTHS + 1), 4)
    level = 1500.0 + 40 * rng.standard_normal((len(zones), len(FEATURE_COLUMNS)))
    level += 900 * (label == 2)[:, None] + 700 * (label == 1)[:, None] * (month >= KNOWN_FROM)
    columns = {
        "zone_id": [f"z{n}" for n in zones],
        "region": [("north", "south")[n % 2] for n in zones],
        "split": ["test" if n == N_ZONES - 1 else "train" for n in zones],
        "label": np.array(["barley", "oats", "rape"])[label].tolist(),
        "lon": 5.0 + 0.3 * zones,
        "lat": 45.0 + 0.0001 * np.arange(len(zones)),
        **{name: level[:, i].astype(np.uint16) for i, name in enumerate(FEATURE_COLUMNS)},
    }
    pq.write_table(pa.table(columns), path)


def write_config(folder):
    write_points(folder / "points.parquet")
    content = {
        "name": "small", "workspace": str(folder / "work"), "points": {"path": str(folder / "points.parquet")},
        "dataset": {"n_folds": 2}, "search": {"models": ["forest"]}, "forest": {"n_estimators": 20, "max_depth": 6},
        "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }  # fmt: skip
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A job whose sweep was interrupted at its last step, and run again; and how often a step was searched."""
    config, searched = write_config(tmp_path_factory.mktemp("season")), []

    def until_it_breaks(stages, config, overrides):
        if "search" in stages:
            step = load_settings(JobConfig, config, overrides).until_step
            searched.append(step)
            if searched == [5, 7, 8, None]:
                raise KeyboardInterrupt
        imitate(stages, config, overrides)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(season, "run_stages", until_it_breaks)
        command = ["season", str(config), "--steps", "5,7,8,12", "--reliable", "0.8"]
        assert main(command) == 130
        assert main(command) == 0
    return config, searched


def record_of(config):
    folder = load_settings(JobConfig, config).artefacts.early_seasons
    assert (folder / "forest.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / "forest.json").read_text())


def test_a_crop_is_known_from_the_step_on_at_which_it_differs(done):
    record = record_of(done[0])
    found = {row["step"]: row for row in record["steps"]}
    for step in (5, 7):
        assert 0.35 < found[step]["classes"]["barley"]["f1"] < 0.65
        assert 0.35 < found[step]["classes"]["oats"]["f1"] < 0.65
    for step in (8, 12):
        assert found[step]["metrics"]["val_macro_f1"] == 1
    assert {row["classes"]["rape"]["f1"] for row in record["steps"]} == {1.0}
    assert record["reliable_from"] == {"barley": 8, "oats": 8, "rape": 5}
    assert set(found[5]["regions"]) == {"north", "south"}
    assert found[5]["metrics"]["val_pixels"] == 30 * (N_ZONES - 1)
    assert (
        found[5]["classes"]["barley"]["low"]
        < found[5]["classes"]["barley"]["f1"]
        < found[5]["classes"]["barley"]["high"]
    )


def test_regions_are_scored_by_their_own_zones(done):
    early = load_settings(JobConfig, done[0]).artefacts.early_seasons / "05"
    (row,) = (row for row in record_of(done[0])["steps"] if row["step"] == 5)
    for number, name in enumerate(("north", "south")):
        counts = np.zeros((3, 3), np.int64)
        for zone in range(number, N_ZONES - 1, 2):
            labels, probabilities, _ = read_out_of_fold([Workspace(early).out_of_fold("forest", f"z{zone}")])
            np.add.at(counts, (labels, probabilities.argmax(1)), 1)
        assert row["regions"][name]["val_macro_f1"] == score(counts).as_metrics("val")["val_macro_f1"]


def test_an_interrupted_sweep_goes_on_and_the_whole_season_is_the_job_s_own(done, monkeypatch, capsys):
    config, searched = done
    assert searched == [5, 7, 8, None, None]
    before = record_of(config)
    monkeypatch.setattr(season, "run_stages", lambda stages, *_: searched.extend(set(stages) - {"dataset"}))
    assert main(["season", str(config), "--steps", "12,8,5,7", "--reliable", "0.8"]) == 0
    said = capsys.readouterr().out
    assert said.count("finished before") == 4
    assert (record_of(config), len(searched)) == (before, 5)
    assert "oof_rows" not in said
    assert main(["season", str(config), "--steps", "5,7,8,12", "--reliable", "0.8", "--set", "search.oof_rows=0"]) == 0
    assert capsys.readouterr().out.count("search.oof_rows is 0") == 1
    assert (record_of(config)["oof_rows"], len(searched)) == (500, 5)
    assert [line.split()[-1] for line in said.splitlines() if line.startswith("  oats")] == ["8"]


def test_a_step_s_models_say_what_they_saw(done):
    job = load_settings(JobConfig, done[0])
    cards = [json.loads(path.read_text()) for path in job.artefacts.root.glob("search/forest/*/card.json")]
    assert sorted(str(card.get("until_step")) for card in cards) == ["5", "5", "7", "7", "8", "8", "None", "None"]


def test_steps_that_are_tried():
    assert steps_of(12, ()) == (4, 6, 8, 10, 12)
    assert steps_of(24, ())[:2] + steps_of(24, ())[-1:] == (8, 10, 24)
    assert steps_of(3, ()) == (1, 3)
    assert steps_of(12, (9, 3, 9)) == (3, 9)
    for n_steps, asked in ((12, (0,)), (12, (13,)), (1, ())):
        with pytest.raises(ConfigError, match="the cube has"):
            steps_of(n_steps, asked)


def test_a_crop_that_falls_back_is_reliable_after_that():
    lows = {4: 0.7, 6: 0.5, 8: 0.61, 12: 0.9}
    rows = [{"step": step, "classes": {"a": {"low": low}, "b": {}}} for step, low in lows.items()]
    assert reliable_from(rows, 0.6) == {"a": 8, "b": None}
    assert reliable_from(rows, 0.95) == {"a": None, "b": None}


def test_what_a_step_lacks_is_said_and_the_months_before_all_work(done, monkeypatch, capsys):
    config = done[0]
    job = load_settings(JobConfig, config)
    path = job.artefacts.early_seasons / "07" / "search" / "forest.json"
    assert path == Workspace(job.artefacts.early_seasons / "07").search_result("forest")
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "left_out": ["trial 3 fold 1"], "not_proposed": 2}))
    (job.artefacts.early_seasons / "07" / "forest.json").unlink()
    manifest = replace(
        load_manifest(job.artefacts.manifest), notes=("31 points were closer than 90 m and are left out",)
    )
    monkeypatch.setattr(season, "run_stages", lambda *_: print("work begins"))
    monkeypatch.setattr(season, "load_manifest", lambda _: manifest)
    assert main(["season", str(config), "--steps", "7,8", "--set", "season_start=2021-10"]) == 0
    said = capsys.readouterr().out
    path.write_text(before)
    (job.artefacts.early_seasons / "07" / "forest.json").unlink()
    head, _ = said.split("work begins", 1)
    assert "_01 2021-10, _02 2021-11, _03 2021-12, _04 2022-01" in head.replace("\n", " ")
    assert "rename them so that _01 is its first month" in head.replace("\n", " ")
    assert "until month 7 is not whole: 3 of its fits were not made (trial 3 fold 1, not proposed" in said
    assert "until month 8" not in said.split("Reliable", 1)[1]
    assert "Of the dataset: 31 points were closer than 90 m and are left out." in said
    assert json.loads((job.artefacts.early_seasons / "forest.json").read_text())["notes"] == list(manifest.notes)


def test_what_cannot_be_tried_is_said(done, capsys):
    assert main(["season", str(done[0]), "--set", "until_step=4"]) == 1
    assert "give the steps by --steps" in capsys.readouterr().err
    assert main(["search", str(done[0]), "--set", "until_step=13"]) == 1
    assert "until_step = 13, and the cube has 12 steps" in capsys.readouterr().err
