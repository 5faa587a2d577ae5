"""The command line: one stage, one config, `--set` for single values.

Exit codes: 0 done; 1 a stage failed or its input cannot be used; 2 wrong command line; 130 interrupted; 141 whoever read what it
prints (`| head`) has ended.
"""

import argparse
import contextlib
import errno
import logging
import os
import select
import shlex
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from cropray import __version__
from cropray.core.errors import CroprayError
from cropray.core.redaction import redact
from cropray.core.terminal import print_with_what_there_is
from cropray.stages.stage import STAGES

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


_UNREAD: Final = 128 + signal.SIGPIPE  # as a shell says of a program that a broken pipe has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()  # else the interpreter would, when nothing can be said any more
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream.fileno())]
        if not unread:
            raise  # of another pipe, or of a connection
        # Python's documentation, note on SIGPIPE: what is left in a stream would be written, and fail, at the end.
        for stream in unread:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return _UNREAD


def _is_unread(pipe: int) -> bool:
    """Whether a file descriptor is that of a pipe whose reader has ended."""
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _main(arguments: Sequence[str] | None) -> int:
    print_with_what_there_is()
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _home(), _quiet_libraries():
            _run(options)
    except CroprayError as error:
        print(f"\ncropray {options.command}: {redact(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        print(
            f"\ncropray {options.command}: {error}; make room, and the same command goes on from there", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print(
            f"\ncropray {options.command}: interrupted; what is finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    return 0


def run_script(path: str) -> None:
    """A job script, and the end of its process: the command that it is named after, `search_cnn` of one family only."""
    command, _, model = Path(path).stem.partition("_")
    sys.exit(main([command, *sys.argv[1:], *(["--set", f"search.models=[{model}]"] if model else [])]))


@contextlib.contextmanager
def _home() -> Iterator[None]:
    """In containers the user may have no home folder, or none that can be written, and libraries ask for one.

    Without one there is a folder for the time of the command; where it cannot be written, compiled code and fonts go to
    such a folder, and credentials are still looked for at home.
    """
    try:
        missing = [] if os.access(Path.home(), os.W_OK | os.X_OK) else ["NUMBA_CACHE_DIR", "MPLCONFIGDIR"]
    except RuntimeError:
        missing = ["HOME"]
    unset = [name for name in missing if name not in os.environ]
    if not unset:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="cropray-home-", ignore_cleanup_errors=True) as folder:
        os.environ.update(dict.fromkeys(unset, folder))
        try:
            yield
        finally:
            for name in unset:
                del os.environ[name]


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Warnings of libraries go to the log file once there is one, not to the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    silent = logging.NullHandler()
    root.addHandler(silent)
    with warnings.catch_warnings():
        logging.captureWarnings(capture=True)
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)
            root.removeHandler(silent)
            root.setLevel(level)


def _run(options: argparse.Namespace) -> None:
    if options.command == "demo":
        from cropray.commands.demo import run_demo  # noqa: PLC0415

        run_demo(options.root)
    elif options.command == "doctor":
        from cropray.commands.doctor import run_doctor  # noqa: PLC0415

        run_doctor(options.config, options.overrides)
    elif options.command == "plan":
        from cropray.commands.plan.command import run_plan  # noqa: PLC0415

        run_plan(options.config, options.overrides)
    elif options.command == "why":
        from cropray.commands.why import run_why  # noqa: PLC0415

        run_why(options.config, options.overrides, options.artefact)
    elif options.command in {"ablate", "compare", "leakage", "nested", "season"}:
        _run_comparison(options)
    elif options.command == "new":
        from cropray.commands.new import run_new  # noqa: PLC0415

        path = run_new(options.name, Path())
        print(f"{path}: fill in where your parcels are, then `cropray doctor {shlex.quote(str(path))}`")
    elif options.command == "config":
        from cropray.commands.config import run_config  # noqa: PLC0415

        run_config(options.config, options.overrides, as_markdown=options.markdown)
    elif options.command == "ui":
        from cropray.commands.ui import run_ui  # noqa: PLC0415

        run_ui(options.config, options.overrides, options.port)
    else:
        from cropray.stages.pipeline import run_stages  # noqa: PLC0415

        run_stages(options.stages, options.config, options.overrides)


def _run_comparison(options: argparse.Namespace) -> None:
    if options.command == "ablate":
        from cropray.commands.ablate import run_ablate  # noqa: PLC0415

        run_ablate(options.config, options.overrides)
    elif options.command == "nested":
        from cropray.commands.nested import run_nested  # noqa: PLC0415

        run_nested(options.config, options.overrides, options.folds)
    elif options.command == "season":
        from cropray.commands.season import run_season  # noqa: PLC0415

        asked = {"steps": options.steps, "model": options.model, "reliable": options.reliable}
        run_season(options.config, options.overrides, **asked)
    elif options.command == "leakage":
        from cropray.commands.leakage import run_leakage  # noqa: PLC0415

        run_leakage(options.config, options.overrides, options.cell)
    else:
        from cropray.commands.compare import run_compare  # noqa: PLC0415

        run_compare(options.config, options.other, options.overrides, is_nested=options.nested)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cropray", description="Crop-type maps from satellite time series, on Ray.")
    parser.add_argument("--version", action="version", version=f"cropray {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="draw a landscape, run every stage on it and print the scores")
    demo.add_argument("--root", type=Path, default=Path("demo"), help="folder of the demo (default: demo)")

    def on_job(name: str, summary: str, description: str | None = None, nargs: str | None = None) -> Any:
        parser = commands.add_parser(name, help=summary, description=description)
        parser.add_argument("config", nargs=nargs, help="job file (YAML): a path, or s3://…, gs://…, az://…")
        told = "change one value of the job file, e.g. --set zones=[beauce-1,beauce-2]"
        parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="a.b=VALUE", help=told)
        return parser

    alone = "Without a job file only the installation is checked."
    on_job("doctor", "check versions, Ray, storage and tracking; say what to do", alone, nargs="?")
    on_job("plan", "what a job will take: requests, disk, memory, hours; then what it took")
    each = "One line for each stage, or all that is to say of one artefact."
    why = on_job("why", "what is up to date and what is not, and in what it differs; makes nothing", each)
    named = "a stage, what it makes (acquire/ZONE, map/MODEL), or a path in the workspace"
    why.add_argument("artefact", nargs="?", help=named)
    new = commands.add_parser("new", help="write NAME.yaml, a job file with the usual settings and what they mean")
    new.add_argument("name", metavar="NAME", help="of the dataset")
    every = "every setting: what it is, its default, and a job's values with their origin"
    config = on_job("config", every, nargs="?")
    config.add_argument("--markdown", action="store_true", help="print the page docs/configuration.md")
    on_job("ui", "the MLflow UI on a job's runs").add_argument("--port", type=int, default=5000)
    _add_comparisons(on_job)
    names = [stage.name for stage in STAGES]
    on_job("run", f"all stages: {' '.join(names)}").set_defaults(stages=names)
    for stage in STAGES:
        on_job(stage.name, stage.summary, f"{stage.name} {stage.summary}.").set_defaults(stages=[stage.name])
    return parser


def _add_comparisons(on_job: Callable[..., Any]) -> None:
    way = "On the training zones alone, out of fold; the way is the list `ablation` of the recipe's file."
    on_job("ablate", "what each change is worth on the way from the study's recipe to the job's", way)
    small = "For tables of points, or few zones: dataset, search and evaluate run once for each outer fold."
    nested = on_job("nested", "test every zone once, by the whole procedure repeated without it", small)
    nested.add_argument("--folds", type=int, default=5, help="outer folds (default: 5)")
    seen = "On the training zones alone, out of fold; a model that sees so much of the season is kept of each step."
    season = on_job("season", "accuracy and F1 of each crop and region if the season ended earlier", seen)
    several = "last steps of time, as 4,6,8,12 (default: every second one from a third of the season on)"
    season.add_argument("--steps", type=_numbers, default=(), help=several)
    season.add_argument("--model", help="family of models (default: the best one of pixels in validation)")
    least = "F1 that the lower end of a crop's interval must reach (default: 0.6)"
    season.add_argument("--reliable", type=float, default=0.6, metavar="F1", help=least)
    either = "A job file or a workspace each, with :FAMILY where several families were evaluated."
    compare = on_job("compare", "whether one model is better than another one on the same zones", either)
    compare.add_argument("other", help="what it is compared with")
    compare.add_argument("--nested", action="store_true", help="compare what `cropray nested` tested, every zone")
    alike = (
        "On the training zones alone, out of fold: the winner's recipe, with single samples, blocks or zones held out."
    )
    leakage = on_job("leakage", "how much better models look when neighbours of training samples are tested", alike)
    told = "side of the cells that points are dealt by, m (default: 1000); pixels are dealt by the dataset's tiles"
    leakage.add_argument("--cell", type=_metres, default=1000.0, metavar="M", help=told)


def _metres(text: str) -> float:
    metres = float(text)
    if not 0 < metres < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no length in m: give a number above 0")
    return metres


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
