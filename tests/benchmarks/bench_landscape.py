"""How far the demo's models are from what can be known of its test zones: `python -m tests.benchmarks.bench_landscape DEMO`.

The drawn landscape is its own model of the world, so that more of it can be drawn: other land, sown, grown and sized by the
same rules, below the very same passes, clouds, calibration and haze of each region, made into composites by the package's own
code. A learner that has seen so much of it comes near the best that any model can do. The exact posterior is not at hand (a
median of observations through thinned clouds, of pixels that mix several parcels), so that what is printed is what was
reached: a lower bound of the best, beside the same with half of the land, which tells how much more may come.

- `one pixel`: the bands of a pixel's composite, as the demo's models of pixels read them, and its region.
- `a clean parcel`: reflectance of the whole parcel itself on each day of a pass, without clouds, noise, density or neighbours:
  what a model that sees shapes could know at most, and any other one never does.

`accuracy` is of the likeliest class. `macro F1` is of the class of the largest probability / frequency^tau, where tau is the
best on land that the learner did not see. No test zone has a part in either. Classes that a region never grows are known to it.
"""

import concurrent.futures
import datetime as dt
import functools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from cropray.core.cube import STUDY_CUBE
from cropray.core.features import FeatureSet
from cropray.core.legend import IGNORE, bundled_legend
from cropray.core.metrics import confusion, score
from cropray.datasets.manifest import load_manifest
from cropray.datasets.storage import read_pixels
from cropray.imagery.composite import monthly_median
from cropray.imagery.composites import read_composite
from cropray.imagery.gapfill import fill_gaps
from cropray.io.workspace import Workspace
from cropray.landscape import canopy, draw, scenes, sky, spectra
from cropray.landscape.fields import Cell, burn
from cropray.landscape.regions import REGION_STYLES
from cropray.landscape.settings import LandscapeSettings

N_LANDS = 24  # drawn anew for each region
EVERY = 3  # land of so many chooses tau and is not learnt from
SHARE = 0.15  # of the labelled pixels that are learnt from: neighbours tell the same
TAUS = tuple(i / 20 for i in range(21))
FEATURES = FeatureSet(STUDY_CUBE, ("bands", "ndvi", "quantiles"))
TREES = {
    "objective": "multi:softprob",
    "max_depth": 5,
    "eta": 0.15,
    "subsample": 0.7,
    "colsample_bytree": 0.3,
    "seed": 0,
}
N_ROUNDS = 80
YEAR = 2023
MOST_OFF = 60  # digital numbers: the noise of a median is some tens
LEAST_SAME = 0.98  # of labels: borders of parcels go through another projection
Floats = npt.NDArray[np.float64]
Side = tuple[Floats, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Pass:
    """What is the same of a scene whatever the land below it."""

    acquired: dt.datetime
    over: sky.Sky
    gains: Floats
    haze: float


@dataclass(frozen=True)
class Sample:
    """Of some land: features, class ids, and the land (position) that each is of."""

    x: npt.NDArray[Any]
    y: npt.NDArray[np.int64]
    land: npt.NDArray[np.int64]


def passes(settings: LandscapeSettings, index: int, shape: tuple[int, int]) -> list[Pass]:
    """The sky of a region's scenes, as `draw_scene` draws it before the noise of the sensor."""
    found = []
    for acquired in draw.acquisition_times(settings, draw._random(settings, index, draw._TIMES)):
        rng = draw._random(settings, index, draw._SKY, int(acquired.timestamp()))
        over = sky.draw_sky(settings, REGION_STYLES[index], shape, float(acquired.timetuple().tm_yday), rng)
        found.append(Pass(acquired, over, rng.normal(1, scenes._CALIBRATION_SPREAD, 4), np.abs(rng.normal(0, 1))))
    return found


def composite(land: scenes.Land, above: Sequence[Pass], rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """[T, C, H, W] of a canvas: scenes with noise of their own, monthly medians, gaps filled."""
    months: list[list[npt.NDArray[np.uint16]]] = [[] for _ in range(STUDY_CUBE.n_steps)]
    for one in above:
        ground = scenes._ground(land, land.stand, float(one.acquired.timetuple().tm_yday), spectra.IN_DESCRIBED)
        numbers = scenes._numbers(ground, one.over, one.gains, one.haze, spectra.IN_DESCRIBED, rng)
        scene = np.stack([*numbers, sky.classify_scene(ground, one.over, rng)]).astype(np.uint16)
        months[one.acquired.month - 1].append(scene)
    empty = np.zeros((0, 5, *land.grid.shape), np.uint16)
    stacks = [np.stack(month) if month else empty for month in months]
    medians, n_obs = zip(*(monthly_median(s[:, :4].copy(), s[:, 4].astype(np.uint8)) for s in stacks), strict=True)
    return fill_gaps(np.stack(medians), np.stack(n_obs) > 0)


def class_of_units(cells: Sequence[Cell]) -> npt.NDArray[np.int64]:
    """[U + 1] class id of each cell, IGNORE where it has none; the last is the land between them."""
    ids = bundled_legend().class_id_of_code(YEAR)
    return np.array([*(ids.get(cell.code or "", IGNORE) for cell in cells), IGNORE])


def clean_years(land: scenes.Land, above: Sequence[Pass]) -> Floats:
    """[U + 1, passes · C] reflectance of each cell by itself, and of the land between them."""
    days = [float(one.acquired.timetuple().tm_yday) for one in above]
    return np.concatenate([canopy.reflectance(land.stand, day, land.style.drought)[0] for day in days], axis=1)


def drawn(settings: LandscapeSettings, index: int, above: Sequence[Pass], n_lands: int) -> tuple[Sample, Sample]:
    """(pixels, parcels) of other lands of a region."""
    pixels, parcels = [], []
    for number in range(n_lands):
        other = settings.model_copy(update={"seed": settings.seed + 1 + number})
        canvas, cells, land = draw._draw_region(other, index, REGION_STYLES[index])
        classes, rng = class_of_units(cells), np.random.default_rng([other.seed, index])
        cube, unit = composite(land, above, rng), burn(cells, canvas.grid)
        chosen = np.zeros(unit.shape, np.bool_)
        for zone in canvas.zones:
            chosen[canvas.grid.window_of(zone.grid).slices] = True
        chosen &= (classes[unit] != IGNORE) & (rng.random(unit.shape) < SHARE)
        pixels.append((rows_of(cube)[chosen.ravel()], classes[unit[chosen]]))
        is_crop = classes != IGNORE
        parcels.append((clean_years(land, above)[is_crop], classes[is_crop]))
    return together(pixels), together(parcels)


def together(parts: Sequence[tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]) -> Sample:
    """Of several lands."""
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Sample(x, y, np.repeat(np.arange(len(parts)), [len(labels) for _, labels in parts]))


def rows_of(cube: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """[T, C, H, W] → [H·W, T·C] in the order of the cube's columns."""
    return cube.transpose(2, 3, 1, 0).reshape(-1, STUDY_CUBE.n_features)


def learnt(sample: Sample, x: npt.NDArray[Any], n_classes: int) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """([N, K] of the test, [M, K] of the land that is held back, and its classes), by trees that were grown on the others."""
    is_held = sample.land % EVERY == EVERY - 1
    known, y = np.unique(sample.y[~is_held], return_inverse=True)
    parameters = {**TREES, "num_class": len(known), "nthread": 1}
    booster = xgb.train(parameters, xgb.QuantileDMatrix(sample.x[~is_held], y, nthread=1), N_ROUNDS)
    found = []
    for rows in (x, sample.x[is_held]):
        spread = np.zeros((len(rows), n_classes))
        spread[:, known] = booster.predict(xgb.DMatrix(rows, nthread=1))
        found.append(spread)
    return found[0], found[1], sample.y[is_held]


def scored(test: Sequence[Side], held: Sequence[Side]) -> dict[str, float]:
    """Of all regions together: accuracy of the likeliest class, macro F1 by the rule that is best on land that was held back."""
    (p, y), (p_held, y_held) = (tuple(map(np.concatenate, zip(*part, strict=True))) for part in (test, held))
    frequency = np.maximum(np.bincount(y_held, minlength=p.shape[1]), 1) / len(y_held)

    def macro_f1(probabilities: Floats, true: npt.NDArray[np.int64], tau: float) -> float:
        return found(probabilities / frequency**tau, true)["macro_f1"]

    def found(votes: Floats, true: npt.NDArray[np.int64]) -> Mapping[str, Any]:
        return score(confusion(true, votes.argmax(1), votes.shape[1])).values

    tau = max(TAUS, key=lambda tau: macro_f1(p_held, y_held, tau))
    return {"accuracy": found(p, y)["accuracy"], "macro_f1": macro_f1(p, y, tau), "tau": tau}


def of_region(root: Path, zone_id: str, n_lands: int, index: int) -> dict[tuple[str, int], tuple[Side, Side]]:
    """(what is known, lands) → (probabilities and classes of the region's test zone, the same of land that is held back).

    Raises:
        ValueError: the demo was drawn by other code or settings.
    """
    settings, workspace, n_classes = LandscapeSettings(), Workspace(root), len(bundled_legend().classes)
    canvas, cells, land = draw._draw_region(settings, index, REGION_STYLES[index])
    above = passes(settings, index, canvas.grid.shape)
    (window,) = (canvas.grid.window_of(zone.grid).slices for zone in canvas.zones if zone.zone_id == zone_id)
    mine = composite(land, above, np.random.default_rng(index))[..., window[0], window[1]]
    if (off := np.median(np.abs(mine - read_composite(workspace.composite(zone_id)).astype(float)))) > MOST_OFF:
        raise ValueError(f"composites of {zone_id} are off by {off:.0f} from the drawn land: draw the demo again")
    table = read_pixels(workspace, zone_id)
    row, col, label = (table[name].to_numpy() for name in ("row", "col", "label"))
    unit = burn(cells, canvas.grid)[window][row, col]
    if (same := (class_of_units(cells)[unit] == label).mean()) < LEAST_SAME:
        raise ValueError(
            f"labels of {zone_id} are those of the drawn land in {same:.0%} of pixels: draw the demo again"
        )
    pixels, parcels = drawn(settings, index, above, n_lands)
    pixels = Sample(FEATURES.compute(pixels.x), pixels.y, pixels.land)
    seen = np.stack([table[name].to_numpy() for name in STUDY_CUBE.columns], axis=1)
    kinds = {"one pixel": (pixels, FEATURES.compute(seen)), "a clean parcel": (parcels, clean_years(land, above)[unit])}
    found = {}
    for what, (sample, x) in kinds.items():
        for n in (n_lands // 2, n_lands):
            few = sample.land < n
            p, p_held, y_held = learnt(Sample(sample.x[few], sample.y[few], sample.land[few]), x, n_classes)
            found[what, n] = (p, label.astype(np.int64)), (p_held, y_held)
    print(
        f"{zone_id}: {len(pixels.y):,} pixels, {len(parcels.y):,} parcels learnt, CPU {time.process_time():.0f} s",
        flush=True,
    )
    return found


def bounds(workspace: Workspace, n_lands: int) -> dict[tuple[str, int], dict[str, float]]:
    """(what is known, lands) → the best that was reached."""
    test = {zone.region: zone.zone_id for zone in load_manifest(workspace.manifest).of_split("test")}
    zone_ids = [test[style.region] for style in REGION_STYLES if style.region in test]
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        run = functools.partial(of_region, workspace.root)
        parts = list(pool.map(run, zone_ids, [n_lands] * len(zone_ids), range(len(zone_ids))))
    return {key: scored(*zip(*(part[key] for part in parts), strict=True)) for key in parts[0]}


def main(demo: Path, n_lands: int) -> int:
    """Print the bounds, and each model's distance to both."""
    workspace = Workspace(demo / "work")
    best = bounds(workspace, n_lands)
    print(f"\n{'on the test zones':<36}  accuracy  macro F1")
    for (what, n), found in best.items():
        best_of = f"{what}, {n} lands of each region"
        print(f"{best_of:<36}  {found['accuracy']:.4f}    {found['macro_f1']:.4f}    tau {found['tau']:g}")
    for file in sorted((demo / "work" / "evaluation").glob("*/scores.json")):
        metrics = json.loads(file.read_text())["metrics"]
        reached = {key: metrics[f"test_{key}"] for key in ("accuracy", "macro_f1")}
        print(f"{file.parent.name:<36}  {reached['accuracy']:.4f}    {reached['macro_f1']:.4f}")
        for what in ("one pixel", "a clean parcel"):
            gap = {key: best[what, n_lands][key] - value for key, value in reached.items()}
            print(f"{f'  below {what}':<36}  {gap['accuracy']:+.4f}   {gap['macro_f1']:+.4f}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:  # run.py runs each benchmark without arguments
        print("skipped: python -m tests.benchmarks.bench_landscape DEMO [lands], after cropray demo --root DEMO")
        raise SystemExit(0)
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else N_LANDS))
