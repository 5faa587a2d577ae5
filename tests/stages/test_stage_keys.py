"""What makes the artefacts of a stage again and what does not: changes of sources, settings and content."""

import datetime as dt

import pytest

from cropray.core.cube import Season
from cropray.core.keys import differences
from cropray.core.legend import bundled_legend
from cropray.datasets.build import ZoneJob
from cropray.datasets.manifest import BandSums
from cropray.datasets.separation import Trim
from cropray.imagery.scenes import Found, Scene
from cropray.imagery.sources.earth_engine.months import listing_key
from cropray.imagery.sources.files.scenes import FilesSettings
from cropray.imagery.sources.stac.settings import StacSettings
from cropray.parcels import rpg
from cropray.stages import dataset, evaluate, labels, pictures, zones
from cropray.stages import map as map_stage
from cropray.stages.inputs import acquisition_of, legend_of
from tests.planning.test_estimate import job
from tests.synthetic import entry, manifest, zone

ZONE, LEGEND = zone("a"), bundled_legend()
DATASET = manifest(entry("a", 0), entry("b", 1), entry("t", None), entry("u", None))
FILES, STAC = FilesSettings(folder="/scenes"), StacSettings(source="stac")


@pytest.fixture(scope="module")
def keys_of(tmp_path_factory):
    """What each stage would make its artefacts from: of a job and a dataset whose files nobody reads."""
    parcels = tmp_path_factory.mktemp("parcels") / "parcels.parquet"
    parcels.touch()
    patched = pytest.MonkeyPatch()
    patched.setattr(rpg, "has_spatial_index", lambda _: True)
    patched.setattr(map_stage, "_content", lambda *_: {"composite": "1"})
    patched.setattr(pictures, "require", lambda path, _: path)
    patched.setattr(pictures, "_months", lambda _, dataset: dict.fromkeys(dataset.zone_ids, ("Jan 2023",)))
    for module in (map_stage, evaluate):
        patched.setattr(module, "folder_hash", lambda _: "1")
    patched.setattr(evaluate, "load_search", lambda *_: {})

    def keys_of(of_dataset=DATASET, read=None, **changes):
        of_zone = {"composite": "1", "labels": "1"} | (read or {})
        changes.setdefault("parcels", {"path": str(parcels)})
        config = job(**changes)
        (drawing, *_) = drawings = pictures._drawings(config, of_dataset)
        jobs = [ZoneJob(ZONE, 0, 32, ("wheat",), Trim(), config.artefacts)]
        found = {
            "zones": zones._table(config, [ZONE]).inputs,
            "acquire": acquired(config),
            "labels": labels._tasks(config, config.parcels, [ZONE], LEGEND, None)[0].inputs,
            "dataset": dataset._whole(config, dataset._of_all(LEGEND, {"a": of_zone}), dataset._OF_ZONES).inputs,
            "dataset zone": dataset._tasks(config, jobs, {"a": of_zone}, legend_of(config.parcels))[0].inputs,
            "counts": evaluate._tasks(config, "cnn", of_dataset)[0].inputs,
            "scores": evaluate._scores_of(config, "cnn", of_dataset).inputs,
            "map": map_stage._tasks(config, "cnn", [ZONE])[0].inputs,
            "pictures": pictures._tasks(config, drawings, of_dataset)[0].inputs,
        }
        assert drawing.has_film
        return found

    yield keys_of
    patched.undo()


def acquired(config, scenes=()):
    work = acquisition_of(config, [ZONE])
    work.found = {"a": Found(scenes)}
    return work.inputs(ZONE)


@pytest.fixture(scope="module")
def before(keys_of):
    return keys_of()


def told_of(before, after):
    return list(differences(before.parts, after.parts))


def again(before, after):
    return [name for name in before if before[name].digest != after[name].digest]


@pytest.mark.parametrize(
    "planted",
    [
        ("imagery/gapfill.py", "def fill_gaps", "# what follows fills\ndef fill_gaps"),
        ("datasets/build.py", '"""Write one zone', '"""Store one zone'),
        ("maps/settings.py", "    splits:", "    overviews: bool = True\n    splits:"),
        ("datasets/settings.py", "    n_folds:", "    seedling: int = 0\n    n_folds:"),
        ("imagery/sources/stac/scenes.py", "offset = scene.offset", "offset = -scene.offset"),
        ("imagery/sources/earth_engine/months.py", "n_scenes[position] = len", "n_scenes[position] = 1 + len"),
        ("stages/labels.py", "_UPLOADS: Final = 8", "_UPLOADS: Final = 9"),
        ("cluster/tasks.py", "_LOOK_S: Final = 10.0", "_LOOK_S: Final = 9.0"),
        ("io/workspace.py", "return not self.why_stale(", "return not list(self.why_stale)("),
        ("report/page.py", "def render_page", "def other():\n    return 1\n\n\ndef render_page"),
    ],
    ids=["comment", "docstring", "field", "another field", "another source", "another service", "threads", "pace",
         "stamps", "page"],
)  # fmt: skip
def test_what_makes_nothing_again(before, keys_of, plant, planted):
    plant(*planted)
    assert again(before, keys_of()) == []


@pytest.mark.parametrize(
    ("planted", "made", "place"),
    [
        (("imagery/composite.py", "def monthly_median(", "def monthly_median(_more=0, *, "), ["acquire"], "composite:monthly_median"),
        (("imagery/gapfill.py", "def _carry(", "def _carry(_more, "), ["acquire"], "gapfill:_carry"),
        (("parcels/labels.py", "def label_zone(", "def label_zone(_more, "), ["labels"], "labels:label_zone"),
        (("core/folds.py", "n_larger = divmod", "n_larger = 1 and divmod"), ["dataset"], "folds:_open_folds"),
        (("datasets/separation.py", "groups = [_group(zone, folds)", "groups = [_group(zone, {**folds})"), ["dataset"], "separation:separate"),
        (("datasets/tiles.py", "def cut_tiles(", "def cut_tiles(_more, "), ["dataset", "dataset zone"], "tiles:cut_tiles"),
        (("training/decision.py", ".argmax(axis)", ".argmin(axis)"), ["counts", "scores", "map"], "decision:Decision.decide"),
        (("evaluation/models.py", "tempered(self.model.predict_tiles(shown_to(self, x)), 1)", "tempered(self.model.predict_tiles(shown_to(self, x)), -3)"), ["counts", "scores", "map"], "models:_CardModel.predict_tiles"),
        (("evaluation/zone_counts.py", "math.fsum(loss", "sum(loss"), ["counts", "scores"], "zone_counts:count_zone_pixels"),
        (("report/films.py", "def draw_film(", "def draw_film(_more, "), ["pictures"], "films:draw_film"),
    ],
    ids=["median", "gap filling", "labels", "folds", "borders", "tiles", "decision", "temperature", "counting", "films"],
)  # fmt: skip
def test_a_rule_makes_again_what_depends_on_it(before, keys_of, plant, planted, made, place):
    plant(*planted)
    after = keys_of()
    assert again(before, after) == made
    for name in made:
        told = told_of(before[name], after[name])[0]
        assert told.startswith("code of cropray.")
        assert place in told


@pytest.mark.parametrize(
    ("changes", "made", "told"),
    [
        ({"map": {"device": "cuda", "splits": "all"}}, [], None),
        ({"cluster": {"num_cpus": 7}, "search": {"max_failures": 9}}, [], None),
        ({"dataset": {"max_unknown_share": 0.5}}, [], None),
        ({"decision": {"rule": "prior", "calibrate": True}}, [], None),  # it changes the model, and that these
        ({"map": {"window_px": 64}}, ["counts", "scores", "map"], "setting map.window_px was None, is 64"),
        ({"dataset": {"n_folds": 5}}, ["dataset"], "setting dataset.n_folds was 3, is 5"),
        ({"dataset": {"tile_size": 64}}, ["dataset", "dataset zone"], "setting dataset.tile_size was 32, is 64"),
        ({"search": {"leave_region_out": True}}, ["dataset"], "search.leave_region_out was False, is True"),
        ({"report": {"film_px": 300}}, ["pictures"], "setting report.film_px was 256, is 300"),
        ({"season_start": "2022-03"}, ["zones", "acquire", "labels"], None),
        ({"seed": 3}, ["scores"], "seed was 0, is 3"),
    ],
)
def test_settings(before, keys_of, changes, made, told):
    after = keys_of(**changes)
    assert again(before, after) == made
    for name in made if told else ():
        assert told_of(before[name], after[name]) == [told]


def test_settings_of_labels_that_judge_all_zones_label_none_again(before, keys_of):
    path = before["labels"].parts["settings"]["parcels.path"]
    assert again(before, keys_of(parcels={"path": path, "max_unmapped_share": 0.9})) == []
    after = keys_of(parcels={"path": path, "inner_buffer_m": 10})
    assert again(before, after) == ["labels"]
    assert told_of(before["labels"], after["labels"]) == ["setting parcels.inner_buffer_m was 0.0, is 10.0"]


def test_content_is_named(before, keys_of):
    after = keys_of(read={"labels": "f" * 64})
    assert again(before, after) == ["dataset", "dataset zone"]
    assert told_of(before["dataset"], after["dataset"]) == ["labels of zone a changed"]
    assert told_of(before["dataset zone"], after["dataset zone"]) == ["labels changed"]


def test_another_test_zone_is_counted_alone(before, keys_of):
    """Its labels decide the scores of all, and no other zone's counts."""
    sums = BandSums((1,) * 4, (3.0,) * 4, (9.0,) * 4)
    changed = manifest(*DATASET.zones[:3], entry("u", None, sums=sums))
    after = keys_of(changed)
    assert again(before, after) == ["scores"]
    assert told_of(before["scores"], after["scores"]) == ["zone u of the dataset changed"]
    one, other = (evaluate._content_of_counts("1", of, of.zones[3]) for of in (DATASET, changed))
    assert one != other


def test_scenes_are_named_and_choosing_or_fetching_them_otherwise_changes_nothing():
    def key(scenes, **changes):
        return acquired(job(imagery={"source": "stac", **changes}), scenes)

    one, two = (Scene(name, dt.datetime(2023, 5, 1, tzinfo=dt.UTC), name) for name in ("S2A_1", "S2B_2"))
    first = key((one, two))
    for changes in ({"max_cloud_cover": 40}, {"read_threads": 3}, {"max_attempts": 2}, {"exclude": ["S2C_3"]}):
        assert key((one, two), **changes).digest == first.digest
    assert told_of(first, key((one,)))[0] == "scene S2B_2 does not count any more"
    assert told_of(first, key((one, two), offset=-1000))[0] == "setting imagery.offset was auto, is -1000"


def test_earth_engine_is_asked_again_for_no_code_and_no_account():
    def artefact(**changes):
        config = job(imagery={"source": "earth_engine", "project": "p", **changes})
        return acquisition_of(config, [ZONE]).inputs(ZONE)

    first = artefact()
    assert first.parts["code"] == {}
    assert artefact(project="q", max_concurrent=3, min_window_px=128).digest == first.digest
    told = told_of(first, artefact(collection="COPERNICUS/S2_SR"))
    assert told == ["setting imagery.collection was COPERNICUS/S2_SR_HARMONIZED, is COPERNICUS/S2_SR"]
    config = job(imagery={"source": "earth_engine", "project": "p"})
    assert acquisition_of(config, [ZONE]).earlier(ZONE) == listing_key(
        config.imagery, ZONE, Season(config.season_start)
    )
