"""What became of the parcels of a zone: codes, hectares, pixels, repairs and overlaps."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely

from cropray.core.legend import EXCLUDED, IGNORE, CropCode, Legend
from cropray.io.zones import Zone
from cropray.parcels.rasterize import NO_PARCEL, ParcelRasters
from cropray.parcels.rpg import M2_PER_HA, ZoneParcels

Status = Literal["mapped", "excluded", "unknown"]


@dataclass(frozen=True, slots=True)
class CodeTally:
    """How much of a zone carries one crop code."""

    code: str
    """Empty where the register names none."""
    label: str
    """The code in words; empty where the legend lacks it."""
    status: Status
    """Whether the legend maps the code to a class in this year, excludes it from training, or lacks it."""
    class_name: str | None
    n_parcels: int
    area_ha: float
    """Inside the zone; where parcels overlap, each counts."""
    n_pixels: int
    """Pixels on which a parcel with this code lies on top."""


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What became of the parcels of one zone."""

    zone_id: str
    year: int
    """Year whose code table was used."""
    n_pixels: int
    n_labelled: int
    """Pixels with a class; the others are 255 and are ignored everywhere."""
    n_parcels: int
    n_repaired: int
    """Parcels whose polygon was invalid or mixed with lines and points, and was repaired."""
    n_without_area: int
    """Features left out because nothing with an area remained of them."""
    shared_ha: float
    """Hectares of the zone that two or more parcels declare."""
    n_shared_pixels: int
    """Pixels on which two or more parcels lie; the smallest one decides."""
    n_border_pixels: int
    """Pixels left unlabelled by the inner buffer."""
    codes: tuple[CodeTally, ...]
    """Sorted by code."""
    n_without_id: int
    """Parcels without an id of their own; they are told apart by their outlines."""
    n_same_id: int
    """Parcels that have their id from a row before: parts of one parcel, or an id that is not unique."""
    n_without_pixel: int
    """Parcels that no pixel shows: smaller than a pixel, or below others."""
    legend_hash: str | None = None
    """Of the legend that the class ids belong to; None in records of earlier versions."""

    def area_ha(self, status: Status) -> float:
        """Hectares of the zone under codes of one status."""
        return sum(tally.area_ha for tally in self.codes if tally.status == status)

    @property
    def unknown_codes(self) -> tuple[str, ...]:
        """Codes that the legend lacks, the largest area first."""
        unknown = [tally for tally in self.codes if tally.status == "unknown"]
        return tuple(tally.code for tally in sorted(unknown, key=lambda tally: -tally.area_ha))

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self)


def tally_labels(zone: Zone, year: int, parcels: ZoneParcels, legend: Legend, rasters: ParcelRasters) -> LabelReport:
    """Count what became of a zone's parcels."""
    frame, index = parcels.frame, rasters.index
    inside = _inside(frame.geometry.to_numpy(), zone)
    inside_ha = shapely.area(inside) / M2_PER_HA
    n_pixels = np.bincount(index[index != NO_PARCEL], minlength=len(frame))
    meanings = legend.codes_of(year, frame["code"].unique())
    tallies = (
        _tally(code, meanings.get(code), len(rows), float(inside_ha[rows].sum()), int(n_pixels[rows].sum()))
        for code, rows in sorted(frame.groupby("code").indices.items())
    )
    return LabelReport(
        zone_id=zone.zone_id,
        year=year,
        n_pixels=index.size,
        n_labelled=int((rasters.labels != IGNORE).sum()),
        n_parcels=len(frame),
        n_repaired=parcels.n_repaired,
        n_without_area=parcels.n_without_area,
        shared_ha=shared_area_m2(inside) / M2_PER_HA,
        n_shared_pixels=int(rasters.is_shared.sum()),
        n_border_pixels=int(rasters.is_border.sum()),
        codes=tuple(tallies),
        n_without_id=parcels.n_without_id,
        n_same_id=int(frame["parcel_id"].duplicated().sum()),
        n_without_pixel=int((n_pixels == 0).sum()),
        legend_hash=legend.hash(),
    )


def shared_area_m2(polygons: npt.NDArray[Any]) -> float:
    """Area that two or more polygons cover, however many they are."""
    left, right = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    is_pair = left < right
    shared = shapely.intersection(polygons[left[is_pair]], polygons[right[is_pair]])
    shared = shared[shapely.area(shared) > 0]  # neighbours share edges only
    return float(shapely.area(shapely.disjoint_subset_union_all(shared)))


def _tally(code: str, meaning: CropCode | None, n_parcels: int, area_ha: float, n_pixels: int) -> CodeTally:
    counts = (n_parcels, area_ha, n_pixels)
    if meaning is None:
        return CodeTally(code, "", "unknown", None, *counts)
    if meaning.class_name == EXCLUDED:
        return CodeTally(code, meaning.label, "excluded", None, *counts)
    return CodeTally(code, meaning.label, "mapped", meaning.class_name, *counts)


def _inside(polygons: npt.NDArray[Any], zone: Zone) -> npt.NDArray[Any]:
    """[n] polygons cut at the zone's edge."""
    box = shapely.box(*zone.grid.bounds)
    shapely.prepare(box)
    crosses = ~shapely.contains(box, polygons)
    inside = polygons.copy()
    inside[crosses] = shapely.intersection(polygons[crosses], box)
    return inside
