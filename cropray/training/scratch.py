"""Folders on a worker's own disk that do not outlive it for long, however it ends."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "cropray-cache-"
LOCK: Final = "lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder below `TMPDIR`, removed when the block ends. What killed processes left there is removed first.

    A living process holds a lock in its folder; the kernel gives it back however the process ends.
    """
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / "new-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "new-lock").rename(folder / LOCK)  # from here on others look at it
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        # An error: it is held, it is gone meanwhile, or it is another user's.
        with contextlib.suppress(OSError), path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
