"""A chat model that answers what it is told to and keeps what it was given."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr


class Told(BaseChatModel):
    """Answers with each of its replies in turn, and with the last one from then on."""

    replies: tuple[AIMessage, ...] = (AIMessage("Noted."),)
    _given: list[str] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "told"

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        self._given.append("\n".join(message.text for message in messages))
        return ChatResult(generations=[ChatGeneration(message=self._reply())])

    def _reply(self) -> AIMessage:
        return self.replies[min(len(self._given), len(self.replies)) - 1].model_copy()

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def given(self) -> Iterator[str]:
        """Iterate over what it was given, request by request."""
        return iter(self._given)


class Extracting(Told):
    """Answers mem0's request for facts with what the user just said, word for word."""

    def _reply(self) -> AIMessage:
        new = self._given[-1].rpartition("## New Messages")[2].partition("\n## ")[0]
        said = re.findall(r"user: (.+)", new)
        return AIMessage(json.dumps({"memory": [{"id": str(at), "text": text} for at, text in enumerate(said)]}))


def calling(tool: str, **arguments: Any) -> AIMessage:
    """Make a reply that calls a tool."""
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": "call_1", "type": "tool_call"}])
