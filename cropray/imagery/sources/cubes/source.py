"""A source of ready cubes over files."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cropray.core.cube import Season
from cropray.core.errors import InputError
from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid, in_full
from cropray.core.sensors import NODATA
from cropray.imagery.cubes import ZoneSeason
from cropray.imagery.gapfill import fill_gaps
from cropray.imagery.scenes import Remarks
from cropray.imagery.sources.cubes.files import (
    Header,
    counts_header_of,
    grid_of,
    header_of,
    read_numbers,
    read_stored,
    some,
)
from cropray.imagery.sources.cubes.settings import SEASON, ZONE, CubesSettings
from cropray.imagery.sources.files.listing import RASTERS, SETTING, fitting, listed_below
from cropray.io.raw_files import FileState, as_input, state_there
from cropray.io.storage import Location
from cropray.io.zones import Zone

_MOST_COUNTS: Final = 255  # counts are stored as uint8
Listed = Mapping[str, tuple[Location, FileState | None]]
"""Path within the folder → the file, and its state where it is known."""


@dataclass(frozen=True, slots=True)
class ZoneFiles:
    """What one zone is read from."""

    cube: Location
    header: Header
    counts: Location | None
    counts_header: Header | None


@dataclass(frozen=True, slots=True)
class CubeFiles:
    """A `CompositeSource` over files."""

    settings: CubesSettings

    @property
    def fills(self) -> bool:
        """As set."""
        return self.settings.fill

    def survey(self, zones: Sequence[ZoneSeason]) -> Remarks:
        """See `CompositeSource.survey`: by the headers of every zone's files; messages name them."""
        listed = self._listed()
        found, without = {}, []
        for zone, season in zones:
            files = self._find(zone, season, listed)
            if files is None:
                without.append(zone.zone_id)
            else:
                found[zone.zone_id] = files
        if without:
            raise InputError(
                f"no file '{self.settings.pattern}' below '{self.settings.folder}' for {len(without)} of {len(zones)} zones: "
                f"{some(without)}; mend 'imagery.folder' or 'imagery.pattern', or leave the zones out (--set zones=[…])"
            )
        used = {str(path) for files in found.values() for path in (files.cube, files.counts)}
        used |= {name for files in found.values() for name in files.header.files}
        remarks = {
            "files that no zone needs": tuple(
                path.name for path, _ in listed.values() if path.suffix.lower() in RASTERS and str(path) not in used
            ),
            "zones without counts of observations: steps with data count as one each": tuple(
                zone_id for zone_id, files in found.items() if files.counts is None and files.header.n_obs is None
            ),
            "bands that the job's cube does not have": tuple(
                sorted({name for files in found.values() for name in files.header.unused})
            ),
        }
        return {remark: names for remark, names in remarks.items() if names}

    def read(self, zone: Zone, season: Season) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
        """See `CompositeSource.read`; a file without data of a band is refused too, and the message names it."""
        files, cube = self._require(zone, season, self._listed()), season.cube
        composite = read_stored(files.cube, files.header, zone.grid, cube)
        empty = [band_id for band, band_id in enumerate(cube.band_ids) if not composite[:, band].any()]
        if empty:
            raise InputError(
                f"cube '{files.cube}' has no data of {some(empty)} in zone '{zone.zone_id}'; mend it, or leave the zone out"
            )
        n_obs = self._read_counts(files, zone.grid)
        if n_obs is None:
            n_obs = (composite != NODATA).all(axis=1).astype(np.uint8)
        if self.settings.fill:
            for band in range(cube.n_bands):
                one = composite[:, band : band + 1]
                composite[:, band : band + 1] = fill_gaps(one, one[:, 0] != NODATA)
        return composite, n_obs

    def files(self, zone: Zone, season: Season) -> tuple[str, ...]:
        """Names of the files that a zone is read from."""
        files = self._require(zone, season, self._listed())
        return tuple(path.name for path in (files.cube, files.counts) if path is not None)

    def fingerprint(self, zone: Zone, season: Season) -> str:
        """See `CompositeSource.fingerprint`: names, sizes and times of change of the files, or what a store says instead.

        What is done to their numbers is part of it.
        """
        listed = self._listed()
        files = self._require(zone, season, listed)
        known = {str(path): there for path, there in listed.values()}
        names = [*files.header.files, *(() if files.counts_header is None else files.counts_header.files)]
        states = [(name, known.get(name) or state_there(as_input(name), SETTING)) for name in names]
        settings = [self.settings.bands, self.settings.fill, season.cube.fingerprint()]
        return fingerprint([[[name, there.size, there.stamp] for name, there in states], settings])

    def _listed(self) -> Listed:
        return {inner: (path, state) for path, state, inner in listed_below(self.settings.folder)}

    def _require(self, zone: Zone, season: Season, listed: Listed) -> ZoneFiles:
        files = self._find(zone, season, listed)
        if files is None:
            raise InputError(
                f"zone '{zone.zone_id}' has no file '{self.settings.pattern}' below '{self.settings.folder}'"
            )
        return files

    def _find(self, zone: Zone, season: Season, listed: Listed) -> ZoneFiles | None:
        """A zone's files among those that are listed; None: it has no cube."""
        place = functools.partial(_fill_in, zone, season)
        settings, counts_of_any = self.settings, self.settings.counts.replace(ZONE, "*").replace(SEASON, "*")
        candidates = _matches(listed, place(settings.pattern), "imagery.pattern", but=counts_of_any)
        cube = _covering(candidates, zone, settings.pattern)
        if cube is None:
            return None
        header = header_of(*cube, season.cube, settings.bands)
        counts = _covering(_matches(listed, place(settings.counts), "imagery.counts"), zone, settings.counts)
        if counts is None:
            return ZoneFiles(cube[0], header, None, None)
        return ZoneFiles(cube[0], header, counts[0], counts_header_of(*counts, season.cube))

    def _read_counts(self, files: ZoneFiles, grid: Grid) -> npt.NDArray[np.uint8] | None:
        if files.counts is not None and files.counts_header is not None:
            path, header, layers = files.counts, files.counts_header, files.counts_header.layers
        elif files.header.n_obs is not None:
            path, header, layers = files.cube, files.header, files.header.n_obs
        else:
            return None
        counts = read_numbers(path, [layer.index for layer in layers], header.grid.window_of(grid))
        for numbers, layer in zip(counts, layers, strict=True):
            numbers[np.isnan(numbers) | (numbers == layer.nodata)] = 0
        if counts.min() < 0 or counts.max() > _MOST_COUNTS or (counts != np.rint(counts)).any():
            raise InputError(
                f"counts '{path}' hold {in_full(counts.min())} to {in_full(counts.max())}; whole numbers of 0 to "
                f"{_MOST_COUNTS} are needed"
            )
        if not counts.any():
            raise InputError(f"counts '{path}' are 0 everywhere in the zone; mend them, or take the file away")
        return counts.astype(np.uint8)


def _fill_in(zone: Zone, season: Season, pattern: str) -> str:
    return pattern.replace(ZONE, zone.zone_id).replace(SEASON, season.first_month)


def _matches(listed: Listed, pattern: str, setting: str, but: str | None = None) -> list[tuple[Location, FileState]]:
    """Files that match a pattern, and not another one."""
    fits = fitting(pattern, list(listed), setting)
    others = [False] * len(listed) if but is None else fitting(but, list(listed), setting)
    found = [
        file for file, is_it, is_other in zip(listed.values(), fits, others, strict=True) if is_it and not is_other
    ]
    return [(path, there or state_there(path, SETTING)) for path, there in found]


def _covering(
    candidates: Sequence[tuple[Location, FileState]], zone: Zone, pattern: str
) -> tuple[Location, FileState] | None:
    """The one file that covers a zone; None: there are no files. InputError where none does, or several do."""
    reasons = [_why_not(grid_of(path, there), zone.grid) for path, there in candidates]
    covering = [file for file, reason in zip(candidates, reasons, strict=True) if reason is None]
    if len(covering) == 1 or not candidates:
        return covering[0] if covering else None
    if covering:
        raise InputError(
            f"zone '{zone.zone_id}' is covered by {len(covering)} files that match '{pattern}': "
            f"{some([str(path) for path, _ in covering])}; narrow the pattern, or write {ZONE} into it"
        )
    raise InputError(
        f"cube '{candidates[0][0]}' does not fit zone '{zone.zone_id}': {reasons[0]}"
        + (f", and so do {len(candidates) - 1} other files that match '{pattern}'" if len(candidates) > 1 else "")
        + "; warp it to the zone's pixels (`gdalwarp -r near`), or lay files side by side in one (`gdalbuildvrt`)"
    )


def _why_not(there: Grid, zone: Grid) -> str | None:
    """Why a file does not cover a zone; None: it does."""
    try:
        window = there.window_of(zone)
    except ValueError as error:
        return str(error)
    is_inside = (
        window.row >= 0
        and window.col >= 0
        and window.row + window.height <= there.height
        and window.col + window.width <= there.width
    )
    return None if is_inside else f"it covers {there.bounds}, the zone needs {zone.bounds}"
