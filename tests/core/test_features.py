"""Features against slow, obvious versions; missing stays missing."""

import numpy as np
import pytest

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.errors import ConfigError
from cropray.core.features import INDICES, FeatureSet, Quantiles, index_of
from cropray.core.sensors import SENTINEL_1, SENTINEL_2

T = STUDY_CUBE.n_steps


@pytest.fixture(scope="module")
def raw():
    """[N, 48], a quarter of it missing, one pixel wholly."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(1, 9000, (300, 48))
    drawn[rng.random(drawn.shape) < 0.25] = 0
    drawn[7] = 0
    drawn[8] = 65_535
    return drawn.astype(np.uint16)


def column(features, raw, name):
    return features.compute(raw)[:, features.columns.index(name)].astype(int)


def band(raw, name):
    return raw[:, STUDY_CUBE.columns.index(name)].astype(int)


def test_the_cube_as_it_is_costs_nothing(raw):
    features = FeatureSet(STUDY_CUBE)
    assert features.is_raw
    assert features.columns == STUDY_CUBE.columns
    assert features.compute(raw) is raw


def test_an_index_is_its_formula(raw):
    features = FeatureSet(STUDY_CUBE, ("ndvi",))
    assert features.columns == tuple(f"ndvi_{t:02d}" for t in range(1, 13))
    for step in (1, 12):
        found = column(features, raw, f"ndvi_{step:02d}")
        for n, (red, nir) in enumerate(zip(band(raw, f"B04_{step:02d}"), band(raw, f"B08_{step:02d}"), strict=True)):
            if red == 0 or nir == 0:
                assert found[n] == 0
            else:
                value = (nir - red) / (nir + red)
                assert found[n] == pytest.approx(1 + (value + 1) / 2 * 65_534, abs=0.51)


def test_physical_values_are_what_a_formula_sees():
    cube = CubeSpec(SENTINEL_1.bands, months=1)
    numbers = np.array([[30_000, 25_000]], np.uint16)  # -20 and -30 dB
    features = FeatureSet(cube, ("ratio[-40,40]=VV-VH",))
    assert features.compute(numbers)[0, 0] == pytest.approx(1 + (10 + 40) / 80 * 65_534, abs=0.51)


def test_what_leaves_the_range_is_cut_off(raw):
    features = FeatureSet(STUDY_CUBE, ("x[0,0.1]=B08",))
    found, numbers = column(features, raw, "x_03"), band(raw, "B08_03")
    assert (found[numbers > 1000] == 65_535).all()
    assert (found[numbers == 0] == 0).all()
    assert FeatureSet(STUDY_CUBE, ("x[0,1]=B08/(B04-B04)",)).compute(raw).max() == 0  # a division by 0 is no value


def test_differences(raw):
    features = FeatureSet(STUDY_CUBE, ("bands", "ndvi", "differences"))
    assert len(features.columns) == 48 + 12 + 5 * 11
    one, two = band(raw, "B03_04"), band(raw, "B03_05")
    expected = np.where((one == 0) | (two == 0), 0, np.clip(two - one + 32_768, 1, 65_535))
    np.testing.assert_array_equal(column(features, raw, "d_B03_05"), expected)


def test_quantiles(raw):
    features = FeatureSet(STUDY_CUBE, ("bands", "quantiles"))
    rows = raw.reshape(len(raw), 4, 12)[:, 2]
    for q in Quantiles.percent:
        found = column(features, raw, f"B04_q{q}")
        for n, row in enumerate(rows):
            there = row[row != 0]
            assert found[n] == (np.quantile(there, q / 100, method="lower") if len(there) else 0)


def test_phenology():
    season = np.array([0, 0, 300, 0, 5000, 9000, 8000, 4600, 0, 100, 0, 0], np.uint16)
    cube = CubeSpec(tuple(b for b in SENTINEL_2.bands if b.id == "B08"))
    features = FeatureSet(cube, ("x[0,6.5535]=B08", "phenology"))
    found = dict(zip(features.columns, features.compute(season[None])[0].tolist(), strict=True))
    assert found["x_top"] == pytest.approx(9000, abs=1)
    assert [found[f"x_{what}_step"] / 64 for what in ("top", "rise", "fall")] == [6, 5, 8]
    assert features.compute(np.zeros((1, 12), np.uint16)).max() == 0


def test_columns_are_what_is_computed(raw):
    features = FeatureSet(STUDY_CUBE, ("ndvi", "wet=(B03-B08)/(B03+B08)", "quantiles", "phenology", "bands"))
    assert features.compute(raw).shape == (len(raw), len(features.columns))
    assert features.compute(raw).dtype == np.uint16
    assert (features.compute(raw[7:8]) == 0).all()  # nothing is known of a pixel that was never seen


def test_every_known_index_can_be_computed():
    cube = CubeSpec(SENTINEL_2.bands)
    numbers = np.random.default_rng(1).integers(1, 5000, (50, cube.n_features)).astype(np.uint16)
    found = FeatureSet(cube, tuple(INDICES)).compute(numbers)
    assert found.min() >= 1
    assert len(np.unique(found)) > 1000


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("nvdi",), "'nvdi' is not known; write one of bands, differences"),
        (("ndmi",), r"'ndmi' needs the bands \['B11'\]; this cube has B02, B03, B04, B08"),
        (("x=B08+__import__('os')",), "only band ids, numbers"),
        (("x=B08+",), "cannot be read"),
        (("x[2,1]=B08",), "must rise"),
        (("x[a,1]=B08",), "cannot be read"),
        (("ndvi", "ndvi"), "come twice"),
        ((), "is empty"),
        (("phenology",), "'phenology' gives nothing here, it needs an index, such as ndvi"),
        (("bands", "phenology"), "'phenology' gives nothing here, it needs an index"),
        (("differences",), "'differences' gives nothing here, it needs bands or an index"),
        (("quantiles", "differences"), "'quantiles' gives nothing here"),
        (("flat=3+0.5",), "'flat=3.0.5' names no band"),
        (("x[-inf,1]=B08",), "must rise and have ends"),
    ],
)
def test_wrong_features_are_refused(names, said):
    with pytest.raises(ConfigError, match=said):
        FeatureSet(STUDY_CUBE, names)


def test_one_step_has_no_differences():
    with pytest.raises(ConfigError, match="'differences' gives nothing here, it needs two steps"):
        FeatureSet(CubeSpec(STUDY_CUBE.bands, "season"), ("bands", "differences"))


@pytest.mark.parametrize("formula", ["B08**0", "1**B08", "B08*0+B03**0"])
def test_what_was_not_seen_is_missing_whatever_the_formula(raw, formula):
    found, numbers = column(FeatureSet(STUDY_CUBE, (f"one[0,2]={formula}",)), raw, "one_05"), band(raw, "B08_05")
    assert (found[numbers == 0] == 0).all()
    assert found.max() > 0


@pytest.mark.parametrize("formula", ["B08*(0-1)**0.5", "B08*(1/0)", "B08*9**9**9"])
def test_numbers_that_are_none_are_missing(raw, formula):
    assert FeatureSet(STUDY_CUBE, (f"x={formula}",)).compute(raw).max() == 0


def test_values_beyond_the_range_are_counted(raw):
    features = FeatureSet(STUDY_CUBE, ("bands", "low[0.3,1]=B04", "ndvi"))
    numbers = raw.reshape(len(raw), 4, 12)[:, 2]
    n = ((numbers != 0) & ((numbers < 3000) | (numbers > 10_000))).sum()
    assert features.beyond(raw)["low"] == (n, (numbers != 0).sum())
    assert features.beyond(raw)["ndvi"][0] == 0


def test_spaces_in_a_formula_do_not_matter():
    assert index_of("a [0, 2] = ( B08 - B04 ) / B08", ["B04", "B08"]) == index_of(
        "a[0,2]=(B08-B04)/B08", ["B04", "B08"]
    )
