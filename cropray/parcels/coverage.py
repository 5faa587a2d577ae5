"""Coverage of many zones: how much was declared, and how much of it has a class, by zone, by region and in all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from cropray.core.legend import Legend
from cropray.parcels.report import LabelReport, Status

STATUSES: Final[tuple[Status, ...]] = get_args(Status)
TOTAL: Final = "all"
_FEW_ZONES: Final = 12  # so many are all listed; of more, those with much area without a class
_FEW_CODES: Final = 12  # unknown codes that are listed, the largest; the record has all
_MUCH_UNMAPPED: Final = 0.1
_SUMMED: Final = (
    *("n_parcels", "shared_ha", "n_shared_pixels", "n_border_pixels"),
    *("n_repaired", "n_without_area", "n_without_id", "n_same_id", "n_without_pixel"),
)
"""Fields that a report of labels has as well, and that are sums over zones."""
_COLUMNS: Final = ("parcels", "ha", "mapped", "excluded", "unknown", "labelled", "shared ha", "repaired")


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """What became of the parcels of one zone, one region, or all; counts mean what those of a `LabelReport` do, summed."""

    name: str
    n_parcels: int
    """A parcel that reaches into two zones counts in both."""
    declared_ha: float
    """Inside the zones; where parcels overlap, each counts."""
    mapped_ha: float
    """Of `declared_ha`, under codes with a class."""
    excluded_ha: float
    """Of `declared_ha`, under codes that must not be trained on."""
    unknown_ha: float
    """Of `declared_ha`, under codes that the year's code table lacks, or none."""
    unmapped_share: float
    """(excluded + unknown) ÷ declared, 0–1."""
    labelled_share: float
    """Pixels with a class ÷ all pixels of the zones, 0–1."""
    shared_ha: float
    n_shared_pixels: int
    n_border_pixels: int
    n_repaired: int
    n_without_area: int
    n_without_id: int
    n_same_id: int
    n_without_pixel: int


@dataclass(frozen=True, slots=True)
class UnknownCode:
    """A code that the code table of its year lacks."""

    code: str
    """Empty where the register names none."""
    area_ha: float
    n_parcels: int
    used: tuple[int, int] | None
    """First and last year in which the code table does have it."""
    near: str | None = None
    """A code of the table that differs in capitals or in zeros at the start only."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The coverage report of a job."""

    total: CoverageRow
    regions: tuple[CoverageRow, ...]
    """In the order of the zone table."""
    zones: Mapping[str, tuple[CoverageRow, ...]]
    """Region → its zones."""
    unknown_codes: tuple[UnknownCode, ...]
    """Largest area first."""

    def to_record(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self)


def summarize(reports: Sequence[LabelReport], region_of: Mapping[str, str], legend: Legend) -> Coverage:
    """Sum the reports of zones, one each, to regions and to one total; the legend says when an unknown code is known."""
    by_region: dict[str, list[LabelReport]] = {}
    for report in reports:
        by_region.setdefault(region_of[report.zone_id], []).append(report)
    return Coverage(
        total=_row(TOTAL, reports),
        regions=tuple(_row(region, some) for region, some in by_region.items()),
        zones={region: tuple(_row(one.zone_id, [one]) for one in some) for region, some in by_region.items()},
        unknown_codes=_unknown_codes(reports, legend),
    )


def describe(coverage: Coverage) -> Iterator[str]:
    """The coverage as a table of text: total, regions, and zones below their region; then what was mended or left out.

    Of many zones only those are listed where more than a tenth of the declared area has no class.
    """
    rows, is_short = [(TOTAL, coverage.total)], sum(map(len, coverage.zones.values())) <= _FEW_ZONES
    for region in coverage.regions:
        listed = [zone for zone in coverage.zones[region.name] if is_short or zone.unmapped_share > _MUCH_UNMAPPED]
        rows += [(f"  {region.name}", region), *((f"    {zone.name}", zone) for zone in listed)]
    width = max(len(name) for name, _ in rows)
    yield " ".join([" " * width, *(f"{column:>9}" for column in _COLUMNS)])
    yield from (_line(name, width, row) for name, row in rows)
    for unknown in coverage.unknown_codes[:_FEW_CODES]:
        yield _explain(unknown)
    if others := coverage.unknown_codes[_FEW_CODES:]:
        n_parcels, area_ha = sum(code.n_parcels for code in others), sum(code.area_ha for code in others)
        yield f"{len(others):,} more codes: {n_parcels:,} parcels, {area_ha:,.1f} ha stay unlabelled"
    total = coverage.total
    for n, what in (
        (total.n_shared_pixels, "pixels lie in two or more parcels; the smallest of them decides"),
        (total.n_border_pixels, "pixels stay unlabelled, nearer to their parcel's outline than parcels.inner_buffer_m"),
        (total.n_without_pixel, "parcels are smaller than a pixel or below others: no pixel shows them"),
        (total.n_without_area, "features are lines, points or flat: without an area they are left out"),
        (total.n_without_id, "parcels have no id; their outlines tell them apart"),
        (total.n_same_id, "parcels have the id of another one in their zone; they count as parts of it"),
    ):
        if n:
            yield f"{n:,} {what}"


def _row(name: str, reports: Sequence[LabelReport]) -> CoverageRow:
    area = {status: sum(report.area_ha(status) for report in reports) for status in STATUSES}
    declared_ha = sum(area.values())
    return CoverageRow(
        name=name,
        declared_ha=declared_ha,
        mapped_ha=area["mapped"],
        excluded_ha=area["excluded"],
        unknown_ha=area["unknown"],
        unmapped_share=(area["excluded"] + area["unknown"]) / declared_ha if declared_ha else 0.0,
        labelled_share=sum(report.n_labelled for report in reports)
        / max(1, sum(report.n_pixels for report in reports)),
        **{name: sum(getattr(report, name) for report in reports) for name in _SUMMED},
    )


def _unknown_codes(reports: Sequence[LabelReport], legend: Legend) -> tuple[UnknownCode, ...]:
    known = {_plain(crop.code): crop.code for crop in legend.codes}
    tallies = [tally for report in reports for tally in report.codes if tally.status == "unknown"]
    found = [
        UnknownCode(
            code=code,
            area_ha=sum(tally.area_ha for tally in tallies if tally.code == code),
            n_parcels=sum(tally.n_parcels for tally in tallies if tally.code == code),
            used=legend.years_of(code),
            near=near if (near := known.get(_plain(code))) != code and code else None,
        )
        for code in {tally.code for tally in tallies}
    ]
    return tuple(sorted(found, key=lambda unknown: (-unknown.area_ha, unknown.code)))


def _plain(code: str) -> str:
    """Without what a spreadsheet or a hand changes: `07a` as `7A`."""
    return code.upper().lstrip("0")


def _line(name: str, width: int, row: CoverageRow) -> str:
    declared = max(row.declared_ha, 1e-9)
    cells = [
        f"{row.n_parcels:,}",
        f"{row.declared_ha:,.0f}",
        *(f"{area / declared:.1%}" for area in (row.mapped_ha, row.excluded_ha, row.unknown_ha)),
        f"{row.labelled_share:.1%}",
        f"{row.shared_ha:,.1f}",
        f"{row.n_repaired:,}",
    ]
    return " ".join([f"{name:<{width}}", *(f"{cell:>9}" for cell in cells)])


def _explain(unknown: UnknownCode) -> str:
    what = f"code '{unknown.code}'" if unknown.code else "no code"
    years = f"; it is in use {unknown.used[0]}–{unknown.used[1]}: is parcels.year right?" if unknown.used else ""
    years += f"; did the file mean '{unknown.near}'?" if unknown.near else ""
    return f"{what}: {unknown.n_parcels:,} parcels, {unknown.area_ha:,.1f} ha stay unlabelled{years}"
