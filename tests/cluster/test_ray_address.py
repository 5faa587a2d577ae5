"""An address at which no Ray answers is refused in words, and soon."""

import contextlib
import socket
import threading

import pytest

from cropray.cluster import ray_address
from cropray.cluster.ray_address import check_form, require_ray
from cropray.core.errors import ConfigError

SETTINGS = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0])


@contextlib.contextmanager
def listening(answer):
    """A server on a port of its own that says one thing to whoever connects; None: it says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            held = []
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    held.append(connection)
                    if answer is not None:
                        connection.sendall(answer)
                        connection.recv(99)
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def refusal(address, setting="RAY_ADDRESS"):
    with pytest.raises(ConfigError) as error:
        require_ray(address, setting, patience_s=0.3)
    assert setting in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_speaks_as_ray_does_is_taken(scheme):
    with listening(SETTINGS) as address:
        assert require_ray(scheme + address, "cluster.address") == scheme + address


@pytest.mark.parametrize("address", ["http://10.1.2.3:8265", "https://ray.example.org"])
def test_the_place_where_jobs_are_submitted_is_no_cluster_to_connect_to(address):
    text = refusal(address)
    assert address in text
    assert "ray_jobs/submit.py" in text
    assert "RAY_API_SERVER_ADDRESS" in text


@pytest.mark.parametrize("address", ["headnode", "headnode:gcs", "tcp://h:1", "h:99999999", "ray://", ":6379"])
def test_what_is_no_address_is_refused(address):
    assert "host:6379" in refusal(address, "cluster.address")
    with pytest.raises(ConfigError):
        check_form(address, "cluster.address")


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_host_that_is_away_is_named(scheme):
    port = free_port()
    text = refusal(f"{scheme}127.0.0.1:{port}")
    assert f"no Ray answers at 127.0.0.1:{port}" in text
    assert "refused" in text
    assert "ray start --head" in text


def test_a_host_without_a_name_is_named():
    assert "no-such-host.invalid:6379" in refusal("no-such-host.invalid:6379")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
def test_another_server_is_not_taken_for_ray(answer):
    with listening(answer) as address:
        assert f"no Ray answers at {address}" in refusal(address)


def test_auto_without_a_ray_on_this_machine(monkeypatch):
    def none_found(_address):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray_address.services, "canonicalize_bootstrap_address", none_found)
    assert "'auto', and no Ray runs on this machine" in refusal("auto")


def test_auto_may_find_what_runs_no_more(monkeypatch):
    """Ray keeps the address of the last head in a file."""
    monkeypatch.setattr(ray_address.services, "canonicalize_bootstrap_address", lambda _: f"127.0.0.1:{free_port()}")
    assert "'auto'" in refusal("auto", "cluster.address")


def test_forms_are_looked_at_without_a_network():
    for address in ("auto", "10.0.0.1:6379", "ray://head:10001", "[::1]:6379", "ray://head"):
        check_form(address, "cluster.address")
