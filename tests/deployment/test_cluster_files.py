"""cluster.yaml by Ray's own validator, rayjob.yaml and compose.yaml by what has to agree in them."""

import copy
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError

from tests.deployment.pinned import ROOT, constraints, pinned

SECRET_NAME = re.compile("PASSWORD|SECRET|TOKEN|ACCESS_KEY")


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture
def cluster():
    return load("cluster.yaml")


@pytest.fixture
def job():
    return load("ray_jobs/rayjob.yaml")["spec"]


def versions_of_ray(text):
    return set(re.findall(r"rayproject/ray:(\d+\.\d+\.\d+)", text)) | set(re.findall(r"rayVersion: (\S+)", text))


def validate(cluster):
    """What `ray up` does before it calls the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["head_node_type"] in types
    for kind in types.values():
        assert 0 <= kind.get("min_workers", 0) <= kind["max_workers"] <= prepared["max_workers"]
    return prepared


def test_ray_accepts_the_cluster(cluster):
    prepared = validate(cluster)
    assert prepared["available_node_types"].keys() == {"head", "cpu", "gpu"}
    assert prepared["docker"]["run_options"] == cluster["docker"]["run_options"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.update(max_wrokers=3),
        lambda c: c.update(head_node_type="nope"),
        lambda c: c["available_node_types"]["gpu"].update(min_worker=1),
        lambda c: c["available_node_types"]["gpu"].update(min_workers=5),
        lambda c: c["available_node_types"]["cpu"].update(max_workers=99),
    ],
)
def test_the_validation_can_fail(cluster, spoil):
    spoil(cluster)
    with pytest.raises((AssertionError, ValidationError, ValueError)):
        validate(cluster)


def test_the_head_is_on_demand_and_works_for_nobody(cluster):
    kinds = cluster["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"]
    assert all(kinds[kind]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for kind in ("cpu", "gpu"))
    assert kinds["gpu"]["resources"]["GPU"] >= 1
    assert "GPU" not in kinds["cpu"]["resources"]


def test_nothing_of_the_cluster_is_public(cluster):
    """Tokens are asked for, and the dashboard is on loopback; who comes in is the security group's business."""
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert any(path.endswith("/.ray/auth_token") for path in cluster["file_mounts"])
    start = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in start


def test_every_node_installs_the_requirements_of_jobs(cluster):
    commands = {kind: cluster["available_node_types"][kind]["worker_setup_commands"] for kind in ("cpu", "gpu")}
    commands["head"] = cluster["head_setup_commands"]
    (target,) = [remote for remote, local in cluster["file_mounts"].items() if local == "ray_jobs/requirements.txt"]
    for kind, lines in commands.items():
        assert [f"--requirement {target}" in line for line in lines if "install" in line].count(True) == 1, kind
        assert f"--requirement {target}" in lines[0 if kind == "gpu" else -1], kind
        for version in re.findall(r"torch==(\S+)", " ".join(lines)):
            assert version == constraints()["torch"].partition("==")[2]


def test_requirements_of_jobs_are_those_of_cropray():
    """A version changed in constraints.txt, or a new requirement: the message of `pinned` says how to make the file again."""
    assert (ROOT / "ray_jobs" / "requirements.txt").read_text().splitlines() == pinned()
    assert "ray" not in {line.partition("==")[0] for line in pinned()}


@pytest.mark.parametrize("name", ["cluster.yaml", "ray_jobs/rayjob.yaml"])
def test_images_hold_the_ray_that_was_tested(name):
    text = (ROOT / name).read_text()
    assert versions_of_ray(text) == {constraints()["ray"].partition("==")[2]}
    assert set(re.findall(r"rayproject/ray:\S+-(py\d+)-", text)) == {"py311"}


def groups(job):
    """Name → (group, its only container) of head and workers."""
    spec = job["rayClusterSpec"]
    found = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}
    return {name: (group, *group["template"]["spec"]["containers"]) for name, group in found.items()}


def test_the_job_runs_a_script_that_exists(job):
    script, config = job["entrypoint"].split()[1:3]
    assert (ROOT / script).is_file()
    assert (ROOT / config).is_file()
    assert "#" not in job["entrypoint"]
    assert job["shutdownAfterJobFinishes"] is True
    runtime = yaml.safe_load(job["runtimeEnvYAML"])
    (requirement,) = runtime["pip"]
    assert (ROOT / requirement.partition("}/")[2]).is_file()
    assert runtime["env_vars"].items() <= load("ray_jobs/runtime_env.yaml")["env_vars"].items()


def test_settings_that_the_job_changes_exist(job, monkeypatch):
    """The command of the manifest is a job that cropray accepts, but for the bucket's name."""
    from cropray.config import JobConfig
    from cropray.io.job_file import load_settings

    _, _, config, *options = job["entrypoint"].split()
    overrides = [text for text in options if text != "--set"]
    assert {text.partition("=")[0] for text in overrides} >= {"workspace", "tracking_uri", "cnn.use_gpu"}
    monkeypatch.chdir(ROOT)
    load_settings(JobConfig, Path(config), [text for text in overrides if not text.startswith("workspace=")])


def gibibytes(text):
    return int(text.removesuffix("Gi"))


def test_the_command_in_the_cluster_file_is_a_job(monkeypatch):
    """But for the bucket's name."""
    from cropray.config import JobConfig
    from cropray.io.job_file import load_settings

    lines = [line.removeprefix("#").partition(" # ")[0] for line in (ROOT / "cluster.yaml").read_text().splitlines()]
    start = next(n for n, line in enumerate(lines) if "submit.py" in line)
    _, script, stage, config, *options = " ".join(lines[start : start + 3]).replace("\\", "").split()
    assert (ROOT / script).is_file()
    assert (ROOT / f"ray_jobs/{stage}.py").is_file()
    overrides = [text for text in options if text != "--set"]
    assert {"workspace", "tracking_uri", "cnn.use_gpu"} <= {text.partition("=")[0] for text in overrides}
    monkeypatch.chdir(ROOT)
    load_settings(JobConfig, Path(config), [text for text in overrides if not text.startswith("workspace=")])


@pytest.mark.parametrize(("given", "seen"), [("", "none"), ("http://minio:9000", "http://minio:9000")])
def test_an_empty_address_of_the_store_is_none(tmp_path, given, seen):
    """Compose sets the variable to nothing where AWS is meant, and boto refuses an empty address."""
    (tmp_path / "mlflow").write_text('#!/bin/sh\necho "endpoint ${MLFLOW_S3_ENDPOINT_URL-none}"\n')
    (tmp_path / "mlflow").chmod(0o755)
    needed = ("BACKEND_STORE_URI", "ARTIFACTS_DESTINATION", "SERVER_ALLOWED_HOSTS", "FLASK_SERVER_SECRET_KEY")
    environment = {f"MLFLOW_{name}": "x" for name in (*needed, "AUTH_ADMIN_PASSWORD")}
    environment |= {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path), "MLFLOW_S3_ENDPOINT_URL": given}
    done = subprocess.run(["sh", ROOT / "mlflow/serve.sh"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"endpoint {seen}\n"


def test_groups_of_the_job_ask_for_what_they_get(job):
    found = groups(job)
    assert found.keys() == {"head", "cpu", "gpu"}
    for name, (group, container) in found.items():
        resources = container["resources"]
        assert resources["requests"] == resources["limits"], name
        assert int(resources["limits"]["cpu"]) >= 1
        assert re.fullmatch(r"\d+Gi", resources["limits"]["memory"])
        assert ("nvidia.com/gpu" in resources["limits"]) == (name == "gpu") == container["image"].endswith("-gpu")
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        # Ray takes 30 % of the memory for objects, and a folder on the disk where /dev/shm is smaller.
        (shm,) = group["template"]["spec"]["volumes"]
        assert gibibytes(shm["emptyDir"]["sizeLimit"]) >= 0.3 * gibibytes(resources["limits"]["memory"]), name
    assert int(found["gpu"][1]["resources"]["limits"]["nvidia.com/gpu"]) == 1
    assert found["head"][0]["rayStartParams"]["num-cpus"] == "0"


# CPUs and GiB of the machines that the file names, and the least that a kubelet, the system and daemons keep of them.
MACHINES = {"head": (4, 16), "cpu": (16, 64), "gpu": (8, 32)}


def test_pods_fit_the_machines_that_they_are_meant_for(job):
    """With the autoscaler's own container beside the head (0.5 CPU, 0.5 GiB)."""
    for name, (_, container) in groups(job).items():
        cpus, memory = MACHINES[name]
        limits = container["resources"]["limits"]
        assert int(limits["cpu"]) <= cpus - 1, name
        assert gibibytes(limits["memory"]) <= 0.9 * memory - 0.5 * (name == "head"), name


def test_memory_of_pods_is_counted_once(job):
    """As Ray's own autoscaler reads the groups: workers and object store together are the pod's memory, not 1.3 of it."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _get_ray_resources_from_group_spec

    for name, (group, container) in groups(job).items():
        resources = _get_ray_resources_from_group_spec(group, is_head=name == "head")
        limit = gibibytes(container["resources"]["limits"]["memory"]) * 2**30
        assert resources["memory"] == pytest.approx(0.7 * limit, rel=1e-6), name
        assert resources["CPU"] == (0 if name == "head" else int(container["resources"]["limits"]["cpu"]))
        assert resources.get("GPU", 0) == (name == "gpu")


def test_ray_s_autoscaler_reads_the_groups(job):
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.util import validate_config

    cluster = {"metadata": {"name": "cropray", "namespace": "default"}, "spec": job["rayClusterSpec"]}
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(config)
    kinds = config["available_node_types"]
    assert {name: (kind["min_workers"], kind["max_workers"]) for name, kind in kinds.items()} == {
        config["head_node_type"]: (0, 0),
        "cpu": (1, 8),
        "gpu": (0, 4),
    }


def test_workers_of_the_job_are_spot_and_the_head_is_not(job):
    found = groups(job)
    assert "tolerations" not in found["head"][0]["template"]["spec"]
    for name in ("cpu", "gpu"):
        group, _ = found[name]
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        ((label, value),) = group["template"]["spec"]["nodeSelector"].items()
        taints = {(t["key"], t.get("value")) for t in group["template"]["spec"]["tolerations"]}
        assert (label, value) in taints
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= 30


def test_secrets_of_the_job_are_references(job):
    spec = job["rayClusterSpec"]
    assert spec["authOptions"]["mode"] == "token"
    manifest = (ROOT / "ray_jobs" / "rayjob.yaml").read_text()
    made = set(re.findall(r"--from-literal=(\w+)=", manifest))
    for _, container in groups(job).values():
        names = [entry["name"] for entry in container["env"]]
        assert len(names) == len(set(names))
        for entry in container["env"]:
            if SECRET_NAME.search(entry["name"]):
                reference = entry["valueFrom"]["secretKeyRef"]
                assert reference["name"] == spec["authOptions"]["secretName"]
                assert reference["key"] in made
    assert "auth_token" in made


@pytest.fixture
def compose():
    return load("mlflow/compose.yaml")


def test_the_tracking_server_is_reached_by_loopback_only(compose):
    assert compose["services"]["server"]["ports"] == ["127.0.0.1:5000:5000"]
    assert "ports" not in compose["services"]["database"]


def test_every_secret_of_the_server_has_to_be_given(compose):
    settings = compose["services"]["server"]["environment"] | compose["services"]["database"]["environment"]
    for name, value in settings.items():
        if SECRET_NAME.search(name):
            assert re.fullmatch(r"\$\{" + name + r":\?[^}]+\}", value), name
    documented = (ROOT / "mlflow" / "README.md").read_text()
    for name in set(re.findall(r"\$\{(\w+)", str(settings))):
        assert f"{name}=" in documented, name


def test_the_server_gets_what_its_script_needs(compose):
    script = (ROOT / "mlflow" / "serve.sh").read_text()
    needed = set(re.findall(r"^need (\w+)", script, re.MULTILINE))
    assert needed
    assert needed <= compose["services"]["server"]["environment"].keys()


def test_the_image_is_built_from_files_that_exist(compose):
    build = compose["services"]["server"]["build"]
    assert (ROOT / "mlflow" / build["context"]).resolve() == ROOT
    lines = (ROOT / build["dockerfile"]).read_text().splitlines()
    for words in (line.split() for line in lines if line.startswith("COPY")):
        for source in (word for word in words[1:-1] if not word.startswith("--")):
            assert (ROOT / source).is_file(), source
    wanted = [
        line.split()[0] for line in (ROOT / "mlflow" / "requirements.txt").read_text().splitlines() if line[0] != "#"
    ]
    pinned_by_us = constraints()
    assert not {name.partition("[")[0] for name in wanted} - pinned_by_us.keys()
    assert not list((ROOT / "mlflow").glob("*.py"))


def test_secrets_of_the_server_are_not_for_git():
    done = subprocess.run(["git", "check-ignore", "mlflow/.env"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
