"""The pages of the documentation, and what of them is made: `make docs` writes it, `test_pages` holds it.

- `docs/configuration.md` is what `cropray config --markdown` prints.
- A code block below `<!-- file: PATH -->` is that file.
- What stands between `<!-- made: rooms -->` and `<!-- end -->` is made of the rooms' docstrings, in the order of the layers;
  `docs/rooms.png` is drawn of their imports.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.documents import figure
from tests.test_architecture import ORDER

ROOT = Path(__file__).resolve().parents[2]
ROOMS_PICTURE = ROOT / "docs" / "rooms.png"
CONFIGURATION = ROOT / "docs" / "configuration.md"
PAGES = (
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "mlflow" / "README.md",
)
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"(<!-- file: (\S+) -->\n```\w+\n).*?(^```$)", re.DOTALL | re.MULTILINE)


SENTENCES = re.compile(r"(.+?)\.(?: Comes in: (.+)\. Goes out: (.+)\. May be added: (.+?)\.(?: |$)| |$)")
"""Of a room's docstring."""
_ROOMS = re.compile(r"(<!-- made: rooms -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """The blocks of a page in some languages."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        if found["language"] in languages:
            inside = re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
            yield Block(page, text.count("\n", 0, found.start()) + 2, found["language"], inside)


def with_files(text: str) -> str:
    """A page in which every block that is a file is as the file is now."""
    return _FILE.sub(lambda found: f"{found[1]}{(ROOT / found[2]).read_text()}{found[3]}", text)


def rooms() -> str:
    """The table of rooms: what each is for, what comes in and goes out, and what may be added."""
    lines = ["| room | what it is for | comes in | goes out | may be added |", "|---|---|---|---|---|"]
    for layer in ORDER:
        for room in sorted(layer):
            path = ROOT / "cropray" / room / "__init__.py"
            text = (path if path.exists() else path.parent.with_suffix(".py")).read_text()
            said = SENTENCES.match(" ".join((ast.get_docstring(ast.parse(text)) or "").split()))
            assert said is not None, room
            lines.append(f"| `{room}` | {' | '.join(sentence or '' for sentence in said.groups())} |")
    return "\n".join(lines)


def with_rooms(text: str) -> str:
    """A page with the table of rooms as it is now."""
    return _ROOMS.sub(lambda found: f"{found[1]}{rooms()}\n{found[2]}", text)


def configuration() -> str:
    """The page of all settings, of a process that knows cropray's own entries alone."""
    command = [sys.executable, "-m", "cropray.cli", "config", "--markdown"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def made() -> dict[Path, str]:
    """Page → what it has to be; of pages that are made, or have parts that are."""
    pages = {page: page.read_text() for page in PAGES if page != CONFIGURATION}
    return {**{page: with_rooms(with_files(text)) for page, text in pages.items()}, CONFIGURATION: configuration()}


if __name__ == "__main__":
    for path, content in made().items():
        path.write_text(content)
    figure.draw(ROOMS_PICTURE)
