"""`why`: stage by stage, whether what stands is up to date, and in what it differs from what would be made now.

Nothing is made or written here. The verdicts are the stages' own: each lists its artefacts, asked for theirs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cropray.config import JobConfig
from cropray.core.errors import ConfigError, CroprayError
from cropray.io.artefacts import Artefact, describe_stale, first_of
from cropray.io.job_file import load_settings
from cropray.io.storage import Location, as_location
from cropray.stages.stage import Stage, stages_of

_WIDTH: Final = 20


def run_why(config: str | Location, overrides: Sequence[str], artefact: str | None) -> None:
    """Print one line for each stage, and for each model of a stage; or all that is to say of one artefact.

    Args:
        config: job file.
        overrides: of its settings.
        artefact: a stage, a stage and what it makes (`acquire/fr-01`, `map/cnn`), or a path in the workspace.

    Raises:
        ConfigError: the config cannot be used, or nothing is called so.
    """
    job = load_settings(JobConfig, config, overrides)
    lines = _of_all(job) if artefact is None else _of_one(job, artefact)
    for line in lines:
        print(line, flush=True)


def _of_all(job: JobConfig) -> Iterator[str]:
    stages = stages_of(job)
    first_stale: Stage | None = None
    for stage in stages:
        found, trouble = _listed(stage, job, "artefacts")
        is_stale = trouble is not None
        for group, members in _grouped(found).items():
            stale = _stale(members)
            is_stale |= bool(stale)
            yield f"{group:<{_WIDTH}} {_verdict(members, stale)}"
        if trouble is not None:
            yield f"{stage.name:<{_WIDTH}} cannot be told: {trouble}"
        first_stale = first_stale or (stage if is_stale else None)
    if first_stale not in (None, stages[-1]):
        yield f"Stages after `{first_stale.name}` are judged by what it made last; what it makes now may change that."


def _of_one(job: JobConfig, wanted: str) -> Iterator[str]:
    listed = _Listed(job)
    found = list(listed.named(wanted)) or list(listed.at(wanted))
    for one in found:
        why = one.why_stale()
        yield f"{_name(one)}: {'up to date' if not why else '; '.join(why) if len(why) == 1 else f'{len(why)} differences'}"
        yield from (f"  {reason}" for reason in why if len(why) > 1)
    stage, path = wanted.strip("/").partition("/")[0], _place(wanted, job.workspace)
    if trouble := listed.troubles.get(stage):
        yield f"{wanted}: cannot be told: {trouble}"
    others = [f"{of} cannot be told: {why}" for of, why in listed.troubles.items() if of != stage]
    if any(path in output.parents for one in found for output in one.outputs):
        yield from others  # a folder, in which they may have something as well
    elif not found and not trouble and _is_of(path, job.artefacts.report):
        yield f"{job.artefacts.report.name}: the page is written by every run of `cropray report`"
    elif not found and not trouble:
        raise ConfigError(
            f"nothing that this job makes is called '{wanted}'; give a stage ({', '.join(stage.name for stage in stages_of(job))}), a stage and what "
            f"it makes, like acquire/ZONE, search/MODEL or map/MODEL/ZONE, or a path in '{job.workspace}'"
            + "".join(f"\n  {other}" for other in others)
        )


class _Listed:
    """What the stages make, asked when it is wanted: `parts` are what only a few will want, and take longer."""

    def __init__(self, job: JobConfig) -> None:
        self.troubles: dict[str, str] = {}
        self._job = job
        self._stages = {stage.name: stage for stage in stages_of(job)}
        self._known: dict[tuple[str, str], list[Artefact]] = {}

    def named(self, wanted: str) -> Iterator[Artefact]:
        """By the stage and what it makes."""
        stage, *rest = wanted.strip("/").split("/")
        if stage not in self._stages:
            return
        for listing in ("artefacts", "parts") if rest else ("artefacts",):
            yield from (one for one in self._of(stage, listing) if {*rest} <= {*_name(one).split("/")})

    def at(self, wanted: str) -> Sequence[Artefact]:
        """By a path: what it is or holds, or lies in; or, of no artefact's own, what lies beside it."""
        path = _place(wanted, self._job.workspace)
        for is_it in (_is_of, _is_beside) if path.exists() else (_is_of,):
            for listing in ("artefacts", "parts"):
                every = [one for stage in self._stages for one in self._of(stage, listing)]
                if found := [one for one in every if any(is_it(path, output) for output in one.outputs)]:
                    return found
        return ()

    def _of(self, stage: str, listing: str) -> list[Artefact]:
        if (stage, listing) not in self._known:
            self._known[stage, listing], trouble = _listed(self._stages[stage], self._job, listing)
            self.troubles |= {} if trouble is None else {stage: trouble}
        return self._known[stage, listing]


def _is_of(path: Location, output: Location) -> bool:
    return path == output or output in path.parents or path in output.parents


def _is_beside(path: Location, output: Location) -> bool:
    return path.parent == output.parent


def _listed(stage: Stage, job: JobConfig, listing: str) -> tuple[list[Artefact], str | None]:
    """(the artefacts that can be told of, why no more can be)."""
    found: list[Artefact] = []
    try:
        found.extend(stage.listed(listing, job))
    except (CroprayError, FileNotFoundError) as error:
        return found, str(error)
    return found, None


def _grouped(found: Iterable[Artefact]) -> Mapping[str, list[Artefact]]:
    groups: dict[str, list[Artefact]] = {}
    for one in found:
        groups.setdefault(one.group, []).append(one)
    return groups


def _stale(members: Iterable[Artefact]) -> dict[str, Sequence[str]]:
    return {one.unit: why for one in members if (why := one.why_stale())}


def _verdict(members: Sequence[Artefact], stale: Mapping[str, Sequence[str]]) -> str:
    if not stale:
        return "up to date"
    if len(members) == 1:
        return first_of(*stale.values())
    return describe_stale({unit: why[0] for unit, why in stale.items()}, len(members))


def _name(one: Artefact) -> str:
    return f"{one.group}/{one.unit}" if one.unit else one.group


def _place(wanted: str, root: Location) -> Location:
    """A path as the workspace spells its own: from the current folder, or from the workspace's root."""
    try:
        path = as_location(wanted)
    except ValueError as error:
        raise ConfigError(f"'{wanted}': {error}") from None
    return path if "://" in wanted or (isinstance(root, Path) and root in path.parents) else root / wanted
