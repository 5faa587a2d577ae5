"""Settings of the report and its pictures."""

from typing import Final, Literal

from pydantic import Field

from cropray.core.settings import Settings

MOST_PREVIEWS: Final = 6
"""Zones whose maps are shown, of each model; all previews lie in the maps folder."""


class ReportSettings(Settings):
    """What the report shows of the images."""

    films: Literal["one_per_region", "all", "none"] | tuple[str, ...] = "one_per_region"
    """Zones that are shown through the year: the first training zone of each region, all, none, or these zone ids."""
    film_px: int = Field(default=256, ge=240, le=1000)
    """Longer side of the image in a film, pixels; larger zones are averaged down to it, smaller ones enlarged."""
