"""The stored notebooks in a real browser: tables are tables, pictures are there, and no memory of theirs is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbconvert import HTMLExporter

from langchain_mem0_scoped.records import MemoryList, record_from
from tests import notebooks
from tests.browser.conftest import Open
from tests.pages import NASTY, RUNS

DESK = {"width": 1100, "height": 900}


def as_page(stored: Path, folder: Path) -> Path:
    """A notebook as nbconvert shows it, but for MathJax and the like, which it would load from elsewhere."""
    nothing = "data:text/javascript,"
    exporter = HTMLExporter(
        mathjax_url=nothing, require_js_url=nothing, jquery_url=nothing, mermaid_js_url=nothing, embed_images=True
    )
    path = folder / f"{stored.stem}.html"
    path.write_text(exporter.from_notebook_node(notebooks.read(stored))[0], encoding="utf-8")
    return path


@pytest.mark.parametrize("stored", notebooks.PATHS, ids=lambda path: path.stem)
def test_renders_without_violations(show: Open, stored: Path, tmp_path: Path) -> None:
    notebook = notebooks.read(stored)
    kinds = [
        kind for cell in notebooks.shown(notebook) for output in cell if isinstance(output, dict) for kind in output
    ]
    with show(as_page(stored, tmp_path), size=DESK) as seen:
        seen.picture(f"notebook-{stored.stem}")
        pictures = seen.page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(pictures) == kinds.count("image/png")
        assert all(width > 300 for width in pictures)
        framed = seen.page.locator("iframe").count()
        assert seen.page.locator(".jp-OutputArea-output table").count() == kinds.count("text/html") - framed
        assert seen.fits()
        assert seen.complaints == []


def test_html_in_a_memory_is_text(show: Open, tmp_path: Path) -> None:
    (stored,) = [path for path in notebooks.PATHS if path.stem == "05-your-data"]
    with show(as_page(stored, tmp_path), size=DESK) as seen:
        text = "<script>alert('mine')</script> is what I typed"
        assert seen.page.locator("td").get_by_text(text, exact=True).is_visible()
        framed = seen.page.frame_locator("iframe")
        assert framed.get_by_role("heading", name="What is remembered about you").count() == 1
        assert framed.get_by_text(text, exact=True).count() == 1
        assert seen.complaints == []


def test_table_runs_no_script(show: Open, tmp_path: Path) -> None:
    texts = [*RUNS, *NASTY]
    rows = [{"id": "1", "user_id": "u", "memory": text, "metadata": {"a": text, "session_id": text}} for text in texts]
    path = tmp_path / "table.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{MemoryList(map(record_from, rows))._repr_html_()}")
    with show(path, size=DESK) as seen:
        assert seen.page.evaluate("window.ran") is None
        assert (
            seen.page.evaluate("[...document.querySelectorAll('td:first-child')].map(cell => cell.textContent)")
            == texts
        )
        assert seen.page.evaluate("document.querySelectorAll('tbody tr').length") == len(texts)
        assert seen.requests == [path.as_uri()]
        assert seen.complaints == []
