"""What families can make of a dataset, asked before anything is read."""

from collections.abc import Callable, Iterable, Sequence

from cropray.core.cube import CubeSpec
from cropray.core.errors import ConfigError
from cropray.training.family import FamilySettings, PixelFamilySettings, family


def able(
    names: Sequence[str], cube: CubeSpec, settings_of: Callable[[str], FamilySettings], *, of_points: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the families that a recipe names, those that can be made of a dataset on this installation.

    One that is built from others goes with them: where what is left is too little for it.

    Args:
        names: of the families.
        cube: of the samples.
        settings_of: family → its settings.
        of_points: there are no tiles.

    Returns:
        (names that are left, those left out with the reason of each).
    """
    why = {name: reason for name in names if (reason := _why_unable(name, cube, of_points=of_points))}
    if why:
        kept = [name for name in names if name not in why]
        why |= {name: reason for name in kept if (reason := _why_unbuilt(settings_of(name), kept))}
    return tuple(name for name in names if name not in why), tuple(
        f"{name} ({why[name]})" for name in names if name in why
    )


def _why_unable(name: str, cube: CubeSpec, *, of_points: bool) -> str:
    found = family(name)
    if of_points and found.sample == "tile":
        return "points have no tiles"
    of_series = found.combine is None and not issubclass(found.settings, PixelFamilySettings)
    if of_series and cube.static:
        return f"it reads the series of the bands alone, and the points have {', '.join(cube.static_ids)}"
    if of_series and found.sample == "pixel" and cube.n_steps == 1:
        return "it reads the course of a pixel, and there is one step"
    try:
        found.require_packages()
    except ConfigError as error:
        return str(error).partition(", or take")[0]
    return ""


def _why_unbuilt(settings: FamilySettings, names: Sequence[str]) -> str:
    try:
        settings.builds_on(names)
    except ConfigError:
        return "too few of the families that it is built from are left"
    return ""


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
