import dataclasses

import numpy as np
import pytest
import rasterio
import rasterio.warp

from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.io.retry import RetryPolicy
from cropray.zone_selection import land_cover
from cropray.zone_selection.land_cover import input_files, land_cover_map
from cropray.zone_selection.settings import LandCoverFiles, LandCoverStac
from tests.servers.stac import SIGNATURE, Fault, StacServer
from tests.zone_selection.land_cover_files import draw_classes, write_map

GRID = Grid(32631, 500_040, 5_539_980, 30, 40, 100.0)  # 3.0° E, 50.0° N; 3 km × 4 km
STEP = 1 / 3600  # degrees; 20 m × 31 m


def read(path, grid=GRID, **settings):
    return land_cover_map(LandCoverFiles(path=path, **settings)).read(grid)


def read_slowly(files, grid, level=None):
    """One cell, one file at a time: the pixel that holds the cell's centre."""
    classes = np.zeros(grid.shape, np.uint8)
    cells = list(np.ndindex(grid.shape))
    centres = [grid.centre(*cell) for cell in cells]
    options = {} if level is None else {"overview_level": level}
    for path in files:
        with rasterio.open(path, **options) as dataset:
            pixels = dataset.read(1)
            places = rasterio.warp.transform(f"EPSG:{grid.epsg}", dataset.crs, *zip(*centres, strict=True))
            for cell, x, y in zip(cells, *places, strict=True):
                i, j = dataset.index(x, y)
                if classes[cell] == 0 and 0 <= i < dataset.height and 0 <= j < dataset.width:
                    classes[cell] = 0 if pixels[i, j] == dataset.nodata else pixels[i, j]
    return classes


def test_each_cell_has_the_class_at_its_centre(tmp_path):
    path = write_map(tmp_path / "a.tif", draw_classes((300, 450)), 2.99, 50.02, STEP)
    classes = read(path)
    assert classes.dtype == np.uint8
    assert (classes > 0).all()
    np.testing.assert_array_equal(classes, read_slowly([path], GRID))


def test_it_is_the_same_in_small_blocks(tmp_path, monkeypatch):
    path = write_map(tmp_path / "a.tif", draw_classes((300, 450)), 2.99, 50.02, STEP)
    whole = read(path)
    monkeypatch.setattr(land_cover, "_BLOCK_CELLS", 200)
    np.testing.assert_array_equal(read(path), whole)


def test_the_first_file_with_data_counts(tmp_path):
    files = [
        write_map(tmp_path / "b/1.tif", draw_classes((300, 300), 1, unknown_share=0.3), 3.02, 49.995, STEP),
        write_map(tmp_path / "b/2.tif", draw_classes((150, 450), 2, unknown_share=0.3), 2.97, 50.01, STEP, nodata=10),
        write_map(tmp_path / "b/3.tif", draw_classes((90, 90), 3), 23.0, 49.9, STEP),  # far away
        write_map(tmp_path / "b/4.tif", draw_classes((200, 200), 4), 497_000, 5_538_500, 30, epsg=32631),
    ]
    classes = read(tmp_path / "b")
    assert 0.02 < (classes == 0).mean() < 0.8
    np.testing.assert_array_equal(classes, read_slowly(files, GRID))


@pytest.mark.parametrize(("cell_m", "level"), [(200, 1), (100, 0), (50, None)])
def test_the_coarsest_overview_no_larger_than_a_cell_is_read(tmp_path, cell_m, level):
    # A pixel is 20 m × 31 m: 200 m are 6.5 of them at least (factor 4), 100 m are 3.2 (factor 2), 50 m are 1.6.
    path = write_map(tmp_path / "a.tif", draw_classes((300, 450)), 2.99, 50.02, STEP, overviews=(2, 4, 8))
    grid = dataclasses.replace(GRID, resolution_m=float(cell_m))
    classes = read(path, grid)
    np.testing.assert_array_equal(classes, read_slowly([path], grid, level))
    others = {None, 0, 1, 2} - {level}
    assert all((classes != read_slowly([path], grid, other)).any() for other in others)


def test_nothing_there_is_unknown(tmp_path):
    path = write_map(tmp_path / "a.tif", draw_classes((90, 90)), 23.0, 50.0, STEP)
    assert (read(path) == 0).all()


def test_what_is_no_map_of_classes_is_refused(tmp_path):
    path = write_map(tmp_path / "quality.tif", draw_classes((90, 90)).astype(np.int16), 3.0, 50.0, STEP)
    with pytest.raises(InputError, match=r"quality\.tif.*int16.*uint8 classes.*pattern"):
        read(tmp_path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"quality\.tif"):
        read(path)


def test_a_folder_s_files_are_those_of_the_pattern(tmp_path):
    for name in ("b_Map.tif", "a_Map.tif", "a_Quality.tif"):
        (tmp_path / name).touch()
    found = input_files(LandCoverFiles(path=tmp_path, pattern="*_Map.tif"))
    assert [path.name for path in found] == ["a_Map.tif", "b_Map.tif"]
    assert input_files(LandCoverStac()) == ()
    for settings in (LandCoverFiles(path=tmp_path, pattern="*.jp2"), LandCoverFiles(path=tmp_path / "no")):
        with pytest.raises(InputError, match="neither a file nor a folder"):
            input_files(settings)


def item(name, bbox, year=2021, asset="map"):
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "esa-worldcover", "bbox": list(bbox),
        "geometry": None, "links": [], "properties": {"datetime": f"{year}-06-01T00:00:00Z"},
        "assets": {asset: {"href": f"{name}.tif"}, "input_quality": {"href": "none.tif"}},
    }  # fmt: skip


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Two tiles of 2021, one of 2020 that says otherwise, behind a STAC API."""
    monkeypatch.setattr("cropray.zone_selection.land_cover._POLICY", RetryPolicy(6, 0.01, 0.01))
    write_map(tmp_path / "a.tif", draw_classes((300, 150), 1), 2.99, 50.02, STEP, overviews=(2, 4))
    write_map(tmp_path / "b.tif", draw_classes((300, 300), 2), 2.99 + 150 * STEP, 50.02, STEP, overviews=(2, 4))
    write_map(tmp_path / "0.tif", draw_classes((300, 450), 3), 2.99, 50.02, STEP)
    west, east = (2.99, 49.9, 3.03, 50.02), (3.03, 49.9, 3.12, 50.02)
    with StacServer(tmp_path, [item("b", east), item("a", west), item("0", west, 2020)]) as running:
        yield running


def read_stac(server, **settings):
    return land_cover_map(LandCoverStac(url=server.url, sign=None, **settings)).read(GRID)


def test_a_stac_api_gives_what_the_files_give(server, tmp_path):
    classes = read_stac(server)
    assert (classes > 0).all()
    np.testing.assert_array_equal(classes, read_slowly([tmp_path / "a.tif", tmp_path / "b.tif"], GRID, 0))
    assert server.count("0.tif") == 0


def test_a_failing_server_is_asked_again(server):
    expected = read_stac(server)
    server.fail("/a.tif", Fault(status=503), Fault(status=429))
    server.fail("/b.tif", Fault(keep=0.3))
    server.fail("/search", Fault(status=503))
    np.testing.assert_array_equal(read_stac(server), expected)


def test_a_missing_file_is_asked_once_and_named(server, tmp_path):
    (tmp_path / "b.tif").unlink()
    with pytest.raises(InputError, match=r"b\.tif' of STAC item 'b'.*404"):
        read_stac(server)
    assert server.count("GET /b.tif") <= 1


def test_a_missing_asset_is_named(server):
    with pytest.raises(InputError, match=r"'a' has no asset 'cover', only \['input_quality', 'map'\]"):
        read_stac(server, asset="cover")


@pytest.fixture
def signed(server, monkeypatch):
    """The server, whose files are given with a signature only; links are signed without asking for one."""
    import planetary_computer

    server.needs_signature = True
    monkeypatch.setattr(planetary_computer, "sign_url", lambda href: f"{href}?{SIGNATURE}")
    return server


def test_links_are_signed(signed, tmp_path):
    classes = land_cover_map(LandCoverStac(url=signed.url)).read(GRID)
    np.testing.assert_array_equal(classes, read_slowly([tmp_path / "a.tif", tmp_path / "b.tif"], GRID, 0))


def test_signatures_stay_out_of_messages(signed, tmp_path):
    (tmp_path / "a.tif").write_bytes(b"no GeoTIFF")
    with pytest.raises(InputError, match=r"a\.tif") as caught:
        land_cover_map(LandCoverStac(url=signed.url)).read(GRID)
    assert SIGNATURE not in str(caught.value)
