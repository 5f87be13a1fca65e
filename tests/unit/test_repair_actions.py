"""What is sent for a decision: to which node, at which write time, and what is never sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from consistency.model.reading import Cell, Locality, RowState
from consistency.model.ring import Node
from repair.applying.actions import Actor
from repair.deciding.case import Case
from repair.deciding.decide import Action, Decision, Rule
from repair.writing.statements import Write, merging_read
from tests.unit.test_repair_decide import BARE, NODES, YOUNG_US, cell, evidence, table


class Recorder:
    """A reader that knows each node's locality and a writer that keeps what it is given."""

    def __init__(self, locality: Locality, otherwise: Mapping[Node, Locality]) -> None:
        self._locality = locality
        self._otherwise = otherwise
        self.sent: list[tuple[str, str, bytes | None]] = []

    def locality(self, node: Node) -> Locality:
        return self._otherwise.get(node, self._locality)

    async def on(self, node: Node, write: Write) -> None:
        self.sent.append((node.name, write.cql, write.values[0]))

    async def through(self, node: Node, write: Write, *, at_all: bool) -> None:
        self.sent.append(("ALL" if at_all else "QUORUM", write.cql, write.values[0]))


def act(
    decision: Decision,
    before: Case,
    *after: Sequence[RowState | None],
    locality: Locality,
    otherwise: Mapping[Node, Locality] | None = None,
) -> Recorder:
    """Carry out a decision; read again, the row reads as `after` says, one after the other."""
    recorder = Recorder(locality, otherwise or {})
    readings = iter(after)

    async def again() -> Case:
        return evidence(*next(readings), of=before.table)

    asyncio.run(Actor(recorder, recorder).act(decision, before, again))  # type: ignore[arg-type]
    return recorder


WRITE_BACK = Decision(Rule.LAST_WRITE, Action.WRITE_BACK)
EMPTY = cell(None)
TIME = YOUNG_US.to_bytes(8, "big")


def test_only_the_lagging_replica_is_written_to() -> None:
    """The winner goes to the replica behind, with its own write time, and nowhere else."""
    before = evidence(cell(), None, cell(), of=table(read_repair="NONE"))
    sent = act(WRITE_BACK, before, [cell(), cell(), cell()], locality=Locality.NODE_LOCAL).sent
    assert [(node, time) for node, _, time in sent] == [(NODES[1].name, TIME)]
    assert sent[0][1].startswith("UPDATE ks.t USING TIMESTAMP ? AND TTL ? SET v = ?")


def test_a_hidden_delete_is_passed_on_at_the_cells_own_time() -> None:
    """A replica that does not show what was written to it knows a delete: the others get it, no newer than the cell."""
    before = evidence(cell(), None, cell(), of=table(read_repair="NONE"))
    sent = act(WRITE_BACK, before, [cell(), None, cell()], [None] * 3, locality=Locality.NODE_LOCAL).sent
    assert [(node, time) for node, cql, time in sent if cql.startswith("DELETE v FROM ks.t USING TIMESTAMP ?")] == [
        (NODES[0].name, TIME),
        (NODES[2].name, TIME),
    ]
    assert len(sent) == 3


@pytest.mark.parametrize(("shows", "deleted"), [(None, {0, 2}), (BARE, set())])
def test_a_deleted_row_is_told_from_a_row_without_cells(shows: RowState | None, deleted: set[int]) -> None:
    """Others that still show the bare row lose it only where the hiding replica hides a row marker too."""
    before = evidence(cell(), None, cell(), of=table(read_repair="NONE"))
    after = ([cell(), None, cell()], [EMPTY, None, EMPTY], [EMPTY, shows and EMPTY, EMPTY], [None] * 3)
    sent = act(WRITE_BACK, before, *after, locality=Locality.NODE_LOCAL).sent
    assert (NODES[1].name, "INSERT INTO ks.t (id) VALUES (?) USING TIMESTAMP ? AND TTL ?") in [s[:2] for s in sent]
    found = {node for node, cql, time in sent if cql.startswith("DELETE FROM ks.t USING TIMESTAMP ?") and time == TIME}
    assert found == {NODES[n].name for n in deleted}


def test_a_row_that_was_inserted_anew_after_its_delete_is_not_deleted_where_it_showed() -> None:
    """A replica still shows it after our delete: its marker is newer, so the others that were bare get one again."""
    before = evidence(cell(), None, cell(), of=table(read_repair="NONE"))
    after = ([cell(), None, cell()], [EMPTY, None, EMPTY], [EMPTY, None, EMPTY], [None, None, EMPTY])
    *_, last = act(WRITE_BACK, before, *after, locality=Locality.NODE_LOCAL).sent
    marker = "INSERT INTO ks.t (id) VALUES (?) USING TIMESTAMP ? AND TTL ?"
    assert last[:2] == (NODES[0].name, marker)


@pytest.mark.parametrize(("at_all", "deletes"), [(True, True), (False, False)])
def test_absence_after_a_quorum_write_is_no_proof_of_a_delete(at_all: bool, deletes: bool) -> None:
    """Without NODE_LOCAL, only a write at ALL shows that the replica had the cell and hid it."""
    before = evidence(cell(), None, cell(), of=table(read_repair="NONE"))
    decision = Decision(Rule.LAST_WRITE, Action.WRITE_BACK, at_all=at_all)
    sent = act(decision, before, [cell(), None, cell()], [None] * 3, locality=Locality.TRACED).sent
    assert any(cql.startswith("DELETE") for _, cql, _ in sent) is deletes


@pytest.mark.parametrize("alone", [0, 1])
@pytest.mark.parametrize("behind", [0, 1])
def test_where_one_node_alone_allows_node_local_every_replica_gets_what_it_lacks(alone: int, behind: int) -> None:
    """Nodes are restarted one by one with NODE_LOCAL: that a node was sent nothing is no delete there."""
    states = [cell(), cell(), cell()]
    states[behind] = None  # type: ignore[call-overload]
    before = replace(evidence(*states, of=table(read_repair="NONE")), alone=False)
    only = {NODES[alone]: Locality.NODE_LOCAL}
    sent = act(WRITE_BACK, before, [cell()] * 3, locality=Locality.TRACED, otherwise=only).sent
    assert [(node, time) for node, _, time in sent] == [(NODES[alone].name if alone == behind else "ALL", TIME)]


def test_a_purge_reaches_holders_of_either_locality() -> None:
    """One by itself, the others through a coordinator."""
    before = replace(evidence(cell(), cell(), cell(), None, None), alone=False)
    decision = Decision(Rule.ZOMBIE, Action.PURGE, suspects=frozenset({(0, None)}))
    only = {NODES[0]: Locality.NODE_LOCAL}
    sent = act(decision, before, [None] * 5, locality=Locality.TRACED, otherwise=only).sent
    assert [node for node, _, _ in sent] == [NODES[0].name, "ALL"]


def test_a_purge_goes_to_the_holder_at_the_suspects_own_time() -> None:
    """Nothing newer can be deleted by it."""
    before = evidence(cell(), None, None)
    decision = Decision(Rule.ZOMBIE, Action.PURGE, suspects=frozenset({(0, None)}))
    assert act(decision, before, [None] * 3, locality=Locality.NODE_LOCAL).sent == [
        (NODES[0].name, "DELETE FROM ks.t USING TIMESTAMP ? WHERE id = ?", TIME)
    ]


def test_a_quarantined_row_is_not_even_read() -> None:
    """A read at ALL would bring it back."""
    before = evidence(cell(), None, None)
    assert act(Decision(Rule.ZOMBIE), before, [None] * 3, locality=Locality.NODE_LOCAL).sent == []


def test_the_merging_read_names_no_static_column() -> None:
    """A row's read leaves the static row out of it."""
    text = merging_read([evidence(cell(), None, None)]).cql
    assert text == "SELECT v FROM ks.t WHERE id = ?"


def test_a_replica_that_was_not_read_hides_nothing() -> None:
    """It was not written to either: that it lacks the cell is no tombstone, and nobody loses the cell for it."""
    before = evidence(cell(), None, "down", of=table(read_repair="NONE"))
    sent = act(WRITE_BACK, before, [cell(), cell(), None], locality=Locality.NODE_LOCAL).sent
    assert [cql.split()[0] for _, cql, _ in sent] == ["UPDATE"]


def test_no_stand_in_goes_ahead_of_a_cell_of_the_oldest_time() -> None:
    """A microsecond earlier is no time that a server takes: the row would be refused for ever."""
    oldest = RowState((Cell(b"x", -(2**63) + 1),))
    before = evidence(oldest, None, None, of=table(read_repair="NONE"))
    sent = act(WRITE_BACK, before, [oldest] * 3, locality=Locality.NODE_LOCAL).sent
    assert [(node, int.from_bytes(time or b"", "big", signed=True)) for node, _, time in sent] == [
        (NODES[1].name, -(2**63) + 1),
        (NODES[2].name, -(2**63) + 1),
    ]
