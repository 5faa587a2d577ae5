"""What `cropray plan` says of two jobs that no machine here could run: 40 zones on 8 GPUs, and all of France.

Nothing is downloaded: the parcels are drawn at the national register's density (9.8 million on 547,000 km²), months of
imagery are drawn too, and Earth Engine, which a plan does not ask, stands for the source. Everything else is
`ray_jobs/configs/france.yaml`. `python -m tests.benchmarks.plan_france` measures the unit costs once for both.
"""

import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
import yaml

from cropray.commands.plan.elsewhere import measurable, print_elsewhere
from cropray.commands.plan.measure import measure
from cropray.config import JobConfig
from cropray.core.legend import bundled_legend
from cropray.core.progress import Progress
from cropray.io.job_file import load_settings
from cropray.io.zones import bundled_zones
from cropray.stages.inputs import job_zones
from tests.benchmarks.bench_labels import LAMBERT, YEAR, _polygons

ROOT = Path(__file__).resolve().parents[2]
PARCELS_PER_KM2 = 9_800_000 / 547_000
ZONE_M = 10_000
NODE = ["plan.cpus=16", "plan.gpus=1", "plan.memory_gb=64", "cnn.use_gpu=true", "xgboost.cpus_per_worker=8"]


def france() -> shapely.Geometry:
    """Its outline, EPSG:2154."""
    outline = gpd.read_file(str(resources.files("cropray").joinpath("data/france.geojson"))).to_crs(LAMBERT)
    return shapely.union_all(outline.geometry.to_numpy())


def n_zones(outline: shapely.Geometry) -> int:
    """Squares of 10 km that touch it: no register is needed to know that they cover all declared parcels."""
    x_min, y_min, x_max, y_max = (np.floor(value / ZONE_M) * ZONE_M for value in outline.bounds)
    x, y = np.meshgrid(np.arange(x_min, x_max + 1, ZONE_M), np.arange(y_min, y_max + 1, ZONE_M))
    return int(shapely.intersects(outline, shapely.box(x, y, x + ZONE_M, y + ZONE_M)).sum())


def draw_parcels(path: Path) -> None:
    """Parcels of the bundled zones, as many as France has on as much land."""
    rng, frames = np.random.default_rng(0), []
    codes = list(bundled_legend().codes_of(YEAR))
    for zone in bundled_zones():
        x_min, y_min, x_max, y_max = zone.grid.bounds
        n = round((x_max - x_min) * (y_max - y_min) / 1e6 * PARCELS_PER_KM2)
        polygons = _polygons(rng.uniform((x_min, y_min), (x_max, y_max), (n, 2)), rng)
        frames.append(gpd.GeoDataFrame({"CODE_CULTU": rng.choice(codes, n)}, geometry=polygons, crs=zone.grid.epsg))
    frame = gpd.pd.concat([frame.to_crs(LAMBERT) for frame in frames], ignore_index=True)
    frame.insert(0, "ID_PARCEL", np.arange(len(frame)).astype(str))
    frame.insert(1, "SURF_PARC", frame.area / 1e4)
    pyogrio.write_dataframe(frame, path, layer="PARCELLES_GRAPHIQUES", driver="GPKG")


def write_job(folder: Path) -> Path:
    """The job of France with what is drawn."""
    job = yaml.safe_load((ROOT / "ray_jobs/configs/france.yaml").read_text())
    job |= {"workspace": str(folder / "work"), "imagery": {"source": "earth_engine", "project": "nobodys-project"}}
    job["parcels"] = {"path": str(folder / "parcels.gpkg")}
    (folder / "france.yaml").write_text(yaml.safe_dump(job))
    return folder / "france.yaml"


def changes(stated: Sequence[str]) -> list[str]:
    """The command line's `--set` for one case."""
    return [part for value in (*stated, *NODE) for part in ("--set", value)]


def main() -> int:
    """Measure once, and print both plans."""
    more = n_zones(france()) - len(bundled_zones())
    cases = {
        "40 zones": ["plan.nodes=[1,2,4,8]"],
        f"all of France, {more:,} zones more": ["plan.nodes=[8,16,32,64]", f"plan.more_zones={more}"],
    }
    with tempfile.TemporaryDirectory(prefix="france-") as name:
        folder, progress = Path(name), Progress()
        draw_parcels(folder / "parcels.gpkg")
        config = write_job(folder)
        jobs = {title: load_settings(JobConfig, config, [*stated, *NODE]) for title, stated in cases.items()}
        here = measurable(jobs["40 zones"])
        # One fit at a time: a stated cluster has more memory bandwidth for each of them than two cores share.
        here = here.model_copy(update={"search": here.search.model_copy(update={"max_concurrent": 1})})
        work, costs, notes = measure(here, job_zones(here), progress, lambda _: None)
        for title, job in jobs.items():
            print(f"\n{title}: cropray plan france.yaml {' '.join(changes(cases[title]))}", flush=True)
            print_elsewhere(job, work, costs, progress)
        print("\n".join(notes))
        print(f"\nunit costs: {costs}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
