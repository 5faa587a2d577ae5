"""What an epoch draws."""

import numpy as np
import pytest

from cropray.core.legend import IGNORE
from cropray.training.deep import loop
from cropray.training.deep.loop import epoch_shares
from cropray.training.deep.samplers import NO_CLASS, SAMPLERS, earlier_draws
from cropray.training.deep.tiles import TileSet
from tests.training.small_fits import LOOKUP, STATS, Block, plan, small_fit

# 900, 90 and 9 samples of three classes, and one without any.
CLASSES = np.repeat(np.array([1, 0, 3, NO_CLASS], np.uint8), [900, 90, 9, 1])


def order(choice, seed=0, classes=CLASSES):
    return SAMPLERS.make(choice).order(np.random.default_rng(seed), len(classes), lambda: classes)


def test_all_takes_each_once_or_as_often_as_any_other():
    assert sorted(order("all")) == list(range(1000))
    thrice = np.bincount(order({"name": "all", "n": 2500}), minlength=1000)
    assert set(thrice) == {2, 3}
    few = [order({"name": "all", "n": 10}, seed) for seed in (1, 2)]
    assert [len(set(draw)) for draw in few] == [10, 10]
    assert set(few[0]) != set(few[1])


def test_class_balanced_draws_all_classes_alike():
    drawn = CLASSES[order({"name": "class_balanced", "n": 30_000})]
    counts = np.bincount(drawn, minlength=256)[[1, 0, 3, NO_CLASS]]
    # Binomial with p = 1/3: 10 000 ± 82; five deviations.
    assert np.all(np.abs(counts[:3] - 10_000) < 410)
    assert counts[3] == 0
    roots = np.bincount(CLASSES[order({"name": "class_balanced", "n": 30_000, "power": 0.5})], minlength=256)
    # √900 : √90 : √9 = 30 : 9.49 : 3
    assert np.allclose(roots[[1, 0, 3]] / 30_000, np.array([30, 90**0.5, 3]) / (33 + 90**0.5), atol=0.015)
    assert len(order("class_balanced")) == 1000


def test_tiles_count_by_their_rarest_class():
    labels = np.zeros((4, 2, 2), np.uint8)
    labels[1] = [[0, 1], [0, 0]]  # class 1 has 1 + 2 pixels, class 2 has 1, class 0 most
    labels[2] = [[1, 2], [1, IGNORE]]
    labels[3] = IGNORE
    tiles = TileSet([Block(np.zeros((4, 12, 4, 2, 2), np.uint16), labels)], LOOKUP, STATS)
    assert tiles.rarest_classes(4).tolist() == [0, 1, 2, NO_CLASS]


@pytest.mark.parametrize("sampler", [{"name": "class_balanced", "n": 40}, {"name": "all", "n": 40}])
def test_workers_share_what_one_draws(monkeypatch, sampler):
    changed = plan(augment=True, sampler=sampler)
    rarest = lambda: np.repeat(np.array([0, 1], np.uint8), [18, 3])  # noqa: E731
    alone = list(epoch_shares(21, changed, 2, rarest))
    monkeypatch.setattr(loop, "world_size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(loop, "_rank", lambda rank=rank: rank)
        parts.append(list(epoch_shares(21, changed, 2, rarest)))
    for whole, *shares in zip(alone, *parts, strict=True):
        for field in ("tiles", "turns", "seeds"):
            assert np.array_equal(np.concatenate([getattr(s, field) for s in shares]), getattr(whole, field))
    seeds = np.concatenate([share.seeds for share in alone])
    assert len(set(seeds.tolist())) == 40  # a sample that comes again is another one


def test_earlier_draws_are_counted():
    assert earlier_draws(np.array([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]
    assert earlier_draws(np.array([2, 0, 1])).tolist() == [0, 0, 0]


def test_a_fit_by_drawn_samples_repeats():
    first, second = (small_fit(sampler="class_balanced", augment=True) for _ in range(2))
    assert first.history == second.history != small_fit(augment=True).history
