"""Scores from counts: closed forms, and scikit-learn as an independent judge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from cropray.core.errors import AccountingError
from cropray.core.metrics import Metric, check_cube, confusion, log_loss_sum, region_scores, score, score_study_protocol

# Class 2 is predicted but never true, class 3 neither.
MATRIX = np.array([[3, 1, 0, 0], [2, 2, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_scores_in_closed_form():
    scores = score(MATRIX, loss_sum=5.0)
    assert scores.n_pixels == 10
    assert scores.accuracy == 0.5  # (3 + 2) / 10
    assert scores.loss == 0.5  # 5 / 10
    assert scores.macro_precision == pytest.approx((3 / 5 + 2 / 3) / 2)
    assert scores.macro_recall == pytest.approx((3 / 4 + 2 / 6) / 2)
    # F1 = 2 hits / (true + predicted): 6 / (4 + 5) and 4 / (6 + 3); class 2 has no true pixel and does not count
    assert scores.macro_f1 == pytest.approx((6 / 9 + 4 / 9) / 2)
    assert [(row.class_id, row.support, row.predicted) for row in scores.classes] == [(0, 4, 5), (1, 6, 3), (2, 0, 2)]


def test_a_class_that_is_never_predicted_scores_zero():
    scores = score(np.array([[4, 0], [4, 0]]))
    assert (scores.macro_precision, scores.macro_recall) == (0.25, 0.5)  # (4/8 + 0) / 2, (1 + 0) / 2
    assert scores.macro_f1 == pytest.approx(1 / 3)  # (8/12 + 0) / 2


def test_the_study_averages_over_absent_classes_too():
    honest, study = score(MATRIX), score_study_protocol(MATRIX)
    assert study.accuracy == honest.accuracy
    assert study.macro_f1 == pytest.approx((6 / 9 + 4 / 9) / 4)  # four classes in the matrix, two present
    assert study.macro_recall == pytest.approx((3 / 4 + 2 / 6) / 4)


def test_metric_keys():
    keys = ["val_accuracy", "val_macro_precision", "val_macro_recall", "val_macro_f1"]
    assert list(score(MATRIX).as_metrics("val")) == keys
    assert list(score(MATRIX, 1.0).as_metrics("val")) == ["val_loss", *keys]
    assert list(score(MATRIX, 1.0, ()).as_metrics("val")) == ["val_loss", *keys, "val_untrained_pixels"]


def test_the_loss_leaves_out_classes_that_could_not_be_learnt():
    scores = score(MATRIX, loss_sum=3.0, untrained=(0, 3))
    assert scores.loss == 3.0 / 6  # class 1 has six pixels
    assert scores.as_metrics("val")["val_untrained_pixels"] == 4
    assert (scores.accuracy, scores.macro_f1, scores.n_pixels) == (0.5, score(MATRIX).macro_f1, 10)
    assert score(MATRIX, 5.0, ()).loss == score(MATRIX, 5.0).loss == 0.5


def test_a_loss_of_no_pixel_is_refused():
    with pytest.raises(AccountingError, match=r"all 10 labelled pixels .* training zones lack"):
        score(MATRIX, 0.0, (0, 1))
    assert score(MATRIX, untrained=(0, 1)).n_untrained == 10


def test_no_pixel_costs_more_than_the_floor():
    probabilities = np.array([[1, 0], [1 - 1e-7, 1e-7], [1, 1e-30]], np.float32)
    # 0 and 1e-30 count as 1e-16: 16 ln 10 each, and 7 ln 10.
    assert log_loss_sum(probabilities, np.array([1, 1, 1], np.uint8)) == pytest.approx(
        (16 + 7 + 16) * np.log(10), rel=1e-6
    )


def test_a_score_that_needs_the_loss_is_no_headline():
    """A page and the record of an evaluation ask headlines of single zones and regions, which have counts alone."""
    with pytest.raises(ValueError, match="'gain' is None without a loss"):
        Metric("gain", "Gain", lambda _, loss: None if loss is None else 1 - loss, is_headline=True)
    assert not Metric("gain", "Gain", lambda _, loss: None if loss is None else 1 - loss).is_headline


def test_nothing_to_score_is_an_error():
    with pytest.raises(AccountingError, match="no labelled pixel"):
        score(np.zeros((3, 3), np.int64))


labels = st.integers(1, 6).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), min_size=1, max_size=60))
)


@given(labels)
def test_scores_equal_those_of_scikit_learn(drawn):
    n_classes, pairs = drawn
    true, predicted = np.array(pairs).T
    scores = score(confusion(true, predicted, n_classes))
    present = np.unique(true)
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=present, zero_division=0)
    assert scores.accuracy == pytest.approx(accuracy_score(true, predicted))
    assert scores.macro_precision == pytest.approx(precision.mean())
    assert scores.macro_recall == pytest.approx(recall.mean())
    assert scores.macro_f1 == pytest.approx(f1.mean())
    rows = [row for row in scores.classes if row.support]
    assert [row.class_id for row in rows] == present.tolist()
    assert [row.support for row in rows] == support.tolist()
    assert [row.f1 for row in rows] == pytest.approx(f1.tolist())


@given(labels, st.integers(0, 60))
def test_counts_add_up_over_any_division(drawn, cut):
    n_classes, pairs = drawn
    true, predicted = np.array(pairs, np.uint8).T
    parts = [confusion(true[part], predicted[part], n_classes) for part in (slice(cut), slice(cut, None))]
    whole = confusion(true, predicted, n_classes)
    np.testing.assert_array_equal(parts[0] + parts[1], whole)
    np.testing.assert_array_equal(whole.sum(1), np.bincount(true, minlength=n_classes))


def test_confusion_does_not_overflow_small_types():
    # 200 × 250 + 249 does not fit uint8
    assert confusion(np.array([200], np.uint8), np.array([249], np.uint8), 250)[200, 249] == 1


CUBE = np.array([[[5, 1], [0, 4]], [[2, 0], [3, 0]]])


def test_a_cube_that_matches_the_manifest_passes():
    check_cube(CUBE, ["a", "b"], {"b": 5, "a": 10})


@pytest.mark.parametrize(
    ("zone_ids", "n_labelled", "message"),
    [
        (["a", "b"], {"a": 10, "b": 6}, "b: counted 5, manifest 6"),
        (["a", "b"], {"a": 10}, "b: counted 5, manifest None"),
        (["a", "b"], {"a": 10, "b": 5, "c": 1}, "c: counted None, manifest 1"),
        (["a", "b"], {"a": 5, "b": 10}, "a: counted 10, manifest 5, b: counted 5, manifest 10"),  # the total is right
        (["b", "b"], {"b": 5}, "b: counted 15, manifest 5"),  # a zone counted twice
    ],
)
def test_lost_or_doubled_pixels_are_refused(zone_ids, n_labelled, message):
    with pytest.raises(AccountingError, match=message):
        check_cube(CUBE, zone_ids, n_labelled)


def test_scores_of_a_region_are_those_of_its_zones_together():
    found = region_scores(np.concatenate([CUBE, CUBE[:1], 0 * CUBE[:1]]), ["north", "south", "north", "west"])
    assert list(found) == ["north", "south"]  # nothing is labelled in the west
    assert found["north"] == score(2 * CUBE[0])
    assert found["south"] == score(CUBE[1])


def test_scripts_find_scores_and_intervals_by_a_short_name():
    from cropray import metrics
    from cropray.core import intervals

    assert (metrics.score, metrics.bootstrap_intervals) == (score, intervals.bootstrap_intervals)
