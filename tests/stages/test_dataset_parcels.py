"""`dataset` on zones that cross a border of splits, its zones built in this process instead of on Ray."""

import contextlib
import io

import numpy as np
import pytest

from cropray.config import JobConfig
from cropray.core.errors import InputError, LeakageError
from cropray.core.legend import IGNORE
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_entry, load_manifest, statistics
from cropray.io.storage import write_json
from cropray.io.workspace import Workspace
from cropray.io.zones import write_zones
from cropray.stages import dataset
from tests.synthetic import write_artefacts, zone, zone_arrays

SIZE, LEVEL, TEST_LEVEL = 40, 1000, 6000  # px, digital numbers of training and of test ground


def build_here(tasks, job, progress):
    for task in tasks:
        task.run()
    return [load_entry(job.artefacts.zone_entry(task.zone_id)) for task in tasks]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Zone a covers ten columns of test zone t; c holds a parcel of t, and parcels without id; b is far from all."""
    monkeypatch.setattr(dataset, "_build", build_here)
    monkeypatch.setattr(dataset, "ray_session", lambda _: contextlib.nullcontext())
    east = {"a": 0, "b": 20_000, "c": 40_000, "t": 300}  # m
    zones = [zone(z, "test" if z == "t" else "train", size=SIZE, x_min=600_000 + x) for z, x in east.items()]
    write_zones(zones, tmp_path / "zones.csv")

    def stage(**settings):
        content = {
            "name": "small", "workspace": str(tmp_path / "work"), "zone_table": str(tmp_path / "zones.csv"),
            "imagery": {"folder": str(tmp_path)}, "parcels": {"path": str(tmp_path / "p.gpkg")},
            "dataset": {"tile_size": 16, "n_folds": 3, "buffer_m": 50, **settings},
        }  # fmt: skip
        job, said = JobConfig.model_validate(content), io.StringIO()
        for seed, one in enumerate(zones):
            arrays, ids = zone_arrays((SIZE, SIZE), seed=seed), [f"{one.zone_id}-{i}" for i in range(34)]
            arrays.composite[:] = TEST_LEVEL if one.zone_id == "t" else LEVEL
            if one.zone_id == "a":
                arrays.composite[..., 30:] = TEST_LEVEL
            if one.zone_id == "c":
                ids[21], ids[11:14] = "t-0", ["", "", "nan"]
                arrays.composite[..., arrays.parcels == 21] = TEST_LEVEL
            write_artefacts(job.artefacts, one, arrays, ids)
        dataset.run(job, Progress(said))
        return load_manifest(job.artefacts.manifest), said.getvalue()

    return stage


def test_what_crosses_the_border_is_refused_by_default(run):
    with pytest.raises(LeakageError, match=r"zone 'a' \(fold \d\) and zone 't' \(the test split\) are closer than"):
        run()


def test_training_knows_nothing_of_the_ground_that_it_gave_up(run):
    manifest, said = run(on_overlap="trim")
    trimmed = {entry.zone_id: entry.n_trimmed for entry in manifest.zones}
    labels = zone_arrays((SIZE, SIZE), seed=0).labels != IGNORE
    assert trimmed["a"] == labels[:, 25:].sum()  # ten columns, and 50 m before them
    assert trimmed["c"] > 0
    assert trimmed["b"] == trimmed["t"] == 0
    for fold in range(3):
        train, validation = manifest.fold_zones(fold)
        for zones in (train, validation):
            mean, _ = statistics(manifest.band_sums(zones))
            np.testing.assert_array_equal(mean, LEVEL)
    assert any(note.startswith("labelled parcels without id, ") and note.endswith(": c 3") for note in manifest.notes)
    assert any(
        note.startswith("parcels given up to zones farther away") and note.endswith(": c 1") for note in manifest.notes
    )
    assert all(f"note: {note}" in said for note in manifest.notes)


def test_composites_of_another_season_and_labels_of_another_year_are_refused(run, tmp_path):
    run(on_overlap="trim")
    workspace = Workspace(tmp_path / "work")
    write_json(workspace.acquisition_record("b"), {"season_start": "2021-10"})
    with pytest.raises(
        InputError, match=r"1 of 1 zones have composites .* 'b' of 2021-10 instead of 2023-01; run `cropray acq"
    ):
        run(on_overlap="trim")
    write_json(workspace.acquisition_record("b"), {"season_start": "2023-01"})
    write_json(workspace.label_report("t"), {"year": 2019})
    with pytest.raises(
        InputError, match=r"labels of another season: zone 't' of 2019 instead of 2023; run `cropray labels"
    ):
        run(on_overlap="trim")


def test_only_what_decides_the_dataset_makes_it_again(run):
    run(on_overlap="trim")
    assert "dataset is up to date" in run(on_overlap="trim", max_unknown_share=0.3)[1]  # `labels` asks for that
    assert "dataset is up to date" not in run(on_overlap="trim", buffer_m=70)[1]


def test_regions_that_look_alike_are_told(run, tmp_path):
    table = tmp_path / "zones.csv"
    table.write_text(table.read_text().replace("b,north", "b,North"))
    manifest, said = run(on_overlap="trim")
    note = "regions that differ in blanks or capitals only are different ones: 'North' = 'north'"
    assert note in manifest.notes
    assert note in said
