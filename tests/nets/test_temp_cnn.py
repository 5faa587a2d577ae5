"""TempCNN: it looks at single pixels, and at which of their steps have data."""

import json

import numpy as np
import pytest
import torch

from cropray.nets import temp_cnn
from cropray.nets.context import Context
from cropray.nets.ensemble import Ensemble
from cropray.nets.temp_cnn import TempCnn, TempCnnConfig
from tests.study import INPUT


def network(seed=0, **changes):
    torch.manual_seed(seed)
    return TempCnn(TempCnnConfig(**{"n_classes": 5, **INPUT, "channels": 8, "hidden": 16, **changes})).eval()


def context(*shape, missing=()):
    numbers = torch.ones(shape, dtype=torch.int32)
    for step in missing:
        numbers[:, step] = 0
    return Context(numbers, torch.arange(shape[0]))


@pytest.mark.parametrize("size", [(1, 1), (5, 3)])
def test_any_height_and_width(size):
    x = torch.randn(2, 12, 4, *size)
    assert network()(x, context(*x.shape)).shape == (2, 5, *size)
    assert torch.equal(network()(x), network()(x, context(*x.shape)))  # without a context every number is a value


def test_pixels_are_alone():
    x, model = torch.randn(1, 12, 4, 6, 7), network()
    reach = model.receptive()
    assert (reach.margin_px, reach.stride_px) == (0, 1)
    whole = model(x)
    assert torch.allclose(whole[..., 2:3, 4:5], model(x[..., 2:3, 4:5]), atol=1e-6)


def test_small_pieces_change_nothing(monkeypatch):
    x, model = torch.randn(2, 12, 4, 6, 7), network()
    whole = model(x)
    monkeypatch.setattr(temp_cnn, "PIXELS_AT_ONCE", 10)
    assert torch.allclose(whole, model(x), atol=1e-6)


def test_a_step_without_data_is_not_one_at_the_mean():
    x = torch.zeros(1, 12, 4, 1, 1)
    model = network()
    assert not torch.allclose(model(x, context(*x.shape)), model(x, context(*x.shape, missing=(3,))))


def test_seeds_decide_what_is_dropped():
    x = torch.randn(4, 12, 4, 2, 2)
    model = network(dropout=0.5).train()
    torch.manual_seed(0)
    first, again = model(x, context(*x.shape)), model(x, context(*x.shape))
    assert torch.equal(first, again)
    other = model(x, Context(context(*x.shape).numbers, torch.arange(4) + 9))
    assert not torch.allclose(first, other)


def test_sizes_and_settings_are_checked():
    with pytest.raises(ValueError, match=r"reads \[B, 12 steps, 4 bands, H, W\]; got \(1, 4, 12, 2, 2\)"):
        network()(torch.zeros(1, 4, 12, 2, 2))
    for wrong in ({"kernel_size": 4}, {"dropout": 1.0}, {"hidden": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            network(**wrong)
    assert network(n_months=5, n_bands=2, kernel_size=7)(torch.zeros(1, 5, 2, 1, 1)).shape == (1, 5, 1, 1)


def test_a_prediction_takes_the_memory_that_was_measured():
    """Of processes, input included: see `TempCnn.bytes_per_px`."""
    for (n_months, n_bands, n_classes), measured in {(12, 4, 20): 685, (12, 4, 60): 1415, (36, 10, 20): 4673}.items():
        net = TempCnn(TempCnnConfig(n_months=n_months, n_bands=n_bands, n_classes=n_classes))
        assert measured < net.bytes_per_px() + 6 * n_months * n_bands < 3 * measured


def test_an_ensemble_answers_the_mean_of_its_members_probabilities():
    x, members = torch.randn(3, 12, 4, 2, 2), [network(seed) for seed in range(3)]
    expected = np.mean([member(x).softmax(1).detach().numpy() for member in members], axis=0)
    assert np.allclose(Ensemble(members)(x).softmax(1).detach().numpy(), expected, atol=1e-6)


def test_ratios_are_of_digital_numbers_and_missing_where_a_band_is():
    model = network(ratios=((3, 2), (3, 1)))
    numbers = torch.randint(1, 4000, (2, 12, 4, 2, 1))
    numbers[0, 5, 2] = 0
    ndvi, gndvi = temp_cnn.band_ratios(numbers, model.config.ratios)
    for (b, t, h), value in ((place, ndvi[place[0], place[1], 0, place[2], 0]) for place in np.ndindex(2, 12, 2)):
        red, nir = (float(numbers[b, t, band, h, 0]) for band in (2, 3))
        assert float(value) == pytest.approx((nir - red) / (nir + red) if red else 0.0, abs=1e-6)
    assert (gndvi != 0).all()
    x = torch.randn(numbers.shape)
    assert not torch.allclose(model(x, Context(numbers)), model(x, Context(numbers.flip(2))))
    again = TempCnn(TempCnnConfig.from_dict(json.loads(json.dumps(model.config.to_dict())))).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x, Context(numbers)), model(x, Context(numbers)))


def test_a_ratio_of_a_band_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="bands from 0 to 3"):
        network(ratios=((4, 2),))
