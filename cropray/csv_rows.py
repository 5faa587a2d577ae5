"""Rows of the small tables that users write: CSV files in UTF-8, as editors and spreadsheets save them."""

import csv
import io
from collections.abc import Sequence

from cropray.errors import InputError
from cropray.raw_files import as_input, read_bytes
from cropray.storage import Location


def read_rows(path: str | Location, columns: Sequence[str], name: str, setting: str) -> list[dict[str, str]]:
    """The rows of a table, by column; the first stands on line 2.

    Args:
        path: the file.
        columns: those that it must have; others may stand beside them.
        name: what the table is called in messages.
        setting: where a job names it.

    Raises:
        InputError: the file or a column is missing, it cannot be read, a row is cut off, or there are no rows.
    """
    try:
        text = read_bytes(as_input(path), name).decode("utf-8-sig")  # spreadsheets begin with a byte order mark
        rows = list(csv.DictReader(io.StringIO(text, newline=""), restval=""))
    except FileNotFoundError:
        raise InputError(f"{name} '{path}' does not exist; set {setting} to a CSV file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} '{path}' cannot be read: {error}; it must be a CSV file in UTF-8") from None
    if not rows:
        raise InputError(f"{name} '{path}' has no rows")
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise InputError(f"{name} '{path}' lacks the columns {missing}; it needs {list(columns)}")
    return rows
