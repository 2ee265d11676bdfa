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

from langchain_mem0_scoped import BackendError, InputError, ScopeError
from langchain_mem0_scoped.plots import plot_map, plot_timeline, project
from langchain_mem0_scoped.records import MemoryList, record_from
from tests.faults import told_by
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


def explained(ax: Axes) -> list[str]:
    """What the legend says once it is drawn."""
    assert drawn(ax)
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts() if text.get_visible()]


def lines(ax: Axes) -> dict[str, float]:
    return dict(zip([label.get_text() for label in ax.get_yticklabels()], ax.get_yticks(), strict=True))


def named(plot: Any, *sessions: Any) -> list[str]:
    """By which names a plot shows a memory of each of these sessions, whatever their order."""
    mine = memories(*[f"memory {number}" for number, _ in enumerate(sessions)])
    for record, session in zip(mine, sessions, strict=True):
        record["session_id"] = session
    ax = plot(mine)
    return sorted(explained(ax) if plot is plot_map else lines(ax))


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

    def test_each_session_has_a_name_of_its_own(self, plot: Any) -> None:
        assert named(plot, "_s1", "__", "s1") == ["__", "_s1", "s1"]
        begins = "support-2026-03-02T09:30:00Z-ticket"
        assert named(plot, f"{begins}-1", f"{begins}-2") == [
            "support-2026-03…:30:00Z-ticket-1",
            "support-2026-03…:30:00Z-ticket-2",
        ]
        # Alike at both ends; in no letter that the font has; like the names of those without.
        assert len({*named(plot, f"{begins}1{begins}", f"{begins}2{begins}", "猫", "犬", None, "no session")}) == 6
        many = [f"s{number}" for number in range(5)]
        assert len({*named(plot, *many, *many, "other sessions", "other sessions", "last", "of all")}) == 7

    def test_a_session_may_be_anything(self, plot: Any) -> None:
        assert named(plot, 7, "8", ["s", 9], None, 1.5, "x" * 100_000) == [
            "1.5",
            "7",
            "8",
            "['s', 9]",
            "no session",
            "x" * 15 + "…" + "x" * 16,
        ]

    def test_takes_the_memories_of_one_user(self, plot: Any) -> None:
        mine = memories("zebra", "tea")
        mine[1]["user_id"] = "u_zebra"
        with pytest.raises(ScopeError, match="memories of one user are wanted") as caught:
            plot(mine)
        assert "zebra" not in str(caught.value)
        assert plt.get_fignums() == []

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
        assert explained(plot_map(memories(*TEXTS, sessions=("s1", "$s2$", None)))) == ["s1", "$s2$", "no session"]
        assert explained(plot_map(memories(*TEXTS))) == []

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

    @pytest.mark.parametrize(
        ("error", "retryable"),
        [(ValueError("rate limit: zebra"), False), (TypeError("zebra"), False), (TimeoutError("zebra"), True)],
    )
    def test_an_embedding_that_raises_is_told_from_one_that_returns_nonsense(
        self, error: Exception, retryable: bool
    ) -> None:
        class Failing(Embeddings):
            def embed_documents(self, texts: list[str]) -> Any:
                raise error

            def embed_query(self, text: str) -> list[float]:
                raise NotImplementedError

        with pytest.raises(BackendError, match=f"the embeddings failed: {type(error).__name__}") as caught:
            plot_map(memories("a", "b"), embeddings=Failing())
        assert caught.value.retryable is retryable
        assert "zebra" not in told_by(caught.value)


class TestTimeline:
    def test_the_session_that_began_first_stands_on_top(self) -> None:
        dates = ("2026-03-03T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-04T00:00:00Z")
        ax = plot_timeline(memories("a", "b", "c", sessions=("s1", "s2", None), dates=dates))
        assert lines(ax) == {"s2": 3, "s1": 2, "no session": 1}

    def test_what_has_no_date_is_counted(self) -> None:
        ax = plot_timeline(memories("a", "b", "c", dates=("2026-03-02", None, "yesterday")))
        assert ax.get_title() == "1 memory by date, 2 without one left out"

    @pytest.mark.parametrize(
        "dates",
        [
            ("9999-12-31",),
            ("9999-12-31T23:59:59.999999Z",),
            ("0001-01-01",),
            ("0001-01-01T00:00:00.000123Z", "0001-01-01T00:00:00.000008Z"),
            ("0001-01-01", "0001-01-01T00:00:01Z"),
            ("0001-01-01", "9999-12-31"),
            ("2026-03-02", "9999-12-31"),
            ("9990-01-01", "9999-12-30"),
        ],
    )
    @pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
    def test_the_first_and_the_last_days_there_are_can_be_drawn(self, dates: tuple[str, ...], zone: str) -> None:
        with mpl.rc_context({"timezone": zone}):
            ax = plot_timeline(memories("a", "b", dates=dates))
            assert drawn(ax)
        assert ax.get_title() == "2 memories by date"
        first, last = ax.get_xlim()
        assert all(first <= x <= last + 1e-4 for dots in ax.collections for x, _ in np.asarray(dots.get_offsets()))

    def test_days_are_those_of_utc_wherever_it_is_drawn(self) -> None:
        told = []
        for zone in ("UTC", "America/Los_Angeles"):
            with mpl.rc_context({"timezone": zone}):
                ax = plot_timeline(memories("a", "b", dates=("2026-03-02T01:00Z", "2026-03-02T08:00Z")))
                assert drawn(ax)
                told.append([label.get_text() for label in ax.get_xticklabels()])
        assert told[0] == told[1]


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
