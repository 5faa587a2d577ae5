"""A small job summed up by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from cropray.cluster.placement import Node
from cropray.config import JobConfig
from cropray.imagery.acquisition import Traffic
from cropray.planning.costs import (
    FIXED_S,
    REFERENCE_WORKER_START_S,
    FitCosts,
    FitTerms,
    Straight,
    UnitCosts,
    ZoneCosts,
)
from cropray.planning.estimate import (
    FILMS_SHOWN,
    FIT_FILES_BYTES,
    PREVIEW_BYTES,
    READ_BYTES_S,
    REPORT_BYTES,
    TRACKED_FOLD_BYTES,
    TRACKED_MODEL_BYTES,
    TRACKING_BYTES,
    UNIT_S,
    WORKER_GROUP_S,
    estimate,
    fit_seconds,
    loading_seconds,
    with_built,
    worker_bytes,
)
from cropray.planning.work import Cluster, Fit, JobWork, ZoneWork, kinds
from cropray.search.store import tile_bytes

ZONES = ZoneWork(
    n_zones=5, n_test=1, n_mapped=1, n_films=1, n_pixels=5000, train_rows=1800, test_rows=700, train_tiles=90, n_classes=3,
)  # fmt: skip
ZONE = ZoneCosts(
    {"acquire": 3.0, "label": 1.0, "count": 0.1, "build": 2.0, "film": 4.0},
    {"composites": 100, "labels": 10, "dataset": 200, "report": 50},
    peak_bytes=7e8,
)
TREES = FitCosts(
    FitTerms(start=0, sample=0.001, step=0.1, step_sample=0.0005, score=0.0002), model_bytes=Straight(0, 20),
    worker_bytes=Straight(5e8, 0), batch=math.inf, pixel_s=Straight(0, 0.0001), map_s=1.0, map_bytes=30, operations=0,
)  # fmt: skip
CNN = FitCosts(
    FitTerms(start=2.0, sample=0, step=0, step_sample=0.02, score=0.01), model_bytes=Straight(1000, 0),
    worker_bytes=Straight(7e8, 1e7), batch=8, pixel_s=Straight(0.001, 0), map_s=1.0, map_bytes=40, operations=1e9,
)  # fmt: skip
SLOW_CNN = CNN._replace(seconds=CNN.seconds._replace(step_sample=0.04), operations=2e9)
KERNELS = {size: ("cnn", f"kernel_size={size}") for size in (3, 5)}
FITS = {("xgboost", ""): TREES, KERNELS[3]: CNN, KERNELS[5]: SLOW_CNN}
COSTS = UnitCosts(4.0, REFERENCE_WORKER_START_S, 0.5, ZONE, {("xgboost", ""): TREES, KERNELS[3]: CNN})


def job(**changes):
    content = {
        "name": "small",
        "workspace": Path("work"),
        "imagery": {"folder": "scenes"},
        "parcels": {"path": "parcels.gpkg"},
        "search": {
            "models": ["xgboost", "cnn"],
            "xgboost": {"n_estimators": [5, 10], "learning_rate": [0.1]},
            "cnn": {"learning_rate": [0.01], "kernel_size": [3]},
        },
        "cnn": {"epochs": 2},
        **changes,
    }
    return JobConfig.model_validate(content)


def work(config=None, cpus=2, **changes):
    cluster = Cluster((Node(cpus, object_store_bytes=1e9),))
    return JobWork(**{"job": config or job(), "zones": ZONES, "cluster": cluster, **changes})


def of(group, amounts):
    """Quantities of a group by name."""
    return {name: amount for (found, name), amount in amounts.items() if found == group}


def seconds_of(there, costs=COSTS):
    return of("time", estimate(there, costs))


def test_fits_of_a_search():
    trees, cnn = Fit(("xgboost", ""), 10), Fit(KERNELS[3], 2)
    refits = (replace(trees, role="refit"), Fit(("cnn", ""), 2, "refit"))
    # Three folds of one learning rate (whose prefixes are all numbers of trees) and of one CNN, then the refits.
    assert work().groups == ((trees,) * 3 + (cnn,) * 3, refits)
    # Units that take different shares of the cluster do not run side by side.
    apart = work(job(cnn={"epochs": 2, "cpus_per_worker": 2}))
    assert apart.groups == ((trees,) * 3, (refits[0],), (cnn,) * 3, (refits[1],))
    # Nor do units with CPUs of their own beside those that share what is free.
    assert work(job(cnn={"epochs": 2, "cpus_per_worker": 1})).groups == apart.groups


def test_leave_region_out_is_a_fit_per_region_and_model():
    config = job(search={**job().search.model_dump(), "leave_region_out": True})
    zones = replace(ZONES, n_regions=4)
    there = work(config, zones=zones)
    _, last = there.groups
    assert [fit.model for fit in last] == ["xgboost", "cnn", *["xgboost"] * 4, *["cnn"] * 4]
    assert [fit.role for fit in last] == ["refit"] * 2 + ["region_out"] * 8
    # Three quarters of 1800 rows in ten rounds, a quarter scored in each; of 90 tiles in two epochs, a quarter scored once.
    assert fit_seconds(last[2], there, COSTS) == pytest.approx(1.8 + 10 * (0.1 + 0.675 + 450 * 0.0002))
    assert fit_seconds(last[-1], there, COSTS) == pytest.approx(2 + 2 * 67.5 * 0.02 + 22.5 * 0.01)
    tracked = estimate(there, COSTS)["disk", "tracking"]
    assert tracked == estimate(work(), COSTS)["disk", "tracking"]  # folds of the search only
    assert work(zones=zones).groups == work().groups


def test_one_fit():
    costs = replace(COSTS, fits=FITS)
    # All 1800 rows are read; ten rounds of 0.1 s, 1200 trained and 600 scored rows.
    assert fit_seconds(Fit(("xgboost", ""), 10), work(), costs) == pytest.approx(1.8 + 10 * (0.1 + 0.6 + 0.12))
    assert fit_seconds(Fit(("xgboost", ""), 10, "refit"), work(), costs) == pytest.approx(1.8 + 10 * 1.0)
    # 60 tiles trained and 30 scored in each of two epochs.
    assert fit_seconds(Fit(KERNELS[3], 2), work(), costs) == pytest.approx(2 + 2 * (1.2 + 0.3))
    assert fit_seconds(Fit(KERNELS[5], 2), work(), costs) == pytest.approx(2 + 2 * (2.4 + 0.3))
    # What was not measured takes as long as the dearest that was.
    assert fit_seconds(Fit(("cnn", ""), 2, "refit"), work(), costs) == pytest.approx(2 + 2 * 3.6)


def test_trials_that_cost_the_same_are_one_kind():
    spaces = {"learning_rate": [0.01, 0.001], "kernel_size": [3, 5], "epochs": [2, 5]}
    config = job(search={"models": ["cnn"], "cnn": spaces})
    assert {kind: settings.kernel_size for kind, settings in kinds(config, "cnn").items()} == {
        kind: size for size, kind in KERNELS.items()
    }
    fits, (refit,) = work(config).groups
    assert sorted({(*fit.kind, fit.steps) for fit in fits}) == [(*KERNELS[s], n) for s in (3, 5) for n in (2, 5)]
    assert refit.steps == 5


def test_a_worker_group_starts_and_shares_the_work():
    group = work(job(cnn={"epochs": 2, "num_workers": 2}), cpus=4)
    assert fit_seconds(Fit(KERNELS[3], 2), group, COSTS) == pytest.approx(WORKER_GROUP_S + 5.0 / 2)


def test_seconds_of_every_stage():
    seconds = seconds_of(work())
    assert seconds["start"] == 4.0
    # Five zones on two CPUs: three rounds.
    assert seconds["acquire"] == pytest.approx(FIXED_S["acquire"] + 0.5 + 3 * 3.0)
    assert seconds["labels"] == pytest.approx(FIXED_S["labels"] + 3 * 1.0)
    assert seconds["dataset"] == pytest.approx(FIXED_S["dataset"] + 5 * 0.1 + 3 * 2.0)
    # Units of 10, 10, 10, 5, 5, 5 s on two slots: one ends at 10 + 10 + 5, the other at 10 + 5 + 5.
    units = max(3 * UNIT_S + 10 + 10 + 5, 3 * UNIT_S + 10 + 5 + 5)
    refits = UNIT_S + max(11.8, 5.6)
    fixed = FIXED_S["search"] + FIXED_S["refit"] + 2 * REFERENCE_WORKER_START_S
    # 97 bytes a row, 97 a pixel of a tile, read by two CPUs.
    loading = (1800 * 97 + 90 * 32 * 32 * 97) / (2 * READ_BYTES_S)
    # Four training zones, as they are evaluated, in two rounds by each model.
    out_of_fold = 2 * (1000 * 0.0001 * 10 + 1000 * 0.001)
    assert seconds["search"] == pytest.approx(fixed + loading + units + refits + out_of_fold)
    # One zone of 1000 pixels through ten rounds, then by the CNN.
    evaluated = REFERENCE_WORKER_START_S + 2 * FIXED_S["evaluate"] + 1000 * 0.0001 * 10 + 1000 * 0.001
    assert seconds["evaluate"] == pytest.approx(evaluated)
    # The same, after 1 s of reading and drawing for each.
    assert seconds["map"] == pytest.approx(2 * FIXED_S["map"] + 1 + 1000 * 0.0001 * 10 + 1 + 1000 * 0.001)
    assert seconds["report"] == pytest.approx(FIXED_S["report"] + 4.0)


def searched(**search):
    """Seconds of a search of trees, loading aside."""
    there = work(job(search={"models": ["xgboost"], "oof_rows": 0, **search}))
    return seconds_of(there)["search"] - loading_seconds(there)


def test_a_search_that_learns_starts_again_for_every_batch():
    drawn = {"n_trials": 6, "xgboost": {"learning_rate": {"low": 0.1, "high": 0.4}, "n_estimators": [10]}}
    start, fit = FIXED_S["refit"] + REFERENCE_WORKER_START_S, UNIT_S + 10
    refit = start + UNIT_S + 11.8
    at_once = FIXED_S["search"] + REFERENCE_WORKER_START_S + 9 * fit
    assert searched(sampler="random", **drawn) == pytest.approx(at_once + refit)
    # Batches of 4 and 2 trials on three folds and two slots.
    assert searched(sampler="tpe", **drawn) == pytest.approx(at_once + refit + start)
    assert searched(sampler="tpe", **{**drawn, "n_trials": 4}) == pytest.approx(at_once + refit - 3 * fit)
    # The time is that of the fits; the refit comes after.
    assert searched(sampler="tpe", time_budget_s=40, **drawn) == pytest.approx(40 + refit)
    assert searched(sampler="tpe", time_budget_s=9000, **drawn) == searched(sampler="tpe", **drawn)


def test_points_that_are_drawn_are_predicted_out_of_fold():
    rows, costs = replace(ZONES, n_pixels=0, n_mapped=0, train_rows=800.0), replace(COSTS, zone=None)
    configs = [job(search={**job().search.model_dump(), "oof_rows": n}) for n in (0, 20, 1000)]
    seconds = [seconds_of(work(config, zones=rows), costs)["search"] for config in configs]
    # Two rounds of two zones: 20 of each of three classes, or all 200.
    each = 2 * (0.0001 * 10 + 0.001)
    assert seconds[1] - seconds[0] == pytest.approx(60 * each)
    assert seconds[2] - seconds[0] == pytest.approx(200 * each)


def added_by_a_mean(group, members=("xgboost", "cnn"), costs=COSTS, **search):
    """Quantities of a group with a mean of the members, less those without; None where there is no such quantity without."""
    amounts = []
    for models in (members, (*members, "blend")):
        there = work(job(search={**job().search.model_dump(), "models": models, **search}))
        amounts.append(of(group, estimate(there, with_built(there, costs))))
    return {name: amount - amounts[0].get(name, 0.0) for name, amount in amounts[1].items()}


def test_a_mean_predicts_with_each_of_its_members():
    there = work(job(search={**job().search.model_dump(), "models": ["blend", "xgboost", "cnn"]}))
    *fitted, folds, (refit,) = there.groups
    assert tuple(fitted) == work().groups  # of which it needs the winners
    assert [(fit.model, fit.role) for fit in (*folds, refit)] == [("blend", "fold")] * 3 + [("blend", "refit")]
    costs, pixel_s = with_built(there, COSTS), 10 * 0.0001 + 0.001
    # A third of 90 tiles, every pixel of them, as a member reads tiles; a refit keeps the members' models.
    fold_s = 30 * 32 * 32 * pixel_s
    assert fit_seconds(folds[0], there, costs) == pytest.approx(fold_s)
    assert fit_seconds(refit, there, costs) == 0
    seconds = added_by_a_mean("time")
    begun = 2 * (FIXED_S["refit"] + REFERENCE_WORKER_START_S)
    # Three folds on two slots. What it says out of fold follows from what its members said.
    assert seconds["search"] == pytest.approx(begun + 2 * (fold_s + UNIT_S) + UNIT_S)
    assert seconds["evaluate"] == pytest.approx(FIXED_S["evaluate"] + 1000 * pixel_s)
    assert seconds["map"] == pytest.approx(FIXED_S["map"] + 1 + 1000 * pixel_s)
    assert seconds["acquire"] == seconds["dataset"] == 0
    assert added_by_a_mean("time", time_budget_s=1)["search"] == pytest.approx(seconds["search"])


def test_a_mean_of_pixel_models_scores_rows():
    there = work(job(search={"models": ["xgboost", "forest", "blend"]}))
    costs = with_built(there, replace(COSTS, fits={("xgboost", ""): TREES, ("forest", ""): TREES}))
    (fold, *_), (refit,) = there.groups[-2:]
    pixel_s = costs.dearest(("blend", ""), lambda c: c.pixel_s.at(1))
    assert fit_seconds(fold, there, costs) == pytest.approx(600 * pixel_s)
    assert refit.role == "refit"


def test_a_mean_keeps_the_models_of_its_members():
    size = 10 * 20 + 1000
    disk = added_by_a_mean("disk")
    # In the unit of the refit and as the model; folds have none of their own.
    assert disk["search"] == pytest.approx(4 * FIT_FILES_BYTES + 2 * size)
    assert disk["tracking"] == pytest.approx(3 * TRACKED_FOLD_BYTES + TRACKED_MODEL_BYTES + size)
    assert disk["maps"] == 40
    memory = added_by_a_mean("memory")
    assert memory["a worker: Blend"] == pytest.approx(7e8 + size)
    assert memory["object store"] == 0


def test_starting_costs_follow_the_machine():
    slow = replace(COSTS, worker_start_s=3 * REFERENCE_WORKER_START_S)
    assert slow.fixed_s("search") == pytest.approx(3 * FIXED_S["search"])


def test_a_service_that_is_slower_than_we_are_sets_the_pace():
    before = seconds_of(work())["acquire"]
    slow = estimate(work(traffic=Traffic(100, 1e9, 1000.0)), COSTS)
    assert slow["time", "acquire"] == pytest.approx(before - 9 + 1000)
    assert of("source", slow) == {"requests": 100, "download": 1e9}


def test_disk():
    disk = of("disk", estimate(work(), COSTS))
    assert (disk["composites"], disk["labels"], disk["dataset"]) == (500, 50, 1000)
    # Four fits of ten rounds and four of the CNN, and both models once more.
    assert disk["search"] == pytest.approx(4 * 200 + 4 * 1000 + 8 * FIT_FILES_BYTES + 1200)
    assert disk["tracking"] == pytest.approx(TRACKING_BYTES + 6 * TRACKED_FOLD_BYTES + 2 * TRACKED_MODEL_BYTES + 1200)
    assert disk["maps"] == 70
    assert disk["report"] == pytest.approx(REPORT_BYTES + 2 * PREVIEW_BYTES + 50 * (1 + FILMS_SHOWN))


def test_memory():
    # While it is read, everything is there twice: 97 bytes a row, 109 a pixel of a tile. Rows of trees take what their
    # family says: 24 and 24 for each of three classes stay in memory, and 200 of bins. Of the tiles of the CNN a batch of 8
    # is held.
    assert tile_bytes(32) == 32 * 32 * 97
    assert of("memory", estimate(work(), COSTS)) == {
        "object store": 2 * (1800 * 97 + 90 * 32 * 32 * 97),
        "a worker: zones": 7e8,
        "a worker: XGBoost": 5e8 + 1800 * (24 + 3 * 24 + 200),
        "a worker: CNN": 7e8 + 8e7,
    }
    alone = estimate(work(job(search={"models": ["xgboost"]})), COSTS)
    assert alone["memory", "object store"] == 2 * 1800 * 97


def test_workers_of_a_fit_share_its_samples():
    two = work(job(cnn={"epochs": 2, "num_workers": 2}), cpus=4)
    assert worker_bytes(two, COSTS, "cnn") == 7e8 + 4e7


def test_points_have_no_images():
    points = replace(ZONES, n_pixels=0, n_mapped=0, train_tiles=0)
    of_points = work(job(search={"models": ["xgboost"], "xgboost": {"n_estimators": [10]}}), zones=points)
    result = estimate(of_points, replace(COSTS, zone=None))
    assert list(result) == [
        *(("time", name) for name in ("start", "search", "evaluate", "report")),
        *(("disk", name) for name in ("search", "tracking", "report")),
        *(("memory", name) for name in ("object store", "a worker: XGBoost")),
    ]
    # 700 test points in one zone.
    assert result["time", "evaluate"] == pytest.approx(
        REFERENCE_WORKER_START_S + FIXED_S["evaluate"] + 700 * 0.0001 * 10
    )
