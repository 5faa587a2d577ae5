"""Texts that stand for a missing value, whoever wrote them."""

from typing import Final

# What exports write for a missing text: CSV and R the first ones, pandas the others.
_NO_VALUE: Final = frozenset({"", "na", "n/a", "nan", "<na>", "null", "none"})


def is_missing(text: str | None) -> bool:
    """Whether a text stands for a missing value."""
    return text is None or text.strip().casefold() in _NO_VALUE
