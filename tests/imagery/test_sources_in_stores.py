"""Products and ready cubes in object storage are those of the disk."""

import datetime as dt

import numpy as np
import pytest

from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import InputError
from cropray.imagery.sources.cubes import CubeFiles, CubesSettings
from cropray.imagery.sources.safe import SafeScenes, SafeSettings
from cropray.io.storage import as_location
from tests.imagery.test_cubes import GRID, STUDY, ZONE, band_major, drawn, write
from tests.imagery.test_safe import TILE, draft
from tests.imagery.test_safe import ZONE as WINDOW
from tests.servers.s3 import S3Server

YEAR = dt.date(2023, 1, 1), dt.date(2024, 1, 1)


@pytest.fixture(scope="module")
def store():
    with S3Server() as running, running.in_environment():
        yield running


@pytest.fixture
def bucket(store, request):
    return as_location(f"s3://{store.bucket}/{request.node.name}")


def upload(folder, target):
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        target.fs.put_file(str(path), (target / path.relative_to(folder).as_posix()).path)
    return target


def test_products(tmp_path, bucket, store):
    draft(1).write(tmp_path)
    draft(2, started=dt.datetime(2023, 6, 1, tzinfo=dt.UTC)).write(tmp_path)
    draft(3, started=dt.datetime(2021, 6, 1, tzinfo=dt.UTC)).write(tmp_path)
    here = SafeScenes(SafeSettings(source="safe", folder=tmp_path))
    there = SafeScenes(SafeSettings(source="safe", folder=upload(tmp_path, bucket)))
    found = there.survey(WINDOW, *YEAR).scenes
    assert [scene.scene_id for scene in found] == [scene.scene_id for scene in here.survey(WINDOW, *YEAR).scenes]
    assert not store.n_sent("20210601")
    asked = len(store.requests())
    assert there.fingerprint(there.survey(WINDOW, *YEAR).scenes) == there.fingerprint(found)
    assert not [path for _, path in store.requests()[asked:] if path.endswith((".xml", ".jp2"))]
    for grid in (WINDOW, TILE):
        for ours, theirs in zip(found, here.survey(WINDOW, *YEAR).scenes, strict=True):
            for mine, its in zip(there.read(ours, grid), here.read(theirs, grid), strict=True):
                np.testing.assert_array_equal(mine, its)
    cut = next(tmp_path.rglob("*_20230601T000000_B03_10m.jp2"))
    cut.write_bytes(cut.read_bytes()[:-300])
    upload(tmp_path, bucket)
    with pytest.raises(InputError, match=r"B03_10m\.jp2' cannot be read"):
        [there.read(scene, TILE) for scene in there.survey(WINDOW, *YEAR).scenes]


def test_zips_are_not_read_there(tmp_path, bucket):
    packed = draft(1).write(tmp_path, zipped=True)
    with pytest.raises(
        InputError, match=f"'{packed.name}' cannot be used: a zip in object storage is not read: unpack"
    ):
        SafeScenes(SafeSettings(source="safe", folder=upload(tmp_path, bucket))).survey(WINDOW, *YEAR)


def test_ready_cubes(tmp_path, bucket):
    write(tmp_path / "beauce-1.tif", band_major(drawn()), STUDY_CUBE.columns)
    write(tmp_path / "deep" / "beauce-1.nobs.tif", np.ones((12, *GRID.shape), np.uint8))
    settings = {"source": "cubes", "counts": "deep/{zone_id}.nobs.tif"}
    here = CubeFiles(CubesSettings(folder=tmp_path, **settings))
    there = CubeFiles(CubesSettings(folder=upload(tmp_path, bucket), **settings))
    assert not there.survey([(ZONE, STUDY)])
    for mine, its in zip(there.read(ZONE, STUDY), here.read(ZONE, STUDY), strict=True):
        np.testing.assert_array_equal(mine, its)
    before = there.fingerprint(ZONE, STUDY)
    write(tmp_path / "beauce-1.tif", band_major(drawn(1)), STUDY_CUBE.columns)
    upload(tmp_path, bucket)
    assert there.fingerprint(ZONE, STUDY) != before
