"""The trials of a search, in batches: all at once, or proposed by what earlier ones scored.

Nothing is kept of a sampler's state: with the same seed and the same scores it proposes the same again, so that a search
that goes on finds its finished units.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

import numpy as np

from cropray.core.errors import ConfigError
from cropray.search.space import Range, SearchSettings, Trial, Values
from cropray.training.family import Family, FamilySettings

Score = Callable[[Trial], float]
"""Objective of a finished trial, where more is better."""


def batches(
    found: Family, settings: FamilySettings, search: SearchSettings, seed: int, score: Score
) -> Iterator[list[Trial]]:
    """The trials of a family's search; a batch is asked for once the one before it is finished.

    Args:
        found: the family.
        settings: the job's, which give what is not searched.
        search: what is searched, and how.
        seed: of what is drawn.
        score: asked for every trial of a batch when the next one is proposed.

    Raises:
        ConfigError: Optuna is wanted and not installed.
    """
    if search.sampler != "tpe":
        yield trials(found, settings, search, seed)
        return
    optuna = require_optuna()
    searched = search.space(found.name).searched()
    distributions = {name: _distribution(optuna, found, name, values) for name, values in searched.items()}
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for first in range(0, search.n_trials, search.batch):
        asked = [study.ask(distributions) for _ in range(min(search.batch, search.n_trials - first))]
        batch = [_trial(found, settings, _values(searched, each.params)) for each in asked]
        yield batch
        for each, trial in zip(asked, batch, strict=True):
            study.tell(each, score(trial))


def require_optuna() -> Any:
    """The library of `search.sampler: tpe`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "search.sampler is tpe, which needs Optuna: pip install 'cropray[tpe]', or set it to grid or random"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, found: Family, name: str, values: Any) -> Any:
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(range(len(values)))
    if _is_whole(found, name):
        return optuna.distributions.IntDistribution(round(values.low), round(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)


def _values(searched: Mapping[str, Any], params: Mapping[str, Any]) -> Values:
    return {name: params[name] if isinstance(v, Range) else v[params[name]] for name, v in searched.items()}


def _trial(found: Family, settings: FamilySettings, values: Values) -> Trial:
    (trial,) = _as_trials(found, settings, [values])
    return trial


def trials(found: Family, settings: FamilySettings, search: SearchSettings, seed: int) -> list[Trial]:
    """The trials of a search that learns nothing on its way; a set of values that comes twice is one trial.

    For `tpe` it gives values that could be proposed, so that a job is checked before it runs.

    Args:
        found: the family.
        settings: the job's, which give what is not searched.
        search: what is searched, and how.
        seed: of the draws.

    Raises:
        ConfigError: a range in a grid, or a value that the settings refuse beside the others.
    """
    searched = search.space(found.name).searched()
    sets = _grid(found, searched) if search.sampler == "grid" else _draws(found, searched, search.n_trials, seed)
    return _as_trials(found, settings, sets)


def _as_trials(found: Family, settings: FamilySettings, sets: Iterable[Values]) -> list[Trial]:
    steps: dict[str, set[int]] = {}
    unlike: dict[str, Values] = {}
    for values in sets:
        settings.with_values(values)
        rest = {name: value for name, value in values.items() if name != found.steps}
        unlike.setdefault(repr(rest), rest)
        if found.steps is not None:
            steps.setdefault(repr(rest), set()).add(values.get(found.steps, getattr(settings, found.steps)))
    return [Trial(rest, tuple(sorted(steps.get(key, ())))) for key, rest in unlike.items()]


def _grid(found: Family, searched: Mapping[str, Any]) -> Iterator[Values]:
    ranges = [name for name, values in searched.items() if isinstance(values, Range)]
    if ranges:
        raise ConfigError(
            f"search.{found.name}.{ranges[0]} is a range, of which a grid cannot try all numbers: list values, or set "
            f"search.sampler to random or tpe"
        )
    for values in itertools.product(*searched.values()):
        yield dict(zip(searched, values, strict=True))


def _draws(found: Family, searched: Mapping[str, Any], n_trials: int, seed: int) -> Iterator[Values]:
    rng = np.random.default_rng(seed)
    for _ in range(n_trials):
        yield {name: _draw(found, name, values, rng) for name, values in searched.items()}


def _draw(found: Family, name: str, values: Any, rng: np.random.Generator) -> Any:
    if not isinstance(values, Range):
        return values[int(rng.integers(len(values)))]
    number = values.draw(rng)
    return round(number) if _is_whole(found, name) else number


def _is_whole(found: Family, name: str) -> bool:
    """Whether a field takes whole numbers only."""
    annotation = found.settings.model_fields[name].annotation
    return annotation is int or int in get_args(annotation)
