"""How fast a device is: the rates that `cropray plan` assumes, and the GPU memory that they took."""

import threading
import time

import numpy as np
import torch

from cropray.maps.predict import predict_zone
from cropray.nets.crop_net import CropNet
from cropray.nets.operations import tile_operations
from cropray.training.deep.device import reproducible, tf32
from cropray.training.deep.loop import FitPlan, train_epoch
from tests.gpu.checks import CPU, Predictor, grow, timed
from tests.gpu.drawn import network, pixel_rows, tile_set

TRAIN_PASSES = 3  # forward, and backward twice as much: as the plan counts


def training(sizes, device):
    """Tiles a second of the study's network and batch."""
    n, px = sizes.rated_batch * sizes.rated_steps, sizes.tile_px
    tiles = tile_set(min(n, 256), px, 0)
    tiles = type(tiles)(list(tiles.blocks) * -(-n // len(tiles)), tiles.lookup, tiles.stats)
    operations = TRAIN_PASSES * tile_operations(CropNet, sizes.rated, px)
    found = {"operations_per_tile": operations, "batch_size": sizes.rated_batch, "tile_px": px}
    for name, is_tf32, how in (("float32", False, CPU), ("tf32", True, CPU), ("tf32_reproducible", True, device)):
        _reset_peak(device)
        model = network(sizes.rated, device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        few = FitPlan(n_classes=sizes.rated.n_classes, learning_rate=1e-3, seed=0, batch_size=sizes.rated_batch)
        weights = torch.ones(sizes.rated.n_classes, device=device)

        def epoch(tiles, model=model, optimizer=optimizer, few=few, weights=weights):
            train_epoch(model, optimizer, tiles, weights, few, 1)

        with tf32(allowed=is_tf32), reproducible(how):
            epoch(tile_set(2 * sizes.rated_batch, px, 1))  # chooses kernels, fills caches
            seconds = timed(lambda epoch=epoch: epoch(tiles), device)
        found[name] = {
            "tiles_per_s": len(tiles) / seconds,
            "tflops": len(tiles) * operations / seconds / 1e12,
            "peak_gpu_bytes": _peak(device),
        }
    return {"ok": True, "measured": found}


def mapping(sizes, device):
    """Pixels a second of a zone of two windows' width, margins not counted."""
    torch.manual_seed(0)
    predictor = Predictor(CropNet(sizes.rated).to(device))
    side = 2 * (sizes.rated_window_px - predictor.margin_px)  # an outer edge has no margin
    composite = np.random.default_rng(0).integers(1, 4000, (12, 4, side, side), np.uint16)
    n_obs = np.ones((12, side, side), np.uint8)

    def whole():
        predict_zone(predictor, composite, n_obs, (sizes.rated_window_px, sizes.rated_window_px))

    _reset_peak(device)
    whole()
    seconds = timed(whole, device)
    measured = {"pixels_per_s": side * side / seconds, "zone_px": side, "window_px": sizes.rated_window_px}
    return {"ok": True, "measured": {**measured, "peak_gpu_bytes": _peak(device)}}


def trees(sizes, device):
    """Rows × rounds a second, matrices included and apart, and the GPU memory of a row."""
    n_classes, few, more = 20, 2, 12
    train, val = pixel_rows(sizes.rated_rows, n_classes, 0), pixel_rows(sizes.rated_rows // 4, n_classes, 1)
    grow(train.slice(0, 1000), val.slice(0, 1000), device.type, n_classes, 1)
    few_s = timed(lambda: grow(train, val, device.type, n_classes, few), device)
    with _Watch(device) as watch:
        more_s = timed(lambda: grow(train, val, device.type, n_classes, more), device)
    round_s = (more_s - few_s) / (more - few)
    rows = train.num_rows + val.num_rows
    measured = {
        "rows_rounds_per_s": train.num_rows / round_s if round_s > 0 else None,
        "setup_rows_per_s": rows / max(few_s - few * round_s, 1e-9),
        "n_classes": n_classes,
        "peak_gpu_bytes": watch.most_bytes,
        "gpu_bytes_per_row": watch.most_bytes / rows,
    }
    return {"ok": True, "measured": measured}


class _Watch:
    """Most GPU memory that other libraries than torch took meanwhile."""

    def __init__(self, device):
        self._is_on_gpu = device.type == "cuda"
        self._done = threading.Event()
        self.most_bytes = 0

    def __enter__(self):
        if self._is_on_gpu:
            torch.cuda.empty_cache()
            self._before = torch.cuda.mem_get_info()[0]
            self._thread = threading.Thread(target=self._look)
            self._thread.start()
        return self

    def _look(self):
        while not self._done.is_set():
            self.most_bytes = max(self.most_bytes, self._before - torch.cuda.mem_get_info()[0])
            time.sleep(0.02)

    def __exit__(self, *_):
        self._done.set()
        if self._is_on_gpu:
            self._thread.join()


def _reset_peak(device):
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device):
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None
