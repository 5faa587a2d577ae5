"""What repeats the fits of a search and what does not: changes planted in a copy of the package's sources."""

from dataclasses import replace

import pytest

from cropray.core import closure as closure_module
from cropray.core.keys import differences
from cropray.stages import evaluate
from cropray.stages.family_search import fit_key
from cropray.training.cnn.settings import CnnSettings
from cropray.training.family import family
from cropray.training.xgboost.settings import XgboostSettings
from tests.synthetic import entry, manifest

DATASET = manifest(entry("a", 0), entry("b", 1), entry("t", None))
SETTINGS = {"cnn": CnnSettings(), "xgboost": XgboostSettings()}


def keys(dataset=DATASET, seed=0, **settings):
    return {model: fit_key(family(model), settings.get(model, SETTINGS[model]), dataset, seed) for model in SETTINGS}


@pytest.fixture(scope="module")
def before():
    return keys()


def repeated(before, after):
    return [model for model in before if before[model].digest != after[model].digest]


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("training/xgboost/fit.py", "def train_xgboost", "# what follows trains\ndef train_xgboost"),
        (
            "training/deep/loop.py",
            '"""Train until validation stops improving',
            '"""Fit until validation stops improving',
        ),
        ("training/deep/loop.py", "    best = None\n", "    best: FitResult | None = None\n"),
        ("training/cnn/settings.py", "    dropout: float", "    momentum: float = 0.0\n    dropout: float"),
        (
            "io/workspace.py",
            "    @property\n    def report",
            "    @property\n    def more(self):\n        return 1\n\n    @property\n    def report",
        ),
        ("report/page.py", "def render_page", "def other():\n    return 1\n\n\ndef render_page"),
        ("__init__.py", '__version__ = "', '__version__ = "9.'),
    ],
    ids=["comment", "docstring", "annotation", "field", "path", "report", "release"],
)
def test_what_repeats_nothing(before, plant, path, old, new):
    plant(path, old, new)
    assert repeated(before, keys()) == []


@pytest.mark.parametrize(
    ("planted", "models", "place"),
    [
        (("datasets/manifest.py", "if zone.fold != fold", "if zone.fold > fold"), ["cnn", "xgboost"], "Manifest.fold_zones"),
        (("training/deep/tiles.py", "def normalise(self, x: Tensor) -> Tensor:", "def normalise(self, x, y=0):"), ["cnn"], "ChannelStats.normalise"),
        (("training/deep/losses.py", 'how = "none"', 'how = "mean"'), ["cnn"], "losses:CrossEntropy"),
        (("nets/unet.py", "import torch", "import torch\n\ntorch.manual_seed(1)"), ["cnn"], "nets.unet"),
        (("core/metrics.py", "Ratios(2 * hits, supp", "Ratios(3 * hits, supp"), ["cnn", "xgboost"], "metrics:_f1s"),
        (("training/pixel_blocks.py", "for name in columns]", "for name in columns[::-1]]"), ["xgboost"], "pixel_blocks:samples"),
    ],
    ids=["folds", "normalisation", "loss", "network", "metric", "features"],
)  # fmt: skip
def test_what_repeats_the_fits_that_depend_on_it(before, plant, planted, models, place):
    plant(*planted)
    after = keys()
    assert repeated(before, after) == models
    for model in models:
        told = next(differences(before[model].parts, after[model].parts), None)
        assert told.startswith("code of cropray.")
        assert place in told


def test_the_library_that_computes(before, monkeypatch):
    releases = {"xgboost": "9.9"}
    version = closure_module.importlib.metadata.version
    monkeypatch.setattr(closure_module.importlib.metadata, "version", lambda name: releases.get(name) or version(name))
    after = keys()
    assert repeated(before, after) == ["xgboost"]
    assert "xgboost was" in next(differences(before["xgboost"].parts, after["xgboost"].parts), None)


def test_resources_and_test_zones_repeat_nothing(before):
    cnn = CnnSettings(num_workers=4, use_gpu=True, cpus_per_worker=2, memory_gb=3, checkpoint_every=7, max_failures=0)
    trees = XgboostSettings(engine="xgboost_ray", num_workers=3, device="cuda", memory_gb=2, cpus_per_worker=8)
    relabelled = replace(DATASET, zones=(*DATASET.zones[:2], entry("t", None, {"wheat": 1}, files={"x": "1"})))
    assert repeated(before, keys(relabelled, cnn=cnn, xgboost=trees)) == []


def test_workers_that_draw_rows_of_their_own_repeat_trees():
    alone, three = (keys(xgboost=XgboostSettings(subsample=0.5, num_workers=n)) for n in (0, 3))
    assert repeated(alone, three) == ["xgboost"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (keys(seed=1), "seed was 0, is 1"),
        (keys(replace(DATASET, zones=(entry("a", 1), *DATASET.zones[1:]))), "training zones changed"),
        (keys(cnn=CnnSettings(dropout=0.1), xgboost=XgboostSettings(max_depth=3)), "setting "),
    ],
    ids=["seed", "zone", "settings"],
)
def test_content_and_settings_that_decide(before, changed, told):
    assert repeated(before, changed) == ["cnn", "xgboost"]
    assert next(differences(before["cnn"].parts, changed["cnn"].parts), None).startswith(told)


@pytest.mark.parametrize(
    ("path", "old", "new", "is_other"),
    [
        ("training/decision.py", ".argmax(axis)", ".argmin(axis)", True),
        ("training/deep/losses.py", 'how = "none"', 'how = "mean"', False),
        ("stages/labels.py", "_UPLOADS: Final = 8", "_UPLOADS: Final = 9", False),
    ],
)
def test_what_counts_test_zones_again(plant, path, old, new, is_other):
    before = closure_module.code_digest(family("xgboost").load, *evaluate._COUNTING)
    plant(path, old, new)
    assert (closure_module.code_digest(family("xgboost").load, *evaluate._COUNTING) != before) == is_other
