"""`leakage` tells what a split promises beyond new zones: much where neighbours are alike, nothing where they are not."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cropray.cli import main
from cropray.commands import leakage
from cropray.config import JobConfig
from cropray.core.intervals import MIN_ZONES
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_manifest
from cropray.io.job_file import load_settings
from cropray.io.storage import write_json
from cropray.stages import dataset
from tests.drawn_dataset import drawn_job, write_dataset
from tests.study import FEATURE_COLUMNS

N_ZONES, N_FIELDS, N_POINTS = 9, 5, 6  # points of a field
FOREST = {"n_estimators": 12, "max_features": 0.3}


def write_points(path, likeness, seed=0):
    """Zones 25 km apart with fields 3 km apart, whose points lie within 150 m.

    Each field has one crop and colours that have nothing to do with it; `likeness` is their share beside the noise of each point.
    """
    rng = np.random.default_rng(seed)
    zone, field, _ = (axis.ravel() for axis in np.indices((N_ZONES, N_FIELDS, N_POINTS)))
    n, field_of = len(zone), zone * N_FIELDS + field
    of_field = rng.standard_normal((N_ZONES * N_FIELDS, len(FEATURE_COLUMNS)))[field_of]
    alone = rng.standard_normal((n, len(FEATURE_COLUMNS)))
    crop = rng.integers(0, 3, N_ZONES * N_FIELDS)[field_of] if likeness else rng.integers(0, 3, n)
    numbers = 3000 + 500 * (likeness * of_field + (1 - likeness) * alone)
    columns = {
        "zone_id": [f"z{i}" for i in zone], "region": [f"r{i % 2}" for i in zone],
        "split": ["test" if i == N_ZONES - 1 else "train" for i in zone],
        "label": np.array(["barley", "beans", "beet"])[crop].tolist(),
        "lon": 2.0 + 0.32 * zone + rng.uniform(0, 0.001, n), "lat": 47.0 + 0.027 * field + rng.uniform(0, 0.001, n),
        **{name: numbers[:, i].astype(np.uint16) for i, name in enumerate(FEATURE_COLUMNS)},
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)


def imitate(stages, config, overrides):
    """The dataset as it is, and a search that has chosen what there was."""
    job = load_settings(JobConfig, config, overrides)
    if "dataset" in stages:
        dataset.run(job, Progress())
    for model in job.search.models:
        write_json(job.artefacts.search_result(model), {"best": FOREST, "refit_steps": FOREST["n_estimators"]})


def leakage_of(folder, likeness, monkeypatch, *arguments):
    write_points(folder / "points.parquet", likeness)
    content = {
        "name": "drawn", "workspace": str(folder / "work"), "points": {"path": str(folder / "points.parquet")},
        "dataset": {"n_folds": 3}, "search": {"models": ["forest"]}, "cluster": {"num_cpus": 2, "object_store_gb": 0.2},
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(leakage, "run_stages", imitate)
    assert main(["leakage", str(folder / "job.yaml"), *arguments]) == 0
    return json.loads((folder / "work" / "leakage" / "forest.json").read_text())


def test_neighbours_that_are_alike_promise_what_no_new_zone_holds(tmp_path, monkeypatch, capsys):
    found = leakage_of(tmp_path, 0.7, monkeypatch)
    assert list(found["ways"]) == ["random points", "random cells of 1000 m", "zones"]
    assert found["pixels"] == (N_ZONES - 1) * N_FIELDS * N_POINTS
    single, cell, zones = found["ways"].values()
    for key in ("macro_f1", "accuracy"):
        assert single[f"val_{key}"] > 0.9
        assert zones[f"val_{key}"] < 0.6
        assert single[f"tax_{key}"]["value"] == pytest.approx(single[f"val_{key}"] - zones[f"val_{key}"])
        assert single[f"tax_{key}"]["low"] > 0.2
        assert zones[f"tax_{key}"] == {"value": 0, "low": 0, "high": 0}
        assert cell[f"tax_{key}"]["low"] < 0 < cell[f"tax_{key}"]["high"]  # a cell holds the whole field
    said = capsys.readouterr().out
    assert f"forest: {found['pixels']} labelled samples of 8 training zones" in said
    assert f"tax {single['tax_macro_f1']['value']:+.4f} [" in said


def test_cells_that_are_smaller_than_fields_leak_as_single_points_do(tmp_path, monkeypatch):
    found = leakage_of(tmp_path, 0.7, monkeypatch, "--cell", "40")
    assert found["ways"]["random cells of 40 m"]["tax_accuracy"]["low"] > 0.2


def test_no_step_tells_that_the_search_does_not_see(tmp_path, monkeypatch):
    write_points(tmp_path / "points.parquet", 0.7)
    table, later = pq.read_table(tmp_path / "points.parquet"), [name for name in FEATURE_COLUMNS if name[-2:] > "03"]
    scores = []
    for change in (0, 1000):
        for name in later:
            column = pa.array(
                table[name].to_numpy() + np.uint16(change) * np.arange(len(table)).astype(np.uint16) % 9000
            )
            table = table.set_column(table.column_names.index(name), name, column)
        monkeypatch.setattr(f"{__name__}.write_points", lambda path, _, table=table: pq.write_table(table, path))
        folder = tmp_path / str(change)
        folder.mkdir()
        scores.append(leakage_of(folder, 0.7, monkeypatch, "--set", "until_step=3")["ways"])
    assert scores[0] == scores[1]


def test_noise_has_no_tax(tmp_path, monkeypatch, capsys):
    found = leakage_of(tmp_path, 0.0, monkeypatch, "--set", "search.oof_rows=0")
    assert "search.oof_rows is 0" in capsys.readouterr().out
    assert found["oof_rows"] == 500
    single, cell, _ = found["ways"].values()
    for way in (single, cell):
        for key in ("macro_f1", "accuracy"):
            assert way[f"tax_{key}"]["low"] < 0 < way[f"tax_{key}"]["high"]


def test_whole_groups_are_dealt_and_evenly():
    groups = np.random.default_rng(3).integers(0, 50, 400)
    folds = leakage.deal(groups, 4, seed=1)
    of_group = {group: set(folds[groups == group].tolist()) for group in np.unique(groups).tolist()}
    assert {len(found) for found in of_group.values()} == {1}
    sizes = np.bincount([fold for (fold,) in of_group.values()])
    assert sorted(sizes) == [12, 12, 13, 13]
    assert (leakage.deal(groups, 4, seed=2) != folds).any()


@pytest.mark.parametrize("lat", [0.0, 60.0, -33.0])
def test_cells_are_as_wide_as_high_in_metres(lat):
    """A grid of points every 100 m over 10 km gives as many cells of 2 km as there are, give or take those of the rim."""
    north, east = (axis.ravel() * 100.0 for axis in np.indices((100, 100)))
    found = leakage.cells(5 + east / (111_320 * np.cos(np.radians(lat))), lat + north / 111_320, 2000)
    assert 25 <= len(np.unique(found)) <= 48
    assert 380 <= np.bincount(found).max() <= 440


def test_too_few_cells_are_told(tmp_path, monkeypatch, capsys):
    with pytest.raises(AssertionError):
        leakage_of(tmp_path, 0.7, monkeypatch, "--cell", "1e7")
    assert (
        "3 folds need as many cells of 1e+07 m, the samples lie in 1: give a smaller --cell" in capsys.readouterr().err
    )


@pytest.mark.parametrize("cell", ["0", "-5", "inf"])
def test_a_cell_has_a_size(cell, capsys):
    with pytest.raises(SystemExit):
        main(["leakage", "job.yaml", f"--cell={cell}"])
    assert "is no length in m" in capsys.readouterr().err


def test_networks_are_scored_on_every_pixel_of_tiles_that_they_did_not_see(tmp_path):
    job = drawn_job(tmp_path, search={"models": ["cnn"]})
    manifest = write_dataset(job.artefacts, n_zones=MIN_ZONES, size=48)
    write_json(job.artefacts.search_result("cnn"), {"best": {}, "refit_steps": 1})
    drawn = leakage.draw_tiles(job, manifest)
    ways = leakage.ways(manifest, drawn, 1000, job.seed)
    assert list(ways) == ["random tiles", "zones"]
    assert any(len(set(ways["random tiles"][drawn.zones == zone])) == 2 for zone in range(MIN_ZONES))
    recipe = leakage.recipe_of(job, manifest, "cnn")
    cube = leakage.out_of_fold_counts("cnn", recipe, drawn, ways["random tiles"])
    for counts, zone in zip(cube, manifest.zones, strict=True):
        assert counts.sum(1).tolist() == manifest.class_counts([zone.zone_id]).tolist()


def test_pixels_are_dealt_by_the_tiles_of_the_dataset(tmp_path):
    job = drawn_job(tmp_path, search={"models": ["xgboost"]})
    manifest = write_dataset(job.artefacts, n_zones=2, size=48)
    drawn = leakage.draw(job, manifest, 1000, 30)
    row, col = (drawn.rows[axis].to_numpy() // manifest.tile_size for axis in ("row", "col"))
    assert (
        len(np.unique(drawn.blocks)) == len({*zip(drawn.zones.tolist(), row.tolist(), col.tolist(), strict=True)}) == 8
    )
    assert max(np.unique(drawn.labels[drawn.zones == 0], return_counts=True)[1]) == 30
    assert list(leakage.ways(manifest, drawn, 1000, 0)) == ["random pixels", "random tiles", "zones"]
    assert leakage.ways(manifest, drawn, 1000, 0)["zones"].tolist() == drawn.zones.tolist()


def test_the_points_must_be_those_of_the_dataset(tmp_path, monkeypatch, capsys):
    leakage_of(tmp_path, 0.0, monkeypatch)
    write_points(tmp_path / "others.parquet", 0.0)
    table = pq.read_table(tmp_path / "others.parquet")
    pq.write_table(table.slice(1), tmp_path / "others.parquet")
    changes = [
        f"points.path={tmp_path / 'others.parquet'}",
        f"workspace={tmp_path / 'b'}",
        f"dataset_of={tmp_path / 'work'}",
    ]
    assert main(["leakage", str(tmp_path / "job.yaml"), *(t for c in changes for t in ("--set", c))]) == 1
    assert "gives other points than the dataset" in capsys.readouterr().err
    assert load_manifest(tmp_path / "work" / "dataset" / "manifest.json").name == "drawn"
