"""The dataset stage's settings refuse what cannot work."""

import pytest
from pydantic import ValidationError

from cropray.datasets.settings import DatasetSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"tile_size": 4},
        {"n_folds": 1},
        {"buffer_m": -1},
        {"on_overlap": "ignore"},
        {"max_unknown_share": 1.5},
    ],
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DatasetSettings(**wrong)


def test_leakage_is_refused_unless_asked_for():
    assert DatasetSettings().on_overlap == "refuse"
