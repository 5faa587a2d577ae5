"""The few exceptions a caller may want to catch.

Every message says what was seen, what was needed and what to do about it.
"""


class CroprayError(Exception):
    """Base of all errors that cropray raises on purpose."""


class ConfigError(CroprayError, ValueError):
    """A job configuration cannot be used."""


class InputError(CroprayError, ValueError):
    """A file that came in (scenes, parcels, zones, points) cannot be used."""


class MissingArtefactError(CroprayError, FileNotFoundError):
    """A stage needs an artefact that no earlier stage has written."""


class SchemaError(CroprayError, ValueError):
    """A stored artefact has another schema, version or hash than this code reads."""


class LeakageError(CroprayError, ValueError):
    """Training and test data would share pixels, parcels or zones."""


class AccountingError(CroprayError, ArithmeticError):
    """Pixels were lost or counted twice: scores would be wrong."""


class StageFailedError(CroprayError, RuntimeError):
    """Some zones or units of a stage failed; the others were finished.

    Attributes:
        failures: unit name (zone id, trial name) to the message of what went wrong.
        n_done: how many were finished.
    """

    def __init__(self, stage: str, failures: dict[str, str], n_done: int) -> None:
        self.stage = stage
        self.failures = failures
        self.n_done = n_done
        listing = "\n".join(f"  {unit}: {message}" for unit, message in sorted(failures.items()))
        super().__init__(
            f"stage '{stage}': {len(failures)} failed, {n_done} finished.\n{listing}\n"
            f"Mend the cause and run the stage again: what is finished is not repeated."
        )
