"""What the pages say that a job file may hold is accepted: blocks of YAML, and `section: {…}` in a sentence."""

import re

import pytest
import yaml

from cropray.config import JobConfig, complete_job
from cropray.search.sampling import trials
from cropray.training.family import family
from tests.documents.pages import PAGES, blocks

IMAGES = {"imagery": {"folder": "s"}, "parcels": {"path": "p"}}
PIXELS = {"search": {"models": ["xgboost"]}}
OTHER = {"file_mounts", "docker", "cluster_name", "ablation"}  # of a cluster's file, of a recipe
ELSEWHERE = "extending.md"  # names what its own test registers


def snippets():
    for page in PAGES:
        if page.name == ELSEWHERE:
            continue
        yield from ((str(block), block.text) for block in blocks(page, "yaml"))
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        inline = [" ".join(found.split()) for found in re.findall(r"(?<!`)`(\w+: \{[^`]*\})`", prose)]
        yield from ((f"{page.name}: {text}", text) for text in inline if "…" not in text)


SNIPPETS = dict(snippets())


def test_there_are_some():
    assert len(SNIPPETS) > 10


@pytest.mark.parametrize("text", SNIPPETS.values(), ids=list(SNIPPETS))
def test_a_snippet_is_a_part_of_a_job(text):
    snippet = yaml.safe_load(text.replace("…", "any"))
    if snippet.keys() <= OTHER:
        return
    assert snippet.keys() <= complete_job().model_fields.keys()
    rest = PIXELS if "points" in snippet else IMAGES
    parts = {
        key: {**rest.get(key, {}), **value} if isinstance(value, dict) else value for key, value in snippet.items()
    }
    if "source" in snippet.get("imagery", {}):
        parts["imagery"] = snippet["imagery"]
    job = JobConfig.model_validate({"name": "any", "workspace": "w", **rest, **parts})
    for name in job.search.models:
        assert trials(family(name), job.settings_of(name), job.search, job.seed)
