"""Fits on data that the object store cannot hold give the results of fits without any object store."""

from dataclasses import replace

import pytest

from cropray.cluster.settings import ClusterSettings
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.search.fit import SearchData, fit_unit
from cropray.search.store import data_bytes
from cropray.training.family import family
from tests.drawn_dataset import TILE_SIZE, drawn_job, first_unit, fit_on_ray, write_dataset

STORE_GB = 0.08  # about the least that Ray takes


def fit_here(job, manifest, model, folder):
    """The same unit in this process, on arrays."""
    folder.mkdir()
    if model == "cnn":
        blocks = {zone_id: read_tiles(job.artefacts, zone_id, TILE_SIZE) for zone_id in manifest.zone_ids}
    else:
        blocks = {zone_id: read_pixels(job.artefacts, zone_id) for zone_id in manifest.zone_ids}
    settings = job.settings_of(model)
    return fit_unit(first_unit(job, model), folder, SearchData(family(model), manifest, settings, blocks, job.seed))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.own_ray
@pytest.mark.nightly
def test_data_larger_than_the_object_store_gives_the_same_result(tmp_path, monkeypatch):
    from cropray.cluster.session import ray_session

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    job = drawn_job(tmp_path)
    manifest = write_dataset(job.artefacts, n_zones=64, size=128)
    rows, tiles = sum(zone.n_labelled for zone in manifest.zones), sum(zone.n_tiles for zone in manifest.zones)
    assert data_bytes("tile", 0, tiles, TILE_SIZE) > 1.2e9 * STORE_GB
    assert data_bytes("pixel", rows, 0, 0) > 0.8e9 * STORE_GB  # it is there twice while it is read
    models = ("cnn", "xgboost")
    with ray_session(ClusterSettings(num_cpus=2, object_store_gb=STORE_GB)):
        units = {model: fit_on_ray(job, manifest, model) for model in models}
    for model in models:
        expected = fit_here(job, manifest, model, tmp_path / f"here-{model}")
        found = units[model].results()
        assert [replace(result, seconds=0) for result in found] == [replace(result, seconds=0) for result in expected]
