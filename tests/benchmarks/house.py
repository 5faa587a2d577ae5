"""Figures of the house: how large the package is, how its rooms hang together, and who knows a family or the study's cube.

`python -m tests.benchmarks.house` prints them; `tests/test_house.py` holds some of them.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

PACKAGE = Path(__file__).resolve().parents[2] / "cropray"
MOST_MODULE_LINES, MOST_FUNCTION_LINES = 400, 40
# Lists of families, a job, and what the original study published: these may name families.
NAMED_IN = {
    "training/family.py": ("_BUILT_IN", "DEFAULT_FAMILIES"),
    "commands/demo.py": ("_SMALL",),
    "report/study.py": ("PUBLISHED", "WHY_NOT_COMPARABLE"),
}
CUBE_OWNERS = ("core/cube.py", "core/sensors.py")
CUBE_NUMBERS = (4, 12, 48)
CUBE_WORDS = re.compile(r"band|month|feature", re.IGNORECASE)
CUBE_NAMES = ("N_BANDS", "N_MONTHS", "N_FEATURES")


@dataclass(frozen=True)
class Module:
    """One module, parsed."""

    name: str
    """Below the package: `search/fit.py`."""
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """Top-level module or folder that it lies in."""
        return self.name.partition("/")[0].removesuffix(".py")


def modules(package: Path = PACKAGE) -> list[Module]:
    """All modules of the package, by name."""
    paths = sorted(package.rglob("*.py"))
    texts = [(str(path.relative_to(package)), path.read_text(encoding="utf-8")) for path in paths]
    return [Module(name, text, ast.parse(text)) for name, text in texts]


def arrows(house: list[Module]) -> dict[str, set[str]]:
    """Room → rooms that it imports, late and for types too."""
    found: dict[str, set[str]] = {module.room: set() for module in house if module.room != "__init__"}
    for module in house:
        for target in _imports(module.tree):
            room = target.split(".")[1] if target.startswith("cropray.") else ""
            if room in found and module.room in found and room != module.room:
                found[module.room].add(room)
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Groups of rooms each of which reaches all others of its group."""
    reached = {room: _reached(graph, room) for room in graph}
    groups = {frozenset(other for other in reached[room] if room in reached[other]) for room in graph}
    return sorted(" ⇄ ".join(sorted(group)) for group in groups if group)


def _reached(graph: dict[str, set[str]], room: str) -> set[str]:
    found: set[str] = set()
    waiting = [room]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """A graph without circles, and without arrows that its others imply."""
    return {
        room: {to for to in targets if not any(to in _reached(graph, other) for other in targets - {to})}
        for room, targets in graph.items()
    }


def bodies(house: list[Module]) -> dict[str, int]:
    """`module:line name` of a function → lines of its body without its docstring."""
    found = {}
    for module in house:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                rest = node.body[1:] if ast.get_docstring(node) is not None else node.body
                n_lines = (node.end_lineno or 0) - rest[0].lineno + 1 if rest else 0
                found[f"{module.name}:{node.lineno} {node.name}"] = n_lines
    return found


def families() -> list[str]:
    """Folders of the families that come with the package."""
    return sorted(path.parent.name for path in (PACKAGE / "training").glob("*/family.py"))


def naming_families(house: list[Module], names: list[str]) -> tuple[list[str], list[str]]:
    """(places outside the families' folders that name one, places of `NAMED_IN` that may)."""
    named, allowed = [], []
    pattern = re.compile("|".join(names), re.IGNORECASE)
    for module in house:
        # Networks have names of their own, which a family may share.
        if module.room == "nets" or any(module.name.startswith(f"training/{name}/") for name in names):
            continue
        spans = [
            (node.lineno, node.end_lineno or 0)
            for node in module.tree.body
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id in NAMED_IN.get(module.name, ())
        ]
        for line, word in words(module.tree):
            if pattern.search(word):
                is_allowed = any(first <= line <= last for first, last in spans)
                (allowed if is_allowed else named).append(f"{module.name}:{line} {word}")
    return named, allowed


def words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every identifier, own module and text.

    Docstrings, those of attributes too, are none; nor are libraries: `tests/test_architecture.py` fences them.
    """
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    libraries = {
        id(alias)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if not alias.name.startswith("cropray")
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if id(node) in libraries:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield line, node.value
        for name in ("id", "attr", "arg", "name", "asname", "module"):
            if isinstance(value := getattr(node, name, None), str):
                yield line, value


def knowing_the_cube(house: list[Module]) -> list[str]:
    """Modules, but for the cube's owners, that know how many bands, months or features the study has."""
    return [module.name for module in house if module.name not in CUBE_OWNERS and _knows_the_cube(module)]


def _knows_the_cube(module: Module) -> bool:
    if any(word in CUBE_NAMES for _, word in words(module.tree)):
        return True
    lines = module.text.splitlines()
    return any(
        CUBE_WORDS.search(lines[node.lineno - 1])
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in CUBE_NUMBERS
    )


def figures() -> dict[str, object]:
    """Figure → its value; of places, their number and their list."""
    house = modules()
    graph, lengths = arrows(house), bodies(house)
    deciles = quantiles(lengths.values(), n=10)
    longest = max(lengths, key=lambda name: lengths[name])
    named, allowed = naming_families(house, families())
    return {
        "lines of the package": sum(len(module.text.splitlines()) for module in house),
        "rooms": len(graph),
        "import arrows between rooms": sum(map(len, graph.values())),
        "circles of rooms": circles(graph),
        "lines of a function's body, p50": round(deciles[4]),
        "lines of a function's body, p90": round(deciles[8]),
        "lines of a function's body, longest": f"{lengths[longest]} ({longest})",
        f"modules of more than {MOST_MODULE_LINES} lines": [
            module.name for module in house if len(module.text.splitlines()) > MOST_MODULE_LINES
        ],
        f"functions of more than {MOST_FUNCTION_LINES} lines": [
            name for name, n_lines in lengths.items() if n_lines > MOST_FUNCTION_LINES
        ],
        "places that name a family": named,
        "lists and jobs that may": allowed,
        "modules that know the cube's size": knowing_the_cube(house),
    }


def main() -> int:
    """Print all figures."""
    for name, value in figures().items():
        print(f"{name:<40}{len(value) if isinstance(value, list) else value}")
        for place in value if isinstance(value, list) else ():
            print(f"    {place}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
