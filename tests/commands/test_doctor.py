"""The doctor on a cluster: every node that a job would use is asked, none is asked what it cannot answer."""

import time
from functools import partial
from types import SimpleNamespace

import pytest
import ray

from cropray.cluster import session as cluster
from cropray.commands import doctor
from cropray.core.errors import ConfigError, CroprayError
from tests.drawn_dataset import drawn_job


class Nodes:
    """A cluster as `ask_nodes` sees it; notes what each task asks for, and runs it here."""

    def __init__(self, **cpus_and_gpus):
        self.records = [
            {"NodeID": name.encode().hex().ljust(56, "0"), "NodeManagerAddress": name, "Resources": resources}
            for name, resources in cpus_and_gpus.items()
        ]
        self.asked = []

    def options(self, scheduling_strategy, **asks):
        assert scheduling_strategy.soft is False
        self.asked.append(asks)
        return SimpleNamespace(remote=lambda question: question)


@pytest.fixture
def nodes(monkeypatch):
    def make(**cpus_and_gpus):
        made = Nodes(**cpus_and_gpus)
        monkeypatch.setattr(cluster, "open_nodes", lambda: made.records)
        monkeypatch.setattr(cluster, "_answer", made)
        monkeypatch.setattr(cluster.ray, "get", lambda question, timeout: question())
        monkeypatch.setattr(cluster.ray, "is_initialized", lambda: True)
        return made

    return make


def test_a_head_without_cpus_is_left_out_and_busy_nodes_are_asked(nodes):
    made = nodes(head={"memory": 1e9}, a={"CPU": 4.0}, b={"CPU": 2.0, "GPU": 1.0})
    assert cluster.ask_nodes(lambda: 7, lambda has: has.get("CPU", 0) > 0) == {"a": 7, "b": 7}
    assert made.asked == [{"num_gpus": 0.0}] * 2


def test_a_gpu_that_only_predicts_is_looked_for(nodes, tmp_path):
    nodes(a={"CPU": 4.0})
    job = drawn_job(tmp_path, map={"device": "cuda"})
    assert doctor._uses_gpus(job)
    with pytest.raises(CroprayError, match=r"has one now; set map\.device to cpu, or"):
        doctor._check_gpus(job)
    assert not doctor._uses_gpus(drawn_job(tmp_path, map={"device": "cuda"}, search={"models": ["xgboost"]}))


def refuse():
    raise ray.exceptions.TaskUnschedulableError("nowhere")


def test_a_node_that_does_not_answer_is_named_without_a_traceback(nodes):
    nodes(a={"CPU": 4.0})
    with pytest.raises(CroprayError, match=r"node a: no answer \(TaskUnschedulableError"):
        cluster.ask_nodes(refuse, lambda _: True)


def test_gpus_are_looked_at_where_they_are(nodes, monkeypatch, tmp_path):
    made = nodes(head={}, a={"CPU": 4.0}, b={"CPU": 2.0, "GPU": 1.0})
    monkeypatch.setattr(doctor, "describe_gpu", lambda: "an A10G")
    job = drawn_job(tmp_path, cnn={"use_gpu": True}, xgboost={"device": "cuda"})
    assert doctor._check_gpus(job) == "b: an A10G"
    assert 0 < made.asked[0]["num_gpus"] < 0.1
    nodes(head={}, a={"CPU": 4.0})
    with pytest.raises(CroprayError, match=r"set xgboost\.device to cpu and cnn\.use_gpu to false, or"):
        doctor._check_gpus(job)


@pytest.mark.ray
def test_a_busy_node_answers_and_says_why_not(ray_local):
    @ray.remote
    def hold():
        time.sleep(3)

    holding = [hold.remote() for _ in range(int(ray.cluster_resources()["CPU"]))]
    assert list(cluster.ask_nodes(partial(int, "5"), lambda _: True).values()) == [5]
    ray.wait(holding, num_returns=len(holding))
    with pytest.raises(CroprayError, match=r"node [\d.]+: no answer \(.*ValueError") as error:
        cluster.ask_nodes(partial(int, "x"), lambda _: True)
    assert not isinstance(error.value, ConfigError)
