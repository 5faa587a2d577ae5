"""What a reader of the scores is told about a dataset."""

from cropray.stages.dataset import _notes
from tests.synthetic import entry


def test_classes_without_training_pixels_are_reported():
    (note,) = _notes([entry("a", 0, {"wheat": 5}), entry("t", None, {"wheat": 1, "hops": 1234})])
    assert note.startswith("classes seen only in test zones: hops (1,234 px). No model can learn them")


def test_trimmed_labels_are_reported():
    (note,) = _notes([entry("a", 0, n_trimmed=1234), entry("b", 1)])
    assert note == "labels dropped at borders of splits (pixels): a 1,234"


def test_a_clean_dataset_has_no_notes():
    assert _notes([entry("a", 0), entry("t", None)]) == ()
