"""Which code a result depends on: changed, it makes the result again; other code repeats nothing."""

import contextlib
import io

import pytest

from cropray import workspace
from cropray.progress import Progress
from cropray.stages import evaluate, search
from cropray.storage import file_hash, write_json
from tests import synthetic
from tests.drawn_dataset import drawn_job

MANIFEST = synthetic.manifest(*(synthetic.entry(f"z-{i}", fold) for i, fold in enumerate((0, 1, None))), n_folds=2)


@pytest.fixture
def change(monkeypatch):
    """Lets a file of the package have other content."""

    def other(name):
        monkeypatch.setattr(
            workspace, "file_hash", lambda file: name if file.as_posix().endswith(name) else file_hash(file)
        )

    return other


@pytest.mark.parametrize(
    ("file", "is_other"),
    [
        *((file, True) for file in ("training/loop.py", "cropray/metrics.py", "search/fit.py", "datasets/manifest.py")),
        *((file, False) for file in ("report/page.py", "search/placement.py", "stages/search.py")),
    ],
)
def test_units_are_fitted_again_where_the_code_of_their_results_changes(file, is_other, change, monkeypatch, tmp_path):
    monkeypatch.setattr(search._ModelSearch, "_place", lambda _: None)
    monkeypatch.setattr(search, "SearchLog", lambda *_: None)
    job = drawn_job(tmp_path)

    def names():
        return [unit.folder.name for unit in search._ModelSearch(job, MANIFEST, "xgboost").units]

    before = names()
    change(file)
    assert (names() != before) == is_other


@pytest.mark.parametrize(("file", "is_other"), [("maps/predict.py", True), ("stages/labels.py", False)])
def test_test_zones_are_counted_again_where_the_code_of_their_counts_changes(
    file, is_other, change, monkeypatch, tmp_path
):
    job, keys = drawn_job(tmp_path), []
    write_json(job.artefacts.model("cnn") / "card.json", {})
    write_json(job.artefacts.search_result("cnn"), {})

    def count(_job, _model, _manifest, inputs, _progress):
        keys.append(inputs)
        raise InterruptedError

    monkeypatch.setattr(evaluate, "_count_zones", count)

    def ask():
        with contextlib.suppress(InterruptedError):
            evaluate._evaluate_model(job, "cnn", MANIFEST, Progress(io.StringIO()))

    ask()
    change(file)
    ask()
    assert (keys[0] != keys[1]) == is_other
