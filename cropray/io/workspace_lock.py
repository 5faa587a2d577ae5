"""One run at a time on a workspace: two would write the same files and stamps.

The lock is a record of who is at work, beside the artefacts. On a disk the system also locks its file, and lets go when
the process ends, however it ends. Where that cannot be known (object storage, another machine) the record has to have
been renewed lately.
"""

import contextlib
import errno
import functools
import json
import logging
import os
import platform
import shlex
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from upath import UPath

from cropray.core.errors import ConfigError
from cropray.core.progress import Progress
from cropray.io.storage import Location, remove, write_json

NAME: Final = ".lock"
STALE_S: Final = 180.0  # a run on another machine that has not renewed its record for so long is dead
_RENEW_S: Final = 30.0
_POLL_S: Final = 5.0
_SETTLE_S: Final = 1.0  # object stores have no locks: of two that write at once, the last one's record stands
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that is at work on a workspace."""

    token: str
    """Of this run alone."""
    host: str
    boot: str
    """Of the machine, since it was last started; containers on it share it."""
    processes: str
    """Which processes it can see: a container has its own, and counts from 1."""
    pid: int
    born: str
    """When the process started; a number is given again to another one."""
    command: str
    since: str
    """UTC."""
    renewed: float
    """Seconds since 1970."""

    def is_alive(self, *, is_unlocked: bool) -> bool | None:
        """Whether the run is at work; None where only the record can tell, by being renewed.

        `is_unlocked`: the system of this machine says that no process of it holds the lock.
        """
        here = _myself()
        if self.boot != here.boot:
            return None
        if is_unlocked:
            return False
        return _born(self.pid) == self.born if self.processes == here.processes else None

    def __str__(self) -> str:
        return f"`{self.command}` has been at work on it since {self.since} UTC (process {self.pid} on {self.host})"


@contextlib.contextmanager
def locked(root: Location) -> Iterator[None]:
    """Keep other runs off a workspace, which is there and can be written, for the time of the block.

    Raises:
        ConfigError: another run is at work on it; the message says which.
    """
    file = root / NAME
    lock = _lock_on_disk(file) if isinstance(file, Path) else _lock_in_store(file)
    with lock as renew:
        stop = threading.Event()
        thread = threading.Thread(target=_keep_renewing, args=(renew, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _write(file: Location, holder: Holder, descriptor: int | None = None) -> None:
    """Write the record, again, with the time of now."""
    record = asdict(replace(holder, renewed=time.time()))
    if descriptor is None:
        write_json(file, record)
    else:  # in place: a lock is on a file, not on a name
        text = json.dumps(record).encode()
        os.pwrite(descriptor, text, 0)
        os.ftruncate(descriptor, len(text))


@contextlib.contextmanager
def _lock_on_disk(file: Path) -> Iterator[Callable[[], None]]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        is_locked = _lock(descriptor)
        if is_locked is False:
            raise ConfigError(_refusal(file, _parse(os.pread(descriptor, 1 << 16, 0))))
        _require_free(file, lambda: os.pread(descriptor, 1 << 16, 0), is_unlocked=is_locked is True)
        renew = functools.partial(_write, file, _myself(), descriptor)
        renew()
        yield renew
        os.ftruncate(descriptor, 0)  # not removed: whoever has it open would lock a file that nobody else sees
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """True: no other process had it; False: one has it; None: this file system has no locks."""
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415  not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in {errno.EWOULDBLOCK, errno.EACCES} else None
    return True


@contextlib.contextmanager
def _lock_in_store(file: UPath) -> Iterator[Callable[[], None]]:
    _require_free(file, lambda: _content(file), is_unlocked=False)
    holder = _myself()
    renew = functools.partial(_write, file, holder)
    renew()
    time.sleep(_SETTLE_S)
    if (now := _parse(_content(file))) is not None and now.token != holder.token:
        raise ConfigError(_refusal(file, now))
    try:
        yield renew
    finally:
        with contextlib.suppress(Exception):  # a store that is away must not hide how the run ended
            remove(file)


def _require_free(file: Location, read: Callable[[], bytes], *, is_unlocked: bool) -> None:
    """Return once nobody is at work; of a run elsewhere that may have died, wait for its next sign of life."""
    first = other = _parse(read())
    while other is not None and (is_alive := other.is_alive(is_unlocked=is_unlocked)) is not False:
        if is_alive or other != first:
            raise ConfigError(_refusal(file, other))
        left_s = other.renewed + STALE_S - time.time()
        if left_s <= 0:
            return
        if other is first:
            Progress().note(
                f"workspace '{file.parent}': {other}; unless that run gives a sign of life, it is taken for dead in {left_s:.0f} s"
            )
        time.sleep(min(_POLL_S, left_s))
        other = _parse(read())


def _keep_renewing(renew: Callable[[], None], stop: threading.Event) -> None:
    while not stop.wait(_RENEW_S):
        try:
            renew()
        except Exception:  # a store may be away for a while: the run goes on, and the log says so
            _logger.warning("the lock of the workspace could not be renewed", exc_info=True)


def _content(file: Location) -> bytes:
    try:
        return bytes(file.read_bytes())
    except FileNotFoundError:
        return b""


def _parse(content: bytes) -> Holder | None:
    """None where nobody is at work, or the record is damaged: a run that is at work renews it soon."""
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _refusal(file: Location, other: Holder | None) -> str:
    who = str(other) if other is not None else "another run is at work on it"
    return (
        f"workspace '{file.parent}' is in use: {who}; wait until it has ended, stop it, or give this job a 'workspace' of "
        f"its own"
    )


def _myself() -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        host=platform.node(),
        boot=_first_line("/proc/sys/kernel/random/boot_id") or platform.node(),
        processes=_link("/proc/self/ns/pid"),
        pid=os.getpid(),
        born=_born(os.getpid()) or "",
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        renewed=time.time(),
    )


def _born(pid: int) -> str | None:
    """When a process of this machine started, as far as the system tells; None where there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # it is another user's
        pass
    # Clock ticks since the machine started, after the name of the program, which may hold anything.
    fields = _first_line(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ("" if not fields else None)


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
