"""The command `labels` on registers of six countries, pixel by pixel beside an oracle that shares no code with it.

Each register has a legend that is made of a list of its own codes, with a code that is left out and one that is excluded.
"""

import contextlib
import csv
import itertools
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import yaml
from pyproj import Transformer

from cropray.cli import main
from cropray.core.grid import Grid
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone, write_zones

EXCLUDED, NOTHING = "EXCLUDED", 255
TOO_NEAR_M = 0.05  # to an outline, to say in another projection on which side of it a pixel's centre lies
pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class Register:
    """One country's file, and where its columns are."""

    file: str
    utm: tuple[int, int]
    """System in which it lies, and the neighbouring one."""
    code: str
    class_: str
    """Column of the classes."""
    excluded: str
    left_out: tuple[str, ...]
    """Codes that the legend lacks."""
    id: str | None
    area: str | None = None
    reads_hcat: bool = False
    """Whether the legend is of HCAT groups, six digits each, and not of codes."""
    table: str | None = None
    """A file that says which code is which class, instead of the register itself; its HCAT codes go into the legend."""


REGISTERS = {
    "austria": Register(
        "inspire_schlaege_2025-1_polygon.gpkg.zip", (32633, 32632), "SNAR_CODE", "HCAT3_name",
        excluded="771", left_out=("359", "360", "361"), id="INSPIRE_ID", area="SL_FLAECHE_BRUTTO_HA", table="at_2021.csv",
    ),
    "flanders": Register(
        "Landbouwgebruikspercelen_2023_-_Definitief_(extractie_28-03-2024)_GPKG.zip", (32631, 32632), "GWSCOD_H",
        "GWSGRPH_LB", excluded="201", left_out=("11",), id="ref_id", area="GRAF_OPP",
    ),
    "netherlands": Register(
        "brpgewaspercelen_definitief_2023.gpkg", (32631, 32632), "gewascode", "gewas",
        excluded="265", left_out=("343",), id=None,
    ),
    "denmark": Register(
        "Marker_2026.zip", (32632, 32633), "Afgkode", "Afgroede",
        excluded="310", left_out=("3",), id="MARKNR", area="GBanmeldt",
    ),
    "brandenburg": Register(
        "antrag.zip", (32633, 32632), "code", "code_bez",
        excluded="003", left_out=("011", ""), id="gp_xx", area="groesse",
    ),
    "slovenia": Register(
        "SI_2021.zip", (32633, 32634), "EC_hcat_c", "",
        excluded="3301010600", left_out=("3301090000",), id="GERK_PID", reads_hcat=True,
    ),
}  # fmt: skip


def texts(values):
    """Cells as a person would write them, nothing where there is none."""
    return ["" if pd.isna(cell) else f"{cell:.0f}" if isinstance(cell, float) else str(cell) for cell in values]


def read_shipped(register, folder, scratch):
    """The register as geopandas reads it, in its own system, with `code`, `id` and declared `ha` (0: none)."""
    path = folder / register.file
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch)
        (path,) = [file for file in scratch.iterdir() if file.suffix in {".gpkg", ".shp"}]
    frame = gpd.read_file(path)
    column = {name.lower(): frame[name] for name in frame.columns}
    return frame.assign(
        code=texts(column[register.code.lower()]),
        id=texts(column[register.id.lower()]) if register.id else "",
        ha=column[register.area.lower()].fillna(0) if register.area else 0.0,
    )


def legend_lines(register, folder, frame):
    """[(code, class, hcat)]."""
    if register.reads_hcat:
        groups = sorted({code[:6] for code in frame["code"]}, reverse=True)
        return [("", group, f"{group}0000") for group in groups] + [("", EXCLUDED, register.excluded)]
    if register.table is not None:
        table = pd.read_csv(folder / register.table, dtype=str).dropna().drop_duplicates("original_code")
        lines = zip(table["original_code"], table[register.class_], table["HCAT3_code"], strict=True)
    else:
        lines = (
            (code, name, "") for code, name in dict(zip(frame["code"], frame[register.class_], strict=True)).items()
        )
    return [(code, EXCLUDED if code == register.excluded else name, hcat) for code, name, hcat in lines]


def write_legend(register, folder, frame, path):
    """Returns each code's class, or EXCLUDED; and the classes in the order of their ids."""
    lines = [
        line for line in legend_lines(register, folder, frame) if not {line[0], line[2]} & {*register.left_out} - {""}
    ]
    lines = [line for line in lines if line[0] or line[2]]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("code", "class", "hcat"), *lines])
    if register.reads_hcat:  # what is excluded stands for itself alone
        groups = {hcat: name for _, name, hcat in lines}
        found = {code: groups.get(code, groups.get(f"{code[:6]}0000")) for code in frame["code"]}
        class_of = {code: name for code, name in found.items() if name is not None}
        return class_of, sorted({name for _, name, _ in lines} - {EXCLUDED}, key=int)
    return {code: name for code, name, _ in lines}, list(
        dict.fromkeys(name for _, name, _ in lines if name != EXCLUDED)
    )


def draw_zones(register, frame, class_of):
    """Around the most crowded parcel; with its corner in the largest that has a class; and one in the neighbouring system."""
    here, there = (np.column_stack([of.x, of.y]) for of in (frame.to_crs(epsg).centroid for epsg in register.utm))
    crowded = max(range(len(here)), key=lambda row: (np.abs(here - here[row]).max(1) < 1000).sum())
    has_class = [class_of.get(code, EXCLUDED) != EXCLUDED for code in frame["code"]]
    large = int(np.argmax(np.where(has_class, frame.area, 0)))
    (x, y), (left, top), (east, north) = (np.round(at, -1) for at in (here[crowded], here[large], there[crowded]))
    return [
        Zone("around", "one", "train", Grid(register.utm[0], x - 1200, y + 900, 180, 240)),
        Zone("corner", "two", "train", Grid(register.utm[0], left, top, 96, 130)),
        Zone("abroad", "two", "test", Grid(register.utm[1], east - 900, north + 900, 190, 170)),
    ]


def holds(polygon, x, y):
    """[n] whether points lie within one of a geometry's polygons: on their right its edges cross an odd number of times."""
    within = np.zeros(len(x), bool)
    for part in shapely.get_parts(polygon):
        is_odd = np.zeros(len(x), bool)
        for ring in shapely.get_rings(part):
            for (x0, y0), (x1, y1) in itertools.pairwise(shapely.get_coordinates(ring)):
                if y0 != y1:
                    is_odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        within |= is_odd
    return within


def look_up(frame, declared_ha, grid):
    """[H, W] row of the smallest parcel that holds each pixel's centre, or -1; and whether that can be said at all.

    The centres go to the register's system, not its polygons to the zone's.
    """
    west, _, _, north = grid.bounds
    cols, rows = np.meshgrid(np.arange(grid.width), np.arange(grid.height))
    to_register = Transformer.from_crs(grid.epsg, frame.crs, always_xy=True)
    x, y = to_register.transform(west + 10 * (cols.ravel() + 0.5), north - 10 * (rows.ravel() + 0.5))
    top, is_sure = np.full(len(x), -1), np.ones(len(x), bool)
    for row in sorted(range(len(frame)), key=lambda row: (declared_ha[row], frame["id"][row], row), reverse=True):
        polygon = frame.geometry[row]
        left, bottom, right, upper = polygon.buffer(1).bounds
        near = np.flatnonzero((x > left) & (x < right) & (y > bottom) & (y < upper))
        top[near[holds(polygon, x[near], y[near])]] = row
        is_sure[near] &= shapely.distance(polygon.boundary, shapely.points(x[near], y[near])) > TOO_NEAR_M
    return top.reshape(grid.shape), is_sure.reshape(grid.shape)


@dataclass(frozen=True)
class Done:
    """What stands in a workspace after the command, and what should."""

    frame: gpd.GeoDataFrame
    class_of: dict[str, str]
    names: list[str]
    zones: list[Zone]
    workspace: Workspace
    said: str

    def ids(self, codes):
        """Classes' ids."""
        names = [self.class_of.get(code, EXCLUDED) for code in codes]
        return [NOTHING if name == EXCLUDED else self.names.index(name) for name in names]


@pytest.fixture(scope="module", params=REGISTERS)
def done(request, real_data, ray_local, tmp_path_factory):
    folder, scratch = real_data / "parcels", tmp_path_factory.mktemp(request.param)
    register = REGISTERS[request.param]
    frame = read_shipped(register, folder, scratch / "loose")
    class_of, names = write_legend(register, folder, frame, scratch / "legend.csv")
    zones = draw_zones(register, frame, class_of)
    write_zones(zones, scratch / "zones.csv")
    parcels = {
        "path": str(folder / register.file), "legend": str(scratch / "legend.csv"), "max_unmapped_share": 1,
        "code_column": register.code, "id_column": register.id, "area_column": register.area,
    }  # fmt: skip
    content = {
        "name": "abroad", "workspace": str(scratch / "work"), "zone_table": str(scratch / "zones.csv"), "parcels": parcels,
        "season_start": "2025-01", "imagery": {"folder": str(scratch)}, "dataset": {"max_unknown_share": 1},
    }  # fmt: skip
    Path(scratch, "job.yaml").write_text(yaml.safe_dump(content))
    with Path(scratch, "said.txt").open("w") as said, contextlib.redirect_stdout(said):
        assert main(["labels", str(scratch / "job.yaml")]) == 0
    return Done(frame, class_of, names, zones, Workspace(scratch / "work"), Path(scratch, "said.txt").read_text())


def local(done, zone):
    """(polygons in the zone's system, rows that share ground with it, hectares in it, declared or else measured hectares)."""
    polygons = done.frame.to_crs(zone.grid.epsg).geometry.to_numpy()
    inside_ha = shapely.area(shapely.intersection(polygons, shapely.box(*zone.grid.bounds))) / 1e4
    declared_ha = done.frame["ha"].where(done.frame["ha"] > 0, shapely.area(polygons) / 1e4)
    return polygons, np.flatnonzero(inside_ha > 0), inside_ha, declared_ha.to_numpy(float)


def read_table(done, zone):
    """The zone's parcels, and the register's row of each, by their outlines."""
    table, (polygons, here, *_) = gpd.read_parquet(done.workspace.parcels(zone.zone_id)), local(done, zone)
    apart_m = shapely.hausdorff_distance(table.geometry.to_numpy()[:, None], polygons[here])
    assert apart_m.min(1).max() < TOO_NEAR_M
    return table, here[apart_m.argmin(1)]


def read_raster(path, grid, nodata):
    with rasterio.open(path) as dataset:
        assert (dataset.crs.to_epsg(), tuple(dataset.bounds), dataset.nodata) == (grid.epsg, grid.bounds, nodata)
        return dataset.read(1)


def test_each_pixel_has_the_class_of_the_smallest_parcel_that_holds_its_centre(done):
    for zone in done.zones:
        *_, declared_ha = local(done, zone)
        top, is_sure = look_up(done.frame, declared_ha, zone.grid)
        assert is_sure.mean() > 0.99
        wanted = np.array([*done.ids(done.frame["code"]), NOTHING])[top]
        labels = read_raster(done.workspace.labels(zone.zone_id), zone.grid, NOTHING)
        np.testing.assert_array_equal(labels[is_sure], wanted[is_sure])
        index = read_raster(done.workspace.parcel_index(zone.zone_id), zone.grid, -1)
        _, rows = read_table(done, zone)
        np.testing.assert_array_equal(np.array([*rows, -1])[index][is_sure], top[is_sure])
        assert (labels != NOTHING).any()


def test_the_table_has_each_parcel_once(done):
    n_zones_of = np.zeros(len(done.frame), int)
    for zone in done.zones:
        _, here, _, declared_ha = local(done, zone)
        table, rows = read_table(done, zone)
        assert sorted(rows) == here.tolist()
        assert table["parcel_index"].tolist() == list(range(len(table)))
        assert table["code"].tolist() == done.frame["code"][rows].tolist()
        assert table["class_id"].tolist() == done.ids(table["code"])
        np.testing.assert_allclose(table["area_ha"], declared_ha[rows], rtol=1e-6)
        ids = done.frame["id"][rows]
        assert [own or "outline" for own in ids] == [
            name.partition("-")[0] if not own else name for own, name in zip(ids, table["parcel_id"], strict=True)
        ]
        n_zones_of[here] += 1
    assert n_zones_of.max() > 1
    assert n_zones_of.min() == 0  # zones are of a part of the register


def test_what_has_no_class_is_counted_and_named(done):
    codes, excluded_ha, declared_ha = set(), 0.0, 0.0
    for zone in done.zones:
        _, here, inside_ha, _ = local(done, zone)
        report = json.loads(done.workspace.label_report(zone.zone_id).read_text())
        index = read_raster(done.workspace.parcel_index(zone.zone_id), zone.grid, -1)
        table, _ = read_table(done, zone)
        assert report["n_parcels"] == len(here)
        wanted = {}
        for code in set(done.frame["code"][here]):
            is_it = (done.frame["code"] == code).to_numpy() & (inside_ha > 0)
            name = done.class_of.get(code, "")
            status = {"": "unknown", EXCLUDED: "excluded"}.get(name, "mapped")
            n_pixels = np.isin(index, table["parcel_index"][table["code"] == code]).sum()
            wanted[code] = (status, name if status == "mapped" else None, is_it.sum(), n_pixels, inside_ha[is_it].sum())
            excluded_ha += inside_ha[is_it].sum() * (status == "excluded")
        declared_ha += inside_ha.sum()
        tallies = {
            each["code"]: [each[name] for name in ("status", "class_name", "n_parcels", "n_pixels", "area_ha")]
            for each in report["codes"]
        }
        assert tallies == {code: [*exact, pytest.approx(ha, rel=1e-6)] for code, (*exact, ha) in wanted.items()}
        codes |= wanted.keys()
    coverage = json.loads(done.workspace.coverage.read_text())
    unknown = codes - done.class_of.keys()
    assert unknown
    assert {each["code"] for each in coverage["unknown_codes"]} == unknown
    assert all((f"code '{code}': " if code else "no code: ") in done.said for code in unknown)
    assert coverage["total"]["excluded_ha"] == pytest.approx(excluded_ha) != 0
    assert f"{excluded_ha / declared_ha:.1%}" in done.said
