"""What a worker opens for an order: connections as this machine's environment and files say, and what it reads."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from consistency.cluster.request_counts import RequestCounts
from consistency.cluster.settings import TARGET, load_settings
from consistency.comparing import opening
from consistency.spreading.checked import CheckUnits
from consistency.spreading.compared import PairPieces
from consistency.spreading.messages import Order, Work
from consistency.spreading.port import Reads, Told
from consistency.spreading.reading import UnitReader

_PLANNER = "repair.spread_planning"
"""What decides rows; a name, as nothing here may depend on the repair."""


@asynccontextmanager
async def opened(order: Order, number: int, told: Told, counts: RequestCounts) -> AsyncGenerator[Reads, None]:
    """Connect as worker `number` of an order; yield what reads its units."""
    from consistency.cluster.session import open_cluster  # noqa: PLC0415 - tests put another one in its place

    terms, limits = order.terms, order.limits(number)
    settings = load_settings(terms.given)
    if order.work is Work.COMPARE and terms.target is not None:
        target = load_settings(terms.target, section=TARGET)
        async with opening.open_pair(settings, target, limits, locality=terms.locality) as pair:
            pair.count_with(counts)
            yield UnitReader(await PairPieces.prepared(pair, order), told)
        return
    async with open_cluster(settings, limits, locality=terms.locality) as (reader, clock):
        reader.count_with(counts)
        if order.work is Work.PLAN:
            yield await importlib.import_module(_PLANNER).prepared(reader, clock, order)
            return
        yield UnitReader(await CheckUnits.prepared(reader, clock, order), told)
