"""A stand-in of the Earth Engine REST API on a loopback port, for the real client.

It serves the API's description and functions out of the installed client package, evaluates expressions, keeps to
limits of concurrency and rate, and fails where it is told to. Every request is remembered.
"""

import contextlib
import importlib.resources
import json
import re
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from tests.servers.earth_engine_graph import Evaluator, ServiceError

PROJECT = "stand-in-project"
QUICK = {"first_wait_s": 0.01, "max_wait_s": 0.02, "min_window_px": 8, "credentials": "anonymous"}
FAULTS = {
    "429": (429, "Too Many Requests: Request was rejected because the request rate or concurrency limit was exceeded."),
    "500": (500, "An internal error has occurred"),
    "503": (503, "The service is currently unavailable."),
    "memory": (400, "User memory limit exceeded."),
    "timeout": (400, "Computation timed out."),
    "401": (401, "Request had invalid authentication credentials."),
    "403": (403, f"Caller does not have required permission to use project {PROJECT}."),
}


@dataclass(frozen=True)
class Request:
    """One request to the API, as it was answered."""

    kind: str
    """`compute` (a value), `computePixels`, or `connect`."""
    started: float
    """Monotonic seconds."""
    answer: str
    """`ok`, or the fault or status."""
    assets: tuple = ()
    """Names of the assets in the expression."""
    grid: tuple = ()
    """x_min, y_max, width, height."""
    body: str = ""


class EarthEngineServer(ThreadingHTTPServer):
    """Runs in a thread of its own while the block lasts."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, catalogue, max_concurrent=40, max_per_s=100, delay_s=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.evaluator = Evaluator(catalogue)
        self.max_concurrent, self.max_per_s, self.delay_s = max_concurrent, max_per_s, delay_s
        self.faults = deque()
        """What goes wrong with the next `computePixels` requests, one after the other; None: nothing."""
        self.listing_faults = deque()
        self.refuse = lambda request: None
        """request → message of a 400, or None."""
        self.retry_after = None
        self.token = None
        """What `/token` hands out and every request must then carry."""
        self.requests = []
        self.starts = deque()
        self.in_flight = self.most_in_flight = 0
        self.breaches = Counter()
        self.lock = threading.Lock()
        package = importlib.resources.files("ee") / "tests"
        self.algorithms = (package / "algorithms.json").read_bytes()
        discovery = (package / "cloud_api_discovery_document.json").read_bytes().replace(b"v1alpha", b"v1")
        self.discovery = discovery.replace(b"https://earthengine.googleapis.com/", self.url.encode() + b"/")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that was killed leaves a broken connection: nothing to say."""

    def settings(self, **changes):
        """Of a source that asks this server, and does not wait for long."""
        return EarthEngineSettings(
            **{"source": "earth_engine", "project": PROJECT, "endpoint": self.url, **QUICK, **changes}
        )

    def forget(self):
        """As if it had just been started, when what it is at is finished."""
        self.settle()
        self.delay_s, self.retry_after, self.token = 0.0, None, None
        self.refuse = lambda request: None
        for kept in (self.faults, self.listing_faults, self.requests, self.starts, self.breaches):
            kept.clear()

    def settle(self):
        """Wait until no request is in flight."""
        while self.in_flight:
            time.sleep(0.01)

    @contextlib.contextmanager
    def limits(self):
        """Counts a request in and out; a breach of a limit is counted and refused."""
        now = time.monotonic()
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.starts.append(now)
            while self.starts[0] <= now - 1:
                self.starts.popleft()
            over = self.in_flight > self.max_concurrent
            fast = len(self.starts) > self.max_per_s
            self.breaches["concurrency"] += over
            self.breaches["rate"] += fast
        try:
            if over or fast:
                raise ServiceError(*FAULTS["429"])
            yield
        finally:
            with self.lock:
                self.in_flight -= 1

    def next_fault(self, kind):
        faults = {"computePixels": self.faults, "compute": self.listing_faults}.get(kind)
        with self.lock:
            return faults.popleft() if faults else None

    def asked(self, kind="computePixels", answer=None):
        """Requests of a kind, and of an answer if one is given."""
        return [r for r in list(self.requests) if r.kind == kind and answer in (None, r.answer)]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        path = self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        kind = path.rsplit(":", 1)[-1] if ":" in path.rsplit("/", 1)[-1] else "connect"
        request = describe(kind, body)
        fault = self.server.next_fault(kind)
        outcome = "ok"
        try:
            with self.server.limits():
                reply = self.compute(path, body, request, fault)
        except ServiceError as error:
            outcome = fault or str(error.code)
            reply = json.dumps({"error": {"code": error.code, "message": str(error), "status": error.status}}).encode()
            self.remember(request, outcome)
            self.send(error.code, reply)
        except Exception as error:  # a bug of the stand-in must not look like one that goes away
            message = f"stand-in: {type(error).__name__}: {error}"
            self.remember(request, "bug")
            self.send(400, json.dumps({"error": {"code": 400, "message": message}}).encode())
        else:
            self.remember(request, fault or "ok")
            self.deliver(reply, fault)

    def compute(self, path, body, request, fault):
        server = self.server
        if path == "/token":
            return json.dumps({"access_token": server.token, "expires_in": 3600, "token_type": "Bearer"}).encode()
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            raise ServiceError(*FAULTS["401"])
        if fault in FAULTS:
            raise ServiceError(*FAULTS[fault])
        if path == "/$discovery/rest":
            return server.discovery
        if path.endswith("/algorithms"):
            return server.algorithms
        message = server.refuse(request)
        if message:
            raise ServiceError(400, message)
        time.sleep(server.delay_s)
        if request.kind == "computePixels":
            return server.evaluator.pixels(json.loads(body))
        if request.kind == "compute":
            return json.dumps({"result": server.evaluator.value(json.loads(body)["expression"])}).encode()
        raise ServiceError(404, f"stand-in: no method {path}", "NOT_FOUND")

    def deliver(self, reply, fault):
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault == "truncate":  # the connection ends before the body does
            self.send(200, reply, length=len(reply) + 1000)
            self.close_connection = True
        elif fault == "damage":  # of the right length, and no NPY file
            self.send(200, b"x" * len(reply))
        else:
            self.send(200, reply)

    def send(self, code, body, length=None):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) if length is None else length))
            if code in {429, 503} and self.server.retry_after is not None:
                self.send_header("Retry-After", str(self.server.retry_after))
            self.end_headers()
            self.wfile.write(body)

    def remember(self, request, answer):
        with self.server.lock:
            self.server.requests.append(Request(request.kind, request.started, answer, *request.what))


@dataclass(frozen=True)
class Asked:
    """A request before its answer."""

    kind: str
    started: float
    what: tuple

    @property
    def assets(self):
        return self.what[0]

    @property
    def grid(self):
        return self.what[1]

    @property
    def month(self):
        return self.assets[0][:6] if self.assets else None


def describe(kind, body):
    assets, grid = (), ()
    if kind == "computePixels":
        content = json.loads(body)
        assets = tuple(sorted(set(re.findall(r"\d{8}T\d{6}_\w+_T\w{5}", body))))
        affine, size = content["grid"]["affineTransform"], content["grid"]["dimensions"]
        grid = (affine["translateX"], affine["translateY"], int(size["width"]), int(size["height"]))
    return Asked(kind, time.monotonic(), (assets, grid, body if kind != "connect" else ""))
