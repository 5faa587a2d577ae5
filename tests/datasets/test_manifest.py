"""What a dataset says about itself."""

import json

import numpy as np
import pytest

from cropray.core.errors import MissingArtefactError, SchemaError
from cropray.core.legend import IGNORE, legend_from_names
from cropray.datasets.manifest import (
    BandSums,
    classes_only_in_test,
    load_manifest,
    save_manifest,
    statistics,
)
from cropray.datasets.schema import SCHEMA_VERSION
from tests.synthetic import entry, manifest

SMALL = manifest(
    entry("a", 0), entry("t", None, {"hops": 3, "maize": 1}), entry("b", 1, {"maize": 5}), entry("c", 0),
    notes=("blé only in test",),
)  # fmt: skip


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    save_manifest(SMALL, tmp_path / "manifest.json")
    back = load_manifest(tmp_path / "manifest.json")
    assert back == SMALL
    assert back.fingerprint() == SMALL.fingerprint()


def test_sums_read_back_to_the_last_bit(tmp_path):
    sums = BandSums((3, 0, 1, 2), (0.1 + 0.2, 0.0, 1e300, 2**53 + 1.0), (1 / 3, 0.0, 1e-300, 7.0))
    save_manifest(manifest(entry("a", sums=sums)), tmp_path / "m.json")
    assert load_manifest(tmp_path / "m.json").zones[0].sums == sums


def test_a_dataset_that_is_not_there_names_the_stage(tmp_path):
    with pytest.raises(MissingArtefactError, match="run `cropray dataset"):
        load_manifest(tmp_path / "manifest.json")


def changed(**changes):
    def change(text):
        return json.dumps({**json.loads(text), **changes})

    return change


def without(key):
    def change(text):
        return json.dumps({k: v for k, v in json.loads(text).items() if k != key})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(schema_version=SCHEMA_VERSION - 1), f"has dataset schema version {SCHEMA_VERSION - 1}, .* rebuild it"),
        (changed(schema_version=SCHEMA_VERSION + 1), "rebuild it"),
        (without("schema_version"), "schema version None"),
        (lambda text: "[]", "schema version None"),
        (lambda text: text[: len(text) // 2], "is damaged"),
        (without("zones"), "is damaged .*zones"),
        (without("n_folds"), "is damaged .*n_folds"),
        (changed(colour="red"), "is damaged .*colour"),
        (changed(zones=[{"zone_id": "a"}]), "is damaged .*sums"),
    ],
)
def test_another_version_or_a_damaged_file_is_refused(tmp_path, change, message):
    path = tmp_path / "manifest.json"
    save_manifest(SMALL, path)
    path.write_text(change(path.read_text()))
    with pytest.raises(SchemaError, match=message):
        load_manifest(path)


def test_folds_never_hold_a_test_zone():
    assert SMALL.fold_zones(0) == (("b",), ("a", "c"))
    assert SMALL.fold_zones(1) == (("a", "c"), ("b",))
    assert [zone.zone_id for zone in SMALL.of_split("test")] == ["t"]


def test_counts_of_some_zones():
    assert SMALL.labelled(["t", "a"]) == {"a": 10, "t": 4}
    # wheat 6 + 0, maize 4 + 5
    np.testing.assert_array_equal(SMALL.class_counts(["a", "b"]), [6, 9])


def test_lookup_maps_stored_ids_to_positions():
    classes = legend_from_names(["a", "b", "c", "d"]).classes
    table = manifest(entry("a")).lookup()
    assert table.shape == (256,)
    sparse = manifest(entry("a"), classes=(classes[1], classes[3])).lookup()
    assert (sparse[1], sparse[3], sparse[0], sparse[IGNORE]) == (0, 1, IGNORE, IGNORE)
    assert (sparse != IGNORE).sum() == 2


def test_classes_that_only_test_zones_hold_are_named():
    zones = (
        entry("a", 0, {"wheat": 5, "hops": 0}), entry("t", None, {"wheat": 1, "hops": 3, "flax": 0}),
        entry("u", None, {"hops": 4}),
    )  # fmt: skip
    assert classes_only_in_test(zones) == {"hops": 7}  # 3 + 4; flax has no pixel
    assert classes_only_in_test(SMALL.of_split("train")) == {}


def test_statistics_in_closed_form():
    # Values 1, 3, 8: mean 4, mean square 74 / 3, variance 74 / 3 − 16 = 26 / 3; a constant 5; one without data.
    sums = BandSums((3, 2, 0, 1), (12.0, 10.0, 0.0, 7.0), (74.0, 50.0, 0.0, 49.0))
    mean, deviation = statistics(sums)
    np.testing.assert_allclose(mean, [4, 5, 0, 7])
    np.testing.assert_allclose(deviation, [(26 / 3) ** 0.5, 1, 1, 1], rtol=1e-6)
    assert mean.dtype == deviation.dtype == np.float32


def test_sums_of_zones_add():
    big = BandSums((10, 20, 30, 40), (1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0))
    some = manifest(entry("a", 0, sums=big), entry("b", 1), entry("t", None, sums=big))
    assert some.band_sums(["a"]) == big
    assert some.band_sums(["b", "a"]) == BandSums((11, 21, 31, 41), (3.0, 4.0, 5.0, 6.0), (9.0, 10.0, 11.0, 12.0))
    assert some.band_sums([]) == BandSums((0,) * 4, (0.0,) * 4, (0.0,) * 4)


def test_the_fingerprint_sees_whatever_training_sees():
    base = manifest(entry("a", 0), entry("b", 1))
    assert base.fingerprint() == manifest(entry("a", 0), entry("b", 1), notes=("a remark",)).fingerprint()
    others = [
        manifest(entry("a", 1), entry("b", 0)),
        manifest(entry("a", 0, files={"x": "1"}), entry("b", 1)),
        manifest(entry("a", 0), entry("b", 1), names=("wheat", "hops")),
        manifest(entry("a", 0), entry("b", 1), tile_size=16),
    ]
    assert len({base.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_classes_that_cannot_be_learnt_are_counted_where_they_are_scored():
    zones = manifest(
        entry("a", 0, {"wheat": 5, "hops": 2}), entry("b", 1, {"wheat": 1, "flax": 3, "maize": 0}),
        entry("c", 1, {"flax": 4, "maize": 9}), names=("wheat", "maize", "hops", "flax"),
    )  # fmt: skip
    assert zones.untrained(["a"], ["b", "c"]) == {"maize": 9, "flax": 7}
    assert zones.untrained(["b"], ["a"]) == {"hops": 2}
    assert zones.untrained(["a", "b", "c"], ["a"]) == {}
