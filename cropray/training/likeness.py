"""How like the training zones' pixels a pixel is: what a model is given is looked at, never the model, so all families are alike.

Needs numpy only: a registered model carries this module.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

CARD_KEY: Final = "likeness"
BATCH_ROWS: Final = 1 << 14  # as floats at once; 400 columns: 26 MB
_MISSING: Final = 0
Numbers = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """Where labelled pixels of training zones lie."""

    mean: Floats
    """[F] of the numbers that are there, in the order of the cube's columns."""
    whitening: Floats
    """[F, F] what a deviation from the mean is multiplied by: the mean of its squares is a squared Mahalanobis distance."""
    least: float = 0.0
    """Pixels that are less alike are unlike; 0: none is."""

    def of(self, x: Numbers) -> Floats:
        """1 / (1 + squared distance by number that is there), 0-1; a missing number is no deviation.

        Args:
            x: [N, F] stored numbers, or tiles [N, T, C, H, W], 0 = missing.

        Returns:
            [N], or [N, H, W]; 0 where all numbers are missing.
        """
        rows = x if x.ndim == 2 else x.transpose(0, 3, 4, 2, 1).reshape(-1, x.shape[1] * x.shape[2])
        if rows.shape[1] != len(self.mean):
            raise ValueError(f"pixels have {rows.shape[1]} numbers, the model was trained on {len(self.mean)}")
        found = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            is_there = part != _MISSING
            far = (np.where(is_there, part - self.mean, 0) @ self.whitening) ** 2
            n_there = is_there.sum(1)
            found[start : start + BATCH_ROWS] = (n_there > 0) / (1 + far.sum(1) / np.maximum(n_there, 1))
        return found if x.ndim == 2 else found.reshape(x.shape[0], *x.shape[3:])

    def is_unlike(self, x: Numbers) -> npt.NDArray[np.bool_]:
        """[N], or [N, H, W] of tiles: whether a pixel is unlike the training zones'."""
        return self.of(x) < self.least

    def to_record(self) -> dict[str, Any]:
        """What a card keeps; arrays as little-endian float32 in base64."""
        return {"mean": _text(self.mean), "whitening": _text(self.whitening), "least": self.least}


def recorded_likeness(card: Mapping[str, Any]) -> Likeness | None:
    """What a card says; None: its job asked for none."""
    record = card.get(CARD_KEY)
    if record is None:
        return None
    mean, whitening = (np.frombuffer(base64.b64decode(record[name]), "<f4") for name in ("mean", "whitening"))
    return Likeness(mean, whitening.reshape(len(mean), len(mean)), record["least"])


def likeness_of(model: object) -> Likeness | None:
    """What a model was read with (`evaluation.models.read_model`)."""
    found: Likeness | None = getattr(model, "likeness", None)
    return found


def _text(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
