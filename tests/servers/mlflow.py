"""A real tracking server: `mlflow/serve.sh`, the script of the image, on a free loopback port."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "mlflow" / "serve.sh"
ADMIN_PASSWORD = "first-password-of-admin"


@dataclass
class TrackingServer:
    """Runs while used as a context manager."""

    folder: Path
    """The server's working folder; its log is written here."""
    database: str
    """PostgreSQL address with password."""
    artifacts: str
    """`s3://…`"""
    store: dict
    """Environment that opens the bucket: the server's alone."""
    url: str = field(default="", init=False)

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.folder.mkdir()
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(self.folder),
            "MLFLOW_BACKEND_STORE_URI": self.database,
            "MLFLOW_ARTIFACTS_DESTINATION": self.artifacts,
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a long random text",
            "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": "1",
            **self.store,
        }
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [SCRIPT], env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()
        return self

    def __exit__(self, *_):
        os.killpg(self._process.pid, signal.SIGTERM)  # its own group: the server and its workers
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def log(self):
        """What the server has written."""
        return (self.folder / "log").read_text()

    def command_line(self):
        """What any user of the machine can see of the server."""
        return Path(f"/proc/{self._process.pid}/cmdline").read_text().replace("\0", " ")

    def status(self, path, user=None, body=None, host=None):
        """HTTP status of one request, GET or POST, as (name, password) or as nobody."""
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        if host:
            request.add_header("Host", host)
        if user:
            request.add_header("Authorization", "Basic " + base64.b64encode(":".join(user).encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def _wait(self):
        for _ in range(3000):
            if self._process.poll() is not None:
                break
            try:
                if self.status("/health") == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        raise RuntimeError(f"the tracking server did not start: {self.log[-3000:]}")
