"""A network, a loss, a sampler, an optimiser, a schedule and an augmentation of one's own: no line of the package changes."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from cropray.core.closure import closure
from cropray.core.settings import Settings
from cropray.search.sampling import trials
from cropray.search.space import SearchSettings, complete, space_of, title
from cropray.stages.family_search import fit_key
from cropray.training.cnn.model import CnnModel
from cropray.training.cnn.settings import CnnSettings
from cropray.training.deep.augment import chosen
from cropray.training.deep.fit import NetworkData
from cropray.training.family import family
from tests.own_entries.job import JOB
from tests.own_entries.net import ToyConfig, ToyNet
from tests.own_entries.recipe import ToyChange, ToyLoss, ToyOptimizer, ToySampler
from tests.study import INPUT
from tests.synthetic import entry, manifest
from tests.training.cnn_fits import train_cnn
from tests.training.small_fits import CLASSES, LOOKUP, STATS, block

OWN = "tests.own_entries."


def data():
    return NetworkData({"b": block(0), "a": block(1)}, {"c": block(2)}, STATS, LOOKUP, CLASSES, "h")


class LostError(Exception):
    """The process, as far as a fit can tell."""


def lose_at_two(record):
    if record["epoch"] == 2:
        raise LostError


@pytest.fixture
def used(monkeypatch):
    """What a fit calls of the entries, and with what."""
    found = []

    def watch(entry, method, seen):
        called = getattr(entry, method)

        @functools.wraps(called)
        def watched(self, *given):
            found.append(seen(self, *given))
            return called(self, *given)

        monkeypatch.setattr(entry, method, watched)

    def of_net(net, _x, context):
        assert context.steps.tolist() == list(range(12))
        return "net", context.seeds is not None, net.config.width

    watch(ToyNet, "forward", of_net)
    watch(ToyLoss, "__call__", lambda loss, *_: ("loss", loss.times))
    watch(ToyChange, "series", lambda change, _x, _seeds, std: ("augment", change.by, len(std)))
    watch(ToySampler, "order", lambda sampler, *_: ("sampler", sampler.share))
    watch(ToyOptimizer, "make", lambda optimizer, *_: ("optimizer", optimizer.alpha))
    return found


def test_own_entries_train_are_resumed_saved_read_and_predict(tmp_path, used):
    settings = CnnSettings.model_validate(JOB)
    through = train_cnn(settings, data(), 5, tmp_path / "through")
    assert {one[0] for one in used} == {"net", "loss", "augment", "sampler", "optimizer"}
    assert {("net", True, 6), ("net", False, 6), ("loss", 10.0), ("augment", 3.0, 4), ("sampler", 0.75)} <= set(used)
    with pytest.raises(LostError):
        train_cnn(settings, data(), 5, tmp_path / "lost", lose_at_two, progress=tmp_path / "progress")
    train_cnn(settings, data(), 5, tmp_path / "lost", progress=tmp_path / "progress")
    for file in ("card.json", "weights.safetensors"):
        assert (tmp_path / "lost" / file).read_bytes() == (tmp_path / "through" / file).read_bytes()
    model = CnnModel.read(tmp_path / "through", "cpu")
    assert (model.margin_px, model.stride_px) == (0, 1)
    assert model.checkpoint.model.config == ToyConfig(n_classes=4, **INPUT, width=6, layers=(2, 3), dropout=0.1)
    probabilities = model.predict_tiles(block(2).x)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    true = LOOKUP[block(2).labels]
    hits = (probabilities.argmax(1) == true)[true != 255].sum()
    assert hits == np.trace(through.validation.confusion)


def test_settings_of_entries_travel_as_they_were_written():
    settings = CnnSettings.model_validate(JOB)
    assert settings.loss == {"name": "toy_loss", "times": 10.0}
    assert settings.net == {"name": "toy_net", "width": 6, "layers": (2, 3)}
    assert settings.schedule == "toy_schedule"
    assert CnnSettings.model_validate(json.loads(settings.model_dump_json())) == settings


def test_entries_and_their_settings_are_searched():
    values = {
        "net": ["conv_unet", {"name": "toy_net", "width": 5}],
        "loss": ["cross_entropy", {"name": "focal", "gamma": 1.5}],
        "augment": [False, ["shift", {"name": "noise", "sd": 0.2}]],
    }
    space = space_of(family("cnn")).model_validate({**values, "kernel_size": None, "learning_rate": None})
    search = complete()(cnn=space)
    assert isinstance(search, SearchSettings)
    assert isinstance(search, Settings)
    found = trials(family("cnn"), CnnSettings(), search, 0)
    assert len(found) == 8
    assert title(found[-1].values) == "net=toy_net(width=5) loss=focal(gamma=1.5) augment=shift-noise(sd=0.2)"
    assert CnnSettings().with_values(json.loads(json.dumps(found[-1].values))).net == {"name": "toy_net", "width": 5}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": "focus"}, "'focus' is no loss; did you mean 'focal'?"),
        ({"loss": {"name": "focal", "gama": 2}}, "'focal' has no setting 'gama'; did you mean 'gamma'?"),
        ({"loss": {"name": "focal", "gamma": "much"}}, "focal.gamma: Input should be a valid number"),
        ({"loss": {"name": "focal", "gamma": -2}}, "focal: gamma must be at least 0; got -2"),
        ({"loss": {"gamma": 2}}, "names nothing: write {name: …}"),
        ({"schedule": {"name": "cosine", "warmup": 1}}, "'cosine' has no setting 'warmup'; it has none"),
        ({"augment": ["shift", "turn"]}, "'turn' is no augmentation; known are bands, dihedral"),
        ({"sampler": "al"}, "'al' is no sampler; did you mean 'all'?"),
        ({"optimizer": "adam"}, "'adam' is no optimizer; did you mean 'adamw'?"),
        ({"net": "unet"}, "'unet' is no network; did you mean 'conv_unet'?"),
        ({"net": {"name": "toy_net", "widths": 3}}, "'toy_net' has no setting 'widths'; did you mean 'width'?"),
        ({"net": {"name": "toy_net", "n_classes": 3}}, "'toy_net' has no setting 'n_classes'"),
        ({"net": "toy_net", "unet_channels": [8]}, "unet_channels = (8,) is no setting of the network 'toy_net'"),
        ({"net": {"name": "conv_unet", "pool": "most"}}, "conv_unet.pool"),
    ],
)
def test_what_is_not_known_is_said(given, said):
    with pytest.raises(ValueError) as refused:
        CnnSettings.model_validate(given)
    assert said in str(refused.value)


def test_the_code_of_an_entry_is_a_part_of_the_fits_that_choose_it_alone():
    dataset = manifest(entry("a", 0), entry("b", 1), entry("t", None))
    plain, toy = (fit_key(family("cnn"), CnnSettings.model_validate(job), dataset, 0).parts for job in ({}, JOB))
    own = {name.partition(":")[2].partition(".")[0] for name in toy["code"] if name.startswith(OWN)}
    assert {"ToyNet", "ToyConfig", "ToyLoss", "ToyChange", "ToySampler", "ToyOptimizer", "ToySchedule"} <= own
    assert not [name for name in plain["code"] if name.startswith(OWN) or ":Focal" in name or "TempCnn" in name]
    assert [name for name in plain["code"] if name.endswith(":CropNet")]
    assert not [name for name in closure(family("cnn").load).symbols if name.endswith((":CropNet", ":TempCnn"))]


def test_every_network_is_in_the_catalogue():
    """A registered model carries what the catalogue imports."""
    from cropray.nets import catalogue

    folder = Path(catalogue.__file__).parent
    registered = {path.stem for path in folder.glob("*.py") if "@NETS.register(" in path.read_text()}
    assert registered == set(catalogue.__all__)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("temp_cnn", {"kernel_size": 4}, "kernel_size.*must be odd"),
        ("cnn", {"net": {"name": "temp_cnn", "kernel_size": 2}}, "must be odd"),
        ("cnn", {"unet_channels": [8, 0]}, "unet_channels.1"),
        ("cnn", {"net": {"name": "conv_unet", "unet_channels": [8, 0]}}, "each of one channel or more"),
        ("cnn", {"schedule": {"name": "one_cycle", "end": -1}}, "start and end must be above 0"),
        ("cnn", {"augment": ["dihedral", "shift", "dihedral"]}, "dihedral stand twice"),
        ("temp_cnn", {"augment": [{"name": "noise", "sd": 0.1}, {"name": "noise", "sd": 0.2}]}, "noise stand twice"),
        ("cnn", {"augment": {"name": "none", "by": 1}}, "'none' has no setting 'by'"),
        (
            "temp_cnn",
            {"net": {"name": "conv_unet", "unet_channels": [8]}},
            "'conv_unet' looks at pixels around .*as ltae",
        ),
        (
            "temp_cnn",
            {"net": {"name": "utae", "widths": [16, 16]}},
            "'utae' looks at pixels around .*margin 12, stride 2",
        ),
        (
            "temp_cnn",
            {"net": {"name": "tsvit", "spatial_depth": 1}},
            "'tsvit' looks at pixels around .*margin 0, stride 12",
        ),
    ],
)
def test_what_no_fit_could_take_is_refused_with_the_job_file(name, given, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        family(name).settings.model_validate(given)


@pytest.mark.parametrize("given", ["none", {"name": "none"}, ["none"], [{"name": "none"}]])
def test_no_augmentation_is_one_choice_among_others(given):
    assert chosen(CnnSettings.model_validate({"augment": given}).augment) == ()
