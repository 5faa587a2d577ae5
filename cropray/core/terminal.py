"""What is printed on a terminal that does not know all signs: the nearest ones that it knows."""

import codecs
import io
import sys
import unicodedata
from typing import Final

_ERRORS: Final = "cropray.nearest"
_NEAREST: Final = str.maketrans({
    "–": "-", "—": "-", "−": "-", "×": "x", "·": ".", "…": "...", "→": "->", "≥": ">=", "≤": "<=", "≈": "~", "±": "+-",
    "÷": "/", "‘": "'", "’": "'", "“": '"', "”": '"', "œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O",
    "ß": "ss", "°": " deg", "µ": "u",
})  # fmt: skip


def print_with_what_there_is() -> None:
    """From now on, what the terminal's encoding lacks is printed in other signs and ends no command."""
    codecs.register_error(_ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end].translate(_NEAREST)
    # Letters lose their accents; what has no nearest sign is a question mark.
    plain = unicodedata.normalize("NFKD", signs).encode("ascii", "ignore").decode()
    return plain or "?", error.end
