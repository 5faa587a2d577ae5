"""What of the documentation is made is as it would be made now, and its links lead somewhere."""

import ast
import re

import pytest

from tests.documents import figure
from tests.documents.pages import PAGES, ROOMS_PICTURE, ROOT, SENTENCES, made


def test_made_pages_are_as_they_would_be_made_now():
    stale = [str(page.relative_to(ROOT)) for page, text in made().items() if page.read_text() != text]
    assert stale == [], "run `make docs`"


def test_the_figure_shows_the_rooms_of_now():
    assert figure.shown(ROOMS_PICTURE) == figure.graph(), "run `make docs`"


def test_every_room_says_what_comes_in_what_goes_out_and_what_may_be_added():
    rooms = list((ROOT / "cropray").glob("*/__init__.py"))
    assert len(rooms) > 15
    for path in rooms:
        docstring = " ".join(ast.get_docstring(ast.parse(path.read_text())).split())
        assert all(SENTENCES.match(docstring).groups()), path


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
    """Files of the repository that a page names in back quotes; STAGE in a name stands for any."""
    named = re.findall(r"`((?:cropray|tests|ray_jobs|mlflow|docs)/[a-z0-9_./]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists() and name != "mlflow/.env"] == []  # it holds passwords
