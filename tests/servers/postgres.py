"""A real PostgreSQL server on a free loopback port, with a new, empty database."""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FOLDERS = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), *os.get_exec_path()]
USER = "mlflow"
PASSWORD = "a password with 100% of : / @ in it"


@dataclass
class PostgresServer:
    """Runs while used as a context manager; one database, one user, password required."""

    folder: Path
    port: int = field(default=0, init=False)

    def __enter__(self):
        self.port = _free_port()
        data, password = self.folder / "data", self.folder / "password"
        self.folder.mkdir(mode=0o700)
        password.write_text(PASSWORD)
        owner = "postgres" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
        if owner:
            for path in (self.folder, password):
                shutil.chown(path, owner, owner)
        auth = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password}", "--no-sync"]
        subprocess.run(
            [_tool("initdb"), *auth, f"--pgdata={data}"], check=True, capture_output=True, user=owner, cwd="/"
        )
        command = [_tool("postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder)]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, user=owner, cwd="/")
        self._wait()
        self._psql("create database mlflow", "postgres")
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGINT)  # "fast": clients are disconnected
        self._process.wait(timeout=30)

    @property
    def uri(self):
        """Address with user and password, as SQLAlchemy takes it."""
        from urllib.parse import quote

        return f"postgresql+psycopg2://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/mlflow"

    def query(self, sql):
        """The only value of the first row, as text."""
        return self._psql(sql, "mlflow").stdout.strip()

    def _psql(self, sql, database):
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        return subprocess.run(
            [_tool("psql"), *where, "-At", "-c", sql], check=True, capture_output=True, text=True, env=environment
        )

    def _wait(self):
        ready = [_tool("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        for _ in range(200):
            if self._process.poll() is not None:
                break
            if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()}")


def require_postgres():
    """Skip the test where PostgreSQL is not installed."""
    if shutil.which("initdb", path=os.pathsep.join(FOLDERS)) is None:
        pytest.skip("PostgreSQL is not installed: `apt-get install postgresql` (.ci/run does)")


def _tool(name):
    return shutil.which(name, path=os.pathsep.join(FOLDERS))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
