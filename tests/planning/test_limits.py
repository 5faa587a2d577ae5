"""What cannot run is refused, with what to change."""

import pytest

from cropray.core.errors import ConfigError
from cropray.planning.limits import Need, Room, least_need, refusals, require_room

ROOM = Room(disk_free_bytes=10e9, memory_bytes=8e9, object_store_bytes=2e9, spill_bytes=5e9)


def need(**changes):
    return Need(**{"disk_bytes": 1e9, "object_store_bytes": 1e9, "worker_bytes": 1e9, "n_workers": 4, **changes})


def test_what_fits_is_not_refused():
    assert refusals(need(), ROOM) == []
    assert refusals(need(disk_bytes=10e9, object_store_bytes=2e9, worker_bytes=1.5e9), ROOM) == []
    assert refusals(need(object_store_bytes=7e9), ROOM) == []  # more than the store: the rest goes to the disk
    require_room(need(), ROOM)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"disk_bytes": 11e9}, ("11 GB", "10 GB free", "'workspace'")),
        ({"object_store_bytes": 8e9}, ("8 GB", "2 GB", "5 GB free", "cluster.object_store_gb", "RAY_TMPDIR")),
        ({"worker_bytes": 2e9}, ("4 workers of 2 GB", "8 GB of memory", "search.max_concurrent")),
    ],
)
def test_each_reason_says_seen_needed_and_what_to_do(changes, words):
    (reason,) = refusals(need(**changes), ROOM)
    assert all(word in reason for word in words)


def test_all_reasons_come_together():
    with pytest.raises(ConfigError, match=r"disk.*object store"):
        require_room(need(disk_bytes=1e12, object_store_bytes=1e12), ROOM)


def test_the_least_that_a_country_needs():
    # 40 zones of 1 Mpx: 40 bytes of composite, and a tenth of the pixels as rows of 40 bytes.
    least = least_need(40_000_000, 32_000_000, has_images=True)
    assert least.disk_bytes == pytest.approx(40e6 * (40 + 4))
    assert least.object_store_bytes == pytest.approx(32e6 * 0.1 * 108)
    assert least_need(10**9, 10**9, has_images=False) == Need(0, 0, 0, 0)
