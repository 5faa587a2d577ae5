"""Leave-region-out through the stages: the fold table, what `dataset` refuses, and a search that scores new regions."""

import csv
import io
import json

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cropray.commands.plan.command import run_plan
from cropray.commands.plan.measure import sample_points
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, LeakageError
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_manifest, save_manifest
from cropray.io.workspace import Workspace
from cropray.io.zones import bundled_zones
from cropray.stages import dataset, search
from tests.drawn_dataset import drawn_job, write_dataset
from tests.jobs import write_job
from tests.study import FEATURE_COLUMNS
from tests.synthetic import entry, manifest

ZONES = {"e-1": "east, upper", "e-2": "east, upper", "w-1": "west", "w-2": "west", "t-1": "west"}


def points_job(folder, *, gap_m=5000, leave_region_out=False, **settings):
    """Five zones of 20 points; between `e-1` and `w-1`, which are in fold 0, so many metres."""
    zones = [zone for zone in ZONES for _ in range(20)]
    start = {"e-2": 0.0, "e-1": 20_000.0, "w-1": 22_000.0 + gap_m, "w-2": 60_000.0, "t-1": 90_000.0}
    north_m = [start[zone] + 100 * (i % 21) for i, zone in enumerate(zones)]
    columns = {
        "zone_id": zones, "region": [ZONES[zone] for zone in zones],
        "split": ["test" if zone == "t-1" else "train" for zone in zones],
        "label": [("wheat", "maize")[i % 2] for i in range(100)], "lon": np.full(100, 5.0),
        "lat": 45 + np.array(north_m) / 111_000,
        **dict.fromkeys(FEATURE_COLUMNS, np.arange(100, 200, dtype=np.uint16)),
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "points.parquet")
    return JobConfig.model_validate(
        {
            "name": "small", "workspace": str(folder / "work"), "points": {"path": str(folder / "points.parquet")},
            "dataset": {"n_folds": 2, "buffer_m": 300, **settings},
            "search": {"models": ["xgboost"], "leave_region_out": leave_region_out},
        }
    )  # fmt: skip


def test_the_fold_table_has_the_folds_of_both_protocols(tmp_path):
    job = points_job(tmp_path)
    dataset.run(job, Progress(io.StringIO()))
    manifest = load_manifest(job.artefacts.manifest)
    with job.artefacts.folds.open(newline="") as file:
        rows = {row["zone_id"]: row for row in csv.DictReader(file)}
    assert {zone: row["region"] for zone, row in rows.items()} == ZONES
    assert {zone: row["region_fold"] for zone, row in rows.items()} == {
        "e-1": "0", "e-2": "0", "w-1": "1", "w-2": "1", "t-1": "",
    }  # fmt: skip
    assert {zone.zone_id: zone.fold for zone in manifest.of_split("train")} == {
        zone: int(row["fold"]) for zone, row in rows.items() if row["fold"]
    }
    assert manifest.region_conflict == ""


def test_neighbours_of_two_regions_are_noted_refused_or_trimmed(tmp_path):
    near, said = {"gap_m": -80, "on_overlap": "trim"}, io.StringIO()
    job = points_job(tmp_path, **near)
    dataset.run(job, Progress(said))
    before = load_manifest(job.artefacts.manifest)
    assert "'w-1' (region west) and zone 'e-1' (region east, upper)" in before.region_conflict
    assert f"leave-region-out: {before.region_conflict}" in said.getvalue()
    assert [zone.n_trimmed for zone in before.zones] == [0] * 5
    with pytest.raises(LeakageError, match=r"leave-region-out: .*'w-1'"):
        search.run(points_job(tmp_path, **near, leave_region_out=True), Progress(io.StringIO()))
    dataset.run(points_job(tmp_path, **near, leave_region_out=True), Progress(io.StringIO()))
    after = load_manifest(job.artefacts.manifest)
    assert after.region_conflict == ""
    assert {zone.zone_id: zone.n_trimmed for zone in after.zones if zone.n_trimmed} == {
        "w-1": 3
    }  # 20, 120 and 220 m from the last of e-1
    assert [zone.fold for zone in after.zones] == [zone.fold for zone in before.zones]
    with pytest.raises(LeakageError, match=r"^leave-region-out.*'w-1' \(region west\)"):
        dataset.run(points_job(tmp_path, gap_m=-80, leave_region_out=True), Progress(io.StringIO()))


def test_one_region_is_refused_before_anything_starts(tmp_path):
    job = points_job(tmp_path, leave_region_out=True)
    table = pq.read_table(tmp_path / "points.parquet")
    same = table.set_column(table.column_names.index("region"), "region", [["west"] * len(table)])
    pq.write_table(same, tmp_path / "points.parquet")
    for stage in (dataset, search):
        with pytest.raises(ConfigError, match=r"at least two regions, there are \['west'\]"):
            stage.run(job, Progress(io.StringIO()))
        dataset.run(
            job.model_copy(update={"search": job.search.model_copy(update={"leave_region_out": False})}),
            Progress(io.StringIO()),
        )


def test_a_plan_of_one_region_is_refused_before_it_measures(tmp_path):
    first = bundled_zones()[0].region
    content = {
        "name": "small", "workspace": str(tmp_path / "work"), "imagery": {"folder": str(tmp_path)},
        "parcels": {"path": str(tmp_path / "none.gpkg")}, "search": {"leave_region_out": True},
        "zones": [zone.zone_id for zone in bundled_zones() if zone.region == first],
    }  # fmt: skip
    with pytest.raises(ConfigError, match=rf"at least two regions, there are \['{first}'\]"):
        run_plan(write_job(content, tmp_path), ())


def test_a_plan_of_points_of_one_region_is_refused(tmp_path):
    job = points_job(tmp_path, leave_region_out=True)
    path = job.points.path
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.equal(table["region"], "west")), path)
    with pytest.raises(ConfigError, match=r"at least two regions, there are \['west'\]"):
        sample_points(job, Workspace(tmp_path / "scratch"))
    pq.write_table(table, path)
    sample = sample_points(job, Workspace(tmp_path / "scratch"))
    assert [entry.zone_id for entry in sample.entries] == ["e-1", "e-2", "w-1", "w-2"]
    assert (sample.work.n_zones, sample.work.n_test, sample.work.n_regions) == (5, 1, 2)
    assert sample.work.train_rows + sample.work.test_rows == len(table)


def test_a_fold_of_unknown_classes_is_refused_before_anything_starts(tmp_path):
    job = points_job(tmp_path)
    zones = (entry("a", 0, {"wheat": 4}), entry("b", 1, {"maize": 6}))
    save_manifest(manifest(*zones, source="points"), job.artefacts.manifest)
    with pytest.raises(ConfigError, match=r"\['a'\] of fold 0 hold 4 labelled pixels, none of them of a class"):
        search.run(job, Progress(io.StringIO()))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_search_scores_new_regions_and_goes_on_where_it_was(tmp_path):
    plain = drawn_job(tmp_path)
    manifest = write_dataset(plain.artefacts, n_zones=4, size=64, regions=("east", "west"))
    plain.artefacts.folds.write_text("zone_id\n")
    search.run(plain, Progress(io.StringIO()))
    units = {path.parent.name for path in plain.workspace.glob("search/*/*/result.json")}
    assert "region_out" not in json.loads(plain.artefacts.search_result("cnn").read_text())
    job = drawn_job(tmp_path, search={**plain.search.model_dump(), "leave_region_out": True})
    said = io.StringIO()
    search.run(job, Progress(said))
    assert "no out-of-fold probabilities of 4 zones without composite (z-000, z-001, " in said.getvalue()
    more = {path.parent.name for path in plain.workspace.glob("search/*/*/result.json")} - units
    assert sorted(name.split("without=")[1].split("-")[0] for name in more) == ["east", "east", "west", "west"]
    client = mlflow.MlflowClient(f"sqlite:///{job.artefacts.mlflow_database}")
    runs = client.search_runs([client.get_experiment_by_name("drawn").experiment_id])
    for model in ("cnn", "xgboost"):
        result = json.loads(job.artefacts.search_result(model).read_text())
        metrics = result["region_out"]["metrics"]
        assert metrics["region_out_pixels"] == sum(zone.n_labelled for zone in manifest.zones)
        assert set(result["region_out"]["regions"]) == {"east", "west"}
        assert f"{model:<8} new regions (2): accuracy {metrics['region_out_accuracy']:.4f}" in said.getvalue()
        (run,) = [r for r in runs if r.data.tags["cropray.kind"] == "search" and r.data.tags["cropray.model"] == model]
        assert metrics.items() <= run.data.metrics.items()
    before = {path: path.stat().st_mtime_ns for path in plain.workspace.glob("search/*/*/result.json")}
    search.run(job, Progress(io.StringIO()))
    assert {path: path.stat().st_mtime_ns for path in plain.workspace.glob("search/*/*/result.json")} == before
