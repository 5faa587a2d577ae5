"""How hard the landscape is: a plain forest on plain composites, trained and tested on different zones."""

import warnings

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine
from rasterio.features import rasterize

from cropray.core.legend import IGNORE, bundled_legend
from cropray.io.zones import read_zones
from cropray.landscape.draw import draw_landscape
from cropray.landscape.settings import LandscapeSettings

ensemble = pytest.importorskip("sklearn.ensemble")
metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture(scope="module")
def land(tmp_path_factory):
    return draw_landscape(LandscapeSettings(), tmp_path_factory.mktemp("drawn") / "landscape", n_processes=2)


def monthly_medians(folder, grid):
    """[12, 4, H, W] float with NaN where a month has no clear observation."""
    stacks = [[] for _ in range(12)]
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as scene:
            window = rasterio.windows.from_bounds(*grid.bounds, scene.transform).round_offsets().round_lengths()
            bands = scene.read(window=window).astype(float)
        clear = (bands[4] >= 4) & (bands[4] <= 7)
        stacks[int(path.stem.split("_")[-1][4:6]) - 1].append(np.where(clear, bands[:4], np.nan))
    empty = [np.full((4, *grid.shape), np.nan)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.stack([np.nanmedian(stack or empty, axis=0) for stack in stacks])


def labelled_pixels(land, zone, parcels):
    ids = bundled_legend().class_id_of_code(2023)
    local = parcels.to_crs(zone.grid.epsg)
    shapes = [(shape, ids.get(code, IGNORE)) for shape, code in zip(local.geometry, local.CODE_CULTU, strict=True)]
    labels = rasterize(shapes, zone.grid.shape, IGNORE, transform=Affine(*zone.grid.transform), dtype="uint8")
    pixels = monthly_medians(land.scenes / zone.region, zone.grid).reshape(48, -1).T
    is_labelled = labels.ravel() != IGNORE
    return pixels[is_labelled], labels.ravel()[is_labelled]


@pytest.mark.slow
def test_new_zones_are_neither_easy_nor_hopeless(land):
    parcels = pyogrio.read_dataframe(land.parcels)
    blocks = {"train": [], "test": []}
    for zone in read_zones(land.zones):
        blocks[zone.split].append(labelled_pixels(land, zone, parcels))
    (x_train, y_train), (x_test, y_test) = (
        tuple(np.concatenate(part) for part in zip(*blocks[split], strict=True)) for split in ("train", "test")
    )
    assert set(y_test) <= set(y_train)
    assert 16 <= len(set(y_train)) <= 20
    counts = np.bincount(y_train)
    assert counts.max() > 15 * counts[counts > 0].min()
    assert 0.03 < np.isnan(x_train).mean() < 0.25  # pixel-months without a clear observation
    forest = ensemble.RandomForestClassifier(50, min_samples_leaf=3, n_jobs=2, random_state=0)
    predicted = forest.fit(np.nan_to_num(x_train), y_train).predict(np.nan_to_num(x_test))
    accuracy = metrics.accuracy_score(y_test, predicted)
    macro_f1 = metrics.f1_score(y_test, predicted, average="macro", labels=sorted(set(y_test)))
    assert 0.75 < accuracy < 0.92
    assert 0.45 < macro_f1 < accuracy - 0.08
