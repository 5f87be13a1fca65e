"""A row that a merge leaves as it was is said to be that, with what keeps its copies apart where that is known."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from consistency.model.reading import Cell, RowState
from consistency.model.ring import Node
from consistency.rows.names import RowRef
from repair.applying.outcomes import failed
from repair.deciding.case import Case, CaseReader
from repair.deciding.decide import Action, Rule
from repair.deciding.stubborn import EMPTY, EXPIRED, stubborn
from repair.keeping.entries import Result
from repair.keeping.planfile import PlannedRow
from repair.planning.planner import _of_view
from tests.unit.test_repair_decide import BARE, OLD, OLD_US, YOUNG_US, cell, evidence, table

REF = RowRef("ks", "t", 7, {"id": "00000001"})
ELEMENT = bytes.fromhex("000000010000000161")
SET = RowState((Cell(ELEMENT, (OLD_US,), (None,)),))
"""A set of one text, whose cell has an empty value as those of all sets do."""
YOUNG_SET = RowState((Cell(ELEMENT, (YOUNG_US,), (None,)),))
AGELESS_SET = RowState((Cell(ELEMENT),))
"""What a server of 4.x tells of it."""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (evidence(OLD, OLD, None), EXPIRED),
        (evidence(OLD, cell(None), None), EXPIRED),
        (evidence(cell(), cell(), None), ""),
        (evidence(cell(), cell(None), None), ""),
        (evidence(YOUNG_SET, YOUNG_SET, None, of=table("set<text>")), ""),
        (evidence(AGELESS_SET, AGELESS_SET, None, of=table("set<text>")), ""),
        (evidence(cell(), cell(), None, of=table(gc_grace_seconds=3000)), EXPIRED),
        (evidence(cell(""), cell(""), cell(None)), EMPTY),
        (evidence(cell("a"), cell("b"), None), ""),
        (evidence(BARE, BARE, None, of=table("")), ""),
        (evidence(SET, SET, cell(None), of=table("set<text>")), EXPIRED),
        (evidence(SET, SET, None, of=table("set<text>")), EXPIRED),
    ],
)
def test_what_a_merge_leaves_apart_is_named(found: Case, said: str) -> None:
    """A delete past its grace, also of a set; an empty value against a delete; two values that differ are neither.

    Cells that are younger than gc_grace, or of unknown age, are hidden by no delete that is past it.
    """
    assert stubborn(found, found) == said
    planned = PlannedRow(REF, Rule.LAST_WRITE, Action.RECONCILE, "", {})
    outcome = failed(planned, found, found, None)
    assert (outcome.result, outcome.reason) == (Result.DIVERGENT, said or "the replicas still differ")


def test_a_row_that_changed_meanwhile_is_not_judged() -> None:
    """The merge did something, or somebody wrote: what keeps the rest apart is not known."""
    assert not stubborn(evidence(cell(), None, None), evidence(cell(), cell(), None))


class Views:
    """Evidence of a view's base row."""

    def __init__(self, found: Case | None) -> None:
        self.found = found

    def base_of(self, ref: RowRef) -> RowRef | None:
        return replace(ref, table="base") if self.found is not None else None

    async def read(self, _: RowRef) -> Case:
        assert self.found is not None
        return self.found


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (evidence(cell(), cell(), cell()), "agrees on every replica: nodetool repair --full ks t"),
        (evidence(None, None, None), "agrees on every replica"),
        (evidence(cell(), None, cell()), "repair its table ks.base, whose row differs"),
        (evidence(cell(), cell(), "down"), "said before"),
        (None, "said before"),
    ],
)
def test_a_view_is_sent_to_what_helps_it(found: Case | None, said: str) -> None:
    """Where the base row agrees a repair of the table changes nothing; what is not known is not claimed."""
    row = PlannedRow(REF, Rule.VIEW, Action.NONE, "said before", {})
    assert said in asyncio.run(_of_view(cast("CaseReader", Views(found)), row))


def test_the_base_row_of_a_views_row() -> None:
    """Its key is part of the view's, under its own token."""
    from consistency.cluster.by_token import token_of  # noqa: PLC0415
    from consistency.model.cqltype import parse_type  # noqa: PLC0415
    from consistency.model.ring import MURMUR3, Replication, Ring  # noqa: PLC0415
    from consistency.model.schema import Column, Keyspace, Table  # noqa: PLC0415

    number = parse_type("int", {})
    view = Table("ks", "w", "2", (Column("v", "partition_key", 0, number), Column("id", "clustering", 0, number)))
    tables = {"t": table(), "w": replace(view, view_of="t")}
    node = Node("h", "10.0.0.1", 9042, "dc1", "r", (1,), "5.0.8")
    schema = {"ks": Keyspace("ks", Replication("NetworkTopologyStrategy", (("dc1", 1),)), tables)}
    reader = CaseReader(cast("Any", None), cast("Any", None), Ring("c", MURMUR3, (node,)), schema)
    ref = RowRef("ks", "w", 9, {"v": "00000005", "id": "00000001"})
    assert reader.base_of(ref) == RowRef("ks", "t", token_of((bytes.fromhex("00000001"),)), {"id": "00000001"})
    assert reader.base_of(REF) is None
