"""A dataset and two searched models with known scores, for pictures and pages."""

from dataclasses import dataclass, field

import numpy as np

from cropray.core.intervals import bootstrap_intervals, why_no_intervals
from cropray.core.legend import bundled_legend
from cropray.datasets.manifest import BandSums, Manifest, ZoneEntry
from cropray.evaluation.detail import detail
from cropray.evaluation.results import ModelResult, ReportInputs, ZoneQuality
from cropray.evaluation.tally import N_SIZES, PARCEL_RULES
from cropray.search.decision import DecisionSettings, learn_decision
from tests.search.drawn_predictions import SHARES, drawn

REGIONS = ("picardie", "beauce", "alsace", "bretagne", "landes", "occitanie", "provence", "limagne")
NAMES = (
    "WinterWheat", "Maize", "Meadow", "WinterBarley", "WinterRapeseed", "Sunflowers", "SugarBeets", "Vines",
    "Alfalfa", "Potatoes", "Soy", "DurumWheat", "Wheat", "Fallow", "Olive", "Hops",
)  # fmt: skip
NO_SUMS = BandSums((0,) * 4, (0.0,) * 4, (0.0,) * 4)


@dataclass(frozen=True)
class Fold:
    fold: int
    best_step: int
    history: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Configuration:
    params: dict[str, float | int]
    folds: tuple[Fold, ...]
    metrics: dict[str, float] = field(default_factory=dict)


def draw_manifest(n_classes=16, n_regions=8, seed=1):
    """Zones `<region>-1 … 5`, the last one test; class sizes fall by 1.9 from class to class."""
    rng = np.random.default_rng(seed)
    legend = bundled_legend()
    classes = tuple(crop for crop in legend.classes if crop.name in NAMES[:n_classes])
    sizes = {name: 1800 / 1.9**i for i, name in enumerate(NAMES)}
    zones = []
    for region in REGIONS[:n_regions]:
        liked = {name: rng.gamma(0.9) for name in sizes}
        for i in range(1, 6):
            counts = {crop.name: int(sizes[crop.name] * liked[crop.name] * rng.gamma(2)) for crop in classes}
            if i == 5:
                counts["Hops"] = 0  # a class that the test never sees
            split = "test" if i == 5 else "train"
            fold = None if i == 5 else i % 3
            zones.append(ZoneEntry(f"{region}-{i}", region, split, fold, counts, 12 * i, 4, NO_SUMS, {}))
    notes = ("class 'Rye' occurs only in test zones (31 pixels): no model can predict it",)
    return Manifest("landscape", "parcels", classes, legend.hash(), 24, 3, tuple(zones), notes)


def draw_detail_of(manifest, zone_ids, cube, rng):
    """The cube divided at random into groups, none of unknown size; parcels are right the more often the larger they are."""
    sizes, clear = (np.moveaxis(rng.multinomial(cube, shares), -1, 0) for shares in ([1 / 6] * 6 + [0], [0.2] * 5))
    right = np.arange(N_SIZES)[:, None, None, None] * np.eye(cube.shape[1], dtype=int)
    parcels = np.where(sizes > 0, -(-sizes // 10) + right, 0)
    cubes = {"parcel_sizes": sizes, "clear_steps": clear}
    cubes |= {f"parcels_{rule}": parcels for rule in PARCEL_RULES}
    return detail(manifest, zone_ids, cube, cubes | {"confidence": draw_confidence(cube, rng)}, seed=0)


def draw_confidence(cube, rng):
    """[zone, %, (pixels, right ones, of the right group)]: the surer, the more are right; half of the wrong ones by group."""
    n, right = cube.sum((1, 2)), np.trace(cube, axis1=1, axis2=2)
    rising = (np.arange(101) / 100) ** 3
    of_right = rng.multinomial(right, rising / rising.sum())
    of_wrong = rng.multinomial(n - right, (1 - rising) / (1 - rising).sum())
    return np.stack([of_right + of_wrong, of_right, of_right + of_wrong // 2], -1)


def draw_result(manifest, name, label, skill, seed=2):
    """A model that is right with probability `skill`, and else answers at random, mostly frequent classes."""
    rng = np.random.default_rng(seed)
    test = manifest.of_split("test")
    n = manifest.n_classes
    prior = manifest.class_counts(manifest.zone_ids) / manifest.class_counts(manifest.zone_ids).sum()
    cube = np.zeros((len(test), n, n), np.int64)
    for z, zone in enumerate(test):
        luck = np.clip(skill + rng.normal(0, 0.06), 0, 0.97)
        for i, crop in enumerate(manifest.classes):
            chances = (1 - luck) * prior + luck * np.eye(n)[i] * (0.5 + 0.5 * prior[i] ** 0.2)
            cube[z, i] = rng.multinomial(zone.counts[crop.name], chances / chances.sum())
    grid = (
        [{"learning_rate": rate, "kernel_size": k} for rate in (1e-3, 1e-4) for k in (3, 5)]
        if name == "cnn"
        else [{"learning_rate": rate, "n_estimators": n} for rate in (0.1, 0.01) for n in (100, 200)]
    )
    configurations = tuple(_configuration(params, rng, name) for params in grid)
    return ModelResult(
        name,
        label,
        configurations,
        configurations[0].params,
        tuple(zone.zone_id for zone in test),
        cube,
        loss_sum=float(cube.sum()) * (1.1 - skill),
        intervals=bootstrap_intervals(cube, seed=0, n_samples=200),
        no_intervals=why_no_intervals(cube),
        step_name="epoch" if name == "cnn" else "trees",
        detail=draw_detail_of(manifest, [zone.zone_id for zone in test], cube, rng),
    )


def _configuration(params, rng, name):
    n = 24 if name == "cnn" else int(params["n_estimators"]) // 10
    scale = 1 if name == "cnn" else 10
    speed = 0.25 if params["learning_rate"] >= 1e-3 else 0.08
    folds = []
    for fold in range(3):
        steps = np.arange(1, n + 1)
        fall = np.exp(-speed * steps)
        val = 0.55 + 0.1 * fold + 1.6 * fall + 0.004 * steps + rng.normal(0, 0.02, n)
        history = tuple(
            {
                "step": int(step * scale),
                "train_loss": float(0.4 + 1.8 * f),
                "val_loss": float(v),
                "val_macro_f1": float(0.5 - 0.35 * f - 0.03 * fold),
                "val_accuracy": float(0.8 - 0.4 * f),
            }
            for step, f, v in zip(steps, fall, val, strict=True)
        )
        folds.append(Fold(fold, int(steps[np.argmin(val)] * scale), history))
    keys = ("val_loss", "val_accuracy", "val_macro_precision", "val_macro_recall", "val_macro_f1")
    metrics = {f"{key}_mean": float(rng.uniform(0.4, 0.6)) for key in keys}
    metrics |= {f"{key}_std": float(rng.uniform(0.01, 0.05)) for key in keys}
    return Configuration(params, tuple(folds), metrics)


def draw_decision(n_regions=3):
    """How a model decides, as the result of its search tells."""
    settings = DecisionSettings(rule="prior", calibrate=True)
    card, tables = learn_decision(
        drawn(1500 * max(n_regions, 1), 24, noise=1.2, sureness=2.0, pull=0.4, regions=REGIONS[:n_regions]),
        SHARES,
        settings,
    )
    return {**card, **tables}


def draw_inputs(n_classes=16, n_regions=8):
    """Inputs of a whole report."""
    manifest = draw_manifest(n_classes, n_regions)
    models = (draw_result(manifest, "cnn", "CNN", 0.8), draw_result(manifest, "xgboost", "XGBoost", 0.68, seed=3))
    rng = np.random.default_rng(4)
    quality = tuple(
        ZoneQuality(z, float(rng.uniform(0.1, 0.3)), float(rng.uniform(0.2, 0.4))) for z in manifest.zone_ids
    )
    return ReportInputs(
        manifest,
        models,
        quality,
        {"XYZ": 12.4},
        (),
        {"cropray": "0.1.0", "seed": "7"},
        {"Compare the runs in MLflow": "cropray ui demo.yaml"},
    )
