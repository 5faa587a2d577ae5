"""Ray for one command: what a signal does while it starts."""

import signal
import sys

import pytest
import ray

from cropray.config import ClusterSettings
from cropray.stages import cluster


@pytest.mark.parametrize(("code", "raised"), [(signal.SIGTERM, KeyboardInterrupt), (1, SystemExit)])
def test_sigterm_while_ray_starts_is_an_interruption(monkeypatch, code, raised):
    """Ray's own handler, in place while it starts, calls `sys.exit` with the number of the signal."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the session's own Ray goes on
    monkeypatch.setattr(cluster, "_start", lambda *_args, **_kwargs: sys.exit(int(code)))
    with pytest.raises(raised), cluster.ray_session(ClusterSettings()):
        raise AssertionError("it must not begin")
