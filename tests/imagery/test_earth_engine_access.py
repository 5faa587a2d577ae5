"""Connecting: credentials, and what is said when there are none."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cropray.imagery.sources.earth_engine.client import EarthEngine, EarthEngineError
from tests.imagery.earth_engine_may import may, write_may
from tests.servers.earth_engine import PROJECT, EarthEngineServer
from tests.servers.earth_engine_catalogue import catalogue


@pytest.fixture
def server(tmp_path):
    with EarthEngineServer(catalogue(write_may(tmp_path / "scenes").iterdir())) as running:
        yield running


def key_file(folder, server):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    path = folder / "key.json"
    content = {
        "type": "service_account", "project_id": PROJECT, "private_key_id": "1", "private_key": pem,
        "client_email": f"crops@{PROJECT}.iam.gserviceaccount.com", "client_id": "1", "token_uri": f"{server.url}/token",
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return path


def test_a_service_account_s_key_file_gives_access(server, tmp_path, monkeypatch):
    server.token = "secret"
    with pytest.raises(EarthEngineError, match="refuses the credentials"):
        EarthEngine(server.settings())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path, server)))
    client = EarthEngine(server.settings(credentials="default"))
    assert client.month(may(client)).n_obs.any()


def test_missing_credentials_say_what_to_do(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(EarthEngineError, match="earthengine authenticate"):
        EarthEngine(server.settings(credentials="default"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nowhere.json"))
    with pytest.raises(EarthEngineError, match=r"GOOGLE_APPLICATION_CREDENTIALS cannot be used.*nowhere.json"):
        EarthEngine(server.settings(credentials="default"))
    assert not server.requests


def test_no_server_is_said_after_all_attempts(server):
    gone = server.settings(endpoint="http://127.0.0.1:9", max_attempts=2)
    with pytest.raises(EarthEngineError, match=r"2 × ConnectionError"):
        EarthEngine(gone)
