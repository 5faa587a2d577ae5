"""Labels of a workspace in object storage, from a register that is read once for all zones: what travels to each."""

import contextlib
import re
from collections import Counter

import geopandas as gpd
import pytest

from cropray.cluster import zone_jobs
from cropray.config import JobConfig
from cropray.core.progress import Progress
from cropray.io.storage import as_location, files_below
from cropray.io.zones import read_zones
from cropray.stages import labels
from tests.jobs import job
from tests.servers.s3 import S3Server


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(labels, "ray_session", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(zone_jobs, "require_cpus", lambda *_: None)
    run = zone_jobs.attempt_and_mark
    monkeypatch.setattr(zone_jobs, "on_ray", lambda tasks, *where: [run(task, *where[:2]) for task in tasks])


def label(landscape, workspace, register, **more):
    content = job(landscape, workspace, parcels={"path": str(register)}, **more)
    config = JobConfig.model_validate(content)
    labels.run(config, Progress())
    rasters = config.artefacts.root / "labels"
    return config.artefacts, {file.name: file.read_bytes() for file in files_below(rasters)}


@pytest.mark.usefixtures("in_process")
def test_each_zone_fetches_its_own_parcels_only(landscape, tmp_path):
    gpd.read_file(landscape.parcels).to_file(tmp_path / "register.shp")
    _, here = label(landscape, tmp_path / "here", tmp_path / "register.shp")
    with S3Server() as server, server.in_environment():
        place = as_location(f"s3://{server.bucket}/there")
        more = {"tracking_uri": "http://127.0.0.1:9"}
        _, there = label(landscape, str(place), tmp_path / "register.shp", **more)
        asked = Counter(path for method, path in server.requests() if method == "GET" and "extract" in path)
        left = [path for path in place.fs.find(place.path) if "extract" in path]
    assert there == here
    assert left == []
    fetched = Counter({re.search(r"([^/]+)\.gpkg$", path)[1]: n for path, n in asked.items()})
    assert fetched == Counter(zone.zone_id for zone in read_zones(landscape.zones))
