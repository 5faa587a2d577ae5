"""The workspace: the only place that spells an artefact's path.

Layout under the root (axes and columns of each artefact: `cropray.datasets.schema` and the stage's owner):

    zones.parquet  zones.csv  zones.json  zones.png
    acquisition/  composites/  labels/  parcels/  dataset/  search/  models/  oof/  evaluation/  nested/  ablation/  leakage/  season/  maps/  report/
    runs/  mlflow.db  mlartifacts/  configs/  stamps/  logs/  plan.json  timings/
"""

import errno
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cropray.core.errors import ConfigError, InputError, MissingArtefactError
from cropray.core.fingerprint import fingerprint
from cropray.core.grid import Grid
from cropray.core.keys import Key, differences
from cropray.io.storage import Location, remove, require_driver, write_json

LocationT = TypeVar("LocationT", bound=Location)
MISSING: Final = "missing"
EARLIER: Final = "made by an earlier version, which kept no account of what it was made from"
_UNFINISHED: Final = "left unfinished"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths of all artefacts of one job."""

    root: Location

    def prepare(self) -> None:
        """Create the root and prove that it can be written.

        Raises:
            ConfigError: the root cannot be created or written, or libraries would read its path as another one.
        """
        if "?" in str(self.root):  # Ray Data takes what follows for a query and cuts it off
            raise ConfigError(f"workspace '{self.root}' holds the character '?'; set 'workspace' to a path without it")
        probe = self.root / f".probe-{uuid.uuid4().hex}"
        try:
            require_driver(self.root)
            if isinstance(self.root, Path):
                self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            remove(probe)
        except ImportError as error:
            raise ConfigError(f"workspace '{self.root}': {error}") from None
        except Exception as error:  # object stores have errors of their own
            if not isinstance(error, OSError) and isinstance(self.root, Path):
                raise
            raise ConfigError(
                f"workspace '{self.root}' cannot be written ({_reason(error)}); "
                f"set 'workspace' to a folder or bucket that you may write"
            ) from None

    @property
    def zones_table(self) -> Location:
        """GeoParquet zone table."""
        return self.root / "zones.parquet"

    @property
    def chosen_zones(self) -> Location:
        """CSV zone table of the zones that `zone_selection` chose."""
        return self.root / "zones.csv"

    @property
    def zone_reasons(self) -> Location:
        """JSON: by which settings zones were chosen, and why each."""
        return self.root / "zones.json"

    @property
    def zone_picture(self) -> Location:
        """PNG map of the chosen zones."""
        return self.root / "zones.png"

    def composite(self, zone_id: str) -> Location:
        """COG uint16 [C · T, H, W], gap-filled medians of the steps of time, band by band."""
        return self.root / "composites" / f"{zone_id}.tif"

    def n_obs(self, zone_id: str) -> Location:
        """COG uint8 [T, H, W], clear observations per step before gap filling."""
        return self.root / "composites" / f"{zone_id}.nobs.tif"

    def acquisition_record(self, zone_id: str) -> Location:
        """JSON: scenes and clear pixels of each step of a composite, its cube, its scenes, and what was left out."""
        return self.root / "composites" / f"{zone_id}.json"

    @property
    def left_out(self) -> Location:
        """JSON: what lies at the source of imagery and is not used, or not as it lies there, in the last `acquire`."""
        return self.acquisition / "left_out.json"

    @property
    def acquisition(self) -> Location:
        """Folder of what a remote service was asked for: listings, steps not yet in a composite, accounts."""
        return self.root / "acquisition"

    def listing(self, zone_id: str) -> Location:
        """JSON: the scenes that a remote service has of a zone."""
        return self.acquisition / zone_id / "listing.json"

    def acquired_month(self, zone_id: str, month: str) -> Location:
        """NPZ of one step of a zone, `2023-05` or by its first day; it goes when the zone's composite is written."""
        return self.acquisition / zone_id / f"{month}.npz"

    @property
    def acquisition_ledger(self) -> Location:
        """JSON lines: every unit that was asked for, with tries, errors and reason of failure."""
        return self.acquisition / "ledger.jsonl"

    @property
    def acquisition_runs(self) -> Location:
        """JSON: requests, bytes and seconds of every run."""
        return self.acquisition / "runs.json"

    def labels(self, zone_id: str) -> Location:
        """GeoTIFF uint8 [1, H, W], class id, 255 = unlabelled."""
        return self.root / "labels" / f"{zone_id}.tif"

    def parcel_index(self, zone_id: str) -> Location:
        """GeoTIFF int32 [1, H, W], row of the zone's parcel table, -1 = no parcel."""
        return self.root / "labels" / f"{zone_id}.parcels.tif"

    def parcels(self, zone_id: str) -> Location:
        """GeoParquet of the zone's parcels."""
        return self.root / "parcels" / f"{zone_id}.parquet"

    def label_report(self, zone_id: str) -> Location:
        """JSON: hectares and parcels per code, mapped, excluded and unknown."""
        return self.root / "parcels" / f"{zone_id}.report.json"

    @property
    def coverage(self) -> Location:
        """JSON: what became of the declared parcels, in all, by region and by zone."""
        return self.root / "parcels" / "coverage.json"

    @property
    def parcel_extract(self) -> Location:
        """GeoPackage of the parcels near the zones, while `labels` reads a register without spatial index."""
        return self.root / "parcels" / ".extract.gpkg"

    @property
    def dataset(self) -> Location:
        """Folder of the dataset."""
        return self.root / "dataset"

    def pixels(self, zone_id: str) -> Location:
        """Folder of one zone's pixel table."""
        return self.dataset / "pixels" / f"zone_id={zone_id}"

    def tiles(self, zone_id: str) -> Location:
        """Folder of one zone's tile shards."""
        return self.dataset / "tiles" / f"zone_id={zone_id}"

    @property
    def manifest(self) -> Location:
        """The dataset's manifest, JSON."""
        return self.dataset / "manifest.json"

    def zone_entry(self, zone_id: str) -> Location:
        """JSON: what the manifest will say of one zone."""
        return self.dataset / "zones" / f"{zone_id}.json"

    @property
    def folds(self) -> Location:
        """Fold table, CSV `zone_id,region,split,fold,region_fold`; the last is the fold of leave-region-out."""
        return self.dataset / "folds.csv"

    @property
    def pictures(self) -> Location:
        """Folder of the pictures of the dataset."""
        return self.dataset / "pictures"

    def zone_pictures(self, zone_id: str) -> Location:
        """Folder of one zone's films, observation maps and summary (`summary.npz`: profiles and observations)."""
        return self.pictures / "zones" / zone_id

    def unit_progress(self, model: str, unit: str) -> Location:
        """File of a unit that is being fitted: where it goes on after its process was lost."""
        return self.root / "search" / model / "progress" / unit

    def unit(self, model: str, unit: str) -> Location:
        """Folder of one finished (configuration, fold) of a search."""
        return self.root / "search" / model / unit

    def search_result(self, model: str) -> Location:
        """JSON: every configuration's scores and the winner."""
        return self.root / "search" / f"{model}.json"

    def out_of_fold(self, model: str, zone_id: str) -> Location:
        """Parquet: what the winner's folds say of a training zone that they did not see."""
        return self.root / "oof" / model / f"{zone_id}.parquet"

    def model(self, model: str) -> Location:
        """Folder of the refitted winner: weights and card."""
        return self.root / "models" / model

    def evaluation(self, model: str) -> Location:
        """Folder of the test cube, scores and tables."""
        return self.root / "evaluation" / model

    def zone_counts(self, model: str, zone_id: str) -> Location:
        """JSON: labelled pixels of one test zone by true and predicted class, their loss, and the same counted otherwise."""
        return self.root / "evaluation" / f"{model}-zones" / f"{zone_id}.json"

    @property
    def nested(self) -> Location:
        """Folder of the test of all zones: `<fold>-of-<n>`, a workspace, of each outer fold, and `<family>`, their counts together."""
        return self.root / "nested"

    @property
    def ablation(self) -> Location:
        """Folder of the table of changes of a recipe, `table.json`, and workspace that the searches of its rows share."""
        return self.root / "ablation"

    @property
    def early_seasons(self) -> Location:
        """Folder of models that saw a part of the season: `<step>`, a workspace, of each step, `<family>.json` and `<family>.png`."""
        return self.root / "season"

    def leakage(self, model: str) -> Location:
        """JSON: scores of a winner's recipe by how samples are dealt to folds."""
        return self.root / "leakage" / f"{model}.json"

    def map(self, model: str, zone_id: str) -> Location:
        """COG [4, H, W]: class, confidence, second class, n_clear."""
        return self.root / "maps" / model / f"{zone_id}.tif"

    def map_preview(self, model: str, zone_id: str) -> Location:
        """PNG of a map beside the labels."""
        return self.root / "maps" / model / f"{zone_id}.png"

    def mapped_parcels(self, model: str, zone_id: str) -> Location:
        """GeoParquet: the zone's parcels with the predicted crop."""
        return self.root / "maps" / model / f"{zone_id}.parcels.parquet"

    def run(self, key: str) -> Location:
        """Folder of what is noted of a run of the tracker: `search/<model>/<fingerprint>`, `evaluate/<model>`."""
        return self.root / "runs" / key if key else self.root / "runs"

    def run_files(self, key: str) -> Location:
        """Files that a finished search leaves with its run."""
        return self.run(key) / "files"

    @property
    def report(self) -> Location:
        """Folder of the HTML report."""
        return self.root / "report"

    @property
    def mlflow_database(self) -> Path:
        """SQLite store of the tracking runs; only a workspace on a disk has one."""
        return self._folder / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Folder of the tracking artifacts; only a workspace on a disk has one."""
        return self._folder / "mlartifacts"

    @property
    def _folder(self) -> Path:
        if not isinstance(self.root, Path):
            raise ConfigError(f"workspace '{self.root}' cannot hold a database; set tracking_uri to an MLflow server")
        return self.root

    def config(self, stage: str) -> Location:
        """The resolved config with which a stage last ran."""
        return self.root / "configs" / f"{stage}.yaml"

    def log(self, stage: str) -> Location:
        """Log file of a stage."""
        return self.root / "logs" / f"{stage}.log"

    @property
    def plan(self) -> Location:
        """JSON: what the job was planned to take."""
        return self.root / "plan.json"

    def timing(self, stage: str) -> Location:
        """JSON: seconds of each run of a stage, and what it made."""
        return self.root / "timings" / f"{stage}.json"

    def stamp(self, stage: str, unit: str) -> Location:
        """JSON: what an artefact was made from; its code is the same for many, and stands once, in `code_account`."""
        return self.root / "stamps" / stage / f"{unit}.json"

    def code_account(self, digest: str) -> Location:
        """JSON: symbols and their digests, of a `Key`."""
        return self.root / "stamps" / "@code" / f"{digest[:16]}.json"

    def is_current(self, stage: str, unit: str, inputs: Key, outputs: Iterable[Location]) -> bool:
        """Whether all outputs stand and were made from exactly these inputs."""
        return not self.why_stale(stage, unit, inputs, outputs)

    def why_stale(
        self, stage: str, unit: str, inputs: Key, outputs: Iterable[Location], earlier: str | None = None
    ) -> list[str]:
        """All reasons, in words, why a unit's artefact is not what a stage would make of these inputs now; empty where it is.

        `earlier` is the fingerprint by which earlier versions knew the same inputs, where it is worth a comparison.
        """
        stamp = _read_record(self.stamp(stage, unit))
        if stamp is None:
            return [_UNFINISHED if any(path.exists() for path in outputs) else MISSING]
        why = []
        if stamp.get("inputs") not in {inputs.digest, earlier or inputs.digest}:
            if "key" not in stamp:
                return [EARLIER]
            code = _read_record(self.code_account(stamp["key"]["code"]))
            why = list(differences({**stamp["key"], "code": code or {}}, inputs.parts))
        return why or [f"'{path}' is missing" for path in outputs if not path.exists()]

    def mark_current(self, stage: str, unit: str, inputs: Key) -> None:
        """Record what a finished artefact was made from."""
        code = inputs.parts["code"]
        digest = fingerprint(code)
        if not self.code_account(digest).exists():
            write_json(self.code_account(digest), code)
        write_json(self.stamp(stage, unit), {"inputs": inputs.digest, "key": {**inputs.parts, "code": digest}})

    def mark_stale(self, stage: str, unit: str) -> None:
        """Forget what an artefact was made from, before it is made again: a failure may replace a part of it."""
        remove(self.stamp(stage, unit))


def _read_record(path: Location) -> dict[str, Any] | None:
    """None: it is not there, or damaged."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return record


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.strerror:
        return f"{errno.errorcode.get(error.errno, 'unknown')}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def require(path: LocationT, made_by: str) -> LocationT:
    """The path of an artefact that an earlier stage wrote.

    Raises:
        MissingArtefactError: it does not exist.
    """
    if not path.exists():
        raise MissingArtefactError(f"'{path}' does not exist; run `cropray {made_by} CONFIG.yaml` first")
    return path


def require_place(path: Location, dataset: Any, grid: Grid | None, made_by: str) -> None:
    """Raises: InputError: an open raster has other pixels than a zone that has moved since, or was another; None: any zone."""
    epsg = dataset.crs.to_epsg() if dataset.crs else 0
    if grid is not None and not grid.is_of(epsg, dataset.transform, dataset.shape):
        raise InputError(
            f"'{path}' has {dataset.shape} pixels within {tuple(dataset.bounds)} of EPSG:{epsg}, its zone {grid.shape} "
            f"within {grid.bounds} of EPSG:{grid.epsg}: the zone table has changed; run `cropray {made_by} CONFIG.yaml` "
            f"again, or put the zone back"
        )
