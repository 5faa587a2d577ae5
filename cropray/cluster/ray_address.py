"""The address of a running Ray, looked at before Ray itself is asked: it waits for minutes, and ends the process at last."""

import os
import socket
import time
from typing import Final
from urllib.parse import urlsplit

from ray._private import services

from cropray.core.errors import ConfigError

PATIENCE_S: Final = 20.0  # a head node that is started again is back by then
_POLL_S: Final = 1.0
_CLIENT_SCHEME: Final = "ray"
_CLIENT_PORT: Final = 10001  # source: Ray's documentation, "Ray Client"
# What opens an HTTP/2 connection (RFC 9113, 3.4) with no settings; the answer is a frame of settings, type 4.
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_TYPE: Final = 3  # position in a frame
_SETTINGS_FRAME: Final = 4


def require_ray(address: str, setting: str, patience_s: float = PATIENCE_S) -> str:
    """The address of a Ray that answers within `patience_s` seconds; for `auto` the one that was found on this machine.

    It is given as `auto`, `host:port` or `ray://host:port` by a setting, which messages name.

    Raises:
        ConfigError: it cannot be the address of a Ray, or none answers there.
    """
    found = _running_here(setting) if address == "auto" else address
    host, port = _host_and_port(found, setting)
    deadline = time.monotonic() + patience_s
    while (why := _why_not(host, port, max(deadline - time.monotonic(), 0.1))) is not None:
        if time.monotonic() + _POLL_S >= deadline:
            raise ConfigError(
                f"no Ray answers at {host}:{port} ({why}), which {setting} = '{address}' names; start it there "
                f"(`ray start --head`), mend the address, or remove it to have a local Ray"
            )
        time.sleep(_POLL_S)
    return found


def check_form(address: str, setting: str) -> None:
    """Raises: ConfigError: this cannot be the address of a Ray; nobody is asked there."""
    if address != "auto":
        _host_and_port(address, setting)


def _running_here(setting: str) -> str:
    try:
        found = services.canonicalize_bootstrap_address("auto")
    except ConnectionError:
        found = None
    if found is None:
        raise ConfigError(
            f"{setting} = 'auto', and no Ray runs on this machine; start one (`ray start --head`), name another's "
            f"host:port, or remove the setting to have a local Ray for the time of the command"
        )
    return str(found)


def _host_and_port(address: str, setting: str) -> tuple[str, int]:
    scheme, separator, rest = address.rpartition("://")
    if scheme in {"http", "https"}:
        raise ConfigError(
            f"{setting} = '{address}' is where jobs are submitted, and no command can connect there; submit this one "
            f"(`python ray_jobs/submit.py STAGE CONFIG.yaml`, which reads RAY_API_SERVER_ADDRESS), set {setting} to "
            f"host:6379 or ray://host:10001, or remove it to have a local Ray"
        )
    try:
        parts = urlsplit(f"//{rest if separator else address}")
        host, port = parts.hostname, parts.port or (_CLIENT_PORT if scheme == _CLIENT_SCHEME else None)
    except ValueError:
        host = port = None
    if host is None or port is None or scheme not in {"", _CLIENT_SCHEME}:
        raise ConfigError(f"{setting} = '{address}' is no address of a Ray; write host:6379, ray://host:10001 or auto")
    return host, port


def _why_not(host: str, port: int, timeout_s: float) -> str | None:
    """Why what listens there cannot be a Ray; None where it can."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in {"", "0"}:
                return None  # it would have to be spoken to in TLS
            connection.settimeout(timeout_s)
            connection.sendall(_HELLO)
            answer = connection.recv(_FRAME_TYPE + 1, socket.MSG_WAITALL)
    except OSError as error:
        return str(error)
    is_frame = len(answer) > _FRAME_TYPE and answer[_FRAME_TYPE] == _SETTINGS_FRAME
    return None if is_frame else "something else than Ray listens there"
