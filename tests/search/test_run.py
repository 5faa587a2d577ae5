"""How many units run at once, and that a finished unit is never run again."""

import os
import uuid

import pytest

from cropray.errors import ConfigError, StageFailedError
from cropray.search.results import FoldResult
from cropray.search.run import DRIVER_CPUS, Placement, UnitJob, place_units, run_units
from cropray.search.space import Unit
from cropray.training.xgboost import XgboostPoint


@pytest.mark.parametrize(
    ("cluster", "workers", "cpus", "gpus", "limit", "expected"),
    [
        ({"CPU": 4}, 0, 1, 0, None, Placement(1, 0, 1, 0, 4)),
        ({"CPU": 4}, 0, 2, 0, None, Placement(2, 0, 2, 0, 2)),
        ({"CPU": 4}, 0, 1, 0, 3, Placement(1, 0, 1, 0, 3)),
        ({"CPU": 4}, 0, 3, 0, 9, Placement(3, 0, 3, 0, 1)),  # a limit adds nothing
        ({"CPU": 1}, 0, 0.1, 0, None, Placement(0.1, 0, 0.1, 0, 10)),  # 1 / 0.1 is not rounded down to 9
        ({"CPU": 16, "GPU": 2}, 0, 4, 1, None, Placement(4, 1, 4, 1, 2)),  # GPUs are what is short
        # Worker groups: the trial only drives, its workers take the rest. 16 / 4.01 = 3.99
        ({"CPU": 16}, 2, 2, 0, None, Placement(4.01, 0, DRIVER_CPUS, 0, 3)),
        ({"CPU": 16, "GPU": 4}, 2, 1, 1, None, Placement(2.01, 2, DRIVER_CPUS, 0, 2)),
    ],
)
def test_placement(cluster, workers, cpus, gpus, limit, expected):
    placement = place_units(cluster, workers, cpus, gpus, limit)
    assert placement == expected
    # All workers and drivers fit at the same time, so no unit waits for another to give way.
    assert placement.max_concurrent * placement.cpus_per_unit <= cluster["CPU"] + 1e-6


@pytest.mark.parametrize(
    ("cluster", "workers", "cpus", "gpus", "message"),
    [
        ({"CPU": 2}, 0, 4, 0, "needs 4 CPUs and 0 GPUs .*the cluster has 2 and 0"),
        ({"CPU": 2}, 2, 1, 0, "needs 2.01 CPUs"),  # two workers and a driver do not fit two CPUs: it would hang
        ({"CPU": 8}, 0, 1, 1, "needs 1 CPUs and 1 GPUs"),
        ({}, 0, 1, 0, "has 0 and 0"),
    ],
)
def test_a_unit_that_never_fits_is_refused(cluster, workers, cpus, gpus, message):
    with pytest.raises(ConfigError, match=message):
        place_units(cluster, workers, cpus, gpus, None)


def unit_jobs(folder):
    """Three units of one configuration."""
    units = [Unit("xgboost", XgboostPoint(0.1, (10,)), fold) for fold in range(3)]
    return [UnitJob(unit, folder / "units" / f"fold-{unit.fold}") for unit in units]


def fit_function(log, broken=None, dying=None):
    """A fit that notes each call as a file `<fold>-…` in `log`; local, so that workers need not import this module."""

    def fit(unit, folder):
        (log / f"{unit.fold}-{uuid.uuid4().hex}").touch()
        (folder / "model.txt").write_text(f"model of fold {unit.fold}")
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
def test_finished_units_are_a_ledger(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    jobs, placement = unit_jobs(tmp_path), Placement(1, 0, 1, 0, 2)
    told = []

    def run(fit):
        told.clear()
        run_units(jobs, fit, placement, tmp_path / "tune", lambda job: told.append(job.unit.fold))

    # A broken unit is tried twice and reported; the others finish.
    with pytest.raises(StageFailedError, match="fold 1 is broken") as error:
        run(fit_function(log, broken=1))
    assert list(error.value.failures) == ["lr=0.1 trees=10 fold=1"]
    assert "1 failed, 2 finished" in str(error.value)
    assert calls(log) == ["0", "1", "1", "2"]
    assert sorted(told) == [0, 2]
    assert [job.is_finished for job in jobs] == [True, False, True]
    assert sorted(folder.name for folder in (tmp_path / "units").iterdir()) == ["fold-0", "fold-2"]  # nothing half done
    assert (jobs[0].folder / "model.txt").read_text() == "model of fold 0"

    # A unit whose process dies is reported too.
    with pytest.raises(StageFailedError) as error:
        run(fit_function(log, dying=1))
    assert list(error.value.failures) == ["lr=0.1 trees=10 fold=1"]
    assert calls(log) == ["0", *"1111", "2"]
    assert told == []

    # Mended: only the missing unit runs, and its results are there with the others'.
    run(fit_function(log))
    assert calls(log) == ["0", *"11111", "2"]
    assert told == [1]
    assert [job.results()[0].fold for job in jobs] == [0, 1, 2]

    # Everything is finished: nothing runs.
    run(fit_function(log))
    assert calls(log) == ["0", *"11111", "2"]
    assert told == []
