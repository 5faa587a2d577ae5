"""The `imagery` of a job file becomes the settings of one source."""

import pytest
import yaml

from cropray.config import JobConfig
from cropray.core.cube import STUDY_CUBE
from cropray.core.errors import ConfigError
from cropray.imagery.sources.cubes import CubeFiles, CubesSettings
from cropray.imagery.sources.earth_engine.settings import EarthEngineSettings
from cropray.imagery.sources.files.scenes import FileScenes, FilesSettings
from cropray.imagery.sources.safe import SafeScenes, SafeSettings
from cropray.imagery.sources.stac.scenes import StacScenes
from cropray.imagery.sources.stac.settings import StacSettings
from cropray.io.job_file import dump_yaml, load_settings


def load(folder, imagery, *overrides):
    path = folder / "job.yaml"
    job = {"name": "j", "workspace": str(folder), "imagery": imagery, "parcels": {"path": "p.gpkg"}}
    path.write_text(yaml.safe_dump(job))
    return load_settings(JobConfig, path, overrides)


@pytest.mark.parametrize(
    ("imagery", "kind"),
    [
        ({"folder": "scenes"}, FilesSettings),  # a job file from before there were other sources
        ({"source": "files", "folder": "scenes"}, FilesSettings),
        ({"source": "stac"}, StacSettings),
        ({"source": "earth_engine", "project": "my-project"}, EarthEngineSettings),
        ({"source": "safe", "folder": "products"}, SafeSettings),
        ({"source": "cubes", "folder": "cubes", "bands": ["A00"]}, CubesSettings),
    ],
)
def test_the_source_chooses_the_settings(tmp_path, imagery, kind):
    job = load(tmp_path, imagery)
    assert type(job.imagery) is kind
    (tmp_path / "resolved.yaml").write_text(dump_yaml(job))
    assert load_settings(JobConfig, tmp_path / "resolved.yaml").imagery == job.imagery


@pytest.mark.parametrize(
    ("imagery", "said"),
    [
        (
            {"source": "earth_engin"},
            "'imagery' cannot be 'earth_engin'; it can be 'cubes', 'earth_engine', 'files', 'safe', 'stac'",
        ),
        ({"source": "earth_engine"}, "'imagery.project' is required"),
        ({"foldr": "a"}, "unknown key 'imagery.foldr'; did you mean 'folder'"),
        ({"source": "earth_engine", "project": "p", "max_wait": 3}, "'imagery.max_wait'; did you mean 'max_wait_s'"),
        ({"source": "earth_engine", "project": "p", "max_concurrent": 41}, "'imagery.max_concurrent': .* 40 .got 41"),
        ({"source": "earth_engine", "project": "p", "max_requests_per_s": 101}, "imagery.max_requests_per_s.*100"),
        ({"source": "stac", "project": "p"}, "unknown key 'imagery.project'; known keys: .*collection"),
        ({"source": "safe", "folder": "a", "offset": 0}, "unknown key 'imagery.offset'"),
        ({"source": "cubes", "folder": "a", "pattern": "{zone}.tif"}, "'imagery.pattern'.*zone_id"),
        (7, "'imagery'.*got 7"),
    ],
)
def test_refusals_name_the_key_as_the_file_has_it(tmp_path, imagery, said):
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, imagery)


def test_a_single_value_can_be_set(tmp_path):
    job = load(tmp_path, {"source": "earth_engine", "project": "p"}, "imagery.max_concurrent=3")
    assert job.imagery.max_concurrent == 3


def test_settings_give_their_source():
    files, stac = FilesSettings(folder="scenes"), StacSettings(source="stac")
    bands = STUDY_CUBE.bands
    assert files.scenes(bands) == FileScenes(files)
    assert stac.scenes(bands) == StacScenes(stac)
    safe, cubes = SafeSettings(source="safe", folder="products"), CubesSettings(source="cubes", folder="cubes")
    assert safe.scenes(bands) == SafeScenes(safe)
    assert cubes.composites() == CubeFiles(cubes)
    assert [each.describe() for each in (files, safe, cubes)] == ["scenes", "products", "cubes"]
    assert stac.describe() == f"{stac.collection} at {stac.url}"


OWN = {"bands": [{"id": "A00", "unit": "embedding", "scale": 1, "offset": -129}], "step": "season"}


def test_ready_cubes_may_be_of_any_bands_and_products_only_of_theirs(tmp_path):
    def job(imagery, cube):
        parts = {"name": "j", "workspace": str(tmp_path), "parcels": {"path": "p.gpkg"}}
        return JobConfig.model_validate(parts | {"imagery": {"folder": "f"} | imagery, "cube": cube})

    assert job({"source": "cubes"}, OWN).cube_spec.columns == ("A00_01",)
    assert job({"source": "safe"}, {"bands": ["B05", "B12"]}).cube_spec.n_bands == 2
    with pytest.raises(
        ValueError, match=r"'cube' has A00, and scenes hold .* ready cubes .'imagery' of source 'cubes'"
    ):
        job({"source": "safe"}, OWN)
    own = {"id": "B10", "unit": "reflectance", "scale": 1e-4}
    with pytest.raises(ValueError, match="the source 'safe' has no B10"):
        job({"source": "safe"}, {"bands": ["B02", own]})
