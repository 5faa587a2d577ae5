"""Writes that the store did not take, kept in the workspace until it does.

One JSON file per write, `00000012-<digest>.json`, whole, in the order of their numbers. A file goes when its write has
been applied, so a process that dies in between leaves a write that is applied twice: writes must allow that.
"""

import shutil
from pathlib import Path
from typing import Final

from cropray.settings import fingerprint
from cropray.storage import (
    Location,
    as_location,
    files_below,
    folder_hash,
    local_folder,
    relative,
    remove,
    whole_folder,
    write_text,
)
from cropray.tracking.operations import OPERATION, AddFiles, FinishRun, Operation, RegisterModel

FOLDER: Final = "spool"
_FILES: Final = "files"  # copies of files from outside of the workspace: temporary folders


class Spool:
    """What waits for one store."""

    def __init__(self, root: Location, store: str) -> None:
        """Name the folder; it appears with the first write.

        Args:
            root: the workspace.
            store: identity of store and experiment; another store does not get what this one missed.
        """
        self._root = root.absolute() if isinstance(root, Path) else root
        self.folder = self._root / FOLDER / fingerprint(store)[:16]

    def address(self, folder: Location) -> str:
        """A folder as operations name it: within the workspace, which may move, or by its whole address."""
        place = folder.absolute() if isinstance(folder, Path) else folder
        is_inside = place.as_posix().startswith(f"{self._root.as_posix()}/")
        return relative(place, self._root) if is_inside else str(place)

    def locate(self, address: str) -> Location:
        """The folder that an operation names."""
        return as_location(address) if address.startswith("/") or "://" in address else self._root / address

    def waiting(self) -> list[Location]:
        """Files of the writes, oldest first."""
        return [file for file in files_below(self.folder) if file.parent == self.folder and file.name[0].isdigit()]

    def append(self, operation: Operation) -> None:
        """Keep a write, once.

        Raises:
            OSError: the workspace cannot be written.
        """
        kept = self._with_kept_files(operation)
        names = [file.name for file in self.waiting()]
        ending = f"-{kept.digest()}.json"
        if any(name.endswith(ending) for name in names):
            return  # a stage that runs again while the store is away writes the same things again
        number = int(names[-1].partition("-")[0]) + 1 if names else 1
        write_text(self.folder / f"{number:08d}{ending}", kept.model_dump_json() + "\n")

    def read(self, file: Location) -> Operation:
        """A write that waits.

        Raises:
            FileNotFoundError: another process has applied it meanwhile.
            ValueError: the file is damaged or comes from another version.
        """
        return OPERATION.validate_json(file.read_text(encoding="utf-8"))

    def remove(self, file: Location) -> None:
        """Forget a write that was applied; with the last one all copied files go."""
        remove(file)
        if not self.waiting():
            remove(self.folder / _FILES)

    def _with_kept_files(self, operation: Operation) -> Operation:
        """The operation with a folder that will still be there later."""
        if not isinstance(operation, FinishRun | AddFiles | RegisterModel) or operation.folder is None:
            return operation
        source = self.locate(operation.folder)
        if self.address(source) != str(source):
            return operation
        # Named by content: the same files wait once.
        target = self.folder / _FILES / folder_hash(source)[:16]
        if not files_below(target):
            with local_folder(source) as files, whole_folder(target) as copy:
                shutil.copytree(files, copy, dirs_exist_ok=True)
        return operation.model_copy(update={"folder": self.address(target)})
