"""The zones of a run, and fingerprints of what came in."""

import dataclasses
import os

import pytest

from cropray.config import JobConfig
from cropray.core.errors import ConfigError, SchemaError
from cropray.core.legend import bundled_legend
from cropray.io.raw_files import source_fingerprint
from cropray.io.zones import bundled_zones, write_zones, zone_fingerprint
from cropray.stages.inputs import (
    job_zones,
    require_legend_of_labels,
    require_season_of_composites,
    require_year_of_labels,
    season_of,
)
from tests.synthetic import zone


def job(tmp_path, **changes):
    """The least that a job needs to say."""
    sources = {"imagery": {"folder": tmp_path}, "parcels": {"path": tmp_path / "parcels.gpkg"}}
    return JobConfig.model_validate({"name": "small", "workspace": tmp_path / "work", **sources, **changes})


def test_a_job_takes_the_bundled_zones_or_its_own(tmp_path):
    table = tmp_path / "zones.csv"
    own = (zone("a"), zone("b", "test"))
    write_zones(own, table)
    assert job_zones(job(tmp_path)) == bundled_zones()
    assert job_zones(job(tmp_path, zone_table=table)) == own
    assert job_zones(job(tmp_path, zone_table=table, zones=["b"])) == own[1:]
    with pytest.raises(ConfigError, match="atlantis"):
        job_zones(job(tmp_path, zone_table=table, zones=["atlantis"]))


def test_the_zone_table_s_season_goes_before_the_job_s(tmp_path):
    winter = dataclasses.replace(zone(), season_start="2018-10")
    assert season_of(zone(), job(tmp_path, season_start="2023-01")).first_month == "2023-01"
    assert season_of(winter, job(tmp_path, season_start="2023-01")).first_month == "2018-10"


def test_every_field_of_a_zone_is_in_its_fingerprint():
    base = zone()
    others = [
        zone("z-2"), zone(split="test"), zone(region="south"), zone(x_min=600_010.0), zone(y_max=5_400_010.0),
        zone(size=65), zone(epsg=32632), dataclasses.replace(base, season_start="2023-02"),
    ]  # fmt: skip
    assert zone_fingerprint(base) == zone_fingerprint(zone())
    assert len({zone_fingerprint(z) for z in (base, *others)}) == len(others) + 1


def test_raw_files_are_known_by_name_size_and_time(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("x")
    b.write_text("y")
    first = source_fingerprint([a, b])
    assert first == source_fingerprint([b, a])
    assert first != source_fingerprint([a])
    os.utime(a, ns=(0, 0))
    second = source_fingerprint([a, b])
    a.write_text("xx")
    os.utime(a, ns=(0, 0))
    assert len({first, second, source_fingerprint([a, b])}) == 3


@pytest.mark.parametrize("text", ["{half", "[]", "{}"])
def test_damaged_reasons_of_a_choice_are_named(tmp_path, text):
    chosen = job(tmp_path, zone_selection={"worldcover": {"source": "files", "path": str(tmp_path)}})
    chosen.artefacts.prepare()
    chosen.artefacts.zone_reasons.write_text(text)
    with pytest.raises(SchemaError, match=r"zones\.json' is damaged .* run `cropray zones"):
        job_zones(chosen)


def test_labels_without_a_report_need_no_year_of_the_code_table(tmp_path):
    require_year_of_labels([zone()], job(tmp_path, season_start="2031-01"))


@pytest.mark.parametrize("text", ["{half", '["2023-01"]', ""])
def test_a_damaged_record_is_named_and_not_taken_for_none(tmp_path, text):
    """Nobody would know of which season or legend the artefact beside it is."""
    work = job(tmp_path)
    for path, made_by, check in (
        (work.artefacts.acquisition_record("z-1"), "acquire", lambda: require_season_of_composites([zone()], work)),
        (work.artefacts.label_report("z-1"), "labels", lambda: require_year_of_labels([zone()], work)),
        (
            work.artefacts.label_report("z-1"),
            "labels",
            lambda: require_legend_of_labels([zone()], work.artefacts, bundled_legend()),
        ),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        check()
        path.write_text(text)
        with pytest.raises(SchemaError, match=rf"'{path}' is damaged .*; remove it and run `cropray {made_by} CONFIG"):
            check()
        path.unlink()
