"""`evaluate` without Ray: what it writes, and what it tells."""

import json

import numpy as np
import pytest

from cropray.core.errors import AccountingError
from cropray.core.intervals import bootstrap_intervals
from cropray.core.metrics import score
from cropray.core.progress import Progress
from cropray.datasets.build import ZoneJob, build_zone
from cropray.datasets.manifest import Manifest
from cropray.datasets.separation import Trim
from cropray.evaluation.results import ModelResult
from cropray.io.storage import write_json
from cropray.report.detail_pictures import in_words
from cropray.stages import evaluate
from tests import synthetic
from tests.drawn_dataset import drawn_job
from tests.maps.builders import CLASSES, LEGEND, draw_image, field_labels, ruled, save_trees

REGIONS = ("north", "north", "south", "north", "south")


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """(job, manifest of five test zones); zones are counted in this process."""
    job, entries = drawn_job(tmp_path), []
    workspace = job.artefacts
    for number, region in enumerate(REGIONS):
        zone = synthetic.zone(f"z-{number}", "test", region, size=40)
        composite, n_obs, fields = draw_image(40, 40, seed=number)
        composite[:, :, 20, 20 : 20 + number] = 0
        arrays = synthetic.ZoneArrays(composite, n_obs > 0, field_labels(fields), np.zeros((40, 40), np.int32))
        synthetic.write_artefacts(workspace, zone, arrays, ["p"])
        entries.append(build_zone(ZoneJob(zone, None, 16, LEGEND.names, Trim(), workspace)))
    manifest = Manifest("drawn", "parcels", CLASSES, LEGEND.hash(), 16, 2, tuple(entries))
    save_trees(workspace.model("xgboost"))
    workspace.folds.write_text("zone_id,region,split,fold\n")
    write_json(workspace.search_result("xgboost"), {"units": []})
    monkeypatch.setattr(evaluate, "task_bytes", lambda: 3e9)
    monkeypatch.setattr(evaluate, "run_zone_tasks", lambda _stage, tasks, *_, **__: [task.run() for task in tasks])
    return job, manifest


def count(job, manifest):
    return evaluate._count_zones(job, "xgboost", manifest, Progress())


def test_scores_hold_regions_intervals_and_blank_pixels(counted, tmp_path, capsys):
    job, manifest = counted
    counts = count(job, manifest)
    told = capsys.readouterr().out
    assert "the model reads up to 40 × 40 pixels at once: 0.7 GB" in told
    assert "10 labelled test pixels have no data in any month" in told
    (tmp_path / "scores").mkdir()
    evaluate._write(tmp_path / "scores", job, "xgboost", manifest, counts)
    found = json.loads((tmp_path / "scores" / "scores.json").read_text())
    cube = np.load(tmp_path / "scores" / "cube.npy")
    assert {key: tuple(ends) for key, ends in found["intervals"].items()} == bootstrap_intervals(cube, job.seed)
    assert (found["no_intervals"], found["seed"]) == ("", job.seed)
    assert found["regions"]["south"] == score(cube[[2, 4]].sum(0)).as_metrics("test")
    assert found["blank_pixels"] == {f"z-{number}": number for number in range(1, 5)}
    with np.load(tmp_path / "scores" / "cubes.npz") as cubes:
        np.testing.assert_array_equal(cubes["parcel_sizes"].sum(0), cube)
        np.testing.assert_array_equal(cubes["clear_steps"].sum(0), cube)
        parcels = cubes["parcels_majority"].sum(0)
    assert found["detail"]["parcels"]["majority"]["metrics"] == score(parcels.sum(0)).as_metrics("test")
    worst = found["detail"]["zones"]["macro_f1"]
    assert found["zones"][worst["worst_zone"]]["test_macro_f1"] == worst["worst"]


def test_what_the_model_s_own_threshold_is_worth_in_the_test_is_told(counted, tmp_path):
    job, manifest = counted
    fall_back = {"below_percent": 63, "groups": [0, 0, 1, 1, 1], "names": ["a", "b"]}
    ruled(job.artefacts.model("xgboost"), {"fall_back": fall_back})
    (tmp_path / "scores").mkdir()
    evaluate._write(tmp_path / "scores", job, "xgboost", manifest, count(job, manifest))
    detail = json.loads((tmp_path / "scores" / "scores.json").read_text())["detail"]
    with np.load(tmp_path / "scores" / "cubes.npz") as cubes:
        sure, unsure = (part.sum(0) for part in np.split(cubes["confidence"].sum(0), [63])[::-1])
    used = detail["fall_back"]["used"]
    assert used["threshold_percent"] == 63
    assert used["share_of_class"] == sure[0] / (sure[0] + unsure[0])
    assert used["accuracy_of_class"] == (sure[1] / sure[0] if sure[0] else None)
    assert used["accuracy_of_group"] == (unsure[2] / unsure[0] if unsure[0] else None)
    told = in_words(ModelResult("xgboost", "trees", (), {}, (), np.zeros((1, 5, 5)), None, {}, detail=detail))
    assert f"{used['share_of_class']:.1%} of pixels keep their class from 63 % of confidence on" in told


def test_a_test_of_few_zones_says_why_it_has_no_intervals(counted, tmp_path):
    job, manifest = counted
    few = Manifest("drawn", "parcels", CLASSES, LEGEND.hash(), 16, 2, manifest.zones[:3])
    (tmp_path / "scores").mkdir()
    evaluate._write(tmp_path / "scores", job, "xgboost", few, count(job, few))
    found = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert (found["intervals"], found["no_intervals"]) == (None, "3 test zones, an interval needs 5 or more")


def test_a_labelled_pixel_that_is_not_counted_is_an_error(counted, tmp_path):
    job, manifest = counted
    counts = count(job, manifest)
    counts[1][1].matrix[0, 0] -= 1
    with pytest.raises(AccountingError, match="z-1: counted"):
        evaluate._write(tmp_path, job, "xgboost", manifest, counts)


def test_other_areas_of_parcels_make_counts_and_scores_again(counted):
    job, manifest = counted
    keys = [task.inputs.digest for task in evaluate._tasks(job, "xgboost", manifest)]
    scores = evaluate._scores_of(job, "xgboost", manifest).inputs.digest
    job.artefacts.parcels("z-2").write_text("another table")
    after = [task.inputs.digest for task in evaluate._tasks(job, "xgboost", manifest)]
    assert [number for number in range(5) if keys[number] != after[number]] == [2]
    assert evaluate._scores_of(job, "xgboost", manifest).inputs.digest != scores


def test_more_trials_and_a_lost_cube_make_scores_again(counted):
    """Curves are drawn of all configurations, also where another one wins nothing."""
    job, manifest = counted
    made = evaluate._scores_of(job, "xgboost", manifest)
    for path in made.outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    made.mark()
    assert made.why_stale() == []
    write_json(job.artefacts.search_result("xgboost"), {"units": ["one more"]})
    assert "configurations of the search changed" in evaluate._scores_of(job, "xgboost", manifest).why_stale()
    (cube,) = (path for path in made.outputs if path.name == "cube.npy")
    cube.unlink()
    assert made.why_stale() == [f"'{cube}' is missing"]
