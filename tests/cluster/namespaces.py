"""Ray nodes that share nothing but a network: each in network, mount and process namespaces of its own.

A bridge stands for the network; the machine itself has an address on it, on which servers can listen. Every node has its
own address, `/tmp`, home and shared memory, and sees none of the other nodes' files and processes. Nothing of the code
is copied: the repository and the environment lie where they always do.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "cr"  # of bridges and namespaces; names of network devices have 15 characters
PORT = 6379
START_S = 120
_TOOLS = ("ip", "nsenter", "unshare", "mount")
# The repository may lie below /tmp: it is held in reach while an empty one takes its place.
_OWN_FOLDERS = """
set -e
mount --bind "$0" /mnt
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mkdir -p "$0" /tmp/home
mount --bind /mnt "$0"
umount /mnt
cd /tmp/home
exec "$@"
"""


def why_not():
    """Why this machine cannot have such nodes; None where it can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found"
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"{PREFIX}{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return f"no network namespaces: {made.stderr.strip()}" if made.returncode else None


@dataclass
class NamespacedNode:
    """One `ray start`, and the process that holds its namespaces."""

    name: str
    address: str
    process: subprocess.Popen

    @property
    def init(self):
        """Process 1 of the node, whose namespaces others enter."""
        return psutil.Process(self.process.pid).children()[0].pid

    def kill(self):
        """Take the node away with everything on it, as a power cut would."""
        self.process.kill()  # `--kill-child`: process 1 goes with it, and the kernel ends all others
        self.process.wait(timeout=30)


@dataclass
class NamespacedCluster:
    """A head and workers with token authentication; runs while used as a context manager."""

    folder: Path
    """Takes the nodes' logs."""
    environment: dict = field(default_factory=dict)
    """Variables that all nodes have, beside those of this process; set before the first node starts."""
    nodes: list = field(default_factory=list, init=False)

    def __post_init__(self):
        self.name = f"{PREFIX}{os.getpid()}"
        self.network = f"10.213.{os.getpid() % 250}"
        self.host = f"{self.network}.1"
        """The machine's own address on the bridge."""
        self._token = secrets.token_hex(32)
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        try:
            _ip("link", "add", self.name, "type", "bridge")
            self._stack.callback(_ip, "link", "del", self.name)
            _ip("address", "add", f"{self.host}/24", "dev", self.name)
            _ip("link", "set", self.name, "up")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_):
        self._stack.close()

    def add_node(self, num_cpus=1, object_store_memory=100_000_000):
        """Start a node; the first one is the head."""
        number = len(self.nodes)
        name, address = f"{self.name}n{number}", f"{self.network}.{number + 2}"
        self._wire(name, address, number)
        where = [f"--address={self.nodes[0].address}:{PORT}"] if number else ["--head", f"--port={PORT}"]
        start = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            *where,
            f"--node-ip-address={address}",
        ]
        start += [f"--num-cpus={num_cpus}", f"--object-store-memory={object_store_memory}"]
        start += [] if number else ["--include-dashboard=false"]
        enter = ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*enter, "--mount-proc", "sh", "-c", _OWN_FOLDERS, str(ROOT), *start],
                env=self._environment(), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        node = NamespacedNode(name, address, process)
        self._stack.callback(node.kill)
        self.nodes.append(node)
        self._wait_for(node)
        return node

    def run(self, node, command, **options):
        """Run a command on a node, to its end."""
        enter = ["nsenter", f"--target={node.init}", "--net", "--mount", "--pid", "--wdns=/tmp/home"]
        return subprocess.run(
            [*enter, *command], env=self._environment(), capture_output=True, text=True, check=False, **options
        )

    def _wire(self, name, address, number):
        outer = f"{self.name}v{number}"
        _ip("netns", "add", name)
        self._stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        self._stack.callback(_ip, "link", "del", outer)  # both ends; with the namespace it would go later, or never
        _ip("link", "set", outer, "master", self.name, "up")
        _ip("-netns", name, "address", "add", f"{address}/24", "dev", "eth0")
        _ip("-netns", name, "link", "set", "lo", "up")
        _ip("-netns", name, "link", "set", "eth0", "up")

    def _environment(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        own = {"HOME": "/tmp/home", "TMPDIR": "/tmp", "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        return {**kept, **self.environment, **own, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token}

    def _wait_for(self, node):
        """Until `ray start` says that the node runs."""
        log, until = self.folder / f"{node.name}.log", time.monotonic() + START_S
        while "Ray runtime started" not in log.read_text():
            if node.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"node {node.address} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
