"""What the agent's state shows of a run: nothing but an empty str."""

from __future__ import annotations

import copy
import json
import pickle

from langchain_core.messages import HumanMessage
from langgraph.channels import UntrackedValue
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langchain_mem0_scoped.agents.state import RunMemo, RunMemos


def test_memo_shows_and_serializes_nothing() -> None:
    memo = RunMemo(is_resumed=True)
    memo.said["h1"] = HumanMessage("SECRET")
    memo.query = "SECRET"
    serde = JsonPlusSerializer()
    shown = [repr(memo), str(memo), f"{memo}", json.dumps({"memo": memo}), pickle.dumps(memo).decode("latin-1")]
    assert "SECRET" not in "".join(shown)
    assert b"SECRET" not in serde.dumps_typed({"memo": memo})[1]
    assert serde.loads_typed(serde.dumps_typed({"memo": memo})) == {"memo": ""}
    assert copy.deepcopy(memo) == copy.copy(memo) == ""
    assert type(copy.deepcopy(memo)) is str


def test_channel_merges_what_several_middlewares_write_in_one_step() -> None:
    one, two = RunMemo(), RunMemo()
    channel = RunMemos(dict)
    assert not channel.update([])
    assert not channel.is_available()
    assert channel.update([{"a": one}, {"b": two}])
    assert channel.update([{"b": one}])
    assert channel.get()["a"] is channel.get()["b"] is one
    assert isinstance(channel, UntrackedValue)
    assert not channel.from_checkpoint({}).is_available()
    assert type(channel.copy()) is RunMemos


def test_memos_share_nothing() -> None:
    one, two = RunMemo(), RunMemo()
    one.said["h1"] = HumanMessage("hi")
    one.logged.add("h1")
    one.answers.append("a1")
    assert (two.said, two.logged, two.answers, two.query, two.is_resumed) == ({}, set(), [], None, False)
