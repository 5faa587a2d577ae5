"""The versions that a job needs besides Ray: `python -m tests.deployment.pinned > ray_jobs/requirements.txt`.

They are everything that the requirements of `cropray[s3]` lead to, in the versions of constraints.txt. Ray is left out: a
running cluster's Ray cannot be replaced by a job.
"""

import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
HEADER = (
    "# Made by `python -m tests.deployment.pinned > ray_jobs/requirements.txt` from pyproject.toml and constraints.txt."
)


def constraints():
    """Canonical name → line of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(line.partition("==")[0]): line for line in lines if "==" in line}


def direct():
    """Requirements of pyproject.toml: what cropray needs, and S3, where a cluster's workspace lies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["s3"]]]


def closure():
    """Canonical names of everything that cropray imports, directly or not, but Ray."""
    waiting = [(requirement.name, extra) for requirement in direct() for extra in {"", *requirement.extras}]
    seen = {("ray", "")}
    while waiting:
        name, extra = waiting.pop()
        name = canonicalize_name(name)
        if name == "ray" or (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in requires(name) or []:
            below = Requirement(text)
            if below.marker is None or below.marker.evaluate({"extra": extra}):
                waiting.extend((below.name, more) for more in {"", *below.extras})
    return {name for name, _ in seen} - {"ray"}


def pinned():
    """Lines of ray_jobs/requirements.txt."""
    lines = constraints()
    missing = closure() - lines.keys()
    if missing:
        raise SystemExit(f"constraints.txt has no version of {sorted(missing)}; add them, then make this file again")
    return [HEADER, *sorted(lines[name] for name in closure())]


if __name__ == "__main__":
    print("\n".join(pinned()))
