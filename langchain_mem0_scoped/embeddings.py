"""The embedding that needs no key, network or download: WordLlama's static model behind LangChain's interface."""

import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from langchain_mem0_scoped.ranking.vectors import unit_vector

from .fork import INIT_LOCK

MAX_EMBEDDED_CHARS: Final = 20_000
"""Only this many characters from the start of a text are embedded.

They are about 5,000 tokens of prose and take about 10 ms, and the mean over so many tokens hardly moves any more: in
LoCoMo they have a cosine of 0.97 to 0.99 with the whole conversation of up to 100,000. 10 MB would take 19 s.
"""

_MODEL: Final = "l2_supercat"
_DIMS: Final = 256


class OfflineEmbeddings(Embeddings):
    """WordLlama's 256-dimensional static embedding, which ships inside its wheel.

    https://github.com/dleemiller/WordLlama has how it was trained, and how it compares with others.

    A text's vector is the normalised mean of its tokens' vectors: the same to the last bit alone or among others, in
    any thread and after a fork. The model is loaded for the first text, once per process, and shared by all instances.

    Attributes:
        dims: How many components a vector has.
        fingerprint: Names the model; a store records it, so that it is never searched with another model's vectors.

    Raises:
        ImportError: On construction: WordLlama is not installed.

    Example:
        >>> embeddings = OfflineEmbeddings()
        >>> len(embeddings.embed_query("I am allergic to peanuts."))
        256
    """

    dims: ClassVar[int] = _DIMS
    fingerprint: ClassVar[str] = f"wordllama/{_MODEL}/{_DIMS}"

    def __init__(self) -> None:
        if importlib.util.find_spec("wordllama") is None:
            raise ImportError(
                "expected the package wordllama, found none: `pip install wordllama`, or pass any LangChain Embeddings "
                "as `embeddings=` where it has no wheel (Linux on aarch64, Python 3.14)"
            )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed several texts.

        Args:
            texts: Any number of texts; what exceeds `MAX_EMBEDDED_CHARS` of each is ignored.

        Returns:
            For each text, in order, 256 numbers: a vector of length 1, or zeros for the empty text.

        Raises:
            ValueError: A text holds a lone surrogate. The error does not hold the text.
        """
        # One by one is as fast as the tokenizer's own batches, which start threads that a fork would break, and pads
        # no short text to the length of the longest.
        return [self.embed_array(text).tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed one text, to the same vector as `embed_documents` does.

        Args:
            text: The text; what exceeds `MAX_EMBEDDED_CHARS` is ignored.

        Returns:
            256 numbers: a vector of length 1, or zeros for the empty text.

        Raises:
            ValueError: The text holds a lone surrogate. The error does not hold the text.
        """
        vector: list[float] = self.embed_array(text).tolist()
        return vector

    def embed_array(self, text: str) -> NDArray[np.float32]:
        """Embed one text for code that goes on with numpy.

        Args:
            text: The text; what exceeds `MAX_EMBEDDED_CHARS` is ignored.

        Returns:
            float32, shape (256,): a vector of length 1, or zeros for the empty text.

        Raises:
            ValueError: The text holds a lone surrogate. The error does not hold the text.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            # From None: a UnicodeEncodeError carries the text it failed on.
            raise ValueError("expected text that can be encoded as UTF-8, got a lone surrogate") from None
        model = _model()
        tokens = model.tokenizer.encode(text[:MAX_EMBEDDED_CHARS], add_special_tokens=False).ids
        return unit_vector(model.token_vectors.take(tokens, axis=0).sum(axis=0))


class _Model(NamedTuple):
    """What is used of a loaded WordLlama: its tokenizer, and float32 token vectors of shape (vocabulary, 256)."""

    tokenizer: Any
    token_vectors: NDArray[np.float32]


_loaded: _Model | None = None


def _model() -> _Model:
    """The process's one model; the first call loads it."""
    global _loaded
    if _loaded is None:
        with INIT_LOCK:
            _loaded = _load()
    return _loaded


@cache
def _load() -> _Model:
    # Importing WordLlama calls logging.basicConfig(level=INFO), which would make mem0 print memories to stderr. It
    # leaves a root logger alone that has a handler, so it finds one.
    root, occupied = logging.getLogger(), logging.NullHandler()
    root.addHandler(occupied)
    try:
        import wordllama
    finally:
        root.removeHandler(occupied)
    inference = wordllama.WordLlama.load(
        _MODEL, cache_dir=Path(wordllama.__file__).parent, dim=_DIMS, disable_download=True
    )
    return _Model(inference.tokenizer, inference.embedding)
