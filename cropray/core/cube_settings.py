"""The cube as a job file writes it."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from cropray.core.cube import STUDY_CUBE, CubeSpec, Step
from cropray.core.sensors import ROLES, SENSORS, Band, known_band
from cropray.core.settings import Settings

_OWN: Final = "own"


class OwnBand(Settings):
    """What stored numbers are that no sensor of cropray has. A number n > 0 is the value `n · scale + offset`; 0 is no data."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")
    """Letters, digits and `-`; columns are named `<id>_<step>`."""
    unit: str = Field(min_length=1)
    """`reflectance`, `dB`, or a word of your own."""
    scale: float = Field(gt=0, allow_inf_nan=False)
    """Of a stored number."""
    offset: float = Field(default=0.0, allow_inf_nan=False)
    """Value of the number 0, were it one."""


class CubeBand(OwnBand):
    """A band that no sensor of cropray has. A stored number n > 0 is the value `n · scale + offset`; 0 is no data."""

    role: Literal["blue", "green", "red", "nir", "swir1", "swir2"] | None = None
    """Which of the bands it is that indices are made of (`nir`: near infrared, `swir1`: about 1.6 µm, `swir2`: about 2.2 µm). None:
    told by the id where that is such a word (`red`, `NIR`) and the unit is `reflectance`."""


def _kind_of(entry: Any) -> str:
    return _OWN if isinstance(entry, dict | OwnBand) else "known"


BandSetting = Annotated[Annotated[str, Tag("known")] | Annotated[CubeBand, Tag(_OWN)], Discriminator(_kind_of)]


class CubeSettings(Settings):
    """Which bands and which steps of time a pixel has."""

    bands: tuple[BandSetting, ...] = STUDY_CUBE.band_ids
    """In this order: ids of known bands (Sentinel-2 `B02` … `B12`, Sentinel-1 `VV`, `VH`), or `{id, unit, scale, offset, role}`."""
    step: Step = STUDY_CUBE.step
    """Length of a step: a `month`, a `half-month` (from days 1 and 16), a `dekad` (from days 1, 11 and 21), `16d`, or one
    step for the whole `season`."""
    months: int = Field(default=STUDY_CUBE.months, ge=1)
    """Length of the season, from `season_start` on."""

    @model_validator(mode="after")
    def _is_a_cube(self) -> Self:
        _ = self.spec
        roles = [band.role for band in self.bands if isinstance(band, CubeBand) and band.role]
        if twice := sorted({role for role in roles if roles.count(role) > 1}):
            raise ValueError(
                f"several bands have the role {' and '.join(twice)}: leave it at the one that indices are made of"
            )
        return self

    @property
    def spec(self) -> CubeSpec:
        """The cube.

        Raises:
            ValueError: a band is not known, or the bands or steps make no cube.
        """
        return CubeSpec(tuple(map(_band, self.bands)), self.step, self.months)


def _band(entry: str | CubeBand) -> Band:
    if isinstance(entry, CubeBand):
        name = "" if entry.role is None else ROLES[entry.role]
        own, like = Band(entry.id, entry.unit, entry.scale, entry.offset, name), known_band(entry.id)
        # A known band that is written out is still that band, with its resolution and the names that catalogues have.
        return like if like is not None and like.means_the_same(own) and not name else own
    if (band := known_band(entry)) is None:
        known = "; ".join(f"{sensor.name}: {', '.join(band.id for band in sensor.bands)}" for sensor in SENSORS)
        raise ValueError(
            f"band '{entry}' is not known; known are {known}. Take one of these, or say what it is: "
            f"{{id: {entry}, unit: …, scale: …, offset: …}}"
        )
    if others := [s.name for s in SENSORS if (one := s.band(entry)) is not None and not band.means_the_same(one)]:
        raise ValueError(
            f"band '{entry}' is of several sensors, whose numbers mean different values ({', '.join(others)} beside the first): "
            f"describe it (id, unit, scale, offset), or give the sensor of your own other ids"
        )
    return band
