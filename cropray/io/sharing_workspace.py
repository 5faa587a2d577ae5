"""A workspace that reads a part of what it needs where another one has it.

It is a class of its own: who reads a workspace reads the same code as ever, and what was made before is not made again.
"""

from dataclasses import dataclass

from cropray.io.storage import Location
from cropray.io.workspace import Workspace


@dataclass(frozen=True, slots=True)
class SharingWorkspace(Workspace):
    """Its methods mean what those of `Workspace` do."""

    images_of: Location | None
    """Root of the workspace whose chosen zones, composites and labels are read; None: they are where the dataset is."""
    dataset_of: Location | None
    """Root of the workspace whose dataset and units of searches are read, and whose units are added to; None: this one."""

    @property
    def _images(self) -> Workspace:
        return Workspace(self.images_of or self._data.root)

    @property
    def _data(self) -> Workspace:
        return Workspace(self.dataset_of or self.root)

    @property
    def chosen_zones(self) -> Location:
        """See `Workspace`."""
        return self._images.chosen_zones

    @property
    def zone_reasons(self) -> Location:
        """See `Workspace`."""
        return self._images.zone_reasons

    def composite(self, zone_id: str) -> Location:
        """See `Workspace`."""
        return self._images.composite(zone_id)

    def n_obs(self, zone_id: str) -> Location:
        """See `Workspace`."""
        return self._images.n_obs(zone_id)

    def acquisition_record(self, zone_id: str) -> Location:
        """See `Workspace`."""
        return self._images.acquisition_record(zone_id)

    def labels(self, zone_id: str) -> Location:
        """See `Workspace`."""
        return self._images.labels(zone_id)

    def parcel_index(self, zone_id: str) -> Location:
        """See `Workspace`."""
        return self._images.parcel_index(zone_id)

    def parcels(self, zone_id: str) -> Location:
        """See `Workspace`."""
        return self._images.parcels(zone_id)

    def label_report(self, zone_id: str) -> Location:
        """See `Workspace`."""
        return self._images.label_report(zone_id)

    @property
    def coverage(self) -> Location:
        """See `Workspace`."""
        return self._images.coverage

    @property
    def dataset(self) -> Location:
        """See `Workspace`."""
        return self._data.dataset

    def unit(self, model: str, unit: str) -> Location:
        """See `Workspace`."""
        return self._data.unit(model, unit)

    def unit_progress(self, model: str, unit: str) -> Location:
        """See `Workspace`."""
        return self._data.unit_progress(model, unit)
