"""A fit that was interrupted and goes on ends with the bits of one that ran through."""

import json
import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from upath import UPath

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.training.cnn.settings import CnnSettings
from cropray.training.deep import loop
from cropray.training.deep.fit import Kind, NetworkData, _Job, tile_samples
from cropray.training.xgboost.fit import XgboostSettings, train_xgboost
from cropray.training.xgboost.progress import RoundBooster
from tests.training.cnn_fits import train_cnn
from tests.training.small_fits import CLASSES, LOOKUP, STATS, block
from tests.training.tree_rows import LEGEND, draw_rows, train_zones, tree_data, val_zones

CNN = CnnSettings(
    learning_rate=3e-3,
    temporal_channels=8,
    unet_channels=(8, 8),
    epochs=4,
    batch_size=8,
    schedule="cosine",
    weight_decay=0.01,
    augment=True,
)
TREES = XgboostSettings(learning_rate=0.3, max_depth=4, checkpoint_every=3)
N_ROUNDS = 8
SAMPLED = TREES.model_copy(update={"subsample": 0.6, "colsample_bytree": 0.5})


class LostError(Exception):
    """The process, as far as a fit can tell."""


def cnn_data(*, with_val=True):
    return NetworkData(
        {"b": block(0), "a": block(1)}, {"c": block(2)} if with_val else None, STATS, LOOKUP, CLASSES, "h"
    )


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lose_at(epoch):
    def on_epoch(record):
        if record["epoch"] == epoch:
            raise LostError

    return on_epoch


@pytest.fixture
def epochs(monkeypatch):
    """Numbers of the epochs that were computed."""
    computed = []
    train_epoch = loop.train_epoch

    def counted(model, optimizer, tiles, weights_K, plan, epoch):
        computed.append(epoch)
        return train_epoch(model, optimizer, tiles, weights_K, plan, epoch)

    monkeypatch.setattr(loop, "train_epoch", counted)
    return computed


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("with_val", [True, False])
def test_a_cnn_goes_on_from_any_epoch(tmp_path, epochs, every, with_val):
    settings = CNN.model_copy(update={"checkpoint_every": every})
    data = cnn_data(with_val=with_val)
    through = train_cnn(settings, data, 5, tmp_path / "through")
    for lost in range(1, settings.epochs + 1):
        progress, folder = tmp_path / f"progress-{lost}", tmp_path / f"lost-{lost}"
        with pytest.raises(LostError):
            train_cnn(settings, data, 5, folder, lose_at(lost), progress=progress)
        epochs.clear()
        told = []
        resumed = train_cnn(settings, data, 5, folder, told.append, progress=progress)
        assert epochs == list(range((lost - 1) // every * every + 1, settings.epochs + 1))
        assert resumed.history == through.history == tuple(told)
        assert resumed.best_epoch == through.best_epoch
        assert files(folder) == files(tmp_path / "through")
        if with_val:
            assert replace(resumed.validation, confusion=None) == replace(through.validation, confusion=None)
            assert np.array_equal(resumed.validation.confusion, through.validation.confusion)


def test_patience_counts_epochs_before_the_loss(tmp_path, epochs):
    # A rate so large that it soon gets worse.
    settings = CNN.model_copy(update={"epochs": 9, "patience": 1, "learning_rate": 0.3})
    through = train_cnn(settings, cnn_data(), 5, tmp_path / "through")
    assert len(through.history) < 9
    last = len(through.history)
    with pytest.raises(LostError):
        train_cnn(settings, cnn_data(), 5, tmp_path, lose_at(last), progress=tmp_path / "progress")
    epochs.clear()
    resumed = train_cnn(settings, cnn_data(), 5, tmp_path / "resumed", progress=tmp_path / "progress")
    assert epochs == [last]
    assert resumed.history == through.history
    assert files(tmp_path / "resumed") == files(tmp_path / "through")


def test_progress_of_another_fit_is_not_taken(tmp_path, epochs, caplog):
    train_cnn(CNN, cnn_data(), 5, tmp_path / "one", progress=tmp_path / "progress")
    epochs.clear()
    with caplog.at_level(logging.WARNING):
        other = train_cnn(CNN, cnn_data(), 6, tmp_path / "other", progress=tmp_path / "progress")
    assert epochs == [1, 2, 3, 4]
    assert "of another job" in caplog.text
    assert other.history == train_cnn(CNN, cnn_data(), 6, tmp_path / "again").history


def test_progress_of_other_labels_is_not_taken(tmp_path, epochs):
    """The same pixels, some of them of other classes: their statistics are the same."""
    train_cnn(CNN, cnn_data(), 5, tmp_path / "one", progress=tmp_path / "progress")
    other = cnn_data()
    for tiles in other.train.values():
        tiles.labels[tiles.labels == 1] = 2
    epochs.clear()
    train_cnn(CNN, other, 5, tmp_path / "other", progress=tmp_path / "progress")
    assert epochs == [1, 2, 3, 4]


def test_progress_is_of_one_family_and_one_cube():
    job = _Job(CNN, cnn_data(), 5, kind=Kind("cnn", tile_samples))
    of_another_kind = replace(job, kind=Kind("other", job.kind.samples))
    half = CubeSpec(STUDY_CUBE.bands, "half-month", 6)
    of_another_cube = replace(job, data=replace(job.data, cube=half))
    assert len({each.fingerprint() for each in (job, of_another_kind, of_another_cube)}) == 3


def test_how_often_progress_is_kept_makes_no_other_fit(tmp_path, epochs):
    train_cnn(CNN, cnn_data(), 5, tmp_path / "one", progress=tmp_path / "progress")
    epochs.clear()
    rarely = CNN.model_copy(update={"checkpoint_every": 3, "max_failures": 9})
    train_cnn(rarely, cnn_data(), 5, tmp_path / "one", progress=tmp_path / "progress")
    assert epochs == []


@pytest.fixture
def rounds(monkeypatch):
    """Numbers of the rounds that were grown; `lost` is set to the round in which the process is lost."""

    class Rounds(list):
        lost = None

    grown = Rounds()
    update = RoundBooster.update

    def counted(self, dtrain, iteration, fobj=None):
        grown.append(self.num_boosted_rounds() + 1)
        if grown[-1] == grown.lost:
            raise LostError
        update(self, dtrain, iteration, fobj)

    monkeypatch.setattr(RoundBooster, "update", counted)
    return grown


@pytest.mark.parametrize("settings", [TREES, SAMPLED], ids=["all", "sampled"])
@pytest.mark.parametrize("val", [None, val_zones()], ids=["refit", "fold"])
def test_trees_go_on_from_any_round(tmp_path, rounds, settings, val):
    def fit(name, progress=None):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return train_xgboost(settings, (3, N_ROUNDS), train_zones(), val, 0, folder, progress=progress)

    through = fit("through")
    for lost in range(1, N_ROUNDS + 1):
        progress = UPath(f"memory://{tmp_path.name}/{lost}")
        rounds.lost = lost
        with pytest.raises(LostError):
            fit("lost", progress)
        rounds.lost = None
        rounds.clear()
        resumed = fit(f"resumed-{lost}", progress)
        assert rounds == list(range((lost - 1) // 3 * 3 + 1, N_ROUNDS + 1))
        assert resumed.history == through.history
        assert [score.loss_sum for score in resumed.scores] == [score.loss_sum for score in through.scores]
        assert files(tmp_path / f"resumed-{lost}") == files(tmp_path / "through")


def test_kept_trees_of_other_pixels_are_not_taken(tmp_path, rounds, caplog):
    point, progress = (N_ROUNDS,), tmp_path / "progress"
    train_xgboost(TREES, point, train_zones(), None, 0, tmp_path, progress=progress)
    rounds.clear()
    train_xgboost(TREES, point, val_zones(), None, 0, tmp_path, progress=progress)
    assert rounds == list(range(1, N_ROUNDS + 1))
    assert "of another job" in caplog.text


def test_kept_trees_of_other_labels_are_not_taken(tmp_path, rounds):
    """The same pixels, some of them of other classes: their bins are the same."""
    rows = draw_rows(1, 300, ("maize", "rape", "wheat"))
    rape, wheat = (LEGEND.names.index(name) for name in ("rape", "wheat"))
    labels = rows["label"].to_numpy()
    turned = pa.array(np.where(labels == rape, wheat, labels).astype(np.uint8))
    other = rows.set_column(rows.column_names.index("label"), "label", turned)
    for number, table in enumerate((rows, other)):
        rounds.clear()
        (folder := tmp_path / f"{number}").mkdir()
        train_xgboost(TREES, (4,), tree_data(a=table), None, 0, folder, progress=tmp_path / "progress")
        assert len(rounds) == 4


def test_a_model_holds_no_trace_of_its_progress(tmp_path):
    train_xgboost(TREES, (4,), train_zones(), None, 0, tmp_path, progress=tmp_path / "progress")
    from cropray.training.xgboost.tree_file import load_booster

    assert load_booster(tmp_path)[0].attributes() == {}
    assert "progress" not in json.dumps(json.loads((tmp_path / "card.json").read_text()))
