"""local_memory(): the engine on one SQLite file."""

from __future__ import annotations

import os
from pathlib import Path

from langchain_core.documents import BaseDocumentCompressor
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

from ..engine.json_mode import is_chat_model
from ..engine.mem0_models import fingerprint_of
from ..engine.memory import EngineMemory
from ..errors import InputError
from .storage import SqliteStorage


def local_memory(
    path: str | os.PathLike[str],
    *,
    embeddings: Embeddings | None = None,
    llm: Runnable[LanguageModelInput, BaseMessage] | None = None,
    reranker: BaseDocumentCompressor | None = None,
) -> EngineMemory:
    """Build a mem0.Memory on one SQLite file, with no key, server or download.

    Args:
        path: The file; created where it does not exist. Several processes may share it on one machine.
        embeddings: Any LangChain Embeddings; None for the offline one (WordLlama, 256 dimensions). A file can only
            be used with the embedding it was built with.
        llm: Any LangChain chat model, also bound (`model.bind(…)`), with retries or fallbacks. With one, mem0 extracts
            facts from what is added; without, text is kept verbatim. It is asked for JSON where its class offers that.
        reranker: Any LangChain document compressor, such as a cross-encoder. Every search passes it the best rows,
            at least four times as many as requested, and returns its selection in its order.

    Returns:
        A client for `ScopedMemory(user_id, client=…)`; build one per file and process, and share it.

    Raises:
        InputError: path, embeddings, llm or reranker has another type, or path names no file.
        BackendError: The file cannot be used: it is no database, another program's, built with another embedding, has
            another schema, or cannot be written, or its directory does not exist. It is left as it was.
        ImportError: WordLlama is not installed, and no embeddings were passed.

    Example:
        >>> import tempfile
        >>> from langchain_mem0_scoped import ScopedMemory, local_memory
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     client = local_memory(f"{folder}/memory.db")
        ...     added = ScopedMemory("u_alice", client=client).add("I am vegetarian")
        ...     client.close()
        >>> added[0]["memory"]
        'I am vegetarian'
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path) or str(path) == ":memory:":
        raise InputError("path must name a file; the embedded store keeps what it acknowledges, so not ':memory:'")
    if embeddings is None:
        from ..embeddings import OfflineEmbeddings

        embeddings = OfflineEmbeddings()
    if not isinstance(embeddings, Embeddings):
        raise InputError(f"embeddings must be a LangChain Embeddings, got {type(embeddings).__name__}")
    if llm is not None and not is_chat_model(llm):
        raise InputError(f"llm must be a LangChain chat model, got {type(llm).__name__}")
    if reranker is not None and not isinstance(reranker, BaseDocumentCompressor):
        raise InputError(f"reranker must be a LangChain document compressor, got {type(reranker).__name__}")
    try:
        file = Path(path).expanduser()
    except RuntimeError:
        raise InputError("path must name a file: it begins with a home directory that is not known") from None
    if "\0" in str(file):
        raise InputError("path must name a file: it holds NUL")
    return EngineMemory(SqliteStorage(file, fingerprint_of(embeddings)), embeddings, llm, reranker)
