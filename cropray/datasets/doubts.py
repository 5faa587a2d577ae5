"""What a reader of the scores must be told about identities: missing ones, and those that occur more than once."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cropray.core.missing import is_missing

_MOST_NAMED: Final = 20


def some(items: Sequence[str], most: int = _MOST_NAMED) -> str:
    """A listing that a person can read; the manifest has each zone's record."""
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def alike_doubts(what: str, names: Iterable[str]) -> list[str]:
    """Names, each given once, that a reader would take for one; `what` they name: labels, regions."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        plain = "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
        groups[" ".join(plain.split()).casefold()].append(name)
    several = [" = ".join(map(ascii, group)) for group in groups.values() if len(group) > 1]
    return [f"{what} that differ in blanks or capitals only are different ones: {some(several)}"] if several else []


def parcel_doubts(parcel_ids: Mapping[str, Sequence[str]], groups: Mapping[str, str | int]) -> list[str]:
    """What separation by parcel id cannot see, and what it takes for one, in groups: the splits or folds of the zones."""
    missing, repeated = {}, {}
    seen: defaultdict[str | int, set[str]] = defaultdict(set)
    several: defaultdict[str | int, set[str]] = defaultdict(set)
    for zone_id, ids in parcel_ids.items():
        known = [parcel_id for parcel_id in ids if not is_missing(parcel_id)]
        own, group = set(known), groups[zone_id]
        missing[zone_id] = len(ids) - len(known)
        repeated[zone_id] = len(known) - len(own)
        several[group] |= seen[group] & own
        seen[group] |= own
    doubts = []
    if any(missing.values()):
        doubts.append(f"labelled parcels without id, kept apart by the distance of zones alone: {_counts(missing)}")
    if any(repeated.values()):
        doubts.append(f"labelled parcels with the id of another one of their zone, taken for one: {_counts(repeated)}")
    n_several = sum(map(len, several.values()))
    if n_several:
        doubts.append(f"{n_several:,} parcels have labels in several zones of one split or fold")
    return doubts


def _counts(by_zone: Mapping[str, int]) -> str:
    return some([f"{zone_id} {n:,}" for zone_id, n in by_zone.items() if n])
