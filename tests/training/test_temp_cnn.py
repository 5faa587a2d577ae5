"""The network over pixels: what it reads, fits that repeat and go on, and models in use."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from cropray.cluster.resources import FitSize
from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import ConfigError, SchemaError
from cropray.datasets.pixels import pixel_table
from cropray.evaluation.models import load_model
from cropray.training.cnn.model import CnnModel
from cropray.training.deep.tiles import ChannelStats, TileSet
from cropray.training.family import Fit, FitData, family
from cropray.training.temp_cnn.fit import scaled
from cropray.training.temp_cnn.pixels import PixelSet
from cropray.training.temp_cnn.served import _load_pyfunc
from cropray.training.temp_cnn.settings import TempCnnSettings
from tests.study import FEATURE_COLUMNS
from tests.synthetic import zone_arrays
from tests.training.small_fits import CLASSES, LOOKUP, N_CLASSES, STATS, Block

CPU = torch.device("cpu")
SMALL = TempCnnSettings(
    channels=8, hidden=16, epochs=4, batch_size=32, sampler={"name": "all", "n": 256}, learning_rate=5e-3
)

ATTENTION = SMALL.with_values(
    {"channels": TempCnnSettings().channels, "net": {"name": "ltae", "embedding": 16, "heads": 4}}
)


def zone(seed, shape=(16, 16)):
    return zone_arrays(shape, N_CLASSES, seed)


def table(seed):
    return pixel_table(zone(seed), f"zone-{seed}", "region")


def side(*seeds):
    tables = {f"zone-{seed}": table(seed) for seed in seeds}
    return FitData(tables, {name: rows.num_rows for name, rows in tables.items()})


def fit(folder, settings=SMALL, *, val=True, seed=3, **changes):
    folder.mkdir(exist_ok=True)
    job = Fit(
        settings=settings,
        train=side(0, 1),
        val=side(2) if val else None,
        classes=CLASSES,
        legend_hash="hash",
        mean=STATS.mean,
        std=STATS.std,
        seed=seed,
        folder=folder,
        **changes,
    )
    return family("temp_cnn").fit(job)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pixels_are_the_tiles_of_one_pixel():
    """The slow way: each labelled pixel as a tile of its own."""
    arrays = zone(0)
    row, col = np.nonzero(arrays.labels != 255)
    x = arrays.composite[:, :, row, col].transpose(2, 0, 1)[..., None, None]
    tiles = TileSet([Block(x, arrays.labels[row, col][:, None, None])], LOOKUP, STATS)
    pixels = PixelSet([table(0).slice(0, 9), table(0).slice(9)], LOOKUP, STATS, STUDY_CUBE)
    drawn = np.array([5, 0, len(pixels) - 1, 5])
    ours, theirs = pixels.batch(drawn, CPU), tiles.batch(drawn, CPU)
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.numbers.int(), theirs.numbers.int())
    assert pixels.class_counts(N_CLASSES).tolist() == tiles.class_counts(N_CLASSES).tolist()
    assert pixels.rarest_classes(N_CLASSES).tolist() == tiles.rarest_classes(N_CLASSES).tolist()
    assert len(pixels) == len(tiles)


def test_labels_that_are_no_class_are_named():
    strange = table(0).set_column(
        table(0).schema.get_field_index("label"), "label", pa.array([77] * len(table(0)), pa.uint8())
    )
    with pytest.raises(ValueError, match="none of the 4 classes"):
        PixelSet([strange], LOOKUP, STATS, STUDY_CUBE).class_counts(N_CLASSES)
    with pytest.raises(ValueError, match="there is no pixel"):
        PixelSet([], LOOKUP, STATS, STUDY_CUBE).batch(np.arange(0), CPU)


def test_the_same_seed_gives_the_same_model_and_it_learns(tmp_path):
    longer = SMALL.with_values({"epochs": 12})
    (first,), (again,) = (fit(tmp_path / name, longer) for name in ("a", "b"))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert first.history == again.history
    assert first.confusion.sum() == table(2).num_rows
    assert max(record["val_accuracy"] for record in first.history) > 0.8  # chance is about 0.3
    assert fit(tmp_path / "other", longer, seed=4)[0].history != first.history


def test_a_refit_runs_as_many_epochs_as_it_is_told(tmp_path):
    assert list(fit(tmp_path / "refit", val=False, n_steps=2)) == []
    card = json.loads((tmp_path / "refit" / "card.json").read_text())
    assert (card["kind"], card["net"], len(card["provenance"]["history"])) == ("temp_cnn", "temp_cnn", 2)


@pytest.mark.parametrize("settings", [SMALL, ATTENTION])
def test_rows_windows_and_a_served_model_agree(tmp_path, settings):
    (scored,) = fit(tmp_path, settings)
    model = load_model(tmp_path)
    assert (model.margin_px, model.stride_px, model.columns) == (0, 1, FEATURE_COLUMNS)
    assert (model.input_shape, model.output_shape) == ((-1, 48), (-1, N_CLASSES))
    rows = table(2)
    x = np.stack([rows[name].to_numpy() for name in FEATURE_COLUMNS], axis=1)
    probabilities = model.predict_samples(x)
    assert probabilities.shape == (len(x), N_CLASSES)
    assert model.predict_samples(x[:0]).shape == (0, N_CLASSES)
    hits = probabilities.argmax(1) == LOOKUP[rows["label"].to_numpy()]
    assert hits.sum() == np.trace(scored.confusion)
    image = model.predict_tiles(zone(2).composite[None])[0]
    assert np.allclose(image[:, rows["row"].to_numpy(), rows["col"].to_numpy()].T, probabilities, atol=1e-5)
    frame = pd.DataFrame(x, columns=FEATURE_COLUMNS).iloc[:, ::-1]
    served = _load_pyfunc(str(tmp_path)).predict(frame)
    assert list(served.columns) == [crop.name for crop in CLASSES]
    assert np.allclose(served.to_numpy(), probabilities, atol=1e-6)


def test_models_of_other_families_are_refused(tmp_path):
    fit(tmp_path)
    with pytest.raises(SchemaError, match=r"\('temp_cnn', 1\); needed: \('cnn', 1\)"):
        CnnModel.read(tmp_path, "cpu")


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_it_goes_on_after_a_loss_with_the_same_bits(tmp_path, monkeypatch, n_seeds):
    from cropray.training.deep import loop

    settings = SMALL.with_values({"n_seeds": n_seeds, "epochs": 3})
    through = fit(tmp_path / "through", settings)
    train_epoch, computed = loop.train_epoch, []

    def counted(*args):
        computed.append(args[-1])
        if len(computed) == 3 * n_seeds - 1:
            raise InterruptedError
        return train_epoch(*args)

    monkeypatch.setattr(loop, "train_epoch", counted)
    (tmp_path / "kept").mkdir()
    progress = tmp_path / "kept" / "progress.safetensors"
    with pytest.raises(InterruptedError):
        fit(tmp_path / "lost", settings, progress=progress)
    lost = len(computed)
    resumed = fit(tmp_path / "lost", settings, progress=progress)
    assert len(computed) - lost == 2  # it did not begin again
    assert [score.loss_sum for score in resumed] == [score.loss_sum for score in through]
    assert files(tmp_path / "lost") == files(tmp_path / "through")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["progress.safetensors"]


def test_several_seeds_answer_together(tmp_path):
    (three,) = fit(tmp_path / "3", SMALL.with_values({"n_seeds": 3}))
    alone = [fit(tmp_path / f"1-{n}", seed=3 + n * 2**16)[0] for n in range(3)]
    assert three.loss_sum not in {one.loss_sum for one in alone}
    assert three.step == round(np.mean([one.step for one in alone]))
    for number, record in enumerate(three.history):
        of_all = [one.history[number] for one in alone]
        assert record == pytest.approx({name: np.mean([each[name] for each in of_all]) for name in record})
    assert len(three.history) == len(alone[0].history)
    model = load_model(tmp_path / "3")
    rows = table(2)
    x = np.stack([rows[name].to_numpy() for name in FEATURE_COLUMNS], axis=1)
    probabilities, true = model.predict_samples(x), LOOKUP[rows["label"].to_numpy()]
    losses = -np.log(probabilities[np.arange(len(true)), true].astype(float))
    is_apart = np.isin(true, three.untrained)
    assert losses[~is_apart].sum() == pytest.approx(three.loss_sum, rel=1e-4)
    assert (probabilities.argmax(1) == true).sum() == np.trace(three.confusion)
    members = [model.checkpoint.model.members[i] for i in range(3)]
    assert len({tuple(member.classifier.bias.tolist()) for member in members}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weighting": "inverse"},
        {"sampler": {"name": "class_balanced", "n": 256}},
        {"augment": False},
        {"loss": "focal"},
    ],
    ids=str,
)
def test_recipes_change_the_fit(tmp_path, changes):
    short = SMALL.with_values({"epochs": 1})
    assert fit(tmp_path / "a", short)[0].history != fit(tmp_path / "b", short.with_values(changes))[0].history


def test_pixels_that_do_not_fit_into_memory_are_refused_before_they_are_read():
    assert SMALL.check(FitSize(1e6, 9, 48, 2e9)) == ""
    assert SMALL.check(FitSize(1e12, 9, 48, None)) == ""
    with pytest.raises(ConfigError, match=r"100,000,000 pixels take 20.4 GB .* raise temp_cnn.memory_gb"):
        SMALL.check(FitSize(1e8, 9, 48, 8e9))


def test_missing_numbers_are_seen_as_missing(tmp_path):
    fit(tmp_path)
    model = load_model(tmp_path)
    at_mean = np.full((1, 48), 1200, np.uint16)
    missing = at_mean.copy()
    missing[:, ::12] = 0
    assert isinstance(model.checkpoint.stats, ChannelStats)
    assert not np.allclose(model.predict_samples(at_mean), model.predict_samples(missing))


def clouded(share: float) -> Fit:
    """A fit on 500 drawn pixels of 12 months × 4 bands, the last of which never changes; some lie below clouds, some months are
    missing."""
    rng = np.random.default_rng(4)
    x = rng.normal(1000, 100, (500, 48))
    x[rng.random(x.shape) < share] = 8000
    x[:, 36:] = 700
    x[rng.random(x.shape) < 0.1] = 0
    columns = dict(zip(FEATURE_COLUMNS, x.astype(np.uint16).T, strict=True))
    halves = {
        zone_id: pa.table({name: values[half] for name, values in columns.items()})
        for zone_id, half in (("a", slice(0, 200)), ("b", slice(200, None)))
    }
    return Fit(
        settings=SMALL, train=FitData(halves, {}), val=None, classes=CLASSES, legend_hash="hash", mean=(1.0, 2.0, 3.0, 4.0),
        std=(5.0, 6.0, 7.0, 8.0), seed=0, folder=Path(), n_steps=1,
    )  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_robust_scaling_is_that_of_the_quartiles(share):
    job = clouded(share)
    found = scaled(job)
    rows = pa.concat_tables(job.train.blocks.values())
    for band in range(3):
        names = [name for name in FEATURE_COLUMNS if name.startswith(("B02", "B03", "B04", "B08")[band])]
        numbers = np.concatenate([rows[name].to_numpy() for name in names]).astype(float)
        low, middle, high = np.quantile(numbers[numbers > 0], [0.25, 0.5, 0.75], method="inverted_cdf")
        assert found.mean[band] == middle
        assert found.std[band] == pytest.approx((high - low) / 1.349)
        assert 90 < found.std[band] < 115  # of fields, with clouds or without
    assert (found.mean[3], found.std[3]) == (4.0, 8.0)  # a band that never changes has no quartiles to tell apart


def test_standard_scaling_is_what_the_manifest_says():
    job = clouded(0.05)
    plain = replace(job, settings=SMALL.with_values({"scaling": "standard"}))
    assert scaled(plain) is plain
