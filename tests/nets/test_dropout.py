"""Masks are determined by seed and place, and are as random as they should be."""

import torch

from cropray.nets.dropout import SampleDropout, uniform_bits


def test_share_scale_and_independence_of_layers():
    x = torch.ones(4, 64, 12, 500)
    seeds = torch.arange(4)
    first, second = (SampleDropout(0.3, stream)(x, seeds) for stream in (1, 2))
    # 128 000 independent draws: σ of the share is 0.0013.
    assert abs((first[:, :, 0] == 0).float().mean() - 0.3) < 0.006
    assert abs(first.mean() - 1.0) < 0.01
    both = ((first == 0) & (second == 0))[:, :, 0].float().mean()
    assert abs(both - 0.09) < 0.005
    assert torch.equal(first[:, :, 0], first[:, :, 11])  # a feature is dropped in all months


def test_a_samples_mask_does_not_depend_on_its_company():
    dropout, x = SampleDropout(0.5, 1), torch.randn(6, 8, 12, 30)
    seeds = torch.tensor([5, 9, 1, 7, 2**32 - 1, 0])
    together = dropout(x, seeds)
    apart = torch.cat([dropout(x[4:], seeds[4:]), dropout(x[:4], seeds[:4])])
    assert torch.equal(together, torch.cat([apart[2:], apart[:2]]))
    assert not torch.equal(together[0] == 0, together[1] == 0)


def test_nothing_is_dropped_outside_training():
    x = torch.randn(2, 3, 12, 5)
    assert torch.equal(SampleDropout(0.5, 1).eval()(x), x)


def test_bits_are_uniform_and_uncorrelated():
    bits = uniform_bits(torch.arange(64), 4096).double() / 2**32
    counts = torch.histc(bits, 16, 0, 1)
    expected = bits.numel() / 16
    assert ((counts - expected) ** 2 / expected).sum() < 44.3  # χ² with 15 degrees of freedom, p = 1e-4
    neighbours = torch.corrcoef(torch.stack([bits[:-1].flatten(), bits[1:].flatten()]))[0, 1]
    along = torch.corrcoef(torch.stack([bits[:, :-1].flatten(), bits[:, 1:].flatten()]))[0, 1]
    assert max(abs(neighbours), abs(along)) < 0.01  # σ = 0.002
