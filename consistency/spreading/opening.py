"""What a worker opens for an order: connections as this machine's environment and files say, and what it reads."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from consistency.cluster.request_counts import RequestCounts
from consistency.cluster.settings import TARGET, GivenOptions, load_settings
from consistency.spreading.checked import CheckUnits
from consistency.spreading.messages import Order, Work
from consistency.spreading.port import Reads, Told
from consistency.spreading.reading import UnitReader

_PLANNER = "repair.planning.spread"
"""What decides rows; a name, as nothing here may depend on the repair."""


@asynccontextmanager
async def opened(order: Order, number: int, told: Told, counts: RequestCounts) -> AsyncGenerator[Reads, None]:
    """Connect as worker `number` of an order; yield what reads its units."""
    from consistency.cluster.session import open_cluster  # noqa: PLC0415 - tests put another one in its place

    terms, limits = order.terms, order.limits(number)
    settings = load_settings(terms.given)
    if order.work is Work.COMPARE:
        from consistency.comparing.opening import open_pair  # noqa: PLC0415 - a check needs none of it
        from consistency.spreading.compared import PairPieces  # noqa: PLC0415

        target = load_settings(terms.target or GivenOptions(), section=TARGET)
        async with open_pair(settings, target, limits, locality=terms.locality) as pair:
            pair.count_with(counts)
            yield UnitReader(await PairPieces.prepared(pair, order), told)
        return
    async with open_cluster(settings, limits, locality=terms.locality) as (reader, clock):
        reader.count_with(counts)
        if order.work is Work.PLAN:
            yield await importlib.import_module(_PLANNER).prepared(reader, clock, order)
            return
        yield UnitReader(await CheckUnits.prepared(reader, clock, order), told)
