"""One zone from artefacts to files, and the files themselves."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image

from cropray.core.errors import InputError, MissingArtefactError
from cropray.core.grid import Grid
from cropray.core.legend import IGNORE
from cropray.evaluation.models import load_model
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.maps.cog import BANDS
from cropray.maps.predict import ZoneMap, predict_zone
from cropray.maps.preview import PreviewData, agreement, natural_colours, paint
from cropray.maps.settings import MapSettings
from cropray.maps.zone import MapJob, map_zone
from tests.maps.builders import CLASSES, LEGEND, draw_image, draw_parcels, field_labels, save_trees, write_zone

GRID = Grid(32631, 500_040.0, 5_400_000.0, 50, 61)
ZONE = Zone("beauce-1", "beauce", "test", GRID)


@pytest.fixture
def job(tmp_path):
    return MapJob("xgboost", LEGEND, MapSettings(), Workspace(tmp_path))


@pytest.fixture
def model(tmp_path):
    return load_model(save_trees(tmp_path / "model"))


def write_raster(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "height": 50, "width": 61, "dtype": values.dtype, "crs": "EPSG:32631"}
    with rasterio.open(path, "w", transform=rasterio.Affine(*GRID.transform), **profile) as dataset:
        dataset.write(values, 1)


def read_map(path):
    with rasterio.open(path) as dataset:
        return ZoneMap(*dataset.read())


def test_a_zone_without_labels_or_parcels_is_mapped(job, model):
    composite, n_obs, _ = draw_image()
    write_zone(job.workspace, ZONE, composite, n_obs)
    assert map_zone(model, ZONE, job) == (50, 61)
    class_id = read_map(job.workspace.map("xgboost", "beauce-1")).class_id
    assert (class_id == IGNORE).sum() == 1
    assert set(class_id.ravel()) - {IGNORE} <= {crop.id for crop in CLASSES}
    assert not job.workspace.mapped_parcels("xgboost", "beauce-1").exists()


def test_the_map_is_a_valid_cog_in_the_zone_grid(job, model):
    composite, n_obs, _ = draw_image()
    write_zone(job.workspace, ZONE, composite, n_obs)
    map_zone(model, ZONE, job)
    path = job.workspace.map("xgboost", "beauce-1")
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.descriptions == BANDS
        assert (dataset.dtypes, dataset.nodata, dataset.crs.to_epsg()) == (("uint8",) * 4, 255, 32631)
        assert tuple(dataset.transform)[:6] == GRID.transform
        assert dataset.tags()["CROPRAY_MODEL"] == "xgboost"
        assert '"WinterWheat"' in dataset.tags()["CROPRAY_CLASSES"]
    expected = predict_zone(model, composite, n_obs, (512, 512))
    for name in ("class_id", "confidence", "second_id", "n_clear"):
        np.testing.assert_array_equal(getattr(read_map(path), name), getattr(expected, name))


def test_parcels_get_their_predicted_crop(job, model):
    composite, n_obs, fields = draw_image()
    write_zone(job.workspace, ZONE, composite, n_obs)
    labels = field_labels(fields)
    parcels = draw_parcels(GRID, labels)
    write_raster(job.workspace.labels("beauce-1"), labels)
    write_raster(job.workspace.parcel_index("beauce-1"), parcels.index)
    job.workspace.parcels("beauce-1").parent.mkdir()
    parcels.table.to_parquet(job.workspace.parcels("beauce-1"))
    map_zone(model, ZONE, job)
    table = gpd.read_parquet(job.workspace.mapped_parcels("xgboost", "beauce-1"))
    assert (table["n_pixels"] > 0).sum() == len(table) == 5 * 7
    assert table["n_pixels"].sum() == 50 * 61 - 1
    assert table.crs.to_epsg() == 32631
    with Image.open(job.workspace.map_preview("xgboost", "beauce-1")) as preview:
        assert preview.width > 1000


def test_a_zone_without_composite_is_refused(job, model):
    with pytest.raises(MissingArtefactError, match="run `cropray acquire"):
        map_zone(model, ZONE, job)


def test_images_of_where_the_zone_was_are_not_mapped_where_it_is(job, model):
    composite, n_obs, _ = draw_image()
    write_zone(job.workspace, ZONE, composite, n_obs)
    moved = Zone("beauce-1", "beauce", "test", Grid(32631, 500_640.0, 5_400_000.0, 50, 61))
    with pytest.raises(InputError, match=r"within \(500040\.0, .* the zone table has changed; run `cropray acquire"):
        map_zone(model, moved, job)


def preview_data(model, labels):
    composite, n_obs, _ = draw_image()
    return PreviewData("beauce-1", composite, n_obs, labels, predict_zone(model, composite, n_obs, (512, 512)), CLASSES)


def test_agreement_counts_labelled_and_predicted_pixels(model):
    data = preview_data(model, None)
    assert agreement(data) == ""
    labels = data.zone_map.class_id.copy()
    labels[10:20, 10:20] = CLASSES[0].id
    labels[:5] = IGNORE
    n = 45 * 61
    right = n - (data.zone_map.class_id[10:20, 10:20] != CLASSES[0].id).sum()
    assert agreement(preview_data(model, labels)) == f"{right / n:.1%} of {n:,} labelled pixels agree"
    assert agreement(preview_data(model, np.full_like(labels, IGNORE))) == ""


def test_the_image_is_the_best_observed_month():
    composite, n_obs, _ = draw_image()
    n_obs[:] = 0
    n_obs[6] = 1
    composite[6, 2] = np.arange(50 * 61).reshape(50, 61) + 1  # red rises over the image
    image = natural_colours(composite, n_obs)
    assert image.shape == (50, 61, 3)
    assert (np.diff(image[:, :, 0].ravel()) >= 0).all()
    assert (image[0, 0, 0], image[-1, -1, 0]) == (0, 1)


def test_classes_are_painted_in_their_colours():
    image = paint(np.array([[CLASSES[2].id, IGNORE]], np.uint8), CLASSES)
    assert "#" + "".join(f"{round(255 * value):02x}" for value in image[0, 0]) == CLASSES[2].colour
    assert tuple(image[0, 1]) != tuple(image[0, 0])
