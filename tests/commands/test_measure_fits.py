"""A family that nobody has heard of is measured and planned, through what it says of itself."""

import json
from dataclasses import replace

import pytest

from cropray.cluster.placement import Node
from cropray.commands.plan import measure_fits, measure_maps
from cropray.commands.plan.measure_fits import FitSample, measure_family
from cropray.commands.plan.work import count_points, over_budget, place
from cropray.config import JobConfig
from cropray.datasets.manifest import BandSums
from cropray.io.workspace import Workspace
from cropray.planning.costs import UnitCosts
from cropray.planning.estimate import JobWork, estimate, search_work
from cropray.planning.table import lines_of, table
from cropray.planning.work import Cluster
from cropray.training import family as families
from cropray.training.family import Family, FamilySettings
from tests.synthetic import entry
from tests.training.tree_rows import CLASSES, LEGEND, draw_rows

KINDS = [("toy", "depth=2"), ("toy", "depth=4")]
START_S, SAMPLE_S, STEP_S, STEP_SAMPLE_S, SCORE_S, PIXEL_S = 2.0, 1e-3, 0.25, 2e-4, 5e-5, 1e-6


class ToySettings(FamilySettings):
    """Deeper takes longer, a louder name does not."""

    depth: int = 2
    loudness: int = 1
    rounds: int = 20


class ToyModel:
    """Predicts nothing, in a time that grows with its rounds."""

    columns = ("label",)

    def __init__(self, clock, rounds):
        self.clock, self.rounds = clock, rounds

    def predict_samples(self, x):
        """Of some rows."""
        self.clock.now += PIXEL_S * len(x) * self.rounds


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass while the toy works, and at no other time."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    for module in (measure_fits, measure_maps):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(params=["prefixes", "validation"])
def toy(clock, monkeypatch, request):
    """The family, whose steps are prefixes of a fit or stopped by validation."""

    def fit(job):
        rounds = job.steps[-1] if job.steps else job.n_steps
        n, n_scored = (sum(map(len, side.blocks.values())) if side else 0 for side in (job.train, job.val))
        every = job.settings.depth * (STEP_S + STEP_SAMPLE_S * n)
        times = rounds if job.steps else 1
        clock.now += START_S + SAMPLE_S * (n + n_scored) + rounds * every + times * n_scored * SCORE_S
        (job.folder / "rounds").write_bytes(b"r" * 10 * rounds)
        (job.folder / "card.json").write_text(json.dumps({"kind": "toy", "rounds": f"{rounds:>9}"}))
        return ()

    def load(folder, _):
        return ToyModel(clock, int(json.loads((folder / "card.json").read_text())["rounds"]))

    field = {"steps" if request.param == "prefixes" else "most_steps": "rounds"}
    made = Family(
        name="toy", label="Toy", step_name="round", sample="pixel", settings=ToySettings, fit=fit, load=load,
        grid={"depth": (2, 4), "loudness": (1, 11)}, free=frozenset({"loudness"}), **field,
    )  # fmt: skip
    monkeypatch.setitem(families._REGISTERED, "toy", made)
    return made


def job(tmp_path, **changes):
    points = {"points": {"path": str(tmp_path / "points.parquet")}, "search": {"models": ["toy"]}}
    return JobConfig.model_validate({"name": "toys", "workspace": str(tmp_path), **points, **changes})


def sample(config, n_train):
    sums = BandSums((1,), (2.0,), (5.0,))
    return FitSample(
        config, Workspace(config.workspace), (), CLASSES, LEGEND, {"pixel": n_train}, draw_rows(0, 300), sums
    )


def measured(config, n_train=6e5):
    return measure_family(sample(config, n_train), "toy", 1.0, "toy-0")


def test_costs_are_what_the_fits_took(toy, tmp_path):
    costs = measured(job(tmp_path))
    assert list(costs) == KINDS
    for depth, of in zip((2, 4), costs.values(), strict=True):
        found = (of.start_s, of.sample_s, of.step_s, of.step_sample_s, of.score_s)
        assert found == pytest.approx((START_S, SAMPLE_S, depth * STEP_S, depth * STEP_SAMPLE_S, SCORE_S))
        assert of.step_bytes == pytest.approx(10)
        if toy.steps:
            assert (of.pixel_s, of.pixel_step_s) == pytest.approx((0, PIXEL_S))
        else:  # such a model does not keep its steps: it takes the same however long it was trained
            assert of.pixel_step_s == 0
    # A fit that is as small as the job's own.
    assert next(iter(measured(job(tmp_path), 8).values())).step_s == pytest.approx(2 * STEP_S)


def test_it_is_planned(toy, tmp_path):
    config = job(tmp_path)
    cluster = Cluster((Node(2, object_store_bytes=1e9, memory_bytes=4e9),))
    placements = place(config, cluster)
    drawn = (("a", 0, 4000), ("b", 1, 2000), ("c", None, 500))
    zones = count_points([entry(zone_id, fold, {"wheat": n}) for zone_id, fold, n in drawn], len(CLASSES))
    work = JobWork(config, zones, search_work(config, placements, 3), placements, cluster)
    fits, (refit,) = work.search.groups
    assert [fit.kind for fit in fits] == [KINDS[0]] * 6 + [KINDS[1]] * 6  # two folds of loudness are the same to a plan
    assert refit.steps == 20
    costs = UnitCosts(1.0, 6.0, 0.0, None, measured(config))
    result = estimate(work, costs)
    assert {line.name for line in lines_of(result) if line.group == "memory"} == {"object store", "a worker: Toy"}
    assert "Toy" in table(lines_of(result))
    slow = replace(work, search=search_work(config.model_copy(update={"toy": ToySettings(rounds=40)}), placements, 3))
    assert estimate(slow, costs).seconds["search"] > result.seconds["search"] + 10
    (reason,) = over_budget(config, work, {"Toy": 9e9})
    assert "a worker of the Toy takes 9 GB" in reason
    assert "lower search.max_concurrent, or raise toy.memory_gb" in reason


def test_so_many_kinds_are_measured_and_no_more(toy, tmp_path):
    depths = list(range(1, 9))
    costs = measured(job(tmp_path, search={"models": ["toy"], "toy": {"depth": depths}}))
    assert len(costs) == measure_fits.MOST_KINDS
    of_others = UnitCosts(0, 6, 0, None, costs).of(("toy", "depth=8"))
    assert max(of.step_s for of in of_others) == pytest.approx(4 * STEP_S)
