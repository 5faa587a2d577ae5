"""Another test than the table's: which zones are tested, of a table of zones or of points."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from cropray.core.errors import ConfigError
from cropray.datasets.doubts import some
from cropray.io.zones import Zone


def zones_with_test(zones: Sequence[Zone], test: Collection[str] | None) -> tuple[Zone, ...]:
    """Zones of a table of which some (ids) are the test and all others train; None: they stay as they are.

    Raises:
        ConfigError: one is not there, or none is left to train on.
    """
    if test is None:
        return tuple(zones)
    _require([zone.zone_id for zone in zones], test)
    return tuple(replace(zone, split="test" if zone.zone_id in test else "train") for zone in zones)


def points_with_test(table: pa.Table, test: Collection[str] | None) -> pa.Table:
    """The same of a checked table of points."""
    if test is None:
        return table
    _require(pc.unique(table["zone_id"]).to_pylist(), test)
    is_test = pc.is_in(table["zone_id"], pa.array(test, pa.string()))
    column = table.column_names.index("split")
    return table.set_column(column, "split", pc.if_else(is_test, "test", "train"))


def _require(zone_ids: Sequence[str], test: Collection[str]) -> None:
    unknown = sorted(set(test) - set(zone_ids))
    if unknown:
        raise ConfigError(f"test_zones names zones that are not there ({some(unknown)}); there are {some(zone_ids)}")
    if not test or len(set(test)) == len(zone_ids):
        raise ConfigError(
            f"test_zones names {len(set(test))} of {len(zone_ids)} zones; a dataset needs zones to test and zones to train "
            f"on: name some of them"
        )
