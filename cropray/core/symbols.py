"""Source files as symbols: what each name of a module is, what it uses, and what of it decides a result.

A symbol is a function, class, constant or method as a syntax tree without comments, docstrings and annotations. Its uses
are followed by declared types as well, so annotations lead on though they do not count.
"""

import ast
import copy
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

NodeT = TypeVar("NodeT", bound=ast.AST)
_BARE: Final = frozenset({"Protocol", "Generic", "object", "BaseModel"})  # bases that call no method but validators
_VALIDATORS: Final = frozenset({"field_validator", "model_validator"})


@dataclass(frozen=True, slots=True)
class Symbol:
    """One name of a module."""

    digest: str
    """SHA-256 of what of it decides a result."""
    uses: frozenset[tuple[str, str | None]]
    """(module, name in it; None: the module itself)."""
    names: frozenset[str]
    methods: Mapping[str, "Symbol"] = field(default_factory=dict)
    """Of a class: methods that count where something reads their name."""


@dataclass(slots=True)
class _Module:
    """One source file, by the names that it binds."""

    name: str
    statements: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    loose: list[ast.stmt] = field(default_factory=list)
    """Statements that bind no name, such as a registration: they belong to every symbol of the module."""
    known: dict[str, Symbol] = field(default_factory=dict)

    def symbol(self, name: str) -> Symbol:
        if name not in self.known:
            self.known[name] = self._read(name)
        return self.known[name]

    def _read(self, name: str) -> Symbol:
        if name in self.imports:  # a name that this module hands on
            return Symbol("", frozenset({self.imports[name]}), frozenset())
        found = self.statements.get(name)
        if found is None:
            raise ValueError(f"module '{self.name}' binds no '{name}' at its top level; its code cannot be followed")
        methods: dict[str, Symbol] = {}
        first = found[0]
        if isinstance(first, ast.ClassDef) and self._is_closed(first):
            found, parts = [_skeleton(first)], _methods(first)
            methods = {method: self._symbol_of(statements) for method, statements in parts.items()}
        return replace(self._symbol_of([*found, *self.loose]), methods=methods)

    def _symbol_of(self, statements: list[ast.stmt]) -> Symbol:
        reader = _Reader(self)
        for statement in statements:
            reader.visit(statement)
        bare = [_Normal().visit(copy.deepcopy(statement)) for statement in statements]
        text = "\n".join(ast.dump(statement) for statement in bare if statement is not None)
        return Symbol(hashlib.sha256(text.encode()).hexdigest(), frozenset(reader.uses), frozenset(reader.names))

    def _is_closed(self, node: ast.ClassDef) -> bool:
        """Whether only code that is followed calls the methods of a class: no base is a library's."""
        return all(isinstance(base, ast.Name | ast.Subscript) and self._is_own(base) for base in node.bases)

    def _is_own(self, base: ast.expr) -> bool:
        base = base.value if isinstance(base, ast.Subscript) else base
        if not isinstance(base, ast.Name):
            return False
        module, name = self.imports.get(base.id, (self.name, base.id))
        if base.id in _BARE or name is None:
            return base.id in _BARE
        if module.partition(".")[0] != self.name.partition(".")[0]:
            return False
        (node, *_) = read_module(module).statements.get(name, [None])
        return isinstance(node, ast.ClassDef) and read_module(module)._is_closed(node)  # noqa: SLF001  the same class


def _is_method(statement: ast.stmt) -> bool:
    """Dunder methods are called by no name: they belong to the class."""
    return isinstance(statement, ast.FunctionDef) and not statement.name.startswith("__")


def _skeleton(node: ast.ClassDef) -> ast.ClassDef:
    bare = copy.copy(node)
    bare.body = [statement for statement in node.body if not _is_method(statement)] or [ast.Pass()]
    return bare


def _methods(node: ast.ClassDef) -> dict[str, list[ast.stmt]]:
    """Name → the methods of that name; a property may have a setter."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in _deciding(node):
        if isinstance(statement, ast.FunctionDef) and _is_method(statement):
            found.setdefault(statement.name, []).append(statement)
    return found


class _Reader(ast.NodeVisitor):
    """Collects what a statement uses. Annotations of local variables decide nothing and are passed over."""

    def __init__(self, module: _Module) -> None:
        self.module = module
        self.uses: set[tuple[str, str | None]] = set()
        self.names: set[str] = set()
        self._depth = 0

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.module.imports:
            self.uses.add(self.module.imports[node.id])
        elif node.id in self.module.statements:
            self.uses.add((self.module.name, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.names.add(node.attr)
        target = self.module.imports.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if target is not None and _is_module(target):
            self.uses.add((_joined(target), node.attr))
        else:
            self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value.isidentifier():
            self.names.add(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        self._annotation(node.annotation)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._annotation(node.returns)
        self._depth += 1
        for child in (node.args, *node.decorator_list, *_without_docstring(node.body)):
            self.visit(child)
        self._depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for child in (*node.bases, *node.keywords, *node.decorator_list, *_deciding(node)):
            self.visit(child)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign):
                self._annotation(statement.annotation)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if not self._depth:
            self._annotation(node.annotation)
        for child in (node.target, node.value):
            if child is not None:
                self.visit(child)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for _, target in _imported(node, self.module.name):
            self.uses.add(target)

    def visit_Import(self, node: ast.Import) -> None:
        for _, target in _imported(node, self.module.name):
            self.uses.add(target)

    def _annotation(self, node: ast.expr | None) -> None:
        """Follow a type, also one that is written as a text; its spelling names no setting."""
        if node is None:
            return
        names = self.names
        self.names = set()
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                try:
                    self.visit(ast.parse(part.value, mode="eval").body)
                except SyntaxError:
                    continue  # a literal of the type, no name
        self.visit(node)
        self.names = names


class _Normal(ast.NodeTransformer):
    """A syntax tree without what changes no result: docstrings, annotations, fields and validators of settings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        node.body = _without_docstring(node.body) or [ast.Pass()]
        return self._visited(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        node.returns = None
        node.body = _without_docstring(node.body) or [ast.Pass()]
        return self._visited(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.body = _deciding(node) or [ast.Pass()]
        return self._visited(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        node.module, node.level = None, 0  # what is imported is followed, wherever it stands
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        if node.value is None:
            return None
        return self._visited(ast.Assign([node.target], node.value))

    def _visited(self, node: NodeT) -> NodeT:
        self.generic_visit(node)
        return node


def _deciding(node: ast.ClassDef) -> list[ast.stmt]:
    """The body of a class as far as it decides results.

    The values of settings stand in a key themselves, so neither their fields nor the checks of them do.
    """
    body = _without_docstring(node.body)
    if not any(isinstance(base, ast.Name) and base.id.endswith("Settings") for base in node.bases):
        return body
    return [s for s in body if not isinstance(s, ast.AnnAssign) and not _is_docstring(s) and not _is_validator(s)]


def _is_validator(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.FunctionDef):
        return False
    calls = (d.func if isinstance(d, ast.Call) else d for d in statement.decorator_list)
    return any(isinstance(call, ast.Name) and call.id in _VALIDATORS for call in calls)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """Also without the texts below fields."""
    return [statement for statement in body if not _is_docstring(statement)]


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


@cache
def read_module(name: str) -> _Module:
    """Read a source file, once.

    Raises:
        ValueError: it is not at hand.
    """
    tree = ast.parse(_source(name).read_bytes())
    module = _Module(name)
    for statement in _top_level(tree.body):
        bound = False
        if isinstance(statement, ast.Import | ast.ImportFrom):
            module.imports |= dict(_imported(statement, name))
            bound = True
        for bound_name in _bound(statement):
            module.statements.setdefault(bound_name, []).append(statement)
            bound = True
        if not bound and not _is_docstring(statement):
            module.loose.append(statement)
    return module


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module; imports that only type checkers see are names like others."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test).endswith("TYPE_CHECKING"):
            yield from statement.body
        else:
            yield statement


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif not isinstance(statement, ast.Import | ast.ImportFrom | ast.Expr):
        yield from {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _imported(node: ast.Import | ast.ImportFrom, inside: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """(name here, (module, name there)) of an import."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0], (alias.name, None)
        return
    base = node.module or ""
    if node.level:
        parents = inside.split(".")[: -node.level]
        base = ".".join([*parents, *([base] if base else [])])
    for alias in node.names:
        yield alias.asname or alias.name, (base, alias.name)


def targets(module: str, name: str | None) -> Iterator[tuple[str, str]]:
    """What an import of this package stands for: one symbol, or a whole module."""
    target = (module, name)
    if _is_module(target):
        yield from ((_joined(target), symbol) for symbol in read_module(_joined(target)).statements)
    elif name is not None:
        yield module, name


def _is_module(target: tuple[str, str | None]) -> bool:
    module, name = target
    return name is None or _exists(f"{module}.{name}")


def _joined(target: tuple[str, str | None]) -> str:
    module, name = target
    return module if name is None else f"{module}.{name}"


@cache
def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _source(module: str) -> Path:
    loaded = sys.modules.get(module)
    spec = None if loaded is not None else importlib.util.find_spec(module)
    file = getattr(loaded, "__file__", None) if spec is None else spec.origin
    if file is None or not file.endswith(".py"):
        raise ValueError(f"the source of module '{module}' is not at hand; install it as Python files")
    return Path(file)
