"""A trace proves that one replica answered alone, or it proves nothing."""

from __future__ import annotations

import pytest

from consistency.locality import TraceEvent, proves_local

HERE, THERE = "127.0.0.2:7000", "127.0.0.1:7000"
LOCAL = [
    "Parsing SELECT a FROM k.b WHERE pk=5",
    "Preparing statement",
    "Executing single-partition query on b",
    "Acquiring sstable references",
    "Read 4 live rows and 0 tombstone cells",
]
SCAN = ["Computing ranges to query", "Executing seq scan across 2 sstables for (max(0), max(100)]"]


def events(*activities: str, source: str = HERE) -> list[TraceEvent]:
    """Make events of one node."""
    return [TraceEvent(activity, source) for activity in activities]


@pytest.mark.parametrize("activities", [LOCAL, SCAN])
def test_a_read_on_the_pinned_node_alone_is_proven(activities: list[str]) -> None:
    """The read executed there, and nothing was asked of another node."""
    assert proves_local(events(*activities), HERE)


@pytest.mark.parametrize(
    "activity",
    [
        "Enqueuing request to Full(127.0.0.1/127.0.0.1:7000,(-3843,12337])",
        "Sending RANGE_REQ message to /127.0.0.1:7000 message size 113 bytes",
        "Sending READ_REQ message to /127.0.0.1:7000 message size 98 bytes",
        "reading digest from 127.0.0.1/127.0.0.1:7000",
        "reading data from /127.0.0.1:7000",
    ],
)
def test_a_read_that_asked_another_node_is_not(activity: str) -> None:
    """Even where the pinned node executed a read of its own as well."""
    assert not proves_local(events(*LOCAL, activity), HERE)


def test_any_event_of_another_node_spoils_the_proof() -> None:
    """Also of a node on the same address with another port."""
    assert not proves_local(events(*LOCAL) + events("RANGE_REQ message received", source=THERE), HERE)
    assert not proves_local(events(*LOCAL, source="127.0.0.2:7001"), HERE)


def test_a_trace_without_an_executed_read_proves_nothing() -> None:
    """An empty or partial trace is no proof, nor is the server's own look at its peers."""
    assert not proves_local([], HERE)
    assert not proves_local(events("Parsing SELECT", "Preparing statement"), HERE)
    assert not proves_local(events("Executing single-partition query on peers_v2"), HERE)
