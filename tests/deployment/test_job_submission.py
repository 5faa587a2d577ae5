"""`ray job submit` from a clean clone to a cluster that has only Ray, and what stops it."""

import json
import signal
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.deployment.bare_cluster import BareCluster, clone, make_environment
from tests.study import FEATURE_COLUMNS

# The environment and the first job on it install some gigabytes.
pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.ray, pytest.mark.timeout(2400)]

SECRET = "planted-secret-1f9a"
# These belong to the cluster, not to a job; agents have such names where Ray can set the title of a process.
RAY_OWN = ("IDLE", "JobSupervisor", "_StatsActor", "_AutoscalingCoordinatorActor", "DashboardAgent", "RuntimeEnvAgent")
RUNTIME = ["--working-dir", ".", "--runtime-env", "ray_jobs/runtime_env.yaml"]
ZONES = {f"{region}-{i}": (region, "test" if i == 4 else "train") for region in ("a", "b") for i in range(5)}


@pytest.fixture(scope="module")
def python(request):
    return make_environment(request.config.cache.mkdir("bare-ray"))


@pytest.fixture(scope="module")
def cluster(python):
    with BareCluster(python) as running:
        yield running


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clean clone in which somebody has worked: data, results, an environment and a secret lie about."""
    folder = clone(tmp_path_factory.mktemp("clone") / "cropray")
    for name in ("data/scenes/a.tif", "demo/work/model.ubj", ".venv/lib/big.so", "work/dataset/part-0.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(3_000_000))
    for name in (".env", "mlflow/.env", "google-credentials.json", "cluster.pem"):
        (folder / name).write_text(SECRET)
    (folder / "jobs.yaml").write_text(yaml.safe_dump(points_job(folder.parent, n_estimators=[4, 8])))
    return folder


@pytest.fixture(scope="module")
def dataset(cluster, checkout):
    """The first job on the cluster: it installs what the runtime environment names, and makes the dataset."""
    done = cluster.job("submit", *RUNTIME, "--", "python", "ray_jobs/dataset.py", "jobs.yaml", cwd=checkout)
    assert done.returncode == 0, done.stdout + done.stderr


def points_job(folder, n_estimators):
    """A job on a drawn table of points: two classes that one feature tells apart."""
    rng = np.random.default_rng(0)
    zone_id = [zone for zone in ZONES for _ in range(60)]
    label = rng.integers(0, 2, len(zone_id))
    columns = {
        "zone_id": zone_id,
        "region": [ZONES[zone][0] for zone in zone_id],
        "split": [ZONES[zone][1] for zone in zone_id],
        "label": np.where(label == 1, "wheat", "maize"),
        "lon": [2 + list(ZONES).index(zone) / 10 for zone in zone_id],  # 7 km apart
        "lat": rng.uniform(48, 49, len(zone_id)),
        **{column: rng.integers(1, 9000, len(zone_id)).astype(np.uint16) for column in FEATURE_COLUMNS},
    }
    columns["B08_06"] = (3000 + 3000 * label).astype(np.uint16)
    pq.write_table(pa.table(columns), folder / "points.parquet")
    return {
        "name": "points",
        "workspace": str(folder / "points"),
        "points": {"path": str(folder / "points.parquet")},
        "search": {"models": ["xgboost"], "xgboost": {"n_estimators": n_estimators, "learning_rate": [0.3]}},
    }


def follow(cluster, checkout, command):
    """A submission, running; its output is read line by line."""
    return subprocess.Popen(
        command,
        cwd=checkout,
        env={**cluster.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(submission, part, limit_s=900):
    """Output up to the first line that holds `part`."""
    lines, end = [], time.monotonic() + limit_s
    for line in submission.stdout:
        lines.append(line)
        if part in line:
            return lines
        assert time.monotonic() < end, lines
    raise AssertionError(f"'{part}' did not come: {''.join(lines[-40:])}")


def work_left(cluster, limit_s=60):
    """Processes of a job that still run after this time."""
    end = time.monotonic() + limit_s
    while True:
        drivers = cluster.processes("ray_jobs/search_xgboost.py")
        actors = [p for p in cluster.processes("ray::") if not any(name in p[1] for name in RAY_OWN)]
        if not drivers + actors or time.monotonic() > end:
            return drivers + actors
        time.sleep(0.5)


def test_the_cluster_has_only_ray(python, tmp_path):
    for module in ("mlflow", "xgboost", "torch", "cropray", "rasterio"):
        done = subprocess.run([python, "-c", f"import {module}"], cwd=tmp_path, capture_output=True, check=False)
        assert b"ModuleNotFoundError" in done.stderr, module


def test_nobody_submits_without_the_token(cluster, checkout):
    command = [*cluster._ray(), "job", "list"]
    environment = {**cluster.environment, "RAY_AUTH_TOKEN": "another"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "401" in done.stderr or "nauthorized" in done.stderr or "authenticat" in done.stderr.lower()


def test_a_search_from_a_clean_clone(cluster, checkout, dataset):
    command = [*cluster._ray(), "job", "submit", *RUNTIME, "--", "python", "ray_jobs/search_xgboost.py", "jobs.yaml"]
    submission = follow(cluster, checkout, command)
    lines = [(time.monotonic(), line) for line in submission.stdout]
    output = "".join(line for _, line in lines)
    assert submission.wait() == 0, output
    # Logs are streamed, not delivered at the end: the first line of the stage is seconds older than the last.
    started = next(at for at, line in lines if "units of (configuration, fold)" in line)
    assert lines[-1][0] - started > 1, output
    summary = json.loads((checkout.parent / "points" / "search" / "xgboost.json").read_text())
    assert summary["configurations"][0]["val_accuracy_mean"] == 1
    assert work_left(cluster) == []


def test_data_and_secrets_never_travel(cluster, dataset):
    """After the first job: what lies on the node is code, and little of it."""
    (bundle, *_) = cluster.bundles()
    files = {path.relative_to(bundle).as_posix(): path.stat().st_size for path in bundle.rglob("*") if path.is_file()}
    assert "cropray/cli.py" in files
    assert "cropray/data/legend.csv" in files
    assert "ray_jobs/configs/france.yaml" in files
    assert sum(files.values()) < 2_000_000, sorted(files.items(), key=lambda item: -item[1])[:10]
    folders = {name.partition("/")[0] for name in files}
    assert not folders & {".git", ".venv", "data", "demo", "work", "tests", "docs", "mlflow"}
    assert not [name for name in files if SECRET in (bundle / name).read_text(errors="replace")]


def test_a_job_that_fails_says_so(cluster, checkout):
    done = cluster.job(
        *("submit", *RUNTIME, "--", "python", "ray_jobs/search_xgboost.py", "jobs.yaml", "--set", "workspace=/none/x"),
        cwd=checkout,
    )
    assert done.returncode == 1
    assert "workspace" in done.stdout
    assert "cropray search:" in done.stdout


@pytest.fixture
def long_job(dataset, checkout):
    """A search that would run for a long time."""
    (checkout / "long.yaml").write_text(yaml.safe_dump(points_job(checkout.parent, n_estimators=[2_000_000])))
    return "long.yaml"


def test_ray_job_stop_stops_everything(cluster, checkout, long_job):
    command = [*cluster._ray(), "job", "submit", "--submission-id", "to-be-stopped", *RUNTIME]
    submission = follow(cluster, checkout, [*command, "--", "python", "ray_jobs/search_xgboost.py", long_job])
    read_until(submission, "units of (configuration, fold)")
    assert cluster.processes("ray_jobs/search_xgboost.py")
    assert cluster.job("stop", "to-be-stopped").returncode == 0
    rest = submission.stdout.read()
    assert "interrupted; what is finished is kept" in rest  # stopped in order, not killed
    submission.wait(timeout=60)
    assert work_left(cluster) == []


def test_ctrl_c_stops_everything(cluster, checkout, long_job):
    command = [str(cluster.python), "ray_jobs/submit.py", "search_xgboost", long_job]
    submission = follow(cluster, checkout, command)
    read_until(submission, "units of (configuration, fold)")
    assert cluster.processes("ray_jobs/search_xgboost.py")
    submission.send_signal(signal.SIGINT)
    assert "stopping job" in submission.stdout.read()
    assert submission.wait(timeout=120) == 130
    assert work_left(cluster) == []


def test_the_submitter_passes_the_exit_code_on(cluster, checkout, dataset):
    for arguments, code in ((["search_xgboost", "nowhere.yaml"], 1), (["search_trees", "jobs.yaml"], 2)):
        submission = follow(cluster, checkout, [str(cluster.python), "ray_jobs/submit.py", *arguments])
        output = submission.stdout.read()
        assert submission.wait() == code, output
    submission = follow(cluster, checkout, [str(cluster.python), "ray_jobs/submit.py", "search_xgboost", "jobs.yaml"])
    output = submission.stdout.read()
    assert submission.wait() == 0, output
