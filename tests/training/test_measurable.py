"""Settings of a fit that a plan measures: in its own process, on what is at hand."""

import pytest

from cropray.cluster.resources import FitSize
from cropray.training.cnn.settings import CnnSettings
from cropray.training.family import FamilySettings
from cropray.training.xgboost.settings import XgboostSettings

WITH_GPUS = [
    (CnnSettings(num_workers=2, use_gpu=True, epochs=9, cpus_per_worker=8), {"use_gpu": False}),
    (XgboostSettings(num_workers=2, device="cuda", max_depth=4), {"device": "cpu"}),
]


@pytest.mark.parametrize(("settings", "without"), WITH_GPUS, ids=["network", "trees"])
def test_a_measured_fit_has_no_workers_and_the_gpus_that_are_there(settings, without):
    with_gpus = settings.measurable(2, has_gpus=True)
    assert with_gpus == settings.model_copy(update={"num_workers": 0, "cpus_per_worker": 2})
    assert settings.measurable(2, has_gpus=False) == with_gpus.model_copy(update=without)


def test_an_engine_that_has_workers_only_is_not_measured():
    settings = XgboostSettings(engine="xgboost_ray", num_workers=3, max_depth=4)
    assert settings.measurable(1, has_gpus=False) == XgboostSettings(cpus_per_worker=1, max_depth=4)


def test_a_family_need_say_nothing():
    plain = FamilySettings(num_workers=2, memory_gb=3)
    assert plain.measurable(4, has_gpus=False) == FamilySettings(cpus_per_worker=4, memory_gb=3)
    assert plain.fit_bytes(FitSize(1e6, 9, 48, None)) is None
