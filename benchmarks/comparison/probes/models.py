"""A chat model with scripted answers that records its input."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr


class ScriptedModel(BaseChatModel):
    """Returns its replies one after the other, then the last one again and again."""

    replies: tuple[AIMessage, ...] = (AIMessage("Noted."),)
    _given: list[str] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        self._given.append("\n".join(message.text for message in messages))
        return ChatResult(generations=[ChatGeneration(message=self._reply())])

    def _reply(self) -> AIMessage:
        return self.replies[min(len(self._given), len(self.replies)) - 1].model_copy()

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self

    def given(self) -> Iterator[str]:
        """Iterate over the texts of the requests."""
        return iter(self._given)


class Extracting(ScriptedModel):
    """Answers mem0's request for facts with the user's last texts, verbatim."""

    def _reply(self) -> AIMessage:
        new = self._given[-1].rpartition("## New Messages")[2].partition("\n## ")[0]
        texts = re.findall(r"user: (.+)", new)
        return AIMessage(json.dumps({"memory": [{"id": str(at), "text": text} for at, text in enumerate(texts)]}))


def calling(tool: str, **arguments: Any) -> AIMessage:
    """Make a reply that calls a tool."""
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": "call_1", "type": "tool_call"}])
