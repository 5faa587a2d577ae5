import numpy as np

from cropray.imagery.mask import clear


def test_keeps_vegetation_soil_water_and_unclassified_only():
    kept = np.flatnonzero(clear(np.arange(256).astype(np.uint8)))
    assert kept.tolist() == [4, 5, 6, 7]
