"""A Ray cluster that has only Ray, as a cloud's image has it, and a clean clone to submit from."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make_environment(folder):
    """The Python of a new environment with Ray and nothing else of cropray's; made once, then found again."""
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        versions = ["--constraint", ROOT / "constraints.txt"]
        wanted = ["ray[data,default,train,tune]"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *versions, *wanted], check=True)
        (folder / ".complete").touch()
    return python


def clone(folder):
    """What a clean clone holds: the files that git knows or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@dataclass
class BareCluster:
    """One node, started as `ray start --head` does, with token authentication; runs while used as a context manager."""

    python: Path
    """Of an environment that has only Ray."""
    environment: dict = field(default_factory=dict, init=False)
    """What a client needs: address and token."""
    folder: Path = field(default=Path(), init=False)

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: sockets lie below it
        head, dashboard, agent, client = _free_ports(4)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        self.environment = {
            **clean,
            "PATH": os.pathsep.join([str(self.python.parent), os.environ["PATH"]]),
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        ports = [f"--port={head}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
        ports += [f"--dashboard-agent-listen-port={agent}", "--node-ip-address=127.0.0.1"]
        size = ["--num-cpus=2", f"--object-store-memory={300 * 2**20}", f"--temp-dir={self.folder}"]
        with (self.folder / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._ray(), "start", "--head", "--block", *ports, *size],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()
        return self

    def __exit__(self, *_):
        self._process.terminate()  # `--block` then ends every process of the node
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=60)
        for pid, _ in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def job(self, *arguments, **options):
        """Run `ray job …` to its end."""
        command = [*self._ray(), "job", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=900, check=False, **options
        )

    def processes(self, part=""):
        """(id, command line) of all processes of this cluster whose command line holds `part`."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.environment["RAY_AUTH_TOKEN"].encode() in (entry / "environ").read_bytes():
                    line = (entry / "cmdline").read_text().replace("\0", " ")
                    found += [(int(entry.name), line)] if part in line else []
        return found

    def bundles(self):
        """Folders of the code that jobs brought."""
        return sorted(self.folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/"))

    def _ray(self):
        return [str(self.python), "-m", "ray.scripts.scripts"]

    def _wait(self):
        for _ in range(120):
            if self._process.poll() is not None:
                break
            if self.job("list").returncode == 0:
                return
            time.sleep(1)
        raise RuntimeError(f"the cluster did not start: {(self.folder / 'start.log').read_text()[-2000:]}")


def _free_ports(n):
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
