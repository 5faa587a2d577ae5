"""What decides that labels are up to date."""

from pathlib import Path

from cropray.stages.inputs import source_fingerprint
from cropray.stages.labels import _parcel_files


def test_a_shapefile_changes_with_its_attributes(tmp_path):
    for suffix in (".shp", ".dbf", ".shx"):
        (tmp_path / f"parcels{suffix}").write_text(suffix)
    before = source_fingerprint(_parcel_files(tmp_path / "parcels.shp"))
    (tmp_path / "parcels.dbf").write_text("other codes")
    assert source_fingerprint(_parcel_files(tmp_path / "parcels.shp")) != before


def test_other_tables_are_one_file():
    assert _parcel_files(Path("x/parcels.gpkg")) == [Path("x/parcels.gpkg")]
