"""`dataset` on a table of points: what is refused, left out, counted and told."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.config import JobConfig
from cropray.core.errors import LeakageError
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_manifest, statistics
from cropray.datasets.storage import read_pixels
from cropray.stages import dataset
from tests.study import FEATURE_COLUMNS

LEVEL, NEAR_LEVEL = 1000, 7000  # digital numbers of the points, and of those beside the test zone


def run(folder, **settings):
    """Manifest, output and workspace of four zones of 20 points; 3 of the last training zone are 40 m from the test zone."""
    zones = [zone for zone in ("k1", "k2", "k3", "t1") for _ in range(20)]
    lon = np.array([10.0 + 0.2 * ["k1", "k2", "k3", "t1"].index(zone) for zone in zones]) + np.tile(
        np.arange(20) / 500, 4
    )
    is_near = np.isin(np.arange(80), [57, 58, 59])
    lon[57:60] = lon[60:63] - 40 / 78_850  # m per degree of longitude at 45°
    level = np.where(is_near, NEAR_LEVEL, LEVEL).astype(np.uint16)
    label = ["hops" if near else ("wheat", "maize")[i % 2] for i, near in enumerate(is_near)]
    columns = {
        "zone_id": zones, "region": ["south"] * 80, "split": ["test" if z == "t1" else "train" for z in zones],
        "label": label, "lon": lon, "lat": np.full(80, 45.0), **dict.fromkeys(FEATURE_COLUMNS, level), "field": zones,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    if not (folder / "points.parquet").exists():
        pq.write_table(pa.table(columns), folder / "points.parquet")
    job = JobConfig.model_validate(
        {
            "name": "small", "workspace": str(folder / "work"), "points": {"path": str(folder / "points.parquet")},
            "search": {"models": ["xgboost"]}, "dataset": {"n_folds": 3, **settings},
        }
    )  # fmt: skip
    said = io.StringIO()
    dataset.run(job, Progress(said))
    return load_manifest(job.artefacts.manifest), said.getvalue(), job.artefacts


def test_points_beside_the_test_zone_are_refused_by_default_and_nothing_is_written(tmp_path):
    with pytest.raises(
        LeakageError, match=r"3 points in 1 zones .* 'k3' \(fold \d\) .* 't1' \(the test split\), 40\.0"
    ):
        run(tmp_path)
    assert not (tmp_path / "work" / "dataset").exists()


def test_points_beside_the_test_zone_leave_rows_counts_classes_and_statistics(tmp_path):
    manifest, said, workspace = run(tmp_path, on_overlap="trim")
    assert {zone.zone_id: zone.n_trimmed for zone in manifest.zones} == {"k1": 0, "k2": 0, "k3": 3, "t1": 0}
    assert {zone.zone_id: zone.n_labelled for zone in manifest.zones} == {"k1": 20, "k2": 20, "k3": 17, "t1": 20}
    assert read_pixels(workspace, "k3").num_rows == 17
    mean, _ = statistics(manifest.band_sums(["k1", "k2", "k3"]))
    np.testing.assert_array_equal(mean, LEVEL)
    assert [crop.name for crop in manifest.classes] == ["maize", "wheat"]
    trimmed, lost, unused, nearest = manifest.notes
    assert trimmed == "labels dropped at borders of splits (points): k3 3"
    assert lost == "classes that lost all labels at borders of splits: hops"
    assert unused == "columns of the points table that are not used (1): field"
    assert nearest.startswith("3 points were closer than 500 m")
    assert all(f"note: {note}" in said for note in manifest.notes)


def test_another_buffer_makes_the_dataset_again(tmp_path):
    run(tmp_path, on_overlap="trim")
    assert "up to date" in run(tmp_path, on_overlap="trim")[1]
    manifest, said, _ = run(tmp_path, on_overlap="trim", buffer_m=30)
    assert "up to date" not in said
    assert all(zone.n_trimmed == 0 for zone in manifest.zones)
    assert "up to date" in run(tmp_path, on_overlap="trim", buffer_m=30, tile_size=64)[1]  # points have no tiles
