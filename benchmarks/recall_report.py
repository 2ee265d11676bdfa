"""Writes the results of recall.py to RECALL.md, recall.json and recall.svg."""

import json
import os
import platform
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from langchain_mem0_scoped.ranking import DEFAULT_THRESHOLD
from langchain_mem0_scoped.ranking.weights import WEIGHTS

from . import in_brief
from .recall_measured import HeldOut, Measured
from .recall_scores import MEASURES, Difference, Questions, Scored, difference

_FOLDER: Final = Path(__file__).parent
_BY_CATEGORY: Final = ((1, "multi-hop"), (2, "temporal"), (3, "open-domain"), (4, "single-hop"), (5, "adversarial"))
_OURS: Final = "**this package**"
_HELD_OUT: Final = "**held-out folds**"
_DEVIATION: Final = " [{:.1f}, {:.1f}]"


def write(measured: Measured, other_name: str) -> None:
    """Write the three files, and the README's picture."""
    (_FOLDER / "RECALL.md").write_text("\n".join([*_markdown(measured, other_name), ""]), encoding="utf-8")
    text = json.dumps(_numbers(measured), indent=2, ensure_ascii=False)
    (_FOLDER / "recall.json").write_text(f"{text}\n", encoding="utf-8")
    _plot(measured, _FOLDER / "recall.svg")
    in_brief.draw()


def _markdown(measured: Measured, other_name: str) -> Iterator[str]:
    questions, now = measured.questions, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield "# Recall on LoCoMo"
    yield ""
    yield from _paragraph(
        "`make recall DATA=PATH` (`python -m benchmarks.recall PATH`) writes this file; do not edit it. The data set",
        "(Maharana et al., 2024; CC BY-NC 4.0) is not part of this repository.",
    )
    yield from _paragraph(
        "Each of the ten conversations is one user, and each turn is one memory.",
        f"{len(questions.categories):,} questions have evidence; {int(questions.answerable.sum()):,} of them are in",
        "categories 1 to 4. Figures are percentages. MRR and nDCG use the first ten results. All figures are from one",
        f"run on {now}, on {os.cpu_count()} CPUs, with Python {platform.python_version()} and the offline embedding.",
    )
    yield "![R@10 of every ranking, and the effect of the threshold](recall.svg)"
    yield ""
    yield from _sides(measured.sides | {_HELD_OUT: measured.held_out.scored}, questions)
    yield ""
    yield from _paragraph(
        '"Dense alone" ranks by vectors only: by cosine, or by the matched filter, which measures similarity relative',
        'to all vectors of the same user. "mem0\'s own ranking" is `Memory.search` with its defaults, without the',
        "optional spaCy. It uses the same vectors, exact search, and BM25 with the same stemming. Without keyword",
        "search it equals dense alone; this is the case on mem0's default store without its optional packages.",
    )
    yield from _cross_validation(measured.held_out)
    yield ""
    yield from _differences(measured)
    yield ""
    yield from _thresholds(measured)
    yield ""
    yield from _speeds(measured)
    if measured.other is not None:
        sides, held = measured.other
        yield ""
        yield f"## With {other_name}"
        yield ""
        yield "The same rows, questions and weights, with the vectors of another embedding."
        yield ""
        yield from _sides(sides | {_HELD_OUT: held.scored}, questions)
        yield ""
        gain = difference(sides[_OURS], measured.sides[_OURS], questions, questions.all, "R@10")
        yield f"Difference in R@10 of all questions to the offline embedding: {_shown(gain)}."


def _paragraph(*lines: str) -> Iterator[str]:
    yield from textwrap.wrap(" ".join(lines), 118, break_on_hyphens=False)
    yield ""


def _sides(sides: Mapping[str, Scored], questions: Questions) -> Iterator[str]:
    head = [*MEASURES, "R@10 of all", *(f"{number} {name}" for number, name in _BY_CATEGORY)]
    yield f"| categories 1 to 4 | {' | '.join(head)} |"
    yield f"|---|{'---|' * len(head)}"
    for name, values in sides.items():
        cells = [f"{figure:.1f}" for figure in _figures(values, questions).values()]
        yield f"| {name} | {' | '.join(cells)} |"


def _figures(values: Scored, questions: Questions) -> dict[str, float]:
    figures = {
        measure: float(values[questions.answerable, column].mean() * 100) for column, measure in enumerate(MEASURES)
    }
    figures["R@10 of all"] = float(values[:, 1].mean() * 100)
    for number, name in _BY_CATEGORY:
        figures[name] = float(values[questions.categories == number, 1].mean() * 100)
    return figures


def _cross_validation(held: HeldOut) -> Iterator[str]:
    yield "## The weights"
    yield ""
    yield from _paragraph(
        "Held-out folds: the six weights are chosen on nine conversations by R@10 of all questions, and measured on",
        "the tenth. This is repeated ten times. The choice of signals and the constants of BM25 and of the matched",
        "filter are not cross-validated: they were chosen with all ten conversations in view. The weights in use were",
        "chosen for these questions together with paraphrases that share few words with the answers. So they are",
        "not the best weights for this table.",
    )
    yield from _paragraph(
        f"R@10 of all questions is between {held.lowest:.1f} and {held.highest:.1f} for all {held.settings} settings",
        "tried. The chosen weights:",
    )
    yield f"| folds | {' | '.join(WEIGHTS._fields)} |"
    yield f"|---|{'---|' * len(WEIGHTS)}"
    for times, weights in held.chosen:
        yield f"| {times} | {' | '.join(f'{weight:g}' for weight in weights)} |"
    yield f"| in use | {' | '.join(f'{weight:g}' for weight in WEIGHTS)} |"


def _differences(measured: Measured) -> Iterator[str]:
    yield "## Confidence"
    yield ""
    yield from _paragraph(
        "Differences of R@10 in points, with paired bootstrap intervals (95 %, 2,000 draws). The first interval",
        "resamples questions. The second resamples conversations, and the questions in each.",
    )
    yield "| | categories 1 to 4 | by conversation | all | by conversation |"
    yield "|---|---|---|---|---|"
    compared = list(measured.sides.items())[: measured.baselines]
    for title, values in (("held-out folds", measured.held_out.scored), ("in use", measured.sides[_OURS])):
        for name, other in compared:
            cells = []
            for among in (measured.questions.answerable, measured.questions.all):
                gain = difference(values, other, measured.questions, among, "R@10")
                cells += [
                    f"{gain.mean:+.1f}{_DEVIATION.format(*gain.by_question)}",
                    _DEVIATION.format(*gain.by_conversation),
                ]
            yield f"| {title}, against {name} | {' | '.join(cells)} |"


def _shown(gain: Difference) -> str:
    of_questions, of_conversations = _DEVIATION.format(*gain.by_question), _DEVIATION.format(*gain.by_conversation)
    return f"{gain.mean:+.1f}{of_questions}, by conversation{of_conversations}"


def _thresholds(measured: Measured) -> Iterator[str]:
    yield "## The threshold"
    yield ""
    yield from _paragraph(
        f"By default a search returns nothing if the best memory scores below {DEFAULT_THRESHOLD:g}. Every question is",
        'asked of its own user, and "moved" to two other users, who have no answer. In the column "moved, renamed",',
        "the speaker names in a moved question are replaced by the names of the other user's speakers.",
    )
    head = ("threshold for the best score", "moved: no result", "moved, renamed: no result", "own user: no result")
    yield f"| {' | '.join(head)} | R@10, 1 to 4 | R@10, all |"
    yield "|---|---|---|---|---|---|"
    for line in measured.curve:
        figures = (line.moved, line.renamed, line.own, line.answerable, line.all)
        name = f"**{line.threshold:g}**" if line.threshold == DEFAULT_THRESHOLD else f"{line.threshold:g}"
        yield f"| {name} | {' | '.join(f'{figure:.1f}' for figure in figures)} |"
    yield ""
    yield from _paragraph(
        f"The same at {DEFAULT_THRESHOLD:g} for users with few memories, cut as windows from the conversations:"
    )
    yield "| memories | moved: no result | own user: no result |"
    yield "|---|---|---|"
    for few in measured.few:
        yield f"| {few.memories} | {few.moved:.0f} | {few.own:.0f} |"


def _speeds(measured: Measured) -> Iterator[str]:
    speed, through = measured.speed, _figures(measured.through, measured.questions)
    yield "## Through `ScopedMemory.search`"
    yield ""
    yield from _paragraph(
        f"With the defaults and k = 10, in one store with all ten users: R@10 {through['R@10']:.1f} (categories 1 to",
        f"4), {through['R@10 of all']:.1f} (all); p50 {measured.p50:.2f} ms. No search returned a row of another user.",
    )
    yield "| one user with 600 memories, p50, including the query embedding | |"
    yield "|---|---|"
    yield f"| `ScopedMemory.search` | {speed.search:.3f} ms |"
    yield f"| the same search, ranked by cosine and BM25 only | {speed.plain_search:.3f} ms |"
    yield f"| cosine and BM25 only, without mem0 and the file | {speed.plain:.3f} ms |"
    yield f"| ratio of the first line to the second | {speed.against_plain_search:.2f} |"
    yield f"| ratio of the first line to the third | {speed.against_plain:.2f} |"


def _numbers(measured: Measured) -> dict[str, Any]:
    questions, sides = measured.questions, measured.sides | {_HELD_OUT: measured.held_out.scored}
    numbers: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "weights": WEIGHTS._asdict(),
        "sides": {name.strip("*"): _figures(values, questions) for name, values in sides.items()},
        "chosen": [{"folds": times, **weights._asdict()} for times, weights in measured.held_out.chosen],
        "differences": [
            {"of": title, "against": name, "questions": which}
            | asdict(difference(values, other, questions, among, "R@10"))
            for title, values in (("held-out folds", measured.held_out.scored), ("in use", sides[_OURS]))
            for name, other in list(measured.sides.items())[: measured.baselines]
            for which, among in (("1 to 4", questions.answerable), ("all", questions.all))
        ],
        "threshold": [asdict(line) for line in measured.curve],
        "few": [asdict(line) for line in measured.few],
        "through": _figures(measured.through, questions),
        "speed": asdict(measured.speed),
    }
    if measured.other is not None:
        others, held = measured.other
        numbers["other"] = {
            name.strip("*"): _figures(values, questions) for name, values in (others | {_HELD_OUT: held.scored}).items()
        }
    return numbers


def _plot(measured: Measured, path: Path) -> None:
    """Draw R@10 of every ranking as bars, and the two rates of the threshold as lines."""
    import matplotlib as mpl

    mpl.use("svg")
    # Text as text, and the same file for the same numbers.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "recall", "font.size": 9})
    from matplotlib import pyplot

    figure, (bars, lines) = pyplot.subplots(1, 2, figsize=(11, 5), width_ratios=[3, 2], index="constrained")
    questions = measured.questions
    sides = measured.sides | {_HELD_OUT: measured.held_out.scored}
    names = list(sides)[::-1]
    values = [_figures(sides[name], questions)["R@10"] for name in names]
    own = len(names) - measured.baselines
    colours = ["#4878a8" if "*" in name else "#a8c0d8" for name in names[:own]] + ["#c8c8c8"] * measured.baselines
    bars.barh([name.strip("*") for name in names], values, color=colours)
    bars.bar_label(bars.containers[0], fmt="%.1f", padding=2)
    bars.set(title="R@10, categories 1 to 4, %", xlim=(0, 100))
    thresholds = [line.threshold for line in measured.curve]
    for label, figures, style in (
        ("moved questions that find nothing", [line.moved for line in measured.curve], "o-"),
        ("R@10 of a user's own", [line.answerable for line in measured.curve], "s-"),
    ):
        lines.plot(thresholds, figures, style, label=label, markersize=4)
    lines.axvline(DEFAULT_THRESHOLD, color="#888888", linestyle=":")
    lines.set(title="threshold", xlabel="lowest score of the best memory", ylabel="%", ylim=(0, 100))
    lines.legend(loc="center right", frameon=False)
    for axes in (bars, lines):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
