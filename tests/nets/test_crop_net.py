"""The network's shapes, its size, its exact reach, and that it can learn."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from cropray.nets.crop_net import CropNet, CropNetConfig
from cropray.nets.unet import receptive_radius
from tests.study import INPUT

NARROW = {"temporal_channels": 8, "unet_channels": (8, 8, 16)}


def network(seed=0, **changes):
    torch.manual_seed(seed)
    return CropNet(CropNetConfig(**INPUT, n_classes=5, **{**NARROW, **changes}))


def series(*shape):
    return torch.randn(shape[0], 12, 4, *shape[1:], generator=torch.Generator().manual_seed(1))


def settled(model):
    """The network after some training passes: its norms let the deep levels speak as loudly as the others."""
    for _ in range(20):
        model.train()(series(2, 24, 24).to(model.classifier.weight.dtype))
    return model.eval()


@pytest.mark.parametrize("size", [(1, 1), (24, 24), (7, 13), (33, 20), (2, 64)])
@pytest.mark.parametrize("pool", ["max", "mean", "flatten"])
def test_any_height_and_width(size, pool):
    model = network(pool=pool).eval()
    assert model(series(2, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_kernel_sizes_keep_months_aligned(kernel_size):
    assert network(kernel_size=kernel_size).eval()(series(1, 8, 8)).isfinite().all()


def test_the_studys_network_has_13_4_million_parameters():
    study = CropNet(CropNetConfig(**INPUT, n_classes=51, pool="max"))
    assert round(sum(p.numel() for p in study.parameters()) / 1e6, 1) == 13.4  # original study, "CNN"


def test_order_of_months_matters_unless_pooled_away():
    x = series(1, 6, 6)
    # With kernel 1, a pool that forgets order cannot tell a season from its reverse.
    for pool, forgets in (("max", True), ("mean", True), ("flatten", False)):
        model = network(pool=pool, kernel_size=1).eval()
        with torch.no_grad():
            assert torch.allclose(model(x), model(x.flip(1)), atol=1e-6) == forgets


def test_a_pixel_is_embedded_on_its_own():
    model = network().eval()
    x = series(1, 5, 5).transpose(1, 2).flatten(3)
    changed = x.clone()
    changed[..., 7] += 1.0
    with torch.no_grad():
        differs = (model.temporal(x) != model.temporal(changed)).any(dim=1)[0]
    assert differs.nonzero().flatten().tolist() == [7]


def test_evaluation_in_pieces_equals_at_once(monkeypatch):
    model, x = network().eval(), series(1, 9, 9)
    with torch.no_grad():
        at_once = model(x)
        monkeypatch.setattr("cropray.nets.temporal.PIXELS_AT_ONCE", 10)
        assert torch.allclose(model(x), at_once, atol=1e-5)


@pytest.mark.parametrize("n_levels", [1, 2, 3, 4])
def test_the_radius_is_how_far_a_pixel_is_seen(n_levels):
    model = network(unet_channels=(4,) * n_levels).double().eval()
    radius = receptive_radius(n_levels)
    size, farthest = 2 * radius + 17, 0
    for row in range(radius, radius + 8):  # every phase of the poolings
        x = torch.randn(1, 12, 4, size, 6, dtype=torch.float64, requires_grad=True)
        model(x)[0, :, row].sum().backward()
        reached = (x.grad.abs().sum(dim=(0, 1, 2, 4)) > 0).nonzero().flatten()
        farthest = max(farthest, row - int(reached.min()), int(reached.max()) - row)
    assert 0.7 * radius <= farthest <= radius  # a bound that holds and is not far off


def test_windows_equal_the_whole():
    config = CropNetConfig(**INPUT, n_classes=5, **NARROW)
    reach = CropNet(config).receptive()
    assert reach.margin_px % reach.stride_px == 0
    model, core = settled(network().double()), 3 * reach.stride_px
    height, width = 2 * reach.margin_px + core + 5, 2 * reach.margin_px + 2 * core + 3
    x = series(1, height, width).double()
    with torch.no_grad():
        whole = model(x)
        for row in range(0, height, core):
            for col in range(0, width, core):
                top, left = max(row - reach.margin_px, 0), max(col - reach.margin_px, 0)
                window = model(x[..., top : row + core + reach.margin_px, left : col + core + reach.margin_px])
                inner = window[..., row - top : row - top + core, col - left : col - left + core]
                assert torch.allclose(inner, whole[..., row : row + core, col : col + core], rtol=0, atol=1e-12)


def test_overfits_one_batch():
    model = network(dropout=0.0).train()
    x, labels = series(2, 8, 8), torch.randint(5, (2, 8, 8), generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.1  # pure noise is learnt by heart


def test_config_travels_through_json():
    config = CropNetConfig(**INPUT, n_classes=7, pool="max", unet_channels=(4, 8))
    record = config.to_dict()
    record["unet_channels"] = list(record["unet_channels"])  # as JSON has it
    assert CropNetConfig.from_dict(record) == config


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"kernel_size": 4}, "odd"),
        ({"dropout": 1.0}, "below 1"),
        ({"pool": "sum"}, "pool"),
        ({"unet_channels": ()}, "level"),
    ],
)
def test_impossible_configs_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        CropNetConfig(**INPUT, n_classes=3, **changes)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"12 steps, 4 bands.*\(1, 4, 12, 8, 8\)"):
        network()(torch.zeros(1, 4, 12, 8, 8))
