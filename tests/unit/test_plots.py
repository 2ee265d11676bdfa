"""Plots: what is drawn, for any memories, without a warning, and the same every time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from langchain_mem0_scoped import InputError
from langchain_mem0_scoped.plots import plot_map, plot_timeline, project
from langchain_mem0_scoped.records import MemoryList, record_from
from tests.support import TEXTS, run_python
from tests.unit.test_tables import NASTY

PLOTS = (plot_map, plot_timeline)


@pytest.fixture(autouse=True)
def _no_window() -> Iterator[None]:
    before = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


def memories(*texts: str, sessions: tuple[str | None, ...] = ("s1",), dates: tuple[Any, ...] = ("2026-03-02",)) -> Any:
    return MemoryList(
        record_from(
            {
                "id": str(number),
                "memory": text,
                "user_id": "u",
                "metadata": {} if (session := sessions[number % len(sessions)]) is None else {"session_id": session},
                "created_at": dates[number % len(dates)],
            }
        )
        for number, text in enumerate(texts)
    )


def drawn(ax: Axes) -> bytes:
    """Draw it: warnings and errors come only then."""
    file = BytesIO()
    ax.figure.savefig(file, format="png", metadata={"Software": None})  # type: ignore[union-attr]
    return file.getvalue()


def points(ax: Axes) -> int:
    return sum(len(np.asarray(dots.get_offsets())) for dots in ax.collections)


def written(ax: Axes) -> set[str]:
    return {text.get_text() for text in (*ax.texts, *ax.get_yticklabels())}


@pytest.mark.parametrize("plot", PLOTS)
class TestBoth:
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
    def test_has_a_point_for_each_memory(self, plot: Any, count: int) -> None:
        ax = plot(memories(*TEXTS[:count]))
        assert drawn(ax).startswith(b"\x89PNG")
        assert points(ax) == count
        assert ("nothing is remembered" in written(ax)) is (count == 0)

    @pytest.mark.parametrize(
        "text", [*NASTY, "$", "it costs $5 and $6_$", r"$\frac{", "猫", "\n\t\x1b\x07", "", " ", "x" * 10_000]
    )
    def test_any_text_and_session_is_drawn_as_it_is(self, plot: Any, text: str) -> None:
        sessions = (f"a{text}"[:256], f"b{text}"[:256], None)
        assert drawn(plot(memories(text, text, text, "", sessions=sessions)))

    def test_the_same_every_time(self, plot: Any) -> None:
        mine = memories(*TEXTS, sessions=("s1", "s2", None))
        assert drawn(plot(mine)) == drawn(plot(mine))

    def test_many_sessions_and_memories(self, plot: Any) -> None:
        many = memories(*[f"memory {n % 7} of {n}" for n in range(1_000)], sessions=tuple(f"s{n}" for n in range(90)))
        ax = plot(many)
        assert drawn(ax)
        assert points(ax) == 1_000
        assert len(ax.collections) == 7

    def test_draws_where_it_is_told_to(self, plot: Any) -> None:
        figure, (left, _right) = plt.subplots(1, 2)
        assert plot(memories(*TEXTS), ax=left) is left
        assert len(figure.axes) == 2


class TestMap:
    def test_what_means_something_alike_is_near(self) -> None:
        food, travel = ("I like pasta and pizza", "My favourite food is pasta"), ("I fly to Oslo", "My flight to Oslo")
        first, second, third, fourth = project([*food, *travel])
        assert np.linalg.norm(first - second) < np.linalg.norm(first - third)
        assert np.linalg.norm(third - fourth) < np.linalg.norm(second - fourth)

    def test_sessions_are_named(self) -> None:
        legend = plot_map(memories(*TEXTS, sessions=("s1", "$s2$", None))).get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["s1", "$s2$", "no session"]

    def test_texts_are_written_while_they_can_be_read(self) -> None:
        assert "I prefer a window seat on long …" in written(plot_map(memories(*TEXTS)))
        assert written(plot_map(memories(*(TEXTS * 6)[:41]))) == set()

    def test_takes_other_embeddings(self) -> None:
        class Lengths(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [[float(len(text))] for text in texts]

            def embed_query(self, text: str) -> list[float]:
                raise NotImplementedError

        assert project(["a", "bbb"], Lengths()).tolist() == pytest.approx(np.array([[-1, 0], [1, 0]]))

    @pytest.mark.parametrize("vectors", [[], [[1.0]], [[1.0], [1.0, 2.0]], [["a"], ["b"]], [[float("nan")]] * 2, None])
    def test_embeddings_that_fail_are_told(self, vectors: Any) -> None:
        class Broken(Embeddings):
            def embed_documents(self, texts: list[str]) -> Any:
                return vectors

            def embed_query(self, text: str) -> list[float]:
                raise NotImplementedError

        with pytest.raises(InputError, match="one vector of finite numbers for each text"):
            plot_map(memories("a", "b"), embeddings=Broken())


class TestTimeline:
    def test_the_session_that_began_first_stands_on_top(self) -> None:
        dates = ("2026-03-03T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-04T00:00:00Z")
        ax = plot_timeline(memories("a", "b", "c", sessions=("s1", "s2", None), dates=dates))
        lines = dict(zip([label.get_text() for label in ax.get_yticklabels()], ax.get_yticks(), strict=True))
        assert lines == {"s2": 3, "s1": 2, "no session": 1}

    def test_what_has_no_date_is_counted(self) -> None:
        ax = plot_timeline(memories("a", "b", "c", dates=("2026-03-02", None, "yesterday")))
        assert ax.get_title() == "1 memory by date, 2 without one left out"


def test_matplotlib_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.delitem(sys.modules, "langchain_mem0_scoped.plots")
    with pytest.raises(ImportError, match=r"pip install 'langchain-mem0-scoped\[plots\]'"):
        import langchain_mem0_scoped.plots  # noqa: F401


def test_nothing_else_imports_it() -> None:
    assert "False False" in run_python(
        """
        import sys
        import langchain_mem0_scoped.memory, langchain_mem0_scoped.records
        print("matplotlib" in sys.modules, "pandas" in sys.modules)
        """
    )
