import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import shapely.affinity

from cropray.core.errors import InputError, MissingArtefactError, SchemaError
from cropray.core.grid import Grid
from cropray.core.legend import IGNORE, CropCode, Legend
from cropray.io.workspace import Workspace
from cropray.io.zones import Zone
from cropray.parcels.labels import label_zone, read_labels, read_parcel_index
from cropray.parcels.report import CodeTally
from cropray.parcels.rpg import ParcelSettings
from tests.parcels.polygons import GRID, LEGEND, parcel_frame, square

ZONE = Zone("here", "north", "train", GRID)
PARCELS = [
    ("a", "BTH", square(2, 2, 5, 5)),
    ("b", "BTH", square(-2, 10, 4, 6)),  # half of it is outside
    ("c", "JAC", square(12, 12, 3, 3)),
    ("d", "XYZ", square(16, 2, 2, 2)),
    ("e", "MIS", square(12, 18, 5, 5)),
    ("f", None, square(8, 8, 1, 1)),
]


@pytest.fixture
def settings(tmp_path):
    parcel_frame(*PARCELS).to_parquet(tmp_path / "p.parquet")
    return ParcelSettings(path=tmp_path / "p.parquet")


def test_writes_labels_index_table_and_report(tmp_path, settings):
    workspace = Workspace(tmp_path / "work")
    report = label_zone(settings, ZONE, 2023, LEGEND, workspace)
    labels, index = read_labels(workspace.labels("here")), read_parcel_index(workspace.parcel_index("here"))
    table = gpd.read_parquet(workspace.parcels("here"))

    assert table.columns.tolist() == ["parcel_index", "parcel_id", "code", "class_id", "area_ha", "geometry"]
    assert table.parcel_index.tolist() == list(range(6))
    assert table.class_id.tolist() == [0, 0, IGNORE, IGNORE, 1, IGNORE]
    assert (table.parcel_index.dtype, table.class_id.dtype, table.crs.to_epsg()) == (np.int32, np.uint8, 32631)
    expected = np.full(GRID.shape, IGNORE, np.uint8)
    expected[2:7, 2:7], expected[0:2, 10:16], expected[12:17, 18:23] = 0, 0, 1
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(labels, np.append(table.class_id, IGNORE)[index])
    with rasterio.open(workspace.labels("here")) as dataset:
        assert (dataset.nodata, dataset.transform[:6]) == (IGNORE, GRID.transform)

    assert report.codes == (
        CodeTally("", "", "unknown", None, 1, pytest.approx(0.01), 1),
        CodeTally("BTH", "soft wheat", "mapped", "Wheat", 2, pytest.approx(0.25 + 0.12), 25 + 12),
        CodeTally("JAC", "fallow", "excluded", None, 1, pytest.approx(0.09), 9),
        CodeTally("MIS", "maize but sweet maize", "mapped", "Maize", 1, pytest.approx(0.25), 25),
        CodeTally("XYZ", "", "unknown", None, 1, pytest.approx(0.04), 4),
    )
    assert (report.n_pixels, report.n_labelled, report.n_parcels) == (480, 62, 6)
    assert report.unknown_codes == ("XYZ", "")
    assert report.legend_hash == LEGEND.hash()
    assert report.area_ha("unknown") == pytest.approx(0.05)
    assert (report.year, report.n_repaired, report.n_without_area) == (2023, 0, 0)
    assert (report.shared_ha, report.n_shared_pixels, report.n_border_pixels) == (0, 0, 0)
    stored = json.loads(workspace.label_report("here").read_text())
    assert stored == json.loads(json.dumps(report.to_record()))


def test_same_input_writes_the_same_bytes(tmp_path, settings):
    files = []
    for name in ("one", "two"):
        label_zone(settings, ZONE, 2023, LEGEND, Workspace(tmp_path / name))
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*") if path.is_file()})
    assert files[0] == files[1]
    assert len(files[0]) == 4


def label(tmp_path, year, *parcels, **options):
    parcel_frame(*parcels).to_parquet(tmp_path / "p.parquet")
    settings = ParcelSettings(path=tmp_path / "p.parquet", **options)
    workspace = Workspace(tmp_path / "work")
    return label_zone(settings, ZONE, year, LEGEND, workspace), read_labels(workspace.labels("here"))


def test_the_year_decides_which_codes_are_known(tmp_path):
    fallow, wheat = ("c", "JAC", square(12, 12, 3, 3)), ("a", "BTH", square(2, 2, 5, 5))
    before, _ = label(tmp_path, 2022, fallow, wheat)
    after, _ = label(tmp_path, 2023, fallow, wheat)
    assert (before.unknown_codes, before.area_ha("excluded")) == (("JAC",), 0)
    assert (after.unknown_codes, after.area_ha("excluded")) == ((), pytest.approx(0.09))


@pytest.mark.parametrize(("year", "class_id"), [(2022, 0), (2023, 1)])
def test_the_year_decides_what_a_code_means(tmp_path, year, class_id):
    report, labels = label(tmp_path, year, ("a", "OHR", square(2, 2, 5, 5)))
    assert report.codes[0].class_name == LEGEND.names[class_id]
    assert (labels[2:7, 2:7] == class_id).all()


def test_counts_what_is_declared_twice_and_gives_it_to_the_smaller(tmp_path):
    report, labels = label(
        tmp_path,
        2023,
        ("a", "BTH", square(2, 2, 6, 6)),
        ("b", "MIS", square(2, 6, 6, 4)),  # the last two columns of a, and two more
        ("c", "MIS", square(12, 2, 3, 3)),
        ("d", "MIS", square(12, 2, 3, 3)),  # the same field again
        ("e", "BTH", square(12, 5, 3, 3)),  # a neighbour shares an edge only
        ("f", "BTH", square(13, 3, 1, 1)),  # three claim this pixel
        ("g", "BTH", square(-3, 20, 4, 2)),
        ("h", "BTH", square(-3, 20, 4, 2)),  # twice, but only one row of it inside
    )
    assert report.shared_ha == pytest.approx(0.12 + 0.09 + 0.02)
    assert report.n_shared_pixels == 12 + 9 + 2
    assert (labels[2:8, 2:6] == 0).all()
    assert (labels[2:8, 6:10] == 1).all()
    assert labels[13, 3] == 0


def test_counts_repairs_and_what_cannot_be_repaired(tmp_path):
    x, y = GRID.bounds[0], GRID.bounds[3]
    bow_tie = shapely.Polygon([(x, y), (x + 100, y - 100), (x + 100, y), (x, y - 100)])
    flat = shapely.Polygon([(x + 5, y - 150), (x + 50, y - 150), (x + 20, y - 150)])
    away = shapely.affinity.translate(bow_tie, 5000, 0)
    report, _ = label(tmp_path, 2023, ("a", "BTH", bow_tie), ("b", "BTH", flat), ("c", "BTH", away))
    assert (report.n_parcels, report.n_repaired, report.n_without_area) == (1, 1, 1)
    assert report.area_ha("mapped") == pytest.approx(0.5)


def test_counts_what_is_no_polygon_and_what_no_pixel_shows(tmp_path):
    x, y = GRID.bounds[0], GRID.bounds[3]
    field, sliver = square(2, 2, 5, 5), shapely.box(x + 1, y - 4, x + 4, y - 1)
    line, point = shapely.LineString([(x + 9, y - 9), (x + 90, y - 150)]), shapely.Point(x + 50, y - 50)
    collection = shapely.GeometryCollection([square(10, 10, 3, 3), line, shapely.MultiPolygon([square(15, 15, 1, 1)])])
    report, labels = label(
        tmp_path, 2023, ("a", "BTH", field), ("b", "BTH", line), ("c", "BTH", point), ("d", "MIS", collection),
        ("e", "BTH", shapely.Polygon()), ("f", "BTH", None), ("g", "MIS", sliver),
    )  # fmt: skip
    assert (report.n_parcels, report.n_without_area, report.n_repaired, report.n_without_pixel) == (3, 2, 1, 1)
    assert ((labels == 0).sum(), (labels == 1).sum()) == (25, 10)


def test_parcels_without_an_id_are_told_apart_and_known_again_in_another_zone(tmp_path):
    parcels = [("", "BTH", square(2, 20, 5, 8)), (None, "MIS", square(9, 2, 2, 2)), ("x", "BTH", square(12, 2, 2, 2))]
    report, _ = label(tmp_path, 2023, *parcels, ("x", "BTH", square(16, 2, 2, 2)))
    assert (report.n_without_id, report.n_same_id) == (2, 1)
    beside = Zone("beside", "north", "train", Grid(32631, GRID.bounds[2], GRID.y_max, *GRID.shape))
    settings = ParcelSettings(path=tmp_path / "p.parquet")
    label_zone(settings, beside, 2023, LEGEND, Workspace(tmp_path / "work"))
    here, there = (
        set(gpd.read_parquet(tmp_path / f"work/parcels/{zone}.parquet").parcel_id) for zone in ("here", "beside")
    )
    assert len(here) == 3
    assert there < here
    assert "" not in here


def test_inner_buffer_leaves_border_pixels_unlabelled(tmp_path):
    report, labels = label(tmp_path, 2023, ("a", "BTH", square(2, 2, 6, 6)), inner_buffer_m=10)
    assert (labels == 0).sum() == report.n_labelled == 16
    assert (labels[3:7, 3:7] == 0).all()
    assert report.n_border_pixels == 20
    assert report.codes[0].n_pixels == 36  # the parcel is as large as before
    assert report.area_ha("mapped") == pytest.approx(0.36)


def refuse(tmp_path, settings, zone, *said):
    with pytest.raises(InputError) as error:
        label_zone(settings, zone, 2023, LEGEND, Workspace(tmp_path / "work"))
    for text in said:
        assert text in str(error.value)
    assert not (tmp_path / "work").exists()


def test_refuses_unknown_codes_if_told(tmp_path, settings):
    strict = settings.model_copy(update={"unknown_codes": "refuse"})
    refuse(tmp_path, strict, ZONE, "'XYZ' (0.0 ha)", "'' (0.0 ha)", "in 2023", "unknown_codes: report")


def test_refuses_a_zone_without_parcel(tmp_path, settings):
    away = Zone("away", "north", "train", Grid(32631, 700_000.0, 5_400_000.0, 9, 9))
    refuse(tmp_path, settings, away, "'away' has no parcel", "700000", "UTM zone 31N")


def test_refuses_a_zone_without_class(tmp_path, settings):
    fallow = Zone("fallow", "north", "train", Grid(32631, GRID.x_min + 120, GRID.y_max - 120, 3, 3))
    refuse(tmp_path, settings, fallow, "1 parcels but no pixel with a class", "'JAC' excluded")


def test_says_what_is_wrong_with_a_raster(tmp_path, settings):
    workspace = Workspace(tmp_path / "work")
    with pytest.raises(MissingArtefactError, match="cropray labels"):
        read_labels(workspace.labels("here"))
    label_zone(settings, ZONE, 2023, LEGEND, workspace)
    with pytest.raises(SchemaError, match=r"int32.*uint8"):
        read_labels(workspace.parcel_index("here"))
    workspace.labels("here").write_bytes(b"nonsense")
    with pytest.raises(SchemaError, match="damaged"):
        read_labels(workspace.labels("here"))


@pytest.mark.parametrize("chip", ["00002806639B424A", "0000280849BAC91C"])
def test_real_parcels_give_the_real_labels_back(real_data, tmp_path, chip):
    folder = real_data / "flanders_chips"
    with rasterio.open(folder / chip / "labels_CT.tif") as dataset:
        codes = dataset.read(1)
        grid = Grid(32631, dataset.transform.c, dataset.transform.f, *dataset.shape)
    settings = ParcelSettings(path=folder / "parcels.gpkg")
    parcels = gpd.read_file(settings.path)
    known = tuple(CropCode(code, "Wheat") for code in sorted(set(parcels.CODE_CULTU.dropna())))
    legend = Legend(LEGEND.classes, known)
    workspace = Workspace(tmp_path)
    label_zone(settings, Zone(chip, "flanders", "train", grid), 2018, legend, workspace)
    table = gpd.read_parquet(workspace.parcels(chip))
    code_of_id = dict(zip(parcels.ID_PARCEL.astype(str), parcels.CT, strict=True))
    index = read_parcel_index(workspace.parcel_index(chip))
    ours = np.append([code_of_id[parcel_id] for parcel_id in table.parcel_id], 0)[index]
    np.testing.assert_array_equal(ours[index >= 0], codes[index >= 0])
    left_out = (index < 0) & (codes > 0)
    assert left_out.sum() < 16  # the polygons leave out fields of fewer than 16 pixels
