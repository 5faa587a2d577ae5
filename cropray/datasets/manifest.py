"""The manifest: what a dataset holds, and everything later stages may know about it without reading pixels."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cropray.core.cube import STUDY_CUBE, CubeSpec, recorded_cube
from cropray.core.errors import MissingArtefactError, SchemaError
from cropray.core.fingerprint import fingerprint
from cropray.core.legend import IGNORE, CropClass
from cropray.datasets.schema import SCHEMA_VERSION, check_version
from cropray.io.storage import Location, write_json
from cropray.io.zones import Split


@dataclass(frozen=True, slots=True)
class BandSums:
    """Sums per band over observed steps of pixels, from which statistics of any set of zones follow exactly."""

    count: tuple[int, ...]
    """Per band, steps of pixels with data."""
    total: tuple[float, ...]
    """Per band, sum of digital numbers."""
    squares: tuple[float, ...]
    """Per band, sum of squared digital numbers."""


@dataclass(frozen=True, slots=True)
class ZoneEntry:
    """One zone of a dataset."""

    zone_id: str
    region: str
    split: Split
    fold: int | None
    """Validation fold of a training zone; None for a test zone."""
    counts: Mapping[str, int]
    """Class name → labelled pixels."""
    n_trimmed: int
    """Pixels that lost their label because they lay across or near a border of splits."""
    n_tiles: int
    sums: BandSums
    files: Mapping[str, str]
    """Path below the dataset folder → SHA-256."""
    n_empty: int = 0
    """Labelled pixels that hold no value in any step."""

    @property
    def n_labelled(self) -> int:
        """Labelled pixels."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Manifest:
    """A dataset."""

    name: str
    source: Literal["parcels", "points"]
    """`points` datasets have no tiles: only XGBoost can be searched on them."""
    classes: tuple[CropClass, ...]
    """Classes that occur, in legend order; their position is the index that models predict."""
    legend_hash: str
    tile_size: int | None
    n_folds: int
    zones: tuple[ZoneEntry, ...]
    notes: tuple[str, ...] = ()
    """What a reader of the scores must know: classes seen only in test, labels trimmed, codes unknown."""
    region_conflict: str | None = None
    """Which training zones of different regions are neighbours, so that leave-region-out cannot be scored; empty where
    none are, None where nobody looked."""
    schema_version: int = SCHEMA_VERSION
    cube: CubeSpec = STUDY_CUBE
    """Bands and steps of the pixels; a manifest without it is of the study's."""
    is_weighted: bool = False
    """Whether the pixel tables hold a weight of each row, which counts in training alone."""

    @property
    def n_classes(self) -> int:
        """Classes that occur in any split."""
        return len(self.classes)

    @property
    def zone_ids(self) -> tuple[str, ...]:
        """All zones, in table order."""
        return tuple(zone.zone_id for zone in self.zones)

    def of_split(self, split: Split) -> tuple[ZoneEntry, ...]:
        """Zones of one split."""
        return tuple(zone for zone in self.zones if zone.split == split)

    def fold_zones(self, fold: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(training zones, validation zones) of one fold."""
        train = self.of_split("train")
        return (
            tuple(zone.zone_id for zone in train if zone.fold != fold),
            tuple(zone.zone_id for zone in train if zone.fold == fold),
        )

    @property
    def train_regions(self) -> tuple[str, ...]:
        """Regions that have training zones, in alphabetical order: their positions are the region-out folds."""
        return tuple(sorted({zone.region for zone in self.of_split("train")}))

    def region_zones(self, region: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(training zones of the other regions, training zones of one region): a region-out fold."""
        train = self.of_split("train")
        return (
            tuple(zone.zone_id for zone in train if zone.region != region),
            tuple(zone.zone_id for zone in train if zone.region == region),
        )

    def lookup(self) -> npt.NDArray[np.uint8]:
        """[256] uint8: stored class id → class index; IGNORE for everything else."""
        table = np.full(256, IGNORE, np.uint8)
        for index, crop in enumerate(self.classes):
            table[crop.id] = index
        return table

    def labelled(self, zone_ids: Iterable[str]) -> dict[str, int]:
        """Zone → labelled pixels."""
        wanted = set(zone_ids)
        return {zone.zone_id: zone.n_labelled for zone in self.zones if zone.zone_id in wanted}

    def band_sums(self, zone_ids: Iterable[str]) -> BandSums:
        """Sums over some zones: pass training zones only."""
        wanted = set(zone_ids)
        parts = [zone.sums for zone in self.zones if zone.zone_id in wanted]
        bands = range(self.cube.n_bands)
        return BandSums(
            tuple(sum(part.count[b] for part in parts) for b in bands),
            tuple(sum(part.total[b] for part in parts) for b in bands),
            tuple(sum(part.squares[b] for part in parts) for b in bands),
        )

    def class_counts(self, zone_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """[class index] int64: labelled pixels in some zones."""
        wanted = set(zone_ids)
        return np.array(
            [sum(z.counts.get(crop.name, 0) for z in self.zones if z.zone_id in wanted) for crop in self.classes],
            np.int64,
        )

    def untrained(self, train: Iterable[str], scored: Iterable[str]) -> dict[str, int]:
        """Class name → labelled pixels in the zones `scored`, of classes that no zone of `train` holds."""
        known, asked = self.class_counts(train), self.class_counts(scored)
        pairs = zip(self.classes, known, asked, strict=True)
        return {crop.name: int(n) for crop, n_known, n in pairs if n and not n_known}

    def fingerprint(self) -> str:
        """SHA-256 of everything that training can see."""
        record = _to_json(self)
        keys = ("classes", "zones", "tile_size", "schema_version")
        return fingerprint([*(record[key] for key in keys), *self.cube.in_content().values()])

    def training_fingerprint(self) -> str:
        """SHA-256 of everything that a fit can see: classes, tile size, cube, training zones. Test zones may change."""
        record = _to_json(self)
        zones = [zone for zone in record["zones"] if zone["split"] == "train"]
        keys = ("classes", "tile_size", "schema_version")
        return fingerprint([zones, *(record[key] for key in keys), *self.cube.in_content().values()])


def statistics(sums: BandSums) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation per band, digital numbers, each [C] float32; of a band without data 0 and 1."""
    count = np.maximum(np.array(sums.count, np.float64), 1)
    mean = np.array(sums.total) / count
    deviation = np.sqrt(np.maximum(np.array(sums.squares) / count - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def classes_only_in_test(zones: Sequence[ZoneEntry]) -> dict[str, int]:
    """Class name → test pixels, of classes that no training zone holds."""
    trained = {name for zone in zones if zone.split == "train" for name, n in zone.counts.items() if n}
    tested: Counter[str] = sum((Counter(zone.counts) for zone in zones if zone.split == "test"), Counter())
    return {name: n for name, n in tested.items() if name not in trained}


def save_manifest(manifest: Manifest, path: Location) -> None:
    """Write the manifest whole."""
    write_json(path, _to_json(manifest))


def save_entry(entry: ZoneEntry, path: Location) -> None:
    """Write one zone's part of a manifest whole."""
    write_json(path, asdict(entry))


def load_entry(path: Location) -> ZoneEntry:
    """Read one zone's part of a manifest."""
    return _entry(json.loads(path.read_text(encoding="utf-8")))


def load_manifest(path: Location) -> Manifest:
    """Read a manifest.

    Raises:
        MissingArtefactError: there is no dataset.
        SchemaError: it was written with another schema, or is damaged.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingArtefactError(f"'{path}' does not exist; run `cropray dataset CONFIG.yaml` first") from None
    except json.JSONDecodeError as error:
        raise _damaged(path, error) from None
    check_version(raw.get("schema_version") if isinstance(raw, dict) else None, f"'{path.parent}'")
    try:
        zones = tuple(_entry(zone) for zone in raw["zones"])
        classes = tuple(CropClass(**record) for record in raw["classes"])
        lists = {"zones": zones, "classes": classes, "notes": tuple(raw["notes"])}
        return Manifest(**{**raw, **lists, "cube": recorded_cube(raw)})
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Location, error: Exception) -> SchemaError:
    return SchemaError(
        f"manifest '{path}' is damaged ({error}); run `cropray dataset CONFIG.yaml --set overwrite=true`"
    )


def _entry(raw: Mapping[str, Any]) -> ZoneEntry:
    sums = {name: tuple(values) for name, values in raw["sums"].items()}
    return ZoneEntry(**{**raw, "sums": BandSums(**sums)})


def _to_json(manifest: Manifest) -> dict[str, Any]:
    record = {**asdict(manifest), "classes": [crop.to_record() for crop in manifest.classes]}
    if not manifest.is_weighted:
        del record["is_weighted"]  # most have none, and stay as they were
    return record
