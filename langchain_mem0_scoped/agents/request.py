"""A model request with a recall in it, whatever a later middleware replaces."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from langchain.agents.middleware import ModelRequest
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig


def with_recall(request: ModelRequest[Any], recall: str) -> ModelRequest[Any]:
    """Return a request whose model is given a recall at the end of the system message.

    LangChain calls middleware from the first to the last, and each may replace the system message, the messages or the
    model. So the recall is added where the model is called, after all of them. None of them sees it: a middleware for
    prompt caching marks the end of the system prompt, and the recall follows as a block of its own.

    Args:
        request: The request.
        recall: The recall's text; "" for none.
    """
    if not recall:
        return request
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    return _RecallingRequest(**{**values, "model": _RecallingModel(request.model, recall)})


def add_recall(messages: Sequence[BaseMessage], recall: str) -> list[BaseMessage]:
    """Return a prompt with a recall at the end of its system message."""
    first = messages[0] if messages else None
    if not isinstance(first, SystemMessage) or not first.content:
        return [SystemMessage(recall), *(messages if not isinstance(first, SystemMessage) else messages[1:])]
    if isinstance(first.content, str):
        content: str | list[str | dict[Any, Any]] = f"{first.content}\n\n{recall}"
    else:
        content = [*first.content, {"type": "text", "text": recall}]
    return [first.model_copy(update={"content": content}), *messages[1:]]


class _RecallingRequest(ModelRequest[Any]):
    """A request that keeps its recall when another middleware chooses another model."""

    def override(self, **overrides: Any) -> ModelRequest[Any]:
        """As `ModelRequest.override`."""
        if "model" in overrides:
            recalling: Any = self.model
            overrides["model"] = recalling.instead(overrides["model"])
        return super().override(**overrides)


class _RecallingModel:
    """Has the attributes and the type of a chat model, and adds a recall to the prompts of what is bound to it.

    LangChain calls a model by `bind` or `bind_tools`. A call of the model itself is another middleware's own.
    """

    def __init__(self, model: Any, recall: str) -> None:
        self._model = model
        self._recall = recall

    @property  # type: ignore[misc]  # For mypy it is a plain attribute.
    def __class__(self) -> Any:
        return self._model.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __copy__(self) -> _RecallingModel:
        return _RecallingModel(self._model, self._recall)

    def __deepcopy__(self, memo: dict[int, Any]) -> _RecallingModel:
        return _RecallingModel(copy.deepcopy(self._model, memo), self._recall)

    def __repr__(self) -> str:
        return repr(self._model)

    def bind(self, **options: Any) -> Runnable[Any, Any]:
        """As `bind` of a chat model."""
        return _Recalling(self._model.bind(**options), self._recall)

    def bind_tools(self, *args: Any, **options: Any) -> Runnable[Any, Any]:
        """As `bind_tools` of a chat model."""
        return _Recalling(self._model.bind_tools(*args, **options), self._recall)

    def instead(self, model: Any) -> Any:
        """Return another model with the same recalls."""
        if type(model) is _RecallingModel:
            return model
        if isinstance(model, _Recalling):
            # Another middleware has bound the model it was given.
            model = model.bound
        inner = self._model.instead(model) if type(self._model) is _RecallingModel else model
        return _RecallingModel(inner, self._recall)


class _Recalling(Runnable[Any, AIMessage]):
    """A bound model whose prompts are given a recall. It adds no LangChain run."""

    def __init__(self, bound: Runnable[Any, Any], recall: str) -> None:
        self.bound = bound
        self._recall = recall

    def invoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Call the model."""
        return self.bound.invoke(add_recall(input, self._recall), config, **options)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Any:
        """Async twin of `invoke`."""
        return await self.bound.ainvoke(add_recall(input, self._recall), config, **options)
