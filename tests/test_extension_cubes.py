"""A source of ready cubes that the package has never heard of: looked at, planned, and taken into a dataset as it is."""

import json

import numpy as np
import pytest

from cropray.cli import main
from cropray.commands import doctor
from cropray.commands.plan.measure_zones import _acquire, measure_zone
from cropray.config import JobConfig
from cropray.core.errors import ConfigError
from cropray.datasets.manifest import load_manifest
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.imagery.composites import read_composite
from cropray.io.job_file import load_settings
from cropray.io.workspace import Workspace
from cropray.io.zones import read_zones
from cropray.stages.inputs import acquisition_of
from tests.jobs import job, write_job

N_STEPS, TILE = 10, 16
OWN = [{"id": name, "unit": "level", "scale": 0.5, "offset": -20.0} for name in ("HAZE", "GLOW")]
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def toy():
    from tests.own_entries import cubes

    return cubes


@pytest.fixture(scope="module")
def shelf(landscape, tmp_path_factory):
    """Zone → (numbers [T, C, H, W] in the source's order of bands, seen [T, H, W]), and the folder of their files."""
    folder, drawn = tmp_path_factory.mktemp("shelf"), {}
    for seed, zone in enumerate(read_zones(landscape.zones)):
        rng = np.random.default_rng(seed)
        numbers = rng.integers(1, 65_536, (N_STEPS, 2, *zone.grid.shape)).astype(np.uint16)
        seen = rng.integers(0, 4, (N_STEPS, *zone.grid.shape)).astype(np.uint8)
        numbers[np.broadcast_to(seen[:, None] == 0, numbers.shape)] = 0
        drawn[zone.zone_id] = numbers, seen
        np.savez(folder / f"{zone.zone_id}.npz", numbers=numbers, seen=seen)
    return folder, drawn


@pytest.fixture(scope="module")
def config(landscape, shelf, tmp_path_factory):
    """The job file; the cube has the bands in another order than the files."""
    folder = tmp_path_factory.mktemp("toys")
    content = job(
        landscape, folder / "work", imagery={"source": "toy_cubes", "shelf": str(shelf[0])},
        cube={"bands": OWN, "step": "half-month", "months": 5}, report={"films": "none"},
    )  # fmt: skip
    return write_job(content, folder)


@pytest.fixture(scope="module")
def built(config, ray_local):
    """Its workspace with a dataset."""
    for stage in ("acquire", "labels", "dataset"):
        assert main([stage, str(config)]) == 0
    return load_settings(JobConfig, config).artefacts


def test_rows_and_tiles_hold_what_the_source_gives(built, shelf):
    manifest, n_rows = load_manifest(built.manifest), 0
    names = [f"{band}_{step:02d}" for band in ("HAZE", "GLOW") for step in range(1, N_STEPS + 1)]
    for zone in manifest.zones:
        numbers, seen = shelf[1][zone.zone_id]
        numbers = numbers[:, ::-1]
        table = read_pixels(built, zone.zone_id, manifest.cube)
        row, col = table["row"].to_numpy(), table["col"].to_numpy()
        found = np.stack([table[name].to_numpy() for name in names])
        np.testing.assert_array_equal(found, numbers[:, :, row, col].swapaxes(0, 1).reshape(len(names), -1))
        np.testing.assert_array_equal(table["n_clear"].to_numpy(), (seen > 0).sum(0)[row, col])
        tiles = read_tiles(built, zone.zone_id, TILE, manifest.cube)
        for at, (top, left) in enumerate(zip(tiles.row, tiles.col, strict=True)):
            place = np.s_[:, :, top : top + TILE, left : left + TILE]
            np.testing.assert_array_equal(tiles.x[at], numbers[place])
        n_rows += len(row)
    assert len(manifest.zones) == len(shelf[1])
    assert n_rows == sum(zone.n_labelled for zone in manifest.zones) > 100


def test_what_the_source_says_is_told_and_kept(config, built, capsys):
    assert json.loads(built.left_out.read_text()) == {"toys that nobody asked for": ["teddy"]}
    assert main(["acquire", str(config), "--set", "overwrite=true", "--set", "zones=[picardie-1]"]) == 0
    said = capsys.readouterr().out
    assert "toys that nobody asked for: 1 (teddy)" in said
    assert "ready cubes of toy_cubes for 1 zones" in said
    assert "missing stay no data" in said
    assert "imagery.fill" not in said  # which it has not
    record = json.loads(built.acquisition_record("picardie-1").read_text())
    assert (record["scenes"], record["is_filled"], record["n_filled"]) == (["picardie-1.npz"], False, 0)


def test_only_a_zone_of_which_the_source_says_something_else_is_made_again(config, built, shelf, capsys):
    folder, drawn = shelf
    path, (numbers, seen) = folder / "picardie-2.npz", drawn["picardie-2"]
    before = path.read_bytes()
    try:
        np.savez(path, numbers=np.where(numbers > 0, numbers // 2 + 1, 0).astype(np.uint16), seen=seen)
        capsys.readouterr()
        assert main(["why", str(config), "acquire/picardie-2"]) == 0
        assert "files" in capsys.readouterr().out
        assert main(["why", str(config), "acquire/picardie-1"]) == 0
        assert "up to date" in capsys.readouterr().out
    finally:
        path.write_bytes(before)


def test_a_zone_that_it_has_not_is_refused_before_anything_starts(landscape, tmp_path, capsys):
    content = job(
        landscape, tmp_path / "work", imagery={"source": "toy_cubes", "shelf": str(tmp_path)}, cube={"bands": OWN}
    )
    assert main(["acquire", str(write_job(content, tmp_path))]) == 1
    assert "nothing on the shelf for picardie-1, " in capsys.readouterr().err


def test_a_band_that_the_source_has_not_is_refused_with_the_job(landscape, tmp_path):
    content = job(landscape, tmp_path, imagery={"source": "toy_cubes", "shelf": str(tmp_path)})
    with pytest.raises(ConfigError, match="'toy_cubes' has no B02, B03, B04, B08, which 'cube' has; it has GLOW, HAZE"):
        load_settings(JobConfig, write_job(content, tmp_path))


def test_of_one_that_is_a_service_only_what_this_machine_does_is_measured(
    toy, config, landscape, monkeypatch, tmp_path
):
    monkeypatch.setattr(toy.ToyCubesSettings, "is_at_hand", False)
    monkeypatch.setattr(toy.ToyCubes, "read", None)
    own, zone, scratch = load_settings(JobConfig, config), read_zones(landscape.zones)[0], Workspace(tmp_path)
    _acquire(own, zone, scratch)
    assert read_composite(scratch.composite(zone.zone_id), zone.grid, own.cube_spec).all()


@pytest.mark.parametrize("part", ["numbers", "seen"])
def test_numbers_of_another_type_are_refused_as_they_come(toy, config, landscape, monkeypatch, tmp_path, part):
    def read(self, zone, season):
        numbers, seen = given(self, zone, season)
        return (numbers / 2, seen) if part == "numbers" else (numbers, seen > 0)

    given = toy.ToyCubes.read
    monkeypatch.setattr(toy.ToyCubes, "read", read)
    own, zone, scratch = load_settings(JobConfig, config), read_zones(landscape.zones)[0], Workspace(tmp_path)
    with pytest.raises(
        ValueError, match="of uint16; got .* of float64" if part == "numbers" else "of uint8; got .* of bool"
    ):
        _acquire(own, zone, scratch)


def test_the_doctor_and_the_plan_take_it(config, landscape, shelf, tmp_path):
    own, zone = load_settings(JobConfig, config), read_zones(landscape.zones)[0]
    assert doctor._check_inputs(own).startswith("toy_cubes, ")
    acquisition_of(own, [zone]).check()
    sample = measure_zone(own, zone, Workspace(tmp_path))
    assert (sample.entry.n_labelled > 0, sample.seconds["acquire"] > 0) == (True, True)
    np.testing.assert_array_equal(
        read_composite(Workspace(tmp_path).composite(zone.zone_id), zone.grid, own.cube_spec),
        shelf[1][zone.zone_id][0][:, ::-1],
    )
