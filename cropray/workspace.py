"""The workspace: the only place that spells an artefact's path, and how a whole artefact is written.

Layout under the root (axes and columns of each artefact: `cropray.datasets.schema` and the stage's owner):

    zones.parquet  zones.csv  zones.json  zones.png
    acquisition/  composites/  labels/  parcels/  dataset/  search/  models/  evaluation/  maps/  report/
    mlflow.db  mlartifacts/  configs/  stamps/  logs/  plan.json  timings/
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cropray.errors import ConfigError, MissingArtefactError
from cropray.settings import fingerprint


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths of all artefacts of one job."""

    root: Path

    def prepare(self) -> None:
        """Create the root and prove that it can be written.

        Raises:
            ConfigError: the root cannot be created or written.
        """
        probe = self.root / f".probe-{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "unknown")
            raise ConfigError(
                f"workspace '{self.root}' cannot be written ({reason}: {error.strerror}); "
                f"set 'workspace' to a folder that you may write"
            ) from None

    @property
    def zones_table(self) -> Path:
        """GeoParquet zone table."""
        return self.root / "zones.parquet"

    @property
    def chosen_zones(self) -> Path:
        """CSV zone table of the zones that `zone_selection` chose."""
        return self.root / "zones.csv"

    @property
    def zone_reasons(self) -> Path:
        """JSON: by which settings zones were chosen, and why each."""
        return self.root / "zones.json"

    @property
    def zone_picture(self) -> Path:
        """PNG map of the chosen zones."""
        return self.root / "zones.png"

    def composite(self, zone_id: str) -> Path:
        """COG uint16 [48, H, W], gap-filled monthly medians."""
        return self.root / "composites" / f"{zone_id}.tif"

    def n_obs(self, zone_id: str) -> Path:
        """COG uint8 [12, H, W], clear observations per month before gap filling."""
        return self.root / "composites" / f"{zone_id}.nobs.tif"

    @property
    def acquisition(self) -> Path:
        """Folder of what a remote service was asked for: listings, months not yet in a composite, accounts."""
        return self.root / "acquisition"

    def listing(self, zone_id: str) -> Path:
        """JSON: the scenes that a remote service has of a zone."""
        return self.acquisition / zone_id / "listing.json"

    def acquired_month(self, zone_id: str, month: str) -> Path:
        """NPZ of one month `YYYY-MM` of a zone; it goes when the zone's composite is written."""
        return self.acquisition / zone_id / f"{month}.npz"

    @property
    def acquisition_ledger(self) -> Path:
        """JSON lines: every unit that was asked for, with tries, errors and reason of failure."""
        return self.acquisition / "ledger.jsonl"

    @property
    def acquisition_runs(self) -> Path:
        """JSON: requests, bytes and seconds of every run."""
        return self.acquisition / "runs.json"

    def labels(self, zone_id: str) -> Path:
        """GeoTIFF uint8 [1, H, W], class id, 255 = unlabelled."""
        return self.root / "labels" / f"{zone_id}.tif"

    def parcel_index(self, zone_id: str) -> Path:
        """GeoTIFF int32 [1, H, W], row of the zone's parcel table, -1 = no parcel."""
        return self.root / "labels" / f"{zone_id}.parcels.tif"

    def parcels(self, zone_id: str) -> Path:
        """GeoParquet of the zone's parcels."""
        return self.root / "parcels" / f"{zone_id}.parquet"

    def label_report(self, zone_id: str) -> Path:
        """JSON: hectares and parcels per code, mapped, excluded and unknown."""
        return self.root / "parcels" / f"{zone_id}.report.json"

    @property
    def coverage(self) -> Path:
        """JSON: what became of the declared parcels, in all, by region and by zone."""
        return self.root / "parcels" / "coverage.json"

    @property
    def parcel_extract(self) -> Path:
        """GeoPackage of the parcels near the zones, while `labels` reads a register without spatial index."""
        return self.root / "parcels" / ".extract.gpkg"

    @property
    def dataset(self) -> Path:
        """Folder of the dataset."""
        return self.root / "dataset"

    def pixels(self, zone_id: str) -> Path:
        """Folder of one zone's pixel table."""
        return self.dataset / "pixels" / f"zone_id={zone_id}"

    def tiles(self, zone_id: str) -> Path:
        """Folder of one zone's tile shards."""
        return self.dataset / "tiles" / f"zone_id={zone_id}"

    @property
    def manifest(self) -> Path:
        """The dataset's manifest, JSON."""
        return self.dataset / "manifest.json"

    @property
    def folds(self) -> Path:
        """Fold table, CSV `zone_id,region,split,fold`."""
        return self.dataset / "folds.csv"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures of the dataset."""
        return self.dataset / "pictures"

    def zone_pictures(self, zone_id: str) -> Path:
        """Folder of one zone's films, observation maps and summary (`summary.npz`: profiles and observations)."""
        return self.pictures / "zones" / zone_id

    def unit(self, model: str, unit: str) -> Path:
        """Folder of one finished (configuration, fold) of a search."""
        return self.root / "search" / model / unit

    def search_result(self, model: str) -> Path:
        """JSON: every configuration's scores and the winner."""
        return self.root / "search" / f"{model}.json"

    def model(self, model: str) -> Path:
        """Folder of the refitted winner: weights and card."""
        return self.root / "models" / model

    def evaluation(self, model: str) -> Path:
        """Folder of the test cube, scores and tables."""
        return self.root / "evaluation" / model

    def map(self, model: str, zone_id: str) -> Path:
        """COG [4, H, W]: class, confidence, second class, n_clear."""
        return self.root / "maps" / model / f"{zone_id}.tif"

    def map_preview(self, model: str, zone_id: str) -> Path:
        """PNG of a map beside the labels."""
        return self.root / "maps" / model / f"{zone_id}.png"

    def mapped_parcels(self, model: str, zone_id: str) -> Path:
        """GeoParquet: the zone's parcels with the predicted crop."""
        return self.root / "maps" / model / f"{zone_id}.parcels.parquet"

    @property
    def report(self) -> Path:
        """Folder of the HTML report."""
        return self.root / "report"

    @property
    def mlflow_database(self) -> Path:
        """SQLite store of the tracking runs."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Folder of the tracking artifacts."""
        return self.root / "mlartifacts"

    def config(self, stage: str) -> Path:
        """The resolved config with which a stage last ran."""
        return self.root / "configs" / f"{stage}.yaml"

    def log(self, stage: str) -> Path:
        """Log file of a stage."""
        return self.root / "logs" / f"{stage}.log"

    @property
    def plan(self) -> Path:
        """JSON: what the job was planned to take."""
        return self.root / "plan.json"

    def timing(self, stage: str) -> Path:
        """JSON: seconds of each run of a stage, and what it made."""
        return self.root / "timings" / f"{stage}.json"

    def stamp(self, stage: str, unit: str) -> Path:
        """Fingerprint of what an artefact was made from."""
        return self.root / "stamps" / stage / f"{unit}.json"

    def is_current(self, stage: str, unit: str, inputs: str, outputs: Iterable[Path]) -> bool:
        """Whether all outputs stand and were made from exactly these inputs."""
        try:
            stamp = json.loads(self.stamp(stage, unit).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return bool(stamp.get("inputs") == inputs) and all(path.exists() for path in outputs)

    def mark_current(self, stage: str, unit: str, inputs: str) -> None:
        """Record what a finished artefact was made from."""
        write_json(self.stamp(stage, unit), {"inputs": inputs})

    def mark_stale(self, stage: str, unit: str) -> None:
        """Forget what an artefact was made from, before it is made again: a failure may replace a part of it."""
        self.stamp(stage, unit).unlink(missing_ok=True)


def require(path: Path, made_by: str) -> Path:
    """The path of an artefact that an earlier stage wrote.

    Raises:
        MissingArtefactError: it does not exist.
    """
    if not path.exists():
        raise MissingArtefactError(f"'{path}' does not exist; run `cropray {made_by} CONFIG.yaml` first")
    return path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; it takes its place when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; it replaces `path` when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    old = temporary.with_name(f"{temporary.name}.old")  # moved aside first: deleting in place would show half a folder
    temporary.mkdir()
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def file_hash(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(path: Path) -> str:
    """SHA-256 over the names and bytes of all files below a folder."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return fingerprint([[str(file.relative_to(path)), file_hash(file)] for file in files])


def code_hash(*names: str) -> str:
    """SHA-256 over the sources of some of cropray's modules and subpackages: a stage's code version.

    Raises:
        ValueError: a name is neither.
    """
    root = Path(str(resources.files("cropray")))
    files: list[Path] = []
    for name in names:
        found = [*root.glob(f"{name}.py"), *(root / name).rglob("*.py")]
        if not found:
            raise ValueError(f"cropray has no module or package '{name}' whose code could be hashed")
        files += found
    return fingerprint([[str(file.relative_to(root)), file_hash(file)] for file in sorted(files)])
