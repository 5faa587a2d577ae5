"""Breaches of the evaluation rules, planted on purpose: each must be seen.

The first error of the original study was to set every pixel outside a parcel to 0 before training and to score the
background as a class. The tests plant it, show that it lifts the score, and that the check of the inputs finds it.
"""

import dataclasses

import numpy as np
import pytest
import xgboost as xgb

from cropray.config import JobConfig
from cropray.core.legend import IGNORE
from cropray.core.metrics import confusion, score
from cropray.datasets.build import read_zone_arrays
from cropray.datasets.manifest import load_manifest
from cropray.datasets.pixels import pixel_table
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.datasets.tiles import cut_tiles
from cropray.io.job_file import load_settings
from cropray.io.zones import read_zones
from cropray.training.pixel_blocks import features

pytestmark = [pytest.mark.slow, pytest.mark.ray]
BACKGROUND = 254  # no class of the legend


@pytest.fixture(scope="module")
def zones(finished):
    """(zone, arrays) of every zone of the finished job."""
    job = load_settings(JobConfig, finished)
    return [(zone, read_zone_arrays(zone, job.artefacts)) for zone in read_zones(job.zone_table)]


def masked_by_labels(arrays):
    """The study's leak: nothing is left of the image outside the parcels, and the background is a class."""
    outside = arrays.labels == IGNORE
    return dataclasses.replace(
        arrays,
        composite=np.where(outside, 0, arrays.composite).astype(np.uint16),
        labels=np.where(outside, BACKGROUND, arrays.labels).astype(np.uint8),
    )


def inputs_equal_the_image(arrays, tiles, table):
    """Whether tiles and pixel features are the composite itself, wherever they lie."""
    size = tiles.x.shape[-1]
    height, width = arrays.labels.shape
    padded = np.pad(arrays.composite, ((0, 0), (0, 0), (0, -height % size), (0, -width % size)))
    windows = [padded[..., r : r + size, c : c + size] for r, c in zip(tiles.row, tiles.col, strict=True)]
    row, col = table["row"].to_numpy(), table["col"].to_numpy()
    pixels = arrays.composite[:, :, row, col].transpose(2, 1, 0).reshape(len(row), -1)
    return np.array_equal(np.stack(windows), tiles.x) and np.array_equal(pixels, features(table))


def test_scores(zones):
    """Accuracy of the same trees on the same zones, with and without the leak."""

    def accuracy(change):
        tables = [(zone.split, pixel_table(change(arrays), zone.zone_id, zone.region)) for zone, arrays in zones]
        x, y = {}, {}
        for split in ("train", "test"):
            x[split] = np.concatenate([features(table) for which, table in tables if which == split])
            y[split] = np.concatenate([table["label"].to_numpy() for which, table in tables if which == split])
        ids = np.unique(np.concatenate([y["train"], y["test"]]))
        index = {split: np.searchsorted(ids, labels) for split, labels in y.items()}
        parameters = {"objective": "multi:softmax", "num_class": len(ids), "max_depth": 4, "seed": 0, "nthread": 2}
        booster = xgb.train(parameters, xgb.DMatrix(x["train"], index["train"]), 15)
        return score(confusion(index["test"], booster.predict(xgb.DMatrix(x["test"])), len(ids))).accuracy

    honest, leaked = accuracy(lambda arrays: arrays), accuracy(masked_by_labels)
    # About a quarter of the pixels become trivially right; without the leak the gain would be within noise.
    assert leaked > honest + 0.05


def test_what_is_stored_is_the_image(finished, zones):
    job = load_settings(JobConfig, finished)
    for zone, arrays in zones:
        tiles = read_tiles(job.artefacts, zone.zone_id, job.dataset.tile_size)
        assert inputs_equal_the_image(arrays, tiles, read_pixels(job.artefacts, zone.zone_id))


def test_the_check_sees_the_leak(zones):
    zone, arrays = zones[0]
    leaky = masked_by_labels(arrays)
    assert not inputs_equal_the_image(arrays, cut_tiles(leaky, 16), pixel_table(leaky, zone.zone_id, zone.region))


def test_background_is_no_class_and_is_never_scored(finished):
    workspace = load_settings(JobConfig, finished).artefacts
    manifest = load_manifest(workspace.manifest)
    assert IGNORE not in [crop.id for crop in manifest.classes]
    for zone in manifest.of_split("test"):
        labels = read_tiles(workspace, zone.zone_id, manifest.tile_size).labels
        assert zone.n_labelled == (labels != IGNORE).sum() < labels.size
