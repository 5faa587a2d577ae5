"""One unit: what a refit repeats of its folds, and what a fold's result holds."""

import json
from collections import Counter

import pytest

from cropray.search.fit import SearchData, fit_unit
from cropray.search.space import Trial, Unit
from cropray.training.cnn.settings import CnnSettings
from cropray.training.family import family
from cropray.training.xgboost.settings import XgboostSettings
from tests.synthetic import entry, manifest
from tests.training.small_fits import LOOKUP, N_CLASSES, block
from tests.training.tree_rows import LEGEND, draw_rows

NAMES = tuple(f"crop {i}" for i in range(N_CLASSES))
CNN = CnnSettings(temporal_channels=8, unet_channels=(8, 8), batch_size=8, epochs=6, patience=6)
POINT = Trial({"learning_rate": 3e-3, "kernel_size": 3})


def zones(**folds):
    """Training zones `<region>_<number>` in folds, with as many pixels of each class as their tiles hold."""
    tiles = {zone_id: block(seed) for seed, zone_id in enumerate(folds)}
    counts = {z: {name: int((b.labels == i).sum()) for i, name in enumerate(NAMES)} for z, b in tiles.items()}
    entries = [entry(z, fold, counts[z], n_tiles=len(tiles[z].x), region=z[:1]) for z, fold in folds.items()]
    return tiles, manifest(*entries, names=NAMES)


def history_of(unit, folder, settings):
    """Losses and rates of a CNN unit that is trained on both zones."""
    tiles, of_zones = zones(a=0, b=0)
    assert (of_zones.lookup() == LOOKUP).all()
    folder.mkdir()
    fit_unit(unit, folder, SearchData(family("cnn"), of_zones, settings, tiles, 3))
    return json.loads((folder / "card.json").read_text())["provenance"]["history"]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_refit_repeats_the_epochs_of_the_folds(tmp_path, schedule):
    """Were the schedule squeezed into the refit's epochs, its last rate would be nearly nothing."""
    settings = CNN.model_copy(update={"schedule": schedule})
    of_fold = history_of(Unit("cnn", POINT, fold=1), tmp_path / "fold", settings)
    of_refit = history_of(Unit("cnn", POINT, None, n_steps=2), tmp_path / "refit", settings)
    assert len(of_fold) == 6
    assert of_refit == of_fold[:2]


REGIONS = {"a_1": 0, "a_2": 1, "b_1": 1, "b_2": 0}


def test_a_region_is_scored_by_a_fit_that_saw_none_of_it(tmp_path):
    tiles, of_zones = zones(**REGIONS)
    unit = Unit("cnn", POINT, None, n_steps=2, region="b")
    (result,) = fit_unit(unit, tmp_path, SearchData(family("cnn"), of_zones, CNN, tiles, 3))
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["provenance"]["training_zones"] == ["a_1", "a_2"]
    assert (result.fold, result.best_step, len(result.history)) == (1, 2, 2)
    assert result.matrix.sum(1).tolist() == of_zones.class_counts(["b_1", "b_2"]).tolist()
    # Validation chose nothing: the steps are those of a refit on the same zones.
    alone = of_zones.__class__(**{f: getattr(of_zones, f) for f in of_zones.__slots__} | {"zones": of_zones.zones[:2]})
    (tmp_path / "refit").mkdir()
    fit_unit(Unit("cnn", POINT, None, n_steps=2), tmp_path / "refit", SearchData(family("cnn"), alone, CNN, tiles, 3))
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (tmp_path, tmp_path / "refit")]
    assert weights[0] == weights[1]


def test_trees_without_a_region(tmp_path):
    _, of_zones = zones(**REGIONS)
    rows = {z: draw_rows(i, of_zones.labelled([z])[z]) for i, z in enumerate(REGIONS)}
    counts = {z: Counter(LEGEND.names[label] for label in rows[z]["label"].to_pylist()) for z in REGIONS}
    four = manifest(*(entry(z, fold, counts[z], region=z[:1]) for z, fold in REGIONS.items()), names=LEGEND.names)
    data = SearchData(family("xgboost"), four, XgboostSettings(max_depth=2), rows, 0)
    (result,) = fit_unit(Unit("xgboost", Trial({"learning_rate": 0.3}, (3,)), None, region="a"), tmp_path, data)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["provenance"]["zones"] == ["b_1", "b_2"]
    assert (result.fold, result.best_step) == (0, 3)
    assert result.matrix.sum() == rows["a_1"].num_rows + rows["a_2"].num_rows
    assert fit_unit(Unit("xgboost", Trial({"learning_rate": 0.3}, (3,)), None), tmp_path, data) == ()
