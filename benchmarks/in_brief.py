"""The README's two tables and picture, from results.json and recall.json. `python -m benchmarks.in_brief`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

_FOLDER: Final = Path(__file__).parent
_PICTURE: Final = _FOLDER / "measured.svg"
_OURS: Final = "langchain-mem0-scoped"


def tables() -> list[str]:
    """Return the README's tables of speed and of recall, in Markdown."""
    return ["\n".join(_speed()), "\n".join(_recall())]


def bars() -> dict[str, dict[str, float]]:
    """Return the picture's two panels by title: the name and figure of each bar."""
    results, recall = _results(), _json("recall.json")["sides"]
    many = results["search"][0]["detail"]
    return {
        "R@10 on LoCoMo, % (higher is better)": {
            f"{_OURS}, held-out weights": recall["held-out folds"]["R@10"],
            "BM25": recall["BM25 alone"]["R@10"],
            "mem0's own ranking": recall["mem0's own ranking, through mem0"]["R@10"],
            "cosine": recall["dense alone (cosine)"]["R@10"],
        },
        "search time, p50, ms (lower is better)": {
            f"{_OURS}, 100,000 users": many["p50 at 100,000 users, ms"],
            f"{_OURS}, 1,000 users": many["p50 at 1,000 users, ms"],
            "LangGraph's InMemoryStore, 1,000 users": results["inmemorystore"][0]["detail"]["p50 of the peer, ms"],
            "mem0 on local Qdrant, 1,000 users": results["qdrant"][0]["detail"]["p50 of the peer, ms"],
        },
    }


def draw(path: Path = _PICTURE) -> None:
    """Draw the picture as an SVG with real text; the same figures give the same file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "measured", "font.size": 10}):
        figure = Figure(figsize=(11, 2.3), layout="constrained")
        for axes, (title, figures) in zip(figure.subplots(1, 2), bars().items(), strict=True):
            names = list(figures)[::-1]
            colours = ["#4878a8" if name.startswith(_OURS) else "#c8c8c8" for name in names]
            axes.barh(names, [figures[name] for name in names], color=colours)
            axes.bar_label(axes.containers[0], labels=[label(figures[name]) for name in names], padding=3)
            axes.set_title(title, fontsize=11)
            axes.spines[["top", "right", "bottom"]].set_visible(False)
            axes.set(xticks=[], xmargin=0.12)
        figure.savefig(path, metadata={"Date": None})


def label(value: float) -> str:
    """Format a figure with at most three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _speed() -> Iterator[str]:
    results = _results()
    (many, alone), (one, again) = results["search"], results["one-user"]
    (qdrant,), (in_memory,), (over,) = results["qdrant"], results["inmemorystore"], results["overhead"]
    yield from _table(
        ("Search in the embedded store, p50", ""),
        [
            (
                "100,000 users with 20 memories each, compared with 1,000 users",
                f"{label(many['value'])} times as long: {label(alone['value'])} ms",
            ),
            (
                "1,000 users, compared with mem0's default store (local Qdrant)",
                _faster(qdrant),
            ),
            (
                "1,000 users, compared with LangGraph's InMemoryStore and the same embedding",
                _faster(in_memory),
            ),
            (
                "`ScopedMemory.search`, compared with a direct call of `mem0.Memory.search`",
                f"{over['value']:.0f} µs more",
            ),
            (
                "one user with 10,000 memories: first search, repeated search",
                f"{label(one['value'])} ms, {label(again['detail']['p50 search, ms'])} ms",
            ),
        ],
    )


def _faster(measured: dict[str, Any]) -> str:
    of = measured["detail"]
    first = of["p50 of the peer, ms"] / of["p50 of this package, first search of a user, ms"]
    return f"{label(measured['value'])} times as fast; {label(first)} times as fast for a user's first search"


def _recall() -> Iterator[str]:
    sides = _json("recall.json")["sides"]
    yield from _table(
        ("R@10 on LoCoMo, offline embedding", "categories 1 to 4", "all 1,982"),
        [
            (name, f"{sides[side]['R@10']:.1f}", f"{sides[side]['R@10 of all']:.1f}")
            for name, side in (
                ("held-out weights (chosen on the other nine conversations)", "held-out folds"),
                ("weights in use", "this package"),
                ("BM25 alone", "BM25 alone"),
                ("mem0's own ranking on the same vectors", "mem0's own ranking, through mem0"),
            )
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |".replace("|  |", "| |").replace(" --- ", "---")


def _results() -> dict[str, Any]:
    results: dict[str, Any] = _json("results.json")["results"]
    return results


def _json(name: str) -> Any:
    return json.loads((_FOLDER / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    draw()
    print("\n\n".join(tables()))
