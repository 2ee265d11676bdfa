"""What the prompt at the start of a chain can show of a history. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableLambda

from .chain_steps import steps_of
from .errors import InputError

# Prompts, models and parsers are imported inside the functions: importing them takes long, and a program whose chain
# has none of them does not need them.


def check_prompt(chain: Runnable[Any, Any], input_key: str, history_key: str) -> tuple[str | None, str | None]:
    """Check that the prompt at the start of a chain, if it has one, shows the history.

    Args:
        chain: Any runnable.
        input_key: The key of the user's message in a dict input.
        history_key: The key of the history in a dict input.

    Returns:
        Why a dict input is refused, and why any other input is refused; None for one that is accepted.

    Raises:
        InputError: The prompt shows the history for no input.
    """
    from langchain_core.prompts import BasePromptTemplate, MessagesPlaceholder

    first, *rest = steps_of(chain)
    if not isinstance(first, BasePromptTemplate):
        return None, None
    required, messages = first.input_variables, getattr(first, "messages", ())
    placeholders = [message.variable_name for message in messages if isinstance(message, MessagesPlaceholder)]
    dict_error = other_error = None
    # LangChain passes an input that is no dict as the prompt's only variable. That has to be a placeholder: a variable
    # in a text would show the repr of the messages.
    if len(required) != 1 or required[0] not in (history_key, *placeholders):
        other_error = f"this chain takes a dict: invoke({{{input_key!r}: …}})"
    variables = {*required, *first.optional_variables, *first.partial_variables}
    if history_key not in variables and _lists_all_variables(first) and _adds_no_history(rest):
        usable = [name for name in placeholders if name != input_key or len(placeholders) == 1]
        dict_error = (
            f'the prompt has no variable "{history_key}", so the model would not see the history: add '
            f'MessagesPlaceholder("{history_key}") to the ChatPromptTemplate'
        )
        if usable:
            named = " or ".join(f'history_messages_key="{name}"' for name in usable)
            dict_error += f", or name the placeholder it has: {named}"
        if other_error:
            raise InputError(dict_error)
    return dict_error, other_error


def _lists_all_variables(prompt: Any) -> bool:
    """Return whether a prompt's variables are all that it can show.

    A prompt inside it, or a section of a mustache template, may show others.
    """
    from langchain_core.prompts import BasePromptTemplate

    messages = getattr(prompt, "messages", ())
    templates = [prompt, *messages, *(getattr(message, "prompt", None) for message in messages)]
    formats = (getattr(part, "template_format", None) for template in templates for part in _as_list(template))
    return "mustache" not in formats and not any(isinstance(message, BasePromptTemplate) for message in messages)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _adds_no_history(steps: Sequence[Runnable[Any, Any]]) -> bool:
    """Return whether no step can hold another chain with scoped memory, which adds the history itself."""
    from langchain_core.language_models import BaseLanguageModel
    from langchain_core.output_parsers import BaseOutputParser

    return all(isinstance(step, (BaseLanguageModel, BaseOutputParser, RunnableLambda)) for step in steps)
