"""The pixel table, against a loop over pixels."""

import dataclasses

import numpy as np

from cropray.core.legend import IGNORE
from cropray.datasets.pixels import pixel_table
from cropray.datasets.schema import pixel_schema
from tests.study import BAND_IDS, N_MONTHS
from tests.synthetic import zone_arrays

ZONE = zone_arrays((9, 13))


def rows_one_by_one(zone, zone_id, region):
    """Oracle: what a row means, written out."""
    rows = []
    height, width = zone.labels.shape
    for row in range(height):
        for col in range(width):
            if zone.labels[row, col] == IGNORE:
                continue
            record = {"zone_id": zone_id, "region": region, "parcel": int(zone.parcels[row, col])}
            record |= {"row": row, "col": col, "label": int(zone.labels[row, col])}
            record["n_clear"] = sum(bool(zone.clear[month, row, col]) for month in range(N_MONTHS))
            for band, name in enumerate(BAND_IDS):
                for month in range(N_MONTHS):
                    record[f"{name}_{month + 1:02d}"] = int(zone.composite[month, band, row, col])
            rows.append(record)
    return rows


def test_the_table_equals_a_loop_over_pixels():
    table = pixel_table(ZONE, "z-1", "north")
    assert table.schema.equals(pixel_schema())
    assert table.to_pylist() == rows_one_by_one(ZONE, "z-1", "north")


def test_inputs_do_not_depend_on_labels():
    # Other labels on the same pixels: the same features, and another label column.
    other = np.where(ZONE.labels == IGNORE, IGNORE, ZONE.labels + 1).astype(np.uint8)
    before, after = (
        pixel_table(zone, "z-1", "north").drop_columns("label")
        for zone in (ZONE, dataclasses.replace(ZONE, labels=other))
    )
    assert before.equals(after)


def test_extreme_values_survive():
    zone = dataclasses.replace(ZONE, composite=np.full_like(ZONE.composite, 65_535))
    table = pixel_table(zone, "z-1", "north")
    assert set(table["B08_12"].to_pylist()) == {65_535}


def test_a_zone_without_labels_is_an_empty_table():
    zone = dataclasses.replace(ZONE, labels=np.full_like(ZONE.labels, IGNORE))
    table = pixel_table(zone, "z-1", "north")
    assert len(table) == 0
    assert table.schema.equals(pixel_schema())
