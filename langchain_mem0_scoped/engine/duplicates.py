"""Facts that are stored already: looked for inside the commit, where no other call can add the same one meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..extraction import comparable, lasts_longer
from .codec import id_text, links_of, load
from .storage import Partition, RowKind, StoredRow, WriteTransaction
from .unit_of_work import PendingRow, UnitOfWork

_EXPIRATION_DATE = "expiration_date"


class _Known(NamedTuple):
    """A memory with the text of a new fact.

    Attributes:
        id: Its id.
        payload: mem0's payload.
        row: The stored row; None for one that this call adds.
    """

    id: str
    payload: dict[str, Any]
    row: StoredRow | None


def drop_known_facts(transaction: WriteTransaction, partition: Partition, unit: UnitOfWork) -> None:
    """Remove from a unit the new facts whose text this user has already, in any Unicode normal form.

    A fact that lasts longer than the memory with its text extends that memory's last day, also one that has passed. The
    entities of a fact that is removed are linked to the memory that stays.
    """
    changed = unit.changes[RowKind.MEMORY]
    facts = {one: row for one in unit.facts if (row := changed.get(one)) is not None and row.is_new}
    if not facts:
        return
    known = _known(transaction, partition, {comparable(row.payload["data"]) for row in facts.values()}, changed)
    kept_ids: dict[str, str] = {}
    for fact_id, fact in facts.items():
        same = known.setdefault(comparable(fact.payload["data"]), [])
        kept = _longest([one for one in same if _is_in_scope(one.payload, fact.payload)])
        if kept is None:
            same.append(_Known(fact_id, fact.payload, None))
            continue
        del changed[fact_id]
        unit.known[fact_id] = None
        kept_ids[fact_id] = kept.id
        if lasts_longer(fact.payload.get(_EXPIRATION_DATE), kept.payload.get(_EXPIRATION_DATE)):
            unit.known[fact_id] = kept.id
            _extend(unit, kept, fact.payload)
    _link(unit, kept_ids)


def _known(
    transaction: WriteTransaction, partition: Partition, texts: set[str], changed: Mapping[str, PendingRow | None]
) -> dict[str, list[_Known]]:
    """Return the stored memories with one of these texts."""
    known: dict[str, list[_Known]] = {}
    for row in transaction.latest(partition, RowKind.MEMORY):
        payload = load(row.body)
        text = comparable(str(payload.get("data", "")))
        # What this call itself changes or removes is not compared.
        if text in texts and (row_id := id_text(row.id)) not in changed:
            known.setdefault(text, []).append(_Known(row_id, payload, row))
    return known


def _is_in_scope(payload: Mapping[str, Any], fact: Mapping[str, Any]) -> bool:
    # As mem0 compares: facts of a run or an agent, which only other code names, with those of the same one.
    return all(fact.get(name) in (None, payload.get(name)) for name in ("agent_id", "run_id"))


def _longest(same: list[_Known]) -> _Known | None:
    longest = None
    for one in same:
        if longest is None or lasts_longer(one.payload.get(_EXPIRATION_DATE), longest.payload.get(_EXPIRATION_DATE)):
            longest = one
    return longest


def _extend(unit: UnitOfWork, kept: _Known, fact: Mapping[str, Any]) -> None:
    """Give a memory the last day of a fact with the same text."""
    kept.payload[_EXPIRATION_DATE] = fact.get(_EXPIRATION_DATE)
    if kept.row is None:
        return
    kept.payload["updated_at"] = fact.get("created_at")
    unit.rows[RowKind.MEMORY][kept.id] = kept.row
    unit.changes[RowKind.MEMORY][kept.id] = PendingRow(kept.payload, None, is_new=False)
    event = {"old_memory": None, "new_memory": kept.payload.get("data"), "event": "UPDATE"}
    dates = {"created_at": kept.payload.get("created_at"), "updated_at": kept.payload["updated_at"]}
    speaker = {name: kept.payload.get(name) for name in ("actor_id", "role")}
    unit.history.append((kept.id, {**event, **dates, **speaker}))


def _link(unit: UnitOfWork, kept_ids: Mapping[str, str]) -> None:
    """Link the entities of removed facts to the memories that stay."""
    for entity in unit.changes[RowKind.ENTITY].values():
        if entity is not None and (links := links_of(entity.payload)) & kept_ids.keys():
            entity.payload["linked_memory_ids"] = sorted({kept_ids.get(one, one) for one in links})
