"""ChainRun: one run of a wrapped chain. What the chain is given, and what is stored of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from .chain_checkpoint import Checkpoint
from .chain_messages import MessageKeys, without_instructions
from .chain_output import OutputAccumulator
from .chat_history import ScopedChatMessageHistory
from .errors import InputError
from .graph_runs import validate_command
from .pending_turn import TurnOutcome
from .recall import arecall_other_sessions, last_human_text, recall_other_sessions
from .recall_text import is_recall, recall_message
from .tracing import asend_event, atraced, send_event, traced
from .transcripts.run_input import RunInput
from .transcripts.sameness import identity_of, known_prefix
from .unsaved import NOT_SAVED, report_unlogged, report_unsaved

SAVED_BY_OUTER: Final = "__scoped_memory_saved_by_outer"
"""The key in `configurable` under which a chain names the sessions whose turn it saves, for the chains inside it.

LangChain keeps keys that begin with "__" out of traces.
"""


class ChainRun:
    """One run of a wrapped chain.

    Args:
        chain_input: What the wrapped chain was called with.
        keys: Where it holds messages.
        history: The session's history; no other run uses it.
        recall: Maximum number of memories; 0 for none.
        config: The config of the call, as `complete_config` returns it.
        checkpoint: Where the chain keeps its conversation itself; None if it does not.
        resumes: Whether the input resumes a graph that was interrupted, and holds no messages.

    Raises:
        InputError: The input holds no message, or the chain's prompt cannot take such an input. Or it is a Command that
            is no answer to an interrupt, or the chain cannot be resumed.
    """

    def __init__(
        self,
        chain_input: Any,
        keys: MessageKeys,
        history: ScopedChatMessageHistory,
        recall: int,
        config: RunnableConfig,
        checkpoint: Checkpoint | None,
        resumes: bool,
    ) -> None:
        self._chain_input = chain_input
        self._keys = keys
        self._resumes = resumes
        messages = [] if resumes else keys.turn_messages(chain_input)
        if resumes:
            validate_command(chain_input, keys.input_key, has_checkpointer=checkpoint is not None)
        said = without_instructions(messages)
        self._instructions = messages[: len(messages) - len(said)]
        self._said = [message for message in said if not is_recall(message)]
        if said and not self._said:
            raise InputError("the input holds a recall and no message of the user; pass what the user says now")
        self._history = history
        self._client = history.scoped_client
        self._recall = recall
        self._checkpoint = checkpoint
        self._context: list[BaseMessage] = []
        self._split = RunInput(self._said, self._said)
        self._is_over = False
        saved_by_outer = config["configurable"].get(SAVED_BY_OUTER, ())
        session = (id(self._client.client), history.user_id, history.session_id)
        self._saves = session not in saved_by_outer
        # A recall in the input comes from a chain around this one, or from an app that sends back an agent's output:
        # then it is an earlier run's.
        self._recalls = [message for message in said if is_recall(message)]
        self._outer_recalls = self._recalls if saved_by_outer else []
        self._saved_here: tuple[tuple[int, str, str], ...] = (*saved_by_outer, session)

    def chain_config(self, config: RunnableConfig) -> RunnableConfig:
        """Return the config for the chain: that of this run, and which session's turn is saved here."""
        return {**config, "configurable": {**config.get("configurable", {}), SAVED_BY_OUTER: self._saved_here}}

    # -- what the chain is given

    def given(self, config: RunnableConfig) -> Any:
        """Return the chain's input: with the recalled memories and the history before the turn.

        Args:
            config: The config inside this run.
        """
        if self._checkpoint is None:
            return self._given(config)
        self._read()
        if self._resumes:
            self._checkpoint.validate_resumed(self._chain_input, config, self._split.turn)
            return self._chain_input
        return self._beside_checkpoint(self._checkpoint.has_conversation(config))

    async def agiven(self, config: RunnableConfig) -> Any:
        """Async twin of `given`."""
        if self._checkpoint is None:
            return await self._client.run_sync_or_async(lambda: self._given(config), lambda: self._agiven(config))
        await asyncio.to_thread(self._read)
        if self._resumes:
            await self._checkpoint.avalidate_resumed(self._chain_input, config, self._split.turn)
            return self._chain_input
        return self._beside_checkpoint(await self._checkpoint.ahas_conversation(config))

    def _given(self, config: RunnableConfig) -> Any:
        # The history is read first, and the erasure token with it: an erasure from here on stops the turn.
        self._read()
        with traced("recall", config, self._recall_inputs()) as outputs:
            memories = recall_other_sessions(self._client, *self._query())
            outputs.update(_recall_outputs(memories))
        return self._input([recall_message(memories), *self._context] if memories else self._context)

    async def _agiven(self, config: RunnableConfig) -> Any:
        await asyncio.to_thread(self._read)
        async with atraced("recall", config, self._recall_inputs()) as outputs:
            memories = await arecall_other_sessions(self._client, *self._query())
            outputs.update(_recall_outputs(memories))
        return self._input([recall_message(memories), *self._context] if memories else self._context)

    def _beside_checkpoint(self, has_conversation: bool) -> Any:
        """Return the input of a graph that keeps what it is given: no recall, and the history only once."""
        return self._input([] if has_conversation else self._context)

    def _read(self) -> None:
        self._split = self._history.resumed_input() if self._resumes else self._history.run_input(self._said)
        self._context = self._history.context(self._split)
        if self._resumes and self._saves and not self._split.turn:
            # The user may have been erased since: a turn that began before that is not stored.
            raise InputError("this session has no turn to resume; begin one with what the user says")

    def _query(self) -> tuple[str, str, int]:
        return last_human_text(self._split.turn), self._history.session_id, self._recall

    def _recall_inputs(self) -> dict[str, Any]:
        return {"session_id": self._history.session_id, "k": self._recall}

    def _input(self, context: list[BaseMessage]) -> Any:
        turn = [*self._instructions, *self._split.turn]
        context = [*self._outer_recalls, *context]
        chain_input = self._chain_input
        if len(self._split.turn) < len(self._said) or self._recalls:
            # What the caller repeats of the transcript is in the context.
            chain_input = self._keys.with_turn(chain_input, turn)
        return self._keys.with_context(chain_input, turn, context)

    # -- what is stored of the run

    def save(self, output: OutputAccumulator, config: RunnableConfig) -> None:
        """Save the turn; report it if that fails.

        Of a turn that was interrupted, only what the user said is logged: the run that resumes it saves the rest. The
        same of a turn whose answer cannot be read.

        Args:
            output: What the chain gave.
            config: The config inside this run.
        """
        self._is_over = True
        if not self._saves:
            return
        with traced("save", config, self._save_inputs()) as outputs:
            to_save, unread = self._messages_to_save(output)
            if to_save is None:
                outcome = _without_answer(self._history.save_unanswered(self._split.new), unread)
            else:
                outcome = self._history.save_turn(*to_save)
            outputs.update(_save_outputs(outcome))
        if outcome.error is not None:
            send_event(config, NOT_SAVED, report_unsaved(outcome))

    async def asave(self, output: OutputAccumulator, config: RunnableConfig) -> None:
        """Async twin of `save`."""
        self._is_over = True
        if not self._saves:
            return
        async with atraced("save", config, self._save_inputs()) as outputs:
            to_save, unread = self._messages_to_save(output)
            if to_save is None:
                outcome = _without_answer(await self._history.asave_unanswered(self._split.new), unread)
            else:
                outcome = await self._history.asave_turn(*to_save)
            outputs.update(_save_outputs(outcome))
        if outcome.error is not None:
            await asend_event(config, NOT_SAVED, report_unsaved(outcome))

    def _save_inputs(self) -> dict[str, Any]:
        return {"session_id": self._history.session_id}

    def _messages_to_save(
        self, output: OutputAccumulator
    ) -> tuple[tuple[list[BaseMessage], list[BaseMessage]] | None, Exception | None]:
        """Return what the transcript may have already, and what is surely new.

        Returns:
            None in their place if there is no answer, and why it could not be read, if there should be one.
        """
        if output.is_interrupted:
            return None, None
        turn = self._split.turn
        try:
            messages, answers = self._keys.new_messages(turn, output, self._chain_input)
        except Exception as error:
            return None, error
        # Where a summary has replaced the turn in an agent's output, the history may be in it too.
        perhaps_old = messages[len(turn) :]
        if len(perhaps_old) > 1:
            context = [identity_of(one) for one in self._context]
            perhaps_old = perhaps_old[known_prefix([identity_of(one) for one in perhaps_old[:-1]], context) :]
        answers = [*perhaps_old, *answers]
        if self._split.has_unknown_context:
            return ([], [*self._split.new, *answers]), None
        return (self._split.new, answers), None

    def log_unanswered(self) -> None:
        """Log the human messages of a run that failed or was stopped; report it if that fails, and raise nothing."""
        if self._saves and not self._is_over:
            self._is_over = True
            try:
                self._history.add_unanswered(self._split.new)
            except Exception as error:
                report_unlogged(error)

    async def alog_unanswered(self) -> None:
        """Async twin of `log_unanswered`. It goes on where the run is cancelled once more."""
        if self._saves and not self._is_over:
            self._is_over = True
            try:
                await self._history.aadd_unanswered(self._split.new)
            except asyncio.CancelledError:
                pass  # Why the run ended is raised, and the messages are logged all the same.
            except Exception as error:
                report_unlogged(error)


def _without_answer(outcome: TurnOutcome, unread: Exception | None) -> TurnOutcome:
    """Return the outcome of a turn of which only what the user said is saved."""
    if unread is None:
        return outcome
    return replace(outcome, error=outcome.error or unread, remembered=False, has_answer=False)


def _recall_outputs(memories: Sequence[Any]) -> dict[str, Any]:
    return {"memories": len(memories), "memory_ids": [memory["id"] for memory in memories]}


def _save_outputs(outcome: TurnOutcome) -> dict[str, Any]:
    return {
        "messages": outcome.messages,
        "transcript": outcome.in_transcript,
        "memories": outcome.remembered,
        "memory_ids": list(outcome.memory_ids),
    }
