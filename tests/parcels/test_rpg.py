import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from pydantic import ValidationError

from cropray.errors import InputError
from cropray.grid import Grid
from cropray.parcels.rpg import ParcelSettings, check_parcels, read_parcels
from tests.parcels.polygons import GRID, parcel_frame, square

PARCELS = parcel_frame(
    ("20", "BTH", square(2, 2, 5, 5)),
    ("3", "MIS", square(-4, 10, 8, 6)),  # reaches beyond the grid
    ("1", " JAC ", square(12, 12, 3, 3)),
    ("7", None, square(16, 2, 2, 2)),
    ("out", "BTH", square(0, 40, 5, 5)),
    ("touch", "BTH", square(0, 24, 5, 5)),  # shares an edge with the grid
)
WRITERS = {
    "p.gpkg": lambda frame, path: frame.to_file(path, layer="parcelles"),
    "p.shp": lambda frame, path: frame.to_file(path),
    "p.parquet": lambda frame, path: frame.to_parquet(path),
    "covering.parquet": lambda frame, path: frame.to_parquet(path, write_covering_bbox=True),
}


@pytest.mark.parametrize("epsg", [32631, 2154])
@pytest.mark.parametrize("case", [str.upper, str.lower])
@pytest.mark.parametrize("name", WRITERS)
def test_reads_every_format_and_case(tmp_path, name, case, epsg):
    frame = PARCELS.to_crs(epsg=epsg).rename(columns={"ID_PARCEL": case("ID_PARCEL"), "CODE_CULTU": case("CODE_CULTU")})
    WRITERS[name](frame, tmp_path / name)
    settings = ParcelSettings(path=tmp_path / name)
    check_parcels(settings)
    parcels = read_parcels(settings, GRID)
    assert parcels.columns.tolist() == ["parcel_id", "code", "area_ha", "geometry"]
    if epsg == 32631:  # reprojection there and back leaves nanometres, and an edge may cross by them
        assert parcels.parcel_id.tolist() == ["1", "20", "3", "7"]
    parcels = parcels.set_index("parcel_id").loc[["1", "20", "3", "7"]]
    assert parcels.code.tolist() == ["JAC", "BTH", "MIS", ""]
    np.testing.assert_allclose(parcels.area_ha, [0.09, 0.25, 0.48, 0.04], rtol=1e-6)
    assert parcels.crs.to_epsg() == 32631


def test_ids_and_codes_that_are_numbers(tmp_path):
    frame = PARCELS.assign(ID_PARCEL=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], CODE_CULTU=[1, 2, 3, 4, 5, 6])
    frame.to_file(tmp_path / "p.gpkg")
    parcels = read_parcels(ParcelSettings(path=tmp_path / "p.gpkg"), GRID)
    assert parcels.parcel_id.tolist() == ["1", "2", "3", "4"]
    assert parcels.code.tolist() == ["1", "2", "3", "4"]


def test_repairs_polygons(tmp_path):
    x, y = GRID.bounds[0], GRID.bounds[3]
    bow_tie = shapely.Polygon([(x, y), (x + 100, y - 100), (x + 100, y), (x, y - 100)])
    spike = shapely.Polygon(
        [(x, y - 100), (x + 50, y - 100), (x + 50, y - 150), (x + 50, y - 10), (x + 50, y - 150), (x, y - 150)]
    )
    flat = shapely.Polygon([(x + 5, y - 5), (x + 50, y - 5), (x + 20, y - 5)])
    frame = parcel_frame(
        ("a", "BTH", bow_tie),
        ("b", "BTH", spike),
        ("c", "BTH", flat),
        ("d", "BTH", shapely.force_3d(square(9, 9, 2, 2), 7)),
    )
    frame.to_parquet(tmp_path / "p.parquet")
    parcels = read_parcels(ParcelSettings(path=tmp_path / "p.parquet"), GRID)
    assert parcels.parcel_id.tolist() == ["a", "b", "d"]
    assert parcels.is_valid.all()
    assert not parcels.has_z.any()
    assert set(parcels.geom_type) <= {"Polygon", "MultiPolygon"}
    np.testing.assert_allclose(parcels.area_ha, [0.5, 0.25, 0.04])


def refuse(settings, *said):
    for action in (lambda: check_parcels(settings), lambda: read_parcels(settings, GRID)):
        with pytest.raises(InputError) as error:
            action()
        for text in (str(settings.path), *said):
            assert text in str(error.value)


@pytest.mark.parametrize("name", ["p.gpkg", "p.shp", "p.parquet"])
def test_refuses_missing_and_corrupt_files(tmp_path, name):
    path = tmp_path / name
    refuse(ParcelSettings(path=path), "does not exist", "path")
    path.write_bytes(b"nonsense" * 1000)
    refuse(ParcelSettings(path=path), "fetch it again")


@pytest.mark.filterwarnings("ignore:.crs. was not provided")
@pytest.mark.parametrize("name", ["p.shp", "p.parquet", "p.gpkg"])
def test_refuses_a_file_without_coordinate_system_unless_told(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](PARCELS.to_crs(epsg=2154).set_crs(None, allow_override=True), path)
    refuse(ParcelSettings(path=path), "no coordinate system", "EPSG:2154")
    settings = ParcelSettings(path=path, crs="EPSG:2154")
    check_parcels(settings)
    assert {"1", "20", "3", "7"} <= set(read_parcels(settings, GRID).parcel_id)


def test_refuses_a_contradiction_between_file_and_settings(tmp_path):
    PARCELS.to_file(tmp_path / "p.gpkg")
    refuse(ParcelSettings(path=tmp_path / "p.gpkg", crs="EPSG:2154"), "UTM zone 31N", "Lambert-93", "remove 'crs'")


@pytest.mark.filterwarnings("ignore:.crs. was not provided")
@pytest.mark.parametrize("name", ["p.shp", "p.parquet"])
def test_check_refuses_coordinates_that_cannot_be_in_the_system(tmp_path, name):
    WRITERS[name](PARCELS.to_crs(epsg=2154).set_crs(None, allow_override=True), tmp_path / name)
    with pytest.raises(InputError, match="do not lie in WGS 84"):
        check_parcels(ParcelSettings(path=tmp_path / name, crs="EPSG:4326"))


@pytest.mark.parametrize("name", ["p.gpkg", "p.shp", "p.parquet"])
def test_refuses_a_missing_column_and_lists_those_there(tmp_path, name):
    WRITERS[name](PARCELS, tmp_path / name)
    refuse(ParcelSettings(path=tmp_path / name, code_column="CROP"), "'CROP'", "CODE_CULTU", "SURF_PARC")


def test_refuses_layers_in_doubt(tmp_path):
    path = tmp_path / "p.gpkg"
    PARCELS.to_file(path, layer="one")
    PARCELS.iloc[:2].to_file(path, layer="two")
    pyogrio.write_dataframe(PARCELS.drop(columns="geometry"), path, layer="a table without geometry")
    refuse(ParcelSettings(path=path), "2 layers", "['one', 'two']")
    refuse(ParcelSettings(path=path, layer="three"), "no layer 'three'", "['one', 'two']")
    assert len(read_parcels(ParcelSettings(path=path, layer="two"), GRID)) == 2


def test_refuses_parquet_without_geometry(tmp_path):
    PARCELS.drop(columns="geometry").to_parquet(tmp_path / "p.parquet")
    refuse(ParcelSettings(path=tmp_path / "p.parquet"), "without geometry")


def test_refuses_an_unknown_coordinate_system(tmp_path):
    with pytest.raises(ValidationError, match="EPSG:2154"):
        ParcelSettings(path=tmp_path, crs="Lambert")


def test_real_geopackage_with_lower_case_columns(real_data):
    settings = ParcelSettings(path=real_data / "rpg_samples/rpg2022_100/PARCELLES_GRAPHIQUES.gpkg")
    check_parcels(settings)
    raw = gpd.read_file(settings.path).to_crs(epsg=32631)
    x, y = raw.geometry[0].representative_point().coords[0]
    grid = Grid(32631, round(x - 500, -1), round(y + 500, -1), 100, 100)
    parcels = read_parcels(settings, grid).set_index("parcel_id")
    expected = raw[raw.intersects(shapely.box(*grid.bounds))]
    assert sorted(parcels.index) == sorted(expected.id_parcel)
    assert parcels.code[raw.id_parcel[0]] == raw.code_cultu[0]
    np.testing.assert_allclose(
        parcels.area_ha[expected.id_parcel], expected.surf_parc, atol=0.011
    )  # declared in 0.01 ha


def test_real_shapefile_without_coordinate_system(real_data):
    path = real_data / "rpg_samples/bretagne_739/VT_final.shp"
    refuse(ParcelSettings(path=path), "EPSG:2154", ".prj")
    settings = ParcelSettings(path=path, crs="EPSG:2154")
    check_parcels(settings)
    parcels = read_parcels(settings, Grid(32630, 400_000.0, 5_500_000.0, 30_000, 30_000))
    assert len(parcels) == 739
    assert parcels.code.nunique() == 34
    assert "" not in parcels.parcel_id.to_list()
