"""From results of folds to the winner and its refit."""

import json

import pytest

from cropray.core.errors import SchemaError
from cropray.search.results import FoldResult, RegionOut, group_by_configuration, load_results, save_results, winner


def result(rate=0.1, fold=0, *, right=8, loss=0.5, best_step=10):
    """Ten validation pixels of one class of two, so many of them right."""
    return FoldResult(
        params={"learning_rate": rate, "n_estimators": 50},
        fold=fold,
        loss_sum=10 * loss,
        confusion=((right, 10 - right), (0, 0)),
        history=({"step": 1, "val_loss": 0.1 + 0.2}, {"step": 2, "val_loss": 1 / 3}),
        best_step=best_step,
        seconds=1.5,
    )


def test_results_read_back_as_they_were_written(tmp_path):
    results = (result(fold=0), result(fold=1))
    save_results(tmp_path / "result.json", results)
    assert load_results(tmp_path / "result.json") == results
    save_results(tmp_path / "result.json", ())  # a refit has none
    assert load_results(tmp_path / "result.json") == ()


def test_results_of_another_version_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "lr=0.1_fold=0" / "result.json"
    save_results(path, (result(),))
    (record,) = json.loads(path.read_text())
    del record["untrained"], record["untrained_loss_sum"]
    for content in ([record], [{**record, "untrained": [], "later": 1}], {"results": []}):
        path.write_text(json.dumps(content))
        with pytest.raises(SchemaError, match=r"lr=0\.1_fold=0.*another version.*remove '.*run `cropray search"):
            load_results(path)


def test_configurations_gather_their_folds_in_order():
    results = [result(0.1, 1), result(0.2, 0), result(0.1, 0), result(0.2, 1)]
    groups = group_by_configuration(results)
    assert [(g.params["learning_rate"], [f.fold for f in g.folds]) for g in groups] == [(0.1, [0, 1]), (0.2, [0, 1])]


def test_parameters_in_another_order_are_the_same_configuration():
    one, other = result(fold=0), result(fold=1)
    turned = FoldResult(
        **{f: getattr(other, f) for f in other.__slots__} | {"params": dict(reversed(one.params.items()))}
    )
    assert len(group_by_configuration([one, turned])) == 1


def test_metrics_are_means_over_folds():
    (configuration,) = group_by_configuration([result(fold=0, right=8, loss=0.5), result(fold=1, right=6, loss=1.0)])
    metrics = configuration.metrics
    assert metrics["val_accuracy_mean"] == pytest.approx(0.7)  # (0.8 + 0.6) / 2
    assert metrics["val_accuracy_std"] == pytest.approx(0.1)  # both are 0.1 from the mean
    assert metrics["val_loss_mean"] == pytest.approx(0.75)
    assert metrics["val_macro_recall_mean"] == pytest.approx(0.7)  # one class is present


def test_a_fold_counts_as_one_whatever_its_size():
    large = FoldResult({}, 0, 0.0, ((1000, 0), (0, 0)), (), 1, 0.0)
    small = FoldResult({}, 1, 0.0, ((0, 1), (0, 0)), (), 1, 0.0)
    (configuration,) = group_by_configuration([large, small])
    assert configuration.metrics["val_accuracy_mean"] == 0.5


@pytest.mark.parametrize(("objective", "best"), [("val_accuracy", 0.2), ("val_macro_f1", 0.2), ("val_loss", 0.1)])
def test_the_winner_has_the_best_mean(objective, best):
    groups = group_by_configuration(
        [
            result(0.1, 0, right=9, loss=0.1),
            result(0.1, 1, right=5, loss=0.1),  # mean 0.7: the best single fold does not win
            result(0.2, 0, right=8, loss=0.4),
            result(0.2, 1, right=8, loss=0.4),
        ]
    )
    assert winner(groups, objective).params["learning_rate"] == best


def test_the_first_wins_a_tie():
    groups = group_by_configuration([result(0.3), result(0.1), result(0.2)])
    for objective in ("val_accuracy", "val_loss"):
        assert winner(groups, objective).params["learning_rate"] == 0.3


@pytest.mark.parametrize(("steps", "refit"), [((10, 20, 30), 20), ((10, 10, 11), 11), ((0, 0), 1)])  # mean, rounded up
def test_the_refit_takes_the_mean_of_the_best_steps(steps, refit):
    results = [result(fold=fold, best_step=step) for fold, step in enumerate(steps)]
    assert group_by_configuration(results)[0].refit_steps == refit


def test_pixels_of_unknown_classes_count_in_every_score_but_the_loss():
    fold = FoldResult({}, 0, 4.0, ((6, 2), (0, 0)), (), 1, 0.0)
    unknown = FoldResult({}, 0, 4.0, ((6, 2), (2, 0)), (), 1, 0.0, untrained=(1,), untrained_loss_sum=70.0)
    assert fold.scores.loss == unknown.scores.loss == 0.5  # 4 / 8
    assert unknown.scores.accuracy == 0.6  # 6 / 10
    assert unknown.scores.as_metrics("val")["val_untrained_pixels"] == 2


def test_regions_are_pooled_pixel_by_pixel():
    large = FoldResult({}, 0, 9.0, ((80, 0), (20, 0)), (), 5, 0.0, untrained=(1,), untrained_loss_sum=41.0)
    small = FoldResult({}, 1, 2.0, ((0, 4), (0, 6)), (), 5, 0.0)
    region_out = RegionOut({"alpha": large, "beta": small})
    assert region_out.cube.shape == (2, 2, 2)
    metrics = region_out.metrics
    assert metrics["region_out_pixels"] == 110
    assert metrics["region_out_accuracy"] == pytest.approx(86 / 110)
    assert metrics["region_out_macro_recall"] == pytest.approx((80 / 84 + 6 / 26) / 2)
    assert metrics["region_out_loss"] == pytest.approx(52 / 110)  # of all pixels, as in a test
    assert metrics["region_out_untrained_pixels"] == 20
    by_region = region_out.scores_by_region
    assert (by_region["alpha"].accuracy, by_region["beta"].accuracy) == (0.8, 0.6)
    assert (by_region["alpha"].loss, by_region["beta"].loss) == (0.5, 0.2)
