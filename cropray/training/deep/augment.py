"""Changes of training samples that leave their labels true, by name.

Another one is a class here (or in a plug-in) below `AUGMENTATIONS.register`; its fields are its settings. What happens to a
sample depends on (seed, epoch, sample) alone, never on its neighbours in the batch, the workers or the device. Series are
changed as digital numbers, before they are normalised, and 0 stays no data: no change invents a value where none is.
torch is loaded only when a sample is changed, so that a job file is read without it.

Axes: B samples, T steps, C bands, H rows, W columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from cropray.core.registry import Choice, Registry, name_of

if TYPE_CHECKING:
    from torch import Tensor

N_SYMMETRIES: Final = 8  # of a square: four quarter turns, each also mirrored
_FIRST_STREAM: Final = 1 << 16  # of random numbers; the layers of networks count theirs from 1
_LEAST: Final = 1.0  # smallest digital number that is a value
NONE: Final = "none"

Augment = bool | Choice | Sequence[Choice]
"""None, `True` for `dihedral`, one, or several in order."""


class Augmentation:
    """One change; an entry overrides what it changes."""

    __slots__ = ()

    def turns(self, rng: np.random.Generator, n: int) -> npt.NDArray[np.int64] | None:  # noqa: ARG002 - of no use here
        """[n] symmetry of each sample of an epoch, 0 … 7; None: they stay as they are."""
        return None

    def series(self, x_BTCHW: "Tensor", seeds_B: "Tensor", std_C: "Tensor") -> "Tensor":  # noqa: ARG002
        """Other digital numbers.

        Args:
            x_BTCHW: float32, 0 = no data.
            seeds_B: int64, 0 ≤ seed < 2³², of each sample; see `uniform`.
            std_C: spread of each band, digital numbers, see `ChannelStats`.
        """
        return x_BTCHW

    def values(self, x_BTCHW: "Tensor", seeds_B: "Tensor", std_C: "Tensor", zero_C: "Tensor") -> "Tensor":  # noqa: ARG002
        """As `series`, of an entry that multiplies: `zero_C` is the number that each band's value 0 would have."""
        return self.series(x_BTCHW, seeds_B, std_C)


AUGMENTATIONS: Final[Registry[Augmentation]] = Registry("augmentation")


def chosen(augment: Augment) -> tuple[Choice, ...]:
    """The choices of a setting, one by one."""
    if isinstance(augment, bool):
        return ("dihedral",) if augment else ()
    several = augment if isinstance(augment, Sequence) and not isinstance(augment, str) else (augment,)
    return tuple(each for each in several if name_of(each) != NONE)


def augmentations(augment: Augment) -> tuple[Augmentation, ...]:
    """The entries of a setting.

    Raises:
        ConfigError: there is none of such a name.
    """
    return tuple(AUGMENTATIONS.make(each) for each in chosen(augment))


def augmented(
    x_BTCHW: "Tensor",
    changes: Sequence[Augmentation],
    seeds_B: "Tensor",
    std: Sequence[float],
    zero: Sequence[float] = (),
) -> "Tensor":
    """Samples after all changes; each draws numbers of its own. `std`, `zero`: of each band, see `Augmentation`; (): all 0."""
    from cropray.nets.dropout import hash32  # noqa: PLC0415 - torch: see the head of the file

    x_BTCHW = x_BTCHW.float()
    std_C, zero_C = x_BTCHW.new_tensor(std), x_BTCHW.new_tensor(zero or [0.0] * len(std))
    for position, change in enumerate(changes):
        own_B = seeds_B ^ hash32(seeds_B.new_tensor(_FIRST_STREAM + position))
        x_BTCHW = change.values(x_BTCHW, own_B, std_C, zero_C)
    return x_BTCHW


def uniform(seeds_B: "Tensor", n: int) -> "Tensor":
    """[B, n] float32 in (0, 1), determined by the seed and the position alone."""
    from cropray.nets.dropout import uniform_bits  # noqa: PLC0415

    return ((uniform_bits(seeds_B, n) >> 9).float() + 0.5) / 2**23  # all of them exact: never 0 or 1


def _times(x_BTCHW: "Tensor", factor: "Tensor", zero_C: "Tensor") -> "Tensor":
    """Values of bands times a factor, as numbers; no data stays none."""
    if not zero_C.any():
        return x_BTCHW * factor
    zero_C11 = zero_C[:, None, None]
    return (zero_C11 + (x_BTCHW - zero_C11) * factor).clamp_min(_LEAST) * (x_BTCHW != 0)


@AUGMENTATIONS.register("dihedral")
@dataclass(frozen=True, slots=True, kw_only=True)
class Dihedral(Augmentation):
    """Turn and mirror tiles, with their labels."""

    def turns(self, rng: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
        """One of eight symmetries for each sample."""
        return rng.integers(N_SYMMETRIES, size=n)


@AUGMENTATIONS.register("shift")
@dataclass(frozen=True, slots=True, kw_only=True)
class Shift(Augmentation):
    """An earlier or later season: series move by whole steps. What comes in at an end was never seen: no data."""

    steps: int = 1
    """At most so many, to either side."""
    share: float = 1.0
    """Of the samples that may be moved; the others stay where they are. Where one season is all there is, its dates tell crops
    apart, and moving all samples would take them away."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; got {self.steps}")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share must be above 0 and at most 1; got {self.share}")

    def series(self, x_BTCHW: "Tensor", seeds_B: "Tensor", std_C: "Tensor") -> "Tensor":  # noqa: ARG002
        """See `Augmentation`."""
        n_steps = x_BTCHW.shape[1]
        drawn_B2 = uniform(seeds_B, 2)
        by_B1 = (drawn_B2[:, :1] * (2 * self.steps + 1)).long() - self.steps
        by_B1 = by_B1 * (drawn_B2[:, 1:] < self.share)
        from_BT = by_B1.new_tensor(range(n_steps)) - by_B1
        is_inside_BT = (from_BT >= 0) & (from_BT < n_steps)
        rows_B1 = by_B1.new_tensor(range(len(x_BTCHW)))[:, None]
        return x_BTCHW[rows_B1, from_BT.clamp(0, n_steps - 1)] * is_inside_BT[..., None, None, None]


@AUGMENTATIONS.register("scale")
@dataclass(frozen=True, slots=True, kw_only=True)
class Scale(Augmentation):
    """A brighter or darker sample: all its numbers times one factor."""

    by: float = 0.1
    """The factor is from 1 - by to 1 + by."""

    def __post_init__(self) -> None:
        if not 0.0 < self.by < 1.0:
            raise ValueError(f"by must be above 0 and below 1; got {self.by}")

    def values(self, x_BTCHW: "Tensor", seeds_B: "Tensor", std_C: "Tensor", zero_C: "Tensor") -> "Tensor":  # noqa: ARG002
        """See `Augmentation`."""
        factor_B = 1 + self.by * (2 * uniform(seeds_B, 1)[:, 0] - 1)
        return _times(x_BTCHW, factor_B[:, None, None, None, None], zero_C)


@AUGMENTATIONS.register("bands")
@dataclass(frozen=True, slots=True, kw_only=True)
class Bands(Augmentation):
    """Other calibration, haze or soil: each band of a sample has a factor and an offset of its own, the same in all steps."""

    by: float = 0.1
    """Factors are from 1 - by to 1 + by."""
    offset: float = 0.1
    """Offsets are from -offset to +offset, of the band's spread (`ChannelStats`)."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.by < 1.0 and self.offset >= 0.0 and self.by + self.offset > 0.0):
            raise ValueError(
                f"by must be from 0 to below 1, offset at least 0, one of them above; got {self.by} and {self.offset}"
            )

    def values(self, x_BTCHW: "Tensor", seeds_B: "Tensor", std_C: "Tensor", zero_C: "Tensor") -> "Tensor":
        """See `Augmentation`."""
        u_B2C = (2 * uniform(seeds_B, 2 * len(std_C)) - 1).view(len(x_BTCHW), 2, len(std_C))
        factor_B1C11 = 1 + self.by * u_B2C[:, :1, :, None, None]
        offset_B1C11 = self.offset * std_C[:, None, None] * u_B2C[:, 1:, :, None, None]
        return (_times(x_BTCHW, factor_B1C11, zero_C) + offset_B1C11).clamp_min(_LEAST) * (x_BTCHW != 0)


@AUGMENTATIONS.register("warp")
@dataclass(frozen=True, slots=True, kw_only=True)
class Warp(Augmentation):
    """A season that is brighter here and darker there: a smooth curve over time, by which all bands are multiplied."""

    by: float = 0.2
    """The curve runs between 1 - by and 1 + by."""
    knots: int = 4
    """Steps, evenly over the season, between which it is a straight line."""

    def __post_init__(self) -> None:
        if not (0.0 < self.by < 1.0 and self.knots >= 2):
            raise ValueError(f"by must be above 0 and below 1, knots at least 2; got {self.by} and {self.knots}")

    def values(self, x_BTCHW: "Tensor", seeds_B: "Tensor", std_C: "Tensor", zero_C: "Tensor") -> "Tensor":  # noqa: ARG002
        """See `Augmentation`."""
        knots_BN = 1 + self.by * (2 * uniform(seeds_B, self.knots) - 1)
        place_T = knots_BN.new_tensor(range(x_BTCHW.shape[1])) * (self.knots - 1) / max(x_BTCHW.shape[1] - 1, 1)
        before_T = place_T.long().clamp(max=self.knots - 2)
        curve_BT = knots_BN[:, before_T].lerp(knots_BN[:, before_T + 1], place_T - before_T)
        return _times(x_BTCHW, curve_BT[..., None, None, None], zero_C)


@AUGMENTATIONS.register("dropout_steps")
@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutSteps(Augmentation):
    """Clouded steps: some have no data in any band. A sample keeps at least those that a wholly clouded one would lose."""

    share: float = 0.1
    """Of the steps."""

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share must be above 0 and below 1; got {self.share}")

    def series(self, x_BTCHW: "Tensor", seeds_B: "Tensor", std_C: "Tensor") -> "Tensor":  # noqa: ARG002
        """See `Augmentation`."""
        kept_BT = uniform(seeds_B, x_BTCHW.shape[1]) >= self.share
        kept_BT = kept_BT | ~kept_BT.any(dim=1, keepdim=True)
        return x_BTCHW * kept_BT[..., None, None, None]


@AUGMENTATIONS.register("noise")
@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Augmentation):
    """Independent normal noise on every number."""

    sd: float = 0.1
    """Standard deviation, of the band's spread (`ChannelStats`)."""

    def __post_init__(self) -> None:
        if self.sd <= 0:
            raise ValueError(f"sd must be above 0; got {self.sd}")

    def series(self, x_BTCHW: "Tensor", seeds_B: "Tensor", std_C: "Tensor") -> "Tensor":
        """See `Augmentation`."""
        u_BTCHW = uniform(seeds_B, x_BTCHW[0].numel() if len(x_BTCHW) else 1)
        normal_BTCHW = math.sqrt(2) * (2 * u_BTCHW - 1).erfinv().view_as(x_BTCHW) if len(x_BTCHW) else x_BTCHW
        noisy_BTCHW = (x_BTCHW + self.sd * std_C[:, None, None] * normal_BTCHW).clamp_min(_LEAST)
        return noisy_BTCHW * (x_BTCHW != 0)
