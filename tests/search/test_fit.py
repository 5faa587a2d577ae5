"""One unit: what a refit repeats of its folds, and what a fold's result holds."""

import json

import pytest

from cropray.search.fit import SearchData, fit_unit
from cropray.search.space import Unit
from cropray.training.settings import CnnPoint, CnnSettings
from tests.synthetic import entry, manifest
from tests.training.small_fits import LOOKUP, N_CLASSES, block

NAMES = tuple(f"crop {i}" for i in range(N_CLASSES))
CNN = CnnSettings(temporal_channels=8, unet_channels=(8, 8), batch_size=8, epochs=6, patience=6)
POINT = CnnPoint(learning_rate=3e-3, kernel_size=3)


def zones(**folds):
    """Training zones in folds, with as many pixels of each class as their tiles hold."""
    tiles = {zone_id: block(seed) for seed, zone_id in enumerate(folds)}
    counts = {z: {name: int((b.labels == i).sum()) for i, name in enumerate(NAMES)} for z, b in tiles.items()}
    entries = [entry(z, fold, counts[z], n_tiles=len(tiles[z].x)) for z, fold in folds.items()]
    return tiles, manifest(*entries, names=NAMES)


def history_of(unit, folder, settings):
    """Losses and rates of a CNN unit that is trained on both zones."""
    tiles, of_zones = zones(a=0, b=0)
    assert (of_zones.lookup() == LOOKUP).all()
    folder.mkdir()
    fit_unit(unit, folder, SearchData(of_zones, settings, tiles, 3))
    return json.loads((folder / "card.json").read_text())["provenance"]["history"]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_refit_repeats_the_epochs_of_the_folds(tmp_path, schedule):
    """Were the schedule squeezed into the refit's epochs, its last rate would be nearly nothing."""
    settings = CNN.model_copy(update={"schedule": schedule})
    of_fold = history_of(Unit("cnn", POINT, fold=1), tmp_path / "fold", settings)
    of_refit = history_of(Unit("cnn", POINT, None, n_epochs=2), tmp_path / "refit", settings)
    assert len(of_fold) == 6
    assert of_refit == of_fold[:2]
