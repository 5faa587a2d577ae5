"""cluster.yaml as Ray's own functions read it on the way to EC2, and the calls that would come of it; no cloud is asked."""

import copy
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from ray.autoscaler._private.aws import config as aws
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.docker import with_docker_exec

from tests.deployment.pinned import ROOT
from tests.deployment.test_cluster_files import validate

WORLD = {"0.0.0.0/0", "::/0"}


@pytest.fixture
def cluster():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def prepared(cluster):
    return validate(cluster)


def node_configs(cluster):
    return {name: kind["node_config"] for name, kind in cluster["available_node_types"].items()}


class Groups:
    """EC2 as far as Ray asks it for security groups: one that is there already, and without a rule."""

    def __init__(self):
        self.id, self.group_name, self.vpc_id, self.ip_permissions = "sg-1", "cropray", "vpc-1", []
        self.rules = []
        self.subnets = SimpleNamespace(filter=lambda **_: [SimpleNamespace(vpc_id="vpc-1")])
        self.security_groups = SimpleNamespace(filter=lambda **_: [self])

    def authorize_ingress(self, IpPermissions):
        self.rules += IpPermissions


@pytest.fixture
def ec2(monkeypatch):
    groups = Groups()
    monkeypatch.setattr(aws, "_resource", lambda *_: groups)
    monkeypatch.setattr(aws, "_client", lambda *_: groups)
    return groups


def opened_to_the_world(rules):
    return [rule for rule in rules for entry in rule.get("IpRanges", []) if entry["CidrIp"] in WORLD]


def test_ray_writes_no_rule_into_the_security_group(prepared, ec2):
    before = copy.deepcopy(node_configs(prepared))
    assert node_configs(aws._configure_security_group(prepared)) == before
    assert ec2.rules == []
    groups = {tuple(node["SecurityGroupIds"]) for node in before.values()}
    assert len(groups) == 1  # nodes reach each other
    assert "security_group" not in prepared["provider"]


@pytest.mark.parametrize("kind", ["head", "cpu", "gpu"])
def test_one_node_type_without_its_group_would_open_ssh_to_the_world(prepared, ec2, kind):
    """Whatever rules the file gives: this is why each of them names a group that is there already."""
    node = node_configs(prepared)[kind]
    del node["SecurityGroupIds"]
    node["SubnetIds"] = ["subnet-1"]
    rule = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "198.51.100.7/32"}]}
    prepared["provider"]["security_group"] = {"GroupName": "cropray", "IpPermissions": [rule]}
    aws._configure_security_group(prepared)
    assert [rule["FromPort"] for rule in opened_to_the_world(ec2.rules)] == [22]


def test_the_group_that_the_file_tells_to_make_opens_ssh_to_one_address_only():
    text = (ROOT / "cluster.yaml").read_text()
    rules = re.findall(r"authorize-security-group-ingress (.*)", text)
    assert [rule.split("--")[2:] for rule in rules] == [
        ["protocol -1 ", "source-group $group"],
        ["protocol tcp ", "port 22 ", "cidr YOUR.OWN.IP.ADDRESS/32"],
    ]


def test_every_node_type_has_an_image_of_its_own_choice(prepared):
    """Ray's default for the others is an image of 2023, whose driver cannot run torch's CUDA 13."""
    before = {name: node["ImageId"] for name, node in node_configs(prepared).items()}
    aws._check_ami(prepared)
    assert {name: node["ImageId"] for name, node in node_configs(prepared).items()} == before
    assert not set(before.values()) & set(aws.DEFAULT_AMI.values())


def test_what_is_to_be_filled_in_cannot_be_taken_for_a_value(cluster):
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    assert sum("# FILL" in line for line in lines) == 6
    for node in node_configs(cluster).values():
        assert re.fullmatch("ami-0+", node["ImageId"])
        assert all(re.fullmatch("sg-0+", group) for group in node["SecurityGroupIds"])


@pytest.mark.parametrize("kind", ["head", "cpu", "gpu"])
def test_ec2_knows_what_a_node_asks_for(prepared, kind):
    """Names and types of the whole call, by boto's own description of it."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape

    def report(**more):
        call = {**node_configs(prepared)[kind], "MinCount": 1, "MaxCount": 1, "SubnetId": "subnet-1", **more}
        return ParamValidator().validate(call, shape).generate_report()

    assert report() == ""
    assert report(MetadataOption={}) != ""


def test_keys_and_disks_of_nodes_are_guarded(prepared):
    for name, node in node_configs(prepared).items():
        assert node["MetadataOptions"]["HttpTokens"] == "required", name
        assert all(disk["Ebs"]["Encrypted"] is True for disk in node["BlockDeviceMappings"]), name


def test_a_node_without_a_usable_gpu_is_given_up_while_it_is_set_up(cluster):
    commands = cluster["available_node_types"]["gpu"]["worker_setup_commands"]
    install, nccl, check = commands
    assert "--requirement" in install
    assert "--force-reinstall --no-deps" in nccl
    assert "nvidia-nccl-cu13" in nccl
    program = re.fullmatch("python -c '(.*)'", check)[1]
    fake = f"import sys, types\nsys.modules['torch'] = torch = types.ModuleType('torch')\ntorch.cuda = types.SimpleNamespace(is_available=lambda: {{}})\n{program}"
    codes = [
        subprocess.run([sys.executable, "-c", fake.format(there)], capture_output=True, check=False).returncode
        for there in (True, False)
    ]
    assert codes == [0, 1]


def test_the_token_is_the_cluster_s_own_and_private(cluster, tmp_path):
    """As the file tells to make it, and as Ray reads it."""
    text = (ROOT / "cluster.yaml").read_text()
    make = re.search(r"^#   (\(umask 077 .*\))$", text, re.MULTILINE)[1]
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(["bash", "-c", make], env=environment, check=True)
    local = cluster["file_mounts"]["/home/ray/.ray/auth_token"]
    token = tmp_path / local.removeprefix("~/")
    assert token.stat().st_mode & 0o077 == 0
    assert local != "~/.ray/auth_token"
    assert f"RAY_AUTH_TOKEN_PATH=$HOME/{local.removeprefix('~/')}" in text
    read = "from ray._raylet import AuthenticationTokenLoader as L; print(L.instance().get_raw_token(ignore_auth_mode=True))"
    environment |= {"RAY_AUTH_TOKEN_PATH": str(token)}
    environment.pop("RAY_AUTH_TOKEN", None)
    done = subprocess.run([sys.executable, "-c", read], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == token.read_text().strip() != ""


@pytest.mark.parametrize(("there", "says"), [("2.29.7", 0), (None, 1)])
def test_the_last_nccl_is_torch_s_through_all_the_shells_of_a_node(cluster, tmp_path, there, says):
    """As Ray sends a command: a login shell on the machine, and another one in the container."""
    log, stubs = tmp_path / "log", tmp_path / "stubs"
    stubs.mkdir()
    listed = "xgboost==3.2.0\nnvidia-nccl-cu12==2.32.3" + (
        f"\nnvidia-nccl-cu13=={there}\ntorch==2.13.0" if there else ""
    )
    programs = {
        "docker": 'shift 3\nexec "$@"',
        "pip": f'[ "$1" = freeze ] && {{ printf "{listed}"; exit; }}\nfor word; do [ "$word" ] || exit 1; done\necho "$@" > {log}',
    }
    for name, program in programs.items():
        (stubs / name).write_text(f"#!/bin/bash\n{program}\n")
        (stubs / name).chmod(0o755)
    (tmp_path / ".bashrc").write_text(f"PATH={stubs}:/usr/bin:/bin\n")
    command = cluster["available_node_types"]["gpu"]["worker_setup_commands"][1]
    (inside,) = with_docker_exec([command], container_name="cropray", docker_cmd="docker", with_interactive=True)
    line = " ".join(_with_interactive(inside))
    done = subprocess.run(
        ["bash", "-c", line], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    assert (done.returncode != 0) == bool(says), done.stderr
    if there:
        assert log.read_text() == f"install --quiet --force-reinstall --no-deps nvidia-nccl-cu13=={there}\n"
