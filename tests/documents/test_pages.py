"""What of the documentation is made is as it would be made now, and its links lead somewhere."""

import re

import pytest

from tests.documents.pages import PAGES, ROOT, made


def test_made_pages_are_as_they_would_be_made_now():
    stale = [str(page.relative_to(ROOT)) for page, text in made().items() if page.read_text() != text]
    assert stale == [], "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for text, link in re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: [{text}]({link})"
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
            assert heading in anchors, f"{page.name}: [{text}]({link})"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    """Files of the repository that a page names in back quotes."""
    named = re.findall(r"`((?:cropray|tests|ray_jobs|mlflow|docs)/[\w./]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists() and name != "mlflow/.env"] == []  # it holds passwords
