"""HCAT: one tree of crops for the registers of all of Europe, as codes of ten digits, two for each level.

`3301010101` is winter soft wheat, below `3301010100` (soft wheat), `3301010000` (cereals), `3301000000` (arable crops) and
`3300000000` (all): what a code leaves open is zero.

Source: Schneider, Schelte, Schmitz and Körner (2023), "EuroCrops: the largest harmonized open crop dataset across the
European Union", Scientific Data 10, 612; third version of the code list.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

N_LEVELS: Final = 3  # above a full code and below the root that all crops share
_CODE: Final = re.compile(r"33[0-9]{8}")
_DIGITS: Final = 10


def is_hcat(text: str) -> bool:
    """Whether a text has the form of a code."""
    return _CODE.fullmatch(text) is not None


def prefix_of(code: str) -> str:
    """The digits that a code shares with all codes below it: `330101` of `3301010000`."""
    return re.sub(r"(00)+$", "", code)


def prefixes_of(code: str) -> Iterator[str]:
    """Of a code and of all codes above it, the longest first."""
    return (code[:length] for length in range(_DIGITS, 0, -2))


def levels_of(codes: Iterable[str]) -> tuple[str, ...]:
    """The codes above what some codes have in common, coarsest first.

    Returns:
        `N_LEVELS` codes; a code that is itself a coarse one stands for the finer levels as well.
    """
    first, *others = map(prefix_of, codes)
    shared = next(prefix for prefix in prefixes_of(first) if all(other.startswith(prefix) for other in others))
    return tuple(f"{shared[: 4 + 2 * level]:0<{_DIGITS}}" for level in range(N_LEVELS))
