"""Memory of a fit of boosted trees, known before it begins: `plan`, `search` and the fit itself ask here.

Measured with XGBoost 3.2 on rows of the study's features with missing values, as the growth of the process's peak between
two numbers of rows; rows without any take less, as their bins fit into a byte. Training and validation rows take the same.
"""

import math
import shutil
import tempfile
from typing import TYPE_CHECKING, Final

from cropray.cluster.resources import GB
from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import ConfigError

if TYPE_CHECKING:
    from cropray.training.xgboost.settings import XgboostSettings

_MEASURED_FEATURES: Final = STUDY_CUBE.n_features  # bytes of bins and frames grow with them
PROCESS_BYTES: Final = 0.6e9  # libraries, tables of bins, one batch of rows, histograms
ROW_BYTES: Final = 24  # label, place in the tree
ROW_CLASS_BYTES: Final = 24  # gradient pair and predictions: they cannot leave memory
OBJECTIVE_BYTES: Final = (
    8  # more where gradients are computed here: they and their Hessians, before XGBoost takes them over
)
BIN_BYTES: Final = 200  # of a row; where values are missing XGBoost keeps 4 bytes for each
WIDE_BIN_BYTES: Final = 60  # more for more than 256 bins
FRAME_BYTES: Final = 1_800  # more in an actor of xgboost-ray: its pandas frames and the matrix made of them
DISK_BYTES: Final = 260  # of a row whose bins are on disk
# On a GPU, by XGBoost's way of keeping rows there, not measured (`python -m tests.gpu` measures it): gradient pair and
# prediction of each class; CUDA's own context and the histograms.
GPU_ROW_CLASS_BYTES: Final = 12
GPU_PROCESS_BYTES: Final = 1e9


def resident_bytes(n_classes: int, hessian: str = "softmax") -> float:
    """Bytes of a row that stay in memory wherever its bins are."""
    own = 0 if hessian == "softmax" else OBJECTIVE_BYTES
    return ROW_BYTES + (ROW_CLASS_BYTES + own) * n_classes


def row_bytes(settings: "XgboostSettings", n_classes: int, n_features: int = _MEASURED_FEATURES) -> float:
    """Bytes of a row with everything in memory."""
    bins = BIN_BYTES + (WIDE_BIN_BYTES if settings.max_bin > 256 else 0)
    features = bins + (FRAME_BYTES if settings.engine == "xgboost_ray" else 0)
    return resident_bytes(n_classes, settings.hessian) + features * n_features / _MEASURED_FEATURES


def worker_share(settings: "XgboostSettings", n_rows: float) -> float:
    """Rows of the worker that has most."""
    return math.ceil(n_rows / max(settings.num_workers, 1))


def bins_on_disk(
    settings: "XgboostSettings",
    n_rows: float,
    n_classes: int,
    memory_bytes: float | None,
    n_features: int = _MEASURED_FEATURES,
) -> bool:
    """Whether the bins of a fit have to be kept on disk to stay within the memory of a worker.

    Args:
        settings: engine and number of workers.
        n_rows: training and validation rows of the fit, over all workers.
        n_classes: classes of the dataset.
        memory_bytes: what each worker may take; None: as much as it needs.
        n_features: of a row.

    Raises:
        ConfigError: the rest does not fit either; it says how many workers would do.
    """
    if memory_bytes is None:
        return False
    share, room = worker_share(settings, n_rows), memory_bytes - PROCESS_BYTES
    if share * row_bytes(settings, n_classes, n_features) <= room:
        return False
    can_leave = bins_can_leave(settings)
    least = resident_bytes(n_classes, settings.hessian) if can_leave else row_bytes(settings, n_classes, n_features)
    if share * least <= room:
        return True
    need = (PROCESS_BYTES + share * least) / GB
    n_workers = math.ceil(n_rows * least / room) if room > 0 else 0
    more = f"set xgboost.num_workers to {n_workers} with as much memory each, " if n_workers else ""
    where = ", with the bins on disk," if can_leave else ""
    raise ConfigError(
        f"trees on {n_rows:,.0f} rows of {n_classes} classes take {need:.3g} GB in each of "
        f"{max(settings.num_workers, 1)} worker(s){where} and each may take {memory_bytes / GB:.3g} GB: {more}"
        f"raise xgboost.memory_gb (where it is not set: lower search.max_concurrent) to have {need:.3g} GB, or take "
        f"fewer zones"
    )


def fit_bytes(
    settings: "XgboostSettings", n_rows: float, n_classes: int, memory_bytes: float | None, n_features: int
) -> float:
    """Memory of a worker's rows; with the bins on disk where they have to be (see `bins_on_disk`)."""
    share = worker_share(settings, n_rows)
    whole = share * row_bytes(settings, n_classes, n_features)
    fits = memory_bytes is None or PROCESS_BYTES + whole <= memory_bytes
    return whole if fits or not bins_can_leave(settings) else share * resident_bytes(n_classes, settings.hessian)


def bins_can_leave(settings: "XgboostSettings") -> bool:
    """Whether there is a way to keep bins on disk."""
    return settings.engine == "ray_train" and settings.device == "cpu"


def gpu_row_bytes(settings: "XgboostSettings", n_classes: int, n_features: int = _MEASURED_FEATURES) -> float:
    """Bytes of a row on a GPU: bins are packed, each takes as many bits as number all bins of all features."""
    bits = math.ceil(math.log2(n_features * settings.max_bin + 1))
    return n_features * bits / 8 + GPU_ROW_CLASS_BYTES * n_classes


def require_gpu_memory(
    settings: "XgboostSettings",
    n_rows: float,
    n_classes: int,
    gpu_bytes: float | None = None,
    n_features: int = _MEASURED_FEATURES,
) -> None:
    """See that the rows of a fit fit into the memory of its workers' GPUs; without GPUs there is nothing to see.

    Args:
        settings: device and number of workers.
        n_rows: training and validation rows of the fit, over all workers.
        n_classes: classes of the dataset.
        gpu_bytes: free on each GPU; None: `gpu_memory_gb`, and where that is not set, no limit.
        n_features: of a row.

    Raises:
        ConfigError: they do not fit; it says how many workers would do.
    """
    if gpu_bytes is None and settings.gpu_memory_gb is not None:
        gpu_bytes = settings.gpu_memory_gb * GB
    if settings.device == "cpu" or gpu_bytes is None:
        return
    row = gpu_row_bytes(settings, n_classes, n_features)
    need, room = GPU_PROCESS_BYTES + worker_share(settings, n_rows) * row, gpu_bytes - GPU_PROCESS_BYTES
    if need <= gpu_bytes:
        return
    more = f"set xgboost.num_workers to {math.ceil(n_rows * row / room)}, each with a GPU, " if room > 0 else ""
    raise ConfigError(
        f"trees on {n_rows:,.0f} rows of {n_classes} classes take {need / GB:.3g} GB of GPU memory in each of "
        f"{max(settings.num_workers, 1)} worker(s), of {gpu_bytes / GB:.3g} GB (xgboost.gpu_memory_gb, or what is free "
        f"there): {more}take GPUs with more memory, lower xgboost.max_bin, take fewer zones, or set xgboost.device to cpu"
    )


def require_scratch(n_rows: float, n_features: int = _MEASURED_FEATURES) -> None:
    """See that the bins of a worker's rows fit on its disk.

    Raises:
        ConfigError: they do not.
    """
    folder = tempfile.gettempdir()
    need, free = n_rows * DISK_BYTES * n_features / _MEASURED_FEATURES, shutil.disk_usage(folder).free
    if need > free:
        raise ConfigError(
            f"the bins of {n_rows:,.0f} rows take {need / GB:.3g} GB of disk, '{folder}' has {free / GB:.3g} GB free: "
            f"set TMPDIR to a folder on a larger disk, or raise xgboost.memory_gb or xgboost.num_workers"
        )
