"""What a catalogue may have opened, and what it may not."""

import datetime as dt
import logging

import numpy as np
import pytest

from cropray.core.errors import InputError
from cropray.imagery.sources.stac import scenes as stac
from cropray.imagery.sources.stac.doors import absolute, require_door
from cropray.imagery.sources.stac.scenes import StacScenes
from cropray.imagery.sources.stac.settings import StacSettings
from tests.imagery.rasters import draw_pixels
from tests.imagery.test_stac import GRID, NOON
from tests.servers.stac import StacServer
from tests.servers.stac_items import write_item

AWAY = "https://stac.example/v1"
HTTP = "http://stac.example:8080/v1"
MINE = "http://127.0.0.1:8123"
PRIVATE = "https://10.1.2.3/stac"


@pytest.fixture(autouse=True)
def _no_answers_of_other_servers():
    stac._find.cache_clear()


@pytest.mark.parametrize(
    ("href", "catalogue"),
    [
        ("https://cogs.example/a/B02.tif", AWAY),
        ("https://account.blob.core.windows.net/c/B02.tif?st=1&sig=x%2F", AWAY),
        ("HTTPS://COGS.example/B02.tif", AWAY),
        ("https://93.184.216.34/B02.tif", AWAY),
        ("s3://eodata/Sentinel-2/B02.jp2", AWAY),
        ("gs://bucket/B02.tif", AWAY),
        ("az://container/B02.tif", AWAY),
        ("http://stac.example:9000/B02.tif", HTTP),
        ("https://10.1.2.3:9000/B02.tif", PRIVATE),
        ("http://127.0.0.1:9000/B02.tif", MINE),
        ("http://localhost/B02.tif", MINE),
        ("/data/scenes/B02.tif", MINE),
        ("file:///data/scenes/B02.tif", MINE),
        ("/data/my scenes/B02.tif", MINE),
        ("/data/scenes/B02.tif", "http://localhost:8080"),
        ("/data/scenes/B02.tif", "http://[::1]:8080"),
    ],
)
def test_opens(href, catalogue):
    require_door(href, catalogue)


@pytest.mark.parametrize(
    "href",
    [
        "http://169.254.169.254/latest/meta-data/B02.tif",
        "https://169.254.169.254/B02.tif",
        "https://user@169.254.169.254/B02.tif",
        "https://2852039166/B02.tif",
        "https://0xa9fea9fe/B02.tif",
        "https://0251.254.169.254/B02.tif",
        "https://169.254.43518/B02.tif",
        "https://[::ffff:169.254.169.254]/B02.tif",
        "https://[fe80::1%25eth0]/B02.tif",
        "https://[fd00:ec2::254]/B02.tif",
        "https://[64:ff9b::169.254.169.254]/B02.tif",
        "https://[2002:a9fe:a9fe::]/B02.tif",
        "http://metadata.google.internal./computeMetadata/v1/B02.tif",
        "https://100.100.100.200/B02.tif",
        "/vsicurl/http://169.254.169.254/B02.tif",
        "/vsis3/other-bucket/B02.tif",
        "//vsis3/other-bucket/B02.tif",
        "file:///vsis3/other-bucket/B02.tif",
        "file://host/B02.tif",
        "<VRTDataset rasterXSize='4' rasterYSize='4'></VRTDataset>",
        "\n<VRTDataset/>",
        " https://cogs.example/B02.tif",
        "https://cogs.example /B02.tif",
        "vrt:///etc/passwd",
        "vrt://https://h/a.tif",
        "GTIFF_DIR:1:/srv/private.tif",
        "NETCDF:/srv/private.nc:B02",
        'STACIT:"https://h/items"',
        '{"type": "gdal_streamed_alg"}',
        "zip+https://h/a.zip!B02.tif",
        "zip:///srv/a.zip!B02.tif",
        "ftp://h/B02.tif",
        "https://cogs.example\\@169.254.169.254/B02.tif",
        "https://169.254.169%2E254/B02.tif",
        "https:///B02.tif",
        "https://[bad/B02.tif",
    ],
)
@pytest.mark.parametrize("catalogue", [AWAY, HTTP, MINE, PRIVATE])
def test_never_opens(href, catalogue):
    with pytest.raises(InputError, match="is not opened"):
        require_door(href, catalogue)


@pytest.mark.parametrize("catalogue", [AWAY, HTTP, PRIVATE])
@pytest.mark.parametrize(
    "href",
    [
        "/srv/private/B02.tif",
        "file:///srv/private/B02.tif",
        "http://cogs.example/B02.tif",
        "https://127.0.0.1/B02.tif",
        "https://127.1/B02.tif",
        "https://[::1]/B02.tif",
        "https://localhost/B02.tif",
        "https://192.168.1.7/B02.tif",
        "https://10.9.9.9/B02.tif",
        "https://0/B02.tif",
    ],
)
def test_opens_nothing_of_this_machine_or_network_for_a_catalogue_elsewhere(href, catalogue):
    with pytest.raises(InputError, match="is not opened"):
        require_door(href, catalogue)


def test_a_relative_address_starts_at_the_items_page():
    page = "https://stac.example/items/a/a.json"
    assert absolute("./B02.tif", page) == "https://stac.example/items/a/B02.tif"
    assert absolute("../b/B02.tif", page) == "https://stac.example/items/b/B02.tif"
    assert absolute("https://h/B02.tif", page) == "https://h/B02.tif"
    assert absolute("/srv/B02.tif", page) == "/srv/B02.tif"  # refused behind the next door
    with pytest.raises(ValueError, match="relative, and the item has no link 'self'"):
        absolute("B02.tif", None)


def source(server, **settings):
    return StacScenes(
        StacSettings(source="stac", url=server.url, max_wait_s=0, timeout_s=20, max_attempts=1, **settings)
    )


def find(server):
    return source(server).survey(GRID, dt.date(2023, 1, 1), dt.date(2024, 1, 1)).scenes


def test_a_planted_address_is_refused_before_anything_is_read(tmp_path):
    item = write_item(tmp_path, NOON, draw_pixels(GRID.shape), GRID)
    item["assets"]["red"]["href"] = "http://169.254.169.254/latest/meta-data://x"
    with StacServer(tmp_path, [item]) as server:
        with pytest.raises(InputError, match=r"B04: the address 'http://169.254.*link-local") as error:
            find(server)
        assert item["id"] in str(error.value)
        assert "'exclude'" in str(error.value)
        assert server.count(".tif") == 0


def test_a_file_that_names_further_files_is_not_followed(tmp_path):
    """A VRT under the name of a GeoTIFF, which would read a file of this machine."""
    item = write_item(tmp_path, NOON, draw_pixels(GRID.shape), GRID)
    (secret,) = tmp_path.rglob("nir.tif")
    xml = (
        f'<VRTDataset rasterXSize="{GRID.width}" rasterYSize="{GRID.height}"><VRTRasterBand dataType="UInt16" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="0">{secret}</SourceFilename><SourceBand>1</SourceBand>'
        f"</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with StacServer(tmp_path, [item]) as server:
        (scene,) = find(server)
        next(tmp_path.rglob("red.tif")).write_text(xml)
        with pytest.raises(InputError, match=r"red\.tif"):
            source(server).read(scene, GRID)


def test_signatures_are_in_no_message_and_no_log(tmp_path, caplog):
    item = write_item(tmp_path, NOON, draw_pixels(GRID.shape), GRID)
    with StacServer(tmp_path, [item]) as server, caplog.at_level(logging.DEBUG):
        (scene,) = find(server)
        for query in ("st=1&sig=HUSH%2Bx", "X-Amz-Credential=HUSH%2Fx&X-Amz-Signature=HUSH", "subscription-key=HUSH"):
            moved = tuple((band, f"{href.replace('nir', 'gone')}?{query}") for band, href in scene.assets)
            planted = type(scene)(scene.scene_id, scene.acquired, scene.href, moved, scene.offset)
            with pytest.raises(InputError, match=r"gone\.tif") as error:
                source(server).read(planted, GRID)
            assert "HUSH" not in str(error.value)
    assert "HUSH" not in caplog.text
    assert "sig=***" in caplog.text


def test_relative_addresses_are_read(tmp_path):
    pixels = draw_pixels(GRID.shape, scl=4)
    item = write_item(tmp_path, NOON, pixels, GRID)
    folder = f"../../{next(iter(item['assets'].values()))['href'].partition('/')[0]}"
    with StacServer(tmp_path, [item]) as server:
        answer = server.search

        def relative(query):
            page = answer(query)
            for feature in page["features"]:
                feature["links"][0]["href"] = f"{server.url}/collections/items/{feature['id']}"
                for asset in feature["assets"].values():
                    asset["href"] = f"{folder}/{asset['href'].rpartition('/')[2]}"
            return page

        server.search = relative
        (scene,) = find(server)
        np.testing.assert_array_equal(source(server).read(scene, GRID)[0], pixels[:4])
