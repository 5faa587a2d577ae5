"""What is set while something computes on a GPU; the GPU itself is the matter of `tests/gpu`."""

import numpy as np
import pytest
import torch

from cropray.core.errors import ConfigError
from cropray.training.deep.device import predict_tiles, reproducible, tf32, torch_device
from cropray.training.deep.loop import evaluate
from tests.training.small_fits import N_CLASSES, STATS, block, network, tile_set


def flags():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_fits_on_a_gpu_take_deterministic_kernels(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = flags()
    with reproducible(torch.device("cpu")):
        assert flags() == before
    with reproducible(torch.device("cuda")):
        assert flags() == (True, True, False)
    assert flags() == before


def test_scores_and_maps_are_computed_in_full_float32():
    model, seen = network().eval(), []
    model.classifier.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    with tf32(allowed=True):
        probabilities = predict_tiles(model, STATS, block().x[:2])
        assert torch.backends.cudnn.allow_tf32
    assert seen == [False]
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    with tf32(allowed=True):
        evaluate(model, tile_set(0), N_CLASSES)
        assert torch.backends.cudnn.allow_tf32
    assert set(seen) == {False}


@pytest.mark.parametrize(("setting", "instead"), [("cnn.use_gpu", "false"), ("map.device", "cpu")])
def test_a_gpu_that_torch_does_not_see_is_refused(setting, instead, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert torch_device("cpu", setting).type == "cpu"
    with pytest.raises(ConfigError, match=f"{setting} asks for a GPU.* set {setting} to {instead}"):
        torch_device("cuda", setting)
