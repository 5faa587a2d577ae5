"""What `mlflow.pyfunc.load_model` wraps: tables or tiles in, probabilities or names of classes out.

A registered model carries this module and the loader of its family (`served`), not cropray: they
may import numpy, pandas, what the model itself computes with, and nothing that does more.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from cropray.training.card import class_names, recorded_features
from cropray.training.decision import LIKELIEST, Decision, recorded_decision
from cropray.training.likeness import Likeness, recorded_likeness

OUTPUT: Final = "output"  # the one parameter of `predict`
PROBABILITIES: Final = "probabilities"
NAMES: Final = "names"
SETS: Final = "sets"
UNLIKE: Final = "unlike"
ANSWERS: Final = "answers"
_OUTPUTS: Final = (PROBABILITIES, NAMES, SETS, UNLIKE, ANSWERS)
LARGEST: Final = np.iinfo(np.uint16).max
LARGEST_FRACTION: Final = 2.0  # surfaces brighter than white exist (glint, snow), brighter than this do not
_NEEDED: Final = f"whole digital numbers from 0 to {LARGEST}, as the model's cube stores its values, 0 = no data"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as model servers call it."""

    classes: tuple[str, ...]
    """Names of the outputs, in order."""
    columns: tuple[str, ...]
    """Of a table of pixels; empty: the model takes tiles."""
    predict_samples: Callable[[npt.NDArray[np.uint16]], npt.NDArray[np.float32]]
    """[N, F] → [N, K], or [N, T, C, H, W] → [N, K, H, W]."""
    decision: Decision = LIKELIEST
    """`recorded_decision` of the model's card: maps and scores are made by the same."""
    likeness: Likeness | None = None
    """`recorded_likeness` of the model's card; None: it flags no pixel as unlike the training zones'."""
    shown: Callable[[npt.NDArray[np.uint16]], npt.NDArray[np.uint16]] = lambda x: x
    """Samples → what the model is shown of them, of the same shape; here all."""

    def predict(
        self, model_input: Any, params: dict[str, Any] | None = None
    ) -> pd.DataFrame | npt.NDArray[np.float32 | np.bool_] | npt.NDArray[np.object_]:
        """Class probabilities, sets of classes, names, or whether a pixel is unlike what the model was trained on.

        Args:
            model_input: a table with the model's columns, `B02_01` … in any order, others are ignored (trees), or an
                array of tiles [N, T, C, H, W] (CNN). Digital numbers, 0 or null = no data, as integers or floats.
            params: `{"output": "names"}` for the name of the class that the model decides for; `answers` for that, or of
                its group of the legend where the model falls back to that; `sets` for whether each class belongs to the
                set that holds the true one as often as was promised; `unlike` for whether the pixel is unlike those of
                the training zones; otherwise probabilities.

        Returns:
            Of a table: float32 probabilities with the names of the classes as columns and the rows of the input, or
            names [N]. Of tiles: [N, K, H, W] float32, or names [N, H, W]. Answers have the form of names, `unlike` as
            well, as bool; sets are bool in the form of the probabilities.

        Raises:
            ValueError: a column is missing, a value is no digital number, the output is not known, or the model has no sets,
                no flag, or no group to fall back to.
        """
        output = (params or {}).get(OUTPUT, PROBABILITIES)
        if output not in _OUTPUTS:
            raise ValueError(f"{OUTPUT} is {output!r}; it must be {' or '.join(map(repr, _OUTPUTS))}")
        is_table = isinstance(model_input, pd.DataFrame)
        given = read_table(model_input, self.columns) if is_table else digital_numbers(np.asarray(model_input))
        samples = self.shown(given)
        if output == UNLIKE:
            return self._is_unlike(samples)
        probabilities = self.decision.tempered(self.predict_samples(samples), 1)
        if output in (NAMES, ANSWERS):
            names: npt.NDArray[np.object_] = np.array(self.classes, np.object_)[self.decision.decide(probabilities, 1)]
            if output == NAMES:
                return names
            groups = self.decision.answered(probabilities, 1)
            return np.where(groups > 0, np.array(["", *self.decision.group_names], np.object_)[groups], names)
        answer = self.decision.in_sets(probabilities) if output == SETS else probabilities
        return pd.DataFrame(answer, index=model_input.index, columns=list(self.classes)) if is_table else answer

    def _is_unlike(self, samples: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
        if self.likeness is None:
            raise ValueError("this model flags no pixels: no flag was asked for by its job (decision.unlike)")
        return self.likeness.is_unlike(samples)


def read_table(table: pd.DataFrame, columns: Sequence[str]) -> npt.NDArray[np.uint16]:
    """[N, columns] digital numbers of a table, by the names of its columns.

    Raises:
        ValueError: a column is missing or there twice, or a value is no digital number.
    """
    if not columns:
        raise ValueError("this model takes tiles [N, T, C, H, W], not a table")
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"the table lacks the columns {missing}")
    picked = table[list(columns)]
    if picked.shape[1] != len(columns):
        raise ValueError(f"the table has columns twice: {sorted(set(picked.columns[picked.columns.duplicated()]))}")
    try:
        values = picked.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        texts = [name for name in columns if pd.to_numeric(picked[name], errors="coerce").isna().any()]
        raise ValueError(f"the columns {texts} hold values that are no numbers; needed are {_NEEDED}") from None
    return digital_numbers(values, columns)


def digital_numbers(values: npt.NDArray[Any], columns: Sequence[str] = ()) -> npt.NDArray[np.uint16]:
    """Values as the model was trained on them; null becomes 0, fractions (means of dates) are rounded.

    Args:
        values: any shape and numeric type.
        columns: names of the last axis, for messages.

    Raises:
        ValueError: a value is outside of the range, or all are fractions, such as reflectances.
    """
    if values.dtype == np.uint16:
        return values
    numbers = np.where(np.isnan(values), 0.0, values) if values.dtype.kind == "f" else values
    wrong = (numbers < 0) | (numbers > LARGEST)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        where = f"column '{columns[at[-1]]}', row {at[0]}" if len(columns) else f"position {at}"
        raise ValueError(f"{where} holds {values[at]:g}; needed are {_NEEDED}")
    rounded = np.rint(numbers)
    if numbers.size and (numbers != rounded).any() and numbers.max() <= LARGEST_FRACTION:
        raise ValueError(
            f"values reach from {numbers.min():g} to {numbers.max():g}, as reflectances and indices do; needed are {_NEEDED}"
        )
    return rounded.astype(np.uint16)


def loader_module(name: str) -> ModuleType:
    """A loader that another one calls, as it is installed here, or as a registered model carries it beside this module."""
    package, (top, _, inner) = __name__.partition(".")[0], name.partition(".")
    if top == "cropray":
        return importlib.import_module(f"{package}.{inner}")
    try:
        return importlib.import_module(f"{package}.plugin.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(name)


def served_pixels(card: Mapping[str, Any], predict: Callable[..., npt.NDArray[np.float32]]) -> ServedModel:
    """A model of pixels: its features are computed from the columns of its cube.

    Args:
        card: of the model.
        predict: [N, F] uint16 features → [N, K] float32 probabilities.
    """
    features = recorded_features(card)
    return ServedModel(
        class_names(card),
        features.cube.columns,
        lambda x: predict(np.ascontiguousarray(features.compute(x))),
        recorded_decision(card),
        recorded_likeness(card),
    )
