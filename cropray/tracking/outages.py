"""What a store that does not take writes says, and what its user can do."""

import re
import shlex
from importlib import resources
from typing import Final

from alembic.util.exc import CommandError
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from cropray.core.redaction import redact

# requests' errors are OSErrors; an ImportError is a database whose driver is not installed.
OUTAGES: Final = (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError)
_FOUND: Final = re.compile(r"out-of-date database schema \(found version (\w+)")
_NEWER: Final = "Can't locate revision"


class RefusedError(Exception):
    """The store answers, and will never take this write."""


def first_line(error: Exception) -> str:
    """What went wrong, in one line and without passwords."""
    return redact(str(error).strip().partition("\n")[0]) or type(error).__name__


def needs_a_person(reason: str) -> bool:
    """Whether waiting mends nothing: the database has the tables of another MLflow."""
    return _FOUND.search(reason) is not None or _NEWER in reason


def remedy(reason: str, uri: str) -> str:
    """What to do about a store that said `reason`."""
    if needs_a_person(reason):
        found = _FOUND.search(reason)
        if found is None or not _knows_schema(found[1]):
            return "a newer MLflow has used this database: install that version, or set tracking_uri to another store"
        return f"copy the database, then run `mlflow db upgrade {shlex.quote(uri)}`"
    if uri.startswith("sqlite"):
        return "see that the database's file and folder can be read and written, or set tracking_uri to another store"
    return "start the server, or set tracking_uri to one that answers"


def _knows_schema(version: str) -> bool:
    """Whether the installed MLflow can migrate from a version of its tables."""
    folder = resources.files("mlflow").joinpath("store", "db_migrations", "versions")
    return any(file.name.startswith(f"{version}_") for file in folder.iterdir())
