"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest

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
    from cropray.config import ClusterSettings
    from cropray.stages.cluster import ray_session

    os.environ.pop("RAY_ADDRESS", None)
    with ray_session(ClusterSettings(num_cpus=2, object_store_gb=0.5), needs_dashboard=True):
        yield
