"""What families can make of a dataset, asked before anything is read."""

from collections.abc import Iterable

from cropray.core.cube import CubeSpec
from cropray.core.errors import ConfigError
from cropray.training.family import PixelFamilySettings, family


def require_static(names: Iterable[str], cube: CubeSpec) -> None:
    """See that families read the static features of a cube, if it has any.

    Raises:
        ConfigError: some do not.
    """
    fitted = [found for found in map(family, names) if found.combine is None]
    series = [found.name for found in fitted if not issubclass(found.settings, PixelFamilySettings)]
    if cube.static and series:
        raise ConfigError(
            f"{', '.join(series)} read the series of the bands alone, and the points have features without time "
            f"({', '.join(cube.static_ids)}): set search.models to others, or leave points.static out"
        )


def require_row_weights(names: Iterable[str]) -> None:
    """See that families weigh rows.

    Raises:
        ConfigError: some do not.
    """
    even = [name for name in names if not family(name).weighs_rows]
    if even:
        raise ConfigError(
            f"the points have a column 'weight', and {', '.join(even)} cannot weigh them: take them out of search.models, or "
            f"leave the column out of the table and run `cropray dataset` again (a family that heeds Fit.is_weighted says so "
            f"by Family.weighs_rows)"
        )
