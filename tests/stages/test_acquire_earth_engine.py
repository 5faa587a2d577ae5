"""`acquire` from Earth Engine on Ray: months asked for once, whatever fails or is killed."""

import contextlib
import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from cropray.cluster.clients import _Turns, connect_everywhere
from cropray.cluster.zone_jobs import attempt_and_mark
from cropray.config import JobConfig
from cropray.core.errors import CroprayError, InputError, StageFailedError
from cropray.core.grid import Grid, Window
from cropray.core.progress import Progress
from cropray.imagery.acquire import acquire_zone
from cropray.imagery.composites import read_composite, read_n_obs
from cropray.imagery.sources.earth_engine.acquisition import require_past
from cropray.imagery.sources.earth_engine.ledger import read_runs
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from cropray.io.job_file import load_settings
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone, write_zones
from cropray.stages import acquire
from cropray.stages.inputs import acquisition_of
from tests.imagery.rasters import draw_pixels, write_scene
from tests.servers.earth_engine import EarthEngineServer
from tests.servers.earth_engine_catalogue import catalogue

SIDE = 48
ROOT = Path(__file__).resolve().parents[2]


def read_ledger(workspace):
    """All lines, oldest first; one that a killed run cut off is left out."""
    lines = []
    for line in workspace.acquisition_ledger.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


def write_year(folder, zones_wide, zones_high, months, days=(3, 13)):
    """Zones side by side, and each month acquisitions of all: one in two overlapping parts, and those of `days`."""
    grid = Grid(32631, 600_000.0, 5_400_000.0, zones_high * SIDE, zones_wide * SIDE)
    half = grid.width // 2
    for month in months:
        for day in days:
            write_scene(folder / "scenes", f"2023-{month:02d}-{day:02d}", grid=grid)
        for name, window in (("a", (0, half + 11)), ("b", (half - 7, grid.width - half + 7))):
            part = grid.crop(Window(0, window[0], grid.height, window[1]))
            pixels = draw_pixels(part.shape, seed=month + window[0])
            write_scene(folder / "scenes", "2023-01-01", pixels, part, name=f"{name}_2023{month:02d}23T105031.tif")
    zones = [
        Zone(f"z{row}-{col}", "north", "train", grid.crop(Window(row * SIDE, col * SIDE, SIDE, SIDE)))
        for row in range(zones_high)
        for col in range(zones_wide)
    ]
    write_zones(zones, folder / "zones.csv")
    return zones


def write_job(folder, server, **imagery):
    content = {
        "name": "ee",
        "workspace": str(folder / "work"),
        "zone_table": str(folder / "zones.csv"),
        "season_start": "2023-01",
        "imagery": {**server.settings(min_window_px=16).model_dump(), **imagery},
        "parcels": {"path": "none.gpkg"},
        "cluster": {"num_cpus": 2, "object_store_gb": 0.1},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(config, *overrides):
    job = load_settings(JobConfig, config, overrides)
    acquire.run(job, Progress(sys.stderr))


def assert_equals_files(folder, zones):
    source = FileScenes(FilesSettings(folder=folder / "scenes"))
    expected, got = Workspace(folder / "files"), Workspace(folder / "work")
    for zone in zones:
        acquire_zone(source, zone, "2023-01", expected)
        for name, read in ((zone.zone_id, read_composite), (f"{zone.zone_id}.nobs", read_n_obs)):
            paths = [workspace.composite(name) for workspace in (got, expected)]
            np.testing.assert_array_equal(*map(read, paths), strict=True)


def units(requests):
    """(corner of the window, its size, month) of pixel requests: what is asked for."""
    return [(request.grid, request.assets[0][:6]) for request in requests]


@pytest.fixture
def year(tmp_path):
    """Two zones; no scene in June."""
    return tmp_path, write_year(tmp_path, 2, 1, [m for m in range(1, 13) if m != 6])


@pytest.fixture
def server(year):
    with EarthEngineServer(catalogue((year[0] / "scenes").iterdir())) as running:
        yield running


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_what_failed_is_told_and_alone_asked_for_again(year, server, capsys):
    folder, zones = year
    config = write_job(folder, server, max_concurrent=2, max_requests_per_s=8)
    # Within any second each client may send one request that was held up since its turn, before that second.
    server.max_concurrent, server.max_per_s = 2, 8 + 2 + 1
    workspace = Workspace(folder / "work")
    corner = zones[1].grid.x_min

    def refuse(request):
        return "Band 'B9' is odd." if request.grid and request.grid[0] == corner and request.month == "202303" else None

    server.refuse = refuse
    server.faults.extend(["429", None, "truncate"])
    server.listing_faults.append("503")
    with pytest.raises(StageFailedError, match=r"z0-1: 2023-03: Earth Engine says 'Band 'B9' is odd\.'"):
        run(config)
    assert Counter(units(server.asked(answer="400"))) == {((corner, 5_400_000, 48, 48), "202303"): 1}
    failed = [line for line in read_ledger(workspace) if line["state"] == "failed"]
    assert [(line["zone_id"], line["unit"], line["errors"]) for line in failed] == [("z0-1", "2023-03", {"400": 1})]
    assert not server.breaches.total()
    assert workspace.composite("z0-0").exists()
    assert not workspace.composite("z0-1").exists()
    (account,) = read_runs(workspace)
    assert (account["listings"], account["months"], account["failed"]) == (2, 21, 1)  # 11 months with scenes, each
    assert account["requests"] == len(server.requests)
    assert account["errors"] == {"429": 1, "503": 1, "400": 1, "ConnectionError": 1}

    server.forget()
    run(config)
    assert units(server.asked()) == [((corner, 5_400_000, 48, 48), "202303")]
    assert not server.asked("compute")
    assert_equals_files(folder, zones)
    assert not list(workspace.acquisition.rglob("*.npz"))
    assert "10 of 11 months are here already" in capsys.readouterr().err

    server.forget()
    run(config)
    assert not server.requests
    run(config, "overwrite=true", "zones=[z0-0]")
    assert (len(server.asked("compute")), len(server.asked())) == (1, 11)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_worker_that_dies_hands_its_month_on(year, server):
    folder, zones = year
    config = write_job(folder, server, max_concurrent=1)
    import ray
    from ray.util.state import list_actors

    killed = []
    address = ray.get_runtime_context().gcs_address

    def kill(request):
        if not killed and request.month == "202304":
            actors = list_actors(address=address)
            (actor,) = [a for a in actors if a["class_name"] == "_Client" and a["state"] == "ALIVE"]
            os.kill(actor["pid"], signal.SIGKILL)
            killed.append(actor)

    server.refuse = kill
    run(config)
    assert killed
    assert_equals_files(folder, zones)
    again = {unit for unit, n in Counter(units(server.asked())).items() if n > 1}
    assert {month for _, month in again} == {"202304"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_no_access_ends_the_stage_at_once(year, server):
    config = write_job(year[0], server, max_concurrent=2)
    server.token = "secret"
    with pytest.raises(CroprayError, match=r"refuses the credentials.*node ") as caught:
        run(config)
    assert not isinstance(caught.value, StageFailedError)
    with pytest.raises(CroprayError, match="refuses the credentials"):
        connect_everywhere(load_settings(JobConfig, config).imagery.connect)
    server.forget()
    assert "from 1 nodes" in connect_everywhere(load_settings(JobConfig, config).imagery.connect)
    (year[0] / "zones.csv").unlink()
    write_zones([Zone("away", "south", "train", Grid(32631, 300_000.0, 4_800_000.0, 9, 9))], year[0] / "zones.csv")
    with pytest.raises(InputError, match="no scene reaches into 'away'"):
        run(config)


def test_turns_are_evenly_spaced_and_none_is_saved_up():
    turns = _Turns(10)
    first = [turns.take() for _ in range(4)]
    assert first == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.05)
    time.sleep(0.6)
    assert [turns.take() for _ in range(2)] == pytest.approx([0, 0.1], abs=0.05)


FAULTS = ("429", "503", "truncate", None)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_a_country_survives_faults_and_a_kill(tmp_path):
    """40 zones × 12 months: 5 % busy, some bodies cut off, two out of memory, the job killed half-way."""
    zones = write_year(tmp_path, 8, 5, range(1, 13), days=(3,))
    n_clients, rate = 4, 25
    # Within any second each client may send one request that was held up since its turn, before that second.
    with EarthEngineServer(
        catalogue((tmp_path / "scenes").iterdir()), max_concurrent=n_clients, max_per_s=rate + n_clients + 1
    ) as server:
        faults = random.Random(0).choices(FAULTS, weights=(2.5, 2.5, 2, 93), k=600)
        faults[50] = faults[400] = "memory"
        server.faults.extend(faults)
        config = write_job(tmp_path, server, max_concurrent=n_clients, max_requests_per_s=rate)
        workspace = Workspace(tmp_path / "work")
        killed = start_and_kill(config, server, after=240)
        there = stored(workspace, zones)
        listed = len(server.asked("compute"))
        before = len(server.asked())
        run(config)
        assert killed
        second = units(server.asked()[before:])
        assert len(there) > 150
        assert not {part_of(unit) for unit in second} & there
        assert listed == len(server.asked("compute")) == 40
        assert server.breaches["concurrency"] == server.breaches["rate"] == 0
        assert server.most_in_flight <= n_clients
        for requests in (server.asked()[:before], server.asked()[before:]):
            assert max(Counter(units([r for r in requests if r.answer == "ok"])).values()) == 1
    asked = Counter(request.answer for request in server.asked())
    assert asked["memory"] == 2
    assert asked["429"] + asked["503"] > 10
    assert asked["truncate"] > 3
    assert_equals_files(tmp_path, zones)
    assert not [path for path in workspace.root.rglob("*") if path.name.startswith(".") or path.suffix == ".npz"]
    done = Counter((line["zone_id"], line["unit"]) for line in read_ledger(workspace) if line["state"] == "done")
    assert max(done.values()) == 1


def start_and_kill(config, server, after):
    """Run the stage in a process of its own, and kill that when so many months have come."""
    code = (
        "import sys; from cropray.config import JobConfig; from cropray.core.progress import Progress; "
        "from cropray.io.job_file import load_settings; from cropray.stages import acquire; "
        "acquire.run(load_settings(JobConfig, sys.argv[1]), Progress())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(config)], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
    ) as job:
        while job.poll() is None and len(server.asked(answer="ok")) < after:
            time.sleep(0.02)
        was_running = job.poll() is None
        job.kill()
    n_requests = -1
    while n_requests != len(server.requests):  # its workers end when they find that it is gone
        n_requests = len(server.requests)
        time.sleep(2)
    server.settle()
    return was_running


def stored(workspace, zones):
    """(zone's corner, month) of all that is there."""
    there = set()
    for zone in zones:
        corner = zone.grid.x_min, zone.grid.y_max
        for month in range(1, 13):
            if workspace.acquired_month(zone.zone_id, f"2023-{month:02d}").exists() or (
                workspace.stamp("acquire", zone.zone_id).exists()
            ):
                there.add((corner, f"2023{month:02d}"))
    return there


def part_of(unit):
    """(zone's corner, month) that a window belongs to."""
    (x, y, _, _), month = unit
    col, row = (x - 600_000) // (SIDE * 10), (5_400_000 - y) // (SIDE * 10)
    return (600_000 + col * SIDE * 10, 5_400_000 - row * SIDE * 10), month


class Here:
    """One client in this process, for a pool of them on Ray."""

    def __init__(self, connect, *_quota):
        self._ask = connect(lambda: None)

    def answers(self, units):
        return ((unit, self._ask(unit), None) for unit in units)


def test_a_composite_is_written_while_months_of_other_zones_are_on_their_way(year, server, monkeypatch):
    folder, zones = year
    workspace, seen = Workspace(folder / "work"), []

    def look(request):
        if request.grid and request.grid[0] == zones[1].grid.x_min:
            seen.append((workspace.composite("z0-0").exists(), [*workspace.listing("z0-0").parent.glob("*.npz")]))

    server.refuse = look
    monkeypatch.setattr(acquire, "ClientPool", lambda *how: contextlib.nullcontext(Here(*how)))
    monkeypatch.setattr(acquire, "ray_session", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(acquire, "require_cpus", lambda *_: None)
    monkeypatch.setattr(acquire, "on_ray", lambda tasks, *of: (attempt_and_mark(task, *of) for task in tasks if task))
    run(write_job(folder, server))
    assert seen[0] == (True, [])
    assert_equals_files(folder, zones)
    (account,) = read_runs(workspace)
    assert (account["listings"], account["months"], account["failed"]) == (2, 22, 0)
    server.forget()
    run(write_job(folder, server))
    assert not server.requests


def test_refuses_a_season_that_has_not_ended():
    grid = Grid(32631, 600_000.0, 5_400_000.0, 5, 7)
    zones = [Zone("a", "north", "train", grid), Zone("b", "north", "train", grid, season_start="2022-11")]
    imagery = {"source": "earth_engine", "project": "p"}
    job = JobConfig.model_validate(
        {"name": "j", "workspace": "w", "season_start": "2023-02", "imagery": imagery, "parcels": {"path": "p.gpkg"}}
    )
    order = acquisition_of(job, zones).order
    require_past(order, dt.date(2024, 2, 1))
    with pytest.raises(InputError, match=r"season of 'a' ends after today \(2024-01-31\).*season_start"):
        require_past(order, dt.date(2024, 1, 31))
