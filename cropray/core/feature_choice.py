"""From a list of features as a job or a recipe writes it to the one that a cube can give, which `FeatureSet` reads.

Beside what `cropray.core.features` knows there may be written

    ndvi?                    a feature that may be missing: it is left out where the cube cannot give it; `wet?[-1,1]=…`
    gr=(green-red)/(green+red)
                             roles of bands (`sensors.ROLES`), whatever the cube calls them; indices that are known by name
                             find their bands in the same way where the cube has others than Sentinel-2's
    ratios                   (a-b)/(a+b) of every two bands of reflectance; `ratios?` only where the list has no other index

`phenology` is `band_phenology` where the list has no index and a band of the cube is one, by its unit.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Final

from cropray.core.cube import CubeSpec
from cropray.core.errors import ConfigError
from cropray.core.features import BANDS, FEATURES, INDICES, index_of
from cropray.core.sensors import ROLES, SENTINEL_2, Band, known_band

RATIOS: Final = "ratios"
_MOST_BANDS: Final = 6  # that there are ratios of, 15 at every step
_REFLECTANCE, _INDEX = "reflectance", "index"  # units
_BY_NAME: Final = {
    **{name: role for role, name in ROLES.items()},
    **{role: role for role in ROLES},
    "narrow near infrared": "nir",
    "swir": "swir1",
    "mir": "swir2",  # MODIS calls 2.1 µm the middle infrared
}  # of several bands of one role the first name's counts
_OF_ID: Final = {band.id: _BY_NAME[band.name] for band in SENTINEL_2.bands if band.name in ROLES.values()}
_WORD: Final = re.compile(r"\b[A-Za-z_]\w*")


def choose(names: Sequence[str], cube: CubeSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Spell features by the bands of a cube, and leave out those that may be missing and are.

    Args:
        names: as a job writes them. What is wrong with one is left for `FeatureSet` to say.
        cube: of the samples.

    Returns:
        (what `FeatureSet` reads, in order; what is left out, each with its reason).

    Raises:
        ConfigError: there are no ratios, and nothing says that they may be missing.
    """
    listed = [(head + rest, bool(mark)) for head, mark, rest in (name.partition("?") for name in names)]
    spelled = {name: _spell(name, cube) for name, _ in listed if name not in {*FEATURES.known(), BANDS, RATIOS}}
    has_index = any(not lacks for _, lacks in spelled.values())
    of_bands = BANDS in dict(listed)
    found, left, given = list[str](), list[str](), tuple[str, ...]()
    ratios = _ratios(cube) if any(name == RATIOS and not (may and has_index) for name, may in listed) else ()
    for name, may_be_missing in listed:
        given, why = (name,), ""
        if name in spelled:
            given, why = (spelled[name][0],), spelled[name][1]
        elif name == RATIOS:
            given = ratios
            is_of_use = not (may_be_missing and has_index)
            why = f"it needs 2 to {_MOST_BANDS} bands of {_REFLECTANCE}" if is_of_use and not ratios else ""
            if why and not may_be_missing:
                raise ConfigError(f"features: '{RATIOS}' gives nothing here, {why} whose ids can stand in a formula")
        elif name != BANDS:
            if name == "phenology" and not has_index and of_bands and any(b.unit == _INDEX for b in cube.bands):
                given = ("band_phenology",)
            needs_index = not FEATURES.known()[given[0]].of_bands
            if cube.n_steps == 1:
                why = "there is one step"
            elif not (has_index or ratios or (of_bands and not needs_index)):
                why = "there is no index" if needs_index else "there are neither bands nor indices"
        if why and may_be_missing:
            left.append(f"{re.split(r'[=[]', name)[0]} ({why})")
        else:
            found += given
    return tuple(found), tuple(left)


def roles_of(cube: CubeSpec) -> Mapping[str, str]:
    """Role → id of the cube's band, of ids that can stand in a formula."""
    ids = {_name_of(band): band.id for band in reversed(cube.bands) if band.id.isidentifier()}
    found: dict[str, str] = {}
    for name, role in _BY_NAME.items():
        if name in ids:
            found.setdefault(role, ids[name])
    return found


def _name_of(band: Band) -> str:
    known = known_band(band.id)
    if band.name or (known is not None and known.unit == band.unit):
        return band.name or (known.name if known else "")
    return band.id.lower() if band.unit == _REFLECTANCE else ""


def _spell(text: str, cube: CubeSpec) -> tuple[str, str]:
    """An index by the ids of the cube's bands; and what it lacks, in words, where it cannot be computed."""
    head, _, formula = text.partition("=")
    own, ids, roles = text not in INDICES, set(cube.band_ids), roles_of(cube)
    words = set(_WORD.findall(formula if own else INDICES[text]))
    try:
        index = index_of(text, [*words])
    except ConfigError:
        return text, ""
    if index.name in ids:
        return text, "the cube has a band of this name"
    # A formula of one's own names ids before roles; what is known by name means roles, whatever a cube calls `B08`.
    by_id = {word: word if word in ids else None for word in words}
    by_word = {w: by_id[w] or roles.get(w) if own else roles.get(_OF_ID.get(w, ""), by_id[w]) for w in words}
    if all(word == band for word, band in by_word.items()):
        return text, ""
    if lacks := sorted(word if own else _OF_ID.get(word, word) for word, band in by_word.items() if band is None):
        return text, f"no band is {' or '.join(lacks)}"
    if not own:
        head = index.name if (index.low, index.high) == (-1, 1) else f"{index.name}[{index.low:g},{index.high:g}]"
    return f"{head}={_WORD.sub(lambda word: str(by_word[word[0]]), formula if own else index.formula)}", ""


def _ratios(cube: CubeSpec) -> tuple[str, ...]:
    """By formula; none of fewer than two bands, or of too many."""
    ids = [band.id for band in cube.bands if band.unit == _REFLECTANCE and band.id.isidentifier()]
    if len(ids) > _MOST_BANDS:
        return ()
    return tuple(f"nd_{a}_{b}=({a}-{b})/({a}+{b})" for a, b in itertools.combinations(ids, 2))
