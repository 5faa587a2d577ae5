"""Geometry types that GEOS lacks become the same shapes in types that it has."""

import struct

import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely
import shapely.errors

from cropray.parcels.linear_wkb import read_wkb

TOWER = shapely.from_wkt("POLYGON ((0 0, 40 0, 40 30, 0 30, 0 0), (5 5, 5 9, 9 9, 9 5, 5 5))")
ANNEX = shapely.box(100, 100, 130, 115)
CIRCULAR, COMPOUND, CURVE_POLYGON, MULTI_CURVE, MULTI_SURFACE, POLYHEDRAL, TIN, TRIANGLE = 8, 9, 10, 11, 12, 15, 16, 17


def many(kind, *parts, order=1, flags=0):
    """A geometry made of others."""
    mark = "<" if order == 1 else ">"
    return struct.pack(f"{mark}BII", order, kind | flags, len(parts)) + b"".join(parts)


def line(kind, *points, order=1):
    mark = "<" if order == 1 else ">"
    n_values = len(points[0])
    code = kind + {2: 0, 3: 1000, 4: 3000}[n_values]
    return struct.pack(f"{mark}BII{len(points) * n_values}d", order, code, len(points), *sum(points, ()))


def plain(shape, order=1):
    return shapely.to_wkb(shape, byte_order=order)


def read(wkb):
    return read_wkb(np.array([wkb], object))[0]


@pytest.mark.parametrize("order", [0, 1])
def test_a_surface_of_straight_polygons_is_a_multipolygon(order):
    got = read(many(MULTI_SURFACE, plain(TOWER, order), plain(ANNEX, order), order=order))
    assert shapely.equals_exact(got, shapely.MultiPolygon([TOWER, ANNEX]))


def test_height_and_measure_are_left_behind():
    ring = ((0.0, 0.0, 7.0, 1.0), (8.0, 0.0, 7.0, 2.0), (8.0, 6.0, 7.0, 3.0), (0.0, 0.0, 7.0, 4.0))
    polygon = many(CURVE_POLYGON + 3000, line(2, *ring))
    got = read(many(MULTI_SURFACE + 3000, polygon))
    assert got.equals(shapely.Polygon([(0, 0), (8, 0), (8, 6)]))
    assert not got.has_z


def test_the_flags_of_postgis():
    flags, srid = 0x20000000, struct.pack("<I", 2154)
    whole = many(MULTI_SURFACE, plain(ANNEX), flags=flags)
    assert read(whole[:5] + srid + whole[5:]).equals(ANNEX)


def test_faces_are_a_multipolygon():
    triangles = [many(TRIANGLE, line(2, *ring)[5:]) for ring in (
        ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 0.0)), ((0.0, 0.0), (4.0, 4.0), (0.0, 4.0), (0.0, 0.0)),
    )]  # fmt: skip
    assert shapely.make_valid(read(many(TIN, *triangles))).equals(shapely.box(0, 0, 4, 4))
    assert read(many(POLYHEDRAL, plain(ANNEX))).equals(ANNEX)
    assert read(triangles[0]).area == 8


def test_a_collection_may_hold_them():
    got = read(
        many(7, many(MULTI_SURFACE, plain(ANNEX)), plain(shapely.Point(3, 4)), plain(shapely.MultiPoint([[1, 2]])))
    )
    assert [part.geom_type for part in got.geoms] == ["MultiPolygon", "Point", "MultiPoint"]
    assert got.geoms[0].equals(ANNEX)


def circle(x, y, radius):
    return line(CIRCULAR, (x - radius, y), (x + radius, y), (x - radius, y))


ARCS = {
    "a circle": many(CURVE_POLYGON, circle(0.0, 0.0, 50.0)),
    "a half circle, clockwise": many(
        CURVE_POLYGON, many(COMPOUND, line(CIRCULAR, (0.0, 0.0), (30.0, 30.0), (60.0, 0.0)), line(2, (60.0, 0.0), (0.0, 0.0)))
    ),
    "more than half a circle, counter-clockwise": many(
        CURVE_POLYGON,
        many(COMPOUND, line(CIRCULAR, (-1.0, 0.0), (50.0, 50.0), (0.0, 1.0)), line(2, (0.0, 1.0), (-1.0, 0.0))),
    ),
    "two arcs and a hole": many(
        CURVE_POLYGON,
        line(CIRCULAR, (0.0, 0.0), (20.0, -20.0), (40.0, 0.0), (20.0, 20.0), (0.0, 0.0)),
        circle(20.0, 0.0, 5.0),
    ),
    "an arc that is straight": many(
        CURVE_POLYGON,
        many(
            COMPOUND, line(CIRCULAR, (0.0, 0.0), (15.0, 0.0), (30.0, 0.0)), line(2, (30.0, 0.0), (30.0, 9.0), (0.0, 0.0))
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCS)
def test_arcs_become_the_chords_that_gdal_draws(tmp_path, name):
    table = pa.table({"n": [1], "geom": pa.array([many(MULTI_SURFACE, ARCS[name])], pa.binary())})
    options = {"geometry_name": "geom", "geometry_type": "Unknown", "crs": "EPSG:2154"}
    pyogrio.write_arrow(table, tmp_path / "a.gpkg", layer="a", driver="GPKG", **options)
    (gdal,) = pyogrio.read_dataframe(tmp_path / "a.gpkg").geometry
    (ours,) = read_wkb(table["geom"].to_numpy())
    assert ours.is_valid
    assert shapely.symmetric_difference(ours, gdal).area < 0.002 * gdal.area


@pytest.mark.parametrize("kind", [COMPOUND, MULTI_CURVE])
def test_curves_are_lines(kind):
    parts = [line(2, (0.0, 0.0), (5.0, 0.0)), line(2, (5.0, 0.0), (5.0, 5.0))]
    assert read(many(kind, *parts)).length == 10
    assert read(line(CIRCULAR, (0.0, 0.0), (1.0, 1.0), (2.0, 0.0))).length == pytest.approx(np.pi, rel=1e-3)


def test_what_is_missing_stays_so():
    wkb = np.array(
        [None, many(MULTI_SURFACE, plain(ANNEX)), many(MULTI_SURFACE), plain(TOWER), many(CURVE_POLYGON)], object
    )
    missing, surface, nothing, polygon, no_ring = read_wkb(wkb)
    assert missing is None
    assert surface.equals(ANNEX)
    assert nothing.is_empty
    assert no_ring.is_empty
    assert polygon == TOWER


@pytest.mark.parametrize("cut", [4, 20])
def test_damage_is_said(cut):
    with pytest.raises(shapely.errors.GEOSException):
        read(many(MULTI_SURFACE, plain(TOWER))[:-cut])
