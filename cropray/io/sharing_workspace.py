"""A workspace that reads a part of what it needs where another one has it.

It is a class of its own: who reads a workspace reads the same code as ever, and what was made before is not made again.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from cropray.io.storage import Location
from cropray.io.workspace import Workspace

OF_IMAGES: Final = frozenset(
    {
        *("chosen_zones", "zone_reasons", "composite", "n_obs", "acquisition_record"),
        *("labels", "parcel_index", "parcels", "label_report", "coverage"),
    }
)
OF_DATASET: Final = frozenset({"dataset", "unit", "unit_progress"})


@dataclass(frozen=True, slots=True)
class SharingWorkspace(Workspace):
    """Its methods mean what those of `Workspace` do; those of `OF_IMAGES` and `OF_DATASET` are the other workspace's."""

    images_of: Location | None
    """Root of the workspace whose chosen zones, composites and labels are read; None: they are where the dataset is."""
    dataset_of: Location | None
    """Root of the workspace whose dataset and units of searches are read, and whose units are added to; None: this one."""

    def __getattribute__(self, name: str) -> Any:
        own = partial(object.__getattribute__, self)
        if name in OF_IMAGES:
            return getattr(Workspace(own("images_of") or own("dataset_of") or own("root")), name)
        return getattr(Workspace(own("dataset_of") or own("root")), name) if name in OF_DATASET else own(name)
