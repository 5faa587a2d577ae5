"""A legend that a user writes: which codes of a register belong to which class.

A CSV file with the columns `class`, `code` or `hcat` or both, and optionally `name`, `colour`, `level_1`, `level_2` … and
`note`; docs/legends.md describes them.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR
from typing import Final

from cropray.core.errors import InputError
from cropray.core.hcat import N_LEVELS, is_hcat, levels_of, prefix_of
from cropray.core.legend import EXCLUDED, CropClass, CropCode, Legend, spread_colour
from cropray.io.csv_rows import read_rows
from cropray.io.storage import Location

MOST_CLASSES: Final = 254  # of a file: class ids are uint8, 255 is taken, and 254 stays free for a second mark
COLUMNS: Final = ("code", "class", "name", "colour", "hcat", "note")
_FEW: Final = 12  # codes in a message
_LEVEL: Final = re.compile(r"level_[1-9][0-9]?")
_COLOUR: Final = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the file; texts that are not there are empty."""

    line: int
    key: str
    """What the register is searched for: the code, or of a row without one its HCAT code."""
    hcat: str
    class_name: str
    name: str
    colour: str
    note: str
    levels: tuple[str, ...]
    """Of the columns `level_1`, `level_2` …; none where the file has no such columns."""


def read_legend(path: Location) -> Legend:
    """Read a legend.

    Class ids count from 0 in the order in which the classes first stand in the file, or, where all classes are whole
    numbers, in the order of these.

    Raises:
        InputError: the file or a column is missing or unreadable, a value is refused, or lines contradict each other.
    """
    where = f"legend '{path}'"
    lines = read_rows(path, ("class",), "legend", "parcels.legend")
    n_levels = _count_levels(list(next(iter(lines.values()))), where)
    rows = [_row(line, cells, n_levels, where) for line, cells in lines.items()]
    codes = _codes(rows, where)
    by_class: dict[str, list[_Row]] = {}
    for row in rows:
        if row.class_name != EXCLUDED:
            by_class.setdefault(row.class_name, []).append(row)
            if len(by_class) > MOST_CLASSES:
                raise InputError(
                    f"{where}, line {row.line}: class '{row.class_name}' is one more than the {MOST_CLASSES} that a "
                    f"legend can have; give codes of similar crops the same class"
                )
    if not by_class:
        raise InputError(f"{where} has no class: all of its codes are {EXCLUDED}; give some of them a class")
    names = sorted(by_class, key=int) if all(map(str.isdecimal, by_class)) else list(by_class)
    classes = tuple(_classes([by_class[name] for name in names], where))
    _require_tree(classes, where)
    return Legend(
        classes,
        tuple(codes[key] for key in sorted(codes) if not is_hcat(key)),
        tuple(codes[key] for key in sorted(codes) if is_hcat(key)),
    )


def require_codes(legend: Legend, pieces: Iterable[Sequence[str]], path: Location) -> None:
    """Raises: InputError: a legend (of this path) has no code of a register, whose pieces are read until one is known."""
    seen: dict[str, None] = {}
    for codes in pieces:
        if not legend.codes_of(MINYEAR, codes).keys().isdisjoint(codes):
            return
        seen |= dict.fromkeys(codes[: _FEW - len(seen)])
    own = [crop.code for crop in legend.codes] + [f"{crop.code:0<10} and below" for crop in legend.below]
    hint = "; HCAT codes of a legend count where 'code' is empty" if any(map(is_hcat, seen)) and legend.codes else ""
    raise InputError(
        f"legend '{path}' has no line for any code of the register: the register has {_some(list(seen))}, the legend "
        f"{_some(own)}; set parcels.code_column to the column of the legend's codes, or write the legend for these{hint}"
    )


def _some(codes: Sequence[str]) -> str:
    return ", ".join(f"'{code}'" for code in codes[:_FEW]) + (" …" if len(codes) >= _FEW else "")


def _count_levels(columns: Sequence[str], where: str) -> int:
    """Number of level columns, which count from 1 without a gap; no other column may be unknown."""
    levels = [column for column in columns if _LEVEL.fullmatch(column)]
    wanted = [f"level_{number}" for number in range(1, len(levels) + 1)]
    if sorted(levels) != sorted(wanted):
        raise InputError(
            f"{where} has the columns {levels}; number them {wanted}, from the coarsest level to the finest"
        )
    for column in columns:
        if column not in (*COLUMNS, *levels):
            near = difflib.get_close_matches(column.lower(), [*COLUMNS, "level_1"], n=1)
            hint = f"(did you mean '{near[0]}'?)" if near else f"(these are: {', '.join(COLUMNS)}, level_1, level_2 …)"
            raise InputError(
                f"{where} has a column '{column}', which is not read {hint}; take it out, or name it 'note'"
            )
    if not {"code", "hcat"} & set(columns):
        raise InputError(f"{where} has neither a column 'code' nor 'hcat'; name the register's codes in one of them")
    return len(levels)


def _row(line: int, cells: Mapping[str, str], n_levels: int, where: str) -> _Row:
    code, hcat, colour = cells.get("code", ""), cells.get("hcat", ""), cells.get("colour", "")
    refusals = {
        f"has no class; name one, or {EXCLUDED} where nothing is to be trained on": not cells["class"],
        "has neither code nor hcat; name the register's code, or take the line out": not (code or hcat),
        f"has hcat '{hcat}'; an HCAT code has ten digits, of which the first two are 33": bool(hcat)
        and not is_hcat(hcat),
        f"has colour '{colour}'; write it like #f0d04c": bool(colour) and not _COLOUR.fullmatch(colour),
    }
    for what, is_so in refusals.items():
        if is_so:
            raise InputError(f"{where}, line {line} {what}")
    return _Row(
        line=line,
        key=code or hcat,
        hcat=hcat or (code if is_hcat(code) else ""),
        class_name=cells["class"],
        name=cells.get("name", ""),
        colour=colour.lower(),
        note=cells.get("note", ""),
        levels=tuple(cells[f"level_{number}"] for number in range(1, n_levels + 1)),
    )


def _codes(rows: Sequence[_Row], where: str) -> dict[str, CropCode]:
    """Key → its meaning, in all years."""
    first: dict[str, _Row] = {}
    for row in rows:
        before = first.setdefault(row.key, row)
        if before.class_name != row.class_name:
            raise InputError(
                f"{where}, lines {before.line} and {row.line}: code '{row.key}' has the classes '{before.class_name}' and "
                f"'{row.class_name}'; keep one of the lines"
            )
    return {
        key: CropCode(prefix_of(key) if is_hcat(key) else key, row.class_name, MINYEAR, MAXYEAR, row.note)
        for key, row in first.items()
    }


def _classes(of_class: Sequence[Sequence[_Row]], where: str) -> Iterator[CropClass]:
    """Classes from the rows of each, in order. Those without a colour get one that no other has."""
    given = {row.colour for rows in of_class for row in rows}
    free = (colour for colour in map(spread_colour, itertools.count()) if colour not in given)
    n_levels = N_LEVELS if any(row.hcat for rows in of_class for row in rows) else 0
    for class_id, rows in enumerate(of_class):
        key = rows[0].class_name
        name = _said("name", {row.line: row.name for row in rows}, key, where) or key
        colour = _said("colour", {row.line: row.colour for row in rows}, key, where) or next(free)
        level1, level2, *more = _levels(rows, n_levels, where)
        yield CropClass(class_id, key, level1, level2, name, name, colour, tuple(more))


def _levels(rows: Sequence[_Row], n_from_hcat: int, where: str) -> tuple[str, ...]:
    """As many for each class, and at least two; a level that is not given is the one above it, or the class."""
    key, n_given = rows[0].class_name, len(rows[0].levels)
    levels = [_said(f"level_{k + 1}", {row.line: row.levels[k] for row in rows}, key, where) for k in range(n_given)]
    if not n_given and all(row.hcat for row in rows):
        levels = list(levels_of(row.hcat for row in rows))
    levels += [""] * (max(2, n_given or n_from_hcat) - len(levels))
    return tuple(itertools.accumulate(levels, lambda above, level: level or above, initial=key))[1:]


def _said(column: str, cells: Mapping[int, str], class_name: str, where: str) -> str:
    """The one text that some lines of a class have in a column; empty where none has any."""
    first = next(((line, text) for line, text in cells.items() if text), (0, ""))
    for line, text in cells.items():
        if text not in ("", first[1]):
            raise InputError(
                f"{where}, lines {first[0]} and {line}: class '{class_name}' has {column} '{first[1]}' and '{text}'; "
                f"make them the same, or two classes"
            )
    return first[1]


def _require_tree(classes: Sequence[CropClass], where: str) -> None:
    """A group of one level lies in one group of the level above."""
    for finer in range(1, len(classes[0].levels)):
        above: dict[str, CropClass] = {}
        for crop in classes:
            other = above.setdefault(crop.levels[finer], crop)
            if other.levels[finer - 1] != crop.levels[finer - 1]:
                raise InputError(
                    f"{where}: level_{finer + 1} '{crop.levels[finer]}' lies in level_{finer} '{other.levels[finer - 1]}' "
                    f"for class '{other.name}' and in '{crop.levels[finer - 1]}' for class '{crop.name}'; make them the same"
                )
