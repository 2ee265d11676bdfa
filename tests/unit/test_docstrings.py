"""Docstrings: every public name has one, its sections name the real parameters and fields, its examples run."""

from __future__ import annotations

import builtins
import doctest
import importlib
import inspect
import io
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import FunctionType, ModuleType
from typing import Any, is_typeddict

import pytest

import langchain_mem0_scoped as package
from tests.plotting import no_window  # noqa: F401  # for the examples of plots


def _modules() -> Iterator[ModuleType]:
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def _public(where: Any, module: str) -> Iterator[tuple[str, Any]]:
    """Yield the public classes, functions, methods and properties that are defined here."""
    for name, value in list(vars(where).items()):
        value = getattr(value, "__func__", value)
        ours = getattr(value, "__module__", module) == module
        if name.startswith("_") or not ours or not (inspect.isroutine(value) or isinstance(value, (type, property))):
            continue
        yield name, value
        if isinstance(value, type):
            yield from ((f"{name}.{inner}", found) for inner, found in _public(value, module))


def _names_in_section(value: Any, section: str) -> list[str]:
    """Return the names in a section of a docstring, in order; [] if there is no such section."""
    _, _, after = (inspect.getdoc(value) or "").partition(f"\n{section}:\n")
    return re.findall(r"^    (\*{0,2}\w+):", re.split(r"^\S", after, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE)


def _parameters(value: Any) -> list[str]:
    made_by = vars(value).get("__init__", value) if isinstance(value, type) else value
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    given = inspect.signature(made_by).parameters.values()
    return [stars.get(one.kind.name, "") + one.name for one in given if one.name not in ("self", "cls")]


def _fields(value: Any) -> list[str]:
    if is_dataclass(value):
        return [field.name for field in fields(value) if not field.name.startswith("_")]
    if isinstance(value, type) and (issubclass(value, tuple) or is_typeddict(value)):
        return [name for name in value.__annotations__ if not name.startswith("_")]
    return []


MODULES = list(_modules())
PUBLIC = {
    f"{module.__name__}.{name}".removeprefix(f"{package.__name__}."): value
    for module in MODULES
    for name, value in _public(module, module.__name__)
}
# In backends/ the class `Backend` documents all twins together.
TWINS = {
    name: verb
    for name in PUBLIC
    if (verb := name.rpartition(".")[2].removeprefix("a"))
    and f"{name.rpartition('.')[0]}.{verb}" in PUBLIC.keys() - {name}
}
EXAMPLES = [one for module in MODULES for one in doctest.DocTestFinder().find(module) if one.examples]
ENTRIES = sorted(
    name
    for name in package.__all__
    if isinstance(getattr(package, name), (type, FunctionType))
    and "Error" not in name
    and name not in ("MemoryRecord", "ErasureReceipt")
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_examples_run(example: doctest.DocTest) -> None:
    report = io.StringIO()
    assert doctest.DocTestRunner().run(example, out=report.write).failed == 0, report.getvalue()


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_point_has_an_example(name: str) -> None:
    documented = f"{getattr(package, name).__module__}.{name}"
    assert documented in {one.name for one in EXAMPLES}


# Each of the following names all that are wrong: a case of its own for each of a thousand names would cost seconds.


def test_module_docstrings_begin_with_a_sentence() -> None:
    docstrings = {module.__name__: (module.__doc__ or "").partition("\n") for module in MODULES}
    assert [name for name, (first, _, _) in docstrings.items() if not first.endswith(".")] == []
    assert [name for name, (_, _, rest) in docstrings.items() if rest and not rest.startswith("\n")] == []


def test_every_public_name_has_a_docstring() -> None:
    names = [name for name in PUBLIC if name not in TWINS or not name.startswith("backends.")]
    assert len(names) > 500
    # inspect.getdoc finds the docstring of a base class, which is enough for an overriding method.
    without = [name for name in names if not (inspect.getdoc(PUBLIC[name]) or "").partition("\n")[0].endswith(".")]
    assert without == []


def test_async_twins_name_their_sync_method() -> None:
    twins = {name: verb for name, verb in TWINS.items() if not name.startswith("backends.")}
    assert twins
    wrong = [
        name
        for name, verb in twins.items()
        if not (inspect.getdoc(PUBLIC[name]) or "").startswith(f"Async twin of `{verb}`.")
    ]
    assert wrong == []


def test_args_sections_list_all_parameters_in_order() -> None:
    sections = {name: listed for name, value in PUBLIC.items() if (listed := _names_in_section(value, "Args"))}
    assert len(sections) > 100
    assert sections == {name: _parameters(PUBLIC[name]) for name in sections}


def test_attributes_sections_list_all_fields_in_order() -> None:
    sections = {
        name: listed
        for name, value in PUBLIC.items()
        if _fields(value) and (listed := _names_in_section(value, "Attributes"))
    }
    assert len(sections) > 20
    assert sections == {name: _fields(PUBLIC[name]) for name in sections}


def test_raises_sections_name_exceptions() -> None:
    known = vars(builtins) | {name: value for module in MODULES for name, value in vars(module).items()}
    sections = {name: kinds for name, value in PUBLIC.items() if (kinds := _names_in_section(value, "Raises"))}
    assert len(sections) > 100
    wrong = {
        (name, kind)
        for name, kinds in sections.items()
        for kind in kinds
        if not (isinstance(known.get(kind), type) and issubclass(known[kind], Exception))
    }
    assert wrong == set()
