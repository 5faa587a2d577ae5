"""Zones are scored and mapped where `map.device` says, on a GPU that Ray was asked for."""

import contextlib

import pytest
import yaml

from cropray.cluster import zone_jobs
from cropray.cluster.placement import Node
from cropray.cluster.zone_jobs import ZoneTask
from cropray.core.closure import Code
from cropray.core.errors import ConfigError
from cropray.stages import devices, evaluate, pipeline
from cropray.stages import map as map_stage
from cropray.stages.devices import device_of, require_devices
from cropray.stages.stage import Stage
from cropray.training.family import family
from tests.planning.test_estimate import job
from tests.synthetic import account, entry, manifest, zone


@pytest.fixture
def anything_is_there(monkeypatch):
    """Tasks are made without their inputs."""
    for module in (map_stage, evaluate):
        monkeypatch.setattr(module, "folder_hash", lambda _: "hash")
        monkeypatch.setattr(module, "closure", lambda *_: Code({}, {}, frozenset()))
    monkeypatch.setattr(map_stage, "_content", lambda *_: {})


def map_tasks(config, model):
    return map_stage._tasks(config, model, [zone("z-1")])


def count_tasks(config, model, monkeypatch):
    """What `evaluate` hands over to Ray."""
    told = []
    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(evaluate, "task_bytes", lambda: 1e9)
        patched.setattr(evaluate, "run_zone_tasks", lambda _, tasks, *__, **___: told.extend(tasks) or stop())
        evaluate._count_zones(config, model, manifest(entry("a"), entry("z-1", None), source="points"), None)
    return told


def begin(stage, *_):
    raise ConfigError(f"{stage.name} has begun")


def stop():
    raise KeyboardInterrupt


@pytest.mark.usefixtures("anything_is_there")
@pytest.mark.parametrize(("device", "model", "gpus"), [("cuda", "cnn", 1), ("cuda", "xgboost", 0), ("cpu", "cnn", 0)])
def test_zones_of_the_cnn_ask_for_a_gpu_and_load_the_model_there(device, model, gpus, monkeypatch):
    config = job(map={"device": device})
    loaded = []
    for module in (map_stage, evaluate):
        monkeypatch.setattr(module, "kept_model", lambda *given: loaded.append(given[-1]) or stop())
    for task in (*map_tasks(config, model), *count_tasks(config, model, monkeypatch)):
        assert task.gpus == gpus
        with pytest.raises(KeyboardInterrupt):
            task.run()
    assert loaded == ["cuda" if gpus else "cpu"] * 2


@pytest.mark.usefixtures("anything_is_there")
def test_another_device_or_more_zones_make_no_map_again():
    (before,) = map_tasks(job(), "cnn")
    for change in ({"device": "cuda"}, {"splits": "all"}):
        assert map_tasks(job(map=change), "cnn")[0].inputs == before.inputs
    assert map_tasks(job(map={"window_px": 64}), "cnn")[0].inputs != before.inputs


def test_ray_is_asked_for_the_gpus_of_a_task(monkeypatch):
    asked = []

    class Remote:
        def options(self, **options):
            asked.append(options)
            return self

        def remote(self, task, *_):
            return task.zone_id

    monkeypatch.setattr(zone_jobs, "_remote_attempt", Remote())
    monkeypatch.setattr(zone_jobs.ray, "cluster_resources", dict)
    monkeypatch.setattr(zone_jobs.ray, "wait", lambda refs, **_: (refs[:1], refs[1:]))
    monkeypatch.setattr(zone_jobs.ray, "get", lambda ref: ref)
    tasks = [ZoneTask("a", stop, account(), ()), ZoneTask("b", stop, account(), (), gpus=1)]
    assert sorted(zone_jobs.on_ray(tasks, "map", None)) == ["a", "b"]
    assert asked == [{"num_gpus": 0}, {"num_gpus": 1}]


@pytest.mark.parametrize("nodes", [[Node(8)], [Node(8), Node(0, 2)]])
def test_a_cluster_without_a_gpu_is_refused_at_once(nodes, monkeypatch):
    monkeypatch.setattr(devices, "live_nodes", lambda: nodes)
    monkeypatch.setattr("cropray.cluster.placement.live_nodes", lambda: nodes)
    monkeypatch.setattr("cropray.cluster.placement.request_resources", lambda **_: None)
    config = job(map={"device": "cuda"})
    with pytest.raises(ConfigError, match=r"map\.device is 'cuda'.*node\(s\) have . GPU\(s\).*Set map\.device to cpu"):
        require_devices(config, ("xgboost", "cnn"))
    require_devices(config, ("xgboost",))
    require_devices(job(), ("xgboost", "cnn"))
    nodes.append(Node(1, 1))
    require_devices(config, ("cnn",))


def test_a_torch_without_gpus_refuses_the_model(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"map\.device asks for a GPU, but torch .* sees none.*map\.device to cpu"):
        family("cnn").load(tmp_path, "cuda")


def test_trees_predict_on_cpus():
    assert device_of(job(map={"device": "cuda"}), "xgboost") == "cpu"


@pytest.mark.parametrize(
    ("stages", "search", "refusal"),
    [
        (("labels", "map"), {}, r"Set map\.device to cpu"),
        (("dataset", "search"), {}, r"Set map\.device to cpu"),
        (("dataset", "search"), {"oof_rows": 0}, "dataset has begun"),
    ],
)
def test_a_run_is_refused_before_its_first_stage(monkeypatch, tmp_path, stages, search, refusal):
    config = tmp_path / "job.yaml"
    content = job(map={"device": "cuda"}, workspace=tmp_path / "work", search=search).model_dump(mode="json")
    config.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(pipeline, "check_job", lambda *_: None)
    monkeypatch.setattr(pipeline, "ray_session", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(Stage, "run", begin)
    monkeypatch.setattr(devices, "live_nodes", lambda: [Node(8)])
    monkeypatch.setattr("cropray.cluster.placement.live_nodes", lambda: [Node(8)])
    with pytest.raises(ConfigError, match=refusal):
        pipeline.run_stages(stages, config, ())


def test_windows_take_no_more_than_the_gpu_has_free(monkeypatch):
    monkeypatch.setattr("cropray.training.deep.device.free_gpu_bytes", lambda: 3e9)
    assert devices.memory_of(8e9, "cuda") == 3e9
    assert devices.memory_of(2e9, "cuda") == 2e9
    assert devices.memory_of(8e9, "cpu") == 8e9
