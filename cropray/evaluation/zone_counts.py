"""One test zone counted by true and predicted class, from the very prediction that its map shows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cropray.core.cube import CubeSpec
from cropray.core.errors import SchemaError
from cropray.core.metrics import Counts, confusion, log_loss_sum
from cropray.core.sensors import NODATA
from cropray.core.until_step import shown_to, until_of
from cropray.datasets.build import band_sums
from cropray.datasets.manifest import BandSums
from cropray.datasets.storage import read_pixels
from cropray.evaluation.tally import Tally
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.io.workspace import Workspace
from cropray.maps.parcels import parcel_areas
from cropray.maps.predict import never_seen, predicted_parts
from cropray.maps.settings import MapSettings
from cropray.maps.zone import zone_window
from cropray.training.crop_model import CropModel
from cropray.training.decision import Decision, decision_of
from cropray.training.pixel_blocks import class_indices, samples

Bytes = npt.NDArray[np.uint8]
_SQUARES_TOLERANCE = 1e-9  # sums of squares beyond 2⁵³ depend on the order in which a processor adds them


@dataclass(frozen=True, slots=True)
class CountJob:
    """What is the same for all zones; travels to the workers with each zone, so it is small."""

    workspace: Workspace
    lookup: Bytes
    """[256] stored class id → class index, 255 = ignore."""
    settings: MapSettings
    task_bytes: float = math.inf
    """Memory that a task may take; inf: enough."""


@dataclass(frozen=True, slots=True)
class ZoneCounts:
    """What one zone adds to the cube."""

    matrix: Counts
    """[true, predicted] int64 over class indices."""
    loss_sum: float
    """Negative log-likelihood summed over the zone's labelled pixels, nats."""
    n_blank: int = 0
    """Labelled pixels that no step has data of, of those that the model sees: they count by the model's guess, and the map leaves them blank."""
    window: tuple[int, int] | None = None
    """Most rows and columns that the model read at once; None for points."""
    otherwise: Mapping[str, Counts] = field(default_factory=dict)
    """The same prediction counted by parcel, parcel size and clear steps, see `tally.Tally.counts`."""


def count_points(model: CropModel, zone_id: str, job: CountJob) -> ZoneCounts:
    """Count the labelled points of a zone, which has no images.

    Raises:
        SchemaError: the table is damaged, or not of this dataset.
    """
    table, cube = read_pixels(job.workspace, zone_id, model.cube), model.cube
    x = samples(table, cube.columns)
    true, probabilities = class_indices(table, job.lookup), model.predict_samples(x).T
    matrix, loss_sum = _count(probabilities, true, decision_of(model))
    bands = shown_to(model, x)[:, : len(cube.band_columns)].reshape(len(x), cube.n_bands, cube.n_steps)
    n_clear = (bands != NODATA).any(1).sum(1)
    tally = Tally(table, true, model, None, n_clear)
    tally.add(np.arange(len(true)), probabilities)
    return ZoneCounts(matrix, loss_sum, int((n_clear == 0).sum()), otherwise=tally.counts())


def count_zone_pixels(model: CropModel, zone_id: str, sums: BandSums, job: CountJob) -> ZoneCounts:
    """Count the labelled pixels of a zone as `predict_zone` maps them: same windows, same decision.

    Labels are the dataset's, as trimmed; the images are the zone's composite, proved to be the dataset's.

    Args:
        model: with the dataset's classes.
        zone_id: the zone.
        sums: of its composite, as the manifest has them.
        job: what is the same for all zones.

    Raises:
        MissingArtefactError: the zone has no composite, or no pixel table.
        SchemaError: the composite has changed since the dataset was built, or an artefact is damaged.
    """
    composite = read_composite(job.workspace.composite(zone_id), cube=model.cube)
    table = read_pixels(job.workspace, zone_id, model.cube)
    require_composite(table, zone_id, composite, sums, job, model.cube)
    height, width = composite.shape[-2:]
    true = class_indices(table, job.lookup)
    number = np.full((height, width), -1, np.int64)  # of the row in the table
    number[table["row"].to_numpy(), table["col"].to_numpy()] = np.arange(len(true))
    window = zone_window(job.settings, (height, width), model, job.task_bytes)
    areas = parcel_areas(job.workspace.parcels(zone_id))
    counted, tally = [], Tally(table, true, model, areas, _clear_steps(table, zone_id, model, job))
    for part, probabilities in predicted_parts(model, composite, window):
        is_labelled = number[part.slices] >= 0
        rows, here = number[part.slices][is_labelled], probabilities[:, is_labelled]
        counted.append(_count(here, true[rows], decision_of(model)))
        tally.add(rows, here)
    matrix: Counts = np.sum([matrix for matrix, _ in counted], axis=0)
    n_blank = int((never_seen(composite[: until_of(model)]) & (number >= 0)).sum())
    return ZoneCounts(matrix, math.fsum(loss for _, loss in counted), n_blank, window, tally.counts())


def _clear_steps(table: pa.Table, zone_id: str, model: CropModel, job: CountJob) -> npt.NDArray[np.integer]:
    """[N] steps with a clear observation of each row, of those that the model sees.

    Raises:
        SchemaError: the counts of observations are not those that the table was made from.
    """
    n_clear: npt.NDArray[np.integer] = table["n_clear"].to_numpy()
    if (until := until_of(model)) is None:
        return n_clear
    path = job.workspace.n_obs(zone_id)
    is_clear = read_n_obs(path, cube=model.cube)[:, table["row"].to_numpy(), table["col"].to_numpy()] > 0
    if (is_clear.sum(0) != n_clear).any():
        raise SchemaError(
            f"'{path}' is not what zone '{zone_id}' of the dataset was built from; run `cropray dataset CONFIG.yaml` and what "
            f"follows it again, or put the file back"
        )
    seen: npt.NDArray[np.integer] = is_clear[:until].sum(0)
    return seen


def require_composite(
    table: pa.Table,
    zone_id: str,
    composite: npt.NDArray[np.uint16],
    sums: BandSums | None,
    job: CountJob,
    cube: CubeSpec,
) -> None:
    """See that a composite is the one that a zone's pixel table was read from; without sums its labelled pixels alone are compared.

    Raises:
        SchemaError: it is another.
    """
    row, col = table["row"].to_numpy(), table["col"].to_numpy()
    shape = composite.shape[-2:]
    if len(row) and not (0 <= row.min() <= row.max() < shape[0] and 0 <= col.min() <= col.max() < shape[1]):
        raise _another_composite(zone_id, job, f"it has {shape[0]} × {shape[1]} pixels, labels lie beyond them")
    stored = samples(table, cube.columns).reshape(len(row), cube.n_bands, cube.n_steps)  # band by band
    differ = (stored != composite[:, :, row, col].transpose(2, 1, 0)).any((1, 2))
    if differ.any():
        raise _another_composite(zone_id, job, f"{differ.sum():,} of {len(row):,} labelled pixels have other values")
    if sums is not None and not _are_equal(band_sums(composite), sums):
        raise _another_composite(zone_id, job, "its sums over all pixels are others")


def _are_equal(here: BandSums, there: BandSums) -> bool:
    return (here.count, here.total) == (there.count, there.total) and bool(
        np.allclose(here.squares, there.squares, rtol=_SQUARES_TOLERANCE, atol=0)
    )


def _another_composite(zone_id: str, job: CountJob, why: str) -> SchemaError:
    return SchemaError(
        f"'{job.workspace.composite(zone_id)}' is not the composite that zone '{zone_id}' of the dataset was built from "
        f"({why}): scores would be of other images than the model's test. Run `cropray dataset CONFIG.yaml` and what "
        f"follows it again, or put the composite back"
    )


def _count(probabilities: npt.NDArray[np.float32], true: Bytes, decision: Decision) -> tuple[Counts, float]:
    """[K, N] probabilities and [N] class indices → (counts, summed loss) from the same numbers."""
    matrix = confusion(true, decision.decide(probabilities), len(probabilities))
    return matrix, log_loss_sum(probabilities.T, true)
