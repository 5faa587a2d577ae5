"""The majority vote, against a loop."""

from collections import Counter

import geopandas as gpd
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely import Point

from cropray.core.legend import IGNORE
from cropray.maps.parcels import vote
from tests.maps.builders import CLASSES

IDS = [crop.id for crop in CLASSES]
NAMES = {crop.id: crop.name for crop in CLASSES}
N_PARCELS = 4


def table():
    return gpd.GeoDataFrame(
        {
            "parcel_index": np.arange(N_PARCELS, dtype=np.int32), "parcel_id": list("abcd"), "code": "BTH",
            "class_id": np.array([IDS[0], IDS[1], IGNORE, IDS[0]], np.uint8), "area_ha": 1.5,
        },
        geometry=[Point(i, 0) for i in range(N_PARCELS)], crs="EPSG:32631",
    )  # fmt: skip


@given(
    index=arrays(np.int32, (6, 5), elements=st.integers(-1, N_PARCELS - 1)),
    predicted=arrays(np.uint8, (6, 5), elements=st.sampled_from([*IDS, IGNORE])),
)
def test_the_vote_is_the_majority(index, predicted):
    voted = vote(table(), index, predicted, CLASSES)
    for parcel in range(N_PARCELS):
        votes = Counter(predicted[(index == parcel) & (predicted != IGNORE)].tolist())
        row = voted.iloc[parcel]
        assert row.n_pixels == votes.total()
        if not votes:
            assert pd.isna(row.predicted)
            assert np.isnan(row.share)
            continue
        winner = min(votes, key=lambda class_id: (-votes[class_id], class_id))
        assert row.predicted == NAMES[winner]
        assert row.share == votes[winner] / votes.total()


def test_declared_crops_and_geometry_are_kept():
    voted = vote(table(), np.full((2, 2), -1, np.int32), np.full((2, 2), IDS[0], np.uint8), CLASSES)
    assert voted["declared"].fillna("").tolist() == [CLASSES[0].name, CLASSES[1].name, "", CLASSES[0].name]
    assert voted.geometry.tolist() == table().geometry.tolist()
    assert voted.crs == table().crs


def test_a_zone_without_parcels_gives_an_empty_table():
    voted = vote(table().iloc[:0], np.full((2, 2), -1, np.int32), np.zeros((2, 2), np.uint8), CLASSES)
    assert len(voted) == 0
    assert "predicted" in voted.columns
