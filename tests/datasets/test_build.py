"""One zone from rasters to pixel table, shards and manifest entry."""

import dataclasses

import numpy as np
import pytest

from cropray.core.errors import InputError, MissingArtefactError
from cropray.core.legend import IGNORE
from cropray.datasets.build import ZoneJob, band_sums, build_zone, count_zone, read_zone_arrays
from cropray.datasets.manifest import statistics
from cropray.datasets.pixels import pixel_table
from cropray.datasets.separation import Trim, separate
from cropray.datasets.storage import read_pixels, read_tiles
from cropray.datasets.tiles import cut_tiles
from cropray.io.storage import file_hash
from cropray.io.workspace import Workspace
from tests.oracles import stitch_labels
from tests.study import N_BANDS
from tests.synthetic import manifest, write_artefacts, zone, zone_arrays

NAMES = ("wheat", "maize", "hops", "flax")
SIZE = 40  # px


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def draw(workspace, zone_id="z-1", seed=0, parcel_ids=None, arrays=None, **kwargs):
    """A zone on disk, and its arrays."""
    small = zone(zone_id, size=SIZE, **kwargs)
    arrays = arrays or zone_arrays((SIZE, SIZE), seed=seed)
    write_artefacts(workspace, small, arrays, parcel_ids)
    return small, arrays


def build(workspace, small, trim=None, fold=0):
    return build_zone(ZoneJob(small, fold, 16, NAMES, trim or Trim(), workspace))


def test_arrays_read_back_from_the_earlier_stages(workspace):
    small, arrays = draw(workspace)
    back = read_zone_arrays(small, workspace)
    for field in dataclasses.fields(arrays):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(arrays, field.name), err_msg=field.name)


def test_what_a_zone_becomes(workspace):
    small, arrays = draw(workspace)
    entry = build(workspace, small)
    assert read_pixels(workspace, "z-1").equals(pixel_table(arrays, "z-1", "north"))
    tiles = read_tiles(workspace, "z-1", 16)
    np.testing.assert_array_equal(tiles.x, cut_tiles(arrays, 16).x)
    np.testing.assert_array_equal(stitch_labels(tiles, (SIZE, SIZE)), arrays.labels)
    assert (entry.zone_id, entry.region, entry.split, entry.fold) == ("z-1", "north", "train", 0)
    assert entry.counts == {NAMES[i]: int((arrays.labels == i).sum()) for i in np.unique(arrays.labels) if i != IGNORE}
    assert entry.n_labelled == (arrays.labels != IGNORE).sum() == len(read_pixels(workspace, "z-1"))
    assert entry.sums == band_sums(arrays.composite)
    assert (entry.n_tiles, entry.n_trimmed) == (9, 0)  # ⌈40 / 16⌉² tiles
    assert set(entry.files) == {"pixels/zone_id=z-1/part-0.parquet", "tiles/zone_id=z-1/shard-0000.parquet"}
    assert all(file_hash(workspace.dataset / name) == digest for name, digest in entry.files.items())


def test_what_a_zone_gives_away_leaves_its_statistics(workspace):
    # Level 900 everywhere but in the western columns and in two parcels, which the zone gives away, labelled or not.
    arrays = zone_arrays((SIZE, SIZE), seed=3)
    west, parcels = np.zeros((SIZE, SIZE), bool), (arrays.parcels == 21) | (arrays.parcels == 33)
    west[:, :6] = True
    arrays.composite[:] = np.where(west, 8000, np.where(parcels, 4000, 900))
    arrays.composite[4, :, 30:35] = 0
    small, _ = draw(workspace, arrays=arrays, parcel_ids=[f"p{i}" for i in range(34)])
    x_min, y_min, _, y_max = small.grid.bounds
    trim = Trim({"p21", "p33"}, [(x_min - 500, y_min - 500, x_min + 60, y_max + 500)])
    mean, deviation = statistics(build(workspace, small, trim).sums)
    np.testing.assert_array_equal(mean, 900)
    np.testing.assert_array_equal(deviation, 1)  # none
    kept = ~(west | parcels)
    n_seen = 12 * kept.sum() - kept[30:35].sum()
    assert build(workspace, small, trim).sums.count == (n_seen,) * N_BANDS
    assert statistics(build(workspace, small).sums)[0][0] > 1500


def test_labelled_pixels_without_any_value_are_counted(workspace):
    arrays = zone_arrays((SIZE, SIZE), seed=4)
    arrays.composite[:, :, 10:14, 3:30] = 0
    arrays.composite[5, 2, 11, 4:20] = 77  # one value of one band is one
    is_empty = np.zeros((SIZE, SIZE), bool)
    is_empty[10:14, 3:30] = True
    is_empty[11, 4:20] = False
    small, _ = draw(workspace, arrays=arrays)
    assert build(workspace, small).n_empty == (is_empty & (arrays.labels != IGNORE)).sum()
    x_min, _, _, y_max = small.grid.bounds
    trim = Trim(keep_away=[(x_min, y_max - 120, x_min + 400, y_max)])  # the first 12 rows
    is_empty[:12] = False
    assert build(workspace, small, trim).n_empty == (is_empty & (arrays.labels != IGNORE)).sum() > 0


def test_a_zone_without_labels_is_told_apart_from_one_that_gave_them_up(workspace):
    arrays = zone_arrays((SIZE, SIZE))
    arrays.labels[:] = IGNORE
    small, _ = draw(workspace, arrays=arrays)
    assert count_zone(small, workspace) == ({}, ())
    with pytest.raises(InputError, match="has no labelled pixel: no parcel of a class that the legend knows"):
        build(workspace, small)


def test_building_again_gives_the_same_bytes(workspace):
    small, _ = draw(workspace)
    assert build(workspace, small) == build(workspace, small)


def test_trimmed_labels_are_counted_and_gone(workspace):
    ids = [f"p{i}" for i in range(34)]
    small, arrays = draw(workspace, parcel_ids=ids)
    entry = build(workspace, small, Trim(parcels={"p0"}))
    gone = (arrays.parcels == 0) & (arrays.labels != IGNORE)
    assert entry.n_trimmed == gone.sum() > 0
    assert entry.n_labelled == (arrays.labels != IGNORE).sum() - gone.sum()
    assert 0 not in read_pixels(workspace, "z-1")["parcel"].to_pylist()
    tiles = read_tiles(workspace, "z-1", 16)
    assert (stitch_labels(tiles, (SIZE, SIZE))[gone] == IGNORE).all()
    np.testing.assert_array_equal(tiles.x, cut_tiles(arrays, 16).x)  # inputs never depend on labels


def test_trimming_never_changes_a_test_zone(workspace):
    # The zones overlap by half and share all parcels: the training zone keeps nothing near, the test zone everything.
    ids = [f"p{i}" for i in range(34)]
    train, _ = draw(workspace, "train-1", parcel_ids=[*ids[:20], *(f"own-{i}" for i in range(14))])
    test, _ = draw(workspace, "test-1", seed=1, parcel_ids=ids, split="test", x_min=600_200.0)
    parcels = {z.zone_id: count_zone(z, workspace)[1] for z in (train, test)}
    trims = separate((train, test), {"train-1": 0}, parcels, 50, "trim")
    entry = build(workspace, test, trims.get("test-1"), fold=None)
    assert entry.n_trimmed == 0
    assert entry.counts == {NAMES[i]: n for i, n in count_zone(test, workspace)[0].items()}
    build(workspace, train, trims["train-1"])
    left = read_pixels(workspace, "train-1")
    assert max(left["col"].to_pylist()) < 15  # the test zone starts at column 20, 5 columns of buffer before it
    assert not {ids[i] for i in left["parcel"].to_pylist() if i < 20} & set(parcels["test-1"])


def test_a_zone_that_loses_all_labels_is_refused_and_writes_nothing(workspace):
    small, arrays = draw(workspace)
    n = int((arrays.labels != IGNORE).sum())
    with pytest.raises(InputError, match=rf"zone 'z-1' has no labelled pixel left \({n} trimmed"):
        build(workspace, small, Trim(keep_away=[small.grid.bounds]))
    assert not workspace.dataset.exists()


def test_counts_before_trimming_name_labelled_parcels_only(workspace):
    arrays = zone_arrays((SIZE, SIZE))
    arrays.labels[arrays.parcels == 3] = IGNORE
    arrays.parcels[:5, :5] = -1
    small, _ = draw(workspace, arrays=arrays, parcel_ids=[f"p{i}" for i in range(34)])
    counts, ids = count_zone(small, workspace)
    assert counts == {int(i): int((arrays.labels == i).sum()) for i in np.unique(arrays.labels) if i != IGNORE}
    expected = {f"p{i}" for i in np.unique(arrays.parcels[arrays.labels != IGNORE]) if i >= 0}
    assert set(ids) == expected
    assert "p3" not in expected


def test_a_missing_artefact_names_its_stage(workspace):
    small, _ = draw(workspace)
    workspace.labels("z-1").unlink()
    with pytest.raises(MissingArtefactError, match="run `cropray labels"):
        build(workspace, small)
    workspace.n_obs("z-1").unlink()
    with pytest.raises(MissingArtefactError, match="run `cropray acquire"):
        build(workspace, small)


@pytest.mark.parametrize("change", [{"size": SIZE + 8}, {"x_min": 600_010.0}, {"y_max": 5_420_000.0}, {"epsg": 32632}])
def test_artefacts_of_another_place_are_refused(workspace, change):
    draw(workspace)
    moved = zone("z-1", **{"size": SIZE, **change})
    with pytest.raises(InputError, match=r"z-1\.tif' has \(40, 40\) pixels within .* run `cropray acquire CONFIG"):
        read_zone_arrays(moved, workspace)
    with pytest.raises(InputError, match="the zone table has changed; run `cropray labels CONFIG"):
        count_zone(moved, workspace)


def test_band_sums_equal_plain_numpy():
    arrays = zone_arrays((9, 13))
    arrays.composite[:, :, :2] = 0  # no data
    arrays.composite[3, 1] = 0
    arrays.composite[:, 2, 5, 5] = 65_535
    sums = band_sums(arrays.composite)
    for band in range(N_BANDS):
        values = [int(v) for v in arrays.composite[:, band].ravel() if v != 0]
        assert sums.count[band] == len(values)
        assert sums.total[band] == sum(values)
        assert sums.squares[band] == sum(v * v for v in values)
    mean, deviation = statistics(sums)
    for band in range(N_BANDS):
        values = arrays.composite[:, band][arrays.composite[:, band] != 0].astype(float)
        assert mean[band] == pytest.approx(values.mean(), rel=1e-6)
        assert deviation[band] == pytest.approx(values.std(), rel=1e-6)


def test_statistics_see_training_zones_only(workspace):
    def fold_statistics(validation_seed, test_seed, train_seed=0):
        seeds = {"a": (0, train_seed), "b": (0, 1), "v": (1, validation_seed), "t": (None, test_seed)}
        entries = []
        for zone_id, (fold, seed) in seeds.items():
            split = "test" if fold is None else "train"
            small, _ = draw(workspace, zone_id, seed, split=split)
            entries.append(build(workspace, small, fold=fold))
        whole = manifest(*entries, names=NAMES)
        train, _ = whole.fold_zones(1)
        return statistics(whole.band_sums(train))

    before = fold_statistics(2, 3)
    np.testing.assert_array_equal(fold_statistics(4, 5), before)
    assert not np.array_equal(fold_statistics(2, 3, train_seed=6), before)
