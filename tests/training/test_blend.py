"""The mean of other families' models: what it says, how it is scored, kept, read back and served; of pixels and of tiles."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from cropray.core.errors import AccountingError, ConfigError, MissingArtefactError, SchemaError
from cropray.core.legend import IGNORE
from cropray.datasets.tiles import TrainingTiles
from cropray.maps.predict import predict_zone
from cropray.training.blend import fit, served
from cropray.training.blend.fit import greedy
from cropray.training.blend.mean import average
from cropray.training.blend.model import BlendModel
from cropray.training.blend.settings import BlendSettings
from cropray.training.family import FitData, family
from cropray.training.members import Member
from tests.maps.builders import CLASSES, LEGEND, draw_image, field_labels, save_cnn, save_temp_cnn, save_trees
from tests.training.pixel_fits import fit_job, require_scores, xy
from tests.training.tree_rows import val_zones

PARTS = [
    np.array([[0.7, 0.3, 0.0], [0.2, 0.2, 0.6]], np.float32),
    np.array([[0.1, 0.1, 0.8], [0.6, 0.2, 0.2]], np.float32),
]
TREES = {"xgboost": ({"max_depth": 3, "learning_rate": 0.3}, (3, 6)), "forest": ({"max_features": 0.4}, (8,))}


def test_means_are_what_they_are_called():
    np.testing.assert_allclose(average("arithmetic", [1, 1], PARTS), (PARTS[0] + PARTS[1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(average("arithmetic", [3, 1], PARTS), 0.75 * PARTS[0] + 0.25 * PARTS[1], rtol=1e-6)
    product = PARTS[0][1] ** 0.75 * PARTS[1][1] ** 0.25
    np.testing.assert_allclose(average("geometric", [3, 1], PARTS)[1], product / product.sum(), rtol=1e-5)
    for mean in ("arithmetic", "geometric"):
        found = average(mean, [1, 2], PARTS)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(average(mean, [0, 7], PARTS)[1], PARTS[1][1], rtol=1e-5)
        tiles = [part.T.reshape(1, 3, 2, 1) for part in PARTS]  # classes are the second axis of tiles as well
        np.testing.assert_array_equal(average(mean, [1, 2], tiles)[0, :, :, 0].T, found)


def test_no_single_member_rules_a_class_out():
    sure = np.array([[1.0, 0.0]], np.float32)
    others = [np.array([[0.05, 0.95]], np.float32)] * 4
    assert average("geometric", [1] * 5, [sure, *others]).argmax() == 1


def drawn(n, skill, seed):
    """[n, 3] of a model that sees the truth through noise."""
    rng = np.random.default_rng(seed)
    true = np.random.default_rng(0).integers(0, 3, n)
    logits = rng.normal(0, 1, (n, 3)) + skill * np.eye(3)[true]
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32), true.astype(np.uint8)


def test_greedy_weights_heed_who_is_right():
    (good, true), (other, _), (bad, _) = drawn(2000, 2.0, 1), drawn(2000, 1.6, 2), drawn(2000, -2.0, 3)
    counts = greedy("arithmetic", [good, bad, other], true)
    assert counts[0] > counts[2] > counts[1] == 3

    def loss(weights):
        return -np.log(average("arithmetic", weights, [good, bad, other])[np.arange(2000), true]).sum()

    assert loss(counts) < loss([1, 1, 1])
    assert greedy("geometric", [good, good], true) == [3, 3]  # no round helps


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Whether it is a refit → trees of two families, fitted."""
    made = {}
    for is_refit in (False, True):
        made[is_refit] = []
        for name, (values, steps) in TREES.items():
            found, folder = family(name), tmp_path_factory.mktemp(name) / "fit"
            scores = found.fit(fit_job(found.settings(**values), folder, steps, val=False if is_refit else None))
            untrained = scores[0].untrained if scores else ()
            made[is_refit].append(Member(name, found.load, found.prefix, folder, steps[0], untrained))
    return {is_refit: tuple(of) for is_refit, of in made.items()}


def with_rows(members, n_zones, n_rows):
    """Members of which the first is right out of fold, and the second wrong."""

    def reader(skill, zone):
        probabilities, true = drawn(n_rows, skill, zone)
        four = np.concatenate([probabilities, np.full((n_rows, 1), 1e-6, np.float32)], axis=1)
        return lambda: (true, four, np.full(n_rows, str(zone)))

    return tuple(
        replace(member, out_of_fold={str(zone): reader(skill, zone) for zone in range(n_zones)})
        for member, skill in zip(members, (3.0, -3.0), strict=True)
    )


GREEDY = BlendSettings(weighting="greedy")


def test_weights_are_chosen_where_there_are_enough_rows_and_zones(members, tmp_path, caplog):
    family("blend").fit(fit_job(GREEDY, tmp_path, val=False, members=with_rows(members[True], 10, 30)))
    model, x = family("blend").load(tmp_path, "cpu"), xy(val_zones())[0]
    card = json.loads((tmp_path / "card.json").read_text())
    weights = [member["weight"] for member in card["members"]]
    assert weights[0] > weights[1] == 3  # the second one is wrong throughout, and still has a word
    parts = [family(m.name).load(m.folder, "cpu").predict_samples(x) for m in members[True]]
    np.testing.assert_allclose(model.predict_samples(x), average("arithmetic", weights, parts), rtol=1e-6)
    np.testing.assert_array_equal(served._load_pyfunc(str(tmp_path)).predict_samples(x), model.predict_samples(x))
    assert not caplog.text


def test_rows_that_no_member_could_learn_choose_no_weights(members, tmp_path, monkeypatch):
    """Their class is missing in the fold that did not see the zone."""
    seen = []
    monkeypatch.setattr(fit, "greedy", lambda _, parts, true: seen.append((true, [len(p) for p in parts])) or [1, 1])
    unlearnt = {str(zone): (1,) for zone in range(10)}
    given = tuple(replace(member, unlearnt=unlearnt) for member in with_rows(members[True], 10, 200))
    family("blend").fit(fit_job(GREEDY, tmp_path, val=False, members=given))
    ((true, n_rows),) = seen
    assert set(np.unique(true)) == {0, 2}
    assert n_rows == [len(true)] * 2


@pytest.mark.parametrize(("n_zones", "n_rows"), [(9, 500), (10, 29), (0, 0)])
def test_few_rows_have_equal_weights_and_it_is_told(members, tmp_path, caplog, n_zones, n_rows):
    family("blend").fit(fit_job(GREEDY, tmp_path, val=False, members=with_rows(members[True], n_zones, n_rows)))
    assert f"{n_zones * n_rows:,} rows of {n_zones} zones out of fold are too few" in caplog.text
    card = json.loads((tmp_path / "card.json").read_text())
    assert [member["weight"] for member in card["members"]] == [1, 1]


def build(folder, members, *, val=None, settings=None, **changes):
    return family("blend").fit(fit_job(settings or BlendSettings(), folder, val=val, members=members, **changes))


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_a_fold_is_scored_as_the_winning_prefixes_predict(members, tmp_path, mean):
    scores = build(tmp_path, members[False], settings=BlendSettings(mean=mean))
    models = [member.model() for member in members[False]]
    assert models[0].n_steps == 3  # and not all six rounds
    require_scores(scores, BlendModel(tuple(models), {"mean": mean, "members": [{"weight": 1}] * 2}), [0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json"]  # the members' folds keep their models


def test_a_refit_keeps_its_members_and_is_read_back(members, tmp_path):
    assert build(tmp_path, members[True], val=False) == ()
    model, x = family("blend").load(tmp_path, "cpu"), xy(val_zones())[0]
    parts = [family(member.name).load(member.folder, "cpu").predict_samples(x) for member in members[True]]
    np.testing.assert_array_equal(model.predict_samples(x), average("arithmetic", [1, 1], parts))
    assert model.columns == model.members[0].columns
    np.testing.assert_array_equal(served._load_pyfunc(str(tmp_path)).predict_samples(x), model.predict_samples(x))
    card = json.loads((tmp_path / "card.json").read_text())
    assert [member["name"] for member in card["members"]] == list(TREES)
    assert set(card["modules"]) == {f"cropray.training.{name}.served" for name in TREES}
    roots = family("blend").model_entries(card)
    assert {family(name).load for name in TREES} <= set(roots)


def test_a_damaged_mean_is_named(members, tmp_path):
    with pytest.raises(MissingArtefactError, match="holds no model"):
        family("blend").load(tmp_path, "cpu")
    build(tmp_path, members[True], val=False)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "card_version": 99}))
    with pytest.raises(SchemaError, match="99"):
        family("blend").load(tmp_path, "cpu")
    (tmp_path / "card.json").write_text(json.dumps({**card, "members": 7}))
    with pytest.raises(SchemaError, match="is damaged"):
        family("blend").load(tmp_path, "cpu")


def test_lost_rows_are_found(members, tmp_path):
    val = val_zones()
    blocks = {zone_id: block.rows for zone_id, block in val.blocks.items()}
    job = fit_job(BlendSettings(), tmp_path, members=members[False])
    for n_rows in ({"d": 400, "e": 100}, {"d": 399, "e": 101}):
        with pytest.raises(AccountingError):
            family("blend").fit(replace(job, val=FitData(blocks, n_rows)))


def saved(name, folder):
    """A member whose model was saved by hand."""
    save = {"cnn": save_cnn, "xgboost": save_trees, "temp_cnn": save_temp_cnn}[name]
    return Member(name, family(name).load, None, save(folder / name), 1, ())


def test_tiles_and_pixels_are_averaged(tmp_path):
    """Trees, a network over pixels and one over tiles, mapped as one by any windows."""
    parts = tuple(saved(name, tmp_path) for name in ("xgboost", "cnn", "temp_cnn"))
    changes = {"classes": CLASSES, "legend_hash": LEGEND.hash(), "members": parts}
    family("blend").fit(fit_job(BlendSettings(), tmp_path / "refit", val=False, **changes))
    model = family("blend").load(tmp_path / "refit", "cpu")
    cnn = parts[1].model()
    assert (model.columns, model.margin_px, model.stride_px) == ((), cnn.margin_px, cnn.stride_px)
    assert (model.input_shape, model.output_shape) == (cnn.input_shape, cnn.output_shape)
    composite, n_obs, fields = draw_image(50, 61)
    tiles = composite[None]
    expected = average("arithmetic", [1] * 3, [member.model().predict_tiles(tiles) for member in parts])
    np.testing.assert_array_equal(model.predict_samples(tiles), expected)
    served_alone = served._load_pyfunc(str(tmp_path / "refit"))
    np.testing.assert_allclose(
        served_alone.predict_samples(tiles), expected, rtol=1e-5
    )  # networks add rows in another order
    whole, cut = (predict_zone(model, composite, n_obs, (side, side)) for side in (100, 48))
    np.testing.assert_array_equal(whole.class_id, cut.class_id)

    labels = field_labels(fields)
    block = TrainingTiles(tiles[..., :48, :48], labels[None, :48, :48])
    n_labelled = int((block.labels != IGNORE).sum())
    val = FitData({"z": block}, {"z": n_labelled})
    (score,) = family("blend").fit(replace(fit_job(BlendSettings(), tmp_path / "fold", **changes), val=val))
    assert score.confusion.sum() == n_labelled
    lookup = {crop.id: i for i, crop in enumerate(CLASSES)}
    found = model.predict_tiles(block.x[:])[0]
    hits = sum(
        lookup[int(k)] == p.argmax()
        for k, p in zip(block.labels[0].ravel(), found.reshape(5, -1).T, strict=True)
        if k != IGNORE
    )
    assert np.trace(score.confusion) == hits


def test_members_are_the_others_that_the_job_searches():
    searched = ("cnn", "blend", "xgboost", "forest")
    assert BlendSettings().builds_on(searched) == (["cnn", "xgboost", "forest"], [])
    some = BlendSettings(families=("forest", "temp_cnn", "xgboost"))
    assert some.builds_on(searched) == (["xgboost", "forest"], ["temp_cnn"])
    for settings, names in ((BlendSettings(), ("blend", "xgboost")), (some, ("blend", "cnn", "forest"))):
        with pytest.raises(ConfigError, match=r"at least 2 other families.*add some to search\.models"):
            settings.builds_on(names)
    with pytest.raises(ValidationError, match="'oak' is no family"):
        BlendSettings(families=("oak", "forest"))
    with pytest.raises(ValidationError, match="leave it at 0"):
        BlendSettings(num_workers=2)
