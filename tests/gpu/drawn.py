"""What the checks are made on: drawn tiles and rows, and the sizes of a full and of a small run. Needs torch and numpy."""

from dataclasses import dataclass

import numpy as np
import torch

from cropray.core.legend import IGNORE
from cropray.nets.crop_net import CropNet, CropNetConfig
from cropray.training.deep.loop import FitPlan
from cropray.training.deep.tiles import ChannelStats, TileSet
from tests.study import FEATURE_COLUMNS, INPUT, N_BANDS, N_MONTHS

N_CLASSES = 6
STATS = ChannelStats((1500.0,) * N_BANDS, (700.0,) * N_BANDS)
LOOKUP = np.where(np.arange(256) < N_CLASSES, np.arange(256), IGNORE).astype(np.uint8)
STUDY = CropNetConfig(**INPUT, n_classes=20)


@dataclass(frozen=True)
class Sizes:
    """How much is computed."""

    config: CropNetConfig
    """Of the network whose results are compared."""
    n_tiles: int
    tile_px: int
    epochs: int
    zone_px: tuple[int, int]
    window_px: int
    n_rows: int
    n_rounds: int
    rated: CropNetConfig
    """Of the network whose speed is measured."""
    rated_batch: int
    rated_steps: int
    rated_window_px: int
    rated_rows: int
    """Of the trees whose speed is measured."""


FULL = Sizes(
    CropNetConfig(**INPUT, n_classes=N_CLASSES, temporal_channels=32, unet_channels=(32, 64, 64)), n_tiles=96, tile_px=32,
    epochs=4, zone_px=(300, 217), window_px=160, n_rows=60_000, n_rounds=30, rated=STUDY, rated_batch=64,
    rated_steps=30, rated_window_px=512, rated_rows=500_000,
)  # fmt: skip
SMALL = Sizes(
    CropNetConfig(**INPUT, n_classes=N_CLASSES, temporal_channels=8, unet_channels=(8, 8)), n_tiles=12, tile_px=8,
    epochs=3, zone_px=(50, 37), window_px=32, n_rows=2_000, n_rounds=5,
    rated=CropNetConfig(**INPUT, n_classes=N_CLASSES, temporal_channels=8, unet_channels=(8, 8)), rated_batch=4, rated_steps=2,
    rated_window_px=48, rated_rows=2_000,
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Tiles of one zone."""

    x: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Crop:
    """A class, as far as a map needs it."""

    id: int
    name: str


def drawn(labels, seed):
    """Digital numbers [..., T, C, H, W] of classes [..., H, W]: each class has a season, and there is noise and no data."""
    rng = np.random.default_rng(seed)
    months, phase = np.arange(N_MONTHS), np.arange(N_CLASSES) * 2.0
    season = np.cos((months[:, None] - phase) * (2 * np.pi / N_MONTHS))  # [T, K]
    brightness = np.array([900.0, 1100.0, 1000.0, 2800.0])
    swing = np.array([-200.0, -150.0, -300.0, 900.0])
    level = brightness[:, None] + swing[:, None] * season[:, None, :]  # [T, C, K]
    x = np.moveaxis(level[:, :, labels], (0, 1), (-4, -3)) + rng.normal(
        0, 350, (*labels.shape[:-2], N_MONTHS, N_BANDS, *labels.shape[-2:])
    )
    x[rng.random(x.shape) < 0.03] = 0
    return np.clip(x, 0, 65535).astype(np.uint16)


def drawn_labels(shape, seed):
    """Fields of 4 × 4 pixels; [..., H, W] uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = (-(-side // 4) for side in shape[-2:])
    fields = rng.integers(0, N_CLASSES, (*shape[:-2], rows, columns))
    return fields.repeat(4, -2).repeat(4, -1)[..., : shape[-2], : shape[-1]].astype(np.uint8)


def tile_set(n, px, seed):
    """Tiles, a tenth of whose pixels have no label."""
    labels = drawn_labels((n, px, px), seed)
    x = drawn(labels, seed)
    labels[np.random.default_rng(seed).random(labels.shape) < 0.1] = IGNORE
    return TileSet([Block(x, labels)], LOOKUP, STATS)


def network(config, device, seed=0):
    """A network with weights of a seed."""
    torch.manual_seed(seed)
    return CropNet(config).to(device)


def plan(sizes, **changes):
    """A fit of some steps an epoch."""
    common = {
        "n_classes": N_CLASSES,
        "learning_rate": 5e-3,
        "seed": 3,
        "epochs": sizes.epochs,
        "patience": 99,
        "augment": True,
    }
    return FitPlan(**{**common, "batch_size": max(sizes.n_tiles // 6, 1), **changes})


class Rows:
    """As much of an Arrow table as `pixel_blocks` reads."""

    def __init__(self, columns):
        self._columns = columns
        self.num_rows = len(columns["label"])

    def __getitem__(self, name):
        return _Column(self._columns[name])

    def slice(self, start, n):
        """Some consecutive rows."""
        return Rows({name: column[start : start + n] for name, column in self._columns.items()})


@dataclass(frozen=True)
class _Column:
    values: np.ndarray

    def to_numpy(self):
        """The values."""
        return self.values


def pixel_rows(n, n_classes, seed):
    """Labelled pixels; classes differ in the months in which they are bright."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, n_classes, n).astype(np.uint8)
    x = rng.integers(300, 3000, (n, len(FEATURE_COLUMNS)))
    x[np.arange(n), label % len(FEATURE_COLUMNS)] += 1200
    x[rng.random(x.shape) < 0.05] = 0
    return Rows({"label": label, **dict(zip(FEATURE_COLUMNS, x.T.astype(np.uint16), strict=True))})
