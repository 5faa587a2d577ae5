"""Tables of points of any cube, as whole numbers and as values."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.core.cube import CubeSpec
from cropray.core.errors import InputError
from cropray.core.sensors import Band, known_band
from cropray.datasets.points import (
    PointsSettings,
    PointValues,
    points_doubts,
    points_entries,
    points_folds,
    points_legend,
    read_points,
    write_points,
)
from cropray.datasets.storage import read_pixels
from cropray.io.workspace import Workspace

RADAR = CubeSpec((known_band("VV"), known_band("B11"), Band("NDVI", "index", 1e-4, -1.0)), "season", 6)
HALVES = CubeSpec((known_band("B11"), known_band("B02")), "half-month", 12)
N = 12


def write(path, **features):
    zones = [f"z-{i % 4}" for i in range(N)]
    table = {
        "zone_id": zones, "region": zones, "split": ["test" if zone == "z-3" else "train" for zone in zones],
        "label": ["wheat", "maize", "rape"] * 4, "lon": np.linspace(1, 2, N), "lat": np.linspace(44, 45, N), **features,
    }  # fmt: skip
    pq.write_table(pa.table(table), path)
    return path


def test_columns_are_those_of_the_cube_and_come_back_from_the_dataset(tmp_path):
    rng = np.random.default_rng(1)
    numbers = {name: rng.integers(0, 3000, N).astype(np.uint16) for name in HALVES.columns}
    path = write(tmp_path / "p.parquet", **numbers, B02_25=np.ones(N, np.uint16))
    table = read_points(path, HALVES)
    assert table.column_names[-48:] == list(HALVES.columns)
    assert "columns of the points table that are not used (1): B02_25" in points_doubts(table, path, HALVES)
    workspace = Workspace(tmp_path / "work")
    write_points(table, workspace, points_legend(table), HALVES)
    rows = read_pixels(workspace, "z-1", HALVES)
    for name in HALVES.columns:
        np.testing.assert_array_equal(rows[name].to_numpy(), numbers[name][1::4])
    seen = sum((numbers[f"B11_{step:02d}"] > 0) | (numbers[f"B02_{step:02d}"] > 0) for step in range(1, 25))
    np.testing.assert_array_equal(rows["n_clear"].to_numpy(), seen[1::4])
    entries = points_entries(table, workspace, points_folds(table, 3), {}, HALVES)
    for position, band in enumerate(("B11", "B02")):
        of_band = np.stack([numbers[f"{band}_{step:02d}"] for step in range(1, 25)])
        assert sum(entry.sums.total[position] for entry in entries) == of_band.sum()
        assert sum(entry.sums.count[position] for entry in entries) == (of_band > 0).sum()


def test_a_table_of_another_cube_lacks_columns(tmp_path):
    path = write(tmp_path / "p.parquet", **{name: np.ones(N, np.uint16) for name in HALVES.columns[:-1]})
    with pytest.raises(InputError, match=r"lacks the columns \['B02_24'\].* B11_01 … B02_24, as 'cube' says"):
        read_points(path, HALVES)


def test_fractions_are_stored_by_the_affine_of_their_band(tmp_path):
    decibel = np.array([-25.0, -11.37, np.nan, 0.0, 3.0, *[-14.0] * 7], np.float32)
    index = pa.array([None, -0.999, 0.0, 0.8314, *[0.5] * 8], pa.float64())
    path = write(tmp_path / "p.parquet", VV_01=decibel, B11_01=np.arange(N), NDVI_01=index)
    table = read_points(path, RADAR)
    assert table["VV_01"].to_pylist()[:5] == [27_500, 34_315, 0, 40_000, 41_500]  # (dB + 80) / 0.002
    assert table["NDVI_01"].to_pylist()[:4] == [0, 10, 10_000, 18_314]
    assert table["B11_01"].to_pylist() == list(range(N))
    vv = table["VV_01"].to_numpy() * 0.002 - 80
    np.testing.assert_allclose(vv[[0, 1, 3, 4]], decibel[[0, 1, 3, 4]], atol=0.001)


def test_reflectance_as_fractions_needs_a_scale_that_says_so(tmp_path):
    b11 = [0.2531, 0.0, *[0.1] * 10]
    path = write(tmp_path / "p.parquet", VV_01=np.full(N, -12.0), B11_01=b11, NDVI_01=np.full(N, 0.5))
    with pytest.raises(InputError, match=r"'B11_01' is double; .*points\.scale .*: 1 where they are such values"):
        read_points(path, RADAR)
    table = read_points(path, RADAR, PointsSettings(path=path, scale=1).values)
    assert table["B11_01"].to_pylist()[:3] == [2531, 0, 1000]


def test_scale_and_offset_make_values_of_what_the_table_holds(tmp_path):
    only = CubeSpec((known_band("B11"),), "season", 3)
    path = write(tmp_path / "p.parquet", B11_01=[1500, 1000, *[3000] * 10])  # ESA's numbers with their offset
    table = read_points(path, only, PointValues(1e-4, -0.1))
    assert table["B11_01"].to_pylist()[:3] == [500, 1, 2000]  # no reflectance is dark, not missing


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("VV_01", 60.0, r"'VV_01' has in row 1 the value 60 .* 1 such in all; band VV can store -79\.998 to 51\.07 dB"),
        ("VV_01", -80.0, "row 1 the value -80"),  # its number would be 0, which is no data
        ("NDVI_01", -1.2, r"band NDVI can store -0\.9999 to"),
        ("NDVI_01", np.inf, "value inf"),
    ],
)
def test_a_value_that_cannot_be_stored_is_named(tmp_path, column, value, said):
    features = {"VV_01": np.full(N, -12.0), "B11_01": np.arange(N), "NDVI_01": np.full(N, 0.5)}
    features[column][1] = value
    with pytest.raises(InputError, match=said):
        read_points(write(tmp_path / "p.parquet", **features), RADAR)


def test_what_is_nearly_nothing_is_dark_and_only_a_plain_0_or_none_is_missing(tmp_path):
    only = CubeSpec((known_band("B11"),), "season", 3)
    path = write(tmp_path / "p.parquet", B11_01=[0.00004, 0.0, np.nan, -0.00003, *[0.3] * 8])
    assert read_points(path, only, PointValues(1.0, 0.0))["B11_01"].to_pylist()[:5] == [1, 0, 0, 1, 3000]


def test_an_offset_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="set 'scale' too"):
        PointsSettings(path=tmp_path / "p.parquet", offset=1)


def test_bytes_are_told_for_reflectance_only(tmp_path):
    own = CubeSpec((Band("class-share", "share", 0.01, 0.0),), "season", 1)
    path = write(tmp_path / "p.parquet", **{"class-share_01": np.arange(1, N + 1)})
    assert points_doubts(read_points(path, own), path, own) == []
