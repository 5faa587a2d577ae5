"""What cannot run is refused, with what to change."""

from dataclasses import replace

import pytest

from cropray.core.errors import ConfigError
from cropray.planning.limits import Room, least, refusals, require_room

ROOM = Room(disk_free_bytes=10e9, memory_bytes=8e9, object_store_bytes=2e9, spill_bytes=5e9)


def amounts(disk=1e9, object_store=1e9, worker=1e9):
    memory = {("memory", "object store"): object_store, ("memory", "a worker: CNN"): worker}
    return {("disk", "composites"): disk / 2, ("disk", "maps"): disk / 2, **memory, ("memory", "a worker: zones"): 1e8}


def test_what_fits_is_not_refused():
    assert refusals(amounts(), ROOM, 4) == []
    assert refusals(amounts(disk=10e9, object_store=2e9, worker=1.5e9), ROOM, 4) == []
    assert refusals(amounts(object_store=7e9), ROOM, 4) == []  # more than the store: the rest goes to the disk
    assert refusals(amounts(disk=11e9), replace(ROOM, filled_bytes=1e9), 4) == []  # 1 GB of it stands already
    require_room(amounts(), ROOM)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"disk": 11e9}, ("11 GB", "10 GB free", "'workspace'")),
        ({"object_store": 8e9}, ("8 GB", "2 GB", "5 GB free", "cluster.object_store_gb", "RAY_TMPDIR")),
        ({"worker": 2e9}, ("4 workers of 2 GB", "8 GB of memory", "search.max_concurrent")),
    ],
)
def test_each_reason_says_seen_needed_and_what_to_do(changes, words):
    (reason,) = refusals(amounts(**changes), ROOM, 4)
    assert all(word in reason for word in words)


def test_all_reasons_come_together():
    with pytest.raises(ConfigError, match=r"disk.*object store"):
        require_room(amounts(disk=1e12, object_store=1e12), ROOM)


def test_the_least_that_a_country_needs():
    # 40 zones of 1 Mpx: 40 bytes of composite, and a tenth of the pixels as rows of 40 bytes.
    country = least(40_000_000, 32_000_000)
    assert country["disk", "least"] == pytest.approx(40e6 * (40 + 4))
    assert country["memory", "object store"] == pytest.approx(32e6 * 0.1 * 108)
    assert set(least(0, 0).values()) == {0}  # points have no images
