"""Scores are of the very predictor that makes the maps."""

import pickle
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import SchemaError
from cropray.core.legend import IGNORE
from cropray.core.metrics import confusion
from cropray.datasets.build import ZoneJob, band_sums, build_zone
from cropray.datasets.separation import Trim
from cropray.evaluation.models import kept_model, load_model, note_until
from cropray.evaluation.zone_counts import CountJob, count_points, count_zone_pixels
from cropray.imagery.composites import write_composite, write_n_obs
from cropray.io.workspace import Workspace
from cropray.maps.settings import MapSettings
from cropray.maps.zone import MapJob, map_zone
from cropray.training.family import family
from tests import synthetic
from tests.maps.builders import CLASSES, LEGEND, RULE, draw_image, field_labels, ruled, save_cnn, save_trees

LOOKUP = np.full(256, IGNORE, np.uint8)
LOOKUP[[crop.id for crop in CLASSES]] = np.arange(len(CLASSES))
WINDOW_PX = 36  # of 62: margins of 12 pixels on inner edges


@pytest.fixture
def scored(tmp_path):
    """(workspace, zone, its entry in a dataset whose tiles, of 16 pixels, end beyond the zone)."""
    workspace, zone = Workspace(tmp_path), synthetic.zone(size=62)
    composite, n_obs, fields = draw_image(62, 62)
    labels = field_labels(fields)
    labels[0, 0] = IGNORE  # the pixel that was never seen
    arrays = synthetic.ZoneArrays(composite, n_obs > 0, labels, np.arange(62**2, dtype=np.int32).reshape(62, 62) // 40)
    synthetic.write_artefacts(workspace, zone, arrays)
    x_min, _, _, y_max = zone.grid.bounds
    trim = Trim({"z-1/7"}, [(x_min, y_max - 55, x_min + 300, y_max + 10)])
    entry = build_zone(ZoneJob(zone, None, 16, LEGEND.names, trim, workspace))
    assert entry.n_trimmed > 100
    workspace.parcels(zone.zone_id).unlink()  # maps would need their outlines
    return workspace, zone, replace(entry, sums=band_sums(composite))  # of a test zone, which gives nothing up


@pytest.mark.parametrize("save", [save_cnn, save_trees])
@pytest.mark.parametrize("window_px", [WINDOW_PX, None])
@pytest.mark.parametrize("rule", [{}, RULE], ids=["likeliest", "rule"])
def test_the_cube_is_the_one_of_the_map(scored, save, window_px, rule):
    workspace, zone, entry = scored
    model, settings = load_model(ruled(save(workspace.model("m")), rule)), MapSettings(window_px=window_px)
    counts = count_zone_pixels(model, zone.zone_id, entry.sums, CountJob(workspace, LOOKUP, settings))
    map_zone(model, zone, MapJob("m", LEGEND, settings, workspace))
    with rasterio.open(workspace.map("m", zone.zone_id)) as dataset:
        mapped = dataset.read(1)
    table = pq.read_table(workspace.pixels(zone.zone_id))
    row, col, label = (table[name].to_numpy() for name in ("row", "col", "label"))
    np.testing.assert_array_equal(counts.matrix, confusion(LOOKUP[label], LOOKUP[mapped[row, col]], len(CLASSES)))
    assert counts.matrix.sum() == entry.n_labelled  # without the trimmed ones
    votes = {}
    for parcel, true, decided in zip(table["parcel"].to_pylist(), LOOKUP[label], LOOKUP[mapped[row, col]], strict=True):
        votes.setdefault((parcel, true), []).append(decided)
    of_parcels = np.zeros_like(counts.matrix)
    for (_, true), decided in votes.items():
        of_parcels[true, np.bincount(decided).argmax()] += 1
    np.testing.assert_array_equal(counts.otherwise["parcels"][0].sum(0), of_parcels)
    assert counts.otherwise["parcels"][:, :-1].sum() == 0  # their table, with their areas, is not there
    clear = np.bincount(table["n_clear"].to_numpy() // 3, minlength=5)
    assert counts.otherwise["clear_steps"].sum((1, 2)).tolist() == clear.tolist()
    if not rule:
        assert (counts.matrix.sum(0) > 0).sum() > 1  # the comparison is not trivial
    else:
        plain = load_model(save(workspace.model("plain")))
        without = count_zone_pixels(plain, zone.zone_id, entry.sums, CountJob(workspace, LOOKUP, settings))
        assert (without.matrix != counts.matrix).any()
        assert without.loss_sum != counts.loss_sum


def test_points_are_decided_on_as_maps_are(scored):
    workspace, zone, entry = scored
    model = load_model(ruled(save_trees(workspace.model("m")), RULE))
    job = CountJob(workspace, LOOKUP, MapSettings())
    of_points, of_map = count_points(model, zone.zone_id, job), count_zone_pixels(model, zone.zone_id, entry.sums, job)
    np.testing.assert_array_equal(of_points.matrix, of_map.matrix)
    assert of_points.loss_sum == pytest.approx(of_map.loss_sum, rel=1e-12)


def test_of_a_part_of_the_season_clear_steps_and_pixels_without_data_are_those_of_that_part(scored):
    workspace, zone, _ = scored
    composite, n_obs, fields = draw_image(62, 62)
    composite[:5, :, 30:33, 40] = n_obs[:5, 30:33, 40] = 0  # seen, but later
    arrays = synthetic.ZoneArrays(composite, n_obs > 0, field_labels(fields), np.zeros((62, 62), np.int32))
    synthetic.write_artefacts(workspace, zone, arrays, ["p"])
    entry = build_zone(ZoneJob(zone, None, 16, LEGEND.names, Trim(), workspace))
    save_trees(workspace.model("m"))
    note_until(workspace.model("m"), 5, load_model)
    model, job = load_model(workspace.model("m")), CountJob(workspace, LOOKUP, MapSettings())
    counts = count_zone_pixels(model, zone.zone_id, entry.sums, job)
    table = pq.read_table(workspace.pixels(zone.zone_id))
    row, col = (table[name].to_numpy() for name in ("row", "col"))
    clear = np.bincount((n_obs[:5, row, col] > 0).sum(0) // 3, minlength=5)
    assert counts.otherwise["clear_steps"].sum((1, 2)).tolist() == clear.tolist()
    assert counts.n_blank == 3
    of_points = count_points(model, zone.zone_id, job)
    with_data = np.bincount((composite[:5, :, row, col] > 0).any(1).sum(0) // 3, minlength=5)
    assert of_points.otherwise["clear_steps"].sum((1, 2)).tolist() == with_data.tolist()
    assert of_points.n_blank == 3
    write_n_obs(workspace.n_obs(zone.zone_id), n_obs[::-1].copy() * 0, zone.grid)
    with pytest.raises(SchemaError, match="is not what zone 'z-1' of the dataset was built from"):
        count_zone_pixels(model, zone.zone_id, entry.sums, job)


def test_what_surrounds_a_tile_counts(scored):
    """Tiles by themselves, as the dataset stores them, are another predictor than the map."""
    workspace, zone, entry = scored
    model = load_model(save_cnn(workspace.model("m")))
    job = CountJob(workspace, LOOKUP, MapSettings(window_px=WINDOW_PX))
    composite, _, _ = draw_image(62, 62)
    table = pq.read_table(workspace.pixels(zone.zone_id))
    row, col, label = (table[name].to_numpy() for name in ("row", "col", "label"))
    alone = np.empty((62, 62), int)
    for r in range(0, 62, 16):
        for c in range(0, 62, 16):
            tile = composite[None, :, :, r : r + 16, c : c + 16]
            alone[r : r + 16, c : c + 16] = model.predict_tiles(tile)[0].argmax(0)
    matrix = count_zone_pixels(model, zone.zone_id, entry.sums, job).matrix
    assert (matrix != confusion(LOOKUP[label], alone[row, col], len(CLASSES))).any()


def test_loss_and_decision_are_of_the_same_probabilities(scored):
    workspace, zone, entry = scored

    class Undecided:
        """Two classes are equally likely everywhere: the map and the cube take the first."""

        classes, margin_px, stride_px, bytes_per_px, cube = CLASSES, 0, 1, 1, STUDY_CUBE

        def predict_tiles(self, x):
            probabilities = np.zeros((1, len(CLASSES), *x.shape[-2:]), np.float32)
            probabilities[:, [1, 3]] = 0.5
            return probabilities

    counts = count_zone_pixels(Undecided(), zone.zone_id, entry.sums, CountJob(workspace, LOOKUP, MapSettings()))
    assert counts.matrix.sum() == counts.matrix[:, 1].sum()
    unlikely = counts.matrix[[0, 2, 4]].sum()
    assert counts.loss_sum == pytest.approx(
        (counts.matrix.sum() - unlikely) * np.log(2) + unlikely * -np.log(1e-16), rel=1e-6
    )
    map_zone(Undecided(), zone, MapJob("m", LEGEND, MapSettings(), workspace))
    with rasterio.open(workspace.map("m", zone.zone_id)) as dataset:
        assert set(np.unique(dataset.read(1))) == {CLASSES[1].id, IGNORE}


def test_labelled_pixels_without_data_are_counted_and_told(scored):
    workspace, zone, _ = scored
    composite, n_obs, fields = draw_image(62, 62)
    composite[:, :, 30:33, 40] = 0
    arrays = synthetic.ZoneArrays(composite, n_obs > 0, field_labels(fields), np.zeros((62, 62), np.int32))
    synthetic.write_artefacts(workspace, zone, arrays, ["p"])
    entry = build_zone(ZoneJob(zone, None, 16, LEGEND.names, Trim(), workspace))
    model = load_model(save_trees(workspace.model("m")))
    counts = count_zone_pixels(model, zone.zone_id, entry.sums, CountJob(workspace, LOOKUP, MapSettings()))
    assert counts.n_blank == 3
    assert counts.matrix.sum() == entry.n_labelled


def brighter(composite):
    """Only where no label is: rows beside the labelled ones."""
    composite[3, 1, 20, :3] += 1


def shifted(composite):
    """The sums stay."""
    composite[:] = np.roll(composite, 1, -1)


def smaller(composite):
    return composite[..., :50, :]


@pytest.mark.parametrize(
    ("change", "why"),
    [(brighter, "sums over all pixels"), (shifted, "labelled pixels have other values"), (smaller, "lie beyond them")],
)
def test_another_composite_than_the_dataset_s_is_refused(scored, change, why):
    workspace, zone, entry = scored
    composite, _, _ = draw_image(62, 62)
    changed = change(composite)
    composite = composite if changed is None else changed
    grid = replace(zone.grid, height=composite.shape[-2])
    write_composite(workspace.composite(zone.zone_id), composite, grid)
    model = load_model(save_trees(workspace.model("m")))
    with pytest.raises(SchemaError, match=rf"z-1.*{why}.*Run `cropray dataset"):
        count_zone_pixels(model, zone.zone_id, entry.sums, CountJob(workspace, LOOKUP, MapSettings()))


def test_points_are_rows(scored):
    workspace, zone, entry = scored
    model, job = load_model(save_trees(workspace.model("m"))), CountJob(workspace, LOOKUP, MapSettings())
    points, pixels = count_points(model, zone.zone_id, job), count_zone_pixels(model, zone.zone_id, entry.sums, job)
    np.testing.assert_array_equal(points.matrix, pixels.matrix)  # trees look at a pixel alone
    assert points.loss_sum == pytest.approx(pixels.loss_sum)
    assert points.window is None


def test_a_process_reads_a_model_once_and_a_changed_one_again(tmp_path):
    folder, load = save_trees(tmp_path / "m"), family("xgboost").load
    first = kept_model(load, folder, "first")
    assert kept_model(load, folder, "first") is first
    save_trees(folder, seed=1)
    assert kept_model(load, folder, "second") is not first


def test_a_zone_s_job_is_small(tmp_path):
    assert len(pickle.dumps(CountJob(Workspace(tmp_path), LOOKUP, MapSettings()))) < 2000
