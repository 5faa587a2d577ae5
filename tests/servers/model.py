"""`mlflow models serve` on a port of its own."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.servers.tracking import START_S, free_port


class ModelServer:
    """One registered model behind HTTP on the loopback, in this environment."""

    def __init__(self, folder: Path, tracking_uri: str, model: str) -> None:
        self.log = folder / "model.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port), "--env-manager", "local", "--workers", "1"]
        hidden = ("PYTHONPATH", "MLFLOW_TRACKING_URI")  # the model brings its code
        self._environment = {k: v for k, v in os.environ.items() if k not in hidden}
        self._environment |= {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._folder = folder

    def __enter__(self):
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True, cwd=self._folder, env=self._environment
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/ping", timeout=2):
                    return self
            except OSError:
                time.sleep(0.2)
        self.__exit__()
        raise RuntimeError(self.log.read_text()[-3000:])

    def __exit__(self, *_):
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
