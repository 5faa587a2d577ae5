"""Fits on several workers that lose one: they go on from what was kept, and end with the same bits."""

import contextlib
import socket

import pytest
import torch
import torch.multiprocessing as mp

from cropray.training.cnn.settings import CnnSettings
from cropray.training.deep.fit import NetworkData
from cropray.training.xgboost.fit import XgboostSettings, train_xgboost
from tests.training.cnn_fits import train_cnn
from tests.training.small_fits import CLASSES, LOOKUP, STATS, FatalPath, block, one_of_some
from tests.training.tree_rows import train_zones, val_zones


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def on_workers(n_workers, folder, **changes):
    folder.mkdir()
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_of_some, args=(port, str(folder), "kept_fit", changes, n_workers), nprocs=n_workers)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(n_workers)]


@pytest.mark.slow
def test_workers_go_on_together(tmp_path):
    n_workers = 3  # two add up in one order only; the tests below have two
    through = on_workers(n_workers, tmp_path / "through")
    on_workers(n_workers, tmp_path / "lost", path=str(tmp_path / "progress"), lose_at=3)
    for resumed in on_workers(n_workers, tmp_path / "resumed", path=str(tmp_path / "progress")):
        assert resumed.history == through[0].history
        assert resumed.best_epoch == through[0].best_epoch
        assert all(torch.equal(resumed.weights[name], value) for name, value in through[0].weights.items())


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_cnn_whose_worker_is_killed_goes_on(tmp_path):
    settings = CnnSettings(
        learning_rate=3e-3, temporal_channels=8, unet_channels=(8, 8), epochs=4, batch_size=8, num_workers=2
    )
    data = NetworkData({"b": block(0), "a": block(1)}, {"c": block(2)}, STATS, LOOKUP, CLASSES, "hash")
    through = train_cnn(settings, data, 5, tmp_path / "through")
    progress = FatalPath(tmp_path / "progress")
    resumed = train_cnn(settings, data, 5, tmp_path / "resumed", progress=progress)
    # Epoch 1, epoch 2 with which the process went, and by another process epochs 2, 3 and 4.
    first, *others = progress.writers
    assert others[0] == first
    assert len(others) == 4
    assert first not in others[1:]
    assert resumed.history == through.history
    assert files(tmp_path / "resumed") == files(tmp_path / "through")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("engine", ["ray_train", "xgboost_ray"])
def test_trees_whose_worker_is_killed_go_on(tmp_path, engine):
    settings = XgboostSettings(max_depth=4, engine=engine, num_workers=2, checkpoint_every=3, colsample_bytree=0.5)
    progress = FatalPath(tmp_path / "progress")

    def fit(name, progress=None):
        folder = tmp_path / name
        folder.mkdir()
        point = (4, 11)
        return train_xgboost(settings, point, train_zones(), val_zones(), 0, folder, progress=progress)

    through, resumed = fit("through"), fit("resumed", progress)
    # Rounds 3 and 6, with which the process went; then 6 and 9. xgboost-ray may not have heard of round 3 yet.
    first, *others = progress.writers
    assert others[0] == first
    assert first not in others[1:]
    assert len(others[1:]) == 2 or (engine == "xgboost_ray" and len(others[1:]) == 3)
    assert resumed.history == through.history
    assert files(tmp_path / "resumed") == files(tmp_path / "through")
