"""Weights and static features of tables of points: what is stored, told and refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.config import JobConfig
from cropray.core.cube import CubeSpec, recorded_cube
from cropray.core.errors import InputError
from cropray.core.sensors import Band, known_band
from cropray.datasets.manifest import Manifest, load_manifest, save_manifest
from cropray.datasets.points import (
    PointsSettings,
    points_doubts,
    points_entries,
    points_folds,
    points_legend,
    read_points,
    write_points,
)
from cropray.datasets.schema import pixel_schema
from cropray.datasets.storage import read_pixels
from cropray.io.workspace import Workspace

N = 12
BARE = CubeSpec((known_band("B11"), known_band("B04")), "season", 6)
STATIC = [
    {"id": "elevation", "unit": "m", "scale": 1, "offset": -500},
    {"id": "slope_deg", "unit": "degree", "scale": 0.01},
]


def write(path, **more):
    zones = [f"z-{i % 4}" for i in range(N)]
    table = {
        "zone_id": zones, "region": zones, "split": ["test" if zone == "z-3" else "train" for zone in zones],
        "label": ["oats", "peas", "flax"] * 4, "lon": np.linspace(1, 2, N), "lat": np.linspace(44, 45, N),
        "B11_01": np.arange(2000, 2000 + N), "B04_01": np.arange(900, 900 + N), **more,
    }  # fmt: skip
    pq.write_table(pa.table(table), path)
    return path


def stored(table, cube, folder):
    """Rows of the table as the dataset has them, by zone, and the zones' entries."""
    workspace = Workspace(folder / "work")
    write_points(table, workspace, points_legend(table), cube)
    return workspace, points_entries(table, workspace, points_folds(table, 3), {}, cube)


def with_static(path):
    return PointsSettings(path=path, static=STATIC).of_cube(BARE)


def test_weights_come_back_from_the_dataset_as_they_were_given(tmp_path):
    weights = np.linspace(0.25, 40, N)
    table = read_points(write(tmp_path / "p.parquet", weight=weights), BARE)
    workspace, entries = stored(table, BARE, tmp_path)
    for zone in range(4):
        rows = pq.read_table(workspace.pixels(f"z-{zone}") / "part-0.parquet", partitioning=None)
        assert rows.schema.equals(pixel_schema(BARE).append(pa.field("weight", pa.float32(), nullable=False)))
        np.testing.assert_array_equal(rows["weight"].to_numpy(), weights[zone::4].astype(np.float32))
    assert read_pixels(workspace, "z-0", BARE).column_names[-1] == "B04_01"  # who scores does not see them
    assert [entry.n_labelled for entry in entries] == [3] * 4  # rows, not weights
    assert any(
        "by the column weight (0.25 to 40); validation and test count each once" in doubt
        for doubt in points_doubts(table, tmp_path / "p.parquet", BARE)
    )


def test_other_weights_are_other_training_content(tmp_path):
    found = []
    for number, weight in enumerate((None, np.ones(N), np.where(np.arange(N) == 5, 3, 1))):
        more = {} if weight is None else {"weight": weight}
        table = read_points(write(tmp_path / f"{number}.parquet", **more), BARE)
        _, entries = stored(table, BARE, tmp_path / str(number))
        manifest = Manifest("m", "points", points_legend(table).classes, "h", None, 3, tuple(entries), cube=BARE)
        found.append(manifest.training_fingerprint())
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ([1.0] * 7 + [float("nan")] + [2.0] * 4, r"'weight' has in row 7 the value nan, 1 such in all; .* write 1"),
        ([1, 2, 0, 0] * 3, r"row 2 the value 0, 6 such"),
        ([1.0] * 11 + [-0.5], r"row 11 the value -0\.5"),
        ([float("inf")] * N, r"row 0 the value inf"),
        ([1e-60] * N, r"row 0 the value 1e-60"),
        ([None, *[1] * 11], r"row 0 the value nan"),
        (["1.5"] * N, r"'weight' is string; it must hold numbers > 0"),
        ([True] * N, r"'weight' is bool"),
    ],
    ids=["nan", "zero", "negative", "infinite", "nothing", "empty", "text", "bool"],
)
def test_what_is_no_weight_is_refused(tmp_path, weight, said):
    with pytest.raises(InputError, match=said):
        read_points(write(tmp_path / "p.parquet", weight=weight), BARE)


def test_static_values_come_back_from_the_dataset(tmp_path):
    elevation = pa.array([-3, 0, None, 1200, *[350] * 8], pa.int32())
    slope = np.array([0.0, 0.004, 12.34, np.nan, *[5.0] * 8])
    path = write(tmp_path / "p.parquet", elevation=elevation, slope_deg=slope, aspect=np.ones(N))
    cube = with_static(path)
    table = read_points(path, cube)
    workspace, entries = stored(table, cube, tmp_path)
    numbers = np.stack([table[name].to_numpy() for name in ("elevation", "slope_deg")], 1)
    assert numbers[:4].tolist() == [[497, 0], [500, 1], [0, 1234], [1700, 0]]
    for zone in range(4):
        rows = read_pixels(workspace, f"z-{zone}", cube)
        assert rows.column_names[-4:] == ["B11_01", "B04_01", "elevation", "slope_deg"]
        np.testing.assert_array_equal(rows["elevation"].to_numpy(), numbers[zone::4, 0])
        assert rows["n_clear"].to_pylist() == [1, 1, 1]
    assert entries[0].sums.count == (3, 3)  # of the bands alone
    missing, unused = sorted(points_doubts(table, path, cube), key=lambda doubt: "unused" in doubt or "used" in doubt)
    assert missing.endswith("also those of 0): elevation 1, slope_deg 2")
    assert unused == "columns of the points table that are not used (1): aspect"


def test_a_point_without_any_band_is_empty_whatever_its_elevation(tmp_path):
    nothing = np.where(np.arange(N) == 4, 0, 1500)
    path = write(tmp_path / "p.parquet", B11_01=nothing, B04_01=nothing, elevation=np.ones(N), slope_deg=np.ones(N))
    table = read_points(path, with_static(path))
    _, entries = stored(table, with_static(path), tmp_path)
    assert [entry.n_empty for entry in entries] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"elevation": np.ones(N)}, r"lacks the columns \['slope_deg'\].*and elevation, slope_deg of points\.static"),
        ({"elevation": ["high"] * N, "slope_deg": np.ones(N)}, r"'elevation' is string; it must hold numbers, NaN"),
        (
            {"elevation": np.ones(N), "slope_deg": np.arange(N) - 1},
            r"'slope_deg' has in row 0 the value -1 .* can store 0\.01 to 655\.35 degree: .*or points\.static",
        ),
    ],
    ids=["missing", "text", "too low"],
)
def test_a_static_column_that_cannot_be_used_is_named(tmp_path, more, said):
    path = write(tmp_path / "p.parquet", **more)
    with pytest.raises(InputError, match=said):
        read_points(path, with_static(path))


def job(path, *static, **more):
    return JobConfig.model_validate(
        {
            "name": "m", "workspace": "w", "points": {"path": str(path), "static": list(static)},
            "search": {"models": ["forest"]}, **more,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "more", "said"),
    [
        (["B04_07"], {}, r"static features need ids that nothing else has, got \['B04_07'\] twice"),
        (["soil", "soil"], {}, r"got \['soil'\] twice"),
        (["weight"], {}, "'weight' is a column that every dataset has"),
        (["n_clear"], {}, "'n_clear' is a column that every dataset has"),
        (["ndvi_03"], {"forest": {"features": ["bands", "ndvi"]}}, r"columns \['ndvi_03'\] come twice"),
        (["soil kind"], {}, "String should match pattern"),
        (["soil"], {"search": {"models": ["forest", "temp_cnn"]}}, "temp_cnn read the series of the bands alone"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(tmp_path, ids, more, said):
    with pytest.raises(ValueError, match=said):
        job(tmp_path / "p.parquet", *({"id": name, "unit": "1", "scale": 1} for name in ids), **more)


def test_a_job_has_the_features_in_its_cube_and_records_keep_them(tmp_path):
    cube = job(tmp_path / "p.parquet", *STATIC).cube_spec
    assert cube.columns[-3:] == ("B08_12", "elevation", "slope_deg")
    assert cube.n_features == 50
    assert cube.static[0] == Band("elevation", "m", 1.0, -500.0)
    assert "static elevation (m = number × 1 + -500) slope_deg" in cube.describe()
    assert recorded_cube({"cube": json.loads(json.dumps(cube.to_record()))}) == cube
    bare = job(tmp_path / "p.parquet").cube_spec
    assert len({each.fingerprint() for each in (cube, bare, job(tmp_path / "p.parquet", STATIC[1]).cube_spec)}) == 3
    for each, weighted in ((cube, True), (bare, False)):
        manifest = Manifest("m", "points", (), "h", None, 3, (), cube=each, is_weighted=weighted)
        save_manifest(manifest, tmp_path / "manifest.json")
        assert load_manifest(tmp_path / "manifest.json") == manifest
    record = json.loads((tmp_path / "manifest.json").read_text())
    assert "is_weighted" not in record
    assert set(record["cube"]) == {"bands", "step", "months"}
