"""A stage is a module and a line in the list of stages: commands, runs, checks and verdicts follow from that."""

import contextlib
import json
import sys

import pytest
import yaml

from cropray.cli import main
from cropray.core.errors import InputError
from cropray.io.artefacts import Stamped
from cropray.stages import pipeline
from cropray.stages.stage import STAGES, Stage
from tests.jobs import job
from tests.synthetic import account


def run(job, progress):
    """The toy's work: how many zones there are."""
    (toy,) = artefacts(job)
    if not toy.is_current(progress, "the toy", overwrite=job.overwrite):
        toy.outputs[0].write_text(str(len(job.zones or ())))
        toy.mark()
    progress.step(1, 1, "", "toys")


def artefacts(job):
    """The toy's file."""
    yield Stamped("toy", "", job.artefacts, ("toy", "all"), account("1"), (job.artefacts.root / "toy.txt",))


def checks(job, ahead):
    """It cannot play after `labels` alone."""

    def refuse():
        raise InputError(f"toys before {', '.join(ahead.stages)} after {', '.join(ahead.done) or 'nothing'}")

    if "labels" in ahead.done:
        yield refuse
    yield from ahead.made("zones", job.artefacts.zones_table)


@pytest.fixture
def config(monkeypatch, landscape, tmp_path):
    """A job, and a stage that cropray has never heard of."""
    toy = Stage("toy", "reads zones; writes their number", module=__name__)
    monkeypatch.setattr("cropray.stages.pipeline.ray_session", lambda *_, **__: contextlib.nullcontext())
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job(landscape, tmp_path / "work")))
    STAGES.append(toy)
    yield str(path)
    STAGES.remove(toy)


def test_a_stage_of_ones_own_is_a_command_and_runs(config, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["toy", "--help"])
    assert "toy reads zones; writes their number." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "report toy" in " ".join(capsys.readouterr().out.split())
    assert main(["toy", config]) == 1
    assert "run `cropray zones CONFIG.yaml` first" in capsys.readouterr().err
    pipeline.run_stages(("zones", "toy"), config, ())
    assert (tmp_path / "work" / "toy.txt").read_text() == "0"
    assert json.loads((tmp_path / "work" / "timings" / "toy.json").read_text())[0]["made"] == {"toys": 1}
    capsys.readouterr()
    assert main(["why", config, "toy"]) == 0
    assert capsys.readouterr().out == "toy: up to date\n"


def test_what_it_would_refuse_is_told_before_anything_starts(config, capsys):
    assert main(["why", config, "nothing"]) == 1
    assert "report, toy)" in capsys.readouterr().err
    with pytest.raises(InputError, match="toys before zones, labels, toy after zones, labels"):
        pipeline.run_stages(("zones", "labels", "toy"), config, ())


def test_the_list_loads_no_stage(monkeypatch):
    for stage in STAGES:
        monkeypatch.delitem(sys.modules, f"cropray.stages.{stage.name}", raising=False)
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert not {f"cropray.stages.{stage.name}" for stage in STAGES} & set(sys.modules)
