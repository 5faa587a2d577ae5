"""What the tracker is told of an evaluation."""

from cropray.stages.results import _interval_metrics


def test_ends_of_intervals_are_metrics_of_their_own():
    intervals = {"test_accuracy": [0.7, 0.9], "test_macro_f1": [0.3, 0.5]}
    assert _interval_metrics({"intervals": intervals}) == {
        "test_accuracy_low": 0.7, "test_accuracy_high": 0.9, "test_macro_f1_low": 0.3, "test_macro_f1_high": 0.5,
    }  # fmt: skip
    assert _interval_metrics({"intervals": None, "no_intervals": "2 test zones"}) == {}
