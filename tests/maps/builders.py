"""Small trained models on disk and a zone to map."""

import json
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
import torch
import xgboost as xgb

from cropray.core.legend import IGNORE, bundled_legend
from cropray.imagery.composites import write_composite, write_n_obs
from cropray.nets.crop_net import CropNet, CropNetConfig
from cropray.nets.ensemble import Ensemble
from cropray.nets.registry import NETS
from cropray.training.blend.settings import BlendSettings
from cropray.training.deep.checkpoint import NetworkCheckpoint, save_checkpoint
from cropray.training.deep.tiles import ChannelStats
from cropray.training.family import Fit, FitData, family
from cropray.training.members import Member
from cropray.training.pixel_blocks import TreeData
from cropray.training.xgboost.scoring import save_booster
from tests.study import FEATURE_COLUMNS, INPUT, N_BANDS, N_FEATURES, N_MONTHS

DECIDING_FEATURE = "B04_05"
LEGEND = bundled_legend()
RULE = {"multipliers": [1.3, 0.001, 1.9, 1.0, 1.7], "temperature": 1.7, "set_threshold": 0.2}
CLASSES = tuple(LEGEND.classes[i] for i in (0, 1, 12, 14, 37))  # dense index ≠ legend id


def save_cnn(folder, seed=0):
    """An untrained network with a margin of 12 pixels and a stride of 2; its batch statistics are not trivial."""
    torch.manual_seed(seed)
    model = CropNet(CropNetConfig(**INPUT, n_classes=len(CLASSES), temporal_channels=8, unet_channels=(8, 16)))
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.2)
    stats = ChannelStats((1500.0,) * N_BANDS, (600.0,) * N_BANDS)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, NetworkCheckpoint(model.eval(), stats, CLASSES, LEGEND.hash(), kind="cnn"))
    return folder


def save_temp_cnn(folder, seed=0, net="temp_cnn", **small):
    """Two untrained networks over pixels, which answer together."""
    torch.manual_seed(seed)
    kind = NETS.entry(net)
    config = kind.Config(n_classes=len(CLASSES), **INPUT, hidden=16, **(small or {"channels": 8}))
    stats = ChannelStats((1500.0,) * N_BANDS, (600.0,) * N_BANDS)
    folder.mkdir(parents=True, exist_ok=True)
    model = Ensemble([kind(config), kind(config)]).eval()
    save_checkpoint(folder, NetworkCheckpoint(model, stats, CLASSES, LEGEND.hash(), net=net, kind="temp_cnn"))
    return folder


def save_ltae(folder, seed=0):
    """The same with attention."""
    return save_temp_cnn(folder, seed, "ltae", embedding=16, heads=4)


def save_trees(folder, seed=0):
    """Trees that look at DECIDING_FEATURE only, in steps of 800."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 4000, (400, N_FEATURES)).astype(np.uint16)
    y = x[:, FEATURE_COLUMNS.index(DECIDING_FEATURE)] // 800
    booster = xgb.train(
        {"objective": "multi:softprob", "num_class": len(CLASSES), "max_depth": 4, "nthread": 1},
        xgb.DMatrix(x, y, missing=0), 8,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_booster(folder, booster, TreeData({}, CLASSES, LEGEND.hash()), {})
    return folder


def ruled(folder, rule):
    """A model folder whose card says how to decide."""
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **({"decision": rule} if rule else {})}))
    return folder


def save_blend(folder, names=("xgboost", "cnn", "temp_cnn")):
    """The mean of the models above."""
    save = {"xgboost": save_trees, "cnn": save_cnn, "temp_cnn": save_temp_cnn}
    parts = tuple(
        Member(name, family(name).load, None, save[name](folder.with_name(f"{folder.name}-{name}")), 1, ())
        for name in names
    )
    nothing = FitData({}, {})
    folder.mkdir(parents=True, exist_ok=True)
    family("blend").fit(
        Fit(
            settings=BlendSettings(), train=nothing, val=None, classes=CLASSES, legend_hash=LEGEND.hash(),
            mean=(), std=(), seed=0, folder=folder, members=parts,
        )
    )  # fmt: skip
    return folder


def draw_image(height=50, width=61, seed=1):
    """A composite [T, C, H, W] of smooth fields, and counts [T, H, W]; pixel (0, 0) was never seen."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(0, 5, (height // 10 + 1, width // 10 + 1)).repeat(10, 0).repeat(10, 1)[:height, :width]
    season = rng.uniform(400, 3500, (N_MONTHS, N_BANDS, 5))
    composite = (season[:, :, fields] * rng.normal(1, 0.08, (1, 1, height, width))).clip(1).astype(np.uint16)
    n_obs = rng.integers(0, 4, (N_MONTHS, height, width)).astype(np.uint8)
    composite[:, :, 0, 0] = 0
    n_obs[:, 0, 0] = 0
    return composite, n_obs, fields


@dataclass(frozen=True)
class FieldParcels:
    """One parcel per 10 × 10 pixel field."""

    table: gpd.GeoDataFrame
    index: np.ndarray


def draw_parcels(grid, labels):
    """Parcels on the fields of `draw_image`."""
    rows, cols = np.mgrid[: grid.height, : grid.width] // 10
    n_cols = cols.max() + 1
    index = (rows * n_cols + cols).astype(np.int32)
    ids = np.unique(index)
    boxes = [
        shapely.box(grid.x_min + c * 100, grid.y_max - r * 100 - 100, grid.x_min + c * 100 + 100, grid.y_max - r * 100)
        for r, c in (divmod(int(i), n_cols) for i in ids)
    ]
    first = [int(np.flatnonzero(index.ravel() == i)[0]) for i in ids]
    table = gpd.GeoDataFrame(
        {
            "parcel_index": ids.astype(np.int32), "parcel_id": [f"p{i}" for i in ids], "code": "BTH",
            "class_id": labels.ravel()[first], "area_ha": 1.0,
        },
        geometry=boxes, crs=f"EPSG:{grid.epsg}",
    )  # fmt: skip
    return FieldParcels(table, index)


def write_zone(workspace, zone, composite, n_obs):
    """Write what the acquisition of a zone leaves behind."""
    write_composite(workspace.composite(zone.zone_id), composite, zone.grid)
    write_n_obs(workspace.n_obs(zone.zone_id), n_obs, zone.grid)


def field_labels(fields):
    """Legend ids of the fields; a border of the image is unlabelled."""
    labels = np.array([crop.id for crop in CLASSES], np.uint8)[fields]
    labels[:, :3] = IGNORE
    return labels
