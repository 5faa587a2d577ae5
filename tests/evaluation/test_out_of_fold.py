"""Out-of-fold probabilities: of the prediction that scores count, for pixels that depend on zone and seed alone."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from cropray.core.errors import LeakageError, SchemaError
from cropray.core.metrics import confusion, log_loss_sum
from cropray.datasets.storage import read_pixels
from cropray.evaluation import out_of_fold, zone_counts
from cropray.evaluation.models import load_model
from cropray.evaluation.out_of_fold import (
    combine_out_of_fold,
    draw_rows,
    read_out_of_fold,
    read_out_of_fold_of_zone,
    write_out_of_fold,
)
from cropray.evaluation.zone_counts import CountJob, count_points, count_zone_pixels
from cropray.maps.settings import MapSettings
from tests.evaluation.test_zone_counts import LOOKUP, WINDOW_PX, scored  # noqa: F401  a fixture
from tests.maps.builders import CLASSES, save_cnn, save_trees

ALL = 10_000


def written(folder, model, entry, job, picked=(ALL, 0), is_points=False):
    path = folder / "oof" / "m" / f"{picked}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_out_of_fold(path, model, entry, job, picked, is_points=is_points)
    return path


@pytest.mark.parametrize("save", [save_cnn, save_trees])
def test_they_are_what_scores_count(scored, tmp_path, save):  # noqa: F811
    workspace, zone, entry = scored
    model, job = load_model(save(workspace.model("m"))), CountJob(workspace, LOOKUP, MapSettings(window_px=WINDOW_PX))
    path = written(tmp_path, model, entry, job)
    true, probabilities, zones = read_out_of_fold([path])
    counts = count_zone_pixels(model, zone.zone_id, entry.sums, job)
    np.testing.assert_array_equal(confusion(true, probabilities.argmax(1), len(CLASSES)), counts.matrix)
    assert log_loss_sum(probabilities, true) == pytest.approx(counts.loss_sum, rel=1e-12)
    assert set(zones) == {zone.zone_id}
    metadata = pq.read_schema(path).metadata
    assert json.loads(metadata[b"classes"]) == [crop.name for crop in CLASSES]


def test_pixels_of_trimmed_labels_are_no_part_of_the_sums(scored, tmp_path):  # noqa: F811
    workspace, _, entry = scored
    model, job = load_model(save_trees(workspace.model("m"))), CountJob(workspace, LOOKUP, MapSettings())
    other = replace(entry, sums=replace(entry.sums, count=tuple(n - 3 for n in entry.sums.count)), n_trimmed=0)
    with pytest.raises(SchemaError, match="sums over all pixels"):
        written(tmp_path / "all", model, other, job)
    assert written(tmp_path / "trimmed", model, replace(other, n_trimmed=3), job).exists()


@pytest.mark.parametrize("is_points", [True, False])
def test_the_pixel_table_is_read_once(scored, tmp_path, monkeypatch, is_points):  # noqa: F811
    workspace, _, entry = scored
    read = []

    def reading(*args):
        read.append(args)
        return read_pixels(*args)

    for each in (out_of_fold, zone_counts):
        monkeypatch.setattr(each, "read_pixels", reading)
    model, job = load_model(save_trees(workspace.model("m"))), CountJob(workspace, LOOKUP, MapSettings())
    written(tmp_path, model, entry, job, is_points=is_points)
    assert len(read) == 1


def test_points_have_them_too(scored, tmp_path):  # noqa: F811
    workspace, zone, entry = scored
    model, job = load_model(save_trees(workspace.model("m"))), CountJob(workspace, LOOKUP, MapSettings())
    true, probabilities, _ = read_out_of_fold([written(tmp_path, model, entry, job, is_points=True)])
    counts = count_points(model, zone.zone_id, job)
    np.testing.assert_array_equal(confusion(true, probabilities.argmax(1), len(CLASSES)), counts.matrix)


def test_every_model_gets_the_same_pixels(scored, tmp_path):  # noqa: F811
    """A stack compares what two models say of one pixel."""
    workspace, zone, entry = scored
    job = CountJob(workspace, LOOKUP, MapSettings())
    paths = [
        written(tmp_path / name, load_model(save(workspace.model(name))), entry, job, (7, 3))
        for name, save in (("cnn", save_cnn), ("trees", save_trees))
    ]
    one, other = (pq.read_table(path) for path in paths)
    assert one["index"].equals(other["index"])
    assert one["label"].equals(other["label"])
    table = read_pixels(workspace, zone.zone_id)
    np.testing.assert_array_equal(one["label"].to_numpy(), LOOKUP[table["label"].to_numpy()[one["index"].to_numpy()]])
    n = Counter(LOOKUP[table["label"].to_numpy()].tolist())
    assert Counter(one["label"].to_pylist()) == {label: min(count, 7) for label, count in n.items()}


def test_rows_are_drawn_by_class_zone_and_seed():
    true = np.repeat(np.array([0, 2, 3], np.uint8), [1000, 5, 50])
    drawn = draw_rows(true, "a", 20, 0)
    assert (np.diff(drawn) > 0).all()
    assert np.bincount(true[drawn]).tolist() == [20, 0, 5, 20]
    np.testing.assert_array_equal(drawn, draw_rows(true, "a", 20, 0))
    for zone_id, seed in (("b", 0), ("a", 1)):
        assert set(draw_rows(true, zone_id, 20, seed)) != set(drawn)
    share = np.mean([np.isin(np.arange(1000), draw_rows(true, f"z{i}", 20, 0)) for i in range(500)], axis=0)
    assert share.mean() == pytest.approx(0.02)
    assert share.max() < 0.06  # no row is preferred: 6 standard deviations
    assert len(draw_rows(true[:0], "a", 20, 0)) == 0


def test_a_model_that_is_built_from_others_is_combined_pixel_by_pixel(scored, tmp_path):  # noqa: F811
    workspace, _, entry = scored
    job = CountJob(workspace, LOOKUP, MapSettings())
    models = [load_model(save(workspace.model(save.__name__))) for save in (save_cnn, save_trees)]
    files = [written(tmp_path / str(i), model, entry, job, (9, 0)) for i, model in enumerate(models)]
    path = tmp_path / "combined.parquet"
    combine_out_of_fold(path, files, lambda parts: 0.25 * parts[0] + 0.75 * parts[1])
    tables = [pq.read_table(file) for file in (*files, path)]
    assert tables[2].schema.equals(tables[0].schema, check_metadata=True)
    assert tables[2].drop(["probabilities"]).equals(tables[0].drop(["probabilities"]))
    one, other, both = (read_out_of_fold([file])[1] for file in (*files, path))
    np.testing.assert_array_equal(both, 0.25 * one + 0.75 * other)
    for strange in (written(tmp_path / "rows", models[1], entry, job, (9, 1)), _of_other_classes(files[1], tmp_path)):
        with pytest.raises(SchemaError, match="other pixels, or other classes"):
            combine_out_of_fold(path, [files[0], strange], lambda parts: parts[0])


def test_a_file_of_another_zone_teaches_nobody(scored, tmp_path):  # noqa: F811
    """As of a test zone's, which lies under a training zone's name."""
    workspace, zone, entry = scored
    job = CountJob(workspace, LOOKUP, MapSettings())
    path = written(tmp_path, load_model(save_trees(workspace.model("m"))), entry, job)
    right, wrong = path.with_stem(zone.zone_id), path.with_stem("k2")
    for place in (right, wrong):
        shutil.copy(path, place)
    np.testing.assert_array_equal(read_out_of_fold_of_zone(right)[1], read_out_of_fold([path])[1])
    with pytest.raises(LeakageError, match=f"k2.*holds predictions of zone {zone.zone_id}"):
        read_out_of_fold_of_zone(wrong)


def _of_other_classes(file, folder):
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({b"classes": b'["a"]'}), folder / "classes.parquet")
    return folder / "classes.parquet"
