"""What a reader of the scores must doubt, said in sentences with numbers."""

from collections.abc import Iterator
from typing import Final

from cropray.core.intervals import MIN_ZONES
from cropray.evaluation.results import ReportInputs, ZoneQuality
from cropray.report.tables import ClassRow, class_rows
from cropray.search.doubts import fold_doubts

FEW_PIXELS: Final = 100  # 1 ha at 10 m: about one field; a class score from less says little
_HOW_NEW_REGION: Final = "search.leave_region_out: true scores them"
FEW_ZONES: Final = 10  # below this, intervals of rare classes cover 82-85 % where they promise 95 %
_FEW_CODES: Final = 12  # unknown codes that are named; coverage.json has all


def doubts(inputs: ReportInputs) -> tuple[str, ...]:
    """Sentences on what the scores rest on: zones, supports, filled and ignored pixels, then the dataset's own notes."""
    notes = (_sentence(note) for note in inputs.manifest.notes)
    return (
        *_on_zones(inputs),
        *_on_search(inputs),
        *_on_classes(class_rows(inputs)),
        *_on_pixels(inputs),
        *_on_codes(inputs),
        *notes,
    )


def _on_zones(inputs: ReportInputs) -> Iterator[str]:
    test = inputs.manifest.of_split("test")
    n_pixels = sum(zone.n_labelled for zone in test)
    rest = "rest" if inputs.models else "will rest"
    yield f"The scores {rest} on {n_pixels:,} labelled pixels in {len(test)} test zones; pixels of one zone are alike."
    if MIN_ZONES <= len(test) < FEW_ZONES:
        yield f"With {len(test)} test zones the intervals are rather too narrow than too wide."
    if len(test) < MIN_ZONES:
        yield f"{len(test)} test zones are too few for intervals: how much the scores would change elsewhere is unknown."
    regions = {zone.region for zone in inputs.manifest.of_split("train")}
    if all(zone.region in regions for zone in test):
        told = [f"{m.label} macro F1 {m.new_region.macro_f1:.3f}" for m in inputs.models if m.new_region is not None]
        how = (
            f"in a new region {', '.join(told)}" if told else f"expect lower scores in a new region; {_HOW_NEW_REGION}"
        )
        yield f"Every test zone lies in a region that has training zones: {how}."


def _on_search(inputs: ReportInputs) -> Iterator[str]:
    for model in inputs.models:
        yield from (f"{model.label}: {warning}." for warning in model.warnings)
        if model.new_region is not None and model.decision is not None and model.decision["tau"]:
            yield f"{model.label}: scores of new regions are of its likeliest class, not of what it decides for."
    if inputs.models:
        yield from (_sentence(doubt) for doubt in fold_doubts(inputs.manifest))


def _on_classes(rows: tuple[ClassRow, ...]) -> Iterator[str]:
    untested = [row.label for row in rows if row.n_train and not row.n_test]
    if untested:
        yield f"No test zone holds {_names(untested)}: the scores say nothing about it."
    few = [row.label for row in rows if 0 < row.n_test < FEW_PIXELS]
    if few:
        yield f"Fewer than {FEW_PIXELS} test pixels: {_names(few)}. These weigh in the macro scores like the others."


def _on_pixels(inputs: ReportInputs) -> Iterator[str]:
    if not inputs.zone_quality:
        return
    filled = _spread(inputs.zone_quality, "share_filled")
    ignored = _spread(inputs.zone_quality, "share_unlabelled")
    noun = inputs.manifest.cube.noun
    yield f"{filled} of the pixel-{noun}s had no clear observation and were filled from neighbouring {noun}s."
    yield f"{ignored} of the pixels lie in no usable parcel: neither trained on nor scored, yet mapped."


def _on_codes(inputs: ReportInputs) -> Iterator[str]:
    if inputs.unknown_codes_ha:
        largest = sorted(inputs.unknown_codes_ha.items(), key=lambda item: (-item[1], item[0]))
        listing = ", ".join(f"{code or 'none'} ({area:,.1f} ha)" for code, area in largest[:_FEW_CODES])
        if others := largest[_FEW_CODES:]:
            listing += f" and {len(others)} more ({sum(area for _, area in others):,.1f} ha)"
        yield f"Parcels with codes that the legend does not know were left unlabelled: {listing}."


def _spread(quality: tuple[ZoneQuality, ...], share: str) -> str:
    """`21 % (8–34 % by zone)`."""
    values = [100 * getattr(zone, share) for zone in quality]
    return f"{sum(values) / len(values):.0f} % ({min(values):.0f}–{max(values):.0f} % by zone)"


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


def _names(labels: list[str]) -> str:
    return ", ".join(sorted(labels))
