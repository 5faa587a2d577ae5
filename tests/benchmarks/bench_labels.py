"""The parcels of 40 zones from a register of a million, beside geopandas reading the file whole; and their labels.

The register is drawn evenly over France. Both ways end with the parcels of each zone, valid and in its UTM system; their
time is that of the reading alone, without imports. `cropray labels` is the whole command, with the start of
Python and Ray, and writes all its artefacts. Each case runs in a process of its own. Memory is the largest resident set
that any one process reaches; Linux only. The number of parcels may be given: `… bench_labels 9800000` is the size of
the real register, and geopandas then takes some 16 GiB.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from importlib import resources
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyogrio
import shapely
import yaml

from cropray.core.legend import bundled_legend
from cropray.io.zones import bundled_zones
from cropray.parcels.rpg import ParcelSettings, read_parcels

N_PARCELS, N_CORNERS = 1_000_000, 24
WHOLE, OURS = "geopandas.read_file, whole, clip", "cropray, by spatial index"
YEAR, SHARE_INVALID = 2023, 0.001
CHUNK = 50_000
BLOCK_M = 50_000  # parcels stand in the file block by block, as the real register goes by departments
SAMPLE_EVERY_S = 0.1
MOST_MEMORY, LEAST_RATIO = 2 * 2**30, 5.0
LAMBERT = 2154


def draw_register(path: Path, n_parcels: int) -> None:
    """Write the register: parcels of some 2.5 ha with 24 corners, some invalid, real codes, a few of them unknown."""
    rng = np.random.default_rng(0)
    centres = _centres(n_parcels, rng)
    codes = np.array([*bundled_legend().codes_of(YEAR), "XYZ"], object)
    schema = pa.schema(
        {"ID_PARCEL": pa.string(), "SURF_PARC": pa.float64(), "CODE_CULTU": pa.string(), "wkb": pa.binary()}
    )

    def chunks():
        for start in range(0, n_parcels, CHUNK):
            polygons = _polygons(centres[start : start + CHUNK], rng)
            ids = np.arange(start, start + len(polygons)).astype(str)
            columns = [ids, shapely.area(polygons) / 1e4, rng.choice(codes, len(ids)), shapely.to_wkb(polygons)]
            yield pa.record_batch([pa.array(column) for column in columns], schema=schema)

    pyogrio.write_arrow(
        pa.RecordBatchReader.from_batches(schema, chunks()), path, layer="PARCELLES_GRAPHIQUES", driver="GPKG",
        geometry_name="wkb", geometry_type="Polygon", crs=f"EPSG:{LAMBERT}",
    )  # fmt: skip


def _centres(n: int, rng: np.random.Generator) -> np.ndarray:
    """[n, 2] Lambert-93, evenly over France, in the file's order."""
    outline = gpd.read_file(str(resources.files("cropray").joinpath("data/france.geojson"))).to_crs(LAMBERT)
    france = shapely.union_all(outline.geometry.to_numpy())
    shapely.prepare(france)
    x_min, y_min, x_max, y_max = france.bounds
    points = rng.uniform((x_min, y_min), (x_max, y_max), (3 * n, 2))  # France fills half of its rectangle
    inside = points[shapely.contains_xy(france, points)][:n]
    return inside[np.lexsort(np.floor(inside / BLOCK_M).T)]


def _polygons(centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = len(centres)
    angle = np.linspace(0, 2 * np.pi, N_CORNERS, endpoint=False)
    size = rng.lognormal(np.log(85), 0.35, (n, 1))  # m
    radius = size * (1 + 0.25 * np.cos(2 * angle + rng.uniform(0, 6, (n, 1))) + rng.normal(0, 0.05, (n, N_CORNERS)))
    corners = centres[:, None] + np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    is_invalid = rng.random(n) < SHARE_INVALID
    corners[is_invalid, 3], corners[is_invalid, 15] = corners[is_invalid, 15], corners[is_invalid, 3]  # crosses itself
    return shapely.polygons(corners.round(3))


def geopandas_whole(path: Path, *, use_arrow: bool) -> list[int]:
    """The plain way: all parcels in memory, then cut to each zone; returns the number of parcels of each."""
    frame = gpd.read_file(path, use_arrow=use_arrow)
    n_parcels = []
    for zone in bundled_zones():
        outline = shapely.segmentize(shapely.box(*zone.grid.bounds), 500)
        outline = gpd.GeoSeries([outline], crs=zone.grid.epsg).to_crs(LAMBERT)[0]
        near = frame.iloc[frame.sindex.query(outline)]
        clipped = near.set_geometry(near.make_valid()).clip(outline).to_crs(zone.grid.epsg)
        n_parcels.append(int((clipped.area > 0.01).sum()))
    return n_parcels


def cropray_zones(path: Path) -> list[int]:
    """What `cropray labels` reads, in one process."""
    settings = ParcelSettings(path=path)
    return [len(read_parcels(settings, zone.grid).frame) for zone in bundled_zones()]


READERS = {
    WHOLE: partial(geopandas_whole, use_arrow=False),
    "geopandas, whole with use_arrow=True, clip": partial(geopandas_whole, use_arrow=True),
    OURS: cropray_zones,
}


def label(register: Path, folder: Path) -> list[str]:
    """The command of a job with the bundled zones."""
    job = {
        "name": "bench", "workspace": str(folder / "work"), "season_start": f"{YEAR}-01", "imagery": {"folder": str(folder)},
        "parcels": {"path": str(register)}, "dataset": {"max_unknown_share": 1}, "cluster": {"object_store_gb": 0.2},
    }  # fmt: skip
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return [str(Path(sys.executable).with_name("cropray")), "labels", str(folder / "job.yaml")]


def run(command: list[str]) -> tuple[float, int, str]:
    """Seconds, largest resident set of any process in bytes, output."""
    peaks: dict[int, int] = {}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(process.pid, peaks, ended), daemon=True)
    watch.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    ended.set()
    watch.join()
    if process.returncode:
        raise SystemExit(f"{command} failed:\n{output}")
    return seconds, max(peaks.values()), output


def _watch(root: int, peaks: dict[int, int], ended: threading.Event) -> None:
    while not ended.wait(SAMPLE_EVERY_S):
        for pid in _family(root):
            peaks[pid] = max(peaks.get(pid, 0), _high_water(pid))


def _family(root: int) -> set[int]:
    parents = {int(path.name): _parent(path) for path in Path("/proc").glob("[0-9]*")}
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it ended meanwhile
        return None


def _high_water(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def main(n_parcels: int) -> bool:
    """Run all cases; true where reading is fast enough, workers small enough, and the parcels the same."""
    print(f"\nlabels of {len(bundled_zones())} zones from a register of {n_parcels:,} parcels, {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        register = folder / "register.gpkg"
        draw_register(register, n_parcels)
        print(f"  register: {register.stat().st_size / 1e9:.2f} GB")
        read = {}
        for case in READERS:
            _, peak, output = run([sys.executable, "-m", "tests.benchmarks.bench_labels", case, str(register)])
            read[case] = json.loads(output)
            ratio = read[WHOLE]["seconds"] / read[case]["seconds"]
            print(f"  {case:<44} {read[case]['seconds']:>7.1f} s  {ratio:>6.1f} ×   peak {peak / 2**30:>5.2f} GiB")
        seconds, peak, _ = run(label(register, folder))
        start, _, _ = run(label(register, folder))
        print(
            f"  {'cropray labels, the whole command':<44} {seconds:>7.1f} s             peak {peak / 2**30:>5.2f} GiB a process"
        )
        print(f"  {'  of it with nothing to do':<44} {start:>7.1f} s")
        rows = json.loads((folder / "work/parcels/coverage.json").read_text())["zones"].values()
    n_labelled = [row["n_parcels"] for some in rows for row in some]
    is_same = read[WHOLE]["n_parcels"] == read[OURS]["n_parcels"] == n_labelled
    print(f"  parcels in the zones: {sum(n_labelled):,}, {'the same' if is_same else 'NOT THE SAME'} in all cases")
    return is_same and peak < MOST_MEMORY and read[WHOLE]["seconds"] >= LEAST_RATIO * read[OURS]["seconds"]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        gpd.read_file(sys.argv[2], rows=1)  # loads what both need
        begin = time.perf_counter()
        found = READERS[sys.argv[1]](Path(sys.argv[2]))
        print(json.dumps({"seconds": time.perf_counter() - begin, "n_parcels": found}))
        raise SystemExit(0)
    raise SystemExit(0 if main(int(sys.argv[1]) if len(sys.argv) > 1 else N_PARCELS) else 1)
