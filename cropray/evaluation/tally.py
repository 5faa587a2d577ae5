"""One zone counted otherwise than pixel by pixel: by parcel, by the parcel's size, by the pixel's clear steps, by confidence.

All of it is of the prediction that the cube counts. Parcels are those of the labels, by their labelled pixels alone, as the
dataset has them: without borders (`parcels.inner_buffer_m`) and what was trimmed.
"""

import itertools
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cropray.core.legend import IGNORE
from cropray.core.metrics import Counts
from cropray.evaluation.levels import N_PERCENT, groups_of
from cropray.training.crop_model import CropModel, Probabilities
from cropray.training.decision import decision_of, group_sums, percent

SIZES_HA: Final = (0.5, 1.0, 2.0, 5.0, 10.0)  # bounds between classes of size, the same for all datasets
N_SIZES: Final = len(SIZES_HA) + 2  # and, as the last one, of unknown size
PARCEL_RULES: Final = ("majority", "mean_probability")
_MOST_CLEAR_GROUPS: Final = 6
_WHOLE: Final = 2.0**30  # probability 1 as a whole number: sums of up to 2²³ pixels of a parcel are exact in any order

Bytes = npt.NDArray[np.uint8]


class Tally:
    """What a model says of the labelled pixels of a zone, part after part."""

    def __init__(
        self,
        table: pa.Table,
        true: Bytes,
        model: CropModel,
        areas_ha: npt.NDArray[np.float64] | None,
        n_clear: npt.NDArray[np.integer],
    ) -> None:
        """Begin.

        Args:
            table: the zone's pixel table.
            true: [N] class index of each of its rows.
            model: what predicts.
            areas_ha: of each row of the zone's parcel table, see `maps.parcels.parcel_areas`; None: there are no parcels.
            n_clear: [N] steps with a clear observation, of those that the model sees.
        """
        self._true, self._n_classes, self._decision = true, len(model.classes), decision_of(model)
        self._decided: Bytes = np.full(len(true), IGNORE, np.uint8)
        self._percent, self._is_right_group = np.zeros(len(true), np.int64), np.zeros(len(true), np.bool_)
        self._groups = list(groups_of(model.classes).values())[-1:]  # of the finest level
        width = clear_width(model.cube.n_steps)
        self._clear, self._n_clear = n_clear // width, model.cube.n_steps // width + 1
        self._sizes = areas_ha if areas_ha is None else _sizes(areas_ha, table["parcel"].to_numpy())
        if areas_ha is not None:
            # A parcel has one class; where labels were put in from elsewhere, it counts once for each that it has.
            pairs = table["parcel"].to_numpy().astype(np.int64) * (IGNORE + 1) + true
            _, self._first, self._parcel = np.unique(pairs, return_index=True, return_inverse=True)
            self._sums = np.zeros((self._n_classes, len(self._first)))

    def add(self, rows: npt.NDArray[np.int64], probabilities: Probabilities) -> None:
        """Take in the probabilities [K, n] of some rows of the pixel table."""
        decided = self._decided[rows] = self._decision.decide(probabilities)
        for groups in self._groups:
            confidence = np.take_along_axis(probabilities, decided[None], 0)[0]
            self._percent[rows] = percent(confidence)
            by_group = group_sums(self._decision.weighed(probabilities), groups).argmax(0)
            self._is_right_group[rows] = by_group == np.array(groups)[self._true[rows]]
        if self._sizes is not None:
            parcel, n_parcels = self._parcel[rows], self._sums.shape[1]
            for index, of_class in enumerate(probabilities):
                self._sums[index] += np.bincount(parcel, np.rint(of_class * _WHOLE), n_parcels)

    def counts(self) -> dict[str, Counts]:
        """Of all rows that were taken in.

        Returns:
            `clear_steps` [group of clear steps, true, predicted] pixels; where the legend has groups also `confidence`
            [%, (pixels, whose class is right, whose group of the finest level is)]; where there are parcels `parcel_sizes`
            [size, true, predicted] pixels and `parcels` [rule of PARCEL_RULES, size, true, predicted] parcels.
        """
        found = {"clear_steps": self._by(self._clear, self._n_clear)}
        if self._groups:
            found["confidence"] = self._by_confidence()
        if self._sizes is None:
            return found
        return {**found, "parcel_sizes": self._by(self._sizes, N_SIZES), "parcels": self._parcels(self._sizes)}

    def _parcels(self, sizes: npt.NDArray[np.int64]) -> Counts:
        seen = self._decided != IGNORE
        votes = np.zeros((len(self._first), self._n_classes), np.int64)
        np.add.at(votes, (self._parcel[seen], self._decided[seen]), 1)
        n_pixels = np.maximum(votes.sum(1), 1)
        means = (self._sums / _WHOLE / n_pixels).astype(np.float32)
        decided = votes.argmax(1), self._decision.decide(means)  # of equal ones the first, as maps do
        size, true = sizes[self._first], self._true[self._first]
        return np.stack([_counted(size, N_SIZES, true, one, self._n_classes) for one in decided])

    def _by_confidence(self) -> Counts:
        seen = self._decided != IGNORE
        columns = seen, seen & (self._decided == self._true), seen & self._is_right_group
        return np.stack([np.bincount(self._percent[column], minlength=N_PERCENT) for column in columns], 1)

    def _by(self, group: npt.NDArray[np.integer], n_groups: int) -> Counts:
        seen = self._decided != IGNORE
        return _counted(group[seen], n_groups, self._true[seen], self._decided[seen], self._n_classes)


def clear_width(n_steps: int) -> int:
    """Numbers of clear steps, 0 … `n_steps`, in each group of them: 0-2, 3-5 … of twelve steps."""
    return -(-(n_steps + 1) // _MOST_CLEAR_GROUPS)


def clear_titles(n_steps: int) -> tuple[str, ...]:
    """The groups of clear steps, `3–5` and so on."""
    width = clear_width(n_steps)
    spans = ((low, min(low + width - 1, n_steps)) for low in range(0, n_steps + 1, width))
    return tuple(f"{low}–{high}" if low < high else f"{low}" for low, high in spans)


def size_titles() -> tuple[str, ...]:
    """The classes of size."""
    between = (f"{low:g}–{high:g} ha" for low, high in itertools.pairwise(SIZES_HA))
    return (f"below {SIZES_HA[0]:g} ha", *between, f"{SIZES_HA[-1]:g} ha and more", "unknown size")


def _sizes(areas_ha: npt.NDArray[np.float64], parcel: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """[N] class of size of each pixel's parcel."""
    area = np.append(areas_ha, np.nan)[np.where((parcel >= 0) & (parcel < len(areas_ha)), parcel, len(areas_ha))]
    return np.where(np.isnan(area), N_SIZES - 1, np.digitize(area, SIZES_HA))


def _counted(
    group: npt.NDArray[np.integer], n_groups: int, true: Bytes, decided: npt.NDArray[np.integer], n_classes: int
) -> Counts:
    """[group, true, decided] int64."""
    cells = (group.astype(np.int64) * n_classes + true) * n_classes + decided
    shape = (n_groups, n_classes, n_classes)
    return np.bincount(cells, minlength=n_groups * n_classes**2).reshape(shape).astype(np.int64)
