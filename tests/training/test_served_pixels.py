"""Models of optional families out of a registry, where neither cropray, Ray nor what trained them is installed."""

import subprocess
import sys

import numpy as np
import pytest

from cropray.tracking.model_code import model_code
from cropray.training.forest.settings import ForestSettings
from cropray.training.lightgbm.settings import LightgbmSettings
from tests.maps.registered import REFUSED
from tests.training.pixel_fits import fitted, xy
from tests.training.tree_rows import val_zones

SERVE = """
import sys
sys.modules.update(dict.fromkeys({refused!r}))
sys.path.insert(0, {code!r})
import importlib, numpy as np
served = importlib.import_module({loader!r})._load_pyfunc({model!r})
np.save({answer!r}, served.predict(np.load({samples!r})))
"""


@pytest.mark.parametrize(
    ("name", "settings", "libraries"),
    [
        ("lightgbm", LightgbmSettings(num_leaves=5), {"lightgbm", "numpy", "pandas"}),
        ("forest", ForestSettings(), {"numba", "numpy", "pandas", "safetensors"}),
    ],
    ids=["lightgbm", "forest"],
)
def test_the_carried_code_is_all_that_a_model_needs(name, settings, libraries, tmp_path):
    _, model = fitted(name, settings, tmp_path / "model", (3,), val=False)
    code, x = model_code(model.loader), xy(val_zones())[0]
    code.write(tmp_path / "code")
    np.save(tmp_path / "samples.npy", x)
    script = SERVE.format(
        refused=sorted({*REFUSED, "sklearn", "pyarrow", "xgboost", "torch"} - libraries),
        code=str(tmp_path / "code"),
        loader=code.loader,
        model=str(tmp_path / "model"),
        answer=str(tmp_path / "answer.npy"),
        samples=str(tmp_path / "samples.npy"),
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_array_equal(np.load(tmp_path / "answer.npy"), model.predict_samples(x))
    assert {line.partition("==")[0] for line in code.requirements} == libraries
