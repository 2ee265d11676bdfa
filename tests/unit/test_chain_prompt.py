"""What the prompt at the start of a chain can show of a history."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough

from langchain_mem0_scoped import InputError
from langchain_mem0_scoped.chain_prompt import check_prompt
from tests.models import constant

HISTORY, ASKED = MessagesPlaceholder("history"), ("human", "{input}")
NEEDS_A_DICT = "this chain takes a dict: invoke({'input': …})"


def prompt(*messages: Any) -> ChatPromptTemplate:
    return ChatPromptTemplate.from_messages(list(messages))


def check(chain: Runnable[Any, Any], history_key: str = "history") -> tuple[str | None, str | None]:
    return check_prompt(chain, "input", history_key)


@pytest.mark.parametrize("chain", [constant(), RunnableLambda(str), RunnablePassthrough() | prompt(ASKED)])
def test_chain_without_a_prompt_at_its_start_is_not_checked(chain: Runnable[Any, Any]) -> None:
    assert check(chain) == (None, None)


def test_prompt_with_history_and_a_question_takes_a_dict() -> None:
    assert check(prompt(HISTORY, ASKED) | constant()) == (None, NEEDS_A_DICT)


@pytest.mark.parametrize("name", ["history", "past"])
def test_prompt_of_one_placeholder_takes_messages(name: str) -> None:
    dict_error, other_error = check(prompt(("system", "Be brief."), MessagesPlaceholder(name)) | constant())
    assert other_error is None
    # A dict would not show the history under another name.
    assert (dict_error is None) == (name == "history")


def test_prompt_of_one_text_variable_takes_a_dict() -> None:
    # As the only variable of a text, LangChain would show the repr of the messages.
    assert check(PromptTemplate.from_template("{history}") | constant()) == (None, None)
    assert check(prompt(("human", "{question}"), ("placeholder", "{history}")) | constant()) == (None, NEEDS_A_DICT)


def test_prompt_without_required_variables_takes_a_dict() -> None:
    assert check(prompt(("system", "Be brief."), ("placeholder", "{history}"))) == (None, NEEDS_A_DICT)


def test_prompt_class_may_have_optional_variables_without_values() -> None:
    custom = prompt(MessagesPlaceholder("history", optional=True), ASKED)
    custom.partial_variables = {}
    assert check(custom | constant()) == (None, NEEDS_A_DICT)


def test_prompt_without_history_raises() -> None:
    with pytest.raises(InputError, match=r'^the prompt has no variable "history", .* to the ChatPromptTemplate$'):
        check(prompt(ASKED) | constant())


def test_error_names_usable_placeholders_only() -> None:
    both = prompt(MessagesPlaceholder("past"), MessagesPlaceholder("input")) | constant()
    with pytest.raises(InputError, match=r'or name the placeholder it has: history_messages_key="past"$'):
        check(both)
    (alone, _) = check(prompt(MessagesPlaceholder("input")) | constant())
    assert str(alone).endswith('or name the placeholder it has: history_messages_key="input"')


@pytest.mark.parametrize("key", ["history", "optional", "partial"])
def test_history_may_be_required_optional_or_partial(key: str) -> None:
    messages = [HISTORY, MessagesPlaceholder("optional", optional=True), MessagesPlaceholder("partial"), ASKED]
    assert check(prompt(*messages).partial(partial=[]) | constant(), key)[0] is None


@pytest.mark.parametrize(
    "start",
    [
        ChatPromptTemplate([prompt(("placeholder", "{history}"), ASKED)]),
        ChatPromptTemplate.from_messages(
            [("system", "{{#ctx}}{{history}}{{/ctx}}"), ("human", "{{input}}")], template_format="mustache"
        ),
        PromptTemplate.from_template("{{#ctx}}{{history}}{{/ctx}} {{input}}", template_format="mustache"),
    ],
    ids=["inner prompt", "mustache messages", "mustache text"],
)
def test_prompt_that_may_show_other_variables_is_trusted(start: Any) -> None:
    assert check(start | constant())[0] is None


def test_a_later_step_that_may_add_the_history_is_trusted() -> None:
    start = prompt(ASKED)
    trusted: tuple[Runnable[Any, Any], ...] = RunnableParallel(answer=constant()), RunnablePassthrough()
    for step in trusted:
        assert check(start | step) == (None, NEEDS_A_DICT)
    plain_steps: tuple[Runnable[Any, Any], ...] = constant(), StrOutputParser(), RunnableLambda(str)
    for plain in plain_steps:
        with pytest.raises(InputError):
            check(start | plain)
