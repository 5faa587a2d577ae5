"""The wheel is whole: installed into an empty environment it runs the demo, far from this checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    (path,) = folder.glob("cropray-*.whl")
    return path


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel):
    tracked = subprocess.run(
        ["git", "ls-files", "cropray"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == set(tracked)
    assert {"cropray/py.typed", "cropray/data/zones.csv", "cropray/report/templates/page.html.j2"} <= held


def test_an_empty_environment_with_it_runs_the_demo(wheel, tmp_path):
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "RAY_ADDRESS")
    }

    def run(program, *arguments):
        command = [environment / "bin" / program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=kept, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    run("python", "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    where = run("python", "-c", "import cropray; print(cropray.__file__)").strip()
    assert where.startswith(str(environment))
    assert "acquire" in run("cropray", "--help")
    assert "wheat.yaml" in run("cropray", "new", "wheat")
    assert "parcels.path: " in run("cropray", "config", "wheat.yaml")
    assert run("cropray", "config", "--markdown") == (ROOT / "docs" / "configuration.md").read_text()
    said = run("cropray", "demo", "--root", "demo")
    assert "macro" in said
    assert (elsewhere / "demo" / "work" / "report" / "index.html").exists()
    assert list((elsewhere / "demo" / "work" / "maps").rglob("*.tif"))
