"""The layers of the code, read from its imports."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from cropray.core.symbols import read_module

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cropray"
# A room may import the rooms before it, and itself.
ORDER = [
    {"core"},
    {"metrics"},  # scores and intervals by one short name, for scripts
    {"io"},
    {"cluster", "nets", "imagery", "parcels", "landscape"},
    {"zone_selection", "datasets"},
    {"training"},
    {"search"},
    {"maps"},
    {"evaluation"},
    {"report", "tracking"},
    {"config"},
    {"planning"},
    {"stages"},
    {"commands"},
    {"cli"},
]
# Where a library may be imported at all.
FENCES = {
    "ray": {"cluster", "datasets/loading.py", "training", "search", "stages", "commands"},
    "mlflow": {"tracking"},
    "ee": {"imagery/sources/earth_engine"},
    "pystac_client": {"imagery/sources/stac"},
    "rasterio": {"io", "imagery", "parcels", "landscape", "maps", "zone_selection"},
    "xgboost": {"training/xgboost"},
    "lightgbm": {"training/lightgbm"},
    "sklearn": {"training/forest"},
    "torch": {"nets", "training"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer(name: str) -> int:
    for depth, names in enumerate(ORDER):
        if name in names:
            return depth
    raise AssertionError(f"'{name}' belongs to no layer")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def own_name(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    name = own_name(path)
    if name == "__init__":
        return
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "cropray" or len(parts) == 1 or parts[1] == name:
            continue
        assert layer(parts[1]) < layer(name), f"{name} imports {module}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_stay_behind_their_fences(path):
    where = str(path.relative_to(PACKAGE))
    for module in imports(path):
        fence = FENCES.get(module.split(".")[0])
        if fence is not None:
            assert any(where == place or where.startswith(f"{place}/") for place in fence), f"{where} imports {module}"


def test_a_stage_or_a_command_knows_no_source():
    for path in [
        *(PACKAGE / "stages").glob("*.py"),
        *(PACKAGE / "planning").glob("*.py"),
        *(PACKAGE / "commands").rglob("*.py"),
    ]:
        assert not [module for module in imports(path) if module.startswith("cropray.imagery.sources")], path


def test_tasks_in_flight_are_waited_for_in_one_place():
    waiting = {str(path.relative_to(PACKAGE)) for path in modules() if "ray.wait(" in path.read_text()}
    assert waiting == {"cluster/tasks.py", "cluster/node_memory.py"}  # the latter asks each node once


def test_nets_and_loop_need_torch_alone():
    allowed = {"torch", "numpy", "cropray", "safetensors"} | set(sys.stdlib_module_names)
    for path in [
        *(PACKAGE / "nets").glob("*.py"),
        *(PACKAGE / "training" / "deep" / f"{name}.py" for name in ("loop", "losses", "samplers", "optim", "augment")),
    ]:
        assert {module.split(".")[0] for module in imports(path)} <= allowed, path


def loaded(module: str, heavyweights: set[str]) -> set[str]:
    """Which libraries an import brings with it."""
    code = f"import sys, {module}; print(*({heavyweights} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def names_that_are_not_there(path: Path) -> list[str]:
    """What a script imports of the package and is not there (any more)."""
    wrong = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cropray":
            if importlib.util.find_spec(node.module) is None:
                wrong.append(node.module)
                continue
            module = read_module(node.module)
            known = module.statements.keys() | module.imports.keys()
            names = [alias.name for alias in node.names if alias.name not in known]
            wrong += [f"{node.module}.{n}" for n in names if importlib.util.find_spec(f"{node.module}.{n}") is None]
    return wrong


def test_scripts_that_no_test_runs_import_what_there_is():
    scripts = [
        path for folder in ("tests/benchmarks", "tests/gpu", "ray_jobs") for path in (ROOT / folder).glob("*.py")
    ]
    assert len(scripts) > 10
    assert not {str(path): wrong for path in scripts if (wrong := names_that_are_not_there(path))}


def test_import_cropray_loads_no_heavyweight():
    assert not loaded("cropray", {"ray", "torch", "mlflow", "pandas", "numpy"})


def test_a_job_file_is_read_without_the_libraries_of_training():
    assert not loaded("cropray.config", {"ray", "torch", "mlflow", "xgboost", "matplotlib"})


def test_a_recipe_is_read_without_torch():
    code = (
        "import sys; from cropray.training.cnn.settings import CnnSettings; "
        "from cropray.training.temp_cnn.settings import TempCnnSettings; "
        "CnnSettings(loss={'name': 'focal', 'gamma': 1}, augment=['dihedral', 'shift'], schedule='one_cycle'); "
        "TempCnnSettings(sampler='class_balanced', optimizer='sgd'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("family", ["xgboost", "lightgbm", "forest"])
def test_trees_are_grown_without_torch(family):
    assert not loaded(f"cropray.training.{family}.fit", {"torch"})
    code = f"from cropray.core.closure import closure; from cropray.training.{family}.family import fit; "
    code += "print(*closure(fit).libraries)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "torch" not in done.stdout.split()


def test_labelling_does_not_wait_for_the_libraries_of_training():
    assert not loaded("cropray.stages.labels, cropray.stages.pipeline", {"mlflow", "xgboost", "matplotlib"})


def test_installed_mlflow_is_not_shadowed_by_the_deployment_folder():
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    assert ROOT not in Path(spec.origin).resolve().parents or ".venv" in spec.origin
    assert not list((ROOT / "mlflow").glob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = len((ast.get_docstring(node) or "").splitlines())
            assert node.end_lineno - node.lineno + 1 - docstring <= 60, f"{path}: {node.name}"
