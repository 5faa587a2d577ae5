"""`labels` on registers of six countries as their agencies hand them out, each with a small legend of its own."""

import contextlib
import io
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from cropray.config import JobConfig
from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.core.legend import IGNORE
from cropray.core.progress import Progress
from cropray.io.zones import Zone, write_zones
from cropray.parcels.labels import read_labels
from cropray.stages import labels
from cropray.stages.pipeline import check_job

SIZE = 1000  # px of 10 m
EXAMPLE = Path(__file__).parents[2] / "ray_jobs" / "legends" / "austria.csv"
DRAWN_M2 = 29.0  # standard deviation of an edge pixel's area, which lies evenly in 0–100 m²


@dataclass(frozen=True)
class Register:
    """One country's file, a legend in its codes, and where its columns are."""

    file: str
    epsg: int
    utm: int
    columns: dict
    legend: str
    classes: dict
    """Class → the codes that an independent reader gives it."""


REGISTERS = {
    "austria": Register(
        "inspire_schlaege_2025-1_polygon.gpkg.zip", 31287, 32633,
        {"code_column": "SNAR_CODE", "id_column": "GEO_ID", "area_column": "SL_FLAECHE_BRUTTO_HA"},
        EXAMPLE.read_text(encoding="utf-8"),
        {"grassland": ["717", "716", "701"], "clover": ["634"], "green_maize": ["109"], "triticale": ["116"],
         "barley": ["110"], "hemp": ["658"]},
    ),
    "flanders": Register(
        "Landbouwgebruikspercelen_2023_-_Definitief_(extractie_28-03-2024)_GPKG.zip", 31370, 32631,
        {"code_column": "GWSCOD_H", "id_column": "REF_ID", "area_column": "graf_opp"},
        "code,class,name,colour,level_1\n60,grass,Grasland,#00AA00,grass\n63,grass,,,\n201,maize,Maïs,,arable\n"
        "202,maize,,,arable\n381,sorghum,Sorghum,,arable\n901,potato,Aardappelen,,arable\n91,beet,,,\n71,beet,,,\n11,EXCLUDED,,,\n",
        {"grass": ["60", "63"], "maize": ["201", "202"], "sorghum": ["381"], "potato": ["901"], "beet": ["91", "71"]},
    ),
    "netherlands": Register(
        "brpgewaspercelen_definitief_2023.gpkg", 28992, 32631,
        {"code_column": "gewascode", "id_column": None},
        "code,class\n265,grass\n266,grass\n259,maize\n343,ditch\n6794,fallow\n2014,potato\n",
        {"grass": ["265", "266"], "maize": ["259"], "ditch": ["343"], "fallow": ["6794"], "potato": ["2014"]},
    ),
    "denmark": Register(
        "Marker_2026.zip", 25832, 32632,
        {"code_column": "AFGKODE", "id_column": None, "area_column": "IMK_areal"},
        "code,class,name\n252,grass,Græs\n250,grass,\n251,grass,\n257,grass,\n276,grass,\n264,ley,\n310,fallow,\n1,barley,Vårbyg\n"
        "3,oats,Vårhavre\n592,willow,\n527,EXCLUDED,\n",
        {"grass": ["252", "250", "251", "257", "276"], "ley": ["264"], "fallow": ["310"], "barley": ["1"], "oats": ["3"],
         "willow": ["592"]},
    ),
    "brandenburg": Register(
        "antrag.zip", 25833, 32633,
        {"code_column": "code", "id_column": None},
        "code,class\n088,bare\n591,bare\n451,meadow\n452,meadow\n453,meadow\n424,ley\n115,wheat\n131,barley\n003,EXCLUDED\n",
        {"bare": ["088", "591"], "meadow": ["451", "452", "453"], "ley": ["424"], "wheat": ["115"], "barley": ["131"]},
    ),
    "slovenia": Register(
        "SI_2021.zip", 3794, 32633,
        {"code_column": "EC_hcat_c", "id_column": "ID"},
        "hcat,class\n3301000000,arable\n3301010000,cereal\n3301010600,maize\n3302000000,grass\n3301090000,fodder\n",
        {"grass": ["3302000000"], "maize": ["3301010600"], "fodder": ["3301090100", "3301090303", "3301090301"],
         "cereal": ["3301010401", "3301010101", "3301011501", "3301011001", "3301010102", "3301010801"],
         "arable": ["3301070000", "3301160000"]},
    ),
}  # fmt: skip


def as_shipped(register, folder, scratch):
    """The register read by geopandas alone, in its own columns, in the zone's UTM; its coordinate system as published."""
    path = folder / register.file
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch)
        (path,) = [file for file in scratch.iterdir() if file.suffix in {".gpkg", ".shp"}]
    frame = gpd.read_file(path)
    frame = frame.set_crs(register.epsg, allow_override=True).to_crs(register.utm)
    column = next(name for name in frame.columns if name.lower() == register.columns["code_column"].lower())
    frame["code"] = frame[column].map(
        lambda code: str(int(code)) if isinstance(code, float) and not np.isnan(code) else str(code)
    )
    frame["class"] = frame["code"].map({code: name for name, codes in register.classes.items() for code in codes})
    frame["geometry"] = shapely.make_valid(shapely.force_2d(frame.geometry.to_numpy()))
    return frame


def crowded_grid(frame, utm):
    """Around the parcel that has most classes about it, and of such most parcels."""
    centres = np.column_stack([frame.centroid.x, frame.centroid.y])
    near = [frame["class"][np.abs(centres - centre).max(-1) < SIZE * 5] for centre in centres]
    x, y = np.round(centres[max(range(len(near)), key=lambda i: (near[i].nunique(), len(near[i])))], -1)
    return Grid(utm, x - SIZE * 5, y + SIZE * 5, SIZE, SIZE)


def visible(frame, grid):
    """[n] polygons inside the grid, without what a smaller one covers."""
    box, order = shapely.box(*grid.bounds), np.argsort(frame.area.to_numpy(), kind="stable")
    polygons, covered = frame.geometry.to_numpy().copy(), shapely.Polygon()
    for row in order:
        whole = shapely.intersection(polygons[row], box)
        polygons[row] = shapely.difference(whole, covered)
        covered = shapely.union(covered, whole)
    return polygons


@pytest.fixture
def here(monkeypatch):
    """Tasks run in this process instead of on Ray."""

    def run_here(stage, tasks, *_, **__):
        return {task.zone_id: task.run() for task in tasks}

    monkeypatch.setattr(labels, "ray_session", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(labels, "run_zone_tasks", run_here)


def job(register, folder, grid, tmp_path, **changes):
    """A job of one zone with the register's legend."""
    write_zones([Zone("there", "abroad", "train", grid)], tmp_path / "zones.csv")
    (tmp_path / "legend.csv").write_text(register.legend, encoding="utf-8")
    parcels = {"path": folder / register.file, "legend": tmp_path / "legend.csv", "max_unmapped_share": 1}
    content = {
        "name": "abroad", "workspace": tmp_path / "work", "zone_table": tmp_path / "zones.csv", "season_start": "2026-01",
        "imagery": {"folder": tmp_path}, "parcels": parcels | register.columns | changes,
        "dataset": {"max_unknown_share": 1},
    }  # fmt: skip
    return JobConfig.model_validate(content)


def label(register, folder, grid, tmp_path, **changes):
    """Run the stage; returns the job and what was printed."""
    config, said = job(register, folder, grid, tmp_path, **changes), io.StringIO()
    check_job(config, ["labels"])
    labels.run(config, Progress(said))
    return config, said.getvalue()


@pytest.mark.parametrize("country", REGISTERS)
def test_the_labelled_area_of_each_class_is_that_of_its_parcels(real_data, here, tmp_path, country):
    register, folder = REGISTERS[country], real_data / "parcels"
    frame = as_shipped(register, folder, tmp_path / "loose")
    grid = crowded_grid(frame, register.utm)
    config, _ = label(register, folder, grid, tmp_path)
    found = read_labels(config.artefacts.labels("there"), grid)

    shown = visible(frame, grid)
    names = labels.legend_of(config.parcels).names
    n_classes = 0
    for name in register.classes:
        polygons = shown[frame["class"] == name]
        area, n_edge_px = shapely.area(polygons).sum(), shapely.length(polygons).sum() / 10
        labelled = 100 * (found == names.index(name)).sum()
        assert labelled == pytest.approx(area, abs=4 * DRAWN_M2 * n_edge_px**0.5 + 1)
        n_classes += area > 0
    assert n_classes >= 3  # the zone holds something of the legend
    assert set(np.unique(found)) <= {names.index(name) for name in register.classes} | {IGNORE}

    record = json.loads(config.artefacts.label_report("there").read_text())
    here_codes = frame["code"][shapely.intersects(frame.geometry.to_numpy(), shapely.box(*grid.bounds))]
    mapped = {tally["code"] for tally in record["codes"] if tally["status"] == "mapped"}
    assert mapped == set(here_codes[frame["class"].notna()])


def test_what_the_legend_lacks_is_counted_and_named(real_data, here, tmp_path):
    register, folder = REGISTERS["slovenia"], real_data / "parcels"
    grid = crowded_grid(as_shipped(register, folder, tmp_path / "loose"), register.utm)
    lean = replace(register, legend="hcat,class\n3302000000,grass\n3301010000,cereal\n3301010600,EXCLUDED\n")
    config, printed = label(lean, folder, grid, tmp_path)
    unknown = {code["code"] for code in json.loads(config.artefacts.coverage.read_text())["unknown_codes"]}
    assert unknown
    assert unknown <= {"3301070000", "3301160000", "3301090100", "3301090303", "3301090301"}
    assert all(f"code '{code}': " in printed for code in unknown)


@pytest.mark.parametrize("country", REGISTERS)
def test_a_legend_of_another_country_is_refused_before_any_work(real_data, tmp_path, country):
    register, folder = REGISTERS[country], real_data / "parcels"
    french = replace(register, legend="code,class\nBTH,wheat\nMIS,maize\n")
    grid = Grid(register.utm, 500_000.0, 5_400_000.0, 8, 8)
    with pytest.raises(InputError, match=r"no line for any code of the register: the register has '.*'BTH', 'MIS'"):
        check_job(job(french, folder, grid, tmp_path), ["labels"])
