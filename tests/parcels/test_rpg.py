import json
import struct

import geopandas as gpd
import geopandas.testing
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from pydantic import ValidationError

from cropray.core.errors import InputError
from cropray.core.grid import Grid
from cropray.parcels import vector_files
from cropray.parcels.rpg import (
    ParcelSettings,
    check_parcels,
    cut_extract,
    extract_parcels,
    has_spatial_index,
    iterate_codes,
)
from cropray.parcels.rpg import read_parcels as read_with_counts
from tests.parcels.polygons import GRID, parcel_frame, square

PARCELS = parcel_frame(
    ("20", "BTH", square(2, 2, 5, 5)),
    ("3", "MIS", square(-4, 10, 8, 6)),  # reaches beyond the grid
    ("1", " JAC ", square(12, 12, 3, 3)),
    ("7", None, square(16, 2, 2, 2)),
    ("out", "BTH", square(0, 40, 5, 5)),
    ("touch", "BTH", square(0, 24, 5, 5)),  # shares an edge with the grid
)


def read_parcels(settings, grid):
    return read_with_counts(settings, grid).frame


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


def test_an_id_is_the_same_text_whatever_else_is_read_with_it(tmp_path):
    PARCELS.assign(ID_PARCEL=[1.0, np.nan, 3e15, 4.25, 5.5, 6.0]).to_file(tmp_path / "p.gpkg")
    found = read_with_counts(ParcelSettings(path=tmp_path / "p.gpkg"), GRID)
    assert found.frame.parcel_id.tolist()[:3] == ["1", "3000000000000000", "4.25"]
    assert found.n_without_id == 1


def test_texts_that_stand_for_no_id_are_none(tmp_path):
    PARCELS.assign(ID_PARCEL=["NULL", "nan", "None", " n/a", "5", "6"]).to_file(tmp_path / "p.gpkg")
    found = read_with_counts(ParcelSettings(path=tmp_path / "p.gpkg"), GRID)
    assert found.n_without_id == found.frame.parcel_id.str.startswith("outline-").sum() == 4
    assert found.frame.parcel_id.is_unique


def test_one_column_is_not_both_id_and_code(tmp_path):
    with pytest.raises(ValidationError, match="both 'code_cultu': all parcels of one crop would be one"):
        ParcelSettings(path=tmp_path / "p.gpkg", id_column="code_cultu")


@pytest.mark.parametrize("name", WRITERS)
def test_a_register_without_a_column_of_ids(tmp_path, name):
    frame = PARCELS.drop(columns="ID_PARCEL")
    WRITERS[name](frame, tmp_path / name)
    refuse(ParcelSettings(path=tmp_path / name), "no column 'ID_PARCEL'", "id_column: null")
    settings = ParcelSettings(path=tmp_path / name, id_column=None)
    check_parcels(settings)
    found = read_with_counts(settings, GRID)
    assert found.frame.parcel_id.str.startswith("outline-").all()
    assert found.frame.parcel_id.is_unique
    assert found.n_without_id == len(found.frame) == 4
    assert sorted(found.frame.code) == ["", "BTH", "JAC", "MIS"]
    extract_parcels(settings, [GRID], tmp_path / "extract.gpkg")
    extracted = read_with_counts(settings, GRID, tmp_path / "extract.gpkg").frame
    assert extracted.parcel_id.tolist() == found.frame.parcel_id.tolist()


@pytest.mark.parametrize("name", WRITERS)
def test_declared_areas_go_before_those_of_the_polygons(tmp_path, name):
    declared = [0.3, 0.5, np.nan, 0.0, 9.0, 9.0]  # of 20: 0.25 ha, of 3: 0.48 ha
    WRITERS[name](PARCELS.assign(Area=declared), tmp_path / name)
    settings = ParcelSettings(path=tmp_path / name, area_column="area")
    extract_parcels(settings, [GRID], tmp_path / "extract.gpkg")
    for extract in (None, tmp_path / "extract.gpkg"):
        frame = read_with_counts(settings, GRID, extract).frame.set_index("parcel_id")
        np.testing.assert_allclose(frame.area_ha[["1", "20", "3", "7"]], [0.09, 0.3, 0.5, 0.04], rtol=1e-6)


@pytest.mark.parametrize(
    ("areas", "said"),
    [(2500.0, "is 1e+04 times"), ("large", "holds 'large' near a zone, 1 such cells"), (np.nan, "holds no areas")],
)
def test_areas_in_another_unit_are_refused(tmp_path, areas, said):
    PARCELS.iloc[:1].assign(area=areas).to_file(tmp_path / "p.gpkg")
    with pytest.raises(InputError) as error:
        read_parcels(ParcelSettings(path=tmp_path / "p.gpkg", area_column="AREA"), GRID)
    for text in ("p.gpkg': column 'AREA'", said, "must hold hectares"):
        assert text in str(error.value)


def test_declared_areas_may_be_texts_with_a_decimal_comma(tmp_path):
    areas = pd.Series(["0,3", "0,5", "", "NA", "9", " 9.0 "]).set_axis(PARCELS.index)
    PARCELS.assign(Area=areas).to_file(tmp_path / "p.gpkg")
    frame = read_parcels(ParcelSettings(path=tmp_path / "p.gpkg", area_column="area"), GRID)
    np.testing.assert_allclose(frame.set_index("parcel_id").area_ha[["1", "20", "3", "7"]], [0.09, 0.3, 0.5, 0.04])


def test_the_area_is_neither_id_nor_code(tmp_path):
    with pytest.raises(ValidationError, match="'area_column' is 'id_parcel', which is the id or the code"):
        ParcelSettings(path=tmp_path / "p.gpkg", area_column="id_parcel")


def test_the_year_is_for_the_french_legend(tmp_path):
    with pytest.raises(ValidationError, match="remove 'year'"):
        ParcelSettings(path=tmp_path / "p.gpkg", legend=tmp_path / "legend.csv", year=2023)


@pytest.mark.parametrize("name", WRITERS)
def test_the_codes_of_a_register_are_read_without_its_polygons(tmp_path, name):
    WRITERS[name](PARCELS.assign(CODE_CULTU=[1.0, 2.5, 1.0, np.nan, 7.0, 7.0]), tmp_path / name)
    (codes,) = iterate_codes(ParcelSettings(path=tmp_path / name))
    assert sorted(codes) == ["", "1", "2.5", "7"]


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
        for text in (str(settings.path.parent), *said):
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


UNINDEXED = {
    "plain.gpkg": lambda frame, path: frame.to_file(path, SPATIAL_INDEX="NO"),
    "p.shp": lambda frame, path: frame.to_file(path),
    "p.geojson": lambda frame, path: frame.to_file(path),
    "p.parquet": lambda frame, path: frame.to_parquet(path, row_group_size=2),
    "words.parquet": lambda frame, path: frame.astype({"CODE_CULTU": "category"}).to_parquet(path),
}
BESIDE = Grid(32631, GRID.x_min + 120, GRID.y_max, 8, 30)  # shares parcels with GRID


@pytest.mark.parametrize("name", [*WRITERS, *UNINDEXED])
def test_knows_which_files_have_a_spatial_index(tmp_path, name):
    (WRITERS | UNINDEXED)[name](PARCELS.to_crs(epsg=4326), tmp_path / name)
    is_indexed = name in {"p.gpkg", "covering.parquet"}
    assert has_spatial_index(ParcelSettings(path=tmp_path / name)) == is_indexed


def test_uses_the_index_file_of_a_shapefile(tmp_path):
    PARCELS.to_file(tmp_path / "p.shp", SPATIAL_INDEX="YES")
    assert has_spatial_index(ParcelSettings(path=tmp_path / "p.shp"))
    assert (tmp_path / "p.qix").exists()


@pytest.mark.parametrize(
    ("name", "epsg"),
    [
        ("plain.gpkg", 32631),
        ("p.shp", 32631),
        ("p.shp", 2154),
        ("p.geojson", 4326),
        ("p.parquet", 2154),
        ("p.parquet", 4326),
        ("words.parquet", 2154),
    ],
)
def test_an_extract_gives_the_same_parcels_as_the_file(tmp_path, monkeypatch, name, epsg):
    monkeypatch.setattr(vector_files, "_BATCH_ROWS", 2)  # several pieces
    frame = pd.concat([PARCELS, parcel_frame(("far", "BTH", square(0, 900, 3, 3)), ("none", "BTH", None))])
    UNINDEXED[name](frame.to_crs(epsg=epsg), tmp_path / name)
    settings, extract = ParcelSettings(path=tmp_path / name), tmp_path / "extract.gpkg"
    extract_parcels(settings, [GRID, BESIDE], extract)
    ids = set(gpd.read_file(extract).parcel_id)
    assert {"20", "3", "1", "7", "out"} <= ids
    assert not ids & {"far", "none"}
    for grid in (GRID, BESIDE):
        ours, expected = read_with_counts(settings, grid, extract), read_with_counts(settings, grid)
        gpd.testing.assert_geodataframe_equal(ours.frame, expected.frame)
        assert len(expected.frame)
        part = tmp_path / f"{grid.x_min}.gpkg"
        cut_extract(extract, grid, part)
        gpd.testing.assert_geodataframe_equal(read_with_counts(settings, grid, part).frame, expected.frame)
        assert set(expected.frame.parcel_id) <= set(gpd.read_file(part).parcel_id) < ids


def test_an_extract_may_be_empty(tmp_path):
    PARCELS.to_file(tmp_path / "p.shp")
    settings = ParcelSettings(path=tmp_path / "p.shp")
    away = Grid(32631, 800_000.0, 5_400_000.0, 9, 9)
    extract_parcels(settings, [away], tmp_path / "extract.gpkg")
    assert read_with_counts(settings, away, tmp_path / "extract.gpkg").frame.empty
    cut_extract(tmp_path / "extract.gpkg", away, tmp_path / "part.gpkg")
    assert read_with_counts(settings, away, tmp_path / "part.gpkg").frame.empty
    assert read_parcels(settings, away).empty


def test_a_file_without_index_is_read_in_pieces(tmp_path):
    n = 200_000
    ids = np.arange(n)
    polygons = shapely.box(ids * 20.0, 0, ids * 20.0 + 15, 15)
    frame = gpd.GeoDataFrame({"ID_PARCEL": ids.astype(str), "CODE_CULTU": "BTH"}, geometry=polygons, crs=2154)
    frame.to_parquet(tmp_path / "p.parquet")
    header = vector_files.read_header(tmp_path / "p.parquet", None)
    box = (0.0, 0.0, 1e9, 1.0)
    pieces = list(vector_files.iterate_features(tmp_path / "p.parquet", header, ["ID_PARCEL"], [box]))
    assert max(piece.num_rows for piece in pieces) <= 65_536
    assert [i for piece in pieces for i in piece["ID_PARCEL"].to_pylist()] == frame.ID_PARCEL.tolist()


@pytest.mark.parametrize("part", ["p.shp", "p.dbf", "p.shx", "p.parquet", "p.gpkg"])
def test_refuses_a_file_that_was_cut(tmp_path, part):
    name = part if part in WRITERS else "p.shp"
    WRITERS[name](gpd.GeoDataFrame(pd.concat([PARCELS] * 2000, ignore_index=True)), tmp_path / name)
    (tmp_path / part).write_bytes((tmp_path / part).read_bytes()[: (tmp_path / part).stat().st_size // 2])
    refuse(ParcelSettings(path=tmp_path / name), "fetch it again")


def test_says_that_a_damaged_piece_cannot_be_read(tmp_path):
    path = tmp_path / "p.parquet"
    gpd.GeoDataFrame(pd.concat([PARCELS] * 500, ignore_index=True)).to_parquet(path)
    content = bytearray(path.read_bytes())
    content[400:2400] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="fetch it again"):
        extract_parcels(ParcelSettings(path=path), [GRID], tmp_path / "extract.gpkg")


def test_refuses_native_geometry_without_bounding_boxes(tmp_path):
    PARCELS.to_parquet(tmp_path / "p.parquet", geometry_encoding="geoarrow", schema_version="1.1.0")
    refuse(ParcelSettings(path=tmp_path / "p.parquet"), "'polygon'", "write_covering_bbox")


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


def surfaces(frame, path, **options):
    """A GeoPackage whose polygons are MultiSurfaces of one straight polygon, as database exports hold."""
    wkb = [struct.pack("<BII", 1, 12, 1) + shapely.to_wkb(one, byte_order=1) for one in frame.geometry]
    table = pa.table({name: frame[name].to_list() for name in ("ID_PARCEL", "CODE_CULTU")} | {"geom": wkb})
    kind = {"geometry_name": "geom", "geometry_type": "Unknown", "crs": frame.crs.to_wkt()}
    pyogrio.write_arrow(table, path, layer="p", driver="GPKG", **kind, **options)


@pytest.mark.parametrize("is_indexed", [True, False])
def test_surfaces_of_straight_polygons_are_polygons(tmp_path, is_indexed):
    far = parcel_frame(("far", "BTH", square(0, 90_000, 3, 3)))
    frame = pd.concat([PARCELS.fillna({"CODE_CULTU": ""}), far], ignore_index=True)
    frame.to_file(tmp_path / "plain.gpkg")
    surfaces(frame, tmp_path / "p.gpkg", layer_options={} if is_indexed else {"SPATIAL_INDEX": "NO"})
    settings = ParcelSettings(path=tmp_path / "p.gpkg")
    assert has_spatial_index(settings) == is_indexed
    check_parcels(settings)
    expected = read_parcels(ParcelSettings(path=tmp_path / "plain.gpkg"), GRID)
    found = read_parcels(settings, GRID)
    assert found.parcel_id.tolist() == expected.parcel_id.tolist()
    assert shapely.equals(found.geometry, expected.geometry).all()
    extract_parcels(settings, [GRID], tmp_path / "extract.gpkg")
    assert shapely.equals(
        read_with_counts(settings, GRID, tmp_path / "extract.gpkg").frame.geometry, found.geometry
    ).all()


TYPES = {
    "string_view": lambda column: column.cast(pa.string_view()),
    "large_string": lambda column: column.cast(pa.large_string()),
    "dictionary": lambda column: column.cast(pa.string()).dictionary_encode(),
}


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize("name", TYPES)
def test_text_of_any_arrow_type(tmp_path, name, is_indexed):
    PARCELS.to_parquet(tmp_path / "plain.parquet", write_covering_bbox=is_indexed)
    table = pq.read_table(tmp_path / "plain.parquet")
    columns = {
        key: TYPES[name](table[key]) if key in {"ID_PARCEL", "CODE_CULTU"} else table[key] for key in table.column_names
    }
    columns["geometry"] = columns["geometry"].cast(pa.binary_view())
    pq.write_table(pa.table(columns).replace_schema_metadata(table.schema.metadata), tmp_path / "p.parquet")
    settings = ParcelSettings(path=tmp_path / "p.parquet")
    assert has_spatial_index(settings) == is_indexed
    check_parcels(settings)
    geopandas.testing.assert_geodataframe_equal(
        read_parcels(settings, GRID), read_parcels(ParcelSettings(path=tmp_path / "plain.parquet"), GRID)
    )


@pytest.mark.parametrize("name", ["p.parquet", "p.geojson"])
def test_refuses_a_column_with_several_values_a_row(tmp_path, name):
    frame = PARCELS.assign(CODE_CULTU=[[code or "", "second"] for code in PARCELS.CODE_CULTU])
    frame.to_parquet(tmp_path / name) if name == "p.parquet" else (tmp_path / name).write_text(frame.to_json())
    settings = ParcelSettings(path=tmp_path / name)
    with pytest.raises(InputError, match="'CODE_CULTU' holds several values a row"):
        check_parcels(settings)


@pytest.mark.parametrize("is_indexed", [True, False])
def test_text_in_an_encoding_that_a_shapefile_does_not_declare(tmp_path, is_indexed):
    frame = PARCELS.assign(CODE_CULTU="Bl\u00e9")
    frame.to_file(tmp_path / "p.shp", encoding="ISO-8859-1", SPATIAL_INDEX="YES" if is_indexed else "NO")
    assert set(read_parcels(ParcelSettings(path=tmp_path / "p.shp"), GRID).code) == {"Bl\u00e9"}
    (tmp_path / "p.cpg").unlink()
    with pytest.raises(InputError, match=r"p\.shp': the text of column 'CODE_CULTU' .*'p\.cpg'"):
        read_parcels(ParcelSettings(path=tmp_path / "p.shp"), GRID)


def test_an_extract_counts_what_is_nowhere(tmp_path):
    frame = pd.concat([PARCELS, parcel_frame(("n", "BTH", None), ("e", "BTH", shapely.Polygon()))])
    frame.to_parquet(tmp_path / "p.parquet")
    assert extract_parcels(ParcelSettings(path=tmp_path / "p.parquet"), [GRID], tmp_path / "extract.gpkg") == 2


def with_geo_metadata(path, change):
    """The register as GeoParquet that says something else of its geometry."""
    PARCELS.to_parquet(path)
    table = pq.read_table(path)
    geo = change(json.loads(table.schema.metadata[b"geo"]))
    pq.write_table(table.replace_schema_metadata({b"geo": geo if isinstance(geo, bytes) else json.dumps(geo)}), path)
    return ParcelSettings(path=path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: b"{half", "no GeoParquet"),
        (lambda geo: {"columns": geo["columns"]}, "no GeoParquet"),
        (lambda geo: geo | {"primary_column": "other"}, "no GeoParquet"),
        (lambda geo: geo | {"columns": {"geometry": geo["columns"]["geometry"] | {"crs": "EPSG:0"}}}, "not understood"),
    ],
)
def test_refuses_what_a_geoparquet_cannot_say_of_itself(tmp_path, change, said):
    with pytest.raises(InputError, match=said) as error:
        check_parcels(with_geo_metadata(tmp_path / "p.parquet", change))
    assert "p.parquet" in str(error.value)


def test_bounds_with_heights_are_looked_at(tmp_path):
    bounds = {"bbox": [-5e6, 2e7, 0.0, -4e6, 3e7, 9.0]}
    settings = with_geo_metadata(
        tmp_path / "p.parquet", lambda geo: geo | {"columns": {"geometry": geo["columns"]["geometry"] | bounds}}
    )
    with pytest.raises(InputError, match="do not lie in"):
        check_parcels(settings)
