"""A job may name its test zones, of a table of zones or of points."""

import pyarrow as pa
import pytest

from cropray.core.errors import ConfigError
from cropray.datasets.other_split import points_with_test, zones_with_test
from tests.synthetic import zone

ZONES = [zone("a"), zone("b", split="test"), zone("c")]
POINTS = pa.table({"zone_id": ["a", "b", "a", "c"], "split": ["train", "test", "train", "train"], "n": [1, 2, 3, 4]})


def test_named_zones_are_the_test_and_all_others_train():
    assert [(z.zone_id, z.split) for z in zones_with_test(ZONES, ["a", "c"])] == [
        ("a", "test"), ("b", "train"), ("c", "test"),
    ]  # fmt: skip
    assert points_with_test(POINTS, ["a"])["split"].to_pylist() == ["test", "train", "test", "train"]
    assert points_with_test(POINTS, ["a"]).drop_columns("split") == POINTS.drop_columns("split")


def test_without_names_the_table_decides():
    assert zones_with_test(ZONES, None) == tuple(ZONES)
    assert points_with_test(POINTS, None) is POINTS


@pytest.mark.parametrize(("names", "said"), [(["d"], r"not there \(d\); there are a, b, c"), ([], "0 of 3"), (["a", "b", "c"], "3 of 3")])  # fmt: skip
def test_names_must_leave_zones_to_train_on_and_to_test(names, said):
    for divide in (zones_with_test, points_with_test):
        with pytest.raises(ConfigError, match=said):
            divide(ZONES if divide is zones_with_test else POINTS, names)
