"""Fits by settings: in-process and on Ray Train workers."""

from dataclasses import replace

import numpy as np
import pytest

from cropray.core.errors import ConfigError
from cropray.datasets.tiles import cut_tiles
from cropray.training.cnn.fit import CNN
from cropray.training.cnn.settings import CnnSettings
from cropray.training.deep import fit as cnn
from cropray.training.deep.checkpoint import load_checkpoint
from cropray.training.deep.fit import NetworkData
from cropray.training.deep.loop import evaluate
from cropray.training.deep.tiles import TileSet
from tests.synthetic import zone_arrays
from tests.training.cnn_fits import train_cnn
from tests.training.small_fits import CLASSES, LOOKUP, STATS, block

SMALL = CnnSettings(learning_rate=3e-3, temporal_channels=8, unet_channels=(8, 8), epochs=3, batch_size=8)


def data(*, with_val=True, put=lambda block: block):
    train = {"b": put(block(0)), "a": put(block(1))}
    return NetworkData(train, {"c": put(block(2))} if with_val else None, STATS, LOOKUP, CLASSES, "hash")


def test_the_checkpoint_is_the_best_epoch(tmp_path):
    told = []
    result = train_cnn(SMALL, data(), 5, tmp_path / "unit", told.append)
    assert tuple(told) == result.history
    checkpoint = load_checkpoint(tmp_path / "unit", "cnn")
    tiles, untrained = TileSet([block(2)], LOOKUP, checkpoint.stats), result.validation.untrained
    scored = evaluate(checkpoint.model, tiles, len(CLASSES), 64, untrained)
    assert untrained  # the small training zones lack a class
    assert np.array_equal(scored.confusion, result.validation.confusion)
    assert scored.loss_sum == pytest.approx(result.validation.loss_sum)
    best = result.history[result.best_epoch - 1]
    n_untrained = scored.confusion[list(untrained)].sum()
    assert best["val_loss"] == pytest.approx(scored.loss_sum / (scored.confusion.sum() - n_untrained))
    assert best["val_untrained_pixels"] == n_untrained > 0
    provenance = load_checkpoint(tmp_path / "unit", "cnn").provenance
    assert (provenance["seed"], provenance["training_zones"]) == (5, ["a", "b"])


def test_tiles_of_the_dataset_are_blocks(tmp_path):
    tiles = cut_tiles(zone_arrays((24, 24), len(CLASSES), seed=0), 8)
    only = NetworkData({"b": tiles}, None, STATS, LOOKUP, CLASSES, "hash")
    assert len(train_cnn(SMALL, only, 5, tmp_path).history) == 3


def test_the_order_of_zones_does_not_matter(tmp_path):
    given = data()
    shuffled = NetworkData(dict(sorted(given.train.items())), given.val, STATS, LOOKUP, CLASSES, "hash")
    assert train_cnn(SMALL, data(), 5, tmp_path / "1").history == train_cnn(SMALL, shuffled, 5, tmp_path / "2").history


def test_the_curve_of_several_networks_is_the_mean_of_those_that_came_so_far():
    early, late = [{"epoch": 1, "val_loss": 1.0}], [{"epoch": 1, "val_loss": 3.0}, {"epoch": 2, "val_loss": 2.0}]
    assert cnn._mean_history([early, late]) == ({"epoch": 1, "val_loss": 2.0}, {"epoch": 2, "val_loss": 2.0})


def test_refit_runs_all_epochs(tmp_path):
    result = train_cnn(SMALL, data(with_val=False), 5, tmp_path)
    assert result.validation is None
    assert result.best_epoch == 3


def test_a_gpu_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="use_gpu"):
        train_cnn(SMALL.model_copy(update={"use_gpu": True}), data(), 5, tmp_path)


def test_a_worker_without_its_gpu_is_refused_and_not_started_again(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("ray.get", lambda job: job)
    job = cnn._Job(SMALL.model_copy(update={"use_gpu": True, "num_workers": 1}), data(), 5, kind=CNN)
    outcome = cnn._worker({"job": job})
    assert isinstance(outcome, ConfigError)
    assert "cnn.use_gpu" in str(outcome)


@pytest.mark.parametrize("wrong", [{"learning_rate": -1, "kernel_size": 3}, {"learning_rate": 1e-3, "kernel_size": 4}])
def test_impossible_points_are_refused(wrong):
    with pytest.raises(ValueError):
        CnnSettings(**wrong)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_two_ray_workers_are_one_process(tmp_path):
    import ray

    one_cpu = SMALL.model_copy(update={"cpus_per_worker": 1})
    alone = train_cnn(one_cpu, data(), 5, tmp_path / "alone")
    told = []
    settings = one_cpu.model_copy(update={"num_workers": 2, "memory_gb": 1.0})
    together = train_cnn(settings, data(put=ray.put), 5, tmp_path / "together", told.append)
    assert tuple(told) == together.history
    assert together.best_epoch == alone.best_epoch
    # The same sums in another order: a first epoch agrees to the last digits of float32. Later ones drift apart, since Adam
    # turns the sign of a gradient near 0 into a whole step; how far depends on the processor's kernels.
    for mine, theirs, bound in zip(alone.history, together.history, (1e-6, 1e-3, 1e-3), strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=bound)
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], abs=bound)
    assert together.validation.confusion.sum() == alone.validation.confusion.sum()
    assert {path.name for path in (tmp_path / "together").iterdir()} == {"card.json", "weights.safetensors"}
    expected = load_checkpoint(tmp_path / "alone", "cnn").predict_proba(block(2).x)
    assert np.allclose(load_checkpoint(tmp_path / "together", "cnn").predict_proba(block(2).x), expected, atol=1e-3)


def test_other_numbers_of_cpus_differ_by_rounding(tmp_path):
    one, two = (
        train_cnn(SMALL.model_copy(update={"cpus_per_worker": n, "epochs": 2}), data(), 5, tmp_path / str(n))
        for n in (1, 2)
    )
    for mine, theirs in zip(one.history, two.history, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "cpus", "threads"),
    [
        ({}, 1, 1),
        ({"cpus_per_worker": 4}, 4, 4),
        ({"cpus_per_worker": 0.5}, 0.5, 1),
        ({"threads": 3}, 3, 3),
        ({"threads": 2, "cpus_per_worker": 6}, 6, 6),
    ],
)
def test_all_cpus_of_a_worker_compute_and_old_files_are_read(given, cpus, threads, capsys):
    settings = CnnSettings.model_validate(given)
    assert (settings.cpus, settings.threads) == (cpus, threads)
    assert ("cnn.threads is now cnn.cpus_per_worker" in capsys.readouterr().err) == ("threads" in given)
    assert CnnSettings.model_validate(settings.model_dump()) == settings
    used = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("torch.set_num_threads", used.append)
        with cnn._threads(settings.threads):
            pass
    assert used[0] == threads


def test_resources_are_no_part_of_a_fit():
    """What was fitted on one machine is not fitted again on another."""
    job = cnn._Job(SMALL, data(), 5, kind=CNN)
    for changes in ({"cpus_per_worker": 3}, {"use_gpu": True}, {"num_workers": 2}, {"memory_gb": 1}):
        assert replace(job, settings=SMALL.model_copy(update=changes)).fingerprint() == job.fingerprint()
    assert replace(job, settings=SMALL.model_copy(update={"dropout": 0.2})).fingerprint() != job.fingerprint()
