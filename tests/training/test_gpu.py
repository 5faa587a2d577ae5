"""Whether a GPU can be used: what is said where it cannot, and whose NCCL is there. No GPU is needed."""

import ctypes
import importlib.metadata
import importlib.util
from types import SimpleNamespace

import pytest
import torch

from cropray.core.errors import ConfigError
from cropray.training import gpu


def test_a_torch_without_cuda_says_so(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError, match="built without CUDA"):
        gpu.describe_gpu()


def test_an_old_driver_is_named(monkeypatch, tmp_path):
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue\nGCC version: 12\n")
    monkeypatch.setattr(gpu, "_DRIVER", driver)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"CUDA 13\.0 cannot use the GPU \(NVRM .*535\.54\.03  Tue\).*580 or newer"):
        gpu.describe_gpu()
    driver.unlink()
    with pytest.raises(ConfigError, match="no NVIDIA driver is loaded"):
        gpu.describe_gpu()


def test_a_gpu_is_described(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A10G")
    monkeypatch.setattr(gpu, "describe_nccl", lambda cuda: f"NCCL for {cuda}")
    assert gpu.describe_gpu() == f"NVIDIA A10G, torch {torch.__version__} with CUDA 13.0, NCCL for 13.0"


@pytest.fixture
def installed(monkeypatch):
    """A version of NCCL in its place, and versions that packages claim to have put there."""

    def install(there, **claimed):
        def version(name):
            if name not in claimed:
                raise importlib.metadata.PackageNotFoundError(name)
            return claimed[name]

        major, minor, patch = map(int, there.split("."))

        def answer(pointer):
            pointer._obj.value = major * 10_000 + minor * 100 + patch

        monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(ncclGetVersion=answer))
        monkeypatch.setattr(importlib.metadata, "version", version)
        found = SimpleNamespace(submodule_search_locations=["/nowhere"])
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)

    return install


def test_the_nccl_of_torch_is_told_from_one_that_was_written_over_it(installed):
    both = {"nvidia-nccl-cu12": "2.32.3", "nvidia-nccl-cu13": "2.29.7"}
    installed("2.29.7", **both)
    assert gpu.describe_nccl("13.0") == "NCCL 2.29.7"
    installed("2.32.3", **both)
    said = gpu.describe_nccl("13.0")
    assert "NCCL 2.32.3 in the place of torch's 2.29.7" in said
    assert said.endswith("--no-deps nvidia-nccl-cu13==2.29.7")
    installed("2.32.3", **{"nvidia-nccl-cu12": "2.32.3"})
    assert gpu.describe_nccl("13.0") == "NCCL 2.32.3"


def test_a_real_library_says_its_version():
    """xgboost's package is installed wherever these tests run on Linux."""
    (folder,) = importlib.util.find_spec("nvidia.nccl").submodule_search_locations
    assert gpu.describe_nccl("12.8") == f"NCCL {importlib.metadata.version('nvidia-nccl-cu12')}", folder


@pytest.mark.gpu
def test_the_gpu_of_this_machine_can_be_used():
    assert "CUDA" in gpu.describe_gpu()
