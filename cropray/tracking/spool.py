"""Writes that the store did not take, kept in the workspace until it does.

One JSON file per write, `00000012-<digest>.json`, whole, in the order of their numbers. A file goes when its write has
been applied, so a process that dies in between leaves a write that is applied twice: writes must allow that.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Final

from cropray.core.fingerprint import fingerprint
from cropray.io.storage import (
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
from cropray.tracking.operations import OPERATION, AddFiles, FinishRun, Operation, RefusedError, RegisterModel

FOLDER: Final = "spool"
_FILES: Final = "files"  # copies of files from outside of the workspace: temporary folders
_REFUSED: Final = "refused"  # writes that can never be made
_STORE: Final = "store.txt"  # says in words which store the writes wait for


class Spool:
    """What waits for one store."""

    def __init__(self, root: Location, store: str) -> None:
        """Name the folder; it appears with the first write.

        Args:
            root: the workspace.
            store: identity of store and experiment; another store does not get what this one missed.
        """
        self._root = root.absolute() if isinstance(root, Path) else root
        self._store = store
        self.folder = self._root / FOLDER / fingerprint(store)[:16]

    def address(self, folder: Location) -> str:
        """A folder as operations name it: within the workspace, which may move, or by its whole address."""
        place = folder.absolute() if isinstance(folder, Path) else folder
        is_inside = place.as_posix().startswith(f"{self._root.as_posix()}/")
        return relative(place, self._root) if is_inside else str(place)

    def locate(self, address: str) -> Location:
        """The folder that an operation of this process names."""
        return as_location(address) if address.startswith("/") or "://" in address else self._root / address

    def kept(self, address: str) -> Location:
        """The folder that an operation out of a file names: whoever can write the workspace may have written it.

        Raises:
            RefusedError: it, or something in it, lies outside of the workspace.
        """
        if address.startswith("/") or "://" in address or not {*address.split("/")}.isdisjoint({"..", ".", ""}):
            raise RefusedError(f"'{address}' is no folder of the workspace")
        folder = self._root / address
        if isinstance(folder, Path) and isinstance(self._root, Path):
            inside = self._root.resolve()
            for path in (folder, *folder.rglob("*")):
                if not path.resolve().is_relative_to(inside):
                    raise RefusedError(f"'{path}' leads out of the workspace, to '{path.resolve()}'")
        return folder

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
        if not names:
            write_text(self.folder / _STORE, f"{self._store}\n")
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
            remove(self.folder / _STORE)

    def refuse(self, file: Location) -> None:
        """Set a write aside that can never be made; a person may want to look at it."""
        with contextlib.suppress(FileNotFoundError):  # another process has done it meanwhile
            write_text(self.folder / _REFUSED / file.name, file.read_text(encoding="utf-8", errors="replace"))
        self.remove(file)

    def others(self) -> dict[str, int]:
        """Store or experiment → writes that wait for it in this workspace, those of this one apart."""
        counts: dict[str, int] = {}
        for file in files_below(self.folder.parent):
            if file.parent.parent == self.folder.parent and file.parent != self.folder and file.name[0].isdigit():
                counts[self._name_of(file.parent)] = counts.get(self._name_of(file.parent), 0) + 1
        return counts

    def _name_of(self, folder: Location) -> str:
        name = folder / _STORE
        return name.read_text(encoding="utf-8").strip() if name.exists() else folder.name

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
