"""Plots: any memories are drawn, without warnings and the same every time."""

from __future__ import annotations

import sys
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
from tests.faults import error_text
from tests.pages import NASTY
from tests.plotting import no_window  # noqa: F401
from tests.support import TEXTS, run_python

PLOTS = (plot_map, plot_timeline)


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
    """Renders the plot. Warnings and errors appear only then."""
    file = BytesIO()
    ax.figure.savefig(file, format="png", metadata={"Software": None})  # type: ignore[union-attr]
    return file.getvalue()


def points(ax: Axes) -> int:
    return sum(len(np.asarray(dots.get_offsets())) for dots in ax.collections)


def legend_of(ax: Axes) -> list[str]:
    """Returns the texts of the legend after drawing."""
    assert drawn(ax)
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts() if text.get_visible()]


def lines(ax: Axes) -> dict[str, float]:
    return dict(zip([label.get_text() for label in ax.get_yticklabels()], ax.get_yticks(), strict=True))


def session_labels(plot: Any, *sessions: Any) -> list[str]:
    """Returns the sorted labels of a plot of one memory for each session."""
    mine = memories(*[f"memory {number}" for number, _ in enumerate(sessions)])
    for record, session in zip(mine, sessions, strict=True):
        record["session_id"] = session
    ax = plot(mine)
    return sorted(legend_of(ax) if plot is plot_map else lines(ax))


def written(ax: Axes) -> set[str]:
    return {text.get_text() for text in (*ax.texts, *ax.get_yticklabels())}


@pytest.mark.parametrize("plot", PLOTS)
class TestBoth:
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
    def test_draws_a_point_for_each_memory(self, plot: Any, count: int) -> None:
        ax = plot(memories(*TEXTS[:count]))
        assert drawn(ax).startswith(b"\x89PNG")
        assert points(ax) == count
        assert ("no memories" in written(ax)) is (count == 0)

    @pytest.mark.parametrize(
        "text", [*NASTY, "$", "it costs $5 and $6_$", r"$\frac{", "猫", "\n\t\x1b\x07", "", " ", "x" * 10_000]
    )
    def test_any_text_and_session_is_drawn(self, plot: Any, text: str) -> None:
        sessions = (f"a{text}"[:256], f"b{text}"[:256], None)
        assert drawn(plot(memories(text, text, text, "", sessions=sessions)))

    def test_same_memories_give_the_same_image(self, plot: Any) -> None:
        mine = memories(*TEXTS, sessions=("s1", "s2", None))
        assert drawn(plot(mine)) == drawn(plot(mine))

    def test_many_sessions_and_memories(self, plot: Any) -> None:
        many = memories(*[f"memory {n % 7} of {n}" for n in range(1_000)], sessions=tuple(f"s{n}" for n in range(90)))
        ax = plot(many)
        assert drawn(ax)
        assert points(ax) == 1_000
        assert len(ax.collections) == 7

    def test_session_labels_are_unique(self, plot: Any) -> None:
        assert session_labels(plot, "_s1", "__", "s1") == ["__", "_s1", "s1"]
        begins = "support-2026-03-02T09:30:00Z-ticket"
        assert session_labels(plot, f"{begins}-1", f"{begins}-2") == [
            "support-2026-03…:30:00Z-ticket-1",
            "support-2026-03…:30:00Z-ticket-2",
        ]
        # Alike at both ends; without a glyph in the font; like the label of memories without a session.
        assert (
            len({*session_labels(plot, f"{begins}1{begins}", f"{begins}2{begins}", "猫", "犬", None, "no session")})
            == 6
        )
        many = [f"s{number}" for number in range(5)]
        assert len({*session_labels(plot, *many, *many, "other sessions", "other sessions", "last", "of all")}) == 7

    def test_session_may_be_of_any_type(self, plot: Any) -> None:
        assert session_labels(plot, 7, "8", ["s", 9], None, 1.5, "x" * 100_000) == [
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
        with pytest.raises(ScopeError, match="memories must belong to one user") as caught:
            plot(mine)
        assert "zebra" not in str(caught.value)
        assert plt.get_fignums() == []

    def test_draws_on_given_axes(self, plot: Any) -> None:
        figure, (left, _right) = plt.subplots(1, 2)
        assert plot(memories(*TEXTS), ax=left) is left
        assert len(figure.axes) == 2


class TestMap:
    def test_similar_texts_are_close(self) -> None:
        food, travel = ("I like pasta and pizza", "My favourite food is pasta"), ("I fly to Oslo", "My flight to Oslo")
        first, second, third, fourth = project([*food, *travel])
        assert np.linalg.norm(first - second) < np.linalg.norm(first - third)
        assert np.linalg.norm(third - fourth) < np.linalg.norm(second - fourth)

    def test_legend_names_sessions(self) -> None:
        assert legend_of(plot_map(memories(*TEXTS, sessions=("s1", "$s2$", None)))) == ["s1", "$s2$", "no session"]
        assert legend_of(plot_map(memories(*TEXTS))) == []

    def test_up_to_40_memories_are_labelled(self) -> None:
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
    def test_invalid_vectors_raise(self, vectors: Any) -> None:
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
    def test_failing_embeddings_raise_a_backend_error(self, error: Exception, retryable: bool) -> None:
        class Failing(Embeddings):
            def embed_documents(self, texts: list[str]) -> Any:
                raise error

            def embed_query(self, text: str) -> list[float]:
                raise NotImplementedError

        with pytest.raises(BackendError, match=f"the embeddings failed: {type(error).__name__}") as caught:
            plot_map(memories("a", "b"), embeddings=Failing())
        assert caught.value.retryable is retryable
        assert "zebra" not in error_text(caught.value)


class TestTimeline:
    def test_earliest_session_is_on_top(self) -> None:
        dates = ("2026-03-03T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-04T00:00:00Z")
        ax = plot_timeline(memories("a", "b", "c", sessions=("s1", "s2", None), dates=dates))
        assert lines(ax) == {"s2": 3, "s1": 2, "no session": 1}

    def test_memories_without_a_date_are_counted(self) -> None:
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
    def test_first_and_last_possible_days_are_drawn(self, dates: tuple[str, ...], zone: str) -> None:
        with mpl.rc_context({"timezone": zone}):
            ax = plot_timeline(memories("a", "b", dates=dates))
            assert drawn(ax)
        assert ax.get_title() == "2 memories by date"
        first, last = ax.get_xlim()
        assert all(first <= x <= last + 1e-4 for dots in ax.collections for x, _ in np.asarray(dots.get_offsets()))

    def test_days_are_in_utc_in_any_time_zone(self) -> None:
        labels = []
        for zone in ("UTC", "America/Los_Angeles"):
            with mpl.rc_context({"timezone": zone}):
                ax = plot_timeline(memories("a", "b", dates=("2026-03-02T01:00Z", "2026-03-02T08:00Z")))
                assert drawn(ax)
                labels.append([label.get_text() for label in ax.get_xticklabels()])
        assert labels[0] == labels[1]


def test_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.delitem(sys.modules, "langchain_mem0_scoped.plots")
    with pytest.raises(ImportError, match=r"pip install 'langchain-mem0-scoped\[plots\]'"):
        import langchain_mem0_scoped.plots  # noqa: F401


def test_no_other_module_imports_matplotlib() -> None:
    assert "False False" in run_python(
        """
        import sys
        import langchain_mem0_scoped.memory, langchain_mem0_scoped.records
        print("matplotlib" in sys.modules, "pandas" in sys.modules)
        """
    )
