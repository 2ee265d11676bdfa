"""The import graph of a package, and its uses of underscore names, read from the source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

PUBLIC_IN_SPITE_OF_THEIR_NAME: Final = {"_replace", "_asdict", "_fields", "_make"}
"""Of a NamedTuple: documented, underscored so that they clash with no field."""

SQL_VERBS: Final = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "PRAGMA ", "CREATE ", "DROP ", "ALTER ")


class Use(NamedTuple):
    """An underscore name that belongs to another module."""

    module: str
    name: str
    line: int


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: Its name in the package: "", "scope", "backends", "backends.base".
        path: Its file.
        package: The name of the package.
        known: The names of all modules of the package.
    """

    name: str
    path: Path
    package: str
    known: frozenset[str]

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.path.read_text(encoding="utf-8"))

    def imports(self) -> set[str]:
        """The modules of the package that it imports, inside functions and under TYPE_CHECKING too."""
        return {target for node in ast.walk(self.tree) for target in self._targets(node)} - {self.name}

    def imports_outside(self) -> set[str]:
        """The other packages that it imports, by their first name."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
        return found - {self.package}

    def _targets(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == self.package:
                    yield self._closest(alias.name.removeprefix(self.package).lstrip("."))
        elif isinstance(node, ast.ImportFrom) and (base := self._base(node)) is not None:
            for alias in node.names:
                yield self._closest(f"{base}.{alias.name}".lstrip("."))

    def _base(self, node: ast.ImportFrom) -> str | None:
        """What the names are imported from; None where it is another package."""
        if not node.level:
            first, _, rest = (node.module or "").partition(".")
            return rest if first == self.package else None
        parts = self.name.split(".") if self.name else []
        if self.path.name != "__init__.py":
            parts = parts[:-1]
        parts = parts[: len(parts) - (node.level - 1)]
        return ".".join([*parts, *((node.module or "").split(".") if node.module else [])])

    def _closest(self, name: str) -> str:
        """The module that a dotted name is, or is defined in."""
        while name and name not in self.known:
            name = name.rpartition(".")[0]
        return name

    def underscore_uses(self) -> list[Use]:
        """Underscore names of other modules, own or foreign: imported, or reached for on an object."""
        own = self._own_names()
        found: list[Use] = []
        for node in ast.walk(self.tree):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute) and not _is_self(node.value) and node.attr not in own:
                names = [node.attr]
            elif isinstance(node, ast.Call) and (name := _named_attribute(node)) is not None and name not in own:
                names = [name]
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            found += [Use(self.name, name, getattr(node, "lineno", 0)) for name in names if _is_private(name)]
        return found

    def _own_names(self) -> set[str]:
        """Every name that this module defines: functions, classes, variables, attributes and slots."""
        own: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
                own.add(node.attr)
            elif isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets
            ):
                constants = [one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)]
                own |= {name for name in constants if isinstance(name, str)}
        return own

    def sql(self) -> list[int]:
        """The lines of string constants that begin as SQL does."""
        return [
            node.lineno
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.lstrip().startswith(SQL_VERBS)
        ]


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC_IN_SPITE_OF_THEIR_NAME


def _is_self(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id == "super" or (node.func.id == "type" and bool(node.args) and _is_self(node.args[0]))
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _named_attribute(node: ast.Call) -> str | None:
    """The attribute that getattr(x, "name") and its like name, where x is not self."""
    if not isinstance(node.func, ast.Name) or node.func.id not in ("getattr", "setattr", "hasattr", "delattr"):
        return None
    if len(node.args) < 2 or _is_self(node.args[0]):
        return None
    name = node.args[1]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def modules_of(root: Path) -> dict[str, Module]:
    """Every module below a package's folder, by its name."""
    names = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
        for path in sorted(root.rglob("*.py"))
    }
    known = frozenset(names)
    return {name: Module(name, path, root.name, known) for name, path in names.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other, each sorted: Tarjan's strongly connected components."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in number:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], number[target])
        if low[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in number:
            visit(name)
    return sorted(found)
