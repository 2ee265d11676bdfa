"""The public names: all load from the package, each on first use, and the list is complete."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import FunctionType

import pytest

import langchain_mem0_scoped as package
from tests.support import run_fresh_python

INTERNAL = {
    # What the package's own views are built on.
    ("HasScopedClient", "ScopedClient"),
    ("ScopedChatMessageHistory", "ScopedClient"),
    ("ScopedMemory", "ScopedClient"),
    # What a wrapped chain asks a history.
    ("ScopedChatMessageHistory", "RunInput"),
    # The middleware's private state, which LangGraph reads.
    ("ScopedMemoryMiddleware", "AgentTurn"),
    ("ScopedMemoryMiddleware", "RunMemo"),
    ("ScopedMemoryMiddleware", "RunMemos"),
    # A mem0.Memory, and used as one.
    ("local_memory", "EngineMemory"),
}
"""Types that a public signature mentions and that are not part of the public names."""


@pytest.mark.parametrize("name", package.__all__)
def test_public_name_is_defined_in_its_module(name: str) -> None:
    home = f"{package.__name__}.{package._MODULES[name]}"
    value = getattr(package, name)
    assert value is getattr(sys.modules[home], name)
    # A function or a class knows its module. A list or a type alias does not.
    if isinstance(value, type) or inspect.isfunction(value):
        assert value.__module__.startswith(package.__name__)


@cache
def package_types_in(module: str) -> set[str]:
    """Return the types of this package that a module defines or imports, under TYPE_CHECKING too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ImportFrom) and node.level:
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if name[0].isupper() and not name.isupper()}


def signatures_of(value: object) -> Iterator[type | Callable[..., object]]:
    """Yield a function, or a class and its public methods and properties, as far as this package defines them."""
    parts = [value]
    if isinstance(value, type):
        parts += [part for name, part in vars(value).items() if name == "__init__" or name[0] != "_"]
    for part in parts:
        function = getattr(part, "fget", None) or getattr(part, "__func__", part)
        if isinstance(function, type | FunctionType) and function.__module__.startswith(package.__name__):
            yield function


def test_types_in_public_signatures_can_be_imported() -> None:
    mentioned = {
        (name, word)
        for name in package.__all__
        for function in signatures_of(getattr(package, name))
        for attribute, annotation in inspect.get_annotations(function).items()
        for word in re.findall(r"\w+", str(annotation))
        if word in package_types_in(function.__module__) and not attribute.startswith("_")
    }
    shown = {("ScopedMemory", "MessageLike"), ("with_scoped_memory", "Client"), ("HistoryOptions", "TokenCounter")}
    assert shown <= mentioned
    assert {(name, word) for name, word in mentioned if word not in package.__all__} <= INTERNAL


def test_all_is_sorted_and_complete() -> None:
    assert dir(package) == sorted(package.__all__) == sorted(package._MODULES)
    constants = [name for name in package.__all__ if name.isupper()]
    classes = [name for name in package.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in package.__all__ if name.islower()]
    assert package.__all__ == [*sorted(constants), *sorted(classes), *sorted(functions)]
    everything: dict[str, object] = {}
    exec("from langchain_mem0_scoped import *", everything)
    assert everything.keys() - {"__builtins__"} == set(package.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'langchain_mem0_scoped' has no attribute 'ScopedMemories'"):
        package.ScopedMemories  # noqa: B018
    with pytest.raises(ImportError, match="ScopedMemories"):
        exec("from langchain_mem0_scoped import ScopedMemories")


def test_importing_the_package_loads_no_dependency() -> None:
    output = run_fresh_python(
        """
        import sys
        import langchain_mem0_scoped
        heavy = {"httpx", "langchain", "langchain_core", "mem0", "numpy", "pydantic", "sqlalchemy", "wordllama"}
        print(sorted(heavy & set(sys.modules)))
        from langchain_mem0_scoped import ScopeError
        print(sorted(heavy & set(sys.modules)))
        """
    )
    assert output == "[]\n[]\n"
