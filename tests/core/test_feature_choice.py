"""Features that may be missing, roles of bands, and ratios: what is left is what the obvious way computes from the same bands."""

import itertools

import numpy as np
import pytest

from cropray.core.cube import STUDY_CUBE, CubeSpec
from cropray.core.cube_settings import CubeSettings
from cropray.core.errors import ConfigError
from cropray.core.feature_choice import choose, roles_of
from cropray.core.features import INDICES, FeatureSet
from cropray.core.sensors import SENTINEL_2
from cropray.search.recipe import read_recipe

BEST = read_recipe("best")["xgboost"]["features"]
BEFORE = (
    *("bands", "ndvi", "gndvi", "gr=(B03-B04)/(B03+B04)", "rb=(B04-B02)/(B04+B02)"),
    *("evi2[-1,2]=2.5*(B08-B04)/(B08+2.4*B04+1)", "differences", "quantiles", "phenology"),
)


def cube_of(*bands, step="month", months=12, **roles):
    """Bands by id, as a job writes them; NDVI and EVI are indices, the rest reflectance."""
    entries = []
    for band in bands:
        is_index = band in ("NDVI", "EVI")
        entry = {"id": band, "unit": "index" if is_index else "reflectance", "scale": 2e-4, "offset": -2.0 * is_index}
        entries.append(entry | ({"role": roles[band]} if band in roles else {}))
    return CubeSettings.model_validate({"bands": entries, "step": step, "months": months}).spec


def drawn(cube, seed=3):
    numbers = np.random.default_rng(seed).integers(1, 9000, (40, cube.n_features)).astype(np.uint16)
    numbers[::7, ::3] = 0
    return numbers


def physical(cube, numbers, band):
    """[N, T] values, NaN where missing."""
    (position,) = cube.positions([band])
    mine = numbers[:, position * cube.n_steps : (position + 1) * cube.n_steps].astype(float)
    return np.where(mine == 0, np.nan, mine * cube.bands[position].scale + cube.bands[position].offset)


def stored(values, low=-1.0, high=1.0):
    return np.where(np.isnan(values), 0, 1 + np.rint(np.clip((values - low) / (high - low), 0, 1) * 65_534))


def series(features, numbers, name):
    steps = [f"{name}_{step}" for step in features.cube.step_names]
    return features.compute(numbers)[:, [features.columns.index(step) for step in steps]]


@pytest.mark.parametrize("names", [BEST, BEFORE])
def test_of_sentinel_2_the_best_recipe_reads_what_it_always_did(names):
    more = ("B02", "B03", "B04", "B08", "B11", "B12")
    wide = CubeSpec(tuple(band for band in SENTINEL_2.bands if band.id in more), "half-month")
    turned = CubeSpec(tuple(reversed([band for band in SENTINEL_2.bands if band.id in (*more, "B8A")])))
    for cube in (STUDY_CUBE, wide, turned):
        assert choose(names, cube) == (BEFORE, ())


@pytest.mark.parametrize(
    ("bands", "roles"),
    [
        (("blue", "GREEN", "red", "NIR"), {}),
        (("SRB2", "SRB3", "SRB4", "SRB5"), {"SRB2": "blue", "SRB3": "green", "SRB4": "red", "SRB5": "nir"}),
        # Landsat's fifth band is no red edge, and its fourth is red.
        (("B02", "B03", "B04", "B05"), {"B02": "blue", "B03": "green", "B04": "red", "B05": "nir"}),
    ],
)
def test_indices_find_their_bands_by_role(bands, roles):
    cube = cube_of(*bands, months=5, **roles)
    names, left = choose(BEST, cube)
    features, numbers = FeatureSet(cube, names), drawn(cube)
    assert left == ()
    blue, green, red, nir = (physical(cube, numbers, band) for band in bands)
    with np.errstate(all="ignore"):
        expected = {
            "ndvi": stored((nir - red) / (nir + red)),
            "gndvi": stored((nir - green) / (nir + green)),
            "gr": stored((green - red) / (green + red)),
            "rb": stored((red - blue) / (red + blue)),
            "evi2": stored(2.5 * (nir - red) / (nir + 2.4 * red + 1), -1, 2),
        }
    for name, values in expected.items():
        np.testing.assert_allclose(series(features, numbers, name), values, atol=0.51, err_msg=name)
    assert len(features.columns) == 9 * 5 + 9 * 4 + 9 * 5 + 5 * 4


def test_every_known_index_of_roles_is_the_one_of_sentinel_2():
    roles = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir1", "B12": "swir2"}
    there = CubeSpec(tuple(band for band in SENTINEL_2.bands if band.id in roles), months=2)
    own = CubeSettings.model_validate(
        {"bands": [{"id": f"x{i}", "unit": "reflectance", "scale": 1e-4, "role": role} for i, role in enumerate(roles.values())],
         "months": 2}
    ).spec  # fmt: skip
    known = [name for name in INDICES if name != "ndre"]  # which is of two bands that have no role
    numbers = drawn(there)
    names, _ = choose(known, own)
    np.testing.assert_array_equal(
        FeatureSet(there, tuple(known)).compute(numbers), FeatureSet(own, names).compute(numbers)
    )
    assert FeatureSet(own, names).columns == FeatureSet(there, tuple(known)).columns
    assert choose(["ndre?"], own) == ((), ("ndre (no band is B05 or B8A)",))


def test_ratios_are_of_every_two_bands_of_reflectance():
    cube = cube_of("NDVI", "P1", "P2", "P3", months=4)
    names, left = choose(["bands", "ndvi?", "ratios?", "phenology?"], cube)
    assert left == ("ndvi (no band is nir or red)",)
    features, numbers = FeatureSet(cube, names), drawn(cube)
    for a, b in itertools.combinations(("P1", "P2", "P3"), 2):
        one, two = physical(cube, numbers, a), physical(cube, numbers, b)
        np.testing.assert_allclose(
            series(features, numbers, f"nd_{a}_{b}"), stored((one - two) / (one + two)), atol=0.51
        )
    assert names[-1] == "band_phenology"  # of the band that is an index, too
    assert choose(["bands", "ratios"], cube)[0] == names[:-1]


def test_ratios_yield_to_an_index_unless_they_are_asked_for():
    names, left = choose(["ndvi?", "ratios?"], STUDY_CUBE)
    assert (names, left) == (("ndvi",), ())  # nothing is missing
    assert len(choose(["ndvi?", "ratios"], STUDY_CUBE)[0]) == 7
    many = cube_of(*(f"P{i}" for i in range(7)))
    assert choose(["bands", "ratios?"], many) == (("bands",), ("ratios (it needs 2 to 6 bands of reflectance)",))
    with pytest.raises(ConfigError, match=r"'ratios' gives nothing here, it needs 2 to 6 bands of reflectance"):
        choose(["bands", "ratios"], cube_of("P1", "P-2"))


def test_the_course_of_a_band_that_is_an_index():
    cube = cube_of("EVI", "P1")
    features = FeatureSet(cube, choose(["bands", "phenology"], cube)[0])
    numbers = drawn(cube)
    assert features.columns[24:] == tuple(
        f"{b}_{what}" for b in ("EVI", "P1") for what in ("top", "top_step", "rise_step", "fall_step")
    )
    top = features.compute(numbers)[:, features.columns.index("EVI_top")]
    np.testing.assert_array_equal(top, numbers[:, :12].max(1))
    rows = numbers[:, :12].astype(int)
    for row, rise in zip(rows, features.compute(numbers)[:, features.columns.index("EVI_rise_step")], strict=True):
        there = row[row > 0]
        assert rise == 64 * (1 + next(i for i, n in enumerate(row) if n > 0 and 2 * n >= there.max() + there.min()))
    assert choose(["bands", "phenology?"], cube_of("P1"))[1] == ("phenology (there is no index)",)


def test_one_step_has_no_course():
    names, left = choose(BEST, cube_of("red", "nir", step="season"))
    assert names == ("bands", "ndvi=(nir-red)/(nir+red)", "evi2[-1,2]=2.5*(nir-red)/(nir+2.4*red+1)")
    assert left[-3:] == tuple(f"{name} (there is one step)" for name in ("differences", "quantiles", "phenology"))


@pytest.mark.parametrize(
    ("bands", "kept"),
    [
        (("NDVI", "EVI", "NIR", "MIR"), ["bands", "nd_NIR_MIR=(NIR-MIR)/(NIR+MIR)", "differences", "quantiles", "band_phenology"]),
        (("NDVI",), ["bands", "differences", "quantiles", "band_phenology"]),
        (("SR-B4", "SR-B5"), ["bands", "differences", "quantiles"]),  # no formula can name them
    ],
)  # fmt: skip
def test_the_best_recipe_reads_any_cube(bands, kept):
    names, left = choose(BEST, cube_of(*bands, step="16d"))
    assert list(names) == kept
    assert FeatureSet(cube_of(*bands, step="16d"), names).columns
    assert "ndvi (no band is nir or red)" in left or "ndvi (no band is red)" in left


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nvdi?", "'nvdi' is not known"),
        ("x?=nir+", "cannot be read"),
        ("x?=open(red)", "only band ids, numbers"),
        ("gr=(green-rde)/green", r"needs the bands \['green', 'rde'\]"),
        ("ndmi", r"'ndmi' needs the bands \['B11'\]"),
        ("differences", "come twice"),
    ],
)
def test_what_is_wrong_is_refused_and_not_left_out(name, said):
    with pytest.raises(ConfigError, match=said):
        FeatureSet(STUDY_CUBE, choose(["bands", "differences?", name], STUDY_CUBE)[0])


def test_a_band_of_an_index_s_name_is_that_index():
    cube = cube_of("red", "nir", "ndvi")
    names, left = choose(["bands", "ndvi?"], cube)
    assert (names, left) == (("bands",), ("ndvi (the cube has a band of this name)",))


def test_roles_are_told_by_the_unit_as_well():
    cube = CubeSettings.model_validate({"bands": [{"id": "red", "unit": "dB", "scale": 1.0}, "B08"]}).spec
    assert roles_of(cube) == {"nir": "B08"}
    again = CubeSpec.from_record(cube_of("q", q="swir1").to_record())  # it travels with a dataset
    assert roles_of(again) == {"swir1": "q"}
    thermal = CubeSettings.model_validate({"bands": [{"id": "B11", "unit": "K", "scale": 0.01}, "B08"]}).spec
    assert roles_of(thermal) == {"nir": "B08"}  # Landsat's eleventh band is no short-wave infrared


def test_roles_go_before_ids_that_sentinel_2_has_too():
    """SuperDove's sixth band is red, its fourth a green, its eighth near infrared."""
    cube = cube_of("B02", "B04", "B06", "B08", months=3, B02="blue", B04="green", B06="red", B08="nir")
    names, left = choose(["ndvi", "gndvi?", "own=(B08-B04)/(B08+B04)"], cube)
    assert left == ()
    features, numbers = FeatureSet(cube, names), drawn(cube)
    green, red, nir = (physical(cube, numbers, band) for band in ("B04", "B06", "B08"))
    for name, other in (("ndvi", red), ("gndvi", green), ("own", green)):
        np.testing.assert_allclose(
            series(features, numbers, name), stored((nir - other) / (nir + other)), atol=0.51, err_msg=name
        )


def test_a_role_is_of_one_band():
    with pytest.raises(ValueError, match="several bands have the role nir: leave it at the one"):
        cube_of("P1", "P2", "P3", P1="nir", P2="red", P3="nir")
