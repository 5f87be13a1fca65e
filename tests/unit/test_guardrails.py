"""What a node forbids our role is found out by requests that do nothing; a refusal is told from a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from consistency.cluster.guardrails import Guardrails, Refusal, read_guardrails
from consistency.cluster.wire import ALL, QUORUM, Statement
from consistency.errors import (
    ReplicaError,
    ReplicaForbidden,
    ReplicaOverloaded,
    ReplicaRefused,
    ReplicaTimeout,
    ReplicaUnavailable,
    TooFewReplicas,
)
from consistency.model.ring import Node
from tests.unit.fake_cluster import nodes, table

NODE = nodes(1)[0]
Answer = Callable[[Statement], str]


class Asked:
    """A connection that answers as a rule says: with the server's words, or empty where it does as it is asked."""

    def __init__(self, answer: Answer, settings: str = "") -> None:
        self._answer = answer
        self._settings = settings
        self.sent: list[Statement] = []

    async def execute(self, node: Node, statement: Statement) -> None:
        self.sent.append(statement)
        words = self._answer(statement)
        if words == "no right":
            raise ReplicaForbidden(words)
        if words:
            cut = f"{node}: {words[:40]}"
            raise ReplicaRefused(cut) from ValueError(words)

    async def select(self, node: Node, cql: str, *, timeout_s: float) -> list[dict[str, str]]:
        return [{"value": self._settings}] if self._settings else []


def found(answer: Answer, settings: str = "") -> Guardrails:
    """Return what is found out of a node, by statements that can change nothing."""
    asked = Asked(answer, settings)
    rails = asyncio.run(read_guardrails(asked, [NODE], table()))[NODE]  # type: ignore[arg-type]
    for statement in asked.sent:
        keyless = statement.cql.startswith("DELETE") and statement.values[1:] == (None,)
        assert keyless or statement.cql in ("SELECT key FROM system.local", "BEGIN UNLOGGED BATCH APPLY BATCH")
    return rails


def no_key(statement: Statement) -> str:
    """Refuse a statement that names no key, as every server does."""
    return "Invalid null value in condition for column id" if statement.cql.startswith("DELETE") else ""


def test_a_node_that_forbids_nothing() -> None:
    """The refusal of a statement without a key is no guardrail."""
    assert found(no_key) == Guardrails(name=str(NODE))


def test_levels_that_are_forbidden_are_named_with_the_guardrail() -> None:
    """Reads at ALL, and writes at ALL; QUORUM is allowed."""
    words = 'Guardrail {}_consistency_levels violated: Provided values [ALL] are not allowed"'

    def answer(statement: Statement) -> str:
        kind = "read" if statement.cql.startswith("SELECT") else "write"
        return words.format(kind) if statement.consistency == ALL else no_key(statement)

    rails = found(answer)
    assert set(rails.reads) == set(rails.writes) == {ALL}
    assert "the guardrail read_consistency_levels forbids it" in rails.reads[ALL]
    assert QUORUM not in rails.writes


def test_the_bounds_of_write_times_are_those_that_the_server_tells() -> None:
    """Both bounds, and which cells they forbid."""
    oldest, newest = 1_795_817_948_270_000, 1_795_917_948_270_000

    def answer(statement: Statement) -> str:
        if not statement.cql.startswith("DELETE"):
            return ""
        if int.from_bytes(statement.values[0] or b"", "big") < oldest:
            return (
                "Guardrail minimum_timestamp violated: The modification to table t has a timestamp 1 before the minimum"
                f" allowable failure threshold {oldest}. Timestamps too far in the past"
            )
        return (
            "Guardrail maximum_timestamp violated: The modification to table t has a timestamp 9 after the maximum"
            f" allowable failure threshold {newest}. Timestamps too far in the future"
        )

    rails = found(answer)
    assert (rails.oldest_us, rails.newest_us) == (oldest, newest)
    assert "minimum_timestamp" in rails.forbids_times([oldest, oldest - 1])
    assert "maximum_timestamp" in rails.forbids_times([oldest, newest + 1])
    assert rails.forbids_times([oldest, newest]) == rails.forbids_times([]) == ""


def test_a_role_that_may_not_write_is_told_by_the_settings() -> None:
    """A plan may be made by a role that only reads."""

    def answer(statement: Statement) -> str:
        return "no right" if statement.cql.startswith("DELETE") else ""

    assert found(answer).oldest_us is None
    rails = found(answer, "1d")
    assert rails.forbids_times([1])
    assert found(answer, "null").oldest_us is None


def test_times_of_clients_may_be_forbidden_altogether() -> None:
    """Then no cell can be written back, whatever its age."""

    def answer(statement: Statement) -> str:
        forbidden = "Guardrail user_timestamps violated: User provided timestamps (USING TIMESTAMP) is not allowed"
        return forbidden if statement.cql.startswith("DELETE") else ""

    assert "user_timestamps" in found(answer).forbids_times([5])


@pytest.mark.parametrize(
    ("error", "passes", "certain"),
    [
        (ReplicaRefused("n: no"), False, True),
        (ReplicaForbidden("n: no right"), False, True),
        (TooFewReplicas("n: too few", 1), True, True),
        (ReplicaUnavailable("n: lost"), True, False),
        (ReplicaOverloaded("n: busy"), True, False),
        (ReplicaTimeout("n: late"), True, False),
        (ReplicaError("n: failed"), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_failure_says_of_what_was_done(error: ReplicaError, passes: bool, certain: bool) -> None:
    """Only a refusal before anything began is certain, and not where the request had been tried before."""
    refusal = Refusal.of(error)
    assert (refusal.passes, refusal.certain) == (passes, certain)
    error.repeated = True
    assert not Refusal.of(error).certain
