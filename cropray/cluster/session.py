"""Ray for the time of one command: a local one that is started and stopped here, or a running cluster."""

import contextlib
import logging
import os
import secrets
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import ray
import ray.data
from ray._private import ray_constants
from ray._private.authentication.authentication_token_generator import generate_new_authentication_token
from ray._private.log import PlainRayHandler
from ray.autoscaler.sdk import request_resources

from cropray.cluster.placement import open_nodes
from cropray.cluster.ray_address import require_ray
from cropray.cluster.settings import ClusterSettings
from cropray.core.errors import ConfigError, CroprayError
from cropray.core.progress import Progress

AnswerT = TypeVar("AnswerT")

_POLL_S: Final = 1.0
_ANSWER_S: Final = 120.0  # a worker that imports everything on a busy node
# Ray, Train, Tune and Data read these when they start; a user's own values go before.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # `report` waits for this: the default makes each epoch 2 s longer
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the command line, which stops Ray
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
}
# Ray's sockets lie below its temporary folder, and systems take no longer paths for them, in bytes.
_LONGEST_SOCKET: Final = 103 if sys.platform == "darwin" else 107
_LONGEST_FOLDER: Final = _LONGEST_SOCKET - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
_SHORT_FOLDER: Final = Path("/tmp")  # noqa: S108  Ray's own choice where no variable names another


@contextlib.contextmanager
def ray_session(settings: ClusterSettings, *, needs_dashboard: bool = False) -> Iterator[None]:
    """Connect to Ray, and stop what was started here when the block ends, however it ends.

    Ray Train's worker groups need the State API that the dashboard process serves (`needs_dashboard`).

    Raises:
        ConfigError: no Ray answers at the address, or none can be started here.
    """
    if ray.is_initialized():  # inside a job driver or a test that started Ray itself
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    on_terminate = signal.getsignal(signal.SIGTERM)
    with _interrupted_by_sigterm():
        _start(settings, needs_dashboard=needs_dashboard)
        # Ray's core installs a handler that aborts the process on SIGTERM, before anything could be stopped in order.
        if on_terminate is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)
    _quieten_ray_data()
    try:
        yield
    finally:
        ray.shutdown()


def address_of(settings: ClusterSettings) -> str | None:
    """Of the running cluster that a command connects to; None: it starts a Ray of its own."""
    address = settings.address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address or None


def name_of_address(settings: ClusterSettings) -> str:
    """Where the address of the cluster is set, for messages."""
    return "cluster.address" if settings.address else "RAY_ADDRESS"


def require_cpus(n_tasks: int, wait_s: float) -> None:
    """Return once the connected cluster has a node on which a task of one CPU can run, within `wait_s` seconds.

    An autoscaler is asked meanwhile for nodes for `n_tasks`; from then on the tasks themselves ask, by waiting.

    Raises:
        ConfigError: there is none when the time is up; tasks would wait for ever.
    """
    until = time.monotonic() + wait_s
    is_asked = False
    try:
        while not any(node["Resources"].get("CPU", 0) >= 1 for node in open_nodes()):
            if time.monotonic() >= until:
                raise ConfigError(
                    f"no node of the cluster has a CPU for tasks, and none came within cluster.wait_s = {wait_s:g} s; "
                    f"add nodes, or where an autoscaler does so set cluster.wait_s to the time that it needs, e.g. 900"
                )
            if not is_asked:
                is_asked = True
                request_resources(bundles=[{"CPU": 1}] * n_tasks)
            time.sleep(_POLL_S)
    finally:
        if is_asked:
            request_resources(num_cpus=0)


def ask_nodes(
    question: Callable[[], AnswerT], concerns: Callable[[Mapping[str, float]], bool], gpus: float = 0.0
) -> dict[str, AnswerT]:
    """Call a function, which asks for so many GPUs, in a worker of each node that it concerns, by the node's resources.

    It is called also where all CPUs are in use or there are none. The answers are by the nodes' addresses.

    Raises:
        CroprayError: raised by the function, or a node did not answer; it is named.
    """
    asked = {}
    for node in [node for node in open_nodes() if concerns(node["Resources"])]:
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = _answer.options(num_gpus=gpus, scheduling_strategy=there)
        asked[node["NodeManagerAddress"]] = task.remote(question)
    answers = {}
    for address, ref in asked.items():
        try:
            answers[address] = ray.get(ref, timeout=_ANSWER_S)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # of the function; Ray's own words are a traceback
            said = cause if isinstance(cause, CroprayError) else f"no answer ({type(error).__name__}: {error})"
            raise CroprayError(f"node {address}: {said}") from None
    return answers


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]  # ray is untyped
def _answer(question: Callable[[], AnswerT]) -> AnswerT:
    return question()


def ray_disk() -> Path:
    """A folder on the disk to which this machine's Ray writes what its object store cannot hold."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """While Ray starts its own handler is in place, which ends the process with the number of the signal."""
    try:
        yield
    except SystemExit as exit_:
        if exit_.code != signal.SIGTERM:
            raise
        ray.shutdown()
        raise KeyboardInterrupt from None


def _start(settings: ClusterSettings, *, needs_dashboard: bool) -> None:
    address = address_of(settings)
    common = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    keep_token_private(makes_one=not address)
    try:
        if address:
            ray.init(address=require_ray(address, name_of_address(settings)), **common)
        else:
            store = settings.object_store_gb
            with _on_loopback():
                ray.init(
                    address="local",
                    num_cpus=settings.num_cpus,
                    include_dashboard=needs_dashboard,
                    object_store_memory=None if store is None else int(store * 1e9),
                    **_folders(),
                    **common,
                )
    except Exception as error:
        # A node that is slow to start is an `Exception` and nothing more; other kinds are mistakes of the code.
        told = (
            isinstance(error, OSError | RuntimeError | ValueError | ray.exceptions.RayError) or type(error) is Exception
        )
        if not told or isinstance(error, ConfigError):
            raise
        reason = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        where = f"{name_of_address(settings)} = '{address}'" if address else "its folder, RAY_TMPDIR, and 'cluster'"
        raise ConfigError(f"Ray does not start or answer ({reason}); check {where}") from error


def _folders() -> dict[str, Any]:
    """Ray's own folder where the one that is set cannot be used; what the object store spills goes to that one even so.

    ConfigError where the folder cannot be written.
    """
    wanted = ray_disk()
    variable = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    with contextlib.suppress(OSError):
        wanted.mkdir(parents=True, exist_ok=True)
    if not os.access(wanted, os.W_OK | os.X_OK):
        raise ConfigError(
            f"Ray cannot write to {variable} = '{wanted}'; set RAY_TMPDIR to a folder that you may write, of at most "
            f"{_LONGEST_FOLDER} characters"
        )
    if len(os.fsencode(wanted.absolute())) <= _LONGEST_FOLDER:
        return {}
    short = Path(tempfile.mkdtemp(prefix="ray", dir=_SHORT_FOLDER))
    Progress().note(
        f"{variable} = '{wanted}' is too long for Ray's sockets (at most {_LONGEST_FOLDER} characters): they and its "
        f"logs lie in {short}; set RAY_TMPDIR to a short folder to choose another"
    )
    return {"_temp_dir": str(short), "object_spilling_directory": str(wanted.absolute())}


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray's servers listen on this machine only, as they do where Ray does not form clusters (macOS, Windows).

    `RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0` does the same, but Ray reads it when it is imported, and a process that joins
    a cluster must not have it: workers elsewhere could not reach the driver.
    """
    forms_clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = forms_clusters


def keep_token_private(*, makes_one: bool) -> None:
    """Whoever reads the user's token runs code as the user: nobody else may, and Ray's own tools let everybody.

    In a container the user may have no home folder, or none that can be written: the token is then known to this
    process and to those that it starts. Where a token is needed and there is none, `makes_one` makes it before Ray would.
    """
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else _token_file()
    is_needed = os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    if path is None:
        if makes_one and is_needed:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        return
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if makes_one and is_needed and not given and not os.environ.get("RAY_AUTH_TOKEN"):
            _make_token(path)
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        try:
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        except OSError as error:
            told = f"others can read Ray's token '{path}', and that cannot be changed from here: {error}"
            print(
                f"cropray: {told}; take it away from them, or name another file in RAY_AUTH_TOKEN_PATH", file=sys.stderr
            )


def _make_token(path: Path) -> None:
    """As Ray makes it, but never readable by others; where two processes come together, one token counts for both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(generate_new_authentication_token())
        try:
            os.link(name, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _token_file() -> Path | None:
    """Where Ray looks for the user's token; None where there is none and none could be made."""
    try:
        home = Path.home()
        path = home / ".ray" / "auth_token"
        if path.exists():
            return path if os.access(path, os.R_OK) else None
        parent = path.parent if path.parent.exists() else home
    except (OSError, RuntimeError):  # no such user, or no folder that may be looked into
        return None
    return path if os.access(parent, os.W_OK | os.X_OK) else None


def _quieten_ray_data() -> None:
    """Keep Ray Data's bars and execution log off the terminal: cropray tells progress, and the log stands in Ray's folder."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logger = logging.getLogger("ray.data")
    for handler in [handler for handler in logger.handlers if isinstance(handler, PlainRayHandler)]:
        logger.removeHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
