"""A real MLflow server over SQLite, and a proxy before it that refuses requests or loses answers on command."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

START_S = 240  # 10 s alone on two cores


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TrackingServer:
    """`mlflow server` on a port of its own; it can be killed and started again on the same store."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.host = host
        self.port = free_port()
        self.url = f"http://{host}:{self.port}"
        self._process = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", self.host, "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder, env=_environment()
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2):
                return
            time.sleep(0.2)
        raise TimeoutError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        self.kill()


class FaultyProxy:
    """Forwards HTTP to a server; counts requests, and from a chosen one on is away or loses an answer.

    `plan(away_from=k)`: request k and all after it are cut off before they reach the server, until `plan()`.
    `plan(lose=k)`: request k reaches the server, its answer is cut off; all others pass.
    """

    def __init__(self, target: str) -> None:
        self.target = target.removeprefix("http://")
        self.n_requests = 0
        self._away_from = self._lose = None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def plan(self, away_from=None, lose=None) -> None:
        with self._lock:
            self.n_requests, self._away_from, self._lose = 0, away_from, lose

    def verdict(self) -> str:
        with self._lock:
            number, self.n_requests = self.n_requests, self.n_requests + 1
            if self._away_from is not None and number >= self._away_from:
                return "away"
            return "lose" if number == self._lose else "pass"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = _read_chunks(self.rfile)
            verdict = proxy.verdict()
            if verdict == "away":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            kept = {k: v for k, v in self.headers.items() if k not in ("Transfer-Encoding", "Content-Length", "Host")}
            upstream = http.client.HTTPConnection(proxy.target, timeout=60)
            upstream.request(self.command, self.path, body, {**kept, "Host": proxy.target})
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if verdict == "lose":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

        def log_message(self, *_):
            pass

    return Handler


def _read_chunks(stream):
    body = b""
    while size := int(stream.readline().strip() or b"0", 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body


def _environment():
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
