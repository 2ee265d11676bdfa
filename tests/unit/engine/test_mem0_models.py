"""LangChain's embeddings and chat models as mem0 calls them: in batches, by the right method, every failure told."""

from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage

from langchain_mem0_scoped import BackendError, ScopedMemory
from langchain_mem0_scoped.embeddings import OfflineEmbeddings
from langchain_mem0_scoped.engine.mem0_models import EMBEDDING_BATCH, ChatModel, Embedder, fingerprint_of
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.engine.units import UnitOfWorkFactory
from tests.memory_storage import MemoryStorage
from tests.models import constant
from tests.worlds import WordEmbeddings, vector_of


@pytest.fixture
def units() -> UnitOfWorkFactory:
    return UnitOfWorkFactory(MemoryStorage())


def test_documents_are_embedded_as_documents_and_queries_as_queries() -> None:
    embeddings = WordEmbeddings()
    embedder = Embedder(embeddings)
    assert embedder.embed("a query", "search") == vector_of("a query")
    assert (embeddings.queries, embeddings.documents) == (["a query"], [])
    for action in ("add", "update", None):
        assert embedder.embed("a text", action) == vector_of("a text")
    assert embedder.embed_batch(["one", "two"], "add") == [vector_of("one"), vector_of("two")]
    assert embeddings.documents == [["a text"]] * 3 + [["one", "two"]]
    embedder.embed_batch(["three", "four"], "search")
    assert embeddings.queries == ["a query", "three", "four"]


def test_many_texts_go_in_batches_a_provider_takes() -> None:
    embeddings = WordEmbeddings()
    texts = [f"text {number}" for number in range(2 * EMBEDDING_BATCH + 1)]
    assert Embedder(embeddings).embed_batch(texts) == [vector_of(text) for text in texts]
    assert [len(batch) for batch in embeddings.documents] == [EMBEDDING_BATCH, EMBEDDING_BATCH, 1]


def test_any_embedding_gets_a_text_in_one_normal_form() -> None:
    embeddings = WordEmbeddings()
    embedder = Embedder(embeddings)
    for text in ("cafe\u0301", "caf\u00e9"):
        embedder.embed(text, "search")
        with embedder.prefetch("u", [text]):
            embedder.embed(text, "add")
    assert {*embeddings.queries, *(text for batch in embeddings.documents for text in batch)} == {"caf\u00e9"}


def test_prefetched_texts_are_not_embedded_again() -> None:
    embeddings = WordEmbeddings()
    embedder = Embedder(embeddings)
    with embedder.prefetch("u", ["cats", "dogs"]):
        assert embedder.embed("dogs", "add") == vector_of("dogs")
        assert embedder.embed("cats", "add") == vector_of("cats")
        assert embedder.embed("other", "add") == vector_of("other")
    assert embeddings.documents == [["cats", "dogs"], ["other"]]
    embedder.embed("cats", "add")
    assert embeddings.documents[-1] == ["cats"], "nothing is kept beyond the call"


def test_a_repeated_text_is_embedded_once_and_every_text_gets_its_own_vector() -> None:
    embeddings = WordEmbeddings()
    embedder = Embedder(embeddings)
    with embedder.prefetch("u", ["cats", "cats", "dogs", "cats", "birds"]):
        for text in ("cats", "dogs", "birds"):
            assert embedder.embed(text, "add") == vector_of(text)
    assert embeddings.documents == [["cats", "dogs", "birds"]]


def test_a_query_is_never_answered_with_a_prefetched_document() -> None:
    embeddings = WordEmbeddings()
    embedder = Embedder(embeddings)
    with embedder.prefetch("u", ["cats"]):
        embedder.embed("cats", "search")
    assert embeddings.queries == ["cats"]


@pytest.mark.parametrize("answer", [[], [[1.0]], [[1.0], [2.0], [3.0]]])
def test_another_number_of_vectors_than_texts_is_an_error(answer: list[list[float]]) -> None:
    class Wrong(WordEmbeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return answer

    with pytest.raises(ValueError, match="vectors for 2 texts"):
        Embedder(Wrong()).embed_batch(["secret one", "secret two"])


def test_a_failure_fails_the_unit_even_where_it_is_swallowed(units: UnitOfWorkFactory) -> None:
    def fails(_: list[str]) -> None:
        raise TimeoutError("secret")

    embedder = Embedder(WordEmbeddings(fails), units)

    def swallow() -> None:
        with units.unit("u_alice"):
            with pytest.raises(TimeoutError):
                embedder.embed("a text", "add")
            # mem0 goes on here; every further call is refused, so that no more money is spent on it.
            with pytest.raises(BackendError):
                embedder.embed("a text", "add")

    with pytest.raises(BackendError, match="TimeoutError") as error:
        swallow()
    assert error.value.retryable
    assert "secret" not in str(error.value)


def test_any_chat_model_answers_mem0(units: UnitOfWorkFactory) -> None:
    assert ChatModel(FakeListChatModel(responses=['{"memory": []}']), units).generate_response(
        [{"role": "system", "content": "extract"}, {"role": "user", "content": "hello"}], response_format={"type": "x"}
    ) == ('{"memory": []}')


def test_an_answer_in_content_blocks_is_read_as_text(units: UnitOfWorkFactory) -> None:
    class Blocks(FakeListChatModel):
        def invoke(self, *_: Any, **__: Any) -> AIMessage:
            return AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": '{"memory": []}'}])

    assert ChatModel(Blocks(responses=[""]), units).generate_response([]) == '{"memory": []}'


def test_the_model_is_asked_with_the_roles_mem0_gave(units: UnitOfWorkFactory) -> None:
    model = constant("{}")
    ChatModel(model, units).generate_response([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    assert model.prompts == ["u"]


def test_models_have_different_fingerprints() -> None:
    class Provider(DeterministicFakeEmbedding):
        model: str = "small"

    assert fingerprint_of(OfflineEmbeddings()) == "wordllama/l2_supercat/256"
    assert fingerprint_of(Provider(size=8)) == fingerprint_of(Provider(size=8))
    different = {fingerprint_of(Provider(size=size, model=model)) for size in (8, 16) for model in ("small", "large")}
    assert len(different | {fingerprint_of(DeterministicFakeEmbedding(size=8))}) == 5
    assert all("DeterministicFakeEmbedding" in name or "Provider" in name for name in different)


def test_a_fingerprint_never_holds_a_key() -> None:
    class Provider(WordEmbeddings):
        fingerprint = None  # type: ignore[assignment]
        model = "small"
        api_key = "sk-secret"

    provider: Embeddings = Provider()
    assert "small" in fingerprint_of(provider)
    assert "secret" not in fingerprint_of(provider)


class TestKeptQueries:
    """A turn is searched for and then remembered: its words are embedded once, and by nobody else's leave."""

    @pytest.fixture
    def embedded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        texts: list[str] = []
        embed = OfflineEmbeddings.embed_array

        def counting(self: OfflineEmbeddings, text: str) -> Any:
            texts.append(text)
            return embed(self, text)

        monkeypatch.setattr(OfflineEmbeddings, "embed_array", counting)
        return texts

    @pytest.fixture
    def client(self) -> EngineMemory:
        return EngineMemory(MemoryStorage(), OfflineEmbeddings())

    def test_is_embedded_once(self, client: EngineMemory, embedded: list[str]) -> None:
        alice = ScopedMemory("u_alice", client=client)
        alice.search("I like tea")
        alice.add(["I like tea", "So do I"])
        assert embedded == ["I like tea", "So do I"]
        assert alice.search("I like tea")[0]["memory"] == "I like tea"

    def test_is_kept_for_its_user_alone(self, client: EngineMemory, embedded: list[str]) -> None:
        ScopedMemory("u_alice", client=client).search("I like tea")
        ScopedMemory("u_bob", client=client).add("I like tea")
        assert embedded == ["I like tea"] * 2

    def test_is_forgotten_with_an_erasure(self, client: EngineMemory, embedded: list[str]) -> None:
        alice = ScopedMemory("u_alice", client=client)
        alice.search("I like tea")
        alice.delete_all()
        assert client.embedding_model.kept_queries == {}
        alice.add("I like tea")
        assert embedded == ["I like tea"] * 2

    def test_is_never_text(self, client: EngineMemory) -> None:
        ScopedMemory("u_alice", client=client).search("zyzzogeton")
        assert len(client.embedding_model.kept_queries) == 1
        assert "zyzzogeton" not in repr(vars(client.embedding_model))

    def test_is_not_kept_for_an_embedding_that_treats_queries_and_documents_differently(self) -> None:
        client = EngineMemory(MemoryStorage(), WordEmbeddings())
        ScopedMemory("u_alice", client=client).search("tea")
        assert client.embedding_model.kept_queries == {}
