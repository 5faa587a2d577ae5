"""A pixel grid in a projected coordinate system: the only affine arithmetic of cropray.

Axis order: shapes and pixel indices are (row, col) = (y, x); coordinates are (x, y).
"""

from dataclasses import dataclass
from typing import Final

SCL_SNAP_M: Final = 60  # 10, 20 and 60 m pixels of Sentinel-2 align on multiples of 60 m
# Pixels of a file that was clipped or warped by its extent are a little off; so far its last one may stand from its place.
MAX_DRIFT_PX: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels, half open: rows [row, row + height), columns [col, col + width)."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices for an array [..., H, W]."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


@dataclass(frozen=True, slots=True)
class Grid:
    """A north-up grid of square pixels."""

    epsg: int
    """EPSG code of a projected system in metres (UTM for zones)."""
    x_min: float
    """Western edge, m."""
    y_max: float
    """Northern edge, m."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    resolution_m: float = 10.0

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.resolution_m <= 0:
            raise ValueError(
                f"a grid needs at least one row and column and a positive resolution; "
                f"got {self.height} × {self.width} at {self.resolution_m} m"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients (a, b, c, d, e, f) as rasterio's `Affine(*transform)`."""
        return self.resolution_m, 0.0, self.x_min, 0.0, -self.resolution_m, self.y_max

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max), m, in the grid's own system."""
        return (
            self.x_min,
            self.y_max - self.height * self.resolution_m,
            self.x_min + self.width * self.resolution_m,
            self.y_max,
        )

    def centre(self, row: int, col: int) -> tuple[float, float]:
        """(x, y) of the centre of a pixel, m."""
        return self.x_min + (col + 0.5) * self.resolution_m, self.y_max - (row + 0.5) * self.resolution_m

    @classmethod
    def of_transform(cls, epsg: int, transform: tuple[float, ...], shape: tuple[int, int]) -> "Grid":
        """The grid of a raster by its affine coefficients (a, b, c, d, e, f).

        Raises:
            ValueError: its system has no EPSG code (0), or it is not north up with square pixels; by rounding it may be
                off by `MAX_DRIFT_PX` over its length.
        """
        a, b, c, d, e, f = transform[:6]
        if not epsg or a <= 0 or max(abs(b), abs(d), abs(a + e)) * max(shape) > MAX_DRIFT_PX * a:
            raise ValueError(f"transform ({', '.join(in_full(x) for x in (a, b, c, d, e, f))})")
        return cls(epsg, c, f, *shape, a)

    def is_of(self, epsg: int | None, transform: tuple[float, ...], shape: tuple[int, int]) -> bool:
        """Whether a raster has exactly these pixels, but for rounding."""
        try:
            there = Grid.of_transform(epsg or 0, transform, shape)
            return there.shape == self.shape and there.window_of(self) == Window(0, 0, *self.shape)
        except ValueError:
            return False

    def crop(self, window: Window) -> "Grid":
        """The grid of a window of this grid."""
        return Grid(
            self.epsg,
            self.x_min + window.col * self.resolution_m,
            self.y_max - window.row * self.resolution_m,
            window.height,
            window.width,
            self.resolution_m,
        )

    def window_of(self, other: "Grid") -> Window:
        """Where `other` lies in this grid; it may reach beyond the edges (negative or large indices).

        Raises:
            ValueError: another system or resolution, or pixels that do not line up.
        """
        drift = abs(other.resolution_m / self.resolution_m - 1) * max(*self.shape, *other.shape)
        if other.epsg != self.epsg or drift > MAX_DRIFT_PX:
            raise ValueError(
                f"grids differ: EPSG:{self.epsg} at {in_full(self.resolution_m)} m "
                f"and EPSG:{other.epsg} at {in_full(other.resolution_m)} m"
            )
        row = (self.y_max - other.y_max) / other.resolution_m
        col = (other.x_min - self.x_min) / other.resolution_m
        if abs(row - round(row)) > 1e-6 or abs(col - round(col)) > 1e-6:  # 10 µm at 10 m pixels
            raise ValueError(
                f"pixels do not line up: the origins are {in_full(col)} columns and {in_full(row)} rows apart, "
                f"which must be whole numbers"
            )
        return Window(round(row), round(col), other.height, other.width)

    def distance_m(self, other: "Grid") -> float:
        """Smallest distance between the two rectangles, m; 0 where they touch or overlap.

        Raises:
            ValueError: the grids are in different coordinate systems.
        """
        if self.epsg != other.epsg:
            raise ValueError(f"cannot compare EPSG:{self.epsg} with EPSG:{other.epsg}")
        ax0, ay0, ax1, ay1 = self.bounds
        bx0, by0, bx1, by1 = other.bounds
        dx = max(bx0 - ax1, ax0 - bx1, 0.0)
        dy = max(by0 - ay1, ay0 - by1, 0.0)
        return float((dx * dx + dy * dy) ** 0.5)


def in_full(number: float) -> str:
    """A number for messages: two that differ look different, and whole ones stay short."""
    return f"{number:.15g}"
