"""One zone-year of real size through STAC: search, reading, mask, monthly median, count; beside odc-stac and xarray.

144 scenes of 12 months as local cloud-optimised files of 1536 × 1536 pixels (a zone of 1000 × 1000 touches nine blocks of
512, as it does in a Sentinel-2 tile), about 2 GB in a temporary folder.
"""

import contextlib
import datetime as dt
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import odc.stac
import pystac_client
import rasterio
import rasterio.windows
import xarray as xr
from odc.geo.geobox import GeoBox
from scipy import ndimage

from cropray.core.cube import Season
from cropray.core.grid import Grid, Window
from cropray.imagery import acquire
from cropray.imagery.sources.stac import scenes as stac
from cropray.imagery.sources.stac import search as stac_search
from cropray.imagery.sources.stac.settings import StacSettings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from tests.servers import stac_items
from tests.servers.stac import StacServer
from tests.study import N_BANDS, N_MONTHS

SCENES_A_MONTH = 12
TILE = Grid(32631, 600_000.0, 5_400_000.0, 1536, 1536)
ZONE = TILE.crop(Window(240, 300, 1000, 1000))
SEASON = Season("2023-01")
BANDS = ("blue", "green", "red", "nir")
N_MEGAPIXELS = N_MONTHS * SCENES_A_MONTH * ZONE.height * ZONE.width / 1e6  # zone pixels × scenes
N_THREADS = 2  # of odc-stac's reads and xarray's medians
WANTED = 3.0  # least ratio


def smooth(rng: np.random.Generator, width: float) -> np.ndarray:
    """A random field of mean 0 and standard deviation 1 that wraps around."""
    field = ndimage.gaussian_filter(rng.normal(size=TILE.shape).astype(np.float32), width, mode="wrap")
    return field / field.std()


def draw_year(folder: Path) -> list[dict]:
    """Write the scenes; returns their items, with URLs of local files."""
    rng = np.random.default_rng(0)
    land = np.stack([smooth(rng, 8) for _ in range(N_BANDS)])
    noise, clouds = rng.normal(0, 25, TILE.shape).astype(np.float32), smooth(rng, 40)
    level = np.array([500, 700, 800, 2800])[:, None, None]

    def draw(index: int) -> dict:
        month, scene = divmod(index, SCENES_A_MONTH)
        shift = 131 * index
        numbers = level * (1 + 0.2 * np.sin(month / 2)) + 120 * land + np.roll(noise, (shift, 17 * index), (0, 1))
        cover = np.roll(clouds, (shift, 7 * index), (0, 1)) + np.sin(index)
        scl = np.select([cover > 0.8, cover > 0.5, cover > -0.5], [9, 8, 4], 5)
        pixels = np.concatenate([np.clip(numbers, 1, 12_000), scl[None]]).astype(np.uint16)
        acquired = dt.datetime(2023, month + 1, 1 + 2 * scene, 10, 50, 31, tzinfo=dt.UTC)
        item = stac_items.write_item(folder, acquired, pixels, TILE, baseline="05.09", scl_step=2, driver="COG")
        for asset in item["assets"].values():
            asset["href"] = (folder / asset["href"]).as_uri()
        return item

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(draw, range(N_MONTHS * SCENES_A_MONTH)))


def by_cropray(source: stac.StacScenes) -> tuple[np.ndarray, np.ndarray]:
    """Medians [12, 4, H, W] and counts [12, H, W]."""
    stac._find.cache_clear()
    months = acquire.acquisitions_by_month(source.survey(ZONE, SEASON.start, SEASON.end).scenes, SEASON)
    return acquire._composite_months(source, months, ZONE)


def by_odc(url: str) -> tuple[np.ndarray, np.ndarray]:
    """The same with odc-stac and xarray, a month at a time: the year at once would take 17 GB as floats."""
    west, south, east, north = rasterio.warp.transform_bounds("EPSG:32631", "EPSG:4326", *ZONE.bounds)
    geobox = GeoBox(ZONE.shape, rasterio.Affine(*ZONE.transform), "EPSG:32631")
    client = pystac_client.Client.open(url)
    medians, counts = [], []
    for start, end in SEASON.months:
        span = f"{start}T00:00:00Z/{end - dt.timedelta(days=1)}T23:59:59Z"
        found = client.search(
            collections=[stac_items.COLLECTION], bbox=[west, south, east, north], datetime=span, limit=100
        )
        scenes = odc.stac.load(
            list(found.items()), (*BANDS, "scl"), geobox=geobox, resampling="nearest", pool=N_THREADS
        )
        median, count = by_xarray(scenes)
        medians.append(median)
        counts.append(count)
    return np.stack(medians), np.stack(counts)


def by_xarray(scenes: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mask, offset, median, rounding and count of a month; xarray's medians run on threads, in chunks of rows."""
    numbers = scenes[list(BANDS)].to_array("band")
    clear = scenes.scl.isin([4, 5, 6, 7]) & (numbers > 0).all("band")
    reflectance = (numbers.astype("float32") - 1000).clip(min=1).where(clear)
    median = reflectance.chunk({"time": -1, "band": -1, "y": 125, "x": -1}).median("time", skipna=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels without a clear observation
        median = median.compute(scheduler="threads", num_workers=N_THREADS)
    return np.floor(median.fillna(0).values + 0.5).astype(np.uint16), clear.sum("time").values.astype(np.uint8)


def bare_read(source: stac.StacScenes, n_threads: int) -> None:
    """Nothing but opening the same files and reading the same windows."""
    window = rasterio.windows.Window(300, 240, 1000, 1000)
    coarse = rasterio.windows.Window(150, 120, 500, 500)

    def read(asset: tuple[str, str]) -> None:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(asset[1]) as dataset:
            dataset.read(1, window=coarse if asset[0] == "SCL" else window)

    with ThreadPoolExecutor(n_threads) as pool:
        for scene in source.survey(ZONE, SEASON.start, SEASON.end).scenes:
            list(pool.map(read, scene.assets))


@contextlib.contextmanager
def timed(seconds: dict[str, float], owner: object, name: str, label: str) -> Iterator[None]:
    """Add up the time spent in a function of a module."""
    original: Callable = getattr(owner, name)

    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[label] = seconds.get(label, 0.0) + time.perf_counter() - start

    setattr(owner, name, wrapper)
    try:
        yield
    finally:
        setattr(owner, name, original)


def print_profile(source: stac.StacScenes, folder: Path) -> None:
    """Where a whole acquisition of the zone spends its time; on one thread, so that the parts add up."""
    seconds: dict[str, float] = {}
    parts = [
        (stac, "read_band", "files: open, read, decompress"),
        (stac_search, "search_items", "search"),
        (acquire, "monthly_median", "our kernels: mask, median, count"),
        (acquire, "fill_gaps", "our kernels: gap filling"),
        (acquire, "write_composite", "composite: compress, write"),
        (acquire, "write_n_obs", "counts: compress, write"),
    ]
    stac._find.cache_clear()
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.enter_context(timed(seconds, *part))
        acquire.acquire_zone(source, Zone("zone", "r", "train", ZONE), SEASON.first_month, Workspace(folder))
    total = time.perf_counter() - start
    seconds["our arrays: offset, its check, copies"] = total - sum(seconds.values())
    print(f"\nprofile of `acquire_zone`, one thread: {total:.1f} s")
    for label, value in sorted(seconds.items(), key=lambda part: -part[1]):
        print(f"  {label:<40} {value:>7.2f} s  {value / total:>6.1%}")


def main() -> bool:
    """Run; true where the wanted ratio is reached."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = draw_year(folder / "cogs")
        n_gb = sum(path.stat().st_size for path in folder.rglob("*.tif")) / 1e9
        with StacServer(folder, items) as server:
            sources = {
                n: stac.StacScenes(StacSettings(source="stac", url=server.url, read_threads=n)) for n in (1, 2, 5)
            }
            actions: dict[str, Callable] = {
                f"cropray, {n} read threads": lambda s=s: by_cropray(s) for n, s in sources.items()
            }
            actions |= {f"bare rasterio reads, {n} threads": lambda n=n: bare_read(sources[1], n) for n in (1, 2)}
            actions["odc-stac + xarray"] = lambda: by_odc(server.url)
            best, results = {}, {}
            for _ in range(2):
                for label, action in actions.items():
                    start = time.perf_counter()
                    results[label] = action()
                    seconds = time.perf_counter() - start
                    best[label] = min(best.get(label, seconds), seconds)
            print(f"\nzone-year, {N_MONTHS} × {SCENES_A_MONTH} scenes, {ZONE.height}² pixels, {n_gb:.1f} GB of files")
            for label, seconds in best.items():
                print(f"  {label:<32} {seconds:>7.2f} s   {N_MEGAPIXELS / seconds:>6.1f} Mpx/s")
            print_profile(sources[1], folder)
    for ours, theirs in zip(results["cropray, 5 read threads"], results["odc-stac + xarray"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ratio = best["odc-stac + xarray"] / best["cropray, 5 read threads"]
    print(f"\nequal results; cropray is {ratio:.1f} × odc-stac + xarray (wanted {WANTED:g})")
    return ratio >= WANTED


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
