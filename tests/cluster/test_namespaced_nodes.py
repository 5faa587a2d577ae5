"""A search on nodes that share nothing but a network: the workspace on S3, tracking over HTTP."""

import contextlib
import re
import sys

import pytest
import yaml

from cropray.config import JobConfig
from cropray.io.job_file import load_settings
from cropray.io.storage import as_location, files_below, relative
from cropray.io.workspace import Workspace
from tests.chaos.matrix import history
from tests.cluster.namespaces import PORT, NamespacedCluster, why_not
from tests.servers.s3 import S3Server
from tests.servers.tracking import TrackingServer

PATIENCE_S = 400
# The job file comes by standard input: the nodes do not see this test's folders.
_SEARCH = 'cat > job.yaml; exec "$0" -m cropray.cli search job.yaml'

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]


@pytest.fixture
def network(tmp_path):
    """A bridge without nodes, an S3 server and an MLflow server on it."""
    if reason := why_not():
        pytest.skip(reason)
    (tmp_path / "mlflow").mkdir()
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(NamespacedCluster(tmp_path))
        s3 = stack.enter_context(S3Server(host=cluster.host))
        stack.enter_context(s3.in_environment())  # which the nodes inherit
        yield cluster, s3, stack.enter_context(TrackingServer(tmp_path / "mlflow", cluster.host))


def results(workspace):
    """Artefact of the search → bytes, but for times."""
    names = [workspace.search_result(model) for model in ("cnn", "xgboost")]
    files = names + [file for model in ("cnn", "xgboost") for file in files_below(workspace.model(model))]
    return {relative(file, workspace.root): file.read_bytes() for file in files}


def unit_results(workspace):
    units = [file for file in files_below(workspace.root / "search") if file.name == "result.json"]
    return {relative(file, workspace.root): re.sub(r'"seconds": [0-9.e-]+', "", file.read_text()) for file in units}


def test_two_nodes_end_with_the_bits_of_one_machine(finished, network):
    cluster, s3, tracking = network
    here = load_settings(JobConfig, finished).artefacts
    there = Workspace(as_location(f"s3://{s3.bucket}/job"))
    for file in files_below(here.root / "dataset"):
        (there.root / relative(file, here.root)).write_bytes(file.read_bytes())
    content = yaml.safe_load(finished.read_text()) | {"workspace": str(there.root), "tracking_uri": tracking.url}
    head, worker = [cluster.add_node() for _ in range(2)]
    content["cluster"] = {"address": f"{head.address}:{PORT}"}
    command = ["sh", "-c", _SEARCH, sys.executable]
    done = cluster.run(head, command, input=yaml.safe_dump(content), timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    assert results(there) == results(here)
    assert unit_results(there) == unit_results(here)
    of_here = history(f"sqlite:///{here.mlflow_database}", content["name"])
    of_there = history(tracking.url, content["name"])
    assert of_there == {point: n for point, n in of_here.items() if point in of_there}
    assert sum(of_there.values()) > 0
    # Who wrote a unit's result trained it. Two units at a time, one per node: neither node trained all of them.
    units = {f"/{s3.bucket}/job/{name}" for name in unit_results(there)}
    trained_on = {path: node for path, node in s3.writers("/result.json").items() if path in units}
    assert len(trained_on) == 8
    assert set(trained_on.values()) == {head.address, worker.address}
