"""Augmentations by name: they invent no value, and each sample's draw is its own."""

import numpy as np
import pytest
import torch

from cropray.training.deep.augment import AUGMENTATIONS, augmentations, augmented, chosen, uniform
from tests.training.small_fits import plan, small_fit, tile_set
from tests.training.test_loop import on_two_workers

STD = (300.0, 400.0, 500.0, 600.0)
SERIES = [
    "shift",
    {"name": "scale", "by": 0.3},
    {"name": "bands", "by": 0.2, "offset": 0.3},
    "warp",
    {"name": "dropout_steps", "share": 0.4},
    {"name": "noise", "sd": 0.5},
]


def samples(n=64, missing=0.2):
    rng = np.random.default_rng(0)
    x = rng.integers(1, 4000, (n, 12, 4, 3, 2))
    x[rng.random(x.shape) < missing] = 0
    return torch.from_numpy(x).float(), torch.from_numpy(rng.integers(2**32, size=n))


def changed(choice, x, seeds):
    return augmented(x, augmentations(choice), seeds, STD)


@pytest.mark.parametrize("choice", SERIES, ids=str)
def test_no_value_is_invented_and_neighbours_do_not_matter(choice):
    x, seeds = samples()
    together = changed(choice, x, seeds)
    assert not torch.equal(together, x)
    assert torch.equal(together, changed(choice, x, seeds))
    apart = torch.cat([changed(choice, x[:7], seeds[:7]), changed(choice, x[7:], seeds[7:])])
    assert torch.equal(together, apart)
    if choice != "shift":
        assert (together[x == 0] == 0).all()
    assert (together >= 0).all()
    assert changed(choice, x[:0], seeds[:0]).shape == (0, *x.shape[1:])


def test_shift_moves_by_whole_steps_and_leaves_no_data_behind():
    x, seeds = samples(400)
    shifted = changed({"name": "shift", "steps": 2}, x, seeds)
    found = []
    for before, after in zip(x, shifted, strict=True):
        (by,) = [k for k in range(-2, 3) if torch.equal(after, moved(before, k))]
        found.append(by)
    assert set(found) == {-2, -1, 0, 1, 2}


def test_a_share_of_the_samples_may_be_moved():
    """Of those two thirds are, to either side; whether one may has nothing to do with where it would go."""
    x, seeds = samples(3000, missing=0)
    some, all_ = (changed({"name": "shift", "share": share}, x, seeds) for share in (0.3, 1.0))
    is_moved, was_moved = ((of != x).flatten(1).any(1) for of in (some, all_))
    assert was_moved.float().mean() == pytest.approx(2 / 3, abs=0.03)
    assert is_moved.float().mean() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(some[is_moved], all_[is_moved])


def moved(series, by):
    """By the slow way: what lies outside was never seen."""
    out = torch.zeros_like(series)
    for step in range(12):
        if 0 <= step - by < 12:
            out[step] = series[step - by]
    return out


def test_scale_is_one_factor_a_sample():
    x, seeds = samples(200)
    scaled = changed({"name": "scale", "by": 0.3}, x, seeds)
    factors = []
    for before, after in zip(x, scaled, strict=True):
        ratio = (after / before)[before != 0]
        assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-5)
        factors.append(float(ratio[0]))
    assert 0.7 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.3


def test_bands_have_a_factor_and_an_offset_each_in_all_steps():
    x, seeds = samples(300, missing=0.0)
    x += 20_000  # far from the smallest number that is a value
    for option, least, most in (({"by": 0.2, "offset": 0.0}, 0.8, 1.2), ({"by": 0.0, "offset": 0.5}, -0.5, 0.5)):
        found = changed({"name": "bands", **option}, x, seeds)
        said = found / x if option["by"] else (found - x) / torch.tensor(STD)[:, None, None]
        of_band = said[:, :1, :, :1, :1]
        assert torch.allclose(said, of_band.expand_as(said), atol=1e-4)
        assert least <= float(said.min()) < least + 0.02
        assert most - 0.02 < float(said.max()) <= most
        draws = of_band.flatten(1)
        assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.2  # apart for each band


def test_a_warp_is_one_line_between_knots_for_all_bands():
    x, seeds = samples(300, missing=0.0)
    curves = (changed({"name": "warp", "by": 0.3, "knots": 3}, x, seeds) / x).flatten(2)
    assert torch.allclose(curves, curves[..., :1].expand_as(curves), rtol=1e-4)
    for curve in curves[:20, :, 0]:
        slopes = curve.diff()
        assert torch.allclose(slopes[:5], slopes[0].expand(5), atol=1e-4)  # knots at steps 0, 5.5 and 11
        assert torch.allclose(slopes[6:], slopes[-1].expand(5), atol=1e-4)
    assert 0.7 <= float(curves.min()) < 0.72
    assert 1.28 < float(curves.max()) <= 1.3
    assert changed("warp", x[:, :1], seeds).shape == x[:, :1].shape


def test_dropped_steps_lose_all_bands_and_one_step_is_never_lost():
    x, seeds = samples(500, missing=0.0)
    dropped = changed({"name": "dropout_steps", "share": 0.4}, x, seeds)
    kept = (dropped != 0).flatten(2)
    assert (kept.all(2) | ~kept.any(2)).all()
    assert float(kept.any(2).float().mean()) == pytest.approx(0.6, abs=0.03)
    only = changed({"name": "dropout_steps", "share": 0.9}, x[:, :1], seeds)
    assert torch.equal(only, x[:, :1])


def test_noise_is_in_units_of_the_band():
    x, seeds = samples(200, missing=0.0)
    x += 20_000  # far from the smallest number that is a value
    noise = changed({"name": "noise", "sd": 0.5}, x, seeds) - x
    deviations = noise.transpose(0, 2).flatten(1).std(dim=1)
    assert deviations.tolist() == pytest.approx([0.5 * sd for sd in STD], rel=0.02)
    assert abs(float(noise.mean())) < 2.0
    dark = changed({"name": "noise", "sd": 5.0}, torch.ones_like(x), seeds)
    assert float(dark.min()) == 1.0  # a value stays one


def test_draws_are_even_and_never_at_their_ends():
    drawn = uniform(torch.arange(300), 1000)
    assert 0 < float(drawn.min()) < 1e-4 < 1 - 1e-4 < float(drawn.max()) < 1
    assert np.histogram(drawn, 10, (0, 1))[0] == pytest.approx(30_000, rel=0.02)


def test_several_draw_apart_and_names_of_old_stay():
    assert chosen(True) == ("dihedral",)
    assert chosen(False) == chosen("none") == ()
    x, seeds = samples()
    twice = changed(["scale", "scale"], x, seeds)
    once = changed("scale", x, seeds)
    assert not torch.allclose(twice, once * once / x.clamp_min(1))


def test_true_and_dihedral_are_one():
    old, new = small_fit(augment=True), small_fit(augment="dihedral")
    assert old.history == new.history
    assert small_fit(augment=["dihedral", *SERIES]).history != old.history
    assert small_fit(augment="none").history == small_fit().history


def test_two_workers_change_samples_as_one(tmp_path):
    changes = {
        "augment": ["dihedral", *SERIES],
        "sampler": {"name": "class_balanced", "n": 20},
        "schedule": "one_cycle",
    }
    one = small_fit(**changes)
    first, second = on_two_workers(tmp_path, "small_fit", **changes)
    assert first.history == second.history
    for mine, theirs in zip(one.history, first.history, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)


def test_only_training_samples_are_changed():
    tiles = tile_set(0)
    x, _ = tiles.batch(np.arange(3), torch.device("cpu")).x, plan()
    assert torch.equal(x, tiles.batch(np.arange(3), torch.device("cpu"), change=lambda numbers: numbers).x)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "shift", "steps": 0},
        {"name": "shift", "share": 0.0},
        {"name": "scale", "by": 1.0},
        {"name": "noise", "sd": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        AUGMENTATIONS.make(wrong)


@pytest.mark.parametrize(
    "choice", [{"name": "scale", "by": 0.3}, {"name": "bands", "by": 0.3, "offset": 0}, "warp"], ids=str
)
def test_values_are_multiplied_not_the_numbers_that_store_them(choice):
    """An index stored as 10 000 · (value + 1): its numbers lie far from 0, its values do not."""
    x, seeds = samples(50)
    plain = changed(choice, x, seeds)
    stored = torch.where(x == 0, 0, x + 10_000)
    found = augmented(stored, augmentations(choice), seeds, STD, zero=[10_000.0] * 4)
    torch.testing.assert_close(
        found, torch.where(x == 0, 0, plain + 10_000), rtol=0, atol=0.5
    )  # the smallest numbers are kept at 1
    below = augmented(torch.full_like(x[:, :, :, :1, :1], 40), augmentations(choice), seeds, STD, zero=[10_000.0] * 4)
    assert (below >= 1).all()  # never no data
