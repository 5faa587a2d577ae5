"""Profiles and observation counts against plain numpy over all pixels."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.cube import STUDY_CUBE
from cropray.core.legend import IGNORE
from cropray.report.summary import (
    ZoneSummary,
    count_observations,
    count_profiles,
    no_profiles,
    read_summary,
    save_summary,
    series_of,
)
from tests.study import BAND_IDS, FEATURE_COLUMNS, N_MONTHS

N_CLASSES = 4
SERIES = series_of(STUDY_CUBE)
HALF_BIN = {"NDVI": 0.001, **dict.fromkeys(BAND_IDS, 0.0005)}


def draw_pixels(n, seed=0, top=9000):
    """Digital numbers [N, 48] with holes, and labels [N] of which class 2 never occurs."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, top, (n, len(FEATURE_COLUMNS))).astype(np.uint16)
    x[rng.random(x.shape) < 0.2] = 0
    x[:, FEATURE_COLUMNS.index("B03_07")] = 0  # a month without any data in one band
    return x, rng.choice([0, 1, 3], n).astype(np.uint8)


def table(x, labels):
    return pa.table({"label": labels, **dict(zip(FEATURE_COLUMNS, x.T, strict=True))})


def values_of(x, labels, k, series, month):
    """Every value of a class, by the definition."""
    column = {band: x[labels == k, FEATURE_COLUMNS.index(f"{band}_{month + 1:02d}")].astype(float) for band in BAND_IDS}
    if series != "NDVI":
        return column[series][column[series] > 0] / 10_000
    red, near = column["B04"], column["B08"]
    seen = (red > 0) & (near > 0)
    return (near[seen] - red[seen]) / (near[seen] + red[seen])


@given(st.integers(0, 60), st.integers(0, 1000), st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]))
def test_means_and_quantiles_are_those_of_all_pixels(n, seed, share):
    x, labels = draw_pixels(n, seed)
    profiles = count_profiles(table(x, labels), N_CLASSES)
    mean, quantile = profiles.mean, profiles.quantile(share)
    for k in range(N_CLASSES):
        for s, series in enumerate(SERIES):
            for month in (0, 6, 11):
                values = values_of(x, labels, k, series, month)
                if not len(values):
                    assert np.isnan(mean[k, s, month])
                    assert np.isnan(quantile[k, s, month])
                    continue
                expected = np.quantile(values, share, method="inverted_cdf")
                assert mean[k, s, month] == pytest.approx(values.mean())
                assert abs(quantile[k, s, month] - expected) <= HALF_BIN[series] + 1e-9


def test_zones_added_are_the_zones_together():
    x, labels = draw_pixels(300)
    whole = count_profiles(table(x, labels), N_CLASSES)
    total = no_profiles(N_CLASSES)
    for part in (slice(0, 50), slice(50, 300)):
        total.add(count_profiles(table(x[part], labels[part]), N_CLASSES))
    np.testing.assert_array_equal(total.counts, whole.counts)
    np.testing.assert_allclose(total.totals, whole.totals)


def test_values_above_the_scale_are_kept_in_its_last_bin():
    x, labels = draw_pixels(20, top=65_535)
    profiles = count_profiles(table(np.maximum(x, 20_000), labels), N_CLASSES)
    assert profiles.counts[:, 1:].sum() == profiles.counts[:, 1:, :, -1].sum() == 20 * len(FEATURE_COLUMNS)


def test_observations_count_clear_views_and_seen_pixels():
    n_obs = np.zeros((N_MONTHS, 2, 3), np.uint8)
    n_obs[0] = 200  # sums leave uint8
    n_obs[1, 0, 0] = 3
    observations = count_observations(n_obs)
    assert observations.n_clear.tolist() == [1200, 3] + [0] * 10
    assert observations.n_seen.tolist() == [6, 1] + [0] * 10
    assert observations.share_filled == pytest.approx(1 - 7 / 72)


def test_a_summary_comes_back_over_class_indices(tmp_path):
    x, labels = draw_pixels(100)
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[[0, 1, 3]] = 2, 0, 1  # legend ids → indices; class 2 of the legend is not in the dataset
    summary = ZoneSummary(
        count_profiles(table(x, labels), N_CLASSES), count_observations(np.ones((12, 4, 4), np.uint8))
    )
    save_summary(summary, tmp_path / "z.npz")
    back = read_summary(tmp_path / "z.npz", lookup)
    np.testing.assert_array_equal(back.profiles.counts[[2, 0, 1]], summary.profiles.counts[[0, 1, 3]])
    np.testing.assert_array_equal(back.profiles.totals[[2, 0, 1]], summary.profiles.totals[[0, 1, 3]])
    assert back.observations.n_pixels == 16
    assert back.observations.n_seen.tolist() == [16] * 12


def test_a_zone_may_have_neither(tmp_path):
    save_summary(ZoneSummary(None, None), tmp_path / "z.npz")
    assert read_summary(tmp_path / "z.npz", np.arange(256, dtype=np.uint8)) == ZoneSummary(None, None)
