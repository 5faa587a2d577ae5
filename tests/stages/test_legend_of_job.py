"""A job's own legend, wherever class ids are given or read."""

import contextlib
import io

import pytest

from cropray.commands import doctor
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, CroprayError, InputError
from cropray.core.legend import bundled_legend
from cropray.core.progress import Progress
from cropray.datasets.manifest import load_entry, load_manifest
from cropray.io.storage import write_json
from cropray.io.zones import write_zones
from cropray.parcels.legend_file import read_legend
from cropray.stages import dataset, labels
from cropray.stages import map as map_stage
from cropray.stages.inputs import job_zones, legend_of, register_year
from cropray.stages.pipeline import PIPELINE, check_job
from tests.jobs import job as landscape_job
from tests.synthetic import write_artefacts, zone, zone_arrays

TEXT = "code,class,name\nBTH,wheat,Wheat\nMIS,maize,Maize\nPPH,grass,Meadow\nTRN,sunflower,Sunflower\n"
NAMES = ("wheat", "maize", "grass", "sunflower")


@pytest.fixture
def legend(tmp_path):
    path = tmp_path / "legend.csv"
    path.write_text(TEXT)
    return path


@pytest.fixture
def job(tmp_path, legend):
    """A job of three zones with labels and composites, of four classes."""
    zones = [zone(name, "test" if name == "t" else "train", size=40, x_min=500_000 + 20_000 * i)
             for i, name in enumerate("abct")]  # fmt: skip
    write_zones(zones, tmp_path / "zones.csv")
    content = {
        "name": "own", "workspace": tmp_path / "work", "zone_table": tmp_path / "zones.csv",
        "imagery": {"folder": tmp_path}, "parcels": {"path": tmp_path / "p.gpkg", "legend": legend},
        "dataset": {"tile_size": 16, "n_folds": 3},
    }  # fmt: skip
    config = JobConfig.model_validate(content)
    for seed, one in enumerate(zones):
        write_artefacts(config.artefacts, one, zone_arrays((40, 40), seed=seed))
    return config


@pytest.fixture
def built_here(monkeypatch):
    """The dataset's zones are built in this process."""

    def build(tasks, config, progress):
        for task in tasks:
            task.run()
        return [load_entry(config.artefacts.zone_entry(task.zone_id)) for task in tasks]

    monkeypatch.setattr(dataset, "_build", build)
    monkeypatch.setattr(dataset, "ray_session", lambda _: contextlib.nullcontext())


def test_without_a_file_it_is_the_french_one(tmp_path):
    sources = {"imagery": {"folder": tmp_path}, "parcels": {"path": tmp_path / "p.gpkg"}}
    assert (
        legend_of(JobConfig.model_validate({"name": "a", "workspace": tmp_path, **sources}).parcels) is bundled_legend()
    )


def test_the_dataset_has_the_classes_of_the_file(job, built_here, legend):
    dataset.run(job, Progress(io.StringIO()))
    manifest = load_manifest(job.artefacts.manifest)
    own = read_legend(legend)
    assert manifest.classes == own.classes
    assert manifest.legend_hash == own.hash() != bundled_legend().hash()
    assert {name for entry in manifest.zones for name in entry.counts} == set(NAMES)
    groups = TEXT.replace("name", "name,level_1,level_2,level_3").replace("Wheat", "Wheat,a,b,c")
    legend.write_text(groups.replace("Maize", "Maize,d,e,f").replace("Meadow", "Meadow,,,").replace("er\n", "er,,,\n"))
    dataset.run(job, Progress(io.StringIO()))
    assert load_manifest(job.artefacts.manifest).classes[0].levels == ("a", "b", "c")


def refuse_another_legend(action, *said):
    with pytest.raises(InputError) as error:
        action()
    for text in ("another legend than the job's", "parcels.legend", *said):
        assert text in str(error.value)


def test_labels_of_another_legend_are_refused(job, built_here, legend):
    for zone_id in "abt":
        write_json(job.artefacts.label_report(zone_id), {"year": 2023, "legend_hash": read_legend(legend).hash()})
    dataset.run(job, Progress(io.StringIO()))
    legend.write_text(TEXT.replace("BTH", "BTP"))
    refuse = ("labels of zone 'a' and 2 more", "run `cropray labels")
    refuse_another_legend(lambda: dataset.run(job, Progress(io.StringIO())), *refuse)


def test_maps_of_a_model_of_another_legend_are_refused(job, legend):
    for model in job.search.models:
        folder = job.artefacts.model(model)
        folder.mkdir(parents=True)
        said = read_legend(legend) if model == "cnn" else bundled_legend()
        write_json(folder / "card.json", {"legend_hash": said.hash()})
    refuse_another_legend(lambda: map_stage.run(job, Progress(io.StringIO())), "model 'xgboost'", "run `cropray search")


@pytest.mark.parametrize("season", ["2009-10", "2026-01"])
def test_no_year_is_beyond_a_legend_of_ones_own(job, season):
    other = job.model_copy(update={"season_start": season})
    assert register_year(zone(), other) == int(season[:4]) + (season == "2009-10")
    french = other.model_copy(update={"parcels": other.parcels.model_copy(update={"legend": None})})
    with pytest.raises(ConfigError, match=r"set parcels.year .* or parcels.legend"):
        register_year(zone(), french)


def refusal(config, stages=PIPELINE):
    with pytest.raises(CroprayError) as error:
        check_job(config, stages)
    return str(error.value)


def test_the_legend_is_looked_at_before_anything_starts(landscape, tmp_path, legend):
    def config(path=landscape.parcels, file=legend):
        return JobConfig.model_validate(
            landscape_job(landscape, tmp_path / "work", parcels={"path": str(path), "legend": str(file)})
        )

    check_job(config(), PIPELINE)
    assert str(legend) in doctor._check_inputs(config())
    assert refusal(config(file=tmp_path / "none.csv")).startswith("legend '")
    both = refusal(config(path=tmp_path / "none.gpkg", file=tmp_path / "none.csv"))
    assert both.startswith("2 things")
    assert refusal(config(path=tmp_path / "none.gpkg")).startswith("parcel file '")
    legend.write_text("code,class\n101,wheat\n")
    text = refusal(config())
    assert "no line for any code of the register: the register has '" in text
    assert "'BTH'" in text
    legend.write_text("code,class\n101,\n")
    for stages in (PIPELINE, ["labels"], ["dataset"], ["map"]):
        assert "line 2 has no class" in refusal(config(), stages)


def test_the_path_of_the_legend_is_no_part_of_what_labels_are_made_of(landscape, tmp_path, legend):
    def keys(file):
        parcels = {"path": str(landscape.parcels), "legend": str(file)}
        config = JobConfig.model_validate(landscape_job(landscape, tmp_path / "work", parcels=parcels))
        tasks = labels._tasks(
            config, config.parcels, job_zones(config), legend_of(config.parcels), tmp_path / "extract.gpkg"
        )
        return [task.inputs.digest for task in tasks]

    before = keys(legend)
    other = tmp_path / "moved.csv"
    other.write_text(legend.read_text())
    assert keys(other) == before
    other.write_text(TEXT.replace("Meadow", "Pasture"))
    assert set(keys(other)).isdisjoint(before)
