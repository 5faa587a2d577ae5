"""A finished unit is never run again."""

import logging
import os
import uuid

import pytest

from cropray.cluster.placement import Placement
from cropray.core.errors import ConfigError, StageFailedError
from cropray.search.results import FoldResult, save_results
from cropray.search.run import UnitJob, run_units
from cropray.search.space import Trial, Unit

PLACEMENT = Placement(0, 1, 0, 0.875, 2, 0.25)


def unit_jobs(folder):
    """Three units of one configuration."""
    units = [Unit("xgboost", Trial({"learning_rate": 0.1}, (10,)), fold) for fold in range(3)]
    names = [f"fold-{unit.fold}" for unit in units]
    return [
        UnitJob(unit, folder / "units" / name, folder / "progress" / name)
        for unit, name in zip(units, names, strict=True)
    ]


@pytest.fixture
def three_units(tmp_path):
    """(units, folder in which their fits are noted)."""
    (log := tmp_path / "log").mkdir()
    return unit_jobs(tmp_path), log


def fit_function(log, broken=None, dying=None):
    """A fit that notes each call as a file `<fold>-…` in `log`; local, so that workers need not import this module."""

    def fit(unit, folder, progress, on_step):
        (log / f"{unit.fold}-{uuid.uuid4().hex}").touch()
        progress.parent.mkdir(exist_ok=True)
        with progress.open("a") as file:
            file.write("step ")
        (folder / "model.txt").write_text(f"model of fold {unit.fold}")
        logging.getLogger("cropray.training").warning("the %s is slow", "disk")
        if unit.fold == broken:
            raise RuntimeError(f"fold {unit.fold} is broken")
        if unit.fold == dying:
            os._exit(1)
        return (FoldResult({"learning_rate": 0.1}, unit.fold, 1.0, ((1, 0), (0, 1)), (), 10, 0.1),)

    return fit


def calls(log):
    return sorted(file.name[0] for file in log.iterdir())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_finished_units_are_a_ledger(three_units, tmp_path):
    jobs, log = three_units
    told, troubles = [], []

    def run(fit):
        told.clear()
        run_units(
            jobs, fit, PLACEMENT, tmp_path / "tune", lambda job: told.append(job.unit.fold), on_trouble=troubles.append
        )

    # A broken unit is tried twice and reported; the others finish.
    with pytest.raises(StageFailedError, match="fold 1 is broken") as error:
        run(fit_function(log, broken=1))
    assert list(error.value.failures) == ["learning_rate=0.1 n_estimators=10 fold=1"]
    assert "1 failed, 2 finished" in str(error.value)
    assert troubles == [
        "learning_rate=0.1 n_estimators=10 fold=1 failed and is started again: RuntimeError: fold 1 is broken"
    ]
    assert [job.notes() for job in (jobs[0], jobs[2])] == [("the disk is slow",), ("the disk is slow",)]
    assert calls(log) == ["0", "1", "1", "2"]
    assert sorted(told) == [0, 2]
    assert [job.is_finished for job in jobs] == [True, False, True]
    assert sorted(folder.name for folder in (tmp_path / "units").iterdir()) == ["fold-0", "fold-2"]  # nothing half done
    assert (jobs[0].folder / "model.txt").read_text() == "model of fold 0"
    # What an unfinished unit goes on from stays; a finished one needs it no more.
    assert [(job.progress.exists()) for job in jobs] == [False, True, False]
    assert jobs[1].progress.read_text() == "step step "

    # A unit whose process dies is reported too.
    with pytest.raises(StageFailedError) as error:
        run(fit_function(log, dying=1))
    assert list(error.value.failures) == ["learning_rate=0.1 n_estimators=10 fold=1"]
    assert calls(log) == ["0", *"1111", "2"]
    assert told == []

    # Mended: only the missing unit runs, and its results are there with the others'.
    run(fit_function(log))
    assert calls(log) == ["0", *"11111", "2"]
    assert told == [1]
    assert [job.results()[0].fold for job in jobs] == [0, 1, 2]

    # Everything is finished: nothing runs, and what a lost process left is removed.
    jobs[0].progress.touch()
    run(fit_function(log))
    assert calls(log) == ["0", *"11111", "2"]
    assert told == []
    assert not any(job.progress.exists() for job in jobs)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_what_would_fail_again_is_not_tried_again(three_units, tmp_path):
    jobs, log = three_units
    told, working = [], fit_function(log)

    def fit(unit, folder, progress, on_step):
        results = working(unit, folder, progress, on_step)
        if unit.fold == 1:
            raise ConfigError("the disk is too small")
        if unit.fold == 2:
            raise FloatingPointError
        return results

    with pytest.raises(StageFailedError) as error:
        run_units(jobs, fit, PLACEMENT, tmp_path / "tune", lambda job: told.append(job.unit.fold), 3)
    assert list(error.value.failures.values()) == ["the disk is too small", "FloatingPointError()"]
    assert calls(log) == ["0", "1", "2"]
    assert told == [0]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_process_that_dies_when_its_unit_stands_repeats_nothing(three_units, tmp_path):
    """The driver is told of the unit once, though no trial of it ended well."""
    jobs, log = three_units
    told, working = [], fit_function(log)
    elsewhere = jobs[1].folder

    def fit(unit, folder, progress, on_step):
        results = working(unit, folder, progress, on_step)
        if unit.fold == 1:  # another process of the same unit, which was thought to be lost, came first
            elsewhere.mkdir()
            save_results(elsewhere / "result.json", results)
            os._exit(1)
        return results

    run_units(jobs, fit, PLACEMENT, tmp_path / "tune", lambda job: told.append(job.unit.fold), 2)
    assert calls(log) == ["0", "1", "2"]
    assert sorted(told) == [0, 1, 2]
    run_units(jobs, fit, PLACEMENT, tmp_path / "tune", lambda job: told.append(job.unit.fold), 2)
    assert len(told) == 3


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_steps_are_told_while_a_unit_is_fitted(tmp_path):
    (job, *_), told = unit_jobs(tmp_path), []

    def fit(unit, folder, progress, on_step):
        for step in (1, 2, 3):
            on_step({"step": step, "val_loss": 1 / step})
        return (FoldResult({"learning_rate": 0.1}, unit.fold, 1.0, ((1, 0), (0, 1)), (), 10, 0.1),)

    follow = lambda job, record: told.append((job.unit.fold, record["step"]))  # noqa: E731
    run_units([job], fit, PLACEMENT, tmp_path / "tune", lambda _: None, on_step=follow, tell_s=0.0)
    assert told == [(0, 1), (0, 2), (0, 3)]
