"""A family that nobody has heard of is measured and planned, through what it says of itself."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cropray.cluster.placement import Node
from cropray.commands.plan import measure_fits, measure_maps
from cropray.commands.plan.measure_fits import FitSample, measure_family
from cropray.commands.plan.work import count_work
from cropray.config import JobConfig
from cropray.datasets.schema import pixel_schema
from cropray.datasets.storage import PIXEL_FILE
from cropray.io.workspace import Workspace
from cropray.planning.costs import FitTerms, Straight, UnitCosts
from cropray.planning.estimate import estimate
from cropray.planning.limits import over_budget
from cropray.planning.table import lines_of, table
from cropray.planning.work import Cluster, JobWork
from cropray.training import family as families
from cropray.training.family import Family, FamilySettings
from tests.planning.test_estimate import TREES, ZONES
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
    """300 rows, of a job that has so many in each of its folds' training zones."""
    scratch, made = Workspace(config.workspace), entry("a")
    scratch.pixels("a").mkdir(parents=True)
    drawn = draw_rows(0, 300)
    columns = {
        field.name: drawn[field.name] if field.name in drawn.column_names else pa.array(["0"] * 300).cast(field.type)
        for field in pixel_schema()
    }
    pq.write_table(pa.table(columns, schema=pixel_schema()), scratch.pixels("a") / PIXEL_FILE)
    n_folds = config.dataset.n_folds
    work = replace(ZONES, train_rows=n_train * n_folds / (n_folds - 1))
    return FitSample(config, scratch, (), (made,), CLASSES, LEGEND, work)


def measured(config, n_train=6e5):
    return measure_family(sample(config, n_train), "toy", 1.0, "toy-0")


def test_costs_are_what_the_fits_took(toy, tmp_path):
    costs = measured(job(tmp_path / "large"))
    assert list(costs) == KINDS
    for depth, of in zip((2, 4), costs.values(), strict=True):
        assert of.seconds == pytest.approx((START_S, SAMPLE_S, depth * STEP_S, depth * STEP_SAMPLE_S, SCORE_S))
        assert of.model_bytes.per == pytest.approx(10)
        if toy.steps:
            assert of.pixel_s == pytest.approx((0, PIXEL_S))
        else:  # such a model does not keep its steps: it takes the same however long it was trained
            assert of.pixel_s.per == 0
    # A fit that is as small as the job's own.
    small = measured(job(tmp_path / "small"), 8)
    assert next(iter(small.values())).seconds.step == pytest.approx(2 * STEP_S)


def test_it_is_planned(toy, tmp_path):
    config = job(tmp_path)
    drawn = (("a", 0, 4000), ("b", 1, 2000), ("c", None, 500))
    entries = [entry(zone_id, fold, {"wheat": n}) for zone_id, fold, n in drawn]
    zones = count_work(config, (), entries, len(CLASSES))
    assert (zones.n_zones, zones.n_test, zones.train_rows, zones.test_rows) == (3, 1, 6000, 500)
    work = JobWork(config, zones, Cluster((Node(2, object_store_bytes=1e9, memory_bytes=4e9),)))
    fits, (refit,) = work.groups
    assert [fit.kind for fit in fits] == [KINDS[0]] * 6 + [KINDS[1]] * 6  # two folds of loudness are the same to a plan
    assert refit.steps == 20
    costs = UnitCosts(1.0, 6.0, 0.0, None, measured(config))
    result = estimate(work, costs)
    assert [name for group, name in result if group == "memory"] == ["object store", "a worker: Toy"]
    assert "Toy" in table(lines_of(result))
    slow = replace(work, job=config.model_copy(update={"toy": ToySettings(rounds=40)}))
    assert estimate(slow, costs)["time", "search"] > result["time", "search"] + 10
    (reason,) = over_budget(work, {("memory", "a worker: Toy"): 9e9})
    assert "a worker of the Toy takes 9 GB" in reason
    assert "lower search.max_concurrent, or raise toy.memory_gb" in reason


def test_so_many_kinds_are_measured_and_no_more(toy, tmp_path):
    depths = list(range(1, 9))
    costs = measured(job(tmp_path, search={"models": ["toy"], "toy": {"depth": depths}}))
    assert len(costs) == measure_fits.MOST_KINDS
    of_others = UnitCosts(0, 6, 0, None, costs).dearest(("toy", "depth=8"), lambda of: of.seconds.step)
    assert of_others == pytest.approx(4 * STEP_S)


def test_costs_are_the_mean_of_those_of_copies():
    terms = [FitTerms(*(float(n + i) for i in range(5))) for n in (1, 3)]
    assert measure_fits.mean(terms) == FitTerms(2, 3, 4, 5, 6)
    costs = [TREES._replace(seconds=each, map_s=each.start) for each in terms]
    assert measure_fits.mean(costs) == TREES._replace(seconds=FitTerms(2, 3, 4, 5, 6), map_s=2)


def test_a_straight_line_does_not_fall():
    assert Straight.through((1, 10.0), (3, 14.0)) == (8.0, 2.0)
    assert Straight.through((1, 10.0), (3, 14.0)).at(10) == 28.0
    assert Straight.through((1, 10.0), (3, 9.0)) == (9.0, 0.0)
    assert Straight.through((3, 10.0), (3, 11.0)) == (11.0, 0.0)
