"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("cropray", deadline=None)  # a busy machine is no failure
settings.load_profile("cropray")

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data beside the repository; its licences allow use here, not redistribution."""
    if not REAL.exists():
        pytest.skip(f"real data is not at {REAL}")
    return REAL


@pytest.fixture(scope="session")
def ray_local():
    """A local Ray with two CPUs for the whole session."""
    from cropray.cluster.session import ray_session
    from cropray.cluster.settings import ClusterSettings

    os.environ.pop("RAY_ADDRESS", None)
    with ray_session(ClusterSettings(num_cpus=2, object_store_gb=0.5), needs_dashboard=True):
        yield


@pytest.fixture(scope="session")
def landscape(tmp_path_factory):
    """A small drawn landscape: raw inputs only; tests must not change them."""
    from cropray.landscape.draw import draw_landscape
    from cropray.landscape.settings import LandscapeSettings

    settings = LandscapeSettings(n_regions=2, zones_per_region=3, zone_px=32, gap_px=30, scenes_per_month=2)
    return draw_landscape(settings, tmp_path_factory.mktemp("landscape") / "raw")


@pytest.fixture(scope="session")
def finished(landscape, ray_local, tmp_path_factory):
    """A job on the small landscape with every stage run once: its config file."""
    from cropray.stages.pipeline import PIPELINE, run_stages
    from tests.jobs import job, write_job

    folder = tmp_path_factory.mktemp("finished")
    config = write_job(job(landscape, folder / "work"), folder)
    run_stages(PIPELINE, config, ())
    return config


@pytest.fixture(scope="module")
def own_data():
    """The toys of data: scores and sensors are shown in every table, so they are taken back."""
    from cropray.core.metrics import METRICS
    from cropray.core.sensors import SENSORS
    from tests.own_entries import cubes, feature, scenes, score, sensor  # noqa: F401  registers

    METRICS.add(score.BALANCE)
    SENSORS.add(sensor.TOY_SAT)
    yield
    METRICS.remove(score.BALANCE.key)
    SENSORS.remove(sensor.TOY_SAT.name)


@pytest.fixture(scope="module")
def centroid_family():
    """The toy's family, known to this process alone: workers have neither its module nor an entry point."""
    import ray

    from cropray.training import family as families
    from tests.nearest_centroid import family as toy
    from tests.nearest_centroid import served

    for module in (toy, served):
        ray.cloudpickle.register_pickle_by_value(module)
    families.register(toy.FAMILY)
    yield
    del families._REGISTERED[toy.FAMILY.name]
    for module in (toy, served):
        ray.cloudpickle.unregister_pickle_by_value(module)
