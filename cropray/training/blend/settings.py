"""What a job file may say about the mean of the other families' models."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from cropray.core.errors import ConfigError
from cropray.training.family import RESOURCES, FamilySettings, family

_FEWEST = 2  # of which there is a mean


class BlendSettings(FamilySettings):
    """Whose probabilities are averaged, and how."""

    families: tuple[str, ...] | None = Field(default=None, min_length=_FEWEST)
    """Families whose winners are averaged; those that the job does not search are left out. None: all
    that it searches."""
    weighting: Literal["equal", "greedy"] = "equal"
    """`greedy` counts members by their out-of-fold probabilities (`search.oof_rows`) of the zones that a fit trains on, where these
    are at least 300 rows of 10 zones; each member keeps a tenth or so."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """Of the probabilities. The geometric one, scaled to a sum of 1, heeds a member that is sure that a class is not there."""

    def resources(self) -> frozenset[str]:
        """See `FamilySettings.resources`."""
        return RESOURCES | {"num_workers"}

    @model_validator(mode="after")
    def _in_one_process(self) -> Self:
        if self.num_workers:
            raise ValueError(f"num_workers is {self.num_workers}, and a mean needs none: leave it at 0")
        for name in self.families or ():
            family(name)
        return self

    @property
    def heeds_out_of_fold(self) -> bool:
        """See `FamilySettings.heeds_out_of_fold`."""
        return self.weighting == "greedy"

    def builds_on(self, searched: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """See `FamilySettings.builds_on`.

        Raises:
            ConfigError: they are too few.
        """
        fitted = [name for name in searched if family(name).combine is None]
        found = [name for name in fitted if self.families is None or name in self.families]
        if len(found) < _FEWEST:
            wanted = "" if self.families is None else f" of blend.families ({', '.join(self.families)})"
            raise ConfigError(
                f"blend is the mean of at least {_FEWEST} other families{wanted}, and the job searches "
                f"{', '.join(found) or 'none'}: add some to search.models, or take blend out of it"
            )
        return found, [name for name in self.families or () if name not in found]
