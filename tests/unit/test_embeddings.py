"""OfflineEmbeddings: vectors, invalid text, and that loading the model changes nothing else in the process."""

import math
import os
import sys
import threading
import unicodedata
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import Embeddings

from langchain_mem0_scoped import embeddings as module
from langchain_mem0_scoped.embeddings import MAX_EMBEDDED_CHARS, OfflineEmbeddings
from tests.support import run_python

FORMS: list[Any] = ["NFC", "NFD"]
unicode_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@pytest.fixture(scope="module")
def embeddings() -> OfflineEmbeddings:
    return OfflineEmbeddings()


@given(unicode_texts)
def test_vector_does_not_depend_on_the_normal_form(text: str) -> None:
    vectors = {tuple(module.OfflineEmbeddings().embed_query(unicodedata.normalize(form, text))) for form in FORMS}
    assert len(vectors) == 1


class TestVectors:
    def test_is_a_langchain_embeddings(self, embeddings: OfflineEmbeddings) -> None:
        assert isinstance(embeddings, Embeddings)
        query = embeddings.embed_query("I am allergic to peanuts.")
        assert isinstance(query, list)
        assert {type(number) for number in query} == {float}
        assert len(query) == embeddings.dims == 256
        assert math.hypot(*query) == pytest.approx(1)
        assert embeddings.embed_documents([]) == []

    def test_names_its_model(self, embeddings: OfflineEmbeddings) -> None:
        assert embeddings.fingerprint == "wordllama/l2_supercat/256"

    def test_equals_wordllamas_own_embedding(self, embeddings: OfflineEmbeddings) -> None:
        texts = ["I am allergic to peanuts.", "日本語のテキスト", "\x00", " "]
        import wordllama

        model = wordllama.WordLlama.load(cache_dir=os.path.dirname(wordllama.__file__), disable_download=True)
        np.testing.assert_allclose(embeddings.embed_documents(texts), model.embed(texts, norm=True), atol=1e-6)

    def test_related_texts_are_closer(self, embeddings: OfflineEmbeddings) -> None:
        query, near, far = (
            embeddings.embed_array(text)
            for text in ("Which allergies do I have?", "I am allergic to peanuts.", "Revenue rose by 4 percent.")
        )
        assert query @ near > 0.4 > 0.2 > query @ far

    @given(st.lists(unicode_texts, max_size=8))
    def test_batch_changes_no_bit(self, texts: list[str]) -> None:
        embeddings = OfflineEmbeddings()
        batch = embeddings.embed_documents(["a much longer text beside them " * 20, *texts])[1:]
        assert batch == [embeddings.embed_query(text) for text in texts]
        assert batch == [embeddings.embed_array(text).tolist() for text in texts]

    @given(unicode_texts)
    def test_vector_has_length_1_or_0(self, text: str) -> None:
        vector = OfflineEmbeddings().embed_array(text)
        assert vector.dtype == np.float32
        assert float(np.linalg.norm(vector)) == pytest.approx(1.0 if text else 0.0, abs=1e-6)

    def test_empty_text_is_zeros(self, embeddings: OfflineEmbeddings) -> None:
        assert embeddings.embed_query("") == [0.0] * 256
        assert embeddings.embed_documents(["dog", ""])[1] == [0.0] * 256

    def test_long_text_is_cut(self, embeddings: OfflineEmbeddings) -> None:
        start = ("The dog plays the violin. " * 1000)[:MAX_EMBEDDED_CHARS]
        assert len(start) == MAX_EMBEDDED_CHARS
        assert embeddings.embed_query(start + " peanut" * 100_000) == embeddings.embed_query(start)
        assert embeddings.embed_query(start[:-200] + " peanut" * 20) != embeddings.embed_query(start)

    @pytest.mark.parametrize("where", ["secret \ud800", "secret " + "x" * MAX_EMBEDDED_CHARS + "\udfff"])
    def test_lone_surrogate_raises_without_quoting_the_text(self, embeddings: OfflineEmbeddings, where: str) -> None:
        with pytest.raises(ValueError, match="lone surrogate") as caught:
            embeddings.embed_query(where)
        assert "secret" not in str(caught.value)
        assert type(caught.value) is ValueError
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


class TestLoading:
    def test_8_threads_load_the_model_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loads = []
        load = module._load.__wrapped__

        def count_loads() -> object:
            loads.append(1)
            return load()

        monkeypatch.setattr(module, "_load", cache(count_loads))
        monkeypatch.setattr(module, "_loaded", None)
        texts = [f"The dog number {n} plays the violin" for n in range(50)]
        vectors: dict[int, list[list[float]]] = {}
        start = threading.Barrier(8)

        def work(thread: int) -> None:
            start.wait()
            vectors[thread] = OfflineEmbeddings().embed_documents(texts)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(loads) == 1
        assert [vectors[n] for n in range(8)] == [OfflineEmbeddings().embed_documents(texts)] * 8

    def test_root_logger_is_unchanged(self) -> None:
        output = run_python("""
            import logging
            from langchain_mem0_scoped.embeddings import OfflineEmbeddings

            root = logging.getLogger()
            before = list(root.handlers), root.level
            OfflineEmbeddings().embed_query("dog")
            assert (list(root.handlers), root.level) == before == ([], logging.WARNING), root.handlers
            logging.getLogger("mem0").info("a memory")
        """)
        assert output == ""

    def test_logging_of_an_application_is_unchanged(self) -> None:
        output = run_python("""
            import logging
            from langchain_mem0_scoped.embeddings import OfflineEmbeddings

            root = logging.getLogger()
            logging.basicConfig(level=logging.ERROR)
            before = list(root.handlers)
            OfflineEmbeddings().embed_query("dog")
            assert root.handlers == before and len(before) == 1 and root.level == logging.ERROR
        """)
        assert output == ""

    def test_constructor_does_not_load_the_model(self) -> None:
        run_python("""
            import sys
            from langchain_mem0_scoped.embeddings import OfflineEmbeddings

            OfflineEmbeddings()
            assert "wordllama" not in sys.modules
        """)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
    @pytest.mark.parametrize("before", ["nothing", "loaded", "loading"])
    def test_works_after_a_fork(self, before: str) -> None:
        output = run_python(f"""
            import os, threading, warnings
            from langchain_mem0_scoped.embeddings import OfflineEmbeddings

            # Python warns about any fork with threads; the model must survive it.
            warnings.simplefilter("ignore", DeprecationWarning)
            embeddings = OfflineEmbeddings()
            if {before!r} == "loaded":
                embeddings.embed_documents(["dog", "violin"])
            if {before!r} == "loading":
                threading.Thread(target=embeddings.embed_query, args=("dog",)).start()
            child = os.fork()
            vector = embeddings.embed_query("I am allergic to peanuts.")
            if child == 0:
                os._exit(0 if len(vector) == 256 else 1)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0, status
        """)
        assert output == ""

    def test_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "wordllama", None)
        with pytest.raises(ImportError, match=r"pip install wordllama.*embeddings="):
            OfflineEmbeddings()
