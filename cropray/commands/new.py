"""`new`: a job file to begin with, in which the usual settings stand with what they mean; `config` lists all."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cropray.commands.config import Section, as_yaml, sections
from cropray.config import JobConfig, complete_job
from cropray.core.errors import ConfigError
from cropray.io.storage import whole_file
from cropray.training.family import DEFAULT_FAMILIES

_HEAD: Final = """\
# `cropray doctor FILE` looks at the inputs, `cropray run FILE` runs all stages.
# All that is commented out has its default; to change a setting, take `# ` away before it and before its section.
name: {name}
workspace: {workspace}
imagery:
  source: stac                  # Sentinel-2 of Earth Search, without an account; other sources: `cropray config`
parcels:
  path: data/parcels.gpkg       # yours: GeoPackage, shapefile or GeoParquet with a crop code per polygon
  # legend: legend.csv          # code → class; without it the French register's
# points:                       # instead of imagery and parcels: a table of labelled points
#   path: data/points.parquet
"""
_SECTIONS: Final = ("", "cube", "dataset", "search", "decision", "map", "report", "cluster", *DEFAULT_FAMILIES)


def run_new(name: str, folder: Path) -> Path:
    """Write `NAME.yaml`.

    Args:
        name: of the dataset.
        folder: takes the file.

    Returns:
        The file.

    Raises:
        ConfigError: the name cannot be one, or the file exists.
    """
    (pattern,) = (mark.pattern for mark in JobConfig.model_fields["name"].metadata)
    if not re.fullmatch(pattern, name):
        raise ConfigError(f"'{name}' cannot name a dataset: take letters, digits, blanks, `_` and `-`")
    path = folder / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"'{path}' exists; take another name, or move the file away")
    found = {section.path: section for section in sections(complete_job())}
    text = _HEAD.format(name=as_yaml(name), workspace=as_yaml(f"work/{name}")) + "".join(
        f"{line}\n" for wanted in _SECTIONS for line in _commented(found[wanted])
    )
    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8")
    return path


def _commented(section: Section) -> Iterator[str]:
    yield ""
    indent = ""
    if section.path:
        yield f"# {section.path}:   # {section.doc}"
        indent = "  "
    for setting in section.settings:
        if setting.default is not None and (section.path or not setting.type.startswith("section")):
            yield f"# {indent}# {setting.doc} ({setting.type})"
            yield f"# {indent}{setting.name}: {setting.default}"
