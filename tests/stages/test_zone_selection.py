"""Choosing zones from the job file to the table that later stages read."""

import json
import os

import geopandas
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from cropray.commands import doctor
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, InputError, MissingArtefactError
from cropray.core.progress import Progress
from cropray.io.job_file import dump_yaml, load_settings
from cropray.io.zones import bundled_zones, read_zones
from cropray.landscape import files
from cropray.landscape.worldcover import draw_worldcover
from cropray.stages import zones
from cropray.stages.inputs import job_zones
from cropray.zone_selection.regions import bundled_regions
from tests.zone_selection.land_cover_files import draw_classes, write_map


@pytest.fixture(scope="module")
def france(tmp_path_factory):
    """A job on the drawn land cover of France, with its zones chosen."""
    folder = tmp_path_factory.mktemp("france")
    cover = draw_worldcover(bundled_zones(), np.random.default_rng(0))
    files.write_worldcover(folder / "worldcover.tif", cover)
    chosen = job(folder, worldcover={"source": "files", "path": str(folder / "worldcover.tif")})
    zones.run(chosen, Progress())
    return chosen


def job(folder, zone_selection=None, **selection):
    return JobConfig.model_validate(
        {
            "name": "chosen",
            "workspace": str(folder / "work"),
            "imagery": {"folder": str(folder)},
            "parcels": {"path": str(folder)},
            "zone_selection": zone_selection or selection,
        }
    )


def changed(base, **selection):
    return job(base.workspace.parent, base.zone_selection.model_dump(mode="json") | selection)


def test_later_stages_read_the_chosen_zones(france):
    chosen = job_zones(france)
    regions = [region.region for region in bundled_regions()]
    assert [zone.zone_id for zone in chosen] == [f"{region}-{i}" for region in regions for i in range(1, 6)]
    assert [zone.region for zone in chosen if zone.split == "test"] == regions
    assert all(zone.grid.shape == (1000, 1000) for zone in chosen)
    assert read_zones(france.artefacts.chosen_zones) == chosen
    table = geopandas.read_parquet(france.artefacts.zones_table)
    assert table["zone_id"].tolist() == [zone.zone_id for zone in chosen]
    few = france.model_copy(update={"zones": ("beauce-2",)})
    assert [zone.zone_id for zone in job_zones(few)] == ["beauce-2"]


def test_the_reasons_say_why(france):
    reasons = json.loads(france.artefacts.zone_reasons.read_text())
    assert len(reasons["zones"]) == 40
    # The drawn land cover has cropland around every zone of the landscape.
    assert all(record["cropland_share"] > 0.9 and record["distance_km"] <= 30 for record in reasons["zones"])
    assert france.artefacts.zone_picture.stat().st_size > 20_000


def test_what_is_up_to_date_is_not_chosen_again(france, capsys):
    before = france.artefacts.zone_picture.stat().st_mtime_ns
    zones.run(france, Progress())
    assert "choice of zones is up to date" in capsys.readouterr().out
    assert france.artefacts.zone_picture.stat().st_mtime_ns == before


def test_other_settings_ask_for_another_choice(france):
    other = changed(france, radius_km=20.0)
    with pytest.raises(ConfigError, match="cropray zones"):
        job_zones(other)


def test_no_choice_yet_names_the_stage(tmp_path):
    with pytest.raises(MissingArtefactError, match="cropray zones"):
        job_zones(job(tmp_path, worldcover={"source": "files", "path": "none.tif"}))


def test_a_changed_map_is_read_again_and_another_country_is_a_job_file(tmp_path):
    land_cover = tmp_path / "kenya.tif"
    towns = tmp_path / "regions.csv"
    towns.write_text("region,lon,lat\nNakuru,36.07,-0.30\n")
    kenya = job(
        tmp_path, worldcover={"source": "files", "path": str(land_cover)}, region_table=str(towns),
        radius_km=3.0, zone_size_m=1000, min_gap_m=500,
    )  # fmt: skip
    write_map(land_cover, draw_classes((200, 200), 1), 36.0, -0.2, 0.001)
    zones.run(kenya, Progress())
    first = job_zones(kenya)
    assert {(zone.region, zone.grid.epsg) for zone in first} == {("Nakuru", 32737)}
    write_map(land_cover, draw_classes((200, 200), 2), 36.0, -0.2, 0.001)
    os.utime(land_cover, ns=(0, 0))
    zones.run(kenya, Progress())
    assert job_zones(kenya) != first


def test_the_resolved_job_reads_back(france, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(dump_yaml(france))
    assert load_settings(JobConfig, path) == france


def test_a_mistyped_key_is_named(france, tmp_path):
    content = yaml.safe_load(dump_yaml(france))
    content["zone_selection"]["radius"] = 3
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="did you mean 'radius_km'"):
        load_settings(JobConfig, path)


def test_zones_come_from_one_place(france, tmp_path):
    content = france.model_dump(mode="json")
    with pytest.raises(ValidationError, match="'zone_selection' replaces 'zone_table'"):
        JobConfig.model_validate(content | {"zone_table": "zones.csv"})
    with pytest.raises(ValidationError, match=r"min_gap_m = 1000 is less than dataset\.buffer_m = 1500"):
        JobConfig.model_validate(content | {"dataset": {"buffer_m": 1500}})


def test_the_doctor_says_that_zones_are_not_chosen_yet(france, tmp_path):
    assert "zones not chosen yet" in doctor._describe(tmp_path, job(tmp_path, france.zone_selection.model_dump()))
    assert "40 zones" in doctor._describe(tmp_path, france)
    with pytest.raises(InputError, match=r"nowhere\.tif"):
        doctor._check_inputs(changed(france, worldcover={"source": "files", "path": str(tmp_path / "nowhere.tif")}))
