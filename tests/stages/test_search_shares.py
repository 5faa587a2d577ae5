"""CPUs that units share: what a search asks Ray for, and what its fits compute on."""

import io
from types import SimpleNamespace

import pytest

from cropray.cluster.placement import Node, need_of, place_units
from cropray.core.progress import Progress
from cropray.stages import search
from cropray.training.cnn.settings import CnnSettings
from cropray.training.xgboost.settings import XgboostSettings


def shared(monkeypatch, cpus, n_units, *kinds):
    """(placement of units, what is told) of models that are searched side by side on one node."""
    monkeypatch.setattr(search, "live_nodes", lambda: [Node(cpus)])
    searches = [SimpleNamespace(need=need_of("", kind), takes_share=kind.takes_share) for kind in kinds]
    placement = place_units([Node(cpus)], need_of("cnn", kinds[0]), None)
    log = io.StringIO()
    return search._shared(searches, placement, n_units, Progress(log)), log.getvalue()


def test_fits_take_one_cpu_each_and_a_refit_all(monkeypatch):
    both = (XgboostSettings(), CnnSettings())
    placement, told = shared(monkeypatch, 8, 18, *both)
    assert (placement.max_concurrent, placement.cpus_per_worker, told) == (8, 1, "")
    placement, told = shared(monkeypatch, 8, 2, *both)
    assert (placement.max_concurrent, placement.cpus_per_worker) == (2, 4)
    assert "2 units at a time, each 4 CPUs" in told
    placement, _ = shared(monkeypatch, 8, 1, CnnSettings())
    assert placement.trial_resources == {"CPU": 7.75, "GPU": 0}  # a task that reads has room
    assert placement.cpus_per_worker == 8


def test_cpus_that_are_given_stay(monkeypatch):
    assert shared(monkeypatch, 8, 1, XgboostSettings(cpus_per_worker=2))[0].cpus_per_worker == 2


@pytest.mark.parametrize("kind", [CnnSettings, XgboostSettings])
def test_fits_compute_on_the_cpus_that_they_hold(kind):
    settings = kind().on_cpus(6.0)
    assert settings.threads == 6
    assert isinstance(settings.threads, int)
    assert kind.model_validate(settings.model_dump()) == settings
