"""Weights of rows: a row of weight 2 is two rows in training and one in validation, in every family of pixels."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from cropray.core import registry as registry_module
from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import ConfigError
from cropray.core.registry import Registry
from cropray.training.deep import losses
from cropray.training.deep.loop import FitPlan, train_epoch
from cropray.training.deep.losses import LOSSES
from cropray.training.deep.tiles import ChannelStats
from cropray.training.family import families, family
from cropray.training.forest.grow import grow
from cropray.training.forest.tree_file import load_forest
from cropray.training.pixel_blocks import TreeData
from cropray.training.pixel_blocks import tree_data as side
from cropray.training.pixels import training_rows
from cropray.training.temp_cnn.pixels import PixelSet
from cropray.training.weights import class_weights
from cropray.training.xgboost.fit import train_xgboost
from cropray.training.xgboost.settings import XgboostSettings
from tests.study import FEATURE_COLUMNS
from tests.training.pixel_fits import files, fit_job, fitted, xy
from tests.training.tree_rows import CLASSES, LEGEND, tree_data

N_STEPS = 6
TREES = {
    "xgboost": {"max_depth": 4, "learning_rate": 0.3},
    "lightgbm": {"num_leaves": 9, "min_child_samples": 1, "learning_rate": 0.3},
    "forest": {"max_features": 0.4},
}
NETWORK = {"channels": 8, "hidden": 8, "epochs": 2, "batch_size": 40, "sampler": {"name": "all", "n": 160}}
ALL = {**TREES, "temp_cnn": NETWORK}


def coarse(seed, n):
    """Rows of few values, each of which many have: bins by rows and by weights are the same then.

    None is missing: scikit-learn sends what no row of a node lacked to the side of more rows, whatever they weigh.
    """
    rng = np.random.default_rng(seed)
    label = rng.choice([crop.id for crop in CLASSES], n).astype(np.uint8)
    x = rng.integers(1, 9, (n, len(FEATURE_COLUMNS)))
    x[np.arange(n), label] += 3
    return pa.table({"label": label, **dict(zip(FEATURE_COLUMNS, 300 * x.T.astype(np.uint16), strict=True))})


def weighted(rows, weights):
    return rows.append_column("weight", pa.array(np.asarray(weights, np.float32)))


PLAIN = [coarse(11, 260), coarse(12, 140)]
TIMES = [np.random.default_rng(5).integers(1, 4, rows.num_rows) for rows in PLAIN]
WEIGHTED = tree_data(a=weighted(PLAIN[0], TIMES[0]), b=weighted(PLAIN[1], TIMES[1]))
REPEATED = tree_data(
    a=PLAIN[0].take(np.repeat(np.arange(260), TIMES[0])), b=PLAIN[1].take(np.repeat(np.arange(140), TIMES[1]))
)
N_VAL = 230
VAL = tree_data(d=coarse(13, N_VAL))
VAL_WEIGHTED = tree_data(d=weighted(coarse(13, N_VAL), np.linspace(1, 9, N_VAL)))


def fit(name, folder, train, *, is_weighted, val=VAL_WEIGHTED, **changes):
    steps = (N_STEPS,) if name in TREES else ()
    settings = family(name).settings(**{**ALL[name], **changes})
    return fitted(name, settings, folder, steps, train=train, val=val, is_weighted=is_weighted)


@pytest.mark.parametrize("name", TREES)
def test_a_weight_of_n_is_n_rows(name, tmp_path):
    (weighed,), model = fit(name, tmp_path / "w", WEIGHTED, is_weighted=True)
    (repeated,), slow = fit(name, tmp_path / "r", REPEATED, is_weighted=False)
    x = xy(VAL)[0]
    np.testing.assert_allclose(model.predict_samples(x), slow.predict_samples(x), rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(weighed.confusion, repeated.confusion)
    assert weighed.confusion.sum() == len(x)  # each row of validation once
    for mine, other in zip(weighed.history, repeated.history, strict=True):
        assert mine == pytest.approx(other, rel=1e-5)  # its loss too, and of training the weighted mean
    (even,), _ = fit(name, tmp_path / "e", WEIGHTED, is_weighted=False)
    assert even.loss_sum != weighed.loss_sum


def test_a_forest_multiplies_weights_of_rows_with_those_of_their_classes(tmp_path):
    fit("forest", tmp_path, WEIGHTED, is_weighted=True, class_weighting="inverse")
    settings, (x, labels) = family("forest").settings(**ALL["forest"]), xy(WEIGHTED)
    of_class = class_weights(np.bincount(labels, minlength=len(CLASSES)), "inverse")
    slow = grow(settings, 0, range(N_STEPS), x, labels, len(CLASSES), np.concatenate(TIMES) * of_class[labels])
    np.testing.assert_array_equal(load_forest(tmp_path)[0].nodes, slow.nodes)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_weights_of_rows_are_multiplied_with_those_of_their_classes(name, tmp_path):
    (both,), model = fit(name, tmp_path / "b", WEIGHTED, is_weighted=True, class_weighting="inverse")
    _, labels = xy(WEIGHTED)
    of_class = class_weights(np.bincount(labels, minlength=len(CLASSES)), "inverse")  # of rows, whatever they weigh
    parts = np.split(of_class[labels], [260])
    product = tree_data(a=weighted(PLAIN[0], TIMES[0] * parts[0]), b=weighted(PLAIN[1], TIMES[1] * parts[1]))
    (one,), other = fit(name, tmp_path / "o", product, is_weighted=True)
    x = xy(VAL)[0]
    np.testing.assert_allclose(model.predict_samples(x), other.predict_samples(x), rtol=1e-4, atol=1e-6)
    assert both.loss_sum == pytest.approx(one.loss_sum, rel=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("weighting", ["none", "inverse"])
def test_weights_of_1_change_no_bit(name, weighting, tmp_path):
    ones = tree_data(a=weighted(PLAIN[0], np.ones(260)), b=weighted(PLAIN[1], np.ones(140)))
    one, _ = fit(name, tmp_path / "1", ones, is_weighted=True, class_weighting=weighting)
    none, _ = fit(name, tmp_path / "0", tree_data(a=PLAIN[0], b=PLAIN[1]), is_weighted=False, class_weighting=weighting)
    assert files(tmp_path / "1") == files(tmp_path / "0")
    assert [score.history for score in one] == [score.history for score in none]
    assert [score.loss_sum for score in one] == [score.loss_sum for score in none]


def test_bins_on_disk_weigh_the_same_rows(tmp_path, monkeypatch):
    settings = XgboostSettings(**TREES["xgboost"])
    train = TreeData(WEIGHTED.blocks, CLASSES, LEGEND.hash(), is_weighted=True)
    train_xgboost(settings, (N_STEPS,), train, VAL, 0, (tmp_path / "memory").mkdir() or tmp_path / "memory")
    monkeypatch.setattr("cropray.training.xgboost.fit.bins_on_disk", lambda *_: True)
    train_xgboost(settings, (N_STEPS,), train, VAL, 0, (tmp_path / "disk").mkdir() or tmp_path / "disk")
    assert files(tmp_path / "memory")["model.ubj"] == files(tmp_path / "disk")["model.ubj"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("xgboost", {"num_workers": 2, "engine": "xgboost_ray"}),
        ("forest", {"num_workers": 2}),
    ],
)
def test_workers_weigh_the_same_rows(name, how, tmp_path):
    (here,), one = fit(name, tmp_path / "here", WEIGHTED, is_weighted=True)
    (there,), other = fit(name, tmp_path / "there", WEIGHTED, is_weighted=True, **how)
    x = xy(VAL)[0]
    np.testing.assert_allclose(one.predict_samples(x), other.predict_samples(x), rtol=1e-5, atol=1e-7)
    assert here.history[-1] == pytest.approx(there.history[-1], rel=1e-5)


def test_forest_keeps_the_weights_of_the_rows_it_keeps(tmp_path):
    settings = family("forest").settings()
    job = fit_job(settings, tmp_path, (1,), train=WEIGHTED, is_weighted=True)
    rows = training_rows(side(job.train, job), most=90, seed=4)
    known = {(x.tobytes(), y): w for x, y, w in zip(*xy(WEIGHTED), np.concatenate(TIMES), strict=True)}
    assert len(rows.weights) == 90
    assert [known[x.tobytes(), y] for x, y in zip(rows.x, rows.labels, strict=True)] == rows.weights.tolist()
    assert training_rows(side(job.val, job)).weights is None


def pixels(data):
    tables = [block.rows for block in data.blocks.values()]
    return PixelSet(tables, data.lookup(), ChannelStats((1200.0,) * 4, (600.0,) * 4), STUDY_CUBE)


@pytest.mark.parametrize("choice", ["cross_entropy", {"name": "cross_entropy", "label_smoothing": 0.2}, "focal"])
@pytest.mark.parametrize("of_class", [None, torch.tensor([0.5, 2.0, 1.0, 3.0])])
def test_the_loss_of_a_batch_with_weights_is_that_of_its_rows_one_by_one(choice, of_class):
    generator = torch.Generator().manual_seed(2)
    logits = (3 * torch.randn(9, 4, 1, 2, generator=generator)).requires_grad_()
    labels = torch.randint(4, (9, 1, 2), generator=generator)
    labels[3, 0, 1] = losses.IGNORE
    weights = torch.rand(9, 1, 2, generator=generator) * 5
    loss = LOSSES.make(choice)
    slow = sum(
        weights[i, 0, j] * loss(logits[i : i + 1, :, :, j : j + 1], labels[i : i + 1, :, j : j + 1], of_class)
        for i, j in itertools.product(range(9), range(2))
    )
    found = loss(logits, labels, of_class, weights)
    torch.testing.assert_close(found, slow)
    torch.testing.assert_close(torch.autograd.grad(found, logits)[0], torch.autograd.grad(slow, logits)[0])


class Straight(torch.nn.Module):
    """Logits of a pixel: a linear map of its numbers, nothing that looks at the batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.map = torch.nn.Linear(48, 4)

    def forward(self, x, context=None):
        del context
        return self.map(x.flatten(1))[:, :, None, None]


def test_a_step_of_a_network_is_that_of_repeated_rows():
    """All rows in one batch: its loss and its gradient are means over rows, each as often as it weighs."""
    after = []
    for data in (WEIGHTED, REPEATED):
        model, samples = Straight(), pixels(data)
        plan = FitPlan(n_classes=4, learning_rate=0.1, seed=0, batch_size=10_000)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = train_epoch(model, optimizer, samples, torch.ones(4), plan, 1)
        after.append((loss, model.map.weight.detach().clone(), samples.class_counts(4).sum()))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-5)
    torch.testing.assert_close(after[0][1], after[1][1])
    assert after[0][2] == 400  # rows


def test_small_weights_are_as_good_as_large_ones():
    """A batch is divided by the sum of its weights, however small it is."""
    after = []
    for factor in (1e-4, 1.0):
        data = tree_data(a=weighted(PLAIN[0], TIMES[0] * factor))
        model, plan = Straight(), FitPlan(n_classes=4, learning_rate=0.1, seed=0, batch_size=64)
        loss = train_epoch(model, torch.optim.SGD(model.parameters(), lr=0.1), pixels(data), torch.ones(4), plan, 1)
        after.append((loss, model.map.weight.detach().clone()))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-4)
    torch.testing.assert_close(after[0][1], after[1][1], rtol=1e-4, atol=1e-6)


def test_temp_cnn_heeds_weights_in_training_alone(tmp_path):
    (weighed,), _ = fit("temp_cnn", tmp_path / "w", WEIGHTED, is_weighted=True)
    (even,), _ = fit("temp_cnn", tmp_path / "e", tree_data(a=PLAIN[0], b=PLAIN[1]), is_weighted=False)
    assert weighed.loss_sum != even.loss_sum
    assert weighed.confusion.sum() == even.confusion.sum() == N_VAL
    plain = tree_data(d=weighted(coarse(13, N_VAL), np.full(N_VAL, 7)))
    (other,), _ = fit("temp_cnn", tmp_path / "p", WEIGHTED, is_weighted=True, val=plain)
    assert (weighed.loss_sum, weighed.history) == (other.loss_sum, other.history)


def test_a_loss_that_takes_no_weights_of_rows_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(registry_module, "_OUTSIDE", {})  # it is for this test alone
    registry = Registry("loss")
    registry.register("of_old")(type("OfOld", (), {"__call__": lambda self, logits, labels, weights=None: 0}))
    monkeypatch.setattr(losses, "LOSSES", registry)
    settings = family("temp_cnn").settings(**NETWORK).model_copy(update={"loss": "of_old"})
    job = fit_job(settings, tmp_path, train=WEIGHTED, is_weighted=True)
    with pytest.raises(ConfigError, match=r"loss 'of_old' takes none .* leave the column 'weight' out"):
        family("temp_cnn").fit(job)
    assert not list(tmp_path.iterdir())


def test_families_say_whether_they_weigh():
    assert {name for name, found in families().items() if found.weighs_rows} >= set(ALL)
