"""The table, its totals, and what is compared with what."""

import pytest

from cropray.imagery.sources.earth_engine.traffic import quota_note
from cropray.planning.table import Line, compare, lines_of, quantity, table

GROUPS = {
    "source": {"requests": 580, "download": 4.3e9, "computing": 6.7},
    "time": {"start": 4.0, "acquire": 60.0, "search": 136.0},
    "disk": {"composites": 7e6, "dataset": 15e6},
    "memory": {"object store": 2e7, "a worker: CNN": 9e8},
}
ESTIMATE = {(group, name): amount for group, amounts in GROUPS.items() for name, amount in amounts.items()}


def by_name(lines):
    return {(line.group, line.name): line for line in lines}


def test_lines_have_totals():
    lines = by_name(lines_of(ESTIMATE))
    assert lines["time", "total"].planned == 200
    assert lines["disk", "total"].planned == 22e6
    assert lines["source", "computing"].unit == "EECU-h"
    assert ("memory", "total") not in lines


def test_a_total_compares_the_parts_that_were_measured():
    compared = by_name(compare(lines_of(ESTIMATE), {("time", "acquire"): 50.0, ("time", "search"): 150.0}))
    assert compared["time", "acquire"].ratio == pytest.approx(1.2)
    assert compared["time", "start"].ratio is None
    assert (compared["time", "total"].planned, compared["time", "total"].actual) == (196.0, 200.0)
    # Nothing of the disk was measured: all of it is planned.
    assert (compared["disk", "total"].planned, compared["disk", "total"].actual) == (22e6, None)


def test_table_has_more_columns_after_a_run():
    lines = lines_of(ESTIMATE)
    assert "actual" not in table(lines)
    text = table(compare(lines, {("time", "acquire"): 50.0}))
    (row,) = [line for line in text.splitlines() if "acquire" in line]
    assert row.split() == ["acquire", "1", "min", "00", "s", "50", "s", "1.20"]
    assert text.splitlines()[1].startswith("─")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.26, "s", "4.3 s"),
        (75, "s", "1 min 15 s"),
        (7261, "s", "2 h 01 min"),
        (1.234e9, "bytes", "1.23 GB"),
        (123.4e6, "bytes", "123 MB"),
        (0, "bytes", "0 B"),
        (12_345, "n", "12,345"),
        (6.66, "EECU-h", "6.7 EECU-h"),
    ],
)
def test_quantities(value, unit, text):
    assert quantity(value, unit) == text


def test_quota_is_a_share_of_both_tiers():
    assert "10% and 1.5% of a month's quota" in quota_note(15.0)


def test_no_ratio_to_nothing():
    assert Line("disk", "maps", "bytes", 5.0, 0.0).ratio is None
