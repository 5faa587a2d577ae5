"""What a search cannot know of itself: whether better values lie beyond those searched, and what its losses leave out."""

from collections.abc import Sequence
from typing import Final

from cropray.datasets.manifest import Manifest
from cropray.search.results import ConfigurationResult
from cropray.search.space import ModelName

_CLOSED: Final = {"kernel_size"}  # takes 3 or 5: nothing lies beyond


def search_warnings(
    model: ModelName, configurations: Sequence[ConfigurationResult], best: ConfigurationResult, most_epochs: int | None
) -> list[str]:
    """Where the winner lies at an end of what was allowed.

    Args:
        model: named in the settings to change.
        configurations: all that were searched.
        best: the winner.
        most_epochs: `cnn.epochs`; None for trees, whose number is searched.
    """
    warnings = []
    for name, value in best.params.items():
        values = sorted({configuration.params[name] for configuration in configurations})
        if len(values) < 2 or name in _CLOSED or values[0] < value < values[-1]:
            continue
        end, beyond = ("smallest", "below") if value == values[0] else ("largest", "above")
        searched = ", ".join(f"{each:g}" for each in values)
        warnings.append(
            f"the winner's {name} {value:g} is the {end} of those searched ({searched}): a better one may lie {beyond}; "
            f"widen search.{model}.{name}"
        )
    late = [str(fold.fold) for fold in best.folds if most_epochs is not None and fold.best_step >= most_epochs]
    if late:
        warnings.append(
            f"the winner's best epoch was the last one allowed ({most_epochs}) in {len(late)} of {len(best.folds)} folds "
            f"({', '.join(late)}): it may not have learnt all it can; raise {model}.epochs"
        )
    return warnings


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
