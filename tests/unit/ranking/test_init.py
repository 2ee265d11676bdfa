"""The ranking package: its public names, and that it can be imported alone."""

import langchain_mem0_scoped.ranking as package
from tests.support import run_fresh_python


def test_public_names_are_sorted_and_complete() -> None:
    constants = [name for name in package.__all__ if name.isupper()]
    classes = [name for name in package.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in package.__all__ if name.islower()]
    assert package.__all__ == [*sorted(constants), *sorted(classes), *sorted(functions)]
    for name in package.__all__:
        assert getattr(package, name) is not None
    imported = {name for name in vars(package) if not name.startswith("_")}
    modules = {"bm25", "context", "dates", "index", "scoring", "tokenizer", "vectors", "weights"}
    assert imported - modules == set(package.__all__)


def test_imports_only_pure_modules_of_this_package() -> None:
    output = run_fresh_python(
        """
        import sys
        import langchain_mem0_scoped.ranking
        ours = {name.removeprefix("langchain_mem0_scoped.") for name in sys.modules if "langchain_mem0_scoped." in name}
        print(sorted(name for name in ours if not name.startswith("ranking")))
        heavy = {"httpx", "langchain", "langchain_core", "mem0", "pydantic", "sqlalchemy", "sqlite3", "wordllama"}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    # The package itself imports mem0_compat, which turns mem0's telemetry off and imports no mem0.
    assert output == "['errors', 'fork', 'mem0_compat', 'scope']\n[]\n"
