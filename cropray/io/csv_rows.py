"""Rows of the small tables that users write: CSV files in UTF-8, as editors and spreadsheets save them."""

import csv
import io
import itertools
from collections.abc import Sequence

from cropray.core.errors import InputError
from cropray.io.raw_files import as_input, read_bytes
from cropray.io.storage import Location


def read_rows(path: str | Location, columns: Sequence[str], name: str, setting: str) -> dict[int, dict[str, str]]:
    """Line → its row, by column; of a row of several lines the last. Lines without a text do not count.

    The table must have these columns; others may stand beside them. Blanks around names and cells do not count. Messages
    call it by its name and by the setting where a job names it.

    Raises:
        InputError: the file or a column is missing, or a column stands twice, it cannot be read, a row is cut off or has
            more cells than columns, or there are no rows.
    """
    try:
        text = read_bytes(as_input(path), name).decode("utf-8-sig")  # spreadsheets begin with a byte order mark
        reader = csv.reader(io.StringIO(text, newline=""))
        (_, header), *lines = [(reader.line_num, row) for row in reader if any(map(str.strip, row))] or [(0, [])]
    except FileNotFoundError:
        raise InputError(f"{name} '{path}' does not exist; set {setting} to a CSV file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} '{path}' cannot be read: {error}; it must be a CSV file in UTF-8") from None
    if not lines:
        raise InputError(f"{name} '{path}' has no rows")
    names = [cell.strip() for cell in header]
    missing = [column for column in columns if column not in names]
    if missing:
        raise InputError(f"{name} '{path}' lacks the columns {missing}; it has {names} and needs {list(columns)}")
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        raise InputError(f"{name} '{path}' has the columns {twice} more than once; remove all but one of each")
    return {line: _row(names, cells, f"{name} '{path}', line {line}") for line, cells in lines}


def _row(names: Sequence[str], cells: Sequence[str], where: str) -> dict[str, str]:
    if len(cells) > len(names):
        raise InputError(
            f"{where} has {len(cells)} cells for {len(names)} columns; quote a text that holds a comma, and write "
            f"decimals with a point"
        )
    return {column: cell.strip() for column, cell in itertools.zip_longest(names, cells, fillvalue="")}
