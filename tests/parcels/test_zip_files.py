"""Registers as agencies hand them out: one vector file, or several, in a zip file."""

import os
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from cropray.core.errors import InputError
from cropray.parcels import zip_files
from cropray.parcels.rpg import (
    ParcelSettings,
    check_parcels,
    describe_extent,
    extract_parcels,
    has_spatial_index,
    read_parcels,
)
from tests.parcels.polygons import GRID, parcel_frame, square

PARCELS = parcel_frame(
    ("1", "BTH", square(2, 2, 5, 5)), ("2", "MIS", square(12, 12, 4, 4)), ("3", "é", square(1, 16, 2, 2))
)


def pack(folder, name, *tables, extra=()):
    """A zip file of tables (frame, name inside), with files beside them."""
    loose = folder / "loose"
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for frame, inside in tables:
            file = loose / inside
            file.parent.mkdir(parents=True, exist_ok=True)
            frame.to_file(file)
        for file in sorted(path for path in loose.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(loose))
            file.unlink()
        for inside in extra:
            archive.writestr(inside, b"not a table")
    return folder / name


def read(path, **settings):
    register = ParcelSettings(path=path, **settings)
    check_parcels(register)
    return read_parcels(register, GRID).frame


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("p.zip", "p.gpkg"),
        ("p.gpkg.zip", "INSPIRE 2025-1.gpkg"),
        ("p.shp.zip", "p.shp"),
        ("P (1).ZIP", "deep/er/Größe.shp"),
        ("a.zip.zip", "a.zip.gpkg"),
    ],
)
def test_a_zipped_register_reads_like_the_same_one_unpacked(tmp_path, name, inside):
    frame = PARCELS.to_crs(epsg=2154)
    frame.to_file(tmp_path / "plain.gpkg")
    extra = ["Lies mich.pdf", "__MACOSX/._p.gpkg", "__MACOSX/deep/._p.shp"]
    path = pack(tmp_path, name, (frame, inside), extra=extra)
    zipped, plain = read(path), read(tmp_path / "plain.gpkg")
    assert zipped.parcel_id.tolist() == plain.parcel_id.tolist() == ["1", "2", "3"]
    assert zipped.code.tolist() == ["BTH", "MIS", "é"]
    assert zipped.geometry.geom_equals(plain.geometry).all()


def test_what_is_compressed_is_read_once_for_all_zones(tmp_path):
    settings = ParcelSettings(path=pack(tmp_path, "p.zip", (PARCELS, "p.gpkg")))
    assert not has_spatial_index(settings)
    extract_parcels(settings, [GRID], tmp_path / "extract.gpkg")
    frame = read_parcels(settings, GRID, tmp_path / "extract.gpkg").frame
    np.testing.assert_array_equal(frame.to_wkb(), read(settings.path).to_wkb())


def test_a_relative_path_starts_at_the_current_folder(tmp_path, monkeypatch):
    path = pack(tmp_path, "p.zip", (PARCELS, "p.shp"))
    monkeypatch.chdir(tmp_path.parent)
    assert len(read(os.path.relpath(path))) == 3


def test_of_several_files_the_setting_names_one(tmp_path):
    path = pack(tmp_path, "p.zip", (PARCELS.iloc[:1], "north.shp"), (PARCELS.iloc[1:], "south.shp"))
    assert read(path, layer="south").parcel_id.tolist() == ["2", "3"]
    for layer in (None, "west"):
        with pytest.raises(
            InputError, match=r"p.zip' holds 2 vector files; set 'layer' to one of \['north', 'south'\]"
        ):
            check_parcels(ParcelSettings(path=path, layer=layer))


def test_a_file_of_several_is_named_with_its_layer_where_it_has_several(tmp_path):
    path = tmp_path / "p.zip"
    for name, layer, rows in [("north", "fields", [0]), ("south", "fields", [1]), ("south", "hedges", [2])]:
        PARCELS.iloc[rows].to_file(tmp_path / f"{name}.gpkg", layer=layer, driver="GPKG")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("north", "south"):
            archive.write(tmp_path / f"{name}.gpkg", f"{name}.gpkg")
    assert read(path, layer="north").parcel_id.tolist() == ["1"]
    assert read(path, layer="south/fields").parcel_id.tolist() == ["2"]
    assert read(path, layer="south/hedges").parcel_id.tolist() == ["3"]
    with pytest.raises(InputError, match=r"2 layers with geometry; set 'layer' to one of \['fields', 'hedges'\]"):
        read(path, layer="south")
    with pytest.raises(InputError, match=r"one of \['north', 'south'\], with '/' and a layer"):
        read(path, layer="hedges")


def test_a_zip_file_without_a_register_or_cut_short_is_refused(tmp_path):
    empty = pack(tmp_path, "empty.zip", extra=["readme.txt"])
    with pytest.raises(InputError, match=r"holds no vector file .*readme.txt.*unpack it"):
        check_parcels(ParcelSettings(path=empty))
    path = pack(tmp_path, "p.zip", (PARCELS, "p.shp"))
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(InputError, match=r"p.zip' cannot be unpacked .*fetch it again"):
        check_parcels(ParcelSettings(path=path))


def test_it_is_unpacked_once_and_again_when_it_changed(tmp_path, monkeypatch):
    path = pack(tmp_path, "p.zip", (PARCELS, "p.gpkg"))
    made, make = [], zip_files.tempfile.mkdtemp
    monkeypatch.setattr(zip_files.tempfile, "mkdtemp", lambda **options: made.append(make(**options)) or made[-1])
    assert len(read(path)) == len(read(path, layer="p")) == 3
    assert len(made) == 1
    pack(tmp_path, "p.zip", (PARCELS.iloc[:1], "p.gpkg"))
    assert len(read(path)) == 1
    assert len(made) == 2


def test_a_disk_without_room_is_told_beforehand(tmp_path, monkeypatch):
    path = pack(tmp_path, "p.zip", (PARCELS, "p.gpkg"))
    monkeypatch.setattr(zip_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"p.zip' has 0.0 GB unpacked .*set TMPDIR"):
        check_parcels(ParcelSettings(path=path))


def test_a_zip_file_whose_middle_is_damaged_is_refused(tmp_path):
    path = pack(tmp_path, "p.zip", (PARCELS, "p.gpkg"))
    content = bytearray(path.read_bytes())
    content[200:400] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"p.zip' cannot be unpacked .*fetch it again"):
        check_parcels(ParcelSettings(path=path))


def test_where_a_zipped_register_lies_is_not_asked(tmp_path):
    path = pack(tmp_path, "p.zip", (PARCELS, "p.gpkg"))
    assert describe_extent(ParcelSettings(path=path)) == "another area"
    assert not list(tmp_path.glob("**/*.gpkg"))
