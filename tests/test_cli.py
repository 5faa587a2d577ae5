"""The command line: what it offers, its exit codes, and that nothing of the libraries reaches the terminal."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cropray import cli
from cropray.cli import main
from cropray.io.workspace import Workspace
from cropray.stages.pipeline import PIPELINE
from cropray.tracking import Tracker
from tests.jobs import job, write_job
from tests.tracking_history import search_note


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], *([stage, "--help"] for stage in PIPELINE)])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    if arguments[0] in PIPELINE:  # what a stage reads and writes
        assert "reads" in capsys.readouterr().out


def test_unknown_command_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["serach", "job.yaml"])
    assert exit_.value.code == 2


@pytest.mark.parametrize(("asked", "with_errors"), [(["config", "--markdown"], False), (["plan", "none.yaml"], True)])
def test_a_reader_that_has_seen_enough_ends_it_quietly(asked, with_errors):
    reads, writes = os.pipe()
    os.close(reads)
    errors = writes if with_errors else subprocess.PIPE
    done = subprocess.run([sys.executable, "-m", "cropray.cli", *asked], stdout=writes, stderr=errors, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr or b"") == (141, b"")


def test_another_broken_pipe_is_no_reader_that_ended(monkeypatch, capfd):
    def lose_connection(_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(cli, "_run", lose_connection)
    with pytest.raises(BrokenPipeError):
        main(["config"])


def test_resolved_config_is_saved_beside_the_artefacts(landscape, tmp_path):
    config = write_job(job(landscape, tmp_path / "work"), tmp_path)
    assert main(["zones", str(config), "--set", "dataset.n_folds=4"]) == 0
    saved = Workspace(tmp_path / "work").config("zones").read_text()
    assert "n_folds: 4" in saved
    assert "tile_size: 16" in saved


def test_zones_subset_and_skip(landscape, tmp_path, capsys):
    config = str(write_job(job(landscape, tmp_path / "work"), tmp_path))
    assert main(["zones", config, "--set", "zones=[picardie-1,picardie-2]"]) == 0
    assert "2 zones in 1 regions" in capsys.readouterr().out
    assert main(["zones", config, "--set", "zones=[picardie-1,picardie-2]"]) == 0
    assert "up to date" in capsys.readouterr().out


@pytest.mark.ray
def test_terminal_shows_progress_and_no_library_noise(landscape, ray_local, tmp_path, capfd):
    config = str(write_job(job(landscape, tmp_path / "work"), tmp_path))
    assert main(["acquire", config]) == 0
    out, err = capfd.readouterr()
    assert re.search(r"6/6 zones +\S+ +\(", out)
    assert "pixel-months were observed" in out
    assert "INFO" not in out + err
    assert "WARNING" not in out + err


@pytest.mark.ray
def test_doctor_says_what_is_missing(landscape, ray_local, tmp_path, capsys):
    content = job(landscape, tmp_path / "work", imagery={"folder": str(tmp_path / "nowhere")})
    assert main(["doctor", str(write_job(content, tmp_path))]) == 1
    out, err = capsys.readouterr()
    assert re.search(r"FAIL +inputs .*nowhere", out)
    assert re.search(r"ok +ray starts +1 nodes", out)
    assert "1 of" in err


def test_ui_before_any_search(landscape, tmp_path, capsys):
    assert main(["ui", str(write_job(job(landscape, tmp_path / "work"), tmp_path))]) == 1
    assert "run `cropray search CONFIG.yaml` first" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"cropray \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_ui_names_the_page_that_compares_runs(landscape, tmp_path, capsys, monkeypatch):
    config = write_job(job(landscape, tmp_path / "work"), tmp_path)
    Tracker(Workspace(tmp_path / "work"), "small")  # a store with the job's experiment
    started = []
    monkeypatch.setattr(os, "execv", lambda _program, command: started.append(command))
    assert main(["ui", str(config), "--port", "5099"]) == 0
    assert re.search(r"http://127\.0\.0\.1:5099/#/experiments/\d+/runs", capsys.readouterr().out)
    assert started[0][-2:] == ["--port", "5099"]


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "/scratch/map.tif")

    monkeypatch.setattr("cropray.stages.pipeline.run_stages", fill)
    assert main(["map", str(tmp_path / "job.yaml")]) == 1
    assert "/scratch/map.tif'; make room" in capsys.readouterr().err


def test_a_user_without_a_home_gets_one_for_the_time_of_the_command(tmp_path, monkeypatch):
    """Ray Train asks for it when it is imported, and the table of users may lack the one of a container."""
    seen = []
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    monkeypatch.setattr("cropray.stages.pipeline.run_stages", lambda *_: seen.append(Path.home()))
    assert main(["map", str(tmp_path / "job.yaml")]) == 0
    assert seen[0].name.startswith("cropray-home-")
    assert not seen[0].exists()
    assert "HOME" not in os.environ


def test_ui_tells_what_waits(landscape, tmp_path, capsys, monkeypatch):
    content = job(landscape, tmp_path / "work", tracking_uri="http://127.0.0.1:9")
    Tracker(Workspace(tmp_path / "work"), "small", "http://127.0.0.1:9").note(search_note("small"))
    monkeypatch.setattr(os, "execv", lambda *_: None)
    assert main(["ui", str(write_job(content, tmp_path))]) == 0
    assert re.search(r"1 writes wait in .*runs.* start the server, or set tracking_uri", capsys.readouterr().err)


@pytest.mark.parametrize("home", ["/proc/nobody", "/proc"])
def test_a_home_that_cannot_be_written_is_not_written(tmp_path, monkeypatch, home):
    """numba refuses to be imported where it can keep no compiled code."""
    seen = {}
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("MPLCONFIGDIR", "/own")
    monkeypatch.setattr("os.access", lambda path, _mode: str(path) != home)
    monkeypatch.setattr("cropray.stages.pipeline.run_stages", lambda *_: seen.update(os.environ))
    assert main(["map", str(tmp_path / "job.yaml")]) == 0
    assert "cropray-home-" in seen["NUMBA_CACHE_DIR"]
    assert (seen["MPLCONFIGDIR"], seen["HOME"]) == ("/own", home)
    assert "NUMBA_CACHE_DIR" not in os.environ
