"""The stages take products as ESA ships them and ready cubes: looked at before anything starts, planned, acquired."""

import contextlib
import datetime as dt
import json

import numpy as np
import pytest

from cropray.cluster.zone_jobs import attempt
from cropray.commands import doctor
from cropray.commands.plan.measure_zones import _acquire
from cropray.config import JobConfig
from cropray.core.errors import CroprayError, InputError
from cropray.core.grid import Grid
from cropray.core.progress import Progress
from cropray.imagery.composites import read_composite, read_n_obs, write_composite, write_n_obs
from cropray.io.workspace import Workspace
from cropray.io.zones import read_zones
from cropray.stages import acquire
from cropray.stages.inputs import acquisition_of
from cropray.stages.pipeline import check_job
from tests.imagery.rasters import draw_pixels
from tests.imagery.safe_products import Draft, images_of
from tests.jobs import job


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Zones are made one after the other in this process."""

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(acquire, "ray_session", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(acquire, "require_cpus", lambda *_: None)
    monkeypatch.setattr(acquire, "on_ray", lambda tasks, *_: (attempt(task) for task in tasks))


@pytest.fixture
def zones(landscape):
    return read_zones(landscape.zones)[:2]


@pytest.fixture
def config(landscape, tmp_path, zones):
    def make(**imagery):
        changes = {
            "imagery": {"folder": str(tmp_path / "imagery")} | imagery,
            "zones": [zone.zone_id for zone in zones],
        }
        return JobConfig.model_validate(job(landscape, tmp_path / "work", **changes))

    return make


def draw_product(folder, zone, month=5):
    bounds = zone.grid.bounds
    grid = Grid(zone.grid.epsg, bounds[0] // 20 * 20 - 40, bounds[3] // 20 * 20 + 40, 48, 48)
    started = dt.datetime(2023, month, 1, 10, 50, 31, tzinfo=dt.UTC)
    pixels = draw_pixels(grid.shape, month, scl=4)
    pixels[:4] += 1000
    tile = f"31U{chr(65 + int(bounds[0]) // 10 % 8)}{chr(65 + int(bounds[3]) // 10 % 8)}"
    return Draft(grid, images_of(pixels), started=started, tile=tile).write(folder, zipped=month % 2 == 0)


def draw_cube(folder, zone, seed):
    rng = np.random.default_rng(seed)
    cube = rng.integers(1, 9000, (12, 4, *zone.grid.shape)).astype(np.uint16)
    write_composite(folder / f"{zone.zone_id}.tif", cube, zone.grid)
    return cube


def test_products(config, zones, tmp_path):
    own = config(source="safe")
    for zone in zones:
        for month in (5, 8):
            draw_product(tmp_path / "imagery" / zone.zone_id, zone, month)
    check_job(own, ["acquire"])
    assert doctor._check_inputs(config(source="safe", folder=str(tmp_path / "imagery"))).startswith(
        str(tmp_path / "imagery")
    )
    work = acquisition_of(own, zones)
    work.check()
    assert {zone_id: len(found.scenes) for zone_id, found in work.found.items()} == {z.zone_id: 2 for z in zones}
    _acquire(own, zones[0], Workspace(tmp_path / "scratch"))
    acquire.run(own, Progress())
    for zone in zones:
        assert (read_n_obs(own.artefacts.n_obs(zone.zone_id)).sum(axis=(1, 2)) > 0).tolist() == [
            month in {5, 8} for month in range(1, 13)
        ]
    first = zones[0].zone_id
    np.testing.assert_array_equal(
        read_composite(Workspace(tmp_path / "scratch").composite(first)), read_composite(own.artefacts.composite(first))
    )


def test_products_that_are_broken_are_told_before_anything_starts(config, zones, tmp_path):
    root = draw_product(tmp_path / "imagery", zones[0])
    (root / "MTD_MSIL2A.xml").unlink()
    with pytest.raises(InputError, match=root.name):
        check_job(config(source="safe"), ["acquire"])
    with pytest.raises(InputError, match=root.name):
        acquisition_of(config(source="safe"), zones).check()


def test_ready_cubes(config, zones, tmp_path, capsys):
    own = config(source="cubes")
    cubes = {zone.zone_id: draw_cube(tmp_path / "imagery", zone, seed) for seed, zone in enumerate(zones)}
    write_n_obs(
        tmp_path / "imagery" / f"{zones[1].zone_id}.nobs.tif",
        np.full((12, *zones[1].grid.shape), 3, np.uint8),
        zones[1].grid,
    )
    (tmp_path / "imagery" / "old.tif").write_bytes(b"")
    check_job(own, ["acquire"])
    _acquire(own, zones[0], Workspace(tmp_path / "scratch"))
    acquire.run(own, Progress())
    for zone_id, cube in cubes.items():
        np.testing.assert_array_equal(read_composite(own.artefacts.composite(zone_id)), cube)
    record = json.loads(own.artefacts.acquisition_record(zones[1].zone_id).read_text())
    assert record["scenes"] == [f"{zones[1].zone_id}.tif", f"{zones[1].zone_id}.nobs.tif"]
    assert json.loads(own.artefacts.left_out.read_text()) == {
        "files that no zone needs": ["old.tif"],
        "zones without counts of observations: steps with data count as one each": [zones[0].zone_id],
    }
    said = capsys.readouterr().out
    for words in ("ready cubes of ", "old.tif", f"as one each: 1 ({zones[0].zone_id})", "100% of the pixel-months"):
        assert words in said


def test_ready_cubes_that_are_missing_are_told_before_anything_starts(config, zones, tmp_path):
    draw_cube(tmp_path / "imagery", zones[0], 0)
    for look in (lambda own: check_job(own, ["acquire"]), lambda own: acquisition_of(own, zones).check()):
        with pytest.raises(CroprayError, match=f"for 1 of 2 zones: {zones[1].zone_id}"):
            look(config(source="cubes"))


def test_gaps_that_are_left_are_told(config, zones, tmp_path, capsys):
    own = config(source="cubes", fill=False)
    for zone in zones:
        cube = draw_cube(tmp_path / "imagery", zone, 0)
        cube[4:6] = 0
        write_composite(tmp_path / "imagery" / f"{zone.zone_id}.tif", cube, zone.grid)
    acquire.run(own, Progress())
    assert not read_composite(own.artefacts.composite(zones[0].zone_id))[4:6].any()
    said = capsys.readouterr().out
    assert "stay no data: the source 'cubes' does not fill them" in said
    assert "filled in time" not in said
