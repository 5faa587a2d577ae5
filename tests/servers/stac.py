"""A STAC API with `/search`, and its files by HTTP range requests, on a free loopback port; faults on command."""

import collections
import contextlib
import copy
import datetime as dt
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONFORMS_TO = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
SIGNATURE = "sig=for-tests"


@dataclass(frozen=True)
class Fault:
    """What one request gets instead of its answer."""

    status: int | None = None
    """This HTTP status, …"""
    headers: tuple[tuple[str, str], ...] = ()
    keep: float | None = None
    """… or the right answer, cut off after this share of its body, …"""
    wait_s: float = 0.0
    """… or the right answer, this much later."""


_PORTS = set()  # of this process


@dataclass
class StacServer:
    """Serves `items` while used as a context manager; hrefs are relative to `root`, or URLs that stay."""

    root: Path
    items: list[dict]
    page_size: int = 1000
    needs_signature: bool = False
    """Whether a file is given only with the signature that `/token/…` hands out."""
    requests: list[str] = field(default_factory=list)
    """`METHOD path` of everything that was asked, in order."""
    n_bytes: int = 0
    _faults: dict[str, collections.deque] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self):
        self.http = _Http(("127.0.0.1", 0), _Handler)
        while (port := self.http.server_address[1]) in _PORTS:  # what an earlier one said is remembered by its address
            self.http.server_close()
            self.http = _Http(("127.0.0.1", 0), _Handler)
        _PORTS.add(port)
        self.http.owner = self
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self._thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()

    def fail(self, path_part, *faults):
        """The next requests whose path holds `path_part` get these faults, one each."""
        self._faults.setdefault(path_part, collections.deque()).extend(faults)

    def count(self, path_part):
        """How many requests had `path_part` in their path."""
        return sum(path_part in request for request in self.requests)

    def note(self, request, path):
        with self._lock:
            self.requests.append(request)
            queue = next((queue for part, queue in self._faults.items() if part in path and queue), None)
            return queue.popleft() if queue else None

    def search(self, query):
        """One page, as Earth Search answers."""
        found = [item for item in self.items if _matches(item, query)]
        first, size = int(query.get("token", 0)), min(int(query.get("limit", 10)), self.page_size)
        page = copy.deepcopy(found[first : first + size])
        for item in page:
            item["links"] = [{"rel": "self", "href": f"{self.url}/collections/{item['collection']}/items/{item['id']}"}]
            for asset in item["assets"].values():
                if "://" not in asset["href"]:
                    asset["href"] = f"{self.url}/{asset['href']}"
        links = []
        if first + size < len(found):
            body = {**query, "token": first + size}
            links = [{"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": body}]
        return {"type": "FeatureCollection", "features": page, "links": links}

    def landing_page(self):
        search = {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"}
        links = [{"rel": "root", "href": self.url}, {"rel": "self", "href": self.url}, search]
        named = {"type": "Catalog", "stac_version": "1.0.0", "id": "local", "description": "tests"}
        return {**named, "conformsTo": CONFORMS_TO, "links": links}


def _matches(item, query):
    start, end = (dt.datetime.fromisoformat(text) for text in query["datetime"].split("/"))
    when = dt.datetime.fromisoformat(item["properties"]["datetime"])
    west, south, east, north = item["bbox"]
    x_min, y_min, x_max, y_max = query["bbox"]
    is_there = west <= x_max and x_min <= east and south <= y_max and y_min <= north
    return item["collection"] in query["collections"] and start <= when <= end and is_there


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # idle connections are kept open by their clients
    request_queue_size = 1024

    def handle_error(self, *_):
        """A client that hangs up is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(lambda: (200, json.dumps(self.server.owner.search(json.loads(body))).encode(), {}))

    def do_GET(self):
        self._answer(self._get)

    do_HEAD = do_GET  # noqa: N815  as http.server calls it

    def _answer(self, make):
        owner = self.server.owner
        fault = owner.note(f"{self.command} {self.path}", self.path)
        if fault is not None:
            time.sleep(fault.wait_s)
        if fault is not None and fault.status is not None:
            return self._send(fault.status, b"as the test wants it", dict(fault.headers))
        status, body, headers = make()
        return self._send(status, body, headers, 1.0 if fault is None or fault.keep is None else fault.keep)

    def _send(self, status, body, headers, share=1.0):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body[: round(len(body) * share)])
        if share < 1:
            self.close_connection = True

    def _get(self):
        owner = self.server.owner
        path, _, query = self.path.partition("?")
        if path == "/":
            return 200, json.dumps(owner.landing_page()).encode(), {}
        if path.startswith("/token/"):
            expiry = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
            return 200, json.dumps({"msft:expiry": expiry, "token": SIGNATURE}).encode(), {}
        file = owner.root / path.lstrip("/")
        if owner.needs_signature and query != SIGNATURE:
            return 403, b"not signed", {}
        return self._file(file) if file.is_file() else (404, b"no such file", {})

    def _file(self, file):
        data = file.read_bytes()
        headers = {"Content-Type": "image/tiff", "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return 200, data, headers
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return 416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"}
        self.server.owner.n_bytes += last + 1 - first
        return 206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
