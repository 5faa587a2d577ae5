"""A real S3 server in a process of its own, on a free port; faults on command.

The store is moto's, in memory. `python -m tests.servers.s3 [ADDRESS]` serves one until it is told to stop.
"""

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTROL = "/_control/"
SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
)
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


@dataclass(frozen=True)
class S3Fault:
    """What one request gets instead of its answer."""

    status: int | None = None
    """This HTTP status, …"""
    keep: float | None = None
    """… or the right answer, cut off after this share of its body, …"""
    wait_s: float = 0.0
    """… or the right answer, this much later."""


@dataclass
class S3Server:
    """Runs while used as a context manager; a bucket `bucket` is there from the start."""

    bucket: str = "bucket"
    key_id: str = "test-key"
    secret: str = "test-secret"
    host: str = "127.0.0.1"
    """Address of this machine on which it listens."""
    url: str = field(default="", init=False)

    def __enter__(self):
        command = [sys.executable, "-m", "tests.servers.s3", self.host]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError("the S3 server did not start")
        self.make_bucket(self.bucket)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(timeout=20)
        self._process.stdout.close()

    def environment(self):
        """What clients need: botocore, s3fs and pyarrow read the same variables."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextlib.contextmanager
    def in_environment(self):
        """The variables, set in this process for the time of the block; connections to an earlier server are forgotten."""
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        before = {name: os.environ.get(name) for name in self.environment()}
        os.environ.update(self.environment())
        try:
            yield self
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def make_bucket(self, name):
        import boto3

        session = boto3.session.Session(self.key_id, self.secret, region_name="us-east-1")
        session.client("s3", endpoint_url=self.url).create_bucket(Bucket=name)

    def fail(self, n, path_part="", method="", **fault):
        """The next `n` requests of this method whose path holds `path_part` get this fault."""
        self._control("faults", {"n": n, "part": path_part, "method": method, "fault": asdict(S3Fault(**fault))})

    def heal(self):
        """Forget the faults that no request has met."""
        self._control("heal", {})

    def requests(self):
        """(method, path) of everything that was asked, in order, retries too."""
        return [(method, path) for method, path, _ in self._control("requests", {})]

    def writers(self, path_part):
        """Path that holds `path_part` → address of the machine that last wrote it."""
        written = [entry for entry in self._control("requests", {}) if entry[0] in {"PUT", "POST"}]
        return {path: address for _, path, address in written if path_part in path}

    def n_sent(self, path_part):
        """Bytes of all answers so far to GETs whose path holds `path_part`."""
        return self._control("sent", {"part": path_part})

    def n_faults_left(self):
        """Faults that no request has met."""
        return self._control("left", {})

    def _control(self, action, body):
        request = urllib.request.Request(f"{self.url}{CONTROL}{action}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


class _Faulty:
    """WSGI: notes each request, and spoils those that are to be spoilt."""

    def __init__(self, app):
        self._app = app
        self._lock = threading.Lock()
        self._requests = []
        self._faults = collections.deque()
        self._sent = collections.Counter()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            size = int(environ.get("CONTENT_LENGTH") or 0)
            answer = self._control(path.removeprefix(CONTROL), json.loads(environ["wsgi.input"].read(size)))
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(answer).encode()]
        fault = self._note(environ["REQUEST_METHOD"], path, environ["REMOTE_ADDR"])
        time.sleep(fault.wait_s)
        if fault.status is not None:
            # The body is read first: a client that still sends would see a broken connection instead of the status.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{fault.status} Slow Down", [("Content-Type", "application/xml")])
            return [DENIED if fault.status == 403 else SLOW_DOWN]
        body = b"".join(self._app(environ, start_response))
        if environ["REQUEST_METHOD"] == "GET":
            with self._lock:
                self._sent[path] += len(body)
        # Its Content-Length stays that of the whole.
        return [body if fault.keep is None else body[: int(len(body) * fault.keep)]]

    def _note(self, method, path, address):
        with self._lock:
            self._requests.append((method, path, address))
            for entry in self._faults:
                if entry["n"] and entry["part"] in path and entry["method"] in {"", method}:
                    entry["n"] -= 1
                    return S3Fault(**entry["fault"])
        return S3Fault()

    def _control(self, action, body):
        with self._lock:
            match action:
                case "faults":
                    self._faults.append(body)
                case "heal":
                    self._faults.clear()
                case "requests":
                    return self._requests
                case "sent":
                    return sum(n for path, n in self._sent.items() if body["part"] in path)
                case "left":
                    return sum(entry["n"] for entry in self._faults)
            return None


def serve(host="127.0.0.1"):
    """Serve until SIGTERM; the address is the first line of output."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(host, 0, _Faulty(DomainDispatcherApplication(create_backend_app)), threaded=True)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"http://{host}:{server.port}", flush=True)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    serve(*sys.argv[1:2])
