"""A search on data that the object store cannot hold ends with the results of one that it can."""

import pytest

from cropray.progress import Progress
from cropray.search.results import load_results
from cropray.stages import search
from tests.drawn_dataset import drawn_job, write_dataset

SMALL_STORE_GB, LARGE_STORE_GB = 0.08, 1.0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.own_ray
def test_data_larger_than_the_object_store_is_searched_to_the_same_result(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = {}
    for store_gb in (SMALL_STORE_GB, LARGE_STORE_GB):
        job = drawn_job(tmp_path / f"{store_gb}", cluster={"num_cpus": 2, "object_store_gb": store_gb})
        manifest = write_dataset(job.artefacts, n_zones=36, size=128)
        capsys.readouterr()
        search.run(job, Progress())
        out = capsys.readouterr().out
        assert ("through the disk" in out) == (store_gb == SMALL_STORE_GB)
        found[store_gb] = [
            (path.parent.name, result.confusion, result.loss_sum)
            for path in sorted(job.artefacts.root.rglob("result.json"))
            for result in load_results(path)
        ]
    assert sum(zone.n_tiles for zone in manifest.zones) * 32**2 * 109 > 0.75 * SMALL_STORE_GB * 1e9
    assert len(found[SMALL_STORE_GB]) == 4  # two models on two folds
    assert found[SMALL_STORE_GB] == found[LARGE_STORE_GB]
