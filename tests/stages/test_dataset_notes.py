"""What a reader of the scores is told about a dataset."""

from cropray.config import JobConfig
from cropray.datasets.build import ZoneJob
from cropray.datasets.doubts import parcel_doubts
from cropray.datasets.separation import Trim
from cropray.io.workspace import Workspace
from cropray.stages.dataset import _bare_tiles, _given_by_id, _lost_classes, _notes, _tasks
from cropray.stages.inputs import legend_of
from tests.synthetic import entry, zone


def test_classes_without_training_pixels_are_reported():
    (note,) = _notes([entry("a", 0, {"wheat": 5}), entry("t", None, {"wheat": 1, "hops": 1234})])
    assert note.startswith("classes seen only in test zones: hops (1,234 px). No model can learn them")


def test_trimmed_labels_are_reported():
    (note,) = _notes([entry("a", 0, n_trimmed=1234), entry("b", 1)])
    assert note == "labels dropped at borders of splits (pixels): a 1,234"


def test_a_clean_dataset_has_no_notes():
    assert _notes([entry("a", 0), entry("t", None)]) == ()


def test_trimmed_zones_without_end_are_counted():
    (note,) = _notes([entry(f"z{i}", 0, n_trimmed=1) for i in range(25)], "points")
    assert note.startswith("labels dropped at borders of splits (points): z0 1, z1 1, ")
    assert note.endswith("z19 1 and 5 more")


def test_pixels_without_any_value_are_reported():
    (note,) = _notes([entry("a", 0, n_empty=1500), entry("b", 1), entry("t", None, n_empty=2)])
    assert note.startswith("labelled pixels without a value in any month, ")
    assert note.endswith(": a 1,500, t 2")


def test_classes_that_trimming_takes_away_are_reported():
    assert _lost_classes({"flax", "beet"}) == ["classes that lost all labels at borders of splits: beet, flax"]
    assert _lost_classes(set()) == []


def test_tiles_without_label_are_counted():
    zones = [zone("a", size=33), zone("b", size=32)]  # 3² and 2² tiles of 16
    assert _bare_tiles(zones, [entry("a", n_tiles=9), entry("b", n_tiles=4)], 16) == []
    (note,) = _bare_tiles(zones, [entry("a", n_tiles=5), entry("b", n_tiles=3)], 16)
    assert note == "5 of 13 tiles hold no label and are left out"


def test_ids_that_are_missing_repeated_or_in_several_zones_are_reported():
    parcels = {"a": ("1", "", "2", "2", "nan", "7"), "b": ("1", "2", "8", "9"), "t": ("", "8", "9", "9", "9")}
    missing, repeated, several = parcel_doubts(parcels, {"a": 0, "b": 0, "t": "test"})
    assert missing.startswith("labelled parcels without id, ")
    assert missing.endswith(": a 2, t 1")
    assert repeated.startswith("labelled parcels with the id of another one of their zone, ")
    assert repeated.endswith(": a 1, t 2")
    assert several == "2 parcels have labels in several zones of one split or fold"
    assert parcel_doubts({"a": ("1", "2"), "b": ("1", "3")}, {"a": 0, "b": 1}) == []


def test_a_zone_is_up_to_date_in_whatever_order_its_shared_parcels_come(tmp_path):
    config = JobConfig.model_validate(
        {
            "name": "small",
            "workspace": str(tmp_path),
            "points": {"path": "points.parquet"},
            "search": {"models": ["xgboost"]},
        }
    )

    def inputs(parcels, away=()):
        one = ZoneJob(zone("a"), 0, 16, ("wheat",), Trim(parcels, list(away)), Workspace(tmp_path))
        (task,) = _tasks(config, [one], {"a": {"labels": "made from"}}, legend_of(config.parcels))
        return task.inputs.digest

    ids = [f"{i * 37 % 1000:04d}" for i in range(500)]
    assert len({inputs(set(order)) for order in (ids, ids[::-1], sorted(ids))}) == 1
    assert len({inputs(set()), inputs({"1"}), inputs({"2"}), inputs(set(), [(0, 0, 1, 1)])}) == 4


def test_parcels_given_up_to_far_zones_are_reported():
    near = [(0.0, 0.0, 1.0, 1.0)]
    trims = {"a": Trim({"1", "2"}), "b": Trim({"3"}, near), "c": Trim(keep_away=near), "d": Trim({"1"})}
    (note,) = _given_by_id(trims)
    assert "parcels.id_column" in note
    assert note.endswith(": a 2, d 1")
    assert _given_by_id({"b": trims["b"]}) == []
