"""The deployed tracking server, whole: `mlflow/serve.sh` over a real PostgreSQL and a real S3 server."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.servers.mlflow import ADMIN_PASSWORD, SCRIPT, TrackingServer
from tests.servers.postgres import PASSWORD, PostgresServer, require_postgres
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
ADMIN = ("admin", ADMIN_PASSWORD)
ALICE = ("alice", "twelve characters or more")
NEW_USER = {"username": ALICE[0], "password": ALICE[1]}
REQUIRED = [
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_ARTIFACTS_DESTINATION",
    "MLFLOW_SERVER_ALLOWED_HOSTS",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
]
CLIENT = """
import json, sys
from pathlib import Path
from mlflow import MlflowClient
from cropray.tracking import Tracker
from tests.tracking_history import prepare, run_history

folder, uri = Path(sys.argv[1]), sys.argv[2]
workspace = prepare(folder)
(workspace.model("cnn") / "model.ubj").write_bytes(b"trees")
(workspace.evaluation("cnn") / "cube.json").write_text('{"cube": 1}')
tracker = Tracker(workspace, "landscape", uri)
answer = {"missed": run_history(tracker, workspace), "run": None}
if not answer["missed"]:
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("landscape").experiment_id
    (run,) = client.search_runs([experiment], "tags.`cropray.key` = 'evaluate/cnn/e1'")
    run = run.info
    answer["run"] = run.run_id
    answer["version"] = str(client.search_model_versions("name = 'landscape'")[0].version)
    answer["artifact"] = Path(client.download_artifacts(run.run_id, "cube.json", str(folder))).read_text()
    champion = client.get_model_version_by_alias("landscape", "champion")
    answer["source"], answer["metrics"] = champion.source, client.get_run(run.run_id).data.metrics
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    require_postgres()
    folder = tmp_path_factory.mktemp("postgres")
    # pytest's folders are closed to others, and PostgreSQL runs as another user.
    for path in (
        folder,
        *itertools.takewhile(lambda above: above.name.startswith(("pytest", "popen")), folder.parents),
    ):
        path.chmod(0o711)
    with PostgresServer(folder / "server") as server:
        yield server


@pytest.fixture(scope="module")
def store():
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def server(database, store, tmp_path_factory):
    artifacts = f"s3://{store.bucket}/mlflow"
    with TrackingServer(tmp_path_factory.mktemp("mlflow") / "server", database.uri, artifacts, _keys(store)) as running:
        yield running


def _keys(store):
    return {**store.environment(), "MLFLOW_S3_ENDPOINT_URL": store.url}


def objects(store):
    import boto3

    session = boto3.session.Session(store.key_id, store.secret, region_name="us-east-1")
    client = session.client("s3", endpoint_url=store.url)
    found = client.list_objects_v2(Bucket=store.bucket).get("Contents", [])
    return {item["Key"]: client.get_object(Bucket=store.bucket, Key=item["Key"])["Body"].read() for item in found}


def use_tracker(folder, uri, user):
    """A job's writes in a process that knows one user, and no key of the bucket."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
    environment["HOME"] = str(folder)
    environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "120"  # a busy machine is no failure
    if user:
        environment["MLFLOW_TRACKING_USERNAME"], environment["MLFLOW_TRACKING_PASSWORD"] = user
    command = [sys.executable, "-c", CLIENT, str(folder), uri]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_nobody_is_served_without_a_password(server):
    search = {"experiment_ids": ["0"]}
    assert server.status("/api/2.0/mlflow/runs/search", body=search) == 401
    assert server.status("/api/2.0/mlflow-artifacts/artifacts") == 401
    assert server.status("/", ("admin", "password1234")) == 401  # the default of older versions
    assert server.status("/api/2.0/mlflow/runs/search", ADMIN, search) == 200


def test_foreign_host_names_are_refused(server):
    assert server.status("/api/2.0/mlflow/experiments/get?experiment_id=0", ADMIN, host="evil.example.org") == 403


def test_a_job_writes_with_the_credentials_of_its_environment(server, store, tmp_path):
    assert server.status("/api/2.0/mlflow/users/create", body=NEW_USER) == 401
    assert server.status("/api/2.0/mlflow/users/create", ADMIN, NEW_USER) == 200
    answer, output = use_tracker(tmp_path, server.url, ALICE)
    assert (answer["missed"], answer["version"], answer["artifact"]) == (0, "1", '{"cube": 1}')
    assert answer["metrics"] == {"test_loss": 0.6}
    assert answer["source"].startswith("mlflow-artifacts:")
    held = objects(store)
    assert [body for key, body in held.items() if key.endswith("/cube.json")] == [b'{"cube": 1}']
    assert [body for key, body in held.items() if key.endswith("/model.ubj")] == [b"trees"]
    assert all(key.startswith("mlflow/") for key in held)
    assert ALICE[1] not in output


def test_without_credentials_a_job_writes_nothing_and_goes_on(server, database, tmp_path):
    before = database.query("select count(*) from runs")
    answer, _ = use_tracker(tmp_path, server.url, None)
    assert answer["missed"] > 0
    assert database.query("select count(*) from runs") == before


def test_a_restarted_server_knows_its_users_and_runs(server, database, store, tmp_path):
    """Everything lies in PostgreSQL and in the bucket: the server itself keeps nothing."""
    n_runs = database.query("select count(*) from runs")
    assert int(n_runs) >= 4
    assert database.query("select count(*) from users") == "2"
    with TrackingServer(tmp_path / "second", database.uri, f"s3://{store.bucket}/mlflow", _keys(store)) as second:
        answer, _ = use_tracker(tmp_path, second.url, ALICE)
    assert (answer["missed"], answer["version"]) == (0, "1")
    assert database.query("select count(*) from runs") == n_runs


def test_no_secret_in_the_log_or_in_the_list_of_processes(server, store):
    for secret in (PASSWORD, quote(PASSWORD, safe=""), ADMIN_PASSWORD, ALICE[1], store.secret):
        assert secret not in server.log
        assert secret not in server.command_line()


@pytest.mark.parametrize("missing", REQUIRED)
def test_the_script_says_which_setting_is_missing(missing):
    environment = {"PATH": "/usr/bin:/bin", **{name: "x" for name in REQUIRED if name != missing}}
    done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{missing} is not set" in done.stderr
    assert "mlflow/README.md" in done.stderr
