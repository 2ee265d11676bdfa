"""Chat models as they are passed: bound, retried, with fallbacks; and JSON mode, where their class offers it."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable

from ..extraction import ANSWER_SCHEMA

ChatRunnable: TypeAlias = Runnable[LanguageModelInput, BaseMessage]
"""A chat model, or a runnable around one, such as `model.bind(…)`, `model.with_retry()`, `model.with_fallbacks(…)`."""


def is_chat_model(model: object) -> bool:
    """Return whether this is a chat model, or a runnable that passes its input to one and returns its message."""
    if isinstance(model, RunnableWithFallbacks):
        return all(map(is_chat_model, model.runnables))
    if isinstance(model, (RunnableBindingBase, DynamicRunnable)):
        return is_chat_model(_inside(model))
    # What init_chat_model() returns for a model that the config chooses has the methods of a chat model.
    return isinstance(model, BaseChatModel) or (isinstance(model, Runnable) and hasattr(type(model), "bind_tools"))


def with_json_mode(model: ChatRunnable, given: frozenset[str] = frozenset()) -> ChatRunnable:
    """Return a model that is asked for JSON, if its class offers that; else the model itself.

    A class offers it by a `with_structured_output` whose parameter `method` may be "json_mode", as those of OpenAI,
    Google, Ollama, Groq and Mistral do.

    Args:
        model: The model.
        given: Options that the caller has bound around it. If JSON mode would need one of them, it is not asked for.
    """
    if isinstance(model, RunnableWithFallbacks):
        fallbacks = [with_json_mode(fallback, given) for fallback in model.fallbacks]
        return model.model_copy(update={"runnable": with_json_mode(model.runnable, given), "fallbacks": fallbacks})
    if isinstance(model, (RunnableBindingBase, DynamicRunnable)):
        name, options = ("default", ()) if isinstance(model, DynamicRunnable) else ("bound", model.kwargs)
        inside = with_json_mode(_inside(model), given.union(options))
        return model if inside is _inside(model) else model.model_copy(update={name: inside})
    options = _json_options(model) if isinstance(model, BaseChatModel) else {}
    return model.bind(**options) if options and given.isdisjoint(options) else model


def _inside(model: RunnableBindingBase[Any, Any] | DynamicRunnable[Any, Any]) -> Any:
    return model.default if isinstance(model, DynamicRunnable) else model.bound


def _json_options(model: BaseChatModel) -> dict[str, Any]:
    """Return what `with_structured_output` binds for JSON mode; nothing if the class does not offer it."""
    method = inspect.signature(type(model).with_structured_output).parameters.get("method")
    if method is None or "json_mode" not in str(method.annotation):
        return {}
    try:
        chain: Any = model.with_structured_output(ANSWER_SCHEMA, method="json_mode")
    except Exception:
        # It is offered for other models of this class, or needs a package that is not installed.
        return {}
    first = getattr(chain, "first", None)
    if not isinstance(first, RunnableBinding):
        return {}
    # The others are for LangSmith's traces, which call the answer "structured output".
    return {name: value for name, value in first.kwargs.items() if not name.startswith("ls_")}
