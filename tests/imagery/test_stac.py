import datetime as dt
import json
import logging
import pickle

import numpy as np
import pytest
import rasterio
import requests
from hypothesis import given
from hypothesis import strategies as st

from cropray.core.errors import InputError
from cropray.core.grid import Grid, Window
from cropray.imagery.sources.stac import scenes as stac
from cropray.imagery.sources.stac.scenes import StacScenes, offset_is_gone, shift
from cropray.imagery.sources.stac.settings import StacSettings
from cropray.io.job_file import load_settings
from tests.imagery.rasters import draw_pixels
from tests.servers.stac import Fault, StacServer
from tests.servers.stac_items import write_band, write_item

YEAR = dt.date(2023, 1, 1), dt.date(2024, 1, 1)
GRID = Grid(32631, 600_000.0, 5_400_000.0, 12, 18)
NOON = dt.datetime(2023, 5, 1, 10, 50, 31, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _no_answers_of_other_servers():
    """A port may be given out again, and answers are known by their address."""
    stac._find.cache_clear()


def source(server, **settings):
    return StacScenes(
        StacSettings(**{"source": "stac", "url": server.url, "max_wait_s": 0, "timeout_s": 20, **settings})
    )


def find(server, grid=GRID, span=YEAR, **settings):
    return source(server, **settings).find(grid, *span)


def read_only(server, grid=GRID, **settings):
    (scene,) = find(server, grid, **settings)
    return source(server, **settings).read(scene, grid)


def draw_land(shape=GRID.shape, seed=0):
    """Dark vegetation, clear everywhere."""
    pixels = draw_pixels(shape, seed, scl=4)
    pixels[:4] = pixels[:4] // 20 + 50
    return pixels


def days(tmp_path, *days, **kwargs):
    """An item a day, May 2023."""
    pixels = draw_pixels(GRID.shape, scl=4)
    return [write_item(tmp_path, NOON.replace(day=day), pixels, GRID, **kwargs) for day in days]


def test_finds_scenes_of_all_pages_in_time_order(tmp_path):
    with StacServer(tmp_path, days(tmp_path, 26, 1, 11, 6, 21, 16), page_size=2) as server:
        assert [scene.acquired.day for scene in find(server)] == [1, 6, 11, 16, 21, 26]
        assert server.count("POST /search") == 3


def test_a_search_is_sent_once(tmp_path):
    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        assert find(server) == find(server)
        assert server.count("POST /search") == 1


def test_months_follow_the_data_takes_start(tmp_path):
    """Around midnight the item's own time and the data take's fall on different days."""
    late = dt.datetime(2023, 1, 31, 23, 58, tzinfo=dt.UTC)
    items = [
        write_item(tmp_path, late, draw_land(), GRID),
        write_item(tmp_path, late.replace(day=30), draw_land(), GRID),
    ]
    with StacServer(tmp_path, items) as server:
        assert items[0]["properties"]["datetime"] > "2023-02-01"
        january, february = (dt.date(2023, 1, 31), dt.date(2023, 2, 1)), (dt.date(2023, 2, 1), dt.date(2023, 3, 1))
        assert [scene.acquired.day for scene in find(server, span=january)] == [31]
        assert find(server, span=february) == ()


@pytest.mark.parametrize(
    "window", [Window(0, 0, 12, 18), Window(-3, -2, 8, 9), Window(9, 12, 8, 9), Window(3, 5, 4, 7), Window(-2, -2, 40, 40)]
)  # fmt: skip
@pytest.mark.parametrize("scl_step", [1, 2, 6])
def test_reads_a_window_and_repeats_coarse_classes(tmp_path, window, scl_step):
    pixels = draw_pixels(GRID.shape)
    item = write_item(tmp_path, NOON, pixels, GRID, scl_step=scl_step)
    grid = GRID.crop(window)
    with StacServer(tmp_path, [item]) as server:
        bands, scl = read_only(server, grid)
    expected = np.zeros((5, *grid.shape), int)
    for row in range(grid.height):
        for col in range(grid.width):
            at = row + window.row, col + window.col
            if 0 <= at[0] < GRID.height and 0 <= at[1] < GRID.width:
                expected[:4, row, col] = pixels[:4, *at]
                expected[4, row, col] = pixels[4, at[0] // scl_step * scl_step, at[1] // scl_step * scl_step]
    np.testing.assert_array_equal(np.concatenate([bands, scl[None]]), expected)
    assert (bands.dtype, scl.dtype) == (np.uint16, np.uint8)


def test_reads_only_the_blocks_of_the_window(tmp_path):
    size = 1024
    big = Grid(32631, GRID.x_min, GRID.y_max, size, size)
    item = write_item(tmp_path, NOON, draw_pixels(big.shape), big, driver="COG")
    with StacServer(tmp_path, [item]) as server:
        read_only(server, big.crop(Window(10, 10, 100, 100)))
    n_stored = sum(path.stat().st_size for path in tmp_path.rglob("*.tif"))
    assert server.n_bytes < n_stored / 2  # blocks of 512 × 512: one of four, and the directory


def test_a_band_without_data_takes_the_scene_class_away(tmp_path):
    pixels = draw_land()
    pixels[2, 1, 1] = 0
    for baseline in ("02.06", "05.09"):
        item = write_item(tmp_path, NOON, pixels, GRID, baseline=baseline)
        with StacServer(tmp_path, [item]) as server:
            bands, scl = read_only(server)
        assert (bands[2, 1, 1], scl[1, 1]) == (0, 0)
        assert (scl == 4).sum() == scl.size - 1
        np.testing.assert_array_equal(bands, pixels[:4])


@given(st.lists(st.integers(0, 65_535), min_size=2, max_size=80), st.integers(-10_000, 0))
def test_shift_equals_the_slow_one(values, offset):
    bands = np.array([[values], [values[::-1]]], np.uint16)
    scl = np.arange(1, len(values) + 1, dtype=np.uint8)[None]
    shift(bands, scl, offset)
    slow = [0 if value == 0 else max(value + offset, 1) for value in values]
    np.testing.assert_array_equal(bands, [[slow], [slow[::-1]]])
    has_data = [value > 0 and other > 0 for value, other in zip(values, values[::-1], strict=True)]
    np.testing.assert_array_equal(scl, [[position * ok for position, ok in enumerate(has_data, 1)]])


@pytest.mark.parametrize(
    ("baseline", "raw", "flag"),
    [
        ("02.06", False, None),
        ("05.09", True, None),
        ("05.09", True, False),
        ("05.09", False, True),
        ("05.09", False, False),  # Earth Search says that the offset is there, and it is gone
    ],
)
def test_numbers_are_the_same_whatever_the_offset(tmp_path, caplog, baseline, raw, flag):
    pixels = draw_land()
    item = write_item(tmp_path, NOON, pixels, GRID, baseline=baseline, raw=raw, flag=flag)
    if flag is None:
        del item["properties"]["earthsearch:boa_offset_applied"]
    with StacServer(tmp_path, [item]) as server, caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_only(server)[0], pixels[:4])
    is_wrong = baseline >= "04.00" and raw is False and flag is False
    assert (item["id"] in caplog.text) == is_wrong


def test_an_offset_that_the_settings_give_is_not_doubted(tmp_path):
    pixels = draw_land()
    item = write_item(tmp_path, NOON, pixels, GRID, baseline="05.09", raw=False, flag=False)
    with StacServer(tmp_path, [item]) as server:
        assert (read_only(server, offset=-10_000)[0] == 1).all()
        np.testing.assert_array_equal(read_only(server, offset=0)[0], pixels[:4])


@pytest.mark.parametrize(
    ("visible", "scl", "n_land", "gone"),
    [
        (400, 4, 200, True),
        (1400, 4, 200, False),  # the offset is in it
        (960, 4, 200, False),  # slightly negative reflectance, as over dark forest
        (400, 6, 200, False),  # water may be below 0
        (400, 4, 99, False),  # too few to tell
        (400, 5, 201, True),  # bare soil fills the window
        (400, 5, 200, False),  # half of it may be something else
        (1400, 5, 400, False),
    ],
)
def test_only_dark_land_shows_that_the_offset_is_gone(visible, scl, n_land, gone):
    bands = np.full((4, 20, 20), visible, np.uint16)
    bands[1:] += 500  # the darkest band counts, blue here
    classes = np.full(400, 8, np.uint8)
    classes[:n_land] = scl
    assert offset_is_gone(bands, classes.reshape(20, 20)) == gone


def test_leaves_out_tiles_of_another_system_and_elsewhere(tmp_path):
    west = Grid(32630, 1_040_000.0, 5_430_000.0, 12, 18)  # over GRID, in the system of the zone to the west
    beside = Grid(32631, GRID.x_min + 180, GRID.y_max, 12, 18)  # touches
    items = [write_item(tmp_path, NOON.replace(day=d), draw_land(), g) for d, g in enumerate((GRID, west, beside), 1)]
    items[1]["bbox"] = items[0]["bbox"]
    with StacServer(tmp_path, items) as server:
        assert [scene.acquired.day for scene in find(server)] == [1]
    with StacServer(tmp_path, items[1:2]) as server, pytest.raises(InputError, match="all in EPSG:32630; lay the zone"):
        find(server)


def test_leaves_out_what_the_settings_say(tmp_path):
    items = days(tmp_path, 1, cloud_cover=80.0) + days(tmp_path, 2, cloud_cover=79.9) + days(tmp_path, 3)
    with StacServer(tmp_path, items) as server:
        assert [s.acquired.day for s in find(server, max_cloud_cover=79.9, exclude=(items[2]["id"],))] == [2]


def test_parts_of_one_instant_share_it_although_their_tiles_were_seen_later(tmp_path):
    seen = {"tile": "31UFS", "seen_after_s": 348}
    items = [*days(tmp_path, 1, **seen), *days(tmp_path, 1)]
    with StacServer(tmp_path, items) as server:
        one, two = find(server)
    assert one.acquired == two.acquired == NOON
    assert ["31UES" in one.scene_id, "31UFS" in two.scene_id] == [True, True]


def test_fingerprint_changes_with_the_products_and_the_offset(tmp_path):
    with StacServer(tmp_path, days(tmp_path, 1, 6)) as server:
        one, two = find(server)
        prints = [source(server).fingerprint(scenes) for scenes in ((one, two), (one,), (two, one))]
        prints.append(source(server, offset=0).fingerprint((one, two)))
        assert source(server).fingerprint(find(server)) == prints[0]
    with StacServer(tmp_path, days(tmp_path, 1, 6, generated="2025-01-01T00:00:00Z"), page_size=1) as server:
        renamed = [part.replace(server.url, "") for part in json.dumps([s.scene_id for s in find(server)])]
        assert "20250101" in "".join(renamed)
    assert len(set(prints)) == 4


def test_pickles_and_reads_elsewhere(tmp_path):
    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        there = pickle.loads(pickle.dumps(source(server)))
        (scene,) = pickle.loads(pickle.dumps(there.survey(GRID, *YEAR).scenes))
        np.testing.assert_array_equal(there.read(scene, GRID)[0], source(server).read(scene, GRID)[0])


PASSING = [Fault(503), Fault(429, (("Retry-After", "0"),)), Fault(500), Fault(keep=0.5), Fault(keep=0)]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_search_is_repeated_until_the_fault_has_passed(tmp_path, fault):
    with StacServer(tmp_path, days(tmp_path, 1, 6, 11), page_size=1) as server:
        server.fail("/search", Fault(wait_s=0), fault, fault)
        assert len(find(server)) == 3


def test_a_search_waits_as_long_as_the_server_says(tmp_path):
    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        server.fail("/search", Fault(429, (("Retry-After", "1"),)))
        start = dt.datetime.now(dt.UTC)
        find(server)
        assert (dt.datetime.now(dt.UTC) - start).total_seconds() >= 1


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_file_is_read_again_until_the_fault_has_passed(tmp_path, fault):
    pixels = draw_land()
    with StacServer(tmp_path, [write_item(tmp_path, NOON, pixels, GRID, baseline="05.09")]) as server:
        for name in ("red", "scl"):
            server.fail(f"/{name}.tif", fault, Fault(wait_s=0), fault, fault)
        np.testing.assert_array_equal(read_only(server)[0], pixels[:4])


@pytest.mark.parametrize("keep", [0, 0.01, 0.03, 0.1, 0.5, 0.9, 0.999])
def test_an_answer_that_is_cut_off_never_gives_other_pixels(tmp_path, keep):
    big = Grid(32631, GRID.x_min, GRID.y_max, 300, 300)
    pixels = draw_pixels(big.shape)
    item = write_item(tmp_path, NOON, pixels, big, driver="COG")
    with StacServer(tmp_path, [item]) as server:
        for n_before in range(3):
            server.fail("/nir.tif", *[Fault(wait_s=0)] * n_before, Fault(keep=keep))
            np.testing.assert_array_equal(read_only(server, big)[0], pixels[:4])


def test_a_directory_that_is_cut_off_anywhere_is_read_again(tmp_path):
    """GDAL opens what is left of it, without an error, as a file that lies nowhere."""
    pixels = draw_land()
    with StacServer(tmp_path, [write_item(tmp_path, NOON, pixels, GRID)]) as server:
        (scene,) = find(server)
        for percent in range(0, 100, 4):
            for n_before in range(2):
                server.fail("/nir.tif", *[Fault(wait_s=0)] * n_before, Fault(keep=percent / 100))
                moved = tuple((band, f"{href}?{percent}-{n_before}") for band, href in scene.assets)  # not known yet
                again = type(scene)(scene.scene_id, scene.acquired, scene.href, moved, scene.offset)
                np.testing.assert_array_equal(source(server).read(again, GRID)[0], pixels[:4])


def refuse(action, *said):
    with pytest.raises(InputError) as error:
        action()
    for text in said:
        assert text in str(error.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_search_that_is_refused_is_sent_once(tmp_path, status):
    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        server.fail("/search", Fault(status))
        refuse(lambda: find(server), f"HTTP {status}: as the test wants it", "sentinel-2-l2a", server.url)
        assert server.count("/search") == 1


def test_gives_up_after_the_last_attempt(tmp_path):
    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        (scene,) = find(server)
        server.fail("/search", *[Fault(503)] * 100)
        server.fail("/nir.tif", *[Fault(503)] * 100)
        refuse(lambda: find(server, max_attempts=3), "HTTP 503", "run the stage again later")
        assert server.count("/search") == 1 + 3
        refuse(
            lambda: source(server, max_attempts=2).read(scene, GRID), "503", "after 2 attempts", scene.href, "nir.tif"
        )


@pytest.mark.parametrize("status", [403, 404])
def test_a_file_that_is_refused_names_the_item(tmp_path, status):
    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        (scene,) = find(server)
        server.fail("/nir.tif", *[Fault(status)] * 9)
        refuse(lambda: source(server).read(scene, GRID), str(status), scene.href, "nir.tif", "'exclude'")
        assert server.count("/nir.tif") <= 3  # one attempt: GDAL asks for the size, then for the first bytes


def test_says_that_no_server_is_there(tmp_path):
    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        (scene,) = find(server)
    refuse(lambda: find(server, max_attempts=2), server.url, "refused")
    refuse(lambda: source(server, max_attempts=2).read(scene, GRID), "connect to", "after 2 attempts")


def test_refuses_a_page_that_is_no_stac_api(tmp_path):
    with StacServer(tmp_path, []) as server:
        server.landing_page = lambda: {"hello": "world"}
        refuse(lambda: find(server, max_attempts=1), server.url, "check 'url'")
        static = {"type": "Catalog", "stac_version": "1.0.0", "id": "static", "description": "no search", "links": []}
        server.landing_page = lambda: static
        refuse(lambda: find(server, max_attempts=2), server.url, "check 'url'")


@pytest.mark.parametrize(
    ("values", "grid", "said"),
    [
        (np.ones((12, 18), np.float32), GRID, ("float32", "uint16")),
        (np.ones((12, 18), np.uint8), GRID, ("uint8", "uint16")),
        (np.ones((12, 18), np.uint16), Grid(32631, GRID.x_min + 5, GRID.y_max, 12, 18), ("do not line up",)),
        (np.ones((12, 18), np.uint16), Grid(32630, GRID.x_min, GRID.y_max, 12, 18), ("EPSG:32630", "EPSG:32631")),
        (np.ones((8, 12), np.uint16), Grid(32631, GRID.x_min, GRID.y_max, 8, 12, 15.0), ("15.0", "10 m × 1, 2, …")),
    ],
    ids=["type", "eight bits", "half a pixel", "system", "resolution"],
)
def test_refuses_a_file_that_does_not_fit(tmp_path, values, grid, said):
    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        (scene,) = find(server)
        (path,) = tmp_path.rglob("nir.tif")
        write_band(path, values, grid)
        refuse(lambda: source(server).read(scene, GRID), scene.href, "nir.tif", *said)


def test_pixels_that_are_a_little_off_by_rounding_are_accepted(tmp_path):
    pixels = draw_land()
    with StacServer(tmp_path, [write_item(tmp_path, NOON, pixels, GRID, scl_step=2)]) as server:
        (scene,) = find(server)
        for name, size in (("nir", 9.999999999998), ("scl", 20.0000000004)):
            (path,) = tmp_path.rglob(f"{name}.tif")
            with rasterio.open(path, "r+") as dataset:
                dataset.transform = rasterio.Affine(size, 0, GRID.x_min, 0, -size, GRID.y_max)
        np.testing.assert_array_equal(source(server).read(scene, GRID)[0], pixels[:4])


def test_files_of_planetary_computer_are_read_with_its_signature(tmp_path, monkeypatch):
    import planetary_computer.sas
    import planetary_computer.settings

    names = ("B02", "B03", "B04", "B08", "SCL")
    pixels = draw_land()
    item = write_item(tmp_path / "container", NOON, pixels, GRID, baseline="05.09", names=names)
    for asset in item["assets"].values():
        asset["href"] = f"container/{asset['href']}"
    with StacServer(tmp_path, [item], needs_signature=True) as server:
        monkeypatch.setattr(planetary_computer.sas, "BLOB_STORAGE_DOMAIN", server.url.removeprefix("http://"))
        monkeypatch.setattr(planetary_computer.settings.Settings.get(), "sas_url", f"{server.url}/token")
        refuse(lambda: read_only(server, max_attempts=1), "403")
        np.testing.assert_array_equal(read_only(server, sign="planetary_computer")[0], pixels[:4])
        assert server.count("/token/") == 1


def test_a_signature_that_is_not_given_names_the_item(tmp_path, monkeypatch):
    def refused(*_):
        raise requests.HTTPError("503 Server Error")

    with StacServer(tmp_path, days(tmp_path, 1)) as server:
        (scene,) = find(server)
        monkeypatch.setattr(stac, "signed", refused)
        refuse(lambda: source(server, sign="planetary_computer").read(scene, GRID), scene.href, "503", "again later")


def test_settings_are_read_from_a_job_file(tmp_path):
    path = tmp_path / "stac.yaml"
    path.write_text("source: stac\nassets: {B02: b, B03: g, B04: r, B08: n, SCL: s}\noffset: -1000\n")
    settings = load_settings(StacSettings, path)
    assert (settings.assets.B08, settings.offset) == ("n", -1000)
    assert hash(settings) == hash(load_settings(StacSettings, path))
    assert load_settings(StacSettings, path, ["offset=auto"]).offset == "auto"
    with pytest.raises(ValueError, match="offset"):
        load_settings(StacSettings, path, ["offset=1000"])


def test_says_what_was_left_out(tmp_path):
    """A newer processing, too many clouds, an excluded item, and a tile of the next system."""
    west = Grid(32630, 1_040_000.0, 5_430_000.0, 12, 18)
    items = [
        *days(tmp_path, 1, generated="2023-05-01T20:00:00Z", sequence=0),
        *days(tmp_path, 1, generated="2024-05-01T20:00:00Z", sequence=1),
        *days(tmp_path, 6, cloud_cover=61.0),
        *days(tmp_path, 11),
        {**write_item(tmp_path, NOON.replace(day=16), draw_land(), west, tile="30UXX"), "bbox": days(tmp_path, 1)[0]["bbox"]},
    ]  # fmt: skip
    with StacServer(tmp_path, items) as server:
        found = source(server, max_cloud_cover=60, exclude=(items[3]["id"],)).survey(GRID, *YEAR)
        assert found.scenes == find(server, max_cloud_cover=60, exclude=(items[3]["id"],))
    assert [scene.acquired.day for scene in found.scenes] == [1]
    settings = StacSettings(source="stac", exclude=(items[3]["id"], "S2B_no_such"))
    assert list(settings.unheard(found.left_out).values()) == [["S2B_no_such"]]
    said = {remark: [name[11:19] for name in names] for remark, names in found.left_out.items()}
    assert said == {
        "items named by 'exclude'": ["0230511_"],
        "items of another UTM system than the zone's": ["20230516"],
        "items that are older versions of others": ["20230501"],
        "items with more clouds than 'max_cloud_cover'": ["20230506"],
    }


@pytest.mark.parametrize("count", [{"numberMatched": 5}, {"context": {"matched": 5}}])
def test_says_that_the_catalogue_counts_more_than_it_lists(tmp_path, count):
    with StacServer(tmp_path, days(tmp_path, 1, 6)) as server:
        answer = server.search
        server.search = lambda query: answer(query) | count
        ((remark, names),) = source(server).survey(GRID, *YEAR).left_out.items()
    assert remark == "searches of which the catalogue lists fewer items than it counts"
    assert [name[:6] for name in names] == ["2 of 5"]


def test_tiles_named_by_their_own_time_are_parts_of_one_pass(tmp_path):
    """A catalogue that says of no item when its data take began, only when its tile was seen."""
    items = [*days(tmp_path, 1), *days(tmp_path, 1, tile="31UFS", seen_after_s=371), *days(tmp_path, 6)]
    for item in items:
        for key in ("s2:datatake_id", "s2:product_uri"):
            del item["properties"][key]
    with StacServer(tmp_path, items) as server:
        one, two, three = find(server)
    assert one.acquired == two.acquired
    assert three.acquired.day == 6


def test_local_paths_are_read_as_well(tmp_path):
    item = write_item(tmp_path, NOON, draw_land(), GRID)
    with StacServer(tmp_path, [item]) as server:
        (scene,) = find(server)
        local = [(band, href.replace(server.url, str(tmp_path))) for band, href in scene.assets]
        moved = type(scene)(scene.scene_id, scene.acquired, scene.href, tuple(local), scene.offset)
        np.testing.assert_array_equal(source(server).read(moved, GRID)[0], source(server).read(scene, GRID)[0])
    with rasterio.open(dict(local)["B02"]) as dataset:
        np.testing.assert_array_equal(source(server).read(moved, GRID)[0][0], dataset.read(1))
