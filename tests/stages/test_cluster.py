"""Ray for one command: what a signal does while it starts, and whom it lets in."""

import os
import signal
import subprocess
import sys

import pytest
import ray

from cropray.config import ClusterSettings
from cropray.stages import cluster

CONNECT = "import sys, ray; ray.init(address=sys.argv[1], logging_level='CRITICAL'); print(ray.cluster_resources())"


@pytest.mark.parametrize(("code", "raised"), [(signal.SIGTERM, KeyboardInterrupt), (1, SystemExit)])
def test_sigterm_while_ray_starts_is_an_interruption(monkeypatch, code, raised):
    """Ray's own handler, in place while it starts, calls `sys.exit` with the number of the signal."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the session's own Ray goes on
    monkeypatch.setattr(cluster, "_start", lambda *_args, **_kwargs: sys.exit(int(code)))
    with pytest.raises(raised), cluster.ray_session(ClusterSettings()):
        raise AssertionError("it must not begin")


def connect(**variables):
    """Another process that wants to use the running Ray."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", CONNECT, ray.get_runtime_context().gcs_address],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_nobody_uses_a_local_ray_without_its_token(ray_local):
    """Its servers listen on all interfaces, and whoever may submit a task runs any code."""
    stranger = connect(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a guess")
    assert stranger.returncode != 0
    assert "token" in stranger.stderr.lower()
    assert connect(RAY_AUTH_MODE="token").returncode == 0  # the same user, whose token lies in the home folder
