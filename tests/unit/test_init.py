"""The public surface: all of it loads from the package, each part when it is first asked for, and nothing else does."""

from __future__ import annotations

import sys

import pytest

import langchain_mem0_scoped as package
from tests.support import run_python


@pytest.mark.parametrize("name", package.__all__)
def test_a_name_loads_from_the_package_and_is_one_of_its_own(name: str) -> None:
    value = getattr(package, name)
    # A plain list, such as HISTORY_CONFIG, does not say where it is from.
    home = getattr(value, "__module__", package.__name__)
    assert home.startswith(package.__name__)
    assert value is getattr(sys.modules[home], name)


def test_it_lists_what_it_has() -> None:
    assert dir(package) == sorted(package.__all__)
    everything: dict[str, object] = {}
    exec("from langchain_mem0_scoped import *", everything)
    assert everything.keys() - {"__builtins__"} == set(package.__all__)


def test_a_name_it_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'langchain_mem0_scoped' has no attribute 'ScopedMemories'"):
        package.ScopedMemories  # noqa: B018
    with pytest.raises(ImportError, match="ScopedMemories"):
        pass


def test_importing_it_loads_nothing_of_weight() -> None:
    told = run_python(
        """
        import sys
        import langchain_mem0_scoped
        heavy = {"httpx", "langchain", "langchain_core", "mem0", "numpy", "pydantic", "sqlalchemy", "wordllama"}
        print(sorted(heavy & set(sys.modules)))
        from langchain_mem0_scoped import ScopeError
        print(sorted(heavy & set(sys.modules)))
        """
    )
    assert told == "[]\n[]\n"
