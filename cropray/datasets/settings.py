"""Settings of the dataset stage."""

from typing import Literal

from pydantic import Field

from cropray.core.settings import Settings


class DatasetSettings(Settings):
    """How zones become a dataset."""

    tile_size: int = Field(default=32, ge=8, le=512)
    """Height and width of a tile, pixels."""
    n_folds: int = Field(default=3, ge=2)
    """Folds of the cross-validation, grouped by zone."""
    buffer_m: float = Field(default=500, ge=0)
    """Zones of different splits or folds must be this far apart, m; where the job reads points, each point of one from
    each point of another."""
    on_overlap: Literal["refuse", "trim"] = "refuse"
    """What to do when parcels, pixels or points cross a border of splits: stop, or drop the training side's labels."""
    max_unknown_share: float = Field(default=0.05, ge=0, le=1)
    """Largest share of a zone's parcel area whose codes the legend does not know; above it the stage stops."""
