import io
import json
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import pytest

from cropray.cluster import zone_jobs
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, InputError
from cropray.core.progress import Progress
from cropray.io.raw_files import parts_of, source_fingerprint
from cropray.io.workspace import Workspace
from cropray.io.zones import read_zones
from cropray.parcels import rpg
from cropray.stages import labels
from cropray.stages.inputs import register_year
from tests.jobs import job


def test_a_change_in_any_file_of_a_shapefile_is_seen(tmp_path):
    for suffix in (".shp", ".dbf", ".shx"):
        (tmp_path / f"parcels{suffix}").write_text(suffix)
    before = source_fingerprint(parts_of(tmp_path / "parcels.shp"))
    (tmp_path / "parcels.dbf").write_text("other codes")
    assert source_fingerprint(parts_of(tmp_path / "parcels.shp")) != before


def test_other_tables_are_one_file():
    assert parts_of(Path("x/parcels.gpkg")) == [Path("x/parcels.gpkg")]


def label(landscape, workspace, parcels, **changes):
    """Run the stage; returns the job and what was printed."""
    content = job(landscape, workspace, parcels={"path": str(landscape.parcels)} | parcels, **changes)
    config, stream = JobConfig.model_validate(content), io.StringIO()
    labels.run(config, Progress(stream))
    return config, stream.getvalue()


def artefacts(config):
    """Bytes of all label rasters."""
    return {path.name: path.read_bytes() for path in (config.workspace / "labels").iterdir()}


@pytest.mark.ray
def test_writes_and_prints_the_coverage(ray_local, landscape, tmp_path, monkeypatch):
    config, printed = label(landscape, tmp_path / "work", {})
    coverage = json.loads(config.artefacts.coverage.read_text())
    zones = read_zones(landscape.zones)
    assert [row["name"] for row in coverage["regions"]] == list(dict.fromkeys(zone.region for zone in zones))
    assert sum(len(rows) for rows in coverage["zones"].values()) == len(zones)
    assert coverage["total"]["declared_ha"] == pytest.approx(sum(r["declared_ha"] for r in coverage["regions"]))
    assert f"{coverage['total']['declared_ha']:,.0f}" in printed
    assert all(zone.zone_id in printed for zone in zones)

    monkeypatch.delattr(labels, "ray_session")  # not started for nothing
    monkeypatch.setattr(zone_jobs, "ray", None)
    _, again = label(landscape, tmp_path / "work", {"max_unmapped_share": 0.4})
    assert "6 of 6 zones are up to date" in again
    assert printed.splitlines()[-3:] == again.splitlines()[-3:]


@pytest.mark.ray
def test_a_region_with_too_little_area_mapped_fails_the_stage(ray_local, landscape, tmp_path):
    with pytest.raises(InputError, match=r"more than 0% of a region's parcel area gets no class: .*% excluded"):
        label(landscape, tmp_path / "work", {"max_unmapped_share": 0})
    assert (tmp_path / "work/parcels/coverage.json").exists()  # it says what is wrong


@pytest.mark.ray
def test_the_code_table_of_another_year_lacks_codes(ray_local, landscape, tmp_path):
    register = gpd.read_file(landscape.parcels)
    register.assign(CODE_CULTU=register.CODE_CULTU.replace("BTH", "JAC")).to_file(tmp_path / "p.gpkg")
    parcels = {"path": str(tmp_path / "p.gpkg")}
    _, printed = label(landscape, tmp_path / "work", parcels)
    assert "JAC" not in printed
    with pytest.raises(InputError, match=r"does not know in 2022: .*JAC.*parcels\.year"):
        label(landscape, tmp_path / "work", parcels | {"year": 2022})
    coverage = json.loads((tmp_path / "work/parcels/coverage.json").read_text())
    assert {code["code"]: code["used"] for code in coverage["unknown_codes"]} == {"JAC": [2023, 2024], "XYZ": None}


@pytest.mark.ray
@pytest.mark.parametrize("name", ["register.shp", "register.parquet"])
def test_a_register_without_spatial_index_is_read_once_and_gives_the_same_labels(
    ray_local, landscape, tmp_path, monkeypatch, name
):
    register = gpd.read_file(landscape.parcels)
    register.to_parquet(tmp_path / name) if name.endswith("parquet") else register.to_file(tmp_path / name)
    passes, extract_parcels = [], rpg.extract_parcels

    def extract_and_hide(settings, grids, path):
        n_nowhere = extract_parcels(settings, grids, path)
        passes.append(path)
        settings.path.rename(tmp_path / "hidden")
        return n_nowhere

    monkeypatch.setattr(rpg, "extract_parcels", extract_and_hide)
    indexed, _ = label(landscape, tmp_path / "indexed", {})
    plain, printed = label(landscape, tmp_path / "plain", {"path": str(tmp_path / name)})
    (tmp_path / "hidden").rename(tmp_path / name)
    assert "read once from end to end, for all zones" in printed
    assert len(passes) == 1
    assert artefacts(plain) == artefacts(indexed)
    assert not list((tmp_path / "plain" / "parcels").glob(".extract*"))
    label(landscape, tmp_path / "plain", {"path": str(tmp_path / name)})
    assert len(passes) == 1  # up to date: not read again


@pytest.mark.parametrize(
    ("season", "zone_season", "year", "expected"),
    [
        ("2023-01", None, None, 2023),
        ("2017-12", None, None, 2018),
        ("2021-10", None, None, 2022),
        ("2023-01", "2018-12", None, 2019),
        ("2025-01", None, 2024, 2024),
    ],
)
def test_the_register_is_that_of_the_middle_of_the_season(landscape, season, zone_season, year, expected):
    parcels = {"path": str(landscape.parcels), "year": year}
    config = JobConfig.model_validate(job(landscape, "w", parcels=parcels, season_start=season))
    zone = replace(read_zones(landscape.zones)[0], season_start=zone_season)
    assert register_year(zone, config) == expected


def test_refuses_a_season_that_no_code_table_covers(landscape):
    config = JobConfig.model_validate(job(landscape, "w", season_start="2025-01"))
    with pytest.raises(ConfigError, match=r"season in 2025.*2015 to 2024.*parcels\.year"):
        register_year(read_zones(landscape.zones)[0], config)


def test_each_run_has_an_extract_of_its_own_and_clears_what_was_left(tmp_path):
    workspace = Workspace(tmp_path)
    names = {labels._own_extract(workspace) for _ in range(2)}
    assert len(names) == 2
    left = names.pop()
    left.parent.mkdir()
    left.touch()
    labels._own_extract(workspace)
    assert not left.exists()
