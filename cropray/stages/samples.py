"""Training samples of a search, in the object store."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from cropray.datasets.loading import load_pixels, load_tiles, show_until
from cropray.datasets.manifest import Manifest
from cropray.io.workspace import Workspace
from cropray.training.family import Sample

LOADERS: Final[Mapping[Sample, Callable[[Workspace, Sequence[str]], Mapping[str, Any]]]] = {
    "pixel": load_pixels,
    "tile": load_tiles,
}


class Samples:
    """Training samples in the object store: each kind is read once, for all families that train on it."""

    def __init__(self, workspace: Workspace, manifest: Manifest, until_step: int | None = None) -> None:
        """Args: until_step: steps of time after this one are shown as missing; None: none is."""
        self.workspace = workspace
        self.manifest = manifest
        self._until_step = until_step
        self._blocks: dict[Sample, tuple[Mapping[str, Any], Manifest]] = {}

    @property
    def loaded(self) -> set[Sample]:
        """Kinds that are there."""
        return set(self._blocks)

    def blocks(self, sample: Sample) -> tuple[Mapping[str, Any], Manifest]:
        """(training zone → its samples, the manifest with the sums of what they show)."""
        if sample not in self._blocks:
            zone_ids = [zone.zone_id for zone in self.manifest.of_split("train")]
            rows = partial(load_pixels, cube=self.manifest.cube, is_weighted=self.manifest.is_weighted)
            load = rows if sample == "pixel" else LOADERS[sample]
            self._blocks[sample] = show_until(load(self.workspace, zone_ids), self.manifest, self._until_step)
        return self._blocks[sample]
