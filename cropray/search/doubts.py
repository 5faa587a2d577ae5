"""What a search cannot know of itself: whether better values lie beyond those searched, and what its losses leave out."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from cropray.datasets.manifest import Manifest
from cropray.search.results import ConfigurationResult
from cropray.search.space import Range
from cropray.training.family import Family, FamilySettings


def search_warnings(
    found: Family,
    settings: FamilySettings,
    configurations: Sequence[ConfigurationResult],
    best: ConfigurationResult,
    ranges: Mapping[str, Range],
) -> list[str]:
    """Where the winner lies at an end of what was allowed.

    Args:
        found: the family.
        settings: the job's.
        configurations: all that were searched.
        best: the winner.
        ranges: those of the searched fields, of which no list of values is the whole.
    """
    warnings = []
    for name, value in best.params.items():
        values = {json.dumps(c.params[name]): c.params[name] for c in configurations if name in c.params}.values()
        if len(values) < 2 or not all(isinstance(each, int | float) for each in values) or isinstance(value, bool):
            continue
        searched, listed = sorted(values), ", ".join(f"{each:g}" for each in sorted(values))
        if (drawn := ranges.get(name)) is not None:  # the extremes of what was drawn are no ends
            ends = drawn.low, drawn.high
            searched = [round(end) for end in ends] if isinstance(value, int) else [*ends]
            listed = f"{searched[0]:g} to {searched[1]:g}"
        if searched[0] < value < searched[-1] or value in _ends(found, name):
            continue
        end, beyond = ("smallest", "below") if value == searched[0] else ("largest", "above")
        warnings.append(
            f"the winner's {name} {value:g} is the {end} of those searched ({listed}): a better one may lie {beyond}; "
            f"widen search.{found.name}.{name}"
        )
    return warnings + _late(found, settings, best)


def _ends(found: Family, name: str) -> Sequence[Any]:
    """Least and largest value of a field that takes only some: nothing lies beyond."""
    taken = get_args(found.settings.model_fields[name].annotation)
    numbers = [value for value in taken if isinstance(value, int | float)]
    return [min(numbers), max(numbers)] if numbers else []


def _late(found: Family, settings: FamilySettings, best: ConfigurationResult) -> list[str]:
    own = settings.with_values(best.params)
    if found.most_steps is None or not own.stopped_by():
        return []
    most, step = getattr(own, found.most_steps), found.step_name
    late = [str(fold.fold) for fold in best.folds if fold.best_step >= most]
    if not late:
        return []
    warning = (
        f"the winner's best {step} was the last one allowed ({most}) in {len(late)} of {len(best.folds)} folds "
        f"({', '.join(late)}): it may not have learnt all it can; raise {found.name}.{found.most_steps}"
    )
    return [warning]


def fold_doubts(manifest: Manifest) -> tuple[str, ...]:
    """Folds that validate classes which they cannot have learnt, with classes and pixels; bands that none has seen."""
    doubts = []
    for fold in range(manifest.n_folds):
        train, scored = manifest.fold_zones(fold)
        blank = [band for band, n in zip(manifest.cube.band_ids, manifest.band_sums(train).count, strict=True) if not n]
        if blank:
            doubts.append(
                f"fold {fold}: its training zones have no value of {', '.join(blank)} in any {manifest.cube.noun}; models cannot use it"
            )
        n_untrained = manifest.untrained(train, scored)
        if n_untrained:
            n, n_all = sum(n_untrained.values()), sum(manifest.labelled(scored).values())
            listing = ", ".join(f"{name} {count:,}" for name, count in n_untrained.items())
            doubts.append(
                f"fold {fold}: {n:,} of {n_all:,} validation pixels ({100 * n / n_all:.1f} %) are of classes that its "
                f"training zones lack ({listing}); val_loss leaves them out, all other scores count them as wrong"
            )
    return tuple(doubts)
