"""The checks: what a GPU computes beside what the CPU does. Each returns what it measured and what was allowed.

Tolerances: float32 has 24 bits of mantissa and TF32 11, and a network adds some thousand products, one layer after the
other. A gradient or a ReLU near zero may change its sign, and Adam makes a whole step of it: so gradients are compared
once, and fits by their losses.
"""

import gc
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import multiprocessing

from cropray.maps.predict import predict_zone
from cropray.nets.context import Context
from cropray.nets.norm import GlobalBatchNorm
from cropray.training.deep.device import predict_tiles, reproducible, tf32
from cropray.training.deep.loop import FitResult, FitState, evaluate, fit
from cropray.training.deep.losses import CrossEntropy
from cropray.training.xgboost.parameters import TREES
from tests.gpu.drawn import LOOKUP, N_CLASSES, STATS, Crop, drawn, drawn_labels, network, pixel_rows, plan, tile_set

CPU = torch.device("cpu")
GRADIENT = {False: 5e-3, True: 0.1}  # TF32 or not → ‖difference‖ ÷ ‖gradient‖
FIRST_LOSS = {False: 5e-3, True: 3e-2}  # of the first epoch, nats
LAST_LOSS = 0.1  # of the last epoch's validation, nats: fits that have gone their own ways
NORM = 1e-4  # of values of about 1
PROBABILITY = 1e-3
EQUAL_PIXELS = 0.999
TREE_LOSS = 5e-3  # nats
TREE_PROBABILITY = 1e-5


def result(measured, **limits):
    """A check's outcome; `limits` name numbers of `measured` and the most, or as `least_…` the least, that they may be."""
    wrong = [
        name
        for name, limit in limits.items()
        if not (
            measured[name.removeprefix("least_")] >= limit if name.startswith("least_") else measured[name] <= limit
        )
    ]
    return {"ok": not wrong, **({"out_of_tolerance": wrong} if wrong else {}), "measured": measured, "allowed": limits}


def loop(sizes, device):
    """The same plan on CPU and device: one gradient, then a fit."""
    train, val = tile_set(sizes.n_tiles, sizes.tile_px, 0), tile_set(max(sizes.n_tiles // 3, 2), sizes.tile_px, 1)
    expected = _gradient(sizes, CPU, train)
    history = fit(network(sizes.config, CPU), train, val, plan(sizes)).history
    found = {}
    for allowed in (False, True):
        with tf32(allowed=allowed), reproducible(device):
            gradient = _gradient(sizes, device, train)
            mine = fit(network(sizes.config, device), train, val, plan(sizes)).history
        measured = {
            "gradient": float((gradient - expected).norm() / expected.norm()),
            "first_loss": abs(mine[0]["train_loss"] - history[0]["train_loss"]),
            "last_loss": abs(mine[-1]["val_loss"] - history[-1]["val_loss"]),
            "losses": [record["train_loss"] for record in mine],
            "losses_on_cpu": [record["train_loss"] for record in history],
        }
        limits = {"gradient": GRADIENT[allowed], "first_loss": FIRST_LOSS[allowed], "last_loss": LAST_LOSS}
        found["tf32" if allowed else "float32"] = result(measured, **limits)
    return {"ok": all(part["ok"] for part in found.values()), **found}


def _gradient(sizes, device, tiles):
    model = network(sizes.config, device).train()
    batch = tiles.batch(np.arange(min(len(tiles), 16)), device)
    seeds = torch.arange(len(batch.x), device=device)
    (CrossEntropy()(model(batch.x, Context(batch.numbers, seeds)), batch.labels) / batch.labelled().sum()).backward()
    return torch.cat([parameter.grad.flatten().cpu() for parameter in model.parameters()])


class Kept:
    """Progress in memory, by way of numpy as the progress file takes it."""

    def __init__(self):
        self.state = None

    def load(self):
        """What was kept."""
        return self.state

    def save(self, state):
        """Keep a copy that shares nothing with the running fit."""
        best = FitResult(_copied(state.best.weights), (), state.best.best_epoch, state.best.validation)
        self.state = FitState(_copied(state.weights), _copied(state.optimizer), state.history, best)


def _copied(tensors):
    return {name: torch.from_numpy(value.detach().cpu().contiguous().numpy().copy()) for name, value in tensors.items()}


def resume(sizes, device):
    """A fit that was interrupted and goes on, beside one that ran through, and one that ran through again."""
    found = {name: _resumed(sizes, device, how) for name, how in (("reproducible", device), ("torch_defaults", CPU))}
    # Without the deterministic kernels nothing is promised: that part is told, not judged.
    measured = {"bits_that_differ": found["reproducible"]["resumed"], **found}
    return result(measured, bits_that_differ=0)


def _resumed(sizes, device, how):
    train, val = tile_set(sizes.n_tiles, sizes.tile_px, 0), tile_set(4, sizes.tile_px, 1)

    def run(epochs, progress=None):
        fitted = fit(network(sizes.config, device), train, val, plan(sizes, epochs=epochs), None, progress)
        return torch.cat([w.double().flatten() for w in fitted.weights.values()]), [
            r["val_loss"] for r in fitted.history
        ]

    with reproducible(how):
        whole, again, kept = run(sizes.epochs), run(sizes.epochs), Kept()
        run(sizes.epochs // 2, kept)
        resumed = run(sizes.epochs, kept)
    return {
        "resumed": int((whole[0] != resumed[0]).sum()) + (whole[1] != resumed[1]),
        "resumed_most": float((whole[0] - resumed[0]).abs().max()),
        "repeated": int((whole[0] != again[0]).sum()) + (whole[1] != again[1]),
        "repeated_most": float((whole[0] - again[0]).abs().max()),
    }


def batch_norm(sizes, device):
    """Moments, gradients and running statistics of one process on the device, beside the CPU's."""
    del sizes
    expected, found = _normalised(CPU, slice(None)), _normalised(device, slice(None))
    return result({name: _apart(found[name], expected[name]) for name in expected}, **dict.fromkeys(expected, NORM))


def _normalised(device, part):
    """Of part of a batch: output, gradient, running statistics."""
    x = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (6, 8, 10, 9)).astype(np.float32))[part].to(device)
    x.requires_grad_()
    norm = GlobalBatchNorm(8).to(device).train()
    y = norm(x)
    (y * torch.linspace(-1, 1, y[0].numel(), device=device).view_as(y[0])).sum().backward()
    found = {"output": y, "gradient": x.grad, "running_mean": norm.running_mean, "running_var": norm.running_var}
    return {name: value.detach().cpu() for name, value in found.items()}


def _apart(one, other):
    return float((one - other).abs().max())


def two_processes(sizes, device):
    """A fit and a batch norm by two processes on one device (gloo: NCCL takes one process a GPU), beside one process's."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, sizes, device.type, torch.get_num_threads())
        multiprocessing.spawn(_one_of_two, arguments, nprocs=2, daemon=True)  # they end with the script
        parts = [torch.load(Path(folder, f"{rank}.pt"), weights_only=False) for rank in range(2)]
    with reproducible(device):
        alone = _short_fit(sizes, device)
    norm, found = _normalised(device, slice(None)), {}
    for name in ("output", "gradient"):
        found[name] = _apart(torch.cat([part["norm"][name] for part in parts]), norm[name])
    for name in ("running_mean", "running_var"):
        found[name] = max(_apart(part["norm"][name], norm[name]) for part in parts)
    found["first_loss"] = abs(parts[0]["losses"][0] - alone[0])
    found["losses_of_the_two"] = abs(parts[0]["losses"][0] - parts[1]["losses"][0])
    limits = dict.fromkeys(("output", "gradient", "running_mean", "running_var"), NORM)
    return result(found, **limits, first_loss=FIRST_LOSS[False], losses_of_the_two=0)


def _short_fit(sizes, device):
    train = tile_set(sizes.n_tiles, sizes.tile_px, 0)
    with tf32(allowed=False):
        return [r["train_loss"] for r in fit(network(sizes.config, device), train, None, plan(sizes, epochs=1)).history]


def _one_of_two(rank, folder, sizes, kind, n_threads):
    torch.set_num_threads(max(n_threads // 2, 1))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    device = torch.device(kind, 0) if kind == "cuda" else CPU
    with reproducible(device):
        found = {
            "norm": _normalised(device, slice(None, 4) if rank == 0 else slice(4, None)),
            "losses": _short_fit(sizes, device),
        }
    torch.save(found, f"{folder}/{rank}.pt")
    gc.collect()  # what the networks' cycles hold of the group, released while the interpreter ends, aborts the process
    dist.barrier()
    dist.destroy_process_group()


class Predictor:
    """A network as a map reads it; keeps the last window."""

    def __init__(self, model):
        self.model = model.eval()
        self.classes = tuple(Crop(number, f"crop {number}") for number in range(model.config.n_classes))
        self.margin_px, self.stride_px = model.receptive().margin_px, model.receptive().stride_px

    def predict_tiles(self, x):
        """[N, T, C, H, W] → [N, K, H, W]."""
        return predict_tiles(self.model, STATS, x)


def windows(sizes, device):
    """A zone predicted by windows, with the weights of a short fit."""
    train, longer = tile_set(sizes.n_tiles, sizes.tile_px, 0), plan(sizes, epochs=3 * sizes.epochs)
    fitted = fit(network(sizes.config, device), train, None, longer).weights
    labels = drawn_labels(sizes.zone_px, 5)
    composite, n_obs = drawn(labels, 5), np.ones((12, *sizes.zone_px), np.uint8)
    maps, probabilities = [], []
    for where in (CPU, device):
        model = network(sizes.config, where)
        model.load_state_dict(fitted)
        predictor = Predictor(model)
        maps.append(predict_zone(predictor, composite, n_obs, (sizes.window_px, sizes.window_px)))
        probabilities.append(predictor.predict_tiles(composite[None, ..., : sizes.window_px, : sizes.window_px]))
        if where is CPU:
            expected = evaluate(model, tile_set(4, sizes.tile_px, 1), N_CLASSES).confusion
    accuracy = float((maps[0].class_id == labels).mean())
    measured = {
        "equal_pixels": float((maps[0].class_id == maps[1].class_id).mean()),
        "probability": float(np.abs(probabilities[0] - probabilities[1]).max()),
        "confidence": int(np.abs(maps[0].confidence.astype(int) - maps[1].confidence).max()),
        "counts": int(np.abs(expected - evaluate(model, tile_set(4, sizes.tile_px, 1), N_CLASSES).confusion).sum()),
        "accuracy_of_the_map": accuracy,
    }
    return result(measured, least_equal_pixels=EQUAL_PIXELS, probability=PROBABILITY, confidence=1)


def trees(sizes, device):
    """The same rows: quality of trees grown on CPU and device, and one model's predictions on both."""
    import xgboost as xgb

    from cropray.training.pixel_blocks import class_indices, features

    train, val = pixel_rows(sizes.n_rows, N_CLASSES, 0), pixel_rows(sizes.n_rows // 4, N_CLASSES, 1)
    x, true = features(val), class_indices(val, LOOKUP)
    kinds = ("cpu", device.type)
    grown = [grow(train, val, kind, N_CLASSES, sizes.n_rounds) for kind in (*kinds, device.type)]
    boosters = [booster for booster, _ in grown]
    losses = [loss for _, loss in grown]
    shares = [float((boosters[i].inplace_predict(x, missing=0).argmax(1) == true).mean()) for i in range(2)]
    predicted = []
    for kind in kinds:
        booster = xgb.Booster({"device": kind})
        booster.load_model(bytearray(boosters[1].save_raw("ubj")))
        predicted.append(booster.predict(xgb.DMatrix(x.astype(np.float32), missing=0)))
    measured = {
        "loss": abs(losses[0] - losses[1]),
        "accuracy": abs(shares[0] - shares[1]),
        "probability": float(np.abs(predicted[0] - predicted[1]).max()),
        "same_bits_when_repeated": bytes(boosters[1].save_raw("ubj")) == bytes(boosters[2].save_raw("ubj")),
        "losses": losses,
        "grown_elsewhere": int(not _device_of(boosters[1]).startswith(device.type)),
    }
    return result(measured, loss=TREE_LOSS, accuracy=0.01, probability=TREE_PROBABILITY, grown_elsewhere=0)


def grow(train, val, kind, n_classes, n_rounds):
    """(trees, last validation loss), by the matrices that a fit builds."""
    import xgboost as xgb

    from cropray.training.pixel_blocks import features
    from cropray.training.xgboost.binning import bin_table, count_values, no_counts
    from cropray.training.xgboost.matrix import BlockBatches, quantile_matrix

    lookup = np.arange(256, dtype=np.uint8)
    table = bin_table(count_values(no_counts(features(train).shape[1]), features(train)), 256)
    matrices = {}
    for name, rows in (("train", train), ("val", val)):
        batches = BlockBatches(lambda rows=rows: [rows], lookup, table)
        matrices[name] = quantile_matrix(batches, 256, torch.get_num_threads(), matrices.get("train"))
    parameters = {**TREES, "num_class": n_classes, "learning_rate": 0.1, "max_depth": 6, "seed": 1, "device": kind}
    parameters["nthread"] = torch.get_num_threads()
    told = {}
    evals = [(matrix, name) for name, matrix in matrices.items()]
    booster = xgb.train(parameters, matrices["train"], n_rounds, evals=evals, verbose_eval=False, evals_result=told)
    return booster, told["val"]["mlogloss"][-1]


def _device_of(booster):
    """What XGBoost ended on: it goes on without a GPU that it does not find."""
    import json

    return json.loads(booster.save_config())["learner"]["generic_param"]["device"]


def timed(work, device):
    """Seconds, with the device's queue empty before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
