"""`plan`: what cannot run is refused at once; what can is measured, kept and compared with what it took."""

import io
import json
import re
import shutil
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import ray
import yaml

from cropray.cli import main
from cropray.commands.plan import measure
from cropray.commands.plan import measure_zones as plan_zones
from cropray.commands.plan.measure_zones import ZoneSample, drawn_months, sample_order, zone_costs
from cropray.config import JobConfig
from cropray.core.errors import InputError
from cropray.core.progress import Progress
from cropray.imagery.sources.earth_engine.ledger import read_runs
from cropray.imagery.sources.earth_engine.traffic import earth_engine_traffic
from cropray.io.job_file import load_settings
from cropray.io.workspace import Workspace
from cropray.io.zones import read_zones
from tests.jobs import job, write_job
from tests.servers.earth_engine import EarthEngineServer
from tests.servers.earth_engine_catalogue import catalogue
from tests.synthetic import entry, grid, zone

STEPS = ("acquire", "label", "count", "build", "film")


class DiskUsage(NamedTuple):
    total: float
    used: float
    free: float


@pytest.fixture
def nothing_is_measured(monkeypatch):
    """Fails where a refusal comes too late."""

    def too_late(*_args, **_kwargs):
        raise AssertionError("it was measured before it was refused")

    monkeypatch.setattr(measure, "acquisition_of", too_late)
    monkeypatch.setattr(measure, "ray_session", too_late)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # the job would start its own


def refusal(capsys, config, *overrides):
    assert main(["plan", str(config), *(part for override in overrides for part in ("--set", override))]) == 1
    return capsys.readouterr().err


@pytest.mark.usefixtures("nothing_is_measured")
def test_more_workers_than_cpus_are_refused(landscape, tmp_path, capsys):
    config = write_job(job(landscape, tmp_path / "work"), tmp_path)
    message = refusal(capsys, config, "xgboost.num_workers=3")
    assert "one xgboost unit needs 3 workers of 1 CPU" in message
    assert "Set xgboost.num_workers to 1" in message
    assert "one cnn unit needs 1 CPU + 1 GPU" in refusal(capsys, config, "cnn.use_gpu=true")


@pytest.mark.usefixtures("nothing_is_measured")
def test_a_country_needs_disk_and_object_store(landscape, tmp_path, capsys, monkeypatch):
    # The 40 zones that come with cropray: 40 million pixels.
    config = write_job(job(landscape, tmp_path / "work", zone_table=None), tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(2e9, 1.9e9, 1e8))
    message = refusal(capsys, config)
    assert "the workspace needs 1.76 GB, its disk has 0.1 GB free" in message
    assert (
        "the training data takes 0.346 GB of Ray's object store, a node has 0.2 GB and 0.1 GB free on the disk"
        in message
    )


@pytest.mark.usefixtures("nothing_is_measured")
def test_what_stated_nodes_cannot_run_is_refused(landscape, tmp_path, capsys):
    config = write_job(job(landscape, tmp_path / "work", plan={"nodes": [2], "cpus": 4}), tmp_path)
    message = refusal(capsys, config, "cnn.use_gpu=true")
    assert "one cnn unit needs 1 CPU + 1 GPU" in message
    assert "2 nodes of 4 CPUs" in message
    with pytest.raises(AssertionError, match="it was measured"):
        main(["plan", str(config)])


def test_the_first_zone_of_each_worker_does_not_count():
    # Processes 7 and 8 take 2 s a step for their first zone and 1 s for later ones.
    samples = [
        ZoneSample(zone(f"z-{i}"), entry(f"z-{i}"), process, dict.fromkeys(STEPS, s), 10**9)
        for i, (process, s) in enumerate(((7, 2.0), (8, 2.0), (7, 1.0), (8, 1.0)))
    ]
    sizes = {"composites": 400, "labels": 40, "dataset": 80, "report": 20}  # of the four together
    costs = zone_costs(samples, sizes, 64 * 64 * 2)
    assert costs.seconds["acquire"] == pytest.approx(2.0)  # 1 s for 64 × 64 pixels; the job's zones have twice as many
    assert costs.bytes["composites"] == pytest.approx(200)
    assert costs.bytes["report"] == pytest.approx(5)  # pictures have the same size whatever the zone's
    # Where no worker made a second one, the first must do.
    alone = zone_costs(samples[:2], sizes, 64 * 64)
    assert alone.seconds["acquire"] == 2.0


class OneWorker:
    """Stands for Ray: one task after the other, each of which takes 8 s, but for zone `z-3`, which fails."""

    exceptions = ray.exceptions
    now = 0.0

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=lambda job, zone, scratch: zone)

    def get(self, of):
        self.now += 8
        if of.zone_id == "z-3":
            raise ray.exceptions.RayTaskError("measure_zone", "trace", InputError("no parcels"))
        return ZoneSample(of, entry(of.zone_id), 7, {"acquire": 8.0}, 10**9)

    def monotonic(self):
        return self.now


def test_zones_are_made_until_the_time_is_spent(monkeypatch):
    told, zones = io.StringIO(), [zone(f"z-{i}") for i in range(9)]

    def made(budget_s, n_at_once):
        worker = OneWorker()
        for name, value in {"ray": worker, "time": worker, "BUDGET_S": budget_s}.items():
            monkeypatch.setattr(plan_zones, name, value)
        samples = plan_zones.measure_zones(None, zones, None, n_at_once, Progress(told))
        return [sample.zone.zone_id for sample in samples]

    assert made(0, 1) == ["z-0"]  # whatever it takes
    assert "1/1 sampled zones  z-0" in told.getvalue()
    assert made(17, 1) == ["z-0", "z-1", "z-2"]  # 16 s after the first, a fourth would end at 24
    assert made(0, 3) == ["z-0", "z-1", "z-2"]  # the first of each worker
    with pytest.raises(InputError, match=r"^no parcels"):
        made(17, 2)


def test_a_sample_takes_one_zone_of_each_region_first():
    zones = [zone(f"{region}-{n}", region=region) for region in ("north", "south") for n in (1, 2, 3)]
    order = [z.zone_id for z in sample_order(zones)]
    assert order == ["north-1", "south-1", "north-2", "south-2", "north-3", "south-3"]


def test_drawn_months_have_no_gap():
    composite, n_obs = drawn_months(grid(50))
    assert composite.shape == (12, 4, 50, 50)
    assert composite.dtype == "uint16"
    assert composite.min() > 0
    assert n_obs.shape == (12, 50, 50)
    assert n_obs.min() > 0


@pytest.mark.slow
@pytest.mark.ray
def test_disk_is_within_a_quarter_of_what_the_run_took(finished, capsys):
    workspace = load_settings(JobConfig, finished).artefacts
    assert main(["plan", str(finished)]) == 0
    out = capsys.readouterr().out
    (head,) = [line for line in out.splitlines() if "planned/actual" in line]
    assert head.split() == ["planned", "actual", "planned/actual"]
    _, disk = [float(line.split()[-1]) for line in out.splitlines() if re.match(r" +total ", line)]
    assert 0.75 <= disk <= 1.25, out  # hours depend on what else the machine does: they are compared by hand
    assert "at most" in out
    kept = json.loads(workspace.plan.read_text())
    assert kept["units"]["search"] == [
        "units",
        8,
    ]  # XGBoost 2 configurations in one fit, CNN 1: 2 × 3 folds, and 2 refits
    assert not list(workspace.root.glob(".plan-*"))


@pytest.mark.slow
@pytest.mark.ray
def test_traffic_is_within_a_quarter_of_what_earth_engine_was_asked_for(landscape, ray_local, tmp_path):
    with EarthEngineServer(catalogue(landscape.scenes.rglob("*.tif"))) as server:
        imagery = server.settings(max_concurrent=2, max_requests_per_s=50)
        config = write_job(job(landscape, tmp_path / "work", imagery=imagery.model_dump()), tmp_path)
        assert main(["acquire", str(config)]) == 0
        n_requests, n_bytes = len(server.requests), read_runs(Workspace(tmp_path / "work"))[0]["bytes"]
    planned = earth_engine_traffic(imagery, [zone.grid for zone in read_zones(landscape.zones)])
    assert planned.requests == pytest.approx(n_requests, rel=0.25)
    assert planned.bytes == pytest.approx(n_bytes, rel=0.25)


@pytest.mark.slow
@pytest.mark.ray
def test_the_promise_stands_once_something_has_run(finished, landscape, ray_local, tmp_path, capsys, monkeypatch):
    content = yaml.safe_load(finished.read_text()) | {"workspace": str(tmp_path / "work")}
    content["search"] = {**content["search"], "models": ["xgboost"]}
    config = write_job(content, tmp_path)
    assert main(["plan", str(config)]) == 0
    assert "actual" not in capsys.readouterr().out
    before = Workspace(tmp_path / "work").plan.read_text()
    assert main(["labels", str(config)]) == 0
    monkeypatch.setattr(measure, "ray_session", None)  # a second plan measures nothing
    assert main(["plan", str(config)]) == 0
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if re.search(r"^ +labels .* s ", line)]
    assert len(row.split()) >= 6  # label, planned, actual, ratio
    assert Workspace(tmp_path / "work").plan.read_text() == before


@pytest.mark.slow
@pytest.mark.ray
def test_a_stated_cluster_is_planned_and_nothing_is_kept(finished, capsys):
    workspace = load_settings(JobConfig, finished).artefacts
    before = workspace.plan.read_text() if workspace.plan.exists() else None
    stated = ["plan.nodes=[1,2,8]", "plan.cpus=2", "plan.gpus=1", "cnn.use_gpu=true", "cnn.num_workers=1"]
    assert main(["plan", str(finished), *(part for value in stated for part in ("--set", value))]) == 0
    out = capsys.readouterr().out
    (head,) = [line for line in out.splitlines() if line.startswith("time ")]
    assert head.split() == ["time", "1", "node", "2", "nodes", "8", "nodes"]
    (shares,) = [line.split()[1:] for line in out.splitlines() if line.startswith("efficiency")]
    assert shares[0] == "100%"
    assert 100 > float(shares[1].strip("%")) > float(shares[2].strip("%"))
    assert "8 nodes: xgboost" in out
    assert "assumed: NOT MEASURED: one GPU" in out
    assert "assumed: a CPU there is 1 ×" in out
    assert (workspace.plan.read_text() if workspace.plan.exists() else None) == before
