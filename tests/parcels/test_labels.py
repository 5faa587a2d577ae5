import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from cropray.errors import InputError, MissingArtefactError, SchemaError
from cropray.grid import Grid
from cropray.legend import IGNORE
from cropray.parcels.labels import CodeTally, label_zone, read_labels, read_parcel_index
from cropray.parcels.rpg import ParcelSettings
from cropray.workspace import Workspace
from cropray.zones import Zone
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
    report = label_zone(settings, ZONE, LEGEND, workspace)
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
        CodeTally("", "unknown", None, 1, pytest.approx(0.01), 1),
        CodeTally("BTH", "mapped", "Wheat", 2, pytest.approx(0.25 + 0.12), 25 + 12),
        CodeTally("JAC", "excluded", None, 1, pytest.approx(0.09), 9),
        CodeTally("MIS", "mapped", "Maize", 1, pytest.approx(0.25), 25),
        CodeTally("XYZ", "unknown", None, 1, pytest.approx(0.04), 4),
    )
    assert (report.n_pixels, report.n_labelled, report.n_parcels) == (480, 62, 6)
    assert report.unknown_codes == ("", "XYZ")
    assert report.area_ha("unknown") == pytest.approx(0.05)
    stored = json.loads(workspace.label_report("here").read_text())
    assert stored == json.loads(json.dumps(report.to_record()))


def test_same_input_writes_the_same_bytes(tmp_path, settings):
    files = []
    for name in ("one", "two"):
        label_zone(settings, ZONE, LEGEND, Workspace(tmp_path / name))
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*") if path.is_file()})
    assert files[0] == files[1]
    assert len(files[0]) == 4


def refuse(tmp_path, settings, zone, *said):
    with pytest.raises(InputError) as error:
        label_zone(settings, zone, LEGEND, Workspace(tmp_path / "work"))
    for text in said:
        assert text in str(error.value)
    assert not (tmp_path / "work").exists()


def test_refuses_unknown_codes_if_told(tmp_path, settings):
    strict = settings.model_copy(update={"unknown_codes": "refuse"})
    refuse(tmp_path, strict, ZONE, "'XYZ' (0.0 ha)", "'' (0.0 ha)", "unknown_codes: report")


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
    label_zone(settings, ZONE, LEGEND, workspace)
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
    known = tuple(sorted({(code, "Wheat") for code in parcels.CODE_CULTU.dropna()}))
    legend = type(LEGEND)(LEGEND.classes, known)
    workspace = Workspace(tmp_path)
    label_zone(settings, Zone(chip, "flanders", "train", grid), legend, workspace)
    table = gpd.read_parquet(workspace.parcels(chip))
    code_of_id = dict(zip(parcels.ID_PARCEL.astype(str), parcels.CT, strict=True))
    index = read_parcel_index(workspace.parcel_index(chip))
    ours = np.append([code_of_id[parcel_id] for parcel_id in table.parcel_id], 0)[index]
    np.testing.assert_array_equal(ours[index >= 0], codes[index >= 0])
    left_out = (index < 0) & (codes > 0)
    assert left_out.sum() < 16  # the polygons leave out fields of fewer than 16 pixels
