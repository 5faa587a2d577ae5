"""Out-of-fold probabilities: what a model says of a zone that it was not trained on, for some of its labelled pixels.

Stacks, calibration, thresholds and decision rules learn from these and never from a test zone. They are of the very
prediction that scores and maps show.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cropray.core.errors import LeakageError, SchemaError
from cropray.datasets.manifest import ZoneEntry
from cropray.datasets.storage import read_pixels
from cropray.evaluation.zone_counts import CountJob, require_composite
from cropray.imagery.composites import read_composite
from cropray.io.storage import Location, whole_file
from cropray.maps.predict import predicted_parts
from cropray.maps.zone import zone_window
from cropray.training.crop_model import CropModel, Probabilities
from cropray.training.pixel_blocks import class_indices, samples

CLASSES: Final = b"classes"  # of the file's metadata: names of the classes in the order of `probabilities`, JSON
Rows = npt.NDArray[np.int64]


def write_out_of_fold(
    path: Location, model: CropModel, zone: ZoneEntry, job: CountJob, picked: tuple[int, int], *, is_points: bool
) -> None:
    """Write what a model says of some labelled pixels of a zone.

    Args:
        path: Parquet file with `zone_id`, `index` int32 (row of the zone's pixel table), `label` uint8 (index of the true
            class) and `probabilities` (float32, one per class, in the dataset's order).
        model: it was not trained on the zone.
        zone: as the manifest has it. Its sums prove its composite, but where labels were trimmed: their pixels are
            no part of the sums, and the labelled pixels alone are compared.
        job: what is the same for all zones.
        picked: most pixels of each class, seed of their draw. The same pixels are drawn for every model.
        is_points: whether there is no composite.

    Raises:
        SchemaError: the composite has changed since the dataset was built, or an artefact is damaged.
    """
    zone_id = zone.zone_id
    table = read_pixels(job.workspace, zone_id, model.cube)
    true = class_indices(table, job.lookup)
    rows = draw_rows(true, zone_id, *picked)
    if is_points:
        probabilities = model.predict_samples(samples(table.take(pa.array(rows)), model.cube.columns))
    else:
        place = np.stack([table[name].to_numpy()[rows] for name in ("row", "col")])
        composite = read_composite(job.workspace.composite(zone_id), cube=model.cube)
        require_composite(table, zone_id, composite, None if zone.n_trimmed else zone.sums, job, model.cube)
        probabilities = _of_pixels(model, composite, job, place)
    columns = {
        "zone_id": pa.array([zone_id] * len(rows), pa.string()),
        "index": pa.array(rows, pa.int32()),
        "label": pa.array(true[rows], pa.uint8()),
    }
    names = json.dumps([crop.name for crop in model.classes]).encode()
    _write(path, pa.table(columns).replace_schema_metadata({CLASSES: names}), probabilities)


def combine_out_of_fold(
    path: Location, files: Sequence[Location], combine: Callable[[Sequence[Probabilities]], Probabilities]
) -> None:
    """Write what a model that is built from others says of a zone, from what `write_out_of_fold` wrote of each of them.

    Args:
        path: of the same form.
        files: of the members, in order.
        combine: probabilities of each member → the model's.

    Raises:
        SchemaError: they are not of the same pixels and classes.
    """
    tables = [_read([file]) for file in files]
    first, *others = [table.select(["zone_id", "index", "label"]) for table in tables]
    for file, other in zip(files[1:], others, strict=True):
        if not other.equals(first, check_metadata=True):
            raise SchemaError(
                f"'{file}' and '{files[0]}' are of other pixels, or other classes: remove both and run "
                f"`cropray search CONFIG.yaml` again, which fits nothing twice"
            )
    _write(path, first, combine([_probabilities(table) for table in tables]))


def _write(path: Location, table: pa.Table, probabilities: Probabilities) -> None:
    flat = pa.array(probabilities.reshape(-1), pa.float32())
    lists = pa.FixedSizeListArray.from_arrays(flat, probabilities.shape[1])
    with whole_file(path) as temporary:
        pq.write_table(table.append_column("probabilities", lists), temporary, compression="zstd")


def draw_rows(true: npt.NDArray[np.uint8], zone_id: str, n_per_class: int, seed: int) -> Rows:
    """Rows of a zone's pixel table: all of a class, or so many drawn without replacement; in rising order.

    Args:
        true: [N] class index of each row.
        zone_id: what is drawn depends on it and on the seed.
        n_per_class: most rows of each class.
        seed: of the draw.
    """
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(zone_id.encode()).digest()[:8])])
    drawn = []
    for index in np.unique(true):
        rows = np.flatnonzero(true == index)
        drawn.append(rows if len(rows) <= n_per_class else rng.choice(rows, n_per_class, replace=False))
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)


def read_out_of_fold(paths: Sequence[Location]) -> tuple[npt.NDArray[np.uint8], Probabilities, npt.NDArray[np.str_]]:
    """What `write_out_of_fold` wrote of some zones, one at least, all of one model.

    Returns:
        ([N] uint8 true class indices; [N, K] float32 probabilities in the dataset's order of classes; [N] zone of each),
        zone after zone in the order of `paths`, each in the order of its pixel table.
    """
    table = _read(paths)
    zones = table["zone_id"].to_numpy(zero_copy_only=False).astype(str)
    return table["label"].to_numpy(), _probabilities(table), zones


def read_out_of_fold_of_zone(path: Location) -> tuple[npt.NDArray[np.uint8], Probabilities, npt.NDArray[np.str_]]:
    """What `write_out_of_fold` wrote of the zone that a file is called after.

    Raises:
        LeakageError: it is of another zone, which may be a test zone's.
    """
    found = read_out_of_fold([path])
    if strange := sorted(set(found[2].tolist()) - {path.stem}):
        raise LeakageError(
            f"'{path}' holds predictions of zone {', '.join(strange)}: who learns from it could have seen the test. Remove "
            f"'{path.parent}' and run `cropray search CONFIG.yaml`, which fits nothing twice"
        )
    return found


def read_drawn(path: Location) -> Rows:
    """[N] rows of its pixel table that a zone's file is of."""
    rows: Rows = _read([path])["index"].to_numpy().astype(np.int64)
    return rows


def _read(paths: Sequence[Location]) -> pa.Table:
    tables = []
    for path in paths:
        with path.open("rb") as stream:
            tables.append(pq.read_table(stream))
    return pa.concat_tables(tables).combine_chunks()


def _probabilities(table: pa.Table) -> Probabilities:
    lists = table["probabilities"].combine_chunks()
    found: Probabilities = lists.flatten().to_numpy().reshape(len(lists), lists.type.list_size)
    return found


def _of_pixels(
    model: CropModel, composite: npt.NDArray[np.uint16], job: CountJob, place: npt.NDArray[np.int32]
) -> Probabilities:
    """[N, K] of the pixels at `place`, [2, N] rows and columns."""
    shape = composite.shape[-2:]
    number = np.full(shape, -1, np.int64)
    number[place[0], place[1]] = np.arange(place.shape[1])
    found = np.empty((place.shape[1], len(model.classes)), np.float32)
    for part, probabilities in predicted_parts(
        model, composite, zone_window(job.settings, (shape[0], shape[1]), model, job.task_bytes)
    ):
        here = number[part.slices]
        found[here[here >= 0]] = probabilities[:, here >= 0].T
    return found
