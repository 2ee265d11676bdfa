"""The structure of the package: imports point one way, private names stay private, SQL stays behind the storages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.imports import circles, modules_of
from tests.support import ROOT, run_fresh_python

PACKAGE: Final = ROOT / "langchain_mem0_scoped"
MODULES: Final = modules_of(PACKAGE)

PURE: Final = {
    "errors",
    "database_header",
    "extraction",
    "filters",
    "fork",
    "json_values",
    "messages",
    "open_clients",
    "provider_errors",
    "recall_text",
    "records",
    "requests",
    "scope",
    "tables",
}
"""Any module may import these. They import each other and nothing else of this package."""

CHAINS: Final = {
    "agents", "answers", "chain", "chain_checkpoint", "chain_messages", "chain_output", "chain_prompt", "chain_run",
    "chain_steps", "graph_runs", "middleware", "run_config", "tracing", "unsaved",
}  # fmt: skip
VIEWS: Final = {
    "chat_history", "pending_turn", "alternatives", "retriever", "tools", "store", "recall", "export", "notebook",
    "plots"
}  # fmt: skip

MAY_IMPORT: Final[dict[str, set[str]]] = {
    **{name: set[str]() for name in PURE},
    "mem0_compat": set(),
    "memory_filter": set(),
    "ranking": set(),
    "embeddings": {"ranking"},
    "transcripts": set(),
    "options": {"memory_filter", "transcripts"},
    "transcripts.separate": {"backends.base"},
    "engine": {"backends.base", "backends.clean_errors", "embeddings", "mem0_compat", "ranking", "transcripts"},
    "sqlite": {"embeddings", "engine"},
    "postgres": {"embeddings", "engine"},
    "backends": {"mem0_compat", "transcripts"},
    "backends.default": {"sqlite", "postgres"},
    "scoped_client": {"backends", "transcripts"},
    **{name: {"memory_filter", "options", "scoped_client", "transcripts", *VIEWS} for name in VIEWS},
    **{name: {"memory_filter", "options", "scoped_client", "transcripts", *VIEWS, *CHAINS} for name in CHAINS},
    "memory": {"backends", "options", "scoped_client", *VIEWS},
}
"""What each module may import besides the pure modules and its own folder. A folder stands for all in it.

`backends.base` is the contract that the engine and a separate transcript store work with; it imports neither.
"""

# Types of a client and of its rows, and the check that an argument is a client.
MAY_IMPORT.update(
    {name: MAY_IMPORT[name] | {"backends", "embeddings"} for name in (VIEWS | CHAINS) & MAY_IMPORT.keys()}
)

WITHOUT_RULES: Final = {"", "__main__", "admin", "cli"}
"""Programs, what concerns many users, and the list of exports. No other module imports them."""

FOREIGN_PRIVATE_NAMES: Final[dict[tuple[str, str], str]] = {
    ("backends.mem0_history", "_lock"): "the lock of mem0's history file: what is removed there must wait for writers",
    ("backends.mem0_memory", "_entity_store"): "None until mem0 opens it, and reading the property would open it",
    ("mem0_compat", "_load_failed_full"): "tells mem0 that spaCy has no model, so that it does not download one",
    ("mem0_compat", "_load_failed_lemma"): "the same, for the second of its two models",
}
"""Underscore names of other projects that have no public counterpart: (module, name) -> reason."""

SQL_BELONGS_IN: Final = ("sqlite", "postgres", "backends.mem0_history", "transcripts.sql", "transcripts.sqlite_file")


def names_of(module: str) -> set[str]:
    """A module and every folder that it is in: "a.b" -> {"a", "a.b"}."""
    parts = module.split(".")
    return {".".join(parts[: length + 1]) for length in range(len(parts))}


def is_in(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def not_allowed(root: Path) -> list[str]:
    """Imports that point the wrong way."""
    found = []
    for name, module in modules_of(root).items():
        if name in WITHOUT_RULES:
            continue
        rules = [MAY_IMPORT[one] for one in names_of(name) if one in MAY_IMPORT]
        allowed = PURE.union(*rules) | {name.partition(".")[0]}
        if name in PURE:
            allowed = PURE
        if "ranking" in names_of(name):
            allowed = {"ranking", "scope"}  # the name of the metadata key that holds a session
        found += [f"{name} imports {one or root.name}" for one in module.imports() if not names_of(one) & allowed]
    return sorted(found)


def private_uses(root: Path) -> list[str]:
    """Uses of underscore names that another module defines."""
    return sorted(
        f"{name}:{use.line} uses {use.name}"
        for name, module in modules_of(root).items()
        for use in module.underscore_uses()
        if (name, use.name) not in FOREIGN_PRIVATE_NAMES
    )


def sql_elsewhere(root: Path) -> list[str]:
    """Modules outside the storages that use sqlite3 or hold SQL."""
    return sorted(
        name
        for name, module in modules_of(root).items()
        if not is_in(name, SQL_BELONGS_IN) and ("sqlite3" in module.imports_outside() or module.sql())
    )


def circles_in(root: Path) -> list[list[str]]:
    return circles({name: module.imports() for name, module in modules_of(root).items()})


def test_no_circle_among_modules() -> None:
    assert circles_in(PACKAGE) == []


def test_imports_point_one_way() -> None:
    assert not_allowed(PACKAGE) == []


def test_every_module_has_a_rule() -> None:
    assert {name for name in MODULES if not names_of(name) & MAY_IMPORT.keys()} <= WITHOUT_RULES


def test_no_use_of_another_modules_underscore_names() -> None:
    assert private_uses(PACKAGE) == []


def test_exceptions_for_foreign_private_names_are_used() -> None:
    used = {(name, use.name) for name, module in MODULES.items() for use in module.underscore_uses()}
    assert FOREIGN_PRIVATE_NAMES.keys() - used == set()


def test_sql_stays_behind_the_storages() -> None:
    assert sql_elsewhere(PACKAGE) == []


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_only_the_default_backend_and_the_package_import_a_storage(engine: str) -> None:
    importers = {name for name, module in MODULES.items() if any(is_in(one, (engine,)) for one in module.imports())}
    assert {name for name in importers if not is_in(name, (engine,))} <= {"", "backends.default"}


def test_no_view_imports_the_facade() -> None:
    assert {name for name, module in MODULES.items() if "memory" in module.imports()} <= {"", "admin", "cli"}


def test_only_programs_import_what_concerns_many_users() -> None:
    wanted = {"admin", "cli", "__main__"}
    assert {name for name, module in MODULES.items() if wanted & module.imports()} <= {"", *wanted}


def test_ranking_imports_only_numpy_and_pystemmer() -> None:
    outside = {one for name in MODULES if is_in(name, ("ranking",)) for one in MODULES[name].imports_outside()}
    assert outside - set(_standard_library()) <= {"numpy", "Stemmer"}
    assert "sqlite3" not in outside


def _standard_library() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names


def test_ranking_alone_loads_neither_mem0_langchain_nor_sqlite3() -> None:
    code = """
        import sys
        import langchain_mem0_scoped.ranking
        unwanted = ("mem0", "sqlite3", "_sqlite3", "sqlalchemy", "httpx", "qdrant_client")
        print([name for name in sys.modules if name.split(".")[0] in unwanted or name.startswith("langchain_core")])
    """
    assert run_fresh_python(code) == "[]\n"


# -- the checks themselves, on small packages that break one rule each


def package(folder: Path, **sources: str) -> Path:
    """A package with these modules; "a__b" is b.py in the folder a."""
    root = folder / "sample"
    root.mkdir()
    (root / "__init__.py").write_text("")
    for name, source in sources.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.with_name("__init__.py").touch()
        path.write_text(source)
    return root


@pytest.mark.parametrize(
    "back",
    [
        "from .scope import check",
        "from . import scope",
        "from sample.scope import check",
        "import sample.scope",
        "def late():\n    from .scope import check",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .scope import check",
    ],
)
def test_a_circle_is_found_wherever_the_import_is(tmp_path: Path, back: str) -> None:
    root = package(tmp_path, scope="from .errors import Error", errors=back)
    assert circles_in(root) == [["errors", "scope"]]


@pytest.mark.parametrize(
    "use",
    [
        "from .b import _name",
        "from . import b\nb._name",
        "def f(thing):\n    return thing._name",
        "def f(thing):\n    thing._name = 1",
        "def f(thing):\n    return getattr(thing, '_name', None)",
        "from mem0 import _name",
        "from ._name import thing",
    ],
)
def test_a_private_name_of_another_module_is_found(tmp_path: Path, use: str) -> None:
    assert [one.rpartition(" ")[2] for one in private_uses(package(tmp_path, a=use, b="_name = 1"))] == ["_name"]


@pytest.mark.parametrize(
    "use",
    [
        "class A:\n    def f(self):\n        return self._name",
        "class A:\n    def f(self):\n        return super()._name",
        "class A:\n    def f(self, other):\n        self._name = other._name",
        "class A:\n    __slots__ = ('_name',)\ndef f(a):\n    return a._name",
        "def f(row):\n    return row._replace(a=1), row.__class__",
    ],
)
def test_a_private_name_of_the_same_module_is_not_found(tmp_path: Path, use: str) -> None:
    assert private_uses(package(tmp_path, a=use)) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scope", "from .chain import x"),
        ("ranking__index", "from ..errors import Error"),
        ("ranking__index", "from ..engine import memory"),
        ("engine__memory", "from ..sqlite import database"),
        ("engine__memory", "from ..backends.mem0_memory import Mem0Backend"),
        ("backends__base", "from ..scoped_client import ScopedClient"),
        ("backends__base", "from ..sqlite import local_memory"),
        ("scoped_client", "from .chat_history import x"),
        ("retriever", "from .memory import ScopedMemory"),
        ("retriever", "from .chain import x"),
        ("recall", "from .middleware import x"),
        ("transcripts__sql", "from ..engine import memory"),
        ("chain", "from . import x"),
    ],
)
def test_an_import_that_points_the_wrong_way_is_found(tmp_path: Path, module: str, source: str) -> None:
    names = (
        "chain",
        "engine__memory",
        "sqlite__database",
        "backends__base",
        "backends__mem0_memory",
        "scoped_client",
        "chat_history",
    )
    others = dict.fromkeys((*names, "memory", "middleware", "errors"), "")
    assert len(not_allowed(package(tmp_path, **{**others, module: source}))) == 1


@pytest.mark.parametrize("source", ["import sqlite3", "Q = 'SELECT 1'", "Q = f'  UPDATE {1}'", "'''DELETE FROM x'''"])
def test_sql_elsewhere_is_found(tmp_path: Path, source: str) -> None:
    assert sql_elsewhere(package(tmp_path, engine__memory=source, sqlite__database=source)) == ["engine.memory"]
