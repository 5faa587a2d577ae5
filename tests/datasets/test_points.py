"""A user's table of labelled points: what is accepted, what is written, what is refused."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.core.errors import InputError, LeakageError
from cropray.datasets.points import (
    points_doubts,
    points_entries,
    points_folds,
    points_legend,
    read_points,
    write_points,
)
from cropray.datasets.schema import pixel_schema
from cropray.io.workspace import Workspace
from tests.study import FEATURE_COLUMNS

ZONES = {"a-1": ("a", "train"), "a-2": ("a", "train"), "b-1": ("b", "train"), "b-2": ("b", "test")}
N_PER_ZONE = 5


def _table(**changes: object) -> pa.Table:
    rng = np.random.default_rng(1)
    zone_id = [zone for _ in range(N_PER_ZONE) for zone in ZONES]  # zones interleaved: rows must be collected
    n = len(zone_id)
    columns = {
        "zone_id": zone_id,
        "region": [ZONES[zone][0] for zone in zone_id],
        "split": [ZONES[zone][1] for zone in zone_id],
        "label": ["wheat" if i % 3 else "maize" for i in range(n)],
        "lon": np.linspace(2, 3, n),
        "lat": np.linspace(48, 49, n),
        **{name: rng.integers(1, 9000, n).astype(np.uint16) for name in FEATURE_COLUMNS},
    }
    return pa.table({name: value for name, value in {**columns, **changes}.items() if value is not None})


def _write(path: Path, **changes: object) -> Path:
    pq.write_table(_table(**changes), path)
    return path


def test_points_become_pixel_tables(tmp_path: Path) -> None:
    features = {f"{band}_07": np.zeros(20, np.uint16) for band in ("B02", "B03", "B04", "B08")}
    table = read_points(_write(tmp_path / "points.parquet", B02_01=np.zeros(20, np.uint16), **features))
    legend, workspace = points_legend(table), Workspace(tmp_path / "work")
    write_points(table, workspace, legend)

    assert legend.names == ("maize", "wheat")
    source = table.to_pylist()
    for zone_id, (region, _) in ZONES.items():
        rows = pq.read_table(workspace.pixels(zone_id) / "part-0.parquet", partitioning=None)
        assert rows.schema.equals(pixel_schema())
        expected = [row for row in source if row["zone_id"] == zone_id]
        assert rows["region"].to_pylist() == [region] * N_PER_ZONE
        assert [legend.names[i] for i in rows["label"].to_pylist()] == [row["label"] for row in expected]
        assert rows["B08_12"].to_pylist() == [row["B08_12"] for row in expected]
        # July has no band at all; January lacks one band of four and still counts: 12 − 1.
        assert rows["n_clear"].to_pylist() == [11] * N_PER_ZONE
        assert set(rows["parcel"].to_pylist()) == set(rows["row"].to_pylist()) == {-1}


def test_entries_count_every_point_once(tmp_path: Path) -> None:
    table = read_points(_write(tmp_path / "points.parquet"))
    legend, workspace = points_legend(table), Workspace(tmp_path / "work")
    write_points(table, workspace, legend)
    entries = points_entries(table, workspace, points_folds(table, 3), {"a-1": 7})

    assert [entry.zone_id for entry in entries] == list(ZONES)
    assert [entry.split for entry in entries] == [split for _, split in ZONES.values()]
    assert sorted(entry.fold for entry in entries if entry.fold is not None) == [0, 1, 2]
    assert sum(entry.n_labelled for entry in entries) == table.num_rows
    assert [entry.n_trimmed for entry in entries] == [7, 0, 0, 0]
    b02 = np.stack([table[f"B02_{month:02d}"].to_numpy() for month in range(1, 13)]).astype(float)
    assert sum(entry.sums.total[0] for entry in entries) == pytest.approx(b02.sum())
    assert sum(entry.sums.count[0] for entry in entries) == b02.size
    assert all(list(entry.files) == [f"pixels/zone_id={entry.zone_id}/part-0.parquet"] for entry in entries)


def test_integer_labels_and_wide_integers_are_taken(tmp_path: Path) -> None:
    labels, wide = list(range(20)), np.arange(20, dtype=np.int64)
    table = read_points(_write(tmp_path / "points.parquet", label=labels, B02_01=wide))
    assert table["B02_01"].type == pa.uint16()
    assert points_legend(table).names[:3] == ("0", "1", "10")


N = len(ZONES) * N_PER_ZONE
REFUSED = {
    "a missing column": ({"B04_05": None}, "lacks the columns \\['B04_05'\\]"),
    "reflectance as fractions": ({"B02_01": np.full(N, 0.2)}, "'B02_01' is double"),
    "negative digital numbers": ({"B02_01": np.full(N, -1)}, "'B02_01' must hold whole digital numbers 0–65535"),
    "empty values": ({"label": [None, *["wheat"] * (N - 1)]}, "'label' has 1 empty values"),
    "a label of no letters": ({"label": ["", *["wheat"] * (N - 1)]}, "'label' has 1 empty values, written as ''"),
    "blank labels": ({"label": ["\u3000 ", "\t", *["wheat"] * (N - 2)]}, "'label' has 2 empty values"),
    "no number as label": ({"label": [np.nan, np.nan, *[1.0] * (N - 2)]}, "2 empty values, written as 'nan'"),
    "a missing value as text": ({"label": ["<NA>", *["wheat"] * (N - 1)]}, "written as '<NA>'"),
    "a region without name": ({"region": [" "] * N}, "'region' has 20 empty values"),
    "a zone without name": ({"zone_id": ["None", *["a"] * (N - 1)]}, "'zone_id' has 1 empty values"),
    "a text as longitude": ({"lon": ["west"] * N}, "'lon' is string"),
    "metres as longitude": ({"lon": np.full(N, 652_000.0)}, "lon is 652000.0, not within ±180°"),
    "no number as latitude": ({"lat": np.full(N, np.nan)}, "lat is nan"),
    "an unknown split": ({"split": ["val"] * N}, "splits \\['val'\\]"),
    "no test zone": ({"split": ["train"] * N}, "no test zone"),
    "no training zone": ({"split": ["test"] * N}, "no train zone"),
    "a zone id that climbs out": ({"zone_id": ["../a"] * N}, "zone ids \\['../a'\\]"),
    "a zone in two regions": ({"region": [str(i) for i in range(N)]}, "4 zones have more than one region"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_unusable_tables_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_points(_write(tmp_path / "points.parquet", **changes))


def test_a_zone_in_two_splits_is_a_leak(tmp_path: Path) -> None:
    split = ["test" if i == 0 else ZONES[zone][1] for i, zone in enumerate([*ZONES] * N_PER_ZONE)]
    with pytest.raises(LeakageError, match="zone 'a-1' has \\['test', 'train'\\]"):
        read_points(_write(tmp_path / "points.parquet", split=split))


def _doubts(path: Path, **changes: object) -> list[str]:
    return points_doubts(read_points(_write(path, **changes)), path)


def test_a_table_without_oddities_raises_no_doubts(tmp_path: Path) -> None:
    assert _doubts(tmp_path / "points.parquet") == []


def test_columns_without_use_are_named(tmp_path: Path) -> None:
    more = {"weights": np.ones(N), "B11_03": np.ones(N, np.uint16), "surveyor": ["x"] * N}
    (doubt,) = _doubts(tmp_path / "points.parquet", **more)
    assert doubt == "columns of the points table that are not used (3): B11_03, surveyor, weights"


def test_many_columns_without_use_are_counted(tmp_path: Path) -> None:
    (doubt,) = _doubts(tmp_path / "points.parquet", **{f"x{i:02d}": np.ones(N) for i in range(25)})
    assert doubt.startswith("columns of the points table that are not used (25): x00, x01, ")
    assert doubt.endswith("x19 and 5 more")


def test_points_without_any_value_are_counted(tmp_path: Path) -> None:
    table = _table()
    is_empty = np.isin(np.arange(N), [2, 3, 6])  # zones b-1, b-2, b-1
    features = {name: np.where(is_empty, 0, table[name].to_numpy()).astype(np.uint16) for name in FEATURE_COLUMNS}
    features["B04_07"][6] = 1  # one value of one band is one
    table = read_points(_write(tmp_path / "points.parquet", **features))
    workspace = Workspace(tmp_path / "work")
    write_points(table, workspace, points_legend(table))
    entries = points_entries(table, workspace, points_folds(table, 3), {})
    assert {entry.zone_id: entry.n_empty for entry in entries} == {"a-1": 0, "a-2": 0, "b-1": 1, "b-2": 1}


def test_labels_that_look_alike_are_named(tmp_path: Path) -> None:
    (doubt,) = _doubts(tmp_path / "points.parquet", label=["wheat", "Wheat ", "maize", "rice"] * 5)
    assert doubt == "labels that differ in blanks or capitals only are different ones: 'Wheat ' = 'wheat'"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"label": ["bl\u00e9", "ble\u0301", "orge", "orge\u200b"] * 5},
            r"'ble\u0301' = 'bl\xe9', 'orge' = 'orge\u200b'",
        ),
        (
            {"region": ["a", "a", "B ", "B "] * 5, "zone_id": ["a-1", "a-2", "b-1", "B-1"] * 5},
            "zone ids .* 'B-1' = 'b-1'",
        ),
        (
            {"region": ["North", "north\u00a0", "b", "b"] * 5},
            "regions .* are different ones: 'North' = 'north",
        ),
        ({"B03_05": np.array([65_535, 65_535, *[700] * 18], np.uint16)}, "2 features are 65535, .* write 0"),
    ],
)
def test_other_names_that_look_alike_and_saturated_features_are_told(tmp_path: Path, changes, said) -> None:
    (doubt,) = _doubts(tmp_path / "points.parquet", **changes)
    assert re.search(said if ".*" in said else re.escape(said), doubt)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    table = _table()
    pq.write_table(table.append_column("lat", table["lon"]), tmp_path / "points.parquet")
    with pytest.raises(InputError, match=r"has the columns \['lat'\] more than once"):
        read_points(tmp_path / "points.parquet")


@pytest.mark.parametrize("largest", [1, 180, 255])
def test_features_of_8_bits_are_refused_by_type_and_told_by_value(tmp_path: Path, largest: int) -> None:
    features = {name: (np.arange(N) % (largest + 1)).astype(np.uint8) for name in FEATURE_COLUMNS}
    features["B08_07"] = np.full(N, largest, np.uint8)
    with pytest.raises(InputError, match="all features are of 8 bits"):
        read_points(_write(tmp_path / "points.parquet", **features))
    (doubt,) = _doubts(tmp_path / "points.parquet", **{**features, "B08_07": np.full(N, largest)})
    assert doubt.startswith(
        f"no feature is larger than {largest}, a reflectance of {largest / 100:.2f}%: land is brighter"
    )
    dark = np.zeros(N, np.uint8)  # a month without data may well be stored in bytes
    assert read_points(_write(tmp_path / "points.parquet", B02_01=dark)).num_rows == N


def test_missing_corrupt_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist; set points\.path"):
        read_points(tmp_path / "nowhere.parquet")
    whole = _write(tmp_path / "points.parquet")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_points(cut)
    damaged = bytearray(whole.read_bytes())
    damaged[200:600] = bytes(400)
    cut.write_bytes(damaged)
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_points(cut)
    pq.write_table(_table().slice(0, 0), cut)
    with pytest.raises(InputError, match="has no rows"):
        read_points(cut)


def test_too_many_classes_are_refused(tmp_path: Path) -> None:
    table = _table().select(["label"]).slice(0, 0)
    with pytest.raises(InputError, match="256 different labels"):
        points_legend(pa.table({"label": [f"c{i}" for i in range(256)]}, schema=table.schema))


def test_real_points_are_read(real_data: Path) -> None:
    table = read_points(real_data / "arkansas_points" / "points.parquet")
    assert table.num_rows == 9_960
    assert len(points_legend(table).classes) == 11
