"""Artefacts on a disk and in object storage: the same tests, against a real S3 server."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.core.errors import ConfigError
from cropray.io.storage import (
    append_line,
    arrow_path,
    as_location,
    content_id,
    copy_file,
    file_hash,
    files_below,
    folder_hash,
    free_bytes,
    local_file,
    local_folder,
    relative,
    remove,
    scratch_folder,
    size_of,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)
from cropray.io.workspace import Workspace
from tests.servers.s3 import S3Server

PATIENCE_S = 30


@pytest.fixture(scope="module")
def server():
    with S3Server() as running, running.in_environment():
        yield running


@pytest.fixture(params=["disk", "s3"])
def root(request, tmp_path):
    if request.param == "disk":
        return tmp_path
    running = request.getfixturevalue("server")
    running.heal()
    return as_location(f"s3://{running.bucket}/{request.node.nodeid.replace('::', '/')}")


def write_half(path):
    path.write_text("half")
    raise RuntimeError("disk")


def names(folder):
    return [relative(file, folder) for file in files_below(folder)]


def test_a_file_appears_whole(root):
    path = root / "a" / "b.tif"
    for text in ("old", "new"):
        with whole_file(path) as temporary:
            assert isinstance(temporary, Path)
            assert temporary.suffix == ".tif"  # drivers look at it
            temporary.write_text(text)
        assert path.read_text() == text
    assert names(root) == ["a/b.tif"]


def test_a_file_that_fails_leaves_the_old_one(root):
    write_text(root / "a.json", "old")
    with pytest.raises(RuntimeError, match="disk"), whole_file(root / "a.json") as temporary:
        write_half(temporary)
    assert (root / "a.json").read_text() == "old"
    assert names(root) == ["a.json"]


def test_a_folder_is_replaced_with_all_that_was_in_it(root):
    for contents in (("one", "sub/two", "done"), ("three", "done")):
        with whole_folder(root / "f", last="done") as temporary:
            for name in contents:
                (temporary / name).parent.mkdir(exist_ok=True)
                (temporary / name).write_text(name)
        assert names(root / "f") == sorted(contents)
    with pytest.raises(RuntimeError, match="disk"), whole_folder(root / "f", last="done") as temporary:
        write_half(temporary / "four")
    assert names(root) == ["f/done", "f/three"]


def test_the_last_file_of_a_folder_goes_first_and_comes_last(server):
    folder = as_location(f"s3://{server.bucket}/order/f")
    for _ in range(2):
        start = len(server.requests())
        with whole_folder(folder, last="a.json") as temporary:
            for name in ("a.json", "b", "c"):
                (temporary / name).write_text(name)
    asked = [(method, path.rpartition("/")[2]) for method, path in server.requests()[start:] if "/order" in path]
    writes = [name for method, name in asked if method == "PUT"]
    assert (sorted(writes), writes[-1]) == (["a.json", "b", "c"], "a.json")
    removed = next(i for i, request in enumerate(asked) if request == ("DELETE", "a.json"))
    assert removed < min(i for i, (method, _) in enumerate(asked) if method == "PUT")


def test_a_file_is_given_as_one_on_a_disk(root):
    write_text(root / "a.txt", "text")
    with local_file(root / "a.txt") as path:
        assert isinstance(path, Path)
        assert path.read_text() == "text"
        assert file_hash(path) == file_hash(path)
    with pytest.raises(FileNotFoundError), local_file(root / "b.txt") as path:
        path.read_text()


def test_a_folder_is_given_as_one_on_a_disk(root):
    for name in ("a/b", "a/c/d"):
        write_text(root / name, name)
    with local_folder(root / "a") as folder:
        assert [file.relative_to(folder).as_posix() for file in files_below(folder)] == ["b", "c/d"]
    copies = folder_hash(root / "a")
    write_text(root / "a/b", "changed")
    assert folder_hash(root / "a") != copies


def test_hashes_do_not_depend_on_where_files_lie(server, tmp_path):
    remote = as_location(f"s3://{server.bucket}/hashes")
    for folder in (remote, tmp_path):
        for name in ("b", "c/d"):
            write_text(folder / name, name)
    assert folder_hash(remote) == folder_hash(tmp_path)


def test_another_process_s_file_is_seen(server):
    """s3fs remembers listings by default; what came later would be missing."""
    root = as_location(f"s3://{server.bucket}/seen")
    write_text(root / "a", "a")
    assert [file.name for file in root.iterdir()] == ["a"]
    filesystem, path = arrow_path(root)
    with as_location(str(root)).fs.open(f"{path}/b", "wb") as file:  # another file system object has its own cache
        file.write(b"b")
    assert sorted(file.name for file in root.glob("*")) == ["a", "b"]
    pq.write_table(pa.table({"x": [1]}), f"{path}/c.parquet", filesystem=filesystem)
    assert (root / "c.parquet").exists()


def test_content_is_identified_without_reading_it(root):
    path = root / "a"
    assert content_id(path) is None
    write_text(path, "one")
    first = content_id(path)
    write_text(path, "two")
    assert content_id(path) not in {None, first}
    write_text(path, "one")
    assert content_id(path) == first


def test_sizes_and_removal(root):
    assert size_of(root / "f") == 0
    write_text(root / "f" / "a", "12345")
    write_text(root / "f" / "b" / "c", "67")
    assert (size_of(root / "f"), size_of(root / "f" / "a")) == (7, 5)
    remove(root / "f" / "a")
    assert names(root) == ["f/b/c"]
    remove(root / "f")
    remove(root / "f")
    assert names(root) == []
    assert free_bytes(root) > 0


def test_scratch_is_gone_after_a_failure(root):
    with scratch_folder(root, "plan") as folder:
        write_json(folder / "a.json", {"a": 1})
        assert json.loads((folder / "a.json").read_text()) == {"a": 1}
    assert names(root) == []
    with pytest.raises(RuntimeError, match="disk"), scratch_folder(root, "plan") as folder:
        write_half(folder / "b")
    assert names(root) == []


def test_lines_are_added(root, tmp_path):
    for line in ("one", "two"):
        append_line(root / "a" / "log.jsonl", line)
    assert (root / "a" / "log.jsonl").read_text() == "one\ntwo\n"
    copy_file(root / "a" / "log.jsonl", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "one\ntwo\n"


@pytest.mark.timeout(PATIENCE_S * 4)
def test_a_busy_store_is_asked_again(server):
    root = as_location(f"s3://{server.bucket}/busy")
    server.fail(4, "/busy", status=503)
    write_text(root / "a", "text")
    server.fail(4, "/busy", status=503)
    assert (root / "a").read_text() == "text"
    server.fail(1, "/busy", wait_s=1.0)
    assert (root / "a").exists()
    assert server.n_faults_left() == 0


@pytest.mark.timeout(PATIENCE_S * 4)
def test_an_answer_that_is_cut_off_is_not_taken_for_the_whole(server):
    root = as_location(f"s3://{server.bucket}/cut")
    text = "x" * 200_000
    write_text(root / "a", text)
    server.fail(1, "/cut/a", method="GET", keep=0.5)
    with local_file(root / "a") as path:
        assert path.read_text() == text
    server.fail(1, "/cut/a", method="GET", keep=0.5)
    assert (root / "a").read_text() == text


def test_a_table_is_read_by_column(server):
    """Reads of one of many columns fetch little more than that column."""
    root = as_location(f"s3://{server.bucket}/columns")
    table = pa.table({f"c{i}": list(range(i, i + 200_000)) for i in range(10)})
    with whole_file(root / "t.parquet") as path:
        pq.write_table(table, path, compression="none", use_dictionary=False)
    filesystem, path = arrow_path(root / "t.parquet")
    before = server.n_sent("/columns/")
    assert pq.read_table(path, columns=["c3"], filesystem=filesystem).equals(table.select(["c3"]))
    assert server.n_sent("/columns/") - before < 1.2 * table.nbytes / 10


@pytest.mark.parametrize(
    ("text", "message"),
    [("ftp://bucket/a", "ftp"), ("s3://", "bucket"), ("s3://bucket/../other", r"\.\.")],
)
def test_strange_addresses_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        as_location(text)


def test_locations_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_location("work") == tmp_path / "work"
    assert str(as_location("s3://bucket/a/b/")) == "s3://bucket/a/b"


def test_a_workspace_is_proved_writable(server):
    Workspace(as_location(f"s3://{server.bucket}/work")).prepare()
    assert names(as_location(f"s3://{server.bucket}/work")) == []
    with pytest.raises(ConfigError, match=r"s3://nowhere/work' cannot be written \(.*bucket"):
        Workspace(as_location("s3://nowhere/work")).prepare()
