"""The file of a fit that is not finished: from it the fit goes on after its process was lost.

One safetensors file, whole or absent, no pickle. Its header holds the fit's state as JSON, the fingerprint of the job
that it belongs to and a SHA-256 of both. It saves time and nothing else: a file that is missing, damaged or of
another job means a fit from the start, and a file that cannot be written means a warning, never a lost fit.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cropray.io.storage import Location, whole_file

HEADER_SIZE_BYTES: Final = 8  # little-endian length of the JSON header that follows
PAUSE: Final = 4  # times the seconds that a failed write took: a store that is away costs a fit a fifth of its time
log = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Saved:
    """What a progress file holds."""

    arrays: dict[str, npt.NDArray[Any]]
    state: dict[str, Any]
    """JSON-able."""


@dataclass(slots=True)
class ProgressFile:
    """Where the progress of one fit is kept, and whose it is."""

    path: Location
    fingerprint: str
    """Of everything that the fit's result depends on."""
    every: int
    """Epochs or boosting rounds between two writes."""
    _try_again: float = field(default=0.0, init=False, repr=False)
    """Monotonic time before which nothing is written."""

    def save(self, arrays: Arrays, state: Mapping[str, Any]) -> None:
        """Replace the file. A failure is logged: the fit itself goes on, and the store gets a pause."""
        started = time.monotonic()
        if started < self._try_again:
            return
        text = json.dumps(state)
        arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # safetensors takes no other
        metadata = {"fingerprint": self.fingerprint, "state": text, "sha256": _digest(arrays, text)}
        try:
            with whole_file(self.path) as temporary:
                temporary.write_bytes(save(arrays, metadata))
        except Exception as error:  # noqa: BLE001 - object stores have errors of their own; none may end the fit
            log.warning("progress of a fit cannot be kept in '%s' (%r); the fit goes on without", self.path, error)
            now = time.monotonic()
            self._try_again = now + PAUSE * (now - started)

    def read(self) -> bytes | None:
        """The file's bytes; None where there is none or it cannot be read."""
        try:
            return bytes(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("progress of a fit cannot be read from '%s' (%r); it starts again", self.path, error)
            return None

    def unpack(self, data: bytes | None) -> Saved | None:
        """What `read` gave, proved to be whole and of this job; None otherwise."""
        if data is None:
            return None
        try:
            metadata = _metadata(data)
            if metadata["fingerprint"] != self.fingerprint:
                log.warning("progress in '%s' is of another job; the fit starts again", self.path)
                return None
            saved = Saved(load(data), json.loads(metadata["state"]))
            is_whole = _digest(saved.arrays, metadata["state"]) == metadata["sha256"]
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning("progress in '%s' is damaged (%r); the fit starts again", self.path, error)
            return None
        if not is_whole:
            log.warning("progress in '%s' is damaged (its checksum differs); the fit starts again", self.path)
            return None
        return saved


def _metadata(data: bytes) -> dict[str, str]:
    end = HEADER_SIZE_BYTES + int.from_bytes(data[:HEADER_SIZE_BYTES], "little")
    metadata: dict[str, str] = json.loads(data[HEADER_SIZE_BYTES:end])["__metadata__"]
    return metadata


def _digest(arrays: Arrays, state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
