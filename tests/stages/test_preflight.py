"""All that is wrong is told before the first stage starts, in one list."""

import sys

import geopandas
import pytest
import shapely

from cropray.commands import doctor
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, CroprayError, InputError, MissingArtefactError
from cropray.io.zones import read_zones
from cropray.stages import preflight
from cropray.stages.pipeline import PIPELINE, check_job
from tests.jobs import job

CNN = {"use_gpu": True}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def config(landscape, tmp_path):
    """Makes the job with some changes."""
    return lambda **changes: JobConfig.model_validate(job(landscape, tmp_path / "work", **changes))


def refusal(config, stages=PIPELINE, kind=CroprayError):
    with pytest.raises(kind) as error:
        check_job(config, stages)
    return str(error.value)


def test_a_job_that_can_run_passes(config):
    check_job(config(), PIPELINE)


def test_one_thing_is_told_as_the_stage_would(config, tmp_path):
    text = refusal(config(parcels={"path": str(tmp_path / "none.gpkg")}), kind=InputError)
    assert text.startswith("parcel file '")
    assert "none.gpkg' does not exist" in text


def test_all_that_is_wrong_is_in_one_list(config, tmp_path):
    wrong = config(
        parcels={"path": str(tmp_path / "none.gpkg")},
        imagery={"folder": str(tmp_path / "no_scenes")},
        season_start="2031-01",
        tracking_uri="mlflow.example.org:5000",
        cluster={"address": "http://head:8265"},
    )
    text = refusal(wrong)
    assert text.startswith("5 things are to be mended")
    for said in ("none.gpkg", "no_scenes", "2031", "tracking_uri", "cluster.address"):
        assert said in text
    assert len(text.splitlines()) == 6


def test_a_zone_table_that_is_not_there_stands_beside_the_rest(config, tmp_path):
    text = refusal(config(zone_table=str(tmp_path / "no.csv"), parcels={"path": str(tmp_path / "none.gpkg")}))
    assert text.startswith("2 things")
    assert "no.csv" in text


def test_the_column_of_codes_is_looked_for_before_the_acquisition(config, landscape):
    text = refusal(config(parcels={"path": str(landscape.parcels), "code_column": "CULTURE"}))
    assert "no column 'CULTURE'" in text


def test_zones_beside_all_parcels_are_named(config, landscape, tmp_path):
    zones = read_zones(landscape.zones)
    first, epsg = zones[0], zones[0].grid.epsg
    polygon = shapely.box(*first.grid.bounds).buffer(-50)
    frame = geopandas.GeoDataFrame({"ID_PARCEL": ["1"], "CODE_CULTU": ["BTH"]}, geometry=[polygon], crs=epsg)
    frame.to_crs(2154).to_file(tmp_path / "one.gpkg")
    few = config(parcels={"path": str(tmp_path / "one.gpkg")})
    text = refusal(few, kind=InputError)
    assert f"5 of 6 zones lie outside of all parcels of '{tmp_path / 'one.gpkg'}'" in text
    assert f": {zones[1].zone_id}" in text
    check_job(few, ["labels"])  # which labels the first zone, and says that of the others


def test_inputs_of_stages_that_do_not_run_are_not_asked_for(config, tmp_path):
    away = config(parcels={"path": str(tmp_path / "none.gpkg")}, imagery={"folder": str(tmp_path / "none")})
    check_job(away, ["zones"])


def test_the_maps_of_a_choice_of_zones(config, tmp_path):
    choice = {
        "worldcover": {"source": "files", "path": str(tmp_path / "cover")},
        "region_table": str(tmp_path / "r.csv"),
    }
    chosen = config(zone_table=None, zone_selection=choice)
    text = refusal(chosen)
    assert "r.csv" in text
    assert "zone_selection.worldcover.path" in text
    assert "run `cropray zones CONFIG.yaml` first" in refusal(chosen, ["labels"])


@pytest.mark.parametrize(
    ("stage", "made_by"),
    [
        ("search", ["dataset"]),
        ("evaluate", ["dataset", "search"]),
        ("map", ["acquire", "search"]),
        ("report", ["dataset"]),
        ("dataset", ["acquire", "labels"]),
    ],
)
def test_what_earlier_stages_make_is_asked_for(config, stage, made_by):
    text = refusal(config(), [stage])
    for other in PIPELINE:
        assert (f"run `cropray {other} CONFIG.yaml` first" in text) == (other in made_by)


def test_zones_without_an_artefact_are_named(config, landscape):
    own, zones = config(), read_zones(landscape.zones)
    for zone in zones[1:]:
        for file in (own.artefacts.composite(zone.zone_id), own.artefacts.n_obs(zone.zone_id)):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    text = refusal(own, ["labels", "dataset"], MissingArtefactError)
    assert text == f"1 of 6 zones have no composite: {zones[0].zone_id}; run `cropray acquire CONFIG.yaml` first"


def test_points_need_only_their_table(config, tmp_path):
    table = tmp_path / "points.parquet"
    own = config(
        imagery=None, parcels=None, zone_table=None, points={"path": str(table)}, search={"models": ["xgboost"]}, cnn={}
    )
    assert "points.parquet' does not exist" in refusal(own, ["dataset", "search", "evaluate", "report"])
    table.touch()
    check_job(own, ["dataset", "search", "evaluate", "report"])


@pytest.mark.parametrize("uri", ["http://h:5000", "https://h", "postgresql+psycopg2://h/db", "sqlite:///a.db"])
def test_addresses_of_tracking_stores(config, uri):
    check_job(config(tracking_uri=uri), PIPELINE)


def test_a_gpu_that_is_not_here_is_missed_before_the_search(config, monkeypatch):
    class Manager:
        n = 0

        def get_current_node_num_accelerators(self):
            return self.n

    monkeypatch.setattr(preflight, "get_accelerator_manager_for_resource", lambda _: Manager())
    assert "cnn.use_gpu ask" in refusal(config(cnn=CNN), kind=ConfigError)
    assert "xgboost.device and cnn.use_gpu ask" in refusal(config(cnn=CNN, xgboost={"device": "cuda"}))
    check_job(config(cnn=CNN), ["acquire", "labels"])
    check_job(config(cnn=CNN, cluster={"address": "head:6379"}), PIPELINE)  # it may have some
    Manager.n = 1
    check_job(config(cnn=CNN), PIPELINE)


def test_the_doctor_finds_what_a_run_would_refuse(config, tmp_path, landscape):
    assert doctor._check_inputs(config()) == f"{landscape.scenes}, {landscape.parcels}, {landscape.zones}"
    with pytest.raises(InputError, match="no column 'CULTURE'"):
        doctor._check_inputs(config(parcels={"path": str(landscape.parcels), "code_column": "CULTURE"}))


def test_a_library_that_only_one_sampler_needs_is_missed_before_the_search(config, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    learning = config(search={"sampler": "tpe"})
    assert "pip install 'cropray[tpe]'" in refusal(learning, kind=ConfigError)
    check_job(learning, ("zones", "acquire"))
    check_job(config(search={"sampler": "random"}), PIPELINE)
    monkeypatch.setattr(doctor, "load_settings", lambda *_: learning)
    for check in ("_check_ray", "_check_tracking", "_check_inputs"):
        monkeypatch.setattr(doctor, check, lambda *_: "there")
    with pytest.raises(CroprayError, match=r"1 of .* checks failed"):
        doctor.run_doctor("job.yaml")
    assert "FAIL  optuna       search.sampler is tpe" in capsys.readouterr().out
