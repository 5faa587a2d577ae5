"""Within a memory budget: bins go to disk with the same trees, and what cannot fit is refused before it begins."""

import pytest
import xgboost as xgb

from cropray.cluster.resources import GB, FitSize
from cropray.core.errors import ConfigError
from cropray.training.family import family
from cropray.training.scratch import LOCK, PREFIX, scratch_folder
from cropray.training.xgboost import memory
from cropray.training.xgboost.fit import train_xgboost
from cropray.training.xgboost.memory import PROCESS_BYTES, bins_on_disk, resident_bytes, row_bytes
from cropray.training.xgboost.settings import XgboostSettings
from tests.training.tree_rows import train_zones, val_zones

ROWS, K = 10_000_000, 12
HERE = XgboostSettings()


def of(memory_bytes):
    return FitSize(ROWS, K, 48, memory_bytes)


def budget(bytes_per_row, n_rows=ROWS):
    return PROCESS_BYTES + bytes_per_row * n_rows


def test_bins_are_in_memory_where_they_fit():
    assert not bins_on_disk(HERE, ROWS, K, None)
    assert not bins_on_disk(HERE, ROWS, K, budget(row_bytes(HERE, K)))
    assert bins_on_disk(HERE, ROWS, K, budget(row_bytes(HERE, K)) - 1)
    assert bins_on_disk(HERE, ROWS, K, budget(resident_bytes(K)))
    four = HERE.model_copy(update={"num_workers": 4})
    assert not bins_on_disk(four, ROWS, K, budget(row_bytes(HERE, K), ROWS / 4))


@pytest.mark.parametrize("changes", [{}, {"device": "cuda"}, {"engine": "xgboost_ray", "num_workers": 1}])
def test_memory_of_a_worker_is_that_of_its_rows_wherever_their_bins_are(changes):
    settings = HERE.model_copy(update=changes)
    whole = ROWS * row_bytes(settings, K)
    assert settings.fit_bytes(of(None)) == settings.fit_bytes(of(budget(row_bytes(settings, K)))) == whole
    beyond = settings.fit_bytes(of(budget(row_bytes(settings, K)) - 1))
    assert beyond == (whole if changes else ROWS * resident_bytes(K))
    four = settings.model_copy(update={"num_workers": 4})
    assert four.fit_bytes(of(None)) == whole / 4


def test_a_refusal_says_how_many_workers_fit():
    with pytest.raises(
        ConfigError, match=r"10,000,000 rows of 12 classes take 3.72 GB.*with the bins on disk"
    ) as error:
        bins_on_disk(HERE, ROWS, K, 2 * GB)
    assert "each may take 2 GB: set xgboost.num_workers to 3 with" in str(error.value)
    three = HERE.model_copy(update={"num_workers": 3})
    assert bins_on_disk(three, ROWS, K, 2 * GB)
    with pytest.raises(ConfigError):
        bins_on_disk(HERE.model_copy(update={"num_workers": 2}), ROWS, K, 2 * GB)
    with pytest.raises(ConfigError) as error:
        bins_on_disk(HERE, ROWS, K, PROCESS_BYTES)  # no number of workers helps
    assert "num_workers" not in str(error.value)


@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"engine": "xgboost_ray", "num_workers": 1}])
def test_some_fits_cannot_leave_memory(changes):
    settings = HERE.model_copy(update=changes)
    need = budget(row_bytes(settings, K))
    assert not bins_on_disk(settings, ROWS, K, need)
    with pytest.raises(ConfigError, match=r"set xgboost\.num_workers to 2 with"):
        bins_on_disk(settings, ROWS, K, need - 1)


@pytest.mark.parametrize("changes", [{}, {"subsample": 0.7, "colsample_bytree": 0.5}, {"hessian": "bounded"}])
@pytest.mark.filterwarnings("error")
def test_trees_with_bins_on_disk_are_the_same(changes, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("cropray.training.pixel_blocks.BATCH_ROWS", 500)  # several pages
    settings = XgboostSettings(max_depth=4, **changes)
    room = budget(resident_bytes(4, settings.hessian), train_zones().n_rows + val_zones().n_rows)
    made = []
    on_disk = xgb.ExtMemQuantileDMatrix
    monkeypatch.setattr("xgboost.ExtMemQuantileDMatrix", lambda *a, **k: (made.append(1), on_disk(*a, **k))[1])
    fits = {}
    for name, memory_bytes in (("memory", None), ("disk", room)):
        folder = tmp_path / name
        folder.mkdir()
        fit = train_xgboost(settings, (3, 8), train_zones(), val_zones(), 0, folder, memory_bytes=memory_bytes)
        fits[name] = ((folder / "model.ubj").read_bytes(), fit.history, fit.scores[-1].confusion.tolist())
    assert len(made) == 2
    assert fits["disk"] == fits["memory"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "memory"]
    assert "cache file" not in capfd.readouterr().err


def test_a_disk_that_is_too_small_is_named(monkeypatch):
    monkeypatch.setattr(memory, "DISK_BYTES", 1e12)
    with pytest.raises(ConfigError, match=r"take 1e\+06 GB of disk.*set TMPDIR"):
        memory.require_scratch(1000)


def test_folders_of_lost_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lost, new = tmp_path / f"{PREFIX}lost", tmp_path / f"{PREFIX}new"
    for folder in (lost, new):
        folder.mkdir()
    (lost / LOCK).touch()
    with scratch_folder() as first, scratch_folder() as second:
        assert not lost.exists()
        assert new.exists()  # it may be about to be locked
        assert first.exists()
        assert second.exists()
    assert [path.name for path in tmp_path.iterdir()] == [new.name]


def test_rows_that_a_gpu_cannot_hold_are_refused():
    on_gpu = HERE.model_copy(update={"device": "cuda", "gpu_memory_gb": 10.0})
    # 48 bins of 14 bits each (48 × 256 different ones) are 84 B, and 12 B for each class.
    assert memory.gpu_row_bytes(on_gpu, 20) == 84 + 240
    fits = (10 * GB - memory.GPU_PROCESS_BYTES) / 324
    memory.require_gpu_memory(on_gpu, int(fits), 20)
    with pytest.raises(
        ConfigError, match=r"take 17.2 GB of GPU memory in each of 1.*set xgboost\.num_workers to 2"
    ) as error:
        memory.require_gpu_memory(on_gpu, 50_000_000, 20)
    assert "xgboost.gpu_memory_gb" in str(error.value)
    memory.require_gpu_memory(on_gpu.model_copy(update={"num_workers": 2}), 50_000_000, 20)
    memory.require_gpu_memory(HERE, 1e12, 20)  # no GPU
    memory.require_gpu_memory(HERE.model_copy(update={"device": "cuda"}), 1e12, 20)  # known where the fit begins
    with pytest.raises(ConfigError, match="free"):
        memory.require_gpu_memory(HERE.model_copy(update={"device": "cuda"}), 1e9, 20, 8 * GB)


def test_a_fit_looks_at_its_gpu_before_it_begins(tmp_path, monkeypatch):
    on_gpu = XgboostSettings(device="cuda")
    with pytest.raises(ConfigError, match=r"xgboost\.device asks for a GPU.*set xgboost\.device to cpu"):
        train_xgboost(on_gpu, (3,), train_zones(), None, 0, tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (1e8, 8e10))
    with pytest.raises(ConfigError, match=r"of 0.1 GB \(xgboost.gpu_memory_gb, or what is free"):
        train_xgboost(on_gpu, (3,), train_zones(), None, 0, tmp_path)


@pytest.mark.parametrize("name", ["forest", "lightgbm", "temp_cnn"])
def test_memory_of_a_fit_is_known_before_it_begins(name):
    """Beside libraries, which a plan measures: a refusal counts them once."""
    settings = family(name).settings()
    rows = [settings.fit_bytes(FitSize(n, K, 48, None)) for n in (0, 50_000, 100_000, 10_000_000)]
    assert rows[0] == 0
    assert rows[1] == rows[2] / 2
    assert rows[3] == rows[2] * (1 if name == "forest" else 100)  # of more rows it keeps `max_rows`
    with pytest.raises(ConfigError, match=rf"raise {name}\.memory_gb"):
        settings.check(FitSize(1e7, K, 48, rows[3]))
    settings.check(FitSize(1e7, K, 48, rows[3] + 1 * GB))
