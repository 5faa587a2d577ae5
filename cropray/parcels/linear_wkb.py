"""Well-known binary to geometry, also where it holds what GEOS lacks: curves, and surfaces made of faces.

PostGIS, ArcGIS, WFS and GML exports write polygons as MultiSurface or CurvePolygon, mostly without a curve in them; 3-D
software writes PolyhedralSurface and TIN. GDAL makes such geometries straight when it gives them to geopandas, but not
when it gives whole columns. Here they become (multi)polygons and lines of the same shape; arcs become chords.

Source of the codes: OGC 06-103r4 (Simple Features), 8.2; ISO/IEC 13249-3. EWKB's flags are those of PostGIS.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
import shapely.errors

_ARC_STEP: Final = math.radians(4)  # angle of a chord at most; GDAL's default
_EWKB_Z, _EWKB_M, _EWKB_SRID = 0x80000000, 0x40000000, 0x20000000
_LINE, _POLYGON, _MULTI_LINE, _MULTI_POLYGON, _COLLECTION = 2, 3, 5, 6, 7
_CIRCULAR, _COMPOUND, _CURVE_POLYGON, _MULTI_CURVE, _MULTI_SURFACE = 8, 9, 10, 11, 12
_POLYHEDRAL, _TIN, _TRIANGLE = 15, 16, 17
_GEOS_LACKS: Final = {_CIRCULAR, _COMPOUND, _CURVE_POLYGON, _MULTI_CURVE, _MULTI_SURFACE, _POLYHEDRAL, _TIN, _TRIANGLE}
_MADE_OF: Final = {
    _MULTI_CURVE: _MULTI_LINE, _MULTI_SURFACE: _MULTI_POLYGON, _POLYHEDRAL: _MULTI_POLYGON, _TIN: _MULTI_POLYGON,
}  # fmt: skip
Points = npt.NDArray[np.float64]


def read_wkb(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n] shapely geometries of [n] bytes, None where there are none; without curves.

    Raises:
        shapely.errors.GEOSException: some are damaged.
    """
    try:
        geometries: npt.NDArray[Any] = shapely.from_wkb(values)
    except (NotImplementedError, shapely.errors.GEOSException):  # some are no such types, or damaged
        is_suspect = np.array([one is not None for one in values], bool)
    else:  # inside a collection GEOS lets curves pass, which fail later
        is_suspect = shapely.get_type_id(geometries) == _COLLECTION
    if is_suspect.any():
        straight = np.array(values, object)
        straight[is_suspect] = [_straight(bytes(one)) for one in straight[is_suspect]]
        geometries = shapely.from_wkb(straight)
    return geometries


def _straight(wkb: bytes) -> bytes:
    """The same shape in types that GEOS has; what it has already, and what is damaged, stays as it is."""
    try:
        head = _Head.read(wkb, 0)
        if head.kind not in _GEOS_LACKS | {_COLLECTION}:
            return wkb
        straight: bytes = shapely.to_wkb(_Reader(wkb).geometry())
    except (struct.error, ValueError, IndexError):
        return wkb  # GEOS says what is wrong with it
    return straight


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands before the coordinates of a geometry."""

    order: str
    kind: int
    n_values: int
    """Numbers of a point: 2, 3 or 4."""
    end: int
    """Where it ends."""

    @classmethod
    def read(cls, wkb: bytes, at: int) -> "_Head":
        order = "<" if wkb[at] == 1 else ">"
        (code,) = struct.unpack_from(f"{order}I", wkb, at + 1)
        thousands, kind = divmod(code & ~(_EWKB_Z | _EWKB_M | _EWKB_SRID), 1000)
        has_z = bool(code & _EWKB_Z) or thousands in {1, 3}
        has_m = bool(code & _EWKB_M) or thousands in {2, 3}
        return cls(order, kind, 2 + has_z + has_m, at + 5 + 4 * bool(code & _EWKB_SRID))


class _Reader:
    """Reads one geometry from front to back, in the plane."""

    def __init__(self, wkb: bytes) -> None:
        self._wkb, self._at = wkb, 0

    def geometry(self) -> Any:
        head = self._head()
        if head.kind in {_POLYGON, _TRIANGLE, _CURVE_POLYGON}:
            is_curved = head.kind == _CURVE_POLYGON
            rings = [self._curve() if is_curved else self._points(head) for _ in range(self._count(head))]
            return shapely.Polygon(rings[0], rings[1:]) if rings else shapely.Polygon()
        if head.kind in {_LINE, _CIRCULAR, _COMPOUND}:
            return shapely.LineString(self._curve_after(head))
        if head.kind in _MADE_OF or head.kind in {_MULTI_LINE, _MULTI_POLYGON, _COLLECTION}:
            parts = [self.geometry() for _ in range(self._count(head))]
            return _collect(_MADE_OF.get(head.kind, head.kind), parts)
        if head.kind in {1, 4}:  # points have no area; they stand here for those who count what is left out
            n = 1 if head.kind == 1 else self._count(head)
            return self._skip_points(head, n)
        raise ValueError(f"geometry type {head.kind}")

    def _curve(self) -> Points:
        return self._curve_after(self._head())

    def _curve_after(self, head: _Head) -> Points:
        if head.kind == _COMPOUND:
            parts = [self._curve() for _ in range(self._count(head))]
            # Each part begins where the one before it ends.
            return np.concatenate([parts[0], *(part[1:] for part in parts[1:])]) if parts else np.empty((0, 2))
        points = self._points(head)
        return points if head.kind == _LINE else _chords(points)

    def _skip_points(self, head: _Head, n: int) -> Any:
        points = [
            self._take(self._head() if head.kind == 4 else head, 1)[0]  # each of a MultiPoint has a head of its own
            for _ in range(n)
        ]
        return shapely.MultiPoint(points) if head.kind == 4 else shapely.Point(points[0])

    def _points(self, head: _Head) -> Points:
        return self._take(head, self._count(head))

    def _take(self, head: _Head, n: int) -> Points:
        """[n, 2]."""
        values = np.frombuffer(self._wkb, f"{head.order}f8", n * head.n_values, self._at)
        self._at += values.nbytes
        return values.reshape(n, head.n_values)[:, :2].astype(np.float64)

    def _head(self) -> _Head:
        head = _Head.read(self._wkb, self._at)
        self._at = head.end
        return head

    def _count(self, head: _Head) -> int:
        (n,) = struct.unpack_from(f"{head.order}I", self._wkb, self._at)
        self._at += 4
        return int(n)


def _collect(kind: int, parts: list[Any]) -> Any:
    if kind == _MULTI_POLYGON:
        return shapely.MultiPolygon([polygon for part in parts for polygon in shapely.get_parts(part)])
    return shapely.MultiLineString(parts) if kind == _MULTI_LINE else shapely.GeometryCollection(parts)


def _chords(points: Points) -> Points:
    """[n, 2] start, a point on the arc, end, a point on the next arc, its end … → the chords' ends."""
    arcs = (_arc(*points[i : i + 3]) for i in range(0, len(points) - 2, 2))
    return np.concatenate([points[:1], *(np.array(list(arc)) for arc in arcs)])


def _arc(start: Points, middle: Points, end: Points) -> Iterator[Points]:
    """Points of an arc after its start; a straight line where the three stand in one; a circle where it ends at its start."""
    if np.array_equal(start, end):  # the middle lies opposite
        centre, turn = (start + middle) / 2, 2 * math.pi
    else:
        (bx, by), (cx, cy) = middle - start, end - start
        twice = 2 * (bx * cy - by * cx)
        if abs(twice) <= 1e-12 * (np.hypot(bx, by) * np.hypot(cx, cy)):
            yield from (middle, end)
            return
        b2, c2 = bx * bx + by * by, cx * cx + cy * cy
        centre = start + np.array([cy * b2 - by * c2, bx * c2 - cx * b2]) / twice
        angles = [math.atan2(*(point - centre)[::-1]) for point in (start, end)]
        is_left = twice > 0  # counter-clockwise
        turn = (angles[1] - angles[0]) % (2 * math.pi) - (0 if is_left else 2 * math.pi)
    radius, first = np.hypot(*(start - centre)), math.atan2(*(start - centre)[::-1])
    n = max(1, math.ceil(abs(turn) / _ARC_STEP))
    for i in range(1, n):
        angle = first + turn * i / n
        yield centre + radius * np.array([math.cos(angle), math.sin(angle)])
    yield end
