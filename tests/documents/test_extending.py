"""Every example of docs/extending.md runs: its code is registered and does what it is for, its job snippets are jobs."""

import datetime as dt
import re
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from cropray.config import JobConfig
from cropray.core import registry
from cropray.core.cube import CubeSpec, Season
from cropray.core.cube_settings import CubeSettings
from cropray.core.errors import InputError
from cropray.core.features import FeatureSet
from cropray.core.grid import Grid
from cropray.core.metrics import METRICS, score
from cropray.imagery.acquire import acquire_zone
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.imagery.cubes import acquire_cube
from cropray.imagery.registry import SOURCES
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.nets.context import Context
from cropray.nets.registry import NETS
from cropray.search.sampling import trials
from cropray.training import family as families
from cropray.training.deep.augment import augmentations, augmented
from cropray.training.deep.losses import LOSSES, CrossEntropy
from cropray.training.deep.optim import OPTIMIZERS, SCHEDULES
from cropray.training.deep.samplers import SAMPLERS
from cropray.training.family import family
from tests.documents.pages import ROOT, blocks
from tests.own_entries.job import JOB as RECIPE
from tests.training.pixel_fits import fitted, require_scores

PAGE = ROOT / "docs" / "extending.md"
JOB = {"name": "own", "workspace": "w", "imagery": {"folder": "s"}, "parcels": {"path": "p"}}
ZONE = Zone("here", "plain", "train", Grid(32631, 600_000.0, 5_400_000.0, 6, 8))
pytestmark = pytest.mark.usefixtures("own_data", "centroid_family")


def a_network(_folder):
    torch.manual_seed(0)
    net = NETS.entry("toy_net")(NETS.entry("toy_net").Config(n_classes=3, n_months=2, n_bands=4, width=6))
    x = torch.randn(5, 2, 4, 7, 9)
    numbers = torch.ones(x.shape)
    numbers[:, 1] = 0  # a step without data counts for nothing
    logits = net(x, Context(numbers))
    assert logits.shape == (5, 3, 7, 9)
    assert torch.equal(net(torch.where(numbers == 0, 9.0, x), Context(numbers)), logits)
    assert not torch.equal(net(x, Context(torch.ones(x.shape))), logits)


def a_recipe(_folder):
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    loss = LOSSES.make({"name": "toy_loss", "times": 3.0})
    torch.testing.assert_close(loss(logits, labels), 3 * CrossEntropy()(logits, labels))
    x = torch.tensor([0.0, 5.0]).reshape(1, 2, 1, 1, 1)
    changed = augmented(
        x, augmentations([{"name": "toy_change", "by": 3.0}]), torch.zeros(1, dtype=torch.int64), (1.0,)
    )
    assert changed.flatten().tolist() == [0.0, 8.0]
    order = SAMPLERS.make({"name": "toy_sampler", "share": 0.75}).order(np.random.default_rng(0), 8, lambda: None)
    assert order.tolist() == [0, 1, 2, 3, 4, 5]
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = OPTIMIZERS.make("toy_optimizer").make([weight], 0.1, 0.0)
    (weight**2).sum().backward()
    optimizer.step()
    assert weight.item() < 1
    schedule = SCHEDULES.make({"name": "toy_schedule", "least": 0.2})
    assert [schedule.factor(done, 4) for done in (0, 2, 3.9)] == [1, 0.5, 0.2]


def a_feature(_folder):
    cube = CubeSpec(CubeSettings().spec.bands[:1], months=3)
    features = FeatureSet(cube, ("bands", "toy_slope"))
    assert features.columns == ("B02_01", "B02_02", "B02_03", "B02_slope")
    raw = np.array([[10, 0, 25], [0, 7, 7]], np.uint16)
    assert features.compute(raw)[:, -1].tolist() == [32_783, 0]


def a_score(_folder):
    matrix = np.array([[8, 2, 0], [5, 5, 0], [0, 0, 0]])  # recalls 0.8 and 0.5, of two classes
    assert score(matrix)["balance"] == pytest.approx(0.65 - 0.5)
    assert "balance" in [metric.key for metric in METRICS]


def a_sensor(_folder):
    spec = CubeSettings(bands=("T2", "B04")).spec
    assert [(band.id, band.scale) for band in spec.bands] == [("T2", 1e-4), ("B04", 1e-4)]


def a_source_of_scenes(folder):
    rng, shape = np.random.default_rng(0), (3, *ZONE.grid.shape)
    place = np.array([ZONE.grid.epsg, ZONE.grid.x_min, ZONE.grid.y_max, *ZONE.grid.shape], object)
    drawn = []
    for day in (3, 13, 23):
        pixels = rng.integers(1, 9_000, shape).astype(np.uint16)
        pixels[-1] = 4  # vegetation
        acquired = np.array(dt.datetime(2023, 1, day, tzinfo=dt.UTC), object)
        np.savez(folder / f"{day}.npz", pixels=pixels, bands=("T1", "T2", "SCL"), grid=place, acquired=acquired)
        drawn.append(pixels)
    cube = CubeSpec(CubeSettings(bands=("T2", "T1")).spec.bands, months=1)
    source = SOURCES.entry("toy_scenes")(source="toy_scenes", folder=folder).scenes(cube.bands)
    workspace = Workspace(folder / "work")
    assert acquire_zone(source, ZONE, "2023-01", workspace, cube).n_scenes == (3,)
    expected = np.median(np.stack(drawn), 0)[[1, 0]]  # of three: one of them
    composite = read_composite(workspace.composite("here"), ZONE.grid, cube)
    np.testing.assert_array_equal(composite[0], expected)


def a_source_of_cubes(folder):
    bands = [{"id": name, "unit": "glow", "scale": 0.01} for name in ("HAZE", "GLOW")]
    cube = CubeSpec(CubeSettings(bands=bands).spec.bands, months=2)
    numbers = np.random.default_rng(0).integers(0, 3, (2, 2, *ZONE.grid.shape)).astype(np.uint16)
    source = SOURCES.entry("toy_cubes")(source="toy_cubes", shelf=folder).composites()
    season = Season("2023-01", cube)
    with pytest.raises(InputError, match="here"):
        source.survey([(ZONE, season)])
    np.savez(folder / "here.npz", numbers=numbers, seen=(numbers > 0).all(1).astype(np.uint8))
    source.survey([(ZONE, season)])
    workspace = Workspace(folder / "work")
    acquire_cube(source, ZONE, season, workspace)
    np.testing.assert_array_equal(read_composite(workspace.composite("here"), ZONE.grid, cube), numbers[:, ::-1])
    np.testing.assert_array_equal(read_n_obs(workspace.n_obs("here"), ZONE.grid, cube), (numbers > 0).all(1))


def a_family(folder):
    scores, model = fitted("centroid", family("centroid").settings(trim=0.1), folder)
    require_scores(scores, model, (0,))


PROOFS = {
    "tests/own_entries/net.py": a_network,
    "tests/own_entries/recipe.py": a_recipe,
    "tests/own_entries/feature.py": a_feature,
    "tests/own_entries/score.py": a_score,
    "tests/own_entries/sensor.py": a_sensor,
    "tests/own_entries/scenes.py": a_source_of_scenes,
    "tests/own_entries/cubes.py": a_source_of_cubes,
    "tests/nearest_centroid/family.py": a_family,
    "tests/nearest_centroid/served.py": a_family,
}


def test_every_example_is_a_file_that_is_proved():
    """That a block is its file `test_pages` holds."""
    shown = re.findall(r"<!-- file: (\S+) -->\n```python\n", PAGE.read_text())
    assert shown == list(PROOFS)
    assert len(list(blocks(PAGE, "python"))) == len(shown)


@pytest.mark.parametrize("file", PROOFS)
def test_an_example_does_what_it_is_for(file, tmp_path):
    PROOFS[file](tmp_path)


@pytest.mark.parametrize("block", blocks(PAGE, "yaml"), ids=str)
def test_a_snippet_is_a_part_of_a_job(block):
    snippet = yaml.safe_load(block.text)
    job = JobConfig.model_validate({**JOB, **snippet})
    for name in job.search.models:
        assert trials(family(name), job.settings_of(name), job.search, job.seed)


def test_the_recipe_of_the_page_is_that_of_the_whole_job():
    """Which `tests/test_extensions.py` runs."""
    shown = [yaml.safe_load(b.text)["cnn"] for b in blocks(PAGE, "yaml") if b.text.startswith("cnn:")]
    assert {**shown[0], **shown[1], "loss": {"name": "toy_loss", "times": "1e1"}}.items() <= RECIPE.items()


def test_a_new_setting_is_searched_at_once():
    (snippet,) = [yaml.safe_load(b.text) for b in blocks(PAGE, "yaml") if "sampler: random" in b.text]
    job = JobConfig.model_validate({**JOB, **snippet})
    found = trials(family("centroid"), job.settings_of("centroid"), job.search, 0)
    assert len({trial.values["reach"] for trial in found}) == 5
    assert all(50 <= trial.values["reach"] <= 800 and trial.values["trim"] in (0, 0.1) for trial in found)


def test_entry_points_are_those_that_are_looked_for(monkeypatch):
    (block,) = blocks(PAGE, "toml")
    points = tomllib.loads(block.text)["project"]["entry-points"]
    assert points.keys() == {registry.ENTRY_POINTS, families.ENTRY_POINTS}
    asked = []
    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        lambda group: asked.append(group) or [SimpleNamespace(load=dict, name="", value="")],
    )
    for group in points:
        registry.plugged.__wrapped__(group)
    assert asked == list(points)
