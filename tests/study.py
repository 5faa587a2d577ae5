"""The study's cube by the names that tests use."""

from cropray.core.cube import STUDY_CUBE
from cropray.core.sensors import NODATA, REFLECTANCE_SCALE, SATURATED

BANDS = STUDY_CUBE.bands
BAND_IDS = STUDY_CUBE.band_ids
FEATURE_COLUMNS = STUDY_CUBE.columns
N_BANDS = STUDY_CUBE.n_bands
N_FEATURES = STUDY_CUBE.n_features
N_MONTHS = STUDY_CUBE.n_steps
INPUT = {"n_months": N_MONTHS, "n_bands": N_BANDS}  # of a network
__all__ = [
    "BANDS",
    "BAND_IDS",
    "FEATURE_COLUMNS",
    "INPUT",
    "NODATA",
    "N_BANDS",
    "N_FEATURES",
    "N_MONTHS",
    "REFLECTANCE_SCALE",
    "SATURATED",
]
