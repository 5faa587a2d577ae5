"""The loop: what it promises about workers, ignored pixels, best weights and seeds."""

import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from cropray.core.errors import ConfigError, InputError
from cropray.core.legend import IGNORE
from cropray.core.metrics import PROBABILITY_FLOOR, confusion, log_loss_sum
from cropray.nets.norm import GlobalBatchNorm
from cropray.training.cnn.settings import CnnSettings
from cropray.training.deep import loop
from cropray.training.deep.loop import FitPlan, class_weights, epoch_shares, evaluate, fit, scheduled_rate
from cropray.training.deep.samplers import SAMPLERS
from cropray.training.deep.tiles import TileSet
from tests.training.small_fits import (
    LOOKUP,
    N_CLASSES,
    STATS,
    Block,
    Fixed,
    block,
    network,
    one_of_two,
    plain_epoch,
    plan,
    scored,
    small_fit,
    tile_set,
)


def on_two_workers(folder, function, **changes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_of_two, args=(port, str(folder), function, changes), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_workers_fit_as_one(tmp_path):
    """With dropout, batch norm, augmentation and unequal shares; only the order of float sums differs."""
    changes = {"augment": True, "class_weighting": "sqrt_inverse"}
    one = small_fit(**changes)
    first, second = on_two_workers(tmp_path, "small_fit", **changes)
    assert first.history == second.history
    assert np.array_equal(first.validation.confusion, second.validation.confusion)
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    for mine, theirs in zip(one.history, first.history, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], abs=1e-4)
    assert first.validation.confusion.sum() == one.validation.confusion.sum()


@pytest.mark.parametrize("batch_size", [4, 1])
def test_two_workers_take_the_same_steps_as_one(tmp_path, batch_size):
    """Gradients agree in size, too; with batches of one tile, one of the workers has none."""
    loss, weights = plain_epoch(batch_size=batch_size)
    (first_loss, first), (_, second) = on_two_workers(tmp_path, "plain_epoch", batch_size=batch_size)
    assert loss == pytest.approx(first_loss, abs=1e-5)
    for name, value in weights.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name].double(), value.double(), atol=1e-4), name


def test_shares_partition_every_batch(monkeypatch):
    alone = list(epoch_shares(21, plan(augment=True), epoch=2))
    assert sorted(np.concatenate([share.tiles for share in alone]).tolist()) == list(range(21))
    assert {len(share.tiles) for share in alone} == {7}  # 21 tiles in batches of at most 8
    monkeypatch.setattr(loop, "world_size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(loop, "_rank", lambda rank=rank: rank)
        parts.append(list(epoch_shares(21, plan(augment=True), epoch=2)))
    for whole, *shares in zip(alone, *parts, strict=True):
        for field in ("tiles", "turns", "seeds"):
            assert np.array_equal(np.concatenate([getattr(s, field) for s in shares]), getattr(whole, field))


def test_epochs_differ_and_seeds_decide():
    first, again, other = (list(epoch_shares(9, plan(), epoch)) for epoch in (1, 1, 2))
    assert all(
        np.array_equal(a.tiles, b.tiles) and np.array_equal(a.seeds, b.seeds) for a, b in zip(first, again, strict=True)
    )
    assert not np.array_equal(first[0].seeds, other[0].seeds)


def test_same_seed_same_fit():
    first, second, other = small_fit(), small_fit(), small_fit(seed=8)
    assert first.history == second.history
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert first.history != other.history


def test_ignored_pixels_do_not_matter_and_are_not_counted():
    """Labels at ignored places may be anything that the lookup ignores; loss and scores see labelled pixels only."""
    one, model = block(0), network().eval()
    other = Block(one.x, np.where(one.labels == IGNORE, 200, one.labels).astype(np.uint8))
    results = [evaluate(model, TileSet([b], LOOKUP, STATS), N_CLASSES) for b in (one, other)]
    assert results[0].loss_sum == results[1].loss_sum
    assert results[0].confusion.sum() == (one.labels != IGNORE).sum()
    gradients = []
    for labels in (one.labels, other.labels):
        model = network(dropout=0.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        kept = []
        optimizer.register_step_pre_hook(lambda *_, m=model, k=kept: k.extend(p.grad.clone() for p in m.parameters()))
        loop.train_epoch(
            model, optimizer, TileSet([Block(one.x, labels)], LOOKUP, STATS), torch.ones(N_CLASSES), plan(), 1
        )
        gradients.append(kept)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_loss_is_the_mean_over_labelled_pixels_of_all_batches():
    """Closed form: a network that answers zeros has loss ln 4 on every labelled pixel, however unevenly they lie."""
    model = network()
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    tiles = tile_set(0)
    tiles.blocks[0].labels[1:] = IGNORE
    tiles.blocks[0].labels[3, 0, 0] = 1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loss = loop.train_epoch(model, optimizer, tiles, torch.ones(N_CLASSES), plan(batch_size=2), 1)
    assert loss == pytest.approx(np.log(4))
    assert evaluate(model, tiles, N_CLASSES).loss_sum == pytest.approx(
        np.log(4) * (tiles.blocks[0].labels != IGNORE).sum()
    )


def test_best_weights_are_kept_not_the_last(monkeypatch):
    """Validation is best in epoch 2 by decree; the weights returned must be those of epoch 2, and training stops at 5."""
    losses, real, seen = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0]), evaluate, []

    def decreed(model, tiles, n_classes, batch_size, untrained):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        result = real(model, tiles, n_classes, batch_size, untrained)
        return loop.Evaluation(next(losses) * int(result.confusion.sum()), result.confusion)

    monkeypatch.setattr(loop, "evaluate", decreed)
    result = fit(network(), tile_set(0), tile_set(1), plan(epochs=50, patience=3))
    assert result.best_epoch == 2
    assert len(result.history) == 5
    assert result.validation.loss_sum == pytest.approx(1.0 * result.validation.confusion.sum())
    assert all(torch.equal(result.weights[name], seen[1][name]) for name in seen[1])
    assert any(not torch.equal(result.weights[name], seen[4][name]) for name in seen[4])


def test_without_patience_the_last_epoch_is_kept_whatever_validation_says(monkeypatch):
    """Half-way through a schedule the learning rate is at its highest: the best epoch there is luck."""
    losses = iter([3.0, 1.0, 2.0, 2.5])
    monkeypatch.setattr(loop, "evaluate", lambda *_: loop.Evaluation(next(losses) * 10, np.full((3, 3), 1)))
    model = network()
    result = fit(model, tile_set(0), tile_set(1), plan(epochs=4, patience=None))
    assert (result.best_epoch, len(result.history)) == (4, 4)
    assert result.validation.loss_sum == 25.0
    assert all(torch.equal(result.weights[name], value) for name, value in model.state_dict().items())


def test_monitor_can_be_macro_f1():
    result = small_fit(monitor="val_macro_f1", epochs=4)
    scores = [record["val_macro_f1"] for record in result.history]
    assert scores[result.best_epoch - 1] == max(scores)


def test_without_validation_all_epochs_are_run_and_the_last_is_kept():
    told = []
    result = fit(network(), tile_set(0), None, plan(epochs=5, patience=1), told.append)
    assert result.best_epoch == len(result.history) == len(told) == 5
    assert result.validation is None
    assert set(told[0]) == {"epoch", "train_loss"}


def test_a_fold_without_some_class_works():
    train = tile_set(0)
    train.blocks[0].labels[train.blocks[0].labels == 2] = IGNORE
    result = fit(network(), train, tile_set(1), plan(class_weighting="sqrt_inverse"))
    assert result.validation.confusion[2].sum() > 0  # it is scored, though it was never learnt
    assert np.isfinite(result.history[-1]["val_loss"])


def test_class_weights_have_mean_one_over_training_pixels():
    counts = np.array([900, 100, 0])
    weights = class_weights(counts, "sqrt_inverse")
    # 1/30 : 1/10, scaled so that (900 w₀ + 100 w₁) / 1000 = 1
    assert weights.tolist() == pytest.approx([1000 / 1200, 3000 / 1200, 0.0])
    assert class_weights(counts, "none").tolist() == [1, 1, 1]


def test_a_loss_that_is_no_number_stops_the_fit():
    with pytest.raises(FloatingPointError, match=r"epoch 1 at learning rate 1e\+30; lower"):
        fit(network(), tile_set(0), None, plan(learning_rate=1e30, batch_size=2))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_labels_to_train_on_are_said(n):
    one = block(0)
    labels = np.full_like(one.labels, IGNORE)
    labels[2, 3, :n] = 1
    with pytest.raises(InputError, match=f"hold {n} labelled pixels; a network needs 2"):
        fit(network(), TileSet([Block(one.x, labels)] if n else [], LOOKUP, STATS), None, plan())


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(3, 2, [3]), (7, 2, [3, 2, 2]), (7, 4, [4, 3]), (1, 8, [1])])
def test_no_sample_is_a_batch_alone(n, batch_size, sizes):
    assert [len(share.tiles) for share in epoch_shares(n, plan(batch_size=batch_size), 1)] == sizes
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        CnnSettings(batch_size=1)
    with pytest.raises(ValueError, match="n must be at least 2"):
        SAMPLERS.make({"name": "all", "n": 1})


def test_one_tile_that_is_one_pixel_below_can_be_trained_on():
    """On the coarsest level there is one value per channel, of which nothing but the bias is left."""
    one = block(0)
    tiny = TileSet([Block(one.x[:1, ..., :2, :2], np.array([[[0, 1], [2, 1]]], np.uint8))], LOOKUP, STATS)
    result = fit(network(), tiny, tiny, plan(epochs=2))
    assert np.isfinite([record["val_loss"] for record in result.history]).all()
    norm = GlobalBatchNorm(3)
    torch.nn.init.constant_(norm.bias, 0.5)
    assert norm(torch.full((1, 3, 1, 1), 9.0)).flatten().tolist() == [0.5] * 3


def test_a_monitored_score_that_cannot_be_computed_is_named(monkeypatch):
    monkeypatch.setattr(loop, "_scores", lambda _: {"val_loss": 1.0})
    with pytest.raises(ConfigError, match=r"val_macro_f1 cannot be computed .*set monitor to another"):
        fit(network(), tile_set(0), tile_set(1), plan(monitor="val_macro_f1"))


def test_labels_are_counted_once_whatever_the_number_of_epochs(monkeypatch):
    real, counted = TileSet.class_counts, []
    monkeypatch.setattr(TileSet, "class_counts", lambda self, n: (counted.append(n), real(self, n))[1])
    fit(network(), tile_set(0), None, plan(epochs=3, sampler="class_balanced"))
    assert len(counted) == 2  # for the loss, and for the sampler


def test_it_learns():
    result = small_fit(epochs=30, patience=30, learning_rate=1e-2)
    best = result.history[result.best_epoch - 1]
    assert best["val_accuracy"] > 0.85  # classes differ in brightness by more than the noise; chance is 0.3


def test_cosine_schedule_falls_from_the_full_rate_to_nearly_nothing():
    plan = FitPlan(n_classes=2, learning_rate=0.1, seed=0, epochs=4, schedule="cosine")
    # (1 + cos(π · (0, 1, 2, 3) / 4)) / 2 = 1, (1 + √½) / 2, ½, (1 − √½) / 2
    expected = [0.1, 0.1 * (1 + 0.5**0.5) / 2, 0.05, 0.1 * (1 - 0.5**0.5) / 2]
    assert [scheduled_rate(plan, epoch) for epoch in range(1, 5)] == pytest.approx(expected)
    constant = FitPlan(n_classes=2, learning_rate=0.1, seed=0, epochs=4)
    assert {scheduled_rate(constant, epoch) for epoch in range(1, 5)} == {0.1}


def by_hand(steepness, classes):
    """(loss of the pixels of some classes by the definition of the metrics, confusion of all pixels)."""
    tiles = tile_set(0, 3)
    batch = tiles.batch(np.arange(len(tiles)), torch.device("cpu"))
    probabilities = Fixed(steepness)(batch.x).detach().softmax(dim=1).movedim(1, -1)[batch.labelled()].numpy()
    true = batch.labels[batch.labelled()].numpy().astype(np.uint8)
    own = np.isin(true, classes)
    return log_loss_sum(probabilities[own], true[own]), confusion(true, probabilities.argmax(1), N_CLASSES)


@pytest.mark.parametrize("steepness", [0.5, 40.0, 900.0, 1e5])
def test_the_loss_is_the_one_of_the_metrics(steepness):
    result = scored(steepness)
    loss_sum, matrix = by_hand(steepness, range(N_CLASSES))
    assert result.loss_sum == pytest.approx(loss_sum, rel=1e-6)
    assert np.array_equal(result.confusion, matrix)
    # However sure the network is: a pixel costs at most -ln 1e-16 = 36.84 nats.
    assert result.loss_sum <= -np.log(PROBABILITY_FLOOR) * matrix.sum()


def test_a_pixel_that_is_surely_wrong_costs_the_floor():
    x = np.full((1, 12, 4, 8, 8), 2000, np.uint16)
    tiles = TileSet([Block(x, np.zeros((1, 8, 8), np.uint8))], LOOKUP, STATS)
    # Brightness 4/3 above the mean: logits of 0 and 400 for classes 0 and 3, 120 nats and more without a floor.
    assert evaluate(Fixed(100.0), tiles, N_CLASSES).loss_sum == pytest.approx(64 * 36.841361, rel=1e-6)


def test_classes_without_a_training_pixel_are_summed_apart():
    result = scored(3.0, untrained=(1, 2))
    assert result.untrained == (1, 2)
    for loss, classes in ((result.loss_sum, (0, 3)), (result.untrained_loss_sum, (1, 2))):
        assert loss == pytest.approx(by_hand(3.0, classes)[0], rel=1e-6)
    assert np.array_equal(result.confusion, by_hand(3.0, range(N_CLASSES))[1])


def test_workers_add_both_losses_and_the_counts(tmp_path):
    alone = scored(3.0, (1, 2))
    for result in on_two_workers(tmp_path, "scored", steepness=3.0, untrained=(1, 2)):
        assert result.loss_sum == pytest.approx(alone.loss_sum, rel=1e-12)
        assert result.untrained_loss_sum == pytest.approx(alone.untrained_loss_sum, rel=1e-12)
        assert np.array_equal(result.confusion, alone.confusion)


def without(label, *blocks):
    """The same tiles, with no pixel of a class."""
    return [Block(b.x, np.where(b.labels == label, IGNORE, b.labels).astype(np.uint8)) for b in blocks]


def test_what_training_cannot_know_does_not_stop_a_fit():
    """The validation pixels of a class that training lacks change the counts and nothing that is chosen."""
    train = TileSet(without(2, block(0), block(1)), LOOKUP, STATS)
    fits = [
        fit(network(), train, TileSet(tiles, LOOKUP, STATS), plan(epochs=4))
        for tiles in ([block(2)], without(2, block(2)))
    ]
    n_unknown = int((block(2).labels == 2).sum())
    assert n_unknown > 0
    for with_unknown, without_unknown in zip(*(f.history for f in fits), strict=True):
        assert with_unknown["val_loss"] == pytest.approx(without_unknown["val_loss"], rel=1e-12)
        assert with_unknown["val_accuracy"] < without_unknown["val_accuracy"]  # which counts every pixel
        assert with_unknown["val_untrained_pixels"] - without_unknown["val_untrained_pixels"] == n_unknown
    assert fits[0].best_epoch == fits[1].best_epoch
    assert 2 in fits[0].validation.untrained


def test_a_fixed_number_of_epochs_is_a_part_of_the_schedule():
    """What was validated is repeated: the same steps at the same rates, and validation chooses nothing."""
    whole = small_fit(epochs=5, patience=9, schedule="cosine")
    part = small_fit(epochs=5, patience=1, schedule="cosine", n_epochs=2)
    assert [r["train_loss"] for r in part.history] == [r["train_loss"] for r in whole.history[:2]]
    assert part.best_epoch == 2
    assert part.history[-1] == whole.history[1]  # the last epoch alone is validated
    assert "val_loss" not in part.history[0]
