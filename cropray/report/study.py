"""The original study's published scores, quoted for orientation and never for comparison."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PublishedScores:
    """One row of the study's results table."""

    label: str
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    loss: float

    def __getitem__(self, key: str) -> float | None:
        """A score by its key; None where the study does not give it."""
        return getattr(self, key, None)


CITATION: Final = (
    "Setaro, Coursimaux, Placier (2025), “Crop Type Classification from Multispectral Time Series Using Deep Learning”"
)
PUBLISHED: Final = (
    PublishedScores("CNN", 0.8721, 0.4099, 0.3544, 0.3516, 0.5222),
    PublishedScores("XGBoost", 0.8045, 0.3543, 0.2303, 0.2524, 0.7358),
)
# Source: reading of the study's notebooks; the scores without background are recomputed from its predictions.
WHY_NOT_COMPARABLE: Final = (
    "Other data: 41 zones of 10 km × 10 km in France, 2023. These scores are of the dataset named above.",
    (
        "Pixels outside parcels were set to 0 before training and scored as a class of their own: 26–27 % of the pixels "
        "were trivially right. Without them its scores are about 0.83 accuracy and 0.346 macro-F1 (CNN), 0.74 and 0.237 "
        "(XGBoost)."
    ),
    "Its folds were drawn over tiles and pixels, not zones, and in two regions training and test zones overlap.",
    "Its macro average runs over 51 labels, one of which never occurs and one of which is the background.",
)
