"""Raw inputs in object storage are read as those on a disk are, as little of them as is needed, and refused in words."""

import datetime as dt
import pickle
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import yaml
from geopandas import GeoDataFrame

from cropray.commands.doctor import _check_inputs
from cropray.config import JobConfig
from cropray.core.errors import ConfigError, CroprayError, InputError
from cropray.core.grid import Grid, Window
from cropray.core.legend import bundled_legend
from cropray.core.progress import Progress
from cropray.datasets.points import read_points
from cropray.imagery.acquire import acquire_zone, survey_zones
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from cropray.io import storage
from cropray.io.job_file import load_settings
from cropray.io.raster_files import open_raster
from cropray.io.raw_files import parts_of, source_fingerprint
from cropray.io.storage import as_location, files_below, relative
from cropray.io.zones import read_zones, write_zones
from cropray.parcels.rpg import ParcelSettings, check_parcels, fetched, has_spatial_index, read_parcels
from cropray.report.zones_picture import read_outline
from cropray.stages import dataset
from cropray.stages.inputs import job_zones, register_year
from cropray.stages.labels import indexed, label_from
from cropray.zone_selection.land_cover import land_cover_map
from cropray.zone_selection.regions import read_regions
from cropray.zone_selection.settings import LandCoverFiles
from tests.datasets.test_points import _table as point_table
from tests.imagery.rasters import GRID, draw_pixels, write_scene
from tests.jobs import job
from tests.parcels.polygons import GRID as PARCEL_GRID
from tests.parcels.test_rpg import PARCELS, WRITERS
from tests.servers.s3 import S3Server
from tests.synthetic import zone
from tests.zone_selection.land_cover_files import draw_classes, write_map

YEAR = dt.date(2023, 1, 1), dt.date(2024, 1, 1)
LAYOUTS = {
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "planes": {"tiled": True, "blockxsize": 16, "blockysize": 16, "interleave": "band"},
    "strips": {},
    "plain": {"compress": "none"},
}


@pytest.fixture(scope="module")
def running():
    with S3Server() as running, running.in_environment():
        yield running


@pytest.fixture
def server(running):
    running.heal()
    return running


@pytest.fixture
def bucket(server, request):
    """A prefix of the test's own."""
    return as_location(f"s3://{server.bucket}/{request.node.name}")


def upload(source, target):
    """A file, or all files of a folder."""
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if path.is_file():
            name = path.relative_to(source).as_posix() if source.is_dir() else path.name
            target.fs.put_file(str(path), (target / name).path)
    return target if source.is_dir() else target / source.name


def scenes(folder, **settings):
    return FileScenes(FilesSettings(folder=folder, **settings))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scenes_of_a_busy_store_are_those_of_the_disk(tmp_path, bucket, server, layout):
    grid = Grid(32631, 600_000.0, 5_400_000.0, 70, 90)
    for date in ("2023-02-01", "2023-05-01", "2023-05-02", "2024-01-01"):
        write_scene(tmp_path / date[:4], date, grid=grid, **LAYOUTS[layout])
    remote, local = scenes(upload(tmp_path, bucket)), scenes(tmp_path)
    server.fail(1, "0201", status=503)
    server.fail(1, "0501", method="GET", keep=0.5)
    server.fail(1, "0502", method="GET", wait_s=0.5)
    found = remote.survey(grid, *YEAR).scenes
    assert [scene.scene_id for scene in found] == [scene.scene_id for scene in local.survey(grid, *YEAR).scenes]
    server.fail(1, "0201", method="GET", status=503)
    server.fail(1, "0502", method="GET", keep=0.5)
    for window in (Window(3, 5, 20, 30), Window(-5, 60, 40, 50), Window(0, 0, 70, 90), Window(200, 200, 5, 5)):
        wanted = grid.crop(window)
        for there, here in zip(found, local.survey(grid, *YEAR).scenes, strict=True):
            for ours, theirs in zip(remote.read(there, wanted), local.read(here, wanted), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert server.n_faults_left() == 0


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_window_is_a_small_part_of_a_large_scene(tmp_path, bucket, server, interleave):
    grid = Grid(32631, 600_000.0, 5_400_000.0, 1536, 1536)
    layout = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "none", "interleave": interleave}
    path = write_scene(tmp_path, "2023-05-01", grid=grid, **layout)
    source = scenes(upload(tmp_path, bucket))
    (scene,) = source.survey(grid, *YEAR).scenes
    wanted = grid.crop(Window(600, 700, 120, 110))  # in 2 × 2 blocks of 144
    before, asked = server.n_sent(path.name), len(server.requests())
    bands, _ = source.read(scene, wanted)
    assert bands.shape == (4, 120, 110)
    assert server.n_sent(path.name) - before < 0.05 * path.stat().st_size
    assert len([path for _, path in server.requests()[asked:] if "S2" in path]) <= 16


def test_only_headers_of_the_season_are_fetched_and_once(tmp_path, bucket, server):
    for date in ("2023-02-01", "2022-05-01"):
        write_scene(tmp_path, date)
    source = scenes(upload(tmp_path, bucket))
    source.survey(GRID, *YEAR)
    asked = len(server.requests())
    found = source.survey(GRID, *YEAR).scenes
    source.fingerprint(found)
    assert not [path for _, path in server.requests()[asked:] if path.endswith(".tif")]
    assert not server.n_sent("20220501")


def test_a_scene_that_changed_is_noticed(tmp_path, bucket):
    write_scene(tmp_path, "2023-02-01")
    source = scenes(upload(tmp_path, bucket))
    before = source.fingerprint(source.survey(GRID, *YEAR).scenes)
    assert source.fingerprint(source.survey(GRID, *YEAR).scenes) == before
    write_scene(tmp_path, "2023-02-01", pixels=draw_pixels(seed=5, scl=4))
    upload(tmp_path, bucket)
    (scene,) = source.survey(GRID, *YEAR).scenes
    assert source.fingerprint([scene]) != before
    assert (source.read(scene, GRID)[1] == 4).all()
    (bucket / "S2_here_20230201T000000.tif").unlink()
    with pytest.raises(InputError, match=r"S2_here_20230201T000000.tif' cannot be read"):
        source.fingerprint([scene])


def test_the_pattern_counts_in_a_store_as_on_a_disk(tmp_path, bucket):
    for name in ("a", "b/c", "b[1]"):
        write_scene(tmp_path / name, "2023-02-01", name=f"{name[-1]}_20230201T000000.tif")
    upload(tmp_path, bucket)
    for pattern in ("**/*.tif", "*/*.tif", "b/**/*.tif", "a/a_*.tif"):
        pairs = [scenes(folder, pattern=pattern).survey(GRID, *YEAR).scenes for folder in (tmp_path, bucket)]
        assert [scene.scene_id for scene in pairs[0]] == [scene.scene_id for scene in pairs[1]]
        assert pairs[0]


def test_what_a_store_refuses_is_no_missing_data(tmp_path, bucket, server):
    """GDAL takes blocks that it does not get for the end of the file, or for blocks that nobody wrote."""
    write_scene(tmp_path, "2023-02-01", grid=Grid(32631, 600_000.0, 5_400_000.0, 300, 300), compress="none")
    path = upload(tmp_path, bucket) / "S2_here_20230201T000000.tif"

    def read_refused():
        with open_raster(path, "imagery.folder") as dataset:
            server.fail(9, "S2_here", method="GET", status=403)
            dataset.read()

    with pytest.raises(InputError, match=r"imagery\.folder 's3://.*tif' cannot be read \(.*AWS_ACCESS_KEY_ID"):
        read_refused()


@pytest.mark.parametrize("name", WRITERS)
def test_parcels_of_a_busy_store_are_those_of_the_disk(tmp_path, bucket, server, name):
    WRITERS[name](PARCELS.to_crs(epsg=2154), tmp_path / name)
    for part in parts_of(tmp_path / name):
        upload(part, bucket)
    there = ParcelSettings(path=bucket / name)
    server.fail(1, name, status=503)
    check_parcels(there)
    with fetched(there) as register:
        remote = read_parcels(register, PARCEL_GRID)
    local = read_parcels(ParcelSettings(path=tmp_path / name), PARCEL_GRID)
    assert remote.frame.equals(local.frame)
    assert has_spatial_index(there) == (name == "covering.parquet")
    with (
        pytest.raises(InputError, match=rf"'s3://.*{name}' has no column 'CODE'"),
        fetched(there.model_copy(update={"code_column": "CODE"})) as register,
    ):
        check_parcels(register)


def test_a_rectangle_is_a_small_part_of_an_indexed_register(tmp_path, bucket, server):
    side = 200
    x, y = (place.ravel() * 100.0 for place in np.meshgrid(np.arange(side), np.arange(side)))
    frame = GeoDataFrame(
        {
            "ID_PARCEL": np.arange(side**2).astype(str),
            "CODE_CULTU": "BTH",
            "NOTE": [f"{i:0200}" for i in range(side**2)],
        },
        geometry=shapely.box(x + 6e5, y + 5.4e6, x + 6e5 + 90, y + 5.4e6 + 90),
        crs="EPSG:32631",
    )
    path = tmp_path / "p.parquet"
    frame.to_parquet(path, write_covering_bbox=True, row_group_size=1000, compression=None)
    settings = ParcelSettings(path=upload(path, bucket))
    parcels = read_parcels(settings, Grid(32631, 601_000.0, 5_402_000.0, 50, 50))
    assert len(parcels.frame) == 25
    assert 0 < server.n_sent(bucket.name) < 0.1 * path.stat().st_size


def test_points_of_a_busy_store_are_those_of_the_disk_and_read_by_column(tmp_path, bucket, server):
    table = point_table()
    many = table.append_column("note", [[f"{i:050000}" for i in range(table.num_rows)]])
    path = tmp_path / "points.parquet"
    pq.write_table(many, path, compression="none", use_dictionary=False)
    there = upload(path, bucket)
    server.fail(1, "points", status=503)
    server.fail(1, "points", method="GET", wait_s=0.5)
    before = server.n_sent("/points.parquet")
    assert read_points(there).equals(read_points(path))
    assert server.n_faults_left() == 0
    assert server.n_sent("/points.parquet") - before < 0.3 * path.stat().st_size


def test_tables_and_maps_for_choosing_zones_may_lie_in_a_store(tmp_path, bucket, server):
    write_zones([zone("a-1")], tmp_path / "zones.csv")
    (tmp_path / "regions.csv").write_text("region,lon,lat\nBeauce,1.5,48.4\n", encoding="utf-8")
    GeoDataFrame(geometry=[shapely.box(1, 47, 3, 49)], crs="EPSG:4326").to_file(tmp_path / "country.shp")
    classes = draw_classes((600, 700))
    write_map(tmp_path / "maps" / "one.tif", classes, 1.0, 49.0, 1 / 1000, overviews=(2, 4))
    upload(tmp_path, bucket)
    server.fail(1, ".csv", status=503)
    assert read_zones(bucket / "zones.csv") == read_zones(tmp_path / "zones.csv")
    assert read_regions(bucket / "regions.csv") == read_regions(tmp_path / "regions.csv")
    assert read_outline(bucket / "country.shp") == read_outline(tmp_path / "country.shp")
    for cell_m in (50.0, 400.0):
        grid = Grid(32631, 360_000.0, 5_420_000.0, 40, 40, cell_m)
        maps = [land_cover_map(LandCoverFiles(path=place)).read(grid) for place in (bucket / "maps", tmp_path / "maps")]
        np.testing.assert_array_equal(*maps)
        assert maps[0].any()
    one = land_cover_map(LandCoverFiles(path=bucket / "maps" / "one.tif")).read(grid)
    np.testing.assert_array_equal(one, maps[0])


def test_a_job_file_may_lie_in_a_store(tmp_path, bucket):
    content = {
        "name": "small",
        "workspace": "work",
        "points": {"path": f"{bucket}/p.parquet"},
        "search": {"models": ["xgboost"]},
    }
    (bucket / "job.yaml").write_text(yaml.safe_dump(content))
    read = load_settings(JobConfig, f"{bucket}/job.yaml", ["seed=3"])
    assert (read.name, read.seed) == ("small", 3)
    assert read.points is not None
    assert read.points.path == bucket / "p.parquet"
    assert read.model_dump(mode="json")["points"]["path"] == f"{bucket}/p.parquet"


def test_paths_on_a_disk_stay_as_they_were_written(tmp_path, monkeypatch):
    """Workers of a submitted job have the job's folder elsewhere: a relative path starts there too."""
    monkeypatch.chdir(tmp_path)
    settings = FilesSettings(folder="scenes")
    assert settings.model_dump(mode="json")["folder"] == "scenes"
    assert not settings.folder.is_absolute()


def read_job(address):
    load_settings(JobConfig, address)


KINDS = {
    "imagery.folder": lambda place: scenes(place).survey(GRID, *YEAR).scenes,
    "parcels.path": lambda place: check_parcels(ParcelSettings(path=place / "p.gpkg")),
    "points.path": lambda place: read_points(place / "p.parquet"),
    "zone table": lambda place: read_zones(place / "zones.csv"),
    "region table": lambda place: read_regions(place / "regions.csv"),
    "zone_selection.outline": lambda place: read_outline(place / "c.gpkg"),
    "zone_selection.worldcover.path": lambda place: land_cover_map(LandCoverFiles(path=place)),
    "config file": lambda place: read_job(place / "job.yaml"),
}


@pytest.fixture
def impatient(monkeypatch):
    """botocore asks again, seconds later, after a refused HEAD; how often is tested with the store itself."""
    once = {"config_kwargs": {"retries": {"mode": "standard", "max_attempts": 1}}}
    monkeypatch.setitem(storage._PROTOCOLS, "s3", once)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_refused_in_words(server, kind):
    read, bucket = KINDS[kind], as_location(f"s3://{server.bucket}/refused")
    with pytest.raises((InputError, ConfigError), match=r"'s3://bucket/.*(does not exist|cannot be read|neither)"):
        read(bucket / "nothing")
    with pytest.raises((InputError, ConfigError), match=rf"{kind} 's3://nowhere.*no bucket 'nowhere'"):
        read(as_location("s3://nowhere/a"))
    server.fail(99, "", status=403)
    with pytest.raises(
        (InputError, ConfigError), match=rf"{kind} 's3://.*cannot be read \(.*may read.*AWS_ACCESS_KEY_ID"
    ):
        read(bucket)
    server.heal()
    with pytest.raises((InputError, ConfigError), match=rf"{kind} 'gs://.*pip install 'cropray\[gs\]'"):
        read(as_location("gs://bucket/a"))


def test_a_register_larger_than_the_disk_is_refused_before_it_is_fetched(tmp_path, bucket, server, monkeypatch):
    WRITERS["p.gpkg"](PARCELS, tmp_path / "p.gpkg")
    settings = ParcelSettings(path=upload(tmp_path / "p.gpkg", bucket))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match="TMPDIR"), fetched(settings):
        pass
    assert server.n_sent(bucket.name) == 0


def test_fingerprints_follow_content_in_a_store(bucket):
    path = bucket / "a.parquet"
    prints = []
    for text in ("one", "two", "one"):
        path.write_text(text)
        prints.append(source_fingerprint([path]))
    assert prints[0] == prints[2] != prints[1]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        source_fingerprint([path])


def test_the_doctor_names_inputs_that_are_not_there(tmp_path, bucket):
    content = {
        "name": "small",
        "workspace": str(tmp_path / "work"),
        "points": {"path": f"{bucket}/p.parquet"},
        "search": {"models": ["xgboost"]},
    }
    with pytest.raises(CroprayError, match=rf"{bucket}/p.parquet' does not exist; set points.path"):
        _check_inputs(JobConfig.model_validate(content))
    (bucket / "p.parquet").write_text("points")
    assert _check_inputs(JobConfig.model_validate(content)) == f"{bucket}/p.parquet"


def make_zones(content):
    """Composites and labels of a job's first two zones, as its workers make them."""
    config = pickle.loads(pickle.dumps(JobConfig.model_validate(content)))
    zones, workspace, source = job_zones(config)[:2], config.artefacts, config.imagery.scenes(config.cube_spec.bands)
    assert all(found.scenes for found in survey_zones(source, zones, config.season_start).values())
    extract = None if has_spatial_index(config.parcels) else workspace.parcel_extract
    with indexed(config.parcels, zones, workspace.parcel_extract, Progress()):
        for place in zones:
            acquire_zone(source, place, config.season_start, workspace)
            label_from(config.parcels, place, register_year(place, config), bundled_legend(), workspace, extract)
    return {relative(file, workspace.root): file.read_bytes() for file in files_below(workspace.root)}


@pytest.mark.slow
def test_composites_and_labels_of_a_busy_store_are_those_of_the_disk(landscape, tmp_path, bucket, server):
    here = job(landscape, tmp_path / "here")
    upload(landscape.folder, bucket)
    places = [
        str(bucket / relative(place, landscape.folder))
        for place in (landscape.zones, landscape.scenes, landscape.parcels)
    ]
    inputs = {"zone_table": places[0], "imagery": {"folder": places[1]}, "parcels": {"path": places[2]}}
    server.fail(2, ".tif", method="GET", status=503)
    server.fail(1, ".gpkg", method="GET", status=503)
    server.fail(2, ".tif", method="GET", wait_s=0.5)
    server.fail(2, ".tif", method="GET", keep=0.5)
    there = make_zones(job(landscape, tmp_path / "there", **inputs))
    assert server.n_faults_left() == 0
    assert there == make_zones(here)
    assert len(there) == 2 * 7


def test_a_dataset_of_points_of_a_store_is_that_of_the_disk(tmp_path, bucket):
    table = point_table()
    pq.write_table(table, tmp_path / "p.parquet")
    made = []
    for name, place in (("here", tmp_path / "p.parquet"), ("there", upload(tmp_path / "p.parquet", bucket))):
        content = {"name": "small", "workspace": str(tmp_path / name), "points": {"path": str(place)}}
        config = JobConfig.model_validate({**content, "search": {"models": ["xgboost"]}, "dataset": {"n_folds": 2}})
        dataset.run(config, Progress())
        root = config.artefacts.dataset
        made.append({relative(file, root): file.read_bytes() for file in files_below(root)})
    assert made[0] == made[1]
    assert made[0]
