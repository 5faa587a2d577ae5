"""Every command of README and docs is one: it parses, the files and settings that it names exist, and quick ones run."""

import importlib.util
import itertools
import re
import shlex
import tomllib

import pytest

from cropray.cli import _parser, main
from cropray.config import JobConfig
from cropray.io.job_file import load_settings
from tests.documents.pages import PAGES, ROOT, blocks

LEAST = "name: any\nworkspace: work\nimagery: {folder: s}\nparcels: {path: p}\n"
PROGRAMS = ("cropray", "make", "python", "pip", "ray")
MADE = {
    "JOB.yaml",
    "NAME.yaml",
    "CONFIG",
    "demo/demo.yaml",
    "s3://bucket/job.yaml",
}  # by the reader, `cropray new`, `make demo`


def commands():
    """(page, command) of every command in a block or in back quotes; `[…]` is kept, `a | b` are several."""
    for page in PAGES:
        texts = [block.text.replace("\\\n", " ") for block in blocks(page, "", "bash", "sh")]
        lines = [line.partition("#")[0] for text in texts for line in text.splitlines()]
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        lines += [" ".join(found.split()) for found in re.findall(r"(?<!`)`([^`]+)`", prose)]
        for line in lines:
            command = re.sub(r"^\.venv/bin/", "", line.strip())
            if command.partition(" ")[0] not in PROGRAMS or command in PROGRAMS:
                continue
            names = re.match(r"(cropray )((?:\w+ \| )+\w+)(.*)", command)
            for name in names[2].split(" | ") if names else [None]:
                yield page, command if name is None else f"{names[1]}{name}{names[3]}"


COMMANDS = sorted({(page.name, command) for page, command in commands()})


def of(program):
    return [
        pytest.param(command, id=f"{page}: {command}") for page, command in COMMANDS if command.split()[0] == program
    ]


def test_there_are_commands():
    assert len(of("cropray")) > 25
    assert {param.values[0].split()[1] for param in of("make")} >= {"demo", "test", "ui", "check"}


@pytest.mark.parametrize("command", of("cropray"))
def test_cropray_s_commands_exist_with_their_arguments(command, tmp_path):
    arguments = shlex.split(re.sub(r"(?<= )\[([^\]]+)\]", r"\1", command).replace("STAGE", "map"))[1:]
    if len(arguments) == 1 and arguments != ["demo"]:  # its name alone, or an option that ends it
        with pytest.raises(SystemExit) as exit_:
            _parser().parse_args([*arguments, "--help"])
        assert exit_.value.code == 0
        return
    options = _parser().parse_args(arguments)
    if options.command == "compare":  # names models of the reader's workspaces
        return
    if (config := getattr(options, "config", None)) is not None:
        require_config(config, [each for each in options.overrides if each != "a.b=value"], tmp_path)


def require_config(config, overrides, folder):
    """It exists, or the page says who makes it, and its settings are there."""
    assert config in MADE or (ROOT / config).exists(), f"{config} is nowhere"
    path = ROOT / config
    if config in MADE:
        path = folder / "job.yaml"
        path.write_text(LEAST)
    job = load_settings(JobConfig, path, overrides)
    assert job.name


@pytest.mark.parametrize("command", of("make"))
def test_targets_of_make_exist(command):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert command.split()[1] in targets


@pytest.mark.parametrize("command", [*of("python"), *of("ray")])
def test_scripts_and_modules_exist(command, tmp_path):
    words = shlex.split(command)
    if words[0] == "ray" and "--" not in words:
        assert words[1] in {"up", "dashboard", "rsync-up", "exec", "drain-node", "job"}
        return
    words = words[words.index("python") + 1 :]
    if words[0] == "-c":
        compile(words[1], command, "exec")
        return
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
        return
    script = ROOT / words[0]
    assert script.exists()
    if script.name == "submit.py":
        assert (ROOT / "ray_jobs" / f"{words[1]}.py").exists()
        words = words[1:]
    if words[1:]:
        sets = [value for option, value in itertools.pairwise(words) if option == "--set"]
        require_config(words[1], [*sets, *(["tracking_uri=http://m"] if "s3://" in command else [])], tmp_path)


@pytest.mark.parametrize("command", of("pip"))
def test_extras_exist(command):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert all(extra in extras for extra in re.findall(r"\[(\w+)\]", command)), command


def test_the_quick_ones_run(tmp_path, monkeypatch):
    """As the quickstart has them; stages, doctor, plan, why and ui are run by tests of their own."""
    monkeypatch.chdir(tmp_path)
    quickstart = {command for page, command in COMMANDS if page == "quickstart.md"}
    assert {"cropray new NAME", "cropray config [JOB.yaml]"} <= quickstart
    assert main(["new", "NAME"]) == 0
    assert main(["config"]) == 0
    assert main(["config", "NAME.yaml"]) == 0
