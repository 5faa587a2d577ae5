"""`cropray why`: the verdict of the stages, told without making anything."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml

from cropray.cli import main
from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.stages import pipeline
from tests.jobs import write_job
from tests.study import FEATURE_COLUMNS


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def lines(capsys, *arguments):
    capsys.readouterr()
    assert main(["why", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def points(tmp_path):
    """The job file of four zones of labelled points."""
    zones = np.repeat(["k1", "k2", "k3", "t1"], 20)
    columns = {
        "zone_id": zones, "region": ["south"] * 80, "split": np.where(zones == "t1", "test", "train"),
        "label": np.tile(["oats", "rye"], 40), "lon": np.repeat([4.0, 4.4, 4.8, 5.2], 20) + np.tile(np.arange(20) / 900, 4),
        "lat": np.full(80, 47.0), **{name: np.arange(80, dtype=np.uint16) + 300 for name in FEATURE_COLUMNS},
    }  # fmt: skip
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), tmp_path / "points.parquet")
    content = {
        "name": "points", "workspace": str(tmp_path / "work"), "points": {"path": str(tmp_path / "points.parquet")},
        "search": {"models": ["xgboost"]}, "dataset": {"n_folds": 3},
    }  # fmt: skip
    return write_job(content, tmp_path)


def test_nothing_is_there_and_nothing_is_made(points, tmp_path, capsys):
    first, *others = lines(capsys, points)
    assert first.split() == ["dataset", "missing"]
    assert [line.split()[0] for line in others] == ["search", "evaluate", "report", "Stages"]
    assert "cannot be told" in others[0]
    assert "run `cropray dataset CONFIG.yaml` first" in others[0]
    assert not (tmp_path / "work").exists()


def test_the_verdict_is_the_stages_own(points, tmp_path, capsys):
    assert main(["dataset", str(points)]) == 0
    assert lines(capsys, points)[0].split(maxsplit=1) == ["dataset", "up to date"]
    before = files(tmp_path)
    changed = ["--set", "dataset.buffer_m=700", "--set", "dataset.on_overlap=trim"]
    told = "setting dataset.buffer_m was 500.0, is 700.0"
    assert lines(capsys, points, *changed)[0].split(maxsplit=1) == ["dataset", f"{told}, and 1 more"]
    assert lines(capsys, points, "dataset", *changed) == [
        "dataset: 2 differences", f"  {told}", "  setting dataset.on_overlap was refuse, is trim"
    ]  # fmt: skip
    assert files(tmp_path) == before
    capsys.readouterr()
    assert main(["dataset", str(points), *changed]) == 0
    assert f"dataset is made again: {told}, and 1 more" in capsys.readouterr().out
    assert lines(capsys, points, "dataset", *changed) == ["dataset: up to date"]


def test_an_artefact_by_its_path(points, tmp_path, capsys, monkeypatch):
    assert main(["dataset", str(points)]) == 0
    monkeypatch.chdir(tmp_path)
    for path in ("dataset/manifest.json", "work/dataset/manifest.json", tmp_path / "work" / "dataset" / "folds.csv"):
        assert lines(capsys, points, path) == ["dataset: up to date"]
    (tmp_path / "points.parquet").touch()
    assert lines(capsys, points, "dataset/manifest.json") == ["dataset: points changed"]


@pytest.mark.parametrize("wanted", ["datasets", "dataset/t9", "elsewhere/manifest.json", "acquire"])
def test_what_is_not_there_is_refused_with_what_can_be_given(points, capsys, wanted):
    assert main(["dataset", str(points)]) == 0
    assert main(["why", str(points), wanted]) == 1
    assert f"is called '{wanted}'; give a stage (dataset, search, evaluate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "is_known", "told"),
    [
        ("models/xgboost", False, ["search cannot be told: '{work}/dataset/manifest.json' does not exist"]),
        ("{work}", True, ["search cannot be told: ", "evaluate cannot be told: ", "report cannot be told: "]),
        ("search/xgboost", True, ["search/xgboost: cannot be told: "]),
    ],
)
def test_stages_that_cannot_be_asked_are_named_where_a_path_may_be_theirs(
    points, tmp_path, capsys, wanted, is_known, told
):
    work = tmp_path / "work"
    capsys.readouterr()
    assert main(["why", str(points), wanted.format(work=work)]) == (0 if is_known else 1)
    said = "".join(capsys.readouterr())
    for words in told:
        assert words.format(work=work) in said


def test_a_stamp_of_an_earlier_version(points, tmp_path, capsys):
    assert main(["dataset", str(points)]) == 0
    write_json(Workspace(tmp_path / "work").stamp("dataset", "all"), {"inputs": "0" * 64})
    assert "earlier version" in lines(capsys, points)[0]


STAGES = ["zones", "acquire", "labels", "dataset", "search/xgboost", "search/xgboost/oof", "search/cnn", "search/cnn/oof", "evaluate/xgboost", "evaluate/cnn",
          "map/xgboost", "map/cnn", "report", "report/overviews"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.ray
def test_a_whole_job(finished, tmp_path, capsys, monkeypatch):
    content = yaml.safe_load(finished.read_text())
    shutil.copytree(content["workspace"], tmp_path / "work")
    config = write_job(content | {"workspace": str(tmp_path / "work")}, tmp_path)
    workspace = Workspace(tmp_path / "work")
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray is started"))

    def of_each(*arguments):
        return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines(capsys, config, *arguments)}

    before = files(workspace.root)
    assert of_each() == dict.fromkeys(STAGES, "up to date")
    told = of_each("--set", "map.window_px=64", "--set", "cnn.dropout=0.25", "--set", "report.film_px=300")
    assert {stage for stage, verdict in told.items() if verdict == "up to date"} == {
        "zones", "acquire", "labels", "dataset", "search/xgboost"
    }  # fmt: skip
    assert told["search/cnn"] == "setting cnn.dropout was 0.3, is 0.25"
    assert told["evaluate/cnn"] == "setting map.window_px was None, is 64"
    assert told["map/xgboost"] == "2 of 2 zones: setting map.window_px was None, is 64"
    assert told["report"].endswith("setting report.film_px was 256, is 300")
    told = of_each("--set", "search.objective=val_loss", "--set", "search.xgboost.learning_rate=[0.3,0.1]")
    assert "search.objective was val_macro_f1, is val_loss" in told["search/cnn"]
    assert "3 fits are to be made" in lines(
        capsys, config, "search/xgboost", "--set", "search.xgboost.learning_rate=[0.3,0.1]"
    )[0]  # fmt: skip
    zone_id = min(path.stem for path in workspace.labels("x").parent.glob("*-1.tif"))
    assert lines(capsys, config, f"dataset/{zone_id}") == [f"dataset/{zone_id}: up to date"]
    assert lines(capsys, config, f"composites/{zone_id}.tif") == [f"acquire/{zone_id}: up to date"]
    assert files(workspace.root) == before

    workspace.labels(zone_id).write_bytes(workspace.labels(zone_id).read_bytes() + b" ")
    workspace.n_obs(zone_id).unlink()
    told = of_each()
    assert told["acquire"].startswith("1 of 6 zones: '")
    assert told["acquire"].endswith(f"{zone_id}.nobs.tif' is missing")
    assert told["dataset"] == f"labels of zone {zone_id} changed, and 1 more"
    assert told["Stages"].startswith("after `acquire`")
    assert lines(capsys, config, f"dataset/{zone_id}")[1:] == [
        "  labels changed",
        "  observation counts: no longer there",
    ]


def test_why_asks_every_stage():
    assert {stage.partition("/")[0] for stage in STAGES} == set(pipeline.PIPELINE)
