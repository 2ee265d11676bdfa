"""The steps of a chain: which of them gives its output, and how that output is streamed."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)

from langchain_mem0_scoped.chain_steps import keys_of_whole_values, last_steps, steps_of, streams_whole_values
from tests.models import ScriptedModel, constant

ONE: Any = RunnableLambda(str)
TWO: Any = constant()
THREE: Any = StrOutputParser()
JSON: Any = TWO | JsonOutputParser()
TEXT: Any = TWO | StrOutputParser()


def test_steps_are_found_inside_bindings_and_sequences() -> None:
    chain = (ONE.with_config(tags=["t"]) | (TWO.bind(stop=["."]) | THREE)).with_retry()
    assert list(steps_of(chain)) == [ONE, TWO, THREE]


@pytest.mark.parametrize(
    ("chain", "last"),
    [
        (ONE | TWO, [TWO]),
        ((ONE | (TWO | THREE).with_config(tags=["t"])).with_retry(), [THREE]),
        (ONE | TWO.with_fallbacks([THREE, ONE | TWO]), [TWO, THREE, TWO]),
        (RunnableBranch((lambda given: True, ONE | TWO), THREE), [TWO, THREE]),
        (TWO.configurable_alternatives(ConfigurableField("m"), other=ONE), [TWO, ONE]),
        (ScriptedModel().configurable_fields(says=ConfigurableField("says")), [ScriptedModel()]),
    ],
)
def test_the_steps_that_may_give_the_output(chain: Runnable[Any, Any], last: list[Any]) -> None:
    assert list(last_steps(chain)) == last


@pytest.mark.parametrize(
    ("last", "whole"), [(JsonOutputParser(), True), (JsonOutputParser(diff=True), False), (StrOutputParser(), False)]
)
def test_json_parser_streams_whole_values(last: Any, whole: bool) -> None:
    assert streams_whole_values(constant() | last) == whole
    assert not streams_whole_values(last | RunnableLambda(str))


def test_alternatives_stream_whole_values_if_all_of_them_do() -> None:
    assert streams_whole_values(JSON.with_fallbacks([JSON]))
    assert not streams_whole_values(JSON.with_fallbacks([TEXT]))
    assert streams_whole_values(RunnableBranch((lambda given: True, JSON), JSON))


def test_keys_of_whole_values() -> None:
    assert keys_of_whole_values(RunnableParallel(a=JSON, b=TEXT, c=ONE)) == {"a"}
    assert keys_of_whole_values(ONE | RunnablePassthrough.assign(a=JSON, b=TEXT)) == {"a"}
    assert keys_of_whole_values(JSON) == frozenset()
