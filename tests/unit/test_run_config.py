"""The user of a run is the one in `configurable`: no other part of a config, and nothing around a run, replaces it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from langchain_core.runnables import Runnable, RunnableBinding, RunnableLambda, RunnableParallel, RunnablePassthrough

from langchain_mem0_scoped import ScopedMemory, ScopeError, local_memory, with_scoped_memory
from langchain_mem0_scoped.engine.memory import EngineMemory
from langchain_mem0_scoped.run_config import complete_config, ids_from_config
from tests.agents import WAYS, collected, config_of, run, transcript_texts
from tests.models import ScriptedModel, constant
from tests.support import new_user
from tests.worlds import WordEmbeddings

Calling = Callable[[Runnable[Any, Any], Any], Any]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineMemory]:
    client = local_memory(tmp_path_factory.mktemp("config") / "m.db", embeddings=WordEmbeddings())
    yield client
    client.close()


@pytest.fixture
def users(client: EngineMemory) -> tuple[str, str]:
    """Alice, who is attacked, and Bob, whose run it is."""
    alice, bob = new_user("alice"), new_user("bob")
    ScopedMemory(alice, client=client).add("The safe opens with 4711", infer=False)
    return alice, bob


async def _completed(chain: Runnable[Any, Any], config: Any) -> Any:
    return [part async for part in chain.abatch_as_completed(["safe?"], config)]


def _transformed(chain: Runnable[Any, Any], config: Any) -> Any:
    return list(chain.transform(iter(["safe?"]), config))


async def _atransformed(chain: Runnable[Any, Any], config: Any) -> Any:
    async def given() -> Any:
        yield "safe?"

    return await collected(chain.atransform(given(), config))


async def _logged(chain: Runnable[Any, Any], config: Any) -> Any:
    return await collected(chain.astream_log("safe?", config))


async def _events(chain: Runnable[Any, Any], config: Any) -> Any:
    return await collected(chain.astream_events("safe?", config, version="v1"))


OTHER_WAYS: Final[dict[str, Calling]] = {
    "batch of configs": lambda chain, config: chain.batch(["safe?"], [config]),
    "batch that returns exceptions": lambda chain, config: chain.batch(["safe?"], config, return_exceptions=True),
    "abatch of configs": lambda chain, config: chain.abatch(["safe?", "safe?"], [config_of("u_x"), config]),
    "batch_as_completed": lambda chain, config: list(chain.batch_as_completed(["safe?"], config)),
    "abatch_as_completed": _completed,
    "transform": _transformed,
    "atransform": _atransformed,
    "astream_log": _logged,
    "astream_events v1": _events,
    "with_config": lambda chain, config: chain.with_config(config).invoke("safe?"),
    "with_config by name": lambda chain, config: chain.with_config(**config).invoke("safe?"),
    "with_config and invoke": lambda chain, config: chain.with_config(tags=["t"]).with_config(config).invoke("safe?"),
}


async def called(way: str, chain: Runnable[Any, Any], config: Any) -> None:
    answer = run(way, chain, "safe?", config) if way in WAYS else OTHER_WAYS[way](chain, config)
    if inspect.isawaitable(answer):
        await answer


BINDINGS: Final[dict[str, Callable[[Runnable[Any, Any]], Runnable[Any, Any]]]] = {
    "with_config": lambda chain: chain.with_config(tags=["t"]),
    "with_config twice": lambda chain: chain.with_config(tags=["t"]).with_config({"run_name": "chat"}),
    "bind": lambda chain: chain.bind(),
    "with_listeners": lambda chain: chain.with_listeners(on_end=lambda run: None),
    "with_alisteners": lambda chain: chain.with_alisteners(on_end=_listener),
    "with_types": lambda chain: chain.with_types(input_type=str),
    "with_retry": lambda chain: chain.with_retry(stop_after_attempt=2),
    "with_fallbacks": lambda chain: chain.with_fallbacks([chain]),
    "several": lambda chain: chain.bind().with_types(input_type=str).with_listeners(on_end=lambda run: None).bind(),
}


async def _listener(run: Any) -> None:
    pass


class TestIdsAtTheTopLevel:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("name", ["user_id", "session_id", "thread_id"])
    async def test_refused_before_anything_runs(
        self, client: EngineMemory, users: tuple[str, str], way: str, name: str
    ) -> None:
        alice, bob = users
        model = constant()
        chain = with_scoped_memory(model, client=client)
        for value in (alice, None, ""):
            with pytest.raises(ScopeError, match=f"has {name} at its top level") as raised:
                await run(way, chain, "Which safe?", {**config_of(bob), name: value})
            assert alice not in str(raised.value)
        assert model.seen == []
        assert transcript_texts(client, alice) == transcript_texts(client, bob) == []

    @pytest.mark.filterwarnings("ignore:astream_log is deprecated")
    @pytest.mark.filterwarnings("ignore:astream_events version='v1' is deprecated")
    @pytest.mark.parametrize("way", [way for way in OTHER_WAYS if way != "with_config and invoke"])
    async def test_refused_in_every_other_way(self, client: EngineMemory, users: tuple[str, str], way: str) -> None:
        alice, bob = users
        model = constant()
        chain = with_scoped_memory(model, client=client)
        with pytest.raises(ScopeError, match="top level"):
            await called(way, chain, {**config_of(bob), "user_id": alice})
        assert model.seen == []
        assert transcript_texts(client, alice) == []

    @pytest.mark.filterwarnings("ignore:astream_log is deprecated")
    @pytest.mark.filterwarnings("ignore:astream_events version='v1' is deprecated")
    @pytest.mark.parametrize("way", OTHER_WAYS)
    async def test_every_other_way_works_without(self, client: EngineMemory, users: tuple[str, str], way: str) -> None:
        """The control: what is refused above is the id, and nothing else."""
        alice, bob = users
        chain = with_scoped_memory(constant(), client=client)
        await called(way, chain, {**config_of(bob), "metadata": {"user_id": alice}, "tags": ["t"]})
        assert transcript_texts(client, bob)[:2] == [("human", "safe?"), ("ai", "ok")]
        assert transcript_texts(client, alice) == []

    @pytest.mark.filterwarnings("ignore:astream_log is deprecated")
    @pytest.mark.filterwarnings("ignore:astream_events version='v1' is deprecated")
    @pytest.mark.parametrize("binding", BINDINGS)
    async def test_refused_by_a_bound_chain(self, client: EngineMemory, users: tuple[str, str], binding: str) -> None:
        alice, bob = users
        model = constant()
        chain = BINDINGS[binding](with_scoped_memory(model, client=client))
        for way in (*WAYS, *OTHER_WAYS):
            if way != "with_config and invoke":
                with pytest.raises(ScopeError, match="top level"):
                    await called(way, chain, {**config_of(bob), "user_id": alice})
        assert model.seen == []
        answers = [await run(way, chain, "safe?", config_of(bob, f"s{way}")) for way in WAYS if way != "astream_events"]
        assert {getattr(answer, "text", answer) for answer in answers} == {"ok"}
        assert transcript_texts(client, bob, "sinvoke") == [("human", "safe?"), ("ai", "ok")]
        assert transcript_texts(client, alice) == []

    async def test_refused_by_a_mapped_chain(self, client: EngineMemory, users: tuple[str, str]) -> None:
        alice, bob = users
        mapped = with_scoped_memory(constant(), client=client).map()
        config: Any = {**config_of(bob), "user_id": alice}
        for one in (mapped, mapped.with_config(tags=["t"]), mapped.with_retry()):
            with pytest.raises(ScopeError, match="top level"):
                one.invoke(["safe?"], config)
            with pytest.raises(ScopeError, match="top level"):
                await one.ainvoke(["safe?"], config)
        assert [answer.text for answer in mapped.invoke(["safe?"], config_of(bob))] == ["ok"]

    def test_a_bound_chain_keeps_what_is_bound(self, client: EngineMemory, users: tuple[str, str]) -> None:
        seen: list[Any] = []
        chain = with_scoped_memory(RunnableLambda(lambda given, config: str(config["tags"])), client=client)
        bound = chain.with_config(tags=["t"]).with_listeners(on_end=lambda run: seen.append(run.name))
        assert bound.invoke("safe?", config_of(users[1])) == "['t']"
        assert isinstance(bound, RunnableBinding)
        assert seen
        assert bound.config_specs == chain.config_specs

    def test_langchain_moves_it_before_the_chain_sees_it(self, client: EngineMemory, users: tuple[str, str]) -> None:
        """What is documented as impossible to see. If this fails, LangChain has changed: refuse it there as well."""
        alice, bob = users
        chain = with_scoped_memory(ScriptedModel(), client=client)
        config: Any = {**config_of(bob), "user_id": alice}
        first: Runnable[Any, Any] = chain | RunnablePassthrough()
        last: Runnable[Any, Any] = RunnablePassthrough() | chain
        wrapped: list[Runnable[Any, Any]] = [first, last, RunnableParallel(a=chain)]
        for around in wrapped:
            assert "4711" in str(around.invoke("Which safe?", config))


class TestConfigurable:
    def test_a_run_inside_another_users_run(self, client: EngineMemory, users: tuple[str, str]) -> None:
        """The inner call names its user; what it does not name comes from the run around it, whole or not at all."""
        alice, bob = users
        chain = with_scoped_memory(ScriptedModel(), client=client)

        def inside(config: Any) -> Any:
            return RunnableLambda(lambda _: chain.invoke("Which safe?", config)).invoke("x", config_of(alice))

        assert "4711" not in inside(config_of(bob)).text
        assert "4711" in inside(None).text
        assert "4711" in inside({"tags": ["t"]}).text
        for part in ({"session_id": "s"}, {}):
            with pytest.raises(ScopeError, match="no user_id"):
                inside({"configurable": part})
        with pytest.raises(ScopeError, match="no session_id"):
            inside({"configurable": {"user_id": bob}})

    def test_a_bound_user_and_the_user_of_the_call(self, client: EngineMemory, users: tuple[str, str]) -> None:
        alice, bob = users
        bound = with_scoped_memory(ScriptedModel(), client=client).with_config(config_of(alice))
        assert "4711" in bound.invoke("Which safe?").text
        assert "4711" not in bound.invoke("Which safe?", config_of(bob)).text

    def test_each_config_of_a_batch_is_one_user(self, client: EngineMemory, users: tuple[str, str]) -> None:
        chain = with_scoped_memory(ScriptedModel(), client=client)
        answers = chain.batch(["Which safe?"] * 2, [config_of(user, "batch") for user in users])
        assert ["4711" in answer.text for answer in answers] == [True, False]

    def test_two_users_of_nested_chains(self, client: EngineMemory, users: tuple[str, str]) -> None:
        alice, bob = users
        inner = with_scoped_memory(ScriptedModel(), client=client)
        outer = with_scoped_memory(
            RunnableLambda(lambda given: inner.invoke(given[-1:], config_of(bob, "inner"))), client=client, recall=0
        )
        assert "4711" not in outer.invoke("Which safe?", config_of(alice, "outer")).text


@pytest.mark.parametrize("config", [None, {}, {"configurable": None}, {"configurable": {}}, {"tags": ["t"]}])
def test_a_config_without_a_user_is_refused(config: Any) -> None:
    with pytest.raises(ScopeError, match="no user_id"):
        ids_from_config(complete_config(config))
