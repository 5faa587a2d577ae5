"""Every fault on every kind of job, beside a run that nothing happened to: `python -m tests.chaos.matrix`.

Prints a table in Markdown, and exits with 1 where a result differs, a finished unit was repeated or a run did not end.
`--faults` and `--kinds` choose some of them, by parts of their names.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from cropray.io.storage import Location, files_below, relative
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.rig import KINDS, Rig, Run

SMALL_DISK = "100m"
MOST_STARTS = 3


@dataclass(frozen=True)
class Outcome:
    """What a job came to."""

    results: dict[str, bytes]
    """Artefact → bytes: winner and fold scores, trained models; composites."""
    history: Counter
    """(run, metric, step, value) → how often."""
    seconds: float

    @classmethod
    def of(cls, rig: Rig, run: Run) -> "Outcome":
        folders = ["composites"] if run.kind == "acquire" else [f"search/{run.kind}.json", f"models/{run.kind}"]
        files = [file for folder in folders for file in (files_below(run.root / folder) or [run.root / folder])]
        results = {relative(file, run.root): file.read_bytes() for file in files}
        return cls(results, Counter() if run.kind == "acquire" else history(rig.tracking.url, run.name), run.seconds)


def history(url: str, name: str) -> Counter:
    """Every value of every metric, but those that are times."""
    client = MlflowClient(url)
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    points = Counter()
    for run in runs:
        key = run.data.tags["cropray.key"]
        for metric in run.data.metrics:
            if metric != "seconds":
                points.update(
                    (key, metric, m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)
                )
    return points


@dataclass(frozen=True)
class Cell:
    """One fault on one kind of job."""

    fault: str
    kind: str
    problems: tuple[str, ...]
    lost_s: float
    n_starts: int

    def __str__(self) -> str:
        if self.problems:
            return "**" + "; ".join(self.problems) + "**"
        again = "" if self.n_starts == 1 else f", {self.n_starts} starts"
        return f"same, {round(self.lost_s):+d} s{again}"


def try_fault(rig: Rig, fault: Fault, kind: str, reference: Outcome) -> Cell:
    """Run a job, strike it, let it end, compare."""
    name = f"{kind}-{fault.name.split()[0].strip(':,').lower()}-{FAULTS.index(fault)}"
    with small_disk(rig.folder / f"disk-{name}") if fault.on_small_disk else contextlib.nullcontext() as root:
        run = rig.new_run(kind, name, root)
        if fault.before is not None:
            fault.before(rig, run)
        rig.start(run)
        could = fault.strike(rig, run)
        before = run.finished()
        code = rig.wait(run)
        if fault.after is not None:
            fault.after(rig, run)
            code = run.codes[-1]
        while code and len(run.codes) < MOST_STARTS:
            rig.start(run)
            code = rig.wait(run)
        problems = [] if could else ["the fault could not strike"]
        if code:
            last = run.output.strip().splitlines()[-1:] or [""]
            problems.append(f"exit code {code}: {last[0][:200]}")
        else:
            after = run.finished()
            repeated = [unit for unit, when in before.items() if after.get(unit) != when]
            problems += [f"{len(repeated)} finished units repeated"] if repeated else []
            problems += differences(Outcome.of(rig, run), reference)
    rig.s3.heal()
    return Cell(fault.name, kind, tuple(problems), run.seconds - reference.seconds, len(run.codes))


def differences(outcome: Outcome, reference: Outcome) -> list[str]:
    """What is not as it was without the fault."""
    found = []
    if outcome.results.keys() != reference.results.keys():
        found.append(f"other artefacts: {sorted(outcome.results.keys() ^ reference.results.keys())}")
    found += [f"{name} differs" for name, content in reference.results.items() if outcome.results.get(name) != content]
    twice = [point for point, n in outcome.history.items() if n > 1]
    found += [f"{len(twice)} values of metrics are there twice"] if twice else []
    if not twice and outcome.history != reference.history:
        missing, more = reference.history - outcome.history, outcome.history - reference.history
        found.append(f"tracked history: {missing.total()} values missing, {more.total()} more")
    return found


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Location]:
    """A workspace on a file system of its own, which can be full."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)], check=True)
    try:
        yield folder / "work"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def table(cells: list[Cell], kinds: list[str], references: dict[str, Outcome]) -> str:
    """Markdown: faults down, jobs across."""
    titles = {"cnn": "CNN search", "xgboost": "XGBoost search", "acquire": "acquisition"}
    lines = ["| fault | " + " | ".join(f"{titles[k]} ({references[k].seconds:.0f} s)" for k in kinds) + " |"]
    lines.append("|---" * (len(kinds) + 1) + "|")
    for fault in dict.fromkeys(cell.fault for cell in cells):
        found = {cell.kind: str(cell) for cell in cells if cell.fault == fault}
        lines.append(f"| {fault} | " + " | ".join(found.get(kind, "–") for kind in kinds) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", nargs="*", default=[""], help="parts of the names of faults")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if any(part in fault.name for part in options.faults)]
    cells = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Rig(Path(folder)) as rig:
        references = {}
        for kind in options.kinds:
            run = rig.new_run(kind, f"{kind}-undisturbed")
            rig.start(run)
            assert rig.wait(run) == 0, run.output
            references[kind] = Outcome.of(rig, run)
            print(f"{kind}: undisturbed, {run.seconds:.0f} s", flush=True)
        for fault in faults:
            for kind in (kind for kind in options.kinds if kind in fault.kinds):
                cells.append(try_fault(rig, fault, kind, references[kind]))
                print(f"{kind}: {fault.name}: {cells[-1]}", flush=True)
    print(f"\n{table(cells, options.kinds, references)}")
    return 1 if any(cell.problems for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
