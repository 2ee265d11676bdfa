"""The alternatives of a retriever are of its user, whatever is around another user's retriever and wherever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from typing import Any, Final

import mem0
import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from pydantic import PrivateAttr

from langchain_mem0_scoped import ScopedMemory, ScopedMemoryRetriever, ScopeError, local_memory
from langchain_mem0_scoped.alternatives import only_user, runnables_in
from tests.agents import run
from tests.models import constant
from tests.support import new_user, texts_of
from tests.worlds import WordEmbeddings

SECRET: Final = "The safe opens with 4711"
WAYS: Final = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")
WHICH: Final = ConfigurableField(id="which")
OTHER: Final[Any] = {"configurable": {"which": "other"}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mem0.Memory]:
    client = local_memory(tmp_path_factory.mktemp("alternatives") / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


@pytest.fixture(scope="module")
def alice(client: mem0.Memory) -> ScopedMemory:
    memory = ScopedMemory(new_user("alice"), client=client)
    memory.add(SECRET, infer=False)
    return memory


@pytest.fixture(scope="module")
def bob(client: mem0.Memory) -> ScopedMemory:
    memory = ScopedMemory(new_user("bob"), client=client)
    memory.add("The safe is green", infer=False)
    return memory


class Wrapping(BaseRetriever):
    """A retriever around another one, in a field."""

    inner: Any

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return list(self.inner.invoke(query, config={"callbacks": run_manager.get_child()}))


class Hiding(BaseRetriever):
    """A retriever around another one that is found only by a call."""

    _inner: Any = PrivateAttr()

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self._inner = {"of": [lambda: inner]}

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return list(
            self._inner["of"][0]().invoke(query, config={"callbacks": run_manager.get_child(), "configurable": {}})
        )


class Reversing(BaseDocumentCompressor):
    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        return list(reversed(documents))


REGISTER: Final[dict[str, Any]] = {}


def looked_up(query: str) -> Any:
    return REGISTER["retriever"].invoke(query)


async def alooked_up(query: str) -> Any:
    return await REGISTER["retriever"].ainvoke(query)


def in_a_pool(query: str) -> Any:
    """LangChain's own pool carries the context; a batch uses it."""
    return REGISTER["retriever"].batch([query, query])[1]


def in_function(it: Any) -> Any:
    def search(query: str) -> Any:
        return it.invoke(query)

    return RunnableLambda(search)


Wrap = Callable[[Any], Any]

VISIBLE: Final[dict[str, Wrap]] = {
    "bare": lambda it: it,
    "with_config": lambda it: it.with_config(tags=["x"]),
    "with_config twice": lambda it: it.with_config(tags=["x"]).with_config(run_name="y"),
    "bind": lambda it: it.bind(k=1),
    "sequence": lambda it: it | (lambda found: found),
    "sequence, last": lambda it: RunnablePassthrough() | RunnableLambda(str) | it,
    "with_retry": lambda it: it.with_retry(),
    "with_fallbacks": lambda it: RunnableLambda(looked_up).with_fallbacks([it]),
    "with_listeners": lambda it: it.with_listeners(on_start=lambda run: None),
    "with_types": lambda it: it.with_types(input_type=str),
    "parallel": lambda it: RunnableParallel(a=it) | (lambda found: found["a"]),
    "branch": lambda it: RunnableBranch((lambda query: query == "x", RunnablePassthrough()), it),
    "assign": lambda it: RunnableLambda(lambda q: {"q": q}) | RunnablePassthrough.assign(a=itemgetter("q") | it),
    "map": lambda it: RunnableLambda(lambda query: [query]) | it.map() | (lambda found: found[0]),
    "configurable_fields": lambda it: it.configurable_fields(k=ConfigurableField(id="most")),
    "its own alternatives": lambda it: it.configurable_alternatives(ConfigurableField(id="w2"), one=it.bind(k=1)),
    "another retriever": lambda it: Wrapping(inner=it),
    "another retriever twice": lambda it: Wrapping(inner=Wrapping(inner=it)),
    "in a function": in_function,
    "a copy": lambda it: it.model_copy(update={"k": 1}),
    "built when chosen": lambda it: lambda: it,
    "built when chosen, bound": lambda it: lambda: it.with_config(tags=["x"]) | (lambda found: found),
}

HIDDEN: Final[dict[str, Wrap]] = {
    "looked up by a function": lambda it: RunnableLambda(looked_up),
    "looked up by an async function": lambda it: RunnableLambda(looked_up, afunc=alooked_up),
    "looked up in a pool": lambda it: RunnableLambda(in_a_pool),
    "in a closure": lambda it: RunnableLambda(lambda query: it.invoke(query)),
    "looked up in another retriever": lambda it: Hiding(it),
    "looked up, built when chosen": lambda it: lambda: Hiding(it).with_config(tags=["x"]),
    "in a partial": lambda it: RunnableLambda(partial(lambda query, inner: inner().invoke(query), inner=lambda: it)),
    "in an alternative of an own alternative": lambda it: RunnableLambda(lambda query: Hiding(it)),
}


def offered(memory: ScopedMemory, other: Any) -> Runnable[Any, Any]:
    return memory.as_retriever().configurable_alternatives(WHICH, other=other)


class TestForeign:
    @pytest.mark.parametrize("wrapped", [name for name in VISIBLE if "chosen" not in name])
    def test_what_can_be_seen_is_refused_when_it_is_offered(
        self, alice: ScopedMemory, bob: ScopedMemory, wrapped: str
    ) -> None:
        with pytest.raises(ScopeError, match="cannot be changed"):
            offered(bob, VISIBLE[wrapped](alice.as_retriever()))

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("wrapped", [*HIDDEN, *(name for name in VISIBLE if "chosen" in name)])
    async def test_what_cannot_be_seen_is_refused_when_it_runs(
        self, alice: ScopedMemory, bob: ScopedMemory, wrapped: str, way: str
    ) -> None:
        theirs = alice.as_retriever()
        REGISTER["retriever"] = theirs
        choice = offered(bob, (VISIBLE | HIDDEN)[wrapped](theirs))
        assert SECRET not in str(await run(way, choice, "safe", None))
        with pytest.raises(ScopeError, match="cannot be changed"):
            await run(way, choice, "safe", OTHER)
        # It holds for that run only.
        assert only_user() is None
        assert texts(await run(way, theirs, "safe", None)) == [SECRET]


HOSTS: Final[dict[str, Wrap]] = {
    "with_config": lambda it: it.with_config(tags=["x"]),
    "with_config twice": lambda it: it.with_config(tags=["x"]).with_config(run_name="y"),
    "bind": lambda it: it.bind(k=1).bind(k=2),
    "configurable_fields": lambda it: it.configurable_fields(k=ConfigurableField(id="most")),
    "configurable_fields, bound": lambda it: it.configurable_fields(k=ConfigurableField(id="m")).with_config(
        tags=["x"]
    ),
    "alternatives": lambda it: it.configurable_alternatives(ConfigurableField(id="w2"), one=it.bind(k=1)),
    "alternatives, fields": lambda it: it.configurable_alternatives(
        ConfigurableField(id="w2"), one=it.bind(k=1)
    ).configurable_fields(k=ConfigurableField(id="most")),
    "copy": lambda it: it.model_copy(update={"k": 1}).with_config(tags=["x"]),
}


@pytest.mark.parametrize("host", HOSTS)
class TestHosts:
    """What LangChain makes of a retriever offers the same."""

    def test_foreign_alternatives_are_refused(self, alice: ScopedMemory, bob: ScopedMemory, host: str) -> None:
        hosted, theirs = HOSTS[host](bob.as_retriever()), alice.as_retriever()
        for wrap in (VISIBLE["bare"], VISIBLE["with_config"], HOSTS[host]):
            with pytest.raises(ScopeError):
                hosted.configurable_alternatives(WHICH, other=wrap(theirs))
        choice = hosted.configurable_alternatives(WHICH, other=Hiding(theirs), later=lambda: HOSTS[host](theirs))
        assert SECRET not in texts(choice.invoke("safe"))
        for key in ("other", "later"):
            with pytest.raises(ScopeError):
                choice.invoke("safe", {"configurable": {"which": key}})

    @pytest.mark.parametrize("way", WAYS)
    async def test_own_alternatives_work(self, bob: ScopedMemory, host: str, way: str) -> None:
        hosted = HOSTS[host](bob.as_retriever(k=2))
        choice = hosted.configurable_alternatives(WHICH, other=HOSTS[host](bob.as_retriever(k=2)))
        for config in (None, OTHER, {**OTHER, "tags": ["t"]}):
            assert "The safe is green" in texts(await run(way, choice, "safe", config))


class TestOwn:
    @pytest.mark.parametrize("way", WAYS)
    async def test_every_shape_works_with_an_own_retriever(self, bob: ScopedMemory, way: str) -> None:
        """The control: it is the other user that is refused, not the shape."""
        own = REGISTER["retriever"] = bob.as_retriever(k=2)
        for name, wrap in (VISIBLE | HIDDEN).items():
            choice = offered(bob, wrap(own))
            for config in (None, OTHER, {**OTHER, "tags": ["t"]}):
                assert "The safe is green" in str(await run(way, choice, "safe", config)), name

    async def test_runs_of_two_users_at_once_do_not_meet(self, alice: ScopedMemory, bob: ScopedMemory) -> None:
        choices = [offered(memory, memory.as_retriever().with_config(tags=["x"])) for memory in (alice, bob)]
        found = await asyncio.gather(*(choice.ainvoke("safe", OTHER) for choice in choices * 8))
        assert [texts(documents) for documents in found] == [[SECRET], ["The safe is green"]] * 8
        with ThreadPoolExecutor(4) as pool:
            again = list(pool.map(lambda choice: choice.invoke("safe", OTHER), choices * 8))
        assert again == found

    def test_alternatives_of_an_alternative(self, alice: ScopedMemory, bob: ScopedMemory) -> None:
        inner = bob.as_retriever().configurable_alternatives(ConfigurableField(id="deep"), own=bob.as_retriever(k=1))
        config: Any = {"configurable": {"which": "other", "deep": "own"}}
        assert texts(offered(bob, inner).invoke("safe", config)) == ["The safe is green"]
        with pytest.raises(ScopeError):
            offered(alice, inner)
        hidden = Hiding(inner.with_config(configurable={"deep": "own"}))
        assert texts(hidden.invoke("safe")) == ["The safe is green"]
        with pytest.raises(ScopeError):
            offered(alice, hidden).invoke("safe", OTHER)

    def test_names_and_fields_are_those_of_the_alternative(self, bob: ScopedMemory) -> None:
        flexible = bob.as_retriever().configurable_fields(k=ConfigurableField(id="most"))
        choice = offered(bob, flexible)
        assert {spec.id for spec in choice.config_specs} == {"which", "most"}
        bob.add("The safe is old", infer=False)
        config: Any = {"configurable": {"which": "other", "most": 1}}
        assert len(choice.invoke("safe", config)) == 1


def texts(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


class TestRunnablesIn:
    def test_finds_each_once_also_in_a_circle(self, bob: ScopedMemory) -> None:
        own = bob.as_retriever()
        chain = Wrapping(inner=[own, {"again": (own,)}])
        chain.inner.append(chain)
        found = list(runnables_in(RunnableLambda(str) | chain | RunnableLambda(str) | constant() | StrOutputParser()))
        assert found.count(own) == found.count(chain) == 1
        assert len({id(one) for one in found}) == len(found)

    def test_does_not_look_into_a_client(self, bob: ScopedMemory) -> None:
        assert [type(one) for one in runnables_in(bob.as_retriever())] == [ScopedMemoryRetriever]


class TestRetrieversOfRetrievers:
    """The real ones, of langchain-classic."""

    @pytest.fixture
    def classic(self) -> Any:
        return pytest.importorskip("langchain_classic.retrievers")

    @pytest.fixture
    def wraps(self, classic: Any) -> dict[str, Wrap]:
        return {
            "ensemble": lambda it: classic.EnsembleRetriever(retrievers=[it], weights=[1.0], id_key="id"),
            "multi query": lambda it: classic.MultiQueryRetriever.from_llm(it, constant("safe")),
            "merger": lambda it: classic.MergerRetriever(retrievers=[it]),
            "compression": lambda it: classic.ContextualCompressionRetriever(
                base_retriever=it,
                base_compressor=Reversing(),
            ),
        }

    @pytest.mark.parametrize("way", ["invoke", "ainvoke"])
    async def test_user_stays_fixed(
        self, wraps: dict[str, Wrap], alice: ScopedMemory, bob: ScopedMemory, way: str
    ) -> None:
        config: Any = {"configurable": {"user_id": alice.user_id, "which": "other"}}
        for name, wrap in wraps.items():
            with pytest.raises(ScopeError):
                offered(bob, wrap(alice.as_retriever()))
            hidden = offered(bob, wrap(Hiding(alice.as_retriever())))
            with pytest.raises(ScopeError):
                await run(way, hidden, "safe", OTHER)
            found = texts(await run(way, offered(bob, wrap(bob.as_retriever())), "safe", config))
            assert found, name
            assert SECRET not in found, name

    def test_ensemble_knows_a_memory_by_its_id(self, classic: Any, bob: ScopedMemory) -> None:
        both = classic.EnsembleRetriever(
            retrievers=[bob.as_retriever(), bob.as_retriever(k=2)], weights=[0.5, 0.5], id_key="id"
        )
        found = both.invoke("safe")
        assert len({document.metadata["id"] for document in found}) == len(found)


def test_retriever_is_still_a_retriever(bob: ScopedMemory) -> None:
    retriever = bob.as_retriever()
    assert isinstance(retriever, ScopedMemoryRetriever)
    assert set(texts(retriever.invoke("safe"))) <= set(texts_of(bob.get_all()))
