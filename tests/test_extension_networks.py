"""A network and its recipe that the package has never heard of reach other processes; `test_extensions` runs them."""

import pickle
import subprocess
import sys

from cropray.config import JobConfig
from cropray.core.registry import entries_outside
from cropray.tracking.model_code import model_code
from tests.own_entries.job import JOB


def test_another_process_is_told_with_the_job(tmp_path):
    """Of what this process has registered; the classes travel by their names."""
    assert ("network", "toy_net") in entries_outside()
    code = """
import pickle, sys
job = pickle.load(open(sys.argv[1], "rb"))
print(job.settings_of("cnn").net["name"], "tests.own_entries.net" in sys.modules)
"""
    content = {
        "name": "small", "workspace": "work", "imagery": {"folder": "s"}, "parcels": {"path": "p"},
        "cnn": {"net": JOB["net"]},
    }  # fmt: skip
    for sent in (JobConfig.model_validate(content), JobConfig.model_validate(content).settings_of("cnn")):
        (tmp_path / "sent").write_bytes(pickle.dumps(sent))
        text = code if isinstance(sent, JobConfig) else code.replace('.settings_of("cnn")', "")
        done = subprocess.run(
            [sys.executable, "-c", text, tmp_path / "sent"], capture_output=True, text=True, check=False
        )
        assert done.stdout == "toy_net True\n", done.stderr


def test_a_network_s_module_is_carried_with_the_loader_s():
    code = model_code("cropray.training.cnn.served", ["tests.own_entries.net"])
    assert code.loader == f"{code.package}.training.cnn.served"
    assert f"from {code.package}.nets.registry import" in code.files["plugin/tests/own_entries/net.py"]
