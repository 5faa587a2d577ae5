"""What every network of the catalogue that looks at steps by attention owes: gaps, windows, and a problem that it can learn."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cropray.core.closure import closure
from cropray.nets import ltae, utae
from cropray.nets.context import Context
from cropray.nets.registry import NETS
from cropray.training.cnn.settings import CnnSettings
from tests.study import INPUT

SMALL = {
    "ltae": {"embedding": 16, "heads": 4, "hidden": 16},
    "utae": {"widths": (8, 8, 16), "heads": 4},
    "tsvit": {"width": 16, "heads": 2, "block": 4},
}
every = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads of networks as small as these wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(name, seed=0, **changes):
    torch.manual_seed(seed)
    kind = NETS.entry(name)
    return kind(kind.Config(**{"n_classes": 3, **INPUT, **SMALL[name], **changes})).eval()


def drawn(*shape, seed=0, missing=0.3):
    """Numbers of tiles, some of whose steps are missing, and the same normalised."""
    rng = torch.Generator().manual_seed(seed)
    numbers = torch.randint(1, 5000, (shape[0], 12, 4, *shape[1:]), generator=rng)
    numbers *= torch.rand((shape[0], 12, 1, *shape[1:]), generator=rng) >= missing
    return torch.where(numbers == 0, 0, (numbers - 2500) / 1500), Context(numbers, torch.arange(shape[0]))


@every
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (24, 24), (9, 20)])
def test_any_height_and_width(name, size):
    x, context = drawn(2, *size)
    model = network(name)
    assert model(x, context).shape == (2, 3, *size)
    everywhere = Context(torch.ones_like(context.numbers))
    assert torch.equal(model(x), model(x, everywhere))  # without a context every number is a value


@every
def test_what_a_missing_step_holds_changes_nothing(name):
    model, (x, context) = network(name), drawn(2, 6, 5)
    other = x + 1e3 * (context.numbers == 0)
    assert torch.equal(model(x, context), model(other, context))
    assert not torch.allclose(model(x, context), model(x, Context(torch.ones_like(context.numbers))))


@every
def test_pixels_without_any_step_have_scores_and_gradients(name):
    model, (x, context) = network(name).train(), drawn(2, 6, 5)
    context.numbers[0] = 0
    context.numbers[1, :, :, 2:4] = 0
    scores = model(torch.where(context.numbers == 0, 0, x), context)
    scores.square().sum().backward()
    assert scores.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    assert any(weight.grad.abs().sum() > 0 for weight in model.parameters())


@every
def test_a_worker_may_have_no_sample(name):
    model, (x, context) = network(name), drawn(0, 6, 5)
    assert model(x, context).shape == (0, 3, 6, 5)
    model.train()(x, context).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@every
def test_the_order_of_steps_counts(name):
    model, (x, context) = network(name), drawn(1, 6, 6)
    assert not torch.allclose(model(x, context), model(x.flip(1), Context(context.numbers.flip(1))), atol=1e-4)


@every
def test_a_batch_is_its_samples_while_it_predicts(name):
    model, (x, context) = network(name), drawn(3, 7, 9)
    each = [model(x[i : i + 1], Context(context.numbers[i : i + 1])) for i in range(3)]
    assert torch.allclose(model(x, context), torch.cat(each), atol=1e-5)


@pytest.mark.parametrize("name", ["ltae", "tsvit"])
def test_pieces_change_nothing(name, monkeypatch):
    model, (x, context) = network(name), drawn(2, 9, 9)
    whole = model(x, context)
    monkeypatch.setattr(f"cropray.nets.{name}.PIXELS_AT_ONCE", 10)
    assert torch.allclose(model(x, context), whole, atol=1e-5)


@every
def test_seeds_alone_decide_what_is_dropped(name):
    model, (x, context) = network(name, dropout=0.5).train(), drawn(4, 6, 6)
    torch.manual_seed(0)
    first, again = model(x, context), model(x, context)
    assert torch.equal(first, again)
    assert not torch.allclose(first, model(x, replace(context, seeds=torch.arange(4) + 9)))


@every
def test_windows_equal_the_whole(name):
    model = network(name, n_months=4, n_bands=2).double()
    margin, stride = model.receptive().margin_px, model.receptive().stride_px
    assert margin % stride == 0
    core = max(margin, stride, 8)
    x = drawn(1, 2 * core + 5, 2 * margin + core + 3)[0][:, :4, :2].double()
    context = Context(x != 0)
    with torch.no_grad():
        for _ in range(3):
            model.train()(x, context)  # norms that have moved
        whole = model.eval()(x, context)
        for row in range(0, x.shape[3], core):
            for col in range(0, x.shape[4], core):
                top, left = max(row - margin, 0), max(col - margin, 0)
                part = (..., slice(top, row + core + margin), slice(left, col + core + margin))
                window = model(x[part], Context(context.numbers[part]))
                inner = window[..., row - top : row - top + core, col - left : col - left + core]
                expected = whole[..., row : row + core, col : col + core]
                assert torch.allclose(inner, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["utae", "tsvit"])
def test_the_margin_is_not_far_off(name):
    model = network(name, n_months=2, n_bands=1).double()
    reach = model.receptive()
    x = torch.randn(1, 2, 1, 2 * reach.margin_px + 2 * reach.stride_px, 4, dtype=torch.float64, requires_grad=True)
    model(x)[0, :, reach.margin_px].sum().backward()
    reached = (x.grad.abs().sum(dim=(0, 1, 2, 4)) > 0).nonzero().flatten()
    assert reach.margin_px - int(reached.min()) >= 0.4 * reach.margin_px > 0


@every
def test_it_learns_what_no_linear_model_can(name):
    """Whether a peak of one band falls into the same step as one of another: each band alone says nothing."""
    rng = torch.Generator().manual_seed(1)
    steps = torch.randint(6, (2, 40, 2, 2), generator=rng)
    labels = torch.rand(40, 2, 2, generator=rng) < 0.5
    steps[1] = torch.where(labels, steps[0], (steps[0] + 1 + steps[1] % 5) % 6)
    peaks = F.one_hot(steps, 6).permute(1, 4, 0, 2, 3).float()  # [B, T, C, H, W]
    x = (2 * peaks - 0.3).repeat_interleave(2, 3).repeat_interleave(2, 4)
    x += 0.2 * torch.randn(x.shape, generator=rng)
    truth = labels.long().repeat_interleave(2, 1).repeat_interleave(2, 2)
    model = network(name, n_months=6, n_bands=2, n_classes=2, dropout=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x[:32]), truth[:32]).backward()
        optimizer.step()
    assert (model.eval()(x[32:]).argmax(1) == truth[32:]).float().mean() > 0.9


@every
def test_a_config_travels_and_a_job_can_choose_it(name):
    config = network(name).config
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config
    chosen = CnnSettings(net={"name": name, **SMALL[name]}, dropout=0.1)
    assert chosen.net["name"] == name
    assert f"cropray.nets.{name}:{NETS.entry(name).__name__}" in closure(NETS.entry(name)).symbols


@every
def test_wrong_input_and_settings_are_named(name):
    with pytest.raises(ValueError, match=r"12 steps, 4 bands.*\(1, 4, 12, 8, 8\)"):
        network(name)(torch.zeros(1, 4, 12, 8, 8))
    for wrong in ({"dropout": 1.0}, {"heads": 0}, {"heads": 7}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            network(name, **wrong)


def test_attention_is_the_slow_way():
    """Each head: its query and the keys of all steps one by one."""
    attention = ltae.TemporalAttention(8, 2, 3, 5).double()
    x, valid = torch.randn(4, 5, 8, dtype=torch.float64), torch.rand(4, 5) < 0.6
    valid[:, 1] = True
    out, shares = attention(x, valid)
    for n in range(4):
        placed = x[n] + attention.positions
        for head in range(2):
            keys = [attention.keys[head] @ step for step in placed]
            scores = torch.stack([attention.queries[head] @ key / 3**0.5 for key in keys])
            weights = torch.where(valid[n], scores.exp(), 0)
            weights = weights / weights.sum()
            assert torch.allclose(shares[n, head], weights)
            assert torch.allclose(out[n, head * 4 : head * 4 + 4], weights @ placed[:, head * 4 : head * 4 + 4])


def test_steps_without_data_weigh_nothing_in_the_mean_of_a_level():
    """Pixel by pixel, head by head; where no step has data all count."""
    steps, shares = torch.randn(3, 1, 4, 2, 2), torch.rand(1, 2, 3, 1, 1).softmax(dim=2)
    valid = torch.tensor([[[[1.0, 0], [1, 0]], [[1, 1], [0, 0]], [[0, 1], [0, 0]]]])
    found = utae.collapse(list(steps), shares, valid, 2)
    for i, j, head in itertools.product(range(2), range(2), range(2)):
        counts = valid[0, :, i, j] if valid[0, :, i, j].any() else torch.ones(3)
        weights = shares[0, head, :, 0, 0] * counts
        expected = (weights / weights.sum()) @ steps[:, 0, 2 * head : 2 * head + 2, i, j]
        torch.testing.assert_close(found[0, 2 * head : 2 * head + 2, i, j], expected)


def test_patches_outside_the_image_are_not_seen():
    model, (x, context) = network("tsvit", spatial_depth=1), drawn(1, 4, 6)  # 2 × 3 patches of a block of 4 × 4
    before = model(x, context)
    with torch.no_grad():
        places = model.within.view(4, 4, -1)
        places[2:], places[:, 3:] = torch.randn(2, 4, 16), torch.randn(4, 1, 16)
    assert torch.equal(model(x, context), before)


def test_ltae_reads_ratios_of_digital_numbers():
    x, context = drawn(1, 2, 2, missing=0)
    model = network("ltae", ratios=((3, 2),))
    assert not torch.allclose(model(x, context), model(x, Context(context.numbers.flip(2))))
    (ndvi,) = ltae.band_ratios(context.numbers, ((3, 2),))
    red, nir = context.numbers[:, :, 2:3].double(), context.numbers[:, :, 3:4].double()
    assert torch.allclose(ndvi.double(), (nir - red) / (nir + red), atol=1e-6)
    with pytest.raises(ValueError, match="bands from 0 to 3"):
        network("ltae", ratios=((4, 0),))


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("ltae", {(12, 4, 20): 2680, (36, 10, 20): 6817}),
        ("utae", {(12, 4, 20): 3776, (12, 4, 60): 3684, (36, 10, 20): 13101}),
        ("tsvit", {(12, 4, 20): 4937, (12, 4, 60): 16526}),
    ],
)
def test_a_prediction_takes_the_memory_that_was_measured(name, measured):
    """Of processes, input included, in small windows: see each network's `bytes_per_px`."""
    kind = NETS.entry(name)
    for (n_months, n_bands, n_classes), wanted in measured.items():
        net = kind(kind.Config(n_months=n_months, n_bands=n_bands, n_classes=n_classes))
        assert wanted < net.bytes_per_px() + 6 * n_months * n_bands < 2 * wanted
        assert sum(weight.numel() for weight in net.parameters()) < 1.1e6
