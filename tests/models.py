"""The chat model of the tests: it answers by a script and records what it was given. No network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field

from tests.worlds import facts_of, new_messages_in

Says = Callable[[list[BaseMessage]], str | AIMessage]


def echo(messages: Sequence[BaseMessage]) -> str:
    """Answer with everything the model was given."""
    return "I was given: " + " | ".join(message.text for message in messages)


def lines(*script: str | AIMessage | BaseException | Says) -> Says:
    """Answer with these lines in turn: an error is raised, a function is called with the messages."""
    left = list(script)

    def next_line(messages: list[BaseMessage]) -> str | AIMessage:
        line = left.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line(messages) if callable(line) else line

    return next_line


class ScriptedModel(BaseChatModel):
    """Answers by a function of the messages, and streams word by word.

    Attributes:
        says: Returns the answer.
        before: Called with the number of a chunk before the chunk is yielded; a test may wait or fail in it.
        seen: The messages of each call.
        offered: The names and argument schemas of the tools bound to it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    says: Says = echo
    before: Callable[[int], object] | None = None
    seen: list[list[BaseMessage]] = Field(default_factory=list)
    offered: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def prompts(self) -> list[str]:
        """The last message of each call, which is all that mem0's extraction sends besides its instructions."""
        return [messages[-1].text for messages in self.seen]

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        self.offered |= {offered.name: offered.tool_call_schema for offered in tools if isinstance(offered, BaseTool)}
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.seen.append(list(messages))
        self._look(0)
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self.seen.append(list(messages))
        answer = self._answer(messages)
        for number, word in enumerate(answer.text.replace(" ", " \0").split("\0")):
            self._look(number)
            calls = answer.tool_calls if number == 0 else []
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word, tool_calls=calls))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk

    def _look(self, number: int) -> None:
        if self.before is not None:
            self.before(number)

    def _answer(self, messages: list[BaseMessage]) -> AIMessage:
        said = self.says(messages)
        return AIMessage(said) if isinstance(said, str) else said


def constant(text: str = "ok") -> ScriptedModel:
    """Return a model that always gives the same answer."""
    return ScriptedModel(says=lambda _: text)


def extracting(before: Callable[[int], object] | None = None) -> ScriptedModel:
    """Return a model for mem0's extraction: every new message is one fact, verbatim."""
    return ScriptedModel(says=lambda messages: facts_of(new_messages_in(messages[-1].text)), before=before)
