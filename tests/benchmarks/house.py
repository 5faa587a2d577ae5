"""Figures of the house: how large the package is, how its rooms hang together, and who knows a family or the study's cube.

`python -m tests.benchmarks.house` prints them; `tests/test_house.py` holds some of them.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
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
# Ways of an argument that a reader follows: file, function, parameter.
WAYS = (("stages/acquire.py", "run", "job"), ("search/fit.py", "fit_unit", "unit"))
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


def file_arrows(house: list[Module]) -> dict[str, set[str]]:
    """File → files that it imports, late and for types too; `search/fit.py`."""
    named = {_dotted(module): module.name for module in house}
    found = {}
    for module in house:
        targets = {named.get(full) or named.get(full.rpartition(".")[0]) for full in _imports(module.tree)}
        found[module.name] = {target for target in targets if target} - {module.name}
    return found


def _dotted(module: Module) -> str:
    return f"cropray.{module.name.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


def way(house: list[Module], file: str, function: str, parameter: str) -> Iterator[str]:
    """Files that an argument comes to, call by call and back: of functions that are given it, or something of it.

    Args:
        house: all modules.
        file: where the way begins: `stages/acquire.py`.
        function: of that file.
        parameter: of that function.
    """
    known = {
        f"{_dotted(module)}.{node.name}": (module, node)
        for module in house
        for node in module.tree.body
        if isinstance(node, ast.FunctionDef)
    }
    (start,) = (_dotted(module) for module in house if module.name == file)
    yield from _way(known, f"{start}.{function}", parameter, ())


def _way(
    known: dict[str, tuple[Module, ast.FunctionDef]], name: str, parameter: str, before: tuple[str, ...]
) -> Iterator[str]:
    module, node = known[name]
    yield module.name
    called = {full.rpartition(".")[2]: full for full in _imports(module.tree)}
    calls = sorted((c for c in ast.walk(node) if isinstance(c, ast.Call)), key=lambda c: (c.lineno, c.col_offset))
    for call in calls:
        own, _, of_module = ast.unparse(call.func).partition(".")
        target = f"{called.get(own, f'{_dotted(module)}.{own}')}.{of_module}".rstrip(".")
        if target not in known or target in (*before, name):
            continue
        names = [argument.arg for argument in known[target][1].args.args]
        given = [*zip(names, call.args, strict=False), *((k.arg, k.value) for k in call.keywords)]
        for argument, value in given:
            if argument and _root(value) == parameter:
                yield from _way(known, target, argument, (*before, name))
                yield module.name


def _root(value: ast.expr) -> str:
    """`job` of `job` and of `job.cluster.wait_s`."""
    while isinstance(value, ast.Attribute):
        value = value.value
    return value.id if isinstance(value, ast.Name) else ""


def climbs(files: Iterable[str]) -> int:
    """How often a way turns back to the file that it came from."""
    stack: list[str] = []
    n_climbs, is_climbing = 0, False
    for file, following in pairwise([*files, ""]):
        if file == following:
            continue
        if file in stack[-2:-1]:
            stack.pop()
            n_climbs, is_climbing = n_climbs + (not is_climbing), True
        else:
            stack.append(file)
            is_climbing = False
    return n_climbs


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
        "circles of files within rooms": circles(file_arrows(house)),
        **{f"climbs of {' '.join(start)}": climbs(way(house, *start)) for start in WAYS},
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
