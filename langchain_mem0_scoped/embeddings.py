"""OfflineEmbeddings: WordLlama's static embedding model as LangChain embeddings. No key, network or download."""

import importlib.util
import logging
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from .fork import INIT_LOCK
from .ranking import unit_vector

MAX_EMBEDDED_CHARS: Final = 20_000
"""Number of characters from the start of a text that are embedded.

This is about 5,000 tokens of prose and takes about 10 ms. The mean over more tokens hardly changes: on LoCoMo, the
vector has a cosine of 0.97 to 0.99 with that of the whole conversation of up to 100,000 characters. 10 MB would take
19 s.
"""

_MODEL: Final = "l2_supercat"
_DIMS: Final = 256


class OfflineEmbeddings(Embeddings):
    """WordLlama's static embedding with 256 dimensions, which ships in its wheel.

    https://github.com/dleemiller/WordLlama describes its training and compares it with other models.

    A text's vector is the normalised mean of its tokens' vectors. It is the same to the last bit alone or in a batch,
    in any thread and after a fork. The first call loads the model, once per process, for all instances.

    Attributes:
        dims: The number of components of a vector.
        fingerprint: Identifies the model. A store records it and refuses to be opened with another model.

    Raises:
        ImportError: On construction, if WordLlama is not installed.

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
                "OfflineEmbeddings needs the package wordllama: run `pip install wordllama`. Where it has no wheel "
                "(Linux on aarch64, Python 3.14), pass any LangChain Embeddings as `embeddings=`"
            )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed several texts.

        Args:
            texts: Any number of texts. Of each, characters beyond `MAX_EMBEDDED_CHARS` are ignored.

        Returns:
            For each text, in order, 256 numbers: a vector of length 1; zeros for an empty text.

        Raises:
            ValueError: A text holds a lone surrogate. The error does not quote the text.
        """
        # One by one is as fast as the tokenizer's batches. Batches start threads that a fork would break, and pad short
        # texts to the length of the longest.
        return [self.embed_array(text).tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed one text, to the same vector as `embed_documents`.

        Args:
            text: The text. Characters beyond `MAX_EMBEDDED_CHARS` are ignored.

        Returns:
            256 numbers: a vector of length 1; zeros for an empty text.

        Raises:
            ValueError: The text holds a lone surrogate. The error does not quote the text.
        """
        vector: list[float] = self.embed_array(text).tolist()
        return vector

    def embed_array(self, text: str) -> NDArray[np.float32]:
        """Embed one text as a numpy array, to the same vector in any Unicode normal form.

        Args:
            text: The text. Characters beyond `MAX_EMBEDDED_CHARS` are ignored.

        Returns:
            float32, shape (256,): a vector of length 1; zeros for an empty text.

        Raises:
            ValueError: The text holds a lone surrogate. The error does not quote the text.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            # From None, because a UnicodeEncodeError holds the text.
            raise ValueError("expected text that can be encoded as UTF-8, got a lone surrogate") from None
        model = _model()
        composed = unicodedata.normalize("NFC", text[:MAX_EMBEDDED_CHARS])
        tokens = model.tokenizer.encode(composed, add_special_tokens=False).ids
        return unit_vector(model.token_vectors.take(tokens, axis=0).sum(axis=0))


class _Model(NamedTuple):
    """The tokenizer of WordLlama, and its token vectors: float32, shape (vocabulary, 256)."""

    tokenizer: Any
    token_vectors: NDArray[np.float32]


_loaded: _Model | None = None


def _model() -> _Model:
    """Return the process's model. The first call loads it."""
    global _loaded
    if _loaded is None:
        with INIT_LOCK:
            _loaded = _load()
    return _loaded


@cache
def _load() -> _Model:
    # Importing WordLlama calls logging.basicConfig(level=INFO), which would make mem0 print memories to stderr.
    # basicConfig does nothing if the root logger has a handler, so it gets one for the time of the import.
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        import wordllama
    finally:
        root.removeHandler(handler)
    inference = wordllama.WordLlama.load(
        _MODEL, cache_dir=Path(wordllama.__file__).parent, dim=_DIMS, disable_download=True
    )
    return _Model(inference.tokenizer, inference.embedding)
