"""Artefacts appear whole or not at all, and know what they were made from."""

import shutil
from pathlib import Path

import pytest

from cropray.core.errors import ConfigError, MissingArtefactError
from cropray.io.storage import file_hash, folder_hash, whole_file, whole_folder, write_json
from cropray.io.workspace import Workspace, require
from tests.synthetic import account


def write_half(path):
    path.write_text("half")
    raise RuntimeError("disk")


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "work")


def test_prepare_creates_the_root_and_leaves_nothing(workspace):
    workspace.prepare()
    assert list(workspace.root.iterdir()) == []


def test_a_root_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/work' cannot be written \(ENOTDIR"):
        Workspace(tmp_path / "file" / "work").prepare()


def test_a_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "a" / "b.tif"
    for text in ("old", "new"):
        with whole_file(path) as temporary:
            assert temporary.suffix == ".tif"  # drivers look at it
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_file_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), whole_file(path) as temporary:
        write_half(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_never_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_replaces_the_old_one(tmp_path):
    path = tmp_path / "a" / "b"
    for name in ("old", "new"):
        with whole_folder(path) as temporary:
            (temporary / name).touch()
        assert [file.name for file in path.iterdir()] == [name]
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError, match="disk"), whole_folder(path) as temporary:
        write_half(temporary / "file")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_never_deleted_where_it_stands(tmp_path, monkeypatch):
    # Deleting takes time: whoever reads or is killed meanwhile must not find half a folder.
    path = tmp_path / "a"
    deleted = []
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **_: deleted.append(Path(folder)))
    for _ in range(2):
        with whole_folder(path) as temporary:
            (temporary / "file").touch()
    assert deleted
    assert path not in deleted


def test_json_is_readable_by_people(tmp_path):
    write_json(tmp_path / "a.json", {"labels": ["blé"]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "labels": [\n  "blé"\n ]\n}\n'
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"labels": {1, 2}})
    assert "blé" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_missing_artefact_names_the_stage_that_makes_it(tmp_path):
    assert require(tmp_path, "labels") == tmp_path
    with pytest.raises(MissingArtefactError, match=r"run `cropray labels CONFIG\.yaml` first"):
        require(tmp_path / "nowhere", "labels")


def test_current_means_same_inputs_and_all_outputs(workspace):
    output = workspace.root / "out"
    workspace.prepare()
    assert not workspace.is_current("labels", "z", account("abc"), [])
    workspace.mark_current("labels", "z", account("abc"))
    assert not workspace.is_current("labels", "z", account("abc"), [output])
    output.touch()
    assert workspace.is_current("labels", "z", account("abc"), [output])
    assert not workspace.is_current("labels", "z", account("other"), [output])
    assert not workspace.is_current("acquire", "z", account("abc"), [output])
    workspace.mark_stale("labels", "z")
    workspace.mark_stale("labels", "z")
    assert not workspace.is_current("labels", "z", account("abc"), [output])


def test_why_an_artefact_is_not_up_to_date(workspace):
    output = workspace.root / "out"
    workspace.prepare()
    assert workspace.why_stale("labels", "z", account("a"), [output]) == ["missing"]
    output.touch()
    assert workspace.why_stale("labels", "z", account("a"), [output]) == ["left unfinished"]
    before = account("a", code={"m:f": "1"})
    workspace.mark_current("labels", "z", before)
    assert workspace.why_stale("labels", "z", before, [output]) == []
    assert workspace.why_stale("labels", "z", account("b", code={"m:f": "2", "m:g": "1"}), [output]) == [
        "input was a, is b", "code of m:f changed", "code of m:g is new"
    ]  # fmt: skip
    output.unlink()
    assert workspace.why_stale("labels", "z", before, [output]) == [f"'{output}' is missing"]


def test_the_account_of_the_code_stands_once_for_many_zones(workspace):
    for zone_id in "abc":
        workspace.mark_current("labels", zone_id, account(zone_id, code={"m:f": "1"}))
    assert len(list((workspace.root / "stamps" / "@code").iterdir())) == 1
    assert "m:f" not in workspace.stamp("labels", "a").read_text()


def test_a_stamp_of_an_earlier_version_tells_nothing_but_whether_it_is_the_same(workspace):
    write_json(workspace.stamp("acquire", "z"), {"inputs": "abc"})
    (why,) = workspace.why_stale("acquire", "z", account(), [])
    assert "earlier version" in why
    assert workspace.why_stale("acquire", "z", account(), [], earlier="abc") == []
    assert workspace.why_stale("acquire", "z", account(), [], earlier="abd") == [why]


def test_a_damaged_stamp_is_not_current(workspace):
    workspace.mark_current("labels", "z", account("abc"))
    workspace.stamp("labels", "z").write_text('{"inputs": "ab')
    assert not workspace.is_current("labels", "z", account("abc"), [])


def test_hashes_see_names_and_bytes(tmp_path):
    # SHA-256 of no bytes at all
    (tmp_path / "a").touch()
    assert file_hash(tmp_path / "a") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    first = folder_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = folder_hash(tmp_path)
    (tmp_path / "b").write_text("x")
    assert len({first, second, folder_hash(tmp_path)}) == 3


def test_no_two_artefacts_share_a_path(workspace):
    by_zone = [
        method("a-1")
        for method in (
            *(workspace.composite, workspace.n_obs, workspace.labels, workspace.parcel_index, workspace.parcels),
            *(workspace.label_report, workspace.pixels, workspace.tiles),
        )
    ]
    by_model = [workspace.model("cnn"), workspace.evaluation("cnn"), workspace.search_result("cnn")]
    maps = [method("cnn", "a-1") for method in (workspace.map, workspace.map_preview, workspace.mapped_parcels)]
    single = [
        *(workspace.coverage, workspace.parcel_extract),
        *(workspace.zones_table, workspace.manifest, workspace.folds, workspace.report),
        *(workspace.chosen_zones, workspace.zone_reasons, workspace.zone_picture),
        *(workspace.mlflow_database, workspace.mlflow_artifacts, workspace.config("map"), workspace.log("map")),
    ]
    paths = [*by_zone, *by_model, *maps, *single, workspace.unit("cnn", "u"), workspace.stamp("map", "a-1")]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(workspace.root) for path in paths)
