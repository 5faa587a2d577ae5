"""Ray for one command: what a signal does while it starts, where it listens, and whom it lets in."""

import ipaddress
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from cropray.cluster import session as cluster
from cropray.cluster.settings import ClusterSettings
from cropray.core.errors import ConfigError

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # a process that looks for Ray on 127.0.0.1 only
LISTENERS = """
import json, sys
import psutil, ray
from cropray.cluster.settings import ClusterSettings
from cropray.cluster.session import ray_session

with ray_session(ClusterSettings(num_cpus=1, object_store_gb=0.1), needs_dashboard=True):
    ray.get(ray.remote(lambda: None).remote())
    own = [psutil.Process(), *psutil.Process().children(recursive=True)]
    connections = [connection for process in own for connection in process.net_connections("tcp")]
print(json.dumps([c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]))
"""
CONNECT = "import sys, ray; ray.init(address=sys.argv[1], logging_level='CRITICAL'); print(ray.cluster_resources())"


@pytest.mark.parametrize(("code", "raised"), [(signal.SIGTERM, KeyboardInterrupt), (1, SystemExit)])
def test_sigterm_while_ray_starts_is_an_interruption(monkeypatch, code, raised):
    """Ray's own handler, in place while it starts, calls `sys.exit` with the number of the signal."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the session's own Ray goes on
    monkeypatch.setattr(cluster, "_start", lambda *_args, **_kwargs: sys.exit(int(code)))
    with pytest.raises(raised), cluster.ray_session(ClusterSettings()):
        raise AssertionError("it must not begin")


def test_the_environment_names_a_cluster_where_the_job_does_not(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster.address_of(ClusterSettings()) == "10.0.0.1:6379"
    assert cluster.address_of(ClusterSettings(address="10.0.0.2:6379")) == "10.0.0.2:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster.address_of(ClusterSettings()) is None


@pytest.fixture
def home(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_is_made_private_from_the_first_moment(home, monkeypatch):
    seen = []
    link = os.link
    monkeypatch.setattr(os, "link", lambda new, path: (seen.append(mode(Path(new))), link(new, path)))
    cluster.keep_token_private(makes_one=True)
    token = home / ".ray" / "auth_token"
    assert [*seen, mode(token)] == [0o600, 0o600]
    assert len(token.read_text()) == 64
    assert list(token.parent.iterdir()) == [token]
    text = token.read_text()
    cluster.keep_token_private(makes_one=True)
    assert token.read_text() == text


def test_a_home_folder_may_lack_links(home, monkeypatch):
    def refuse(new, path):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    cluster.keep_token_private(makes_one=True)
    token = home / ".ray" / "auth_token"
    assert mode(token) == 0o600
    assert list(token.parent.iterdir()) == [token]


def test_a_token_that_comes_first_counts(home):
    token = home / "token"
    token.write_text("first")
    cluster._make_token(token)
    assert token.read_text() == "first"


@pytest.mark.parametrize("makes_one", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_a_token_that_others_could_read_is_made_private(home, monkeypatch, makes_one, given):
    """`ray get-auth-token --generate` leaves it readable; a cluster's own lies where a variable says."""
    token = home / ("of-a-cluster" if given else ".ray/auth_token")
    token.parent.mkdir(exist_ok=True)
    token.write_text("t" * 64)
    token.chmod(0o644)
    if given:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    cluster.keep_token_private(makes_one=makes_one)
    assert mode(token) == 0o600
    assert token.read_text() == "t" * 64


def test_a_token_that_stays_readable_is_told(home, monkeypatch, capsys):
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.touch(mode=0o640)
    token.chmod(0o640)

    def refuse(self, mode):
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "chmod", refuse)
    cluster.keep_token_private(makes_one=True)
    assert f"others can read Ray's token '{token}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "variables", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}, {"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}]
)
def test_no_token_is_made_where_none_is_needed(home, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cluster.keep_token_private(makes_one=True)
    assert not (home / ".ray").exists()


def test_a_running_cluster_s_token_is_never_made_up(home):
    cluster.keep_token_private(makes_one=False)
    assert not (home / ".ray").exists()


def connect(**variables):
    """Another process that wants to use the running Ray."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", CONNECT, ray.get_runtime_context().gcs_address],
        env=environment | LOOPBACK | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.ray
@pytest.mark.slow
def test_nobody_uses_a_local_ray_without_its_token(ray_local):
    """Other users of the machine reach its servers, and whoever may submit a task runs any code."""
    stranger = connect(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a guess")
    assert stranger.returncode != 0
    assert "token" in stranger.stderr.lower()
    assert connect(RAY_AUTH_MODE="token").returncode == 0  # the same user, whose token lies in the home folder


@pytest.mark.ray
@pytest.mark.slow
def test_a_local_ray_listens_on_this_machine_only_and_its_new_token_is_the_user_s_alone(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", LISTENERS],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    addresses = {ipaddress.ip_address(ip) for ip in json.loads(done.stdout.splitlines()[-1])}
    assert len(addresses) > 0
    assert all((getattr(ip, "ipv4_mapped", None) or ip).is_loopback for ip in addresses)
    assert stat.S_IMODE((tmp_path / ".ray/auth_token").stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR


def test_a_local_ray_may_be_asked_for_by_name(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster.address_of(ClusterSettings()) is None
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert cluster.address_of(ClusterSettings()) is None


def test_a_short_folder_is_left_to_ray(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "_LONGEST_FOLDER", len(str(tmp_path)))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert cluster._folders() == {}


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_too_long_for_sockets_is_named_and_gets_what_is_spilled(monkeypatch, tmp_path, capsys, variable):
    long = tmp_path / "scratch_of_a_user_whose_name_is_long" / "jobs_of_november" / "4711"
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, str(long))
    monkeypatch.setattr(cluster.tempfile, "tempdir", None)  # where Python remembers TMPDIR
    long.mkdir(parents=True)
    monkeypatch.setattr(cluster, "_SHORT_FOLDER", tmp_path)
    folders = cluster._folders()
    assert folders["object_spilling_directory"] == str(long)
    assert Path(folders["_temp_dir"]).parent == tmp_path
    assert re.search(rf"{variable} = '{long}' is too long .*set RAY_TMPDIR", capsys.readouterr().out)


def test_a_folder_that_cannot_be_written_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file" / "ray"))
    with pytest.raises(ConfigError, match=r"cannot write to RAY_TMPDIR = .*file/ray'; set RAY_TMPDIR"):
        cluster._folders()


@pytest.mark.parametrize("home", [None, "/proc/nobody"])
def test_a_user_without_a_home_gets_a_token_for_this_process(monkeypatch, home):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "own")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    if home is None:  # neither a variable nor an entry in the table of users

        def unknown():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(cluster.Path, "home", unknown)
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    cluster.keep_token_private(makes_one=True)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.parametrize(
    "error", [OSError("\nno room\nfor sockets"), Exception("no room")]
)  # Ray's own, of a slow node
def test_what_ray_says_when_it_does_not_start_becomes_one_line(monkeypatch, error):
    def fail(**_):
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"^Ray does not start or answer \(no room\); check .*RAY_TMPDIR.*$"):
        cluster._start(ClusterSettings(), needs_dashboard=False)
