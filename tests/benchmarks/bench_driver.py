"""What the driver of `dataset` does by itself for a whole country: separation, folds, manifest. No Ray, no pixels.

The zones are drawn over France in its three UTM systems, some nearer to each other than the buffer, each with some
hundreds of labelled parcels of which a few reach into a neighbour. Another number of zones may be given.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pyproj import Transformer

from cropray.core.folds import make_folds
from cropray.core.grid import Grid
from cropray.core.legend import bundled_legend
from cropray.datasets.doubts import parcel_doubts
from cropray.datasets.manifest import BandSums, Manifest, ZoneEntry, load_manifest, save_manifest
from cropray.datasets.separation import separate
from cropray.io.zones import Zone
from tests.study import N_BANDS

N_ZONES, N_FOLDS, BUFFER_M = 5_830, 5, 500
WEST, EAST, SOUTH, NORTH = -4.5, 8.0, 42.5, 51.0  # degrees
SIZE, TILE_SIZE, TILES_PER_SHARD = 512, 32, 64  # px
MOST_S = 60


def draw_zones(n_zones: int, rng: np.random.Generator) -> list[Zone]:
    """Zones of 5 km at random places of a lattice, each in the system of its longitude; one of eight is test."""
    n_columns = int(np.ceil(np.sqrt(n_zones * 1.1)))
    cells = rng.permutation(n_columns**2)[:n_zones]
    lon = WEST + (EAST - WEST) * (cells % n_columns + rng.random(n_zones) * 0.55) / n_columns
    lat = SOUTH + (NORTH - SOUTH) * (cells // n_columns + rng.random(n_zones) * 0.55) / n_columns
    zones = []
    to_metres = {epsg: Transformer.from_crs(4326, epsg, always_xy=True) for epsg in (32630, 32631, 32632)}
    for i, (east, north) in enumerate(zip(lon, lat, strict=True)):
        epsg = 32630 + int(east >= 0) + int(east >= 6)
        x, y = to_metres[epsg].transform(east, north)
        region = f"r{int(east - WEST) // 3}-{int(north - SOUTH) // 3}"
        grid = Grid(epsg, round(x, -1), round(y, -1), SIZE, SIZE)
        zones.append(Zone(f"z{i:05d}", region, "test" if i % 8 == 0 else "train", grid))
    return zones


def draw_parcels(zones: list[Zone], rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    """Zone → ids of its parcels: 100–600 of its own, and up to three of the zone before it in the table."""
    own = {z.zone_id: [f"{z.zone_id}-{k}" for k in range(rng.integers(100, 600))] for z in zones}
    before = dict(zip([z.zone_id for z in zones[1:]], [z.zone_id for z in zones], strict=False))
    return {z: (*ids, *own[before[z]][: rng.integers(4)]) if z in before else tuple(ids) for z, ids in own.items()}


def entry(zone: Zone, fold: int | None, counts: dict[str, int], n_trimmed: int) -> ZoneEntry:
    """What a worker would return."""
    n_tiles = (SIZE // TILE_SIZE) ** 2
    shards = [f"tiles/zone_id={zone.zone_id}/shard-{i:04d}.parquet" for i in range(n_tiles // TILES_PER_SHARD)]
    files = dict.fromkeys([f"pixels/zone_id={zone.zone_id}/part-0.parquet", *shards], "0" * 64)
    sums = BandSums((SIZE**2 * 12,) * N_BANDS, (1e9,) * N_BANDS, (1e12,) * N_BANDS)
    return ZoneEntry(zone.zone_id, zone.region, zone.split, fold, counts, n_trimmed, n_tiles, sums, files)


def main(n_zones: int) -> bool:
    """Run it; true where all of it is fast enough."""
    rng = np.random.default_rng(0)
    zones = draw_zones(n_zones, rng)
    parcels, names = draw_parcels(zones, rng), bundled_legend().names
    drawn = {z.zone_id: rng.poisson(0.6, len(names)) * 2_000 + 1 for z in zones}
    counts = {z: dict(zip(names, map(int, row), strict=True)) for z, row in drawn.items()}
    print(f"\nthe driver's own work for {n_zones:,} zones with {sum(map(len, parcels.values())):,} parcels")
    seconds = {}

    def timed(what, function):
        start = time.perf_counter()
        made = function()
        seconds[what] = time.perf_counter() - start
        return made

    train = {z.zone_id: counts[z.zone_id] for z in zones if z.split == "train"}
    folds = timed("folds", lambda: make_folds(train, {z.zone_id: z.region for z in zones}, N_FOLDS))
    trims = timed("separation", lambda: separate(zones, folds, parcels, BUFFER_M, "trim"))
    timed("doubts", lambda: parcel_doubts(parcels, {z.zone_id: folds.get(z.zone_id, "test") for z in zones}))
    entries = [entry(z, folds.get(z.zone_id), counts[z.zone_id], int(z.zone_id in trims)) for z in zones]
    classes, legend = bundled_legend().classes, bundled_legend().hash()
    manifest = Manifest("bench", "parcels", classes, legend, TILE_SIZE, N_FOLDS, tuple(entries))
    with tempfile.TemporaryDirectory() as name:
        timed("manifest, written", lambda: save_manifest(manifest, Path(name, "manifest.json")))
        back = timed("manifest, read", lambda: load_manifest(Path(name, "manifest.json")))
    is_same = timed("fingerprints", lambda: back.fingerprint() == manifest.fingerprint())
    for what, value in seconds.items():
        print(f"  {what:<20} {value:>7.2f} s")
    n_away, n_given = (sum(len(getattr(t, part)) for t in trims.values()) for part in ("keep_away", "parcels"))
    print(f"  {'in all':<20} {sum(seconds.values()):>7.2f} s; {n_away:,} near zones, {n_given:,} parcels given up")
    return is_same and n_away > 0 and n_given > 0 and sum(seconds.values()) < MOST_S


if __name__ == "__main__":
    raise SystemExit(0 if main(int(sys.argv[1]) if len(sys.argv) > 1 else N_ZONES) else 1)
