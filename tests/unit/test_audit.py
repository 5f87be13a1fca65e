"""The audit reports what breaks replication, with figures and the command that mends it, and nothing else."""

from __future__ import annotations

import ast
import io
import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from consistency.api import AuditReport
from consistency.auditing.rules import KINDS, judge_holdings, judge_replication, ownership, quorum
from consistency.auditing.subject import percent
from consistency.checking.reporting import empty_owners
from consistency.cli.show.terminal.audit import print_audit
from consistency.cli.show.terminal.console import make_console
from consistency.cluster.silence import silence, unheard_of
from consistency.errors import UsageError
from consistency.model.ring import MURMUR3, Node, Replication, Ring
from consistency.model.schema import Keyspace
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE
from consistency.results.report import Severity, Violation
from consistency.results.verdict import Coverage, ExitCode
from tests.unit.test_terminal import table_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Racks = "Mapping[str, Sequence[str]]"
ONE_DC = {"dc1": ["r1", "r1", "r1"]}
TWO_DCS = {"dc1": ["r1", "r1", "r1"], "dc2": ["r1", "r1", "r1"]}

DOWN: dict[str, Any] = {"up": False, "alive": False}
"""A node that does not answer us, and that the others take for down."""
GRAVEST = [Severity.ERROR, Severity.UNKNOWN, Severity.WARNING]


def make_ring(places: Mapping[str, Sequence[str]]) -> Ring:
    """Return a ring with a node per rack name listed; each DC's single tokens are evenly spread."""
    nodes = []
    for d, (dc, racks) in enumerate(places.items()):
        for i, rack in enumerate(racks):
            token = MIN_TOKEN + RING_SIZE * i // len(racks) + 1000 * d + 1000
            address = f"10.{d}.0.{i + 1}"
            nodes.append(Node(f"host-{d}-{i}", address, 9042, dc, rack, (token,), "5.0.8"))
    return Ring("test", MURMUR3, tuple(nodes))


def changed(ring: Ring, index: int, **fields: object) -> Ring:
    """Return the ring with one node changed."""
    nodes = list(ring.nodes)
    nodes[index] = replace(nodes[index], **fields)  # type: ignore[arg-type]
    return replace(ring, nodes=tuple(nodes))


def make_keyspace(name: str, **options: str | int) -> Keyspace:
    """Return a keyspace with NetworkTopologyStrategy over these DCs, or SimpleStrategy for replication_factor."""
    strategy = "SimpleStrategy" if "replication_factor" in options else "NetworkTopologyStrategy"
    texts = {option: str(value) for option, value in options.items()}
    return Keyspace(name, Replication.parse({"class": strategy, **texts}), {})


def audit(ring: Ring, *keyspaces: Keyspace, rf_minimum: int = 3, with_nodes: bool = False) -> tuple[Violation, ...]:
    """Judge all these keyspaces."""
    by_name = {k.name: k for k in keyspaces}
    return judge_replication(ring, by_name, scope=by_name, rf_minimum=rf_minimum, with_nodes=with_nodes)


def only(violations: Sequence[Violation], kind: str) -> Violation:
    """Return the one violation of a kind."""
    (found,) = [v for v in violations if v.kind == kind]
    return found


def kinds(violations: Sequence[Violation]) -> list[str]:
    """Return the kinds in the order reported."""
    return [v.kind for v in violations]


def errors(violations: Sequence[Violation]) -> list[Violation]:
    """Return what changes the exit code."""
    return [v for v in violations if v.severity is Severity.ERROR]


# What is healthy.


@pytest.mark.parametrize("places", [ONE_DC, {"dc1": ["r1", "r2", "r3"]}, TWO_DCS, {"dc1": ["r1", "r2", "r3"] * 2}])
def test_a_healthy_cluster_has_no_violation(places: dict[str, list[str]]) -> None:
    """RF 3 in every DC, in one rack or as many racks as replicas: nothing to say, whatever is looked at."""
    ring = make_ring(places)
    app = make_keyspace("app", **dict.fromkeys(places, 3))
    auth = make_keyspace("system_auth", **dict.fromkeys(places, 3))
    assert audit(ring, app, auth, with_nodes=True) == ()


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 3), st.integers(3, 5)), min_size=1, max_size=3),
    st.sampled_from([1, 4, 16]),
)
def test_random_healthy_clusters_raise_no_error(seed: int, shapes: list[tuple[int, int, int]], vnodes: int) -> None:
    """With every node up and RF 3 or more in reach, random tokens may be worth a warning, never an error."""
    rng = random.Random(seed)
    nodes = [
        Node(
            f"{d}-{rack}-{i}",
            f"10.{d}.{rack}.{i}",
            9042,
            f"dc{d}",
            f"r{rack}",
            tuple(rng.randrange(MIN_TOKEN, MAX_TOKEN) for _ in range(vnodes)),
            "5.0.8",
        )
        for d, (racks, per_rack, _) in enumerate(shapes)
        for rack in range(racks)
        for i in range(max(per_rack, 3 if racks == 1 else 1))
    ]
    ring = Ring("test", MURMUR3, tuple(nodes))
    factors = {dc: min(rf, len(ring.datacenters[dc])) for dc, (_, _, rf) in zip(ring.datacenters, shapes, strict=True)}
    found = audit(ring, make_keyspace("app", **factors), make_keyspace("system_auth", **factors), with_nodes=True)
    assert errors(found) == []
    assert {v.kind for v in found} <= {"rack_skew", "uneven_ownership"}


def test_a_fresh_cluster_is_told_of_its_logins_only() -> None:
    """Cassandra's own defaults on 3 nodes: system_auth at RF 1 is an error, tracing and repair history are not."""
    found = audit(
        make_ring(ONE_DC),
        make_keyspace("system_auth", replication_factor=1),
        make_keyspace("system_distributed", replication_factor=3),
        make_keyspace("system_traces", replication_factor=2),
        Keyspace("system", Replication("LocalStrategy", ()), {}),
        Keyspace("system_views", Replication("", ()), {}),
        with_nodes=True,
    )
    assert [(v.kind, v.keyspace) for v in errors(found)] == [("system_auth_rf", "system_auth")]
    assert {(v.kind, v.keyspace) for v in found if v.severity is Severity.WARNING} == {
        ("simple_strategy", "system_distributed"),
        ("simple_strategy", "system_traces"),
    }


def test_a_single_node_is_not_asked_for_more_copies_of_its_own_keyspaces() -> None:
    """Alone, a node can do no better than Cassandra's defaults."""
    found = audit(
        make_ring({"dc1": ["r1"]}),
        make_keyspace("system_auth", replication_factor=1),
        make_keyspace("system_distributed", replication_factor=3),
        make_keyspace("system_traces", replication_factor=2),
    )
    assert found == ()


# Options.


def test_rf_below_the_minimum_is_reported_per_dc_with_the_alter() -> None:
    """Only the DC that is short is named; the remedy keeps the other and repairs afterwards."""
    ring = make_ring(TWO_DCS)
    found = audit(ring, make_keyspace("app", dc1=3, dc2=2))
    assert kinds(found) == ["rf_below_minimum"]
    assert found[0].severity is Severity.ERROR
    assert found[0].detail == "RF 2 in dc2 is below the minimum of 3 (3 nodes there)"
    assert found[0].remedy == (
        "ALTER KEYSPACE app WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 3};"
        " then on every node, before reads are trusted: nodetool repair --full app"
    )
    assert audit(ring, make_keyspace("app", dc1=3, dc2=2), rf_minimum=2) == ()


def test_a_dc_too_small_for_the_minimum_needs_nodes_first() -> None:
    """The remedy says how many nodes to add before the ALTER can help."""
    found = audit(make_ring({"dc1": ["r1"]}), make_keyspace("app", dc1=1))
    assert only(found, "rf_below_minimum").remedy.startswith("first add 2 nodes to dc1, then ALTER KEYSPACE app ")


def test_names_are_quoted_for_cql() -> None:
    """A mixed-case keyspace and a DC with an apostrophe come out as CQL takes them."""
    name = "d'C"
    ring = make_ring({name: ["r1"] * 3})
    keyspace = Keyspace("App", Replication.parse({"class": "NetworkTopologyStrategy", name: "1"}), {})
    remedy = only(audit(ring, keyspace), "rf_below_minimum").remedy
    assert "ALTER KEYSPACE \"App\" WITH replication = {'class': 'NetworkTopologyStrategy', 'd''C': 3};" in remedy


def test_simple_strategy_is_an_error_whose_alter_moves_nothing_where_it_makes_no_difference() -> None:
    """One DC and one rack: the same nodes own the same ranges afterwards, so no repair is asked for."""
    (found,) = audit(make_ring(ONE_DC), make_keyspace("app", replication_factor=3))
    assert (found.kind, found.severity) == ("simple_strategy", Severity.ERROR)
    assert found.remedy == ("ALTER KEYSPACE app WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3};")


def test_simple_strategy_says_how_much_of_the_ring_hangs_on_one_rack() -> None:
    """Racks in token order a, a, a, b, b, b: each second range has its quorum in a single rack, or worse."""
    found = audit(make_ring({"dc1": list("aaabbb")}), make_keyspace("app", replication_factor=3))
    violation = only(found, "simple_strategy")
    assert "100.0% of the ring has a quorum of its replicas in a single rack" in violation.detail
    assert violation.remedy.endswith("nodetool cleanup app")
    spread = audit(make_ring({"dc1": list("abcabc")}), make_keyspace("app", replication_factor=3))
    assert "rack;" not in only(spread, "simple_strategy").detail
    two = audit(make_ring(TWO_DCS), make_keyspace("app", replication_factor=3))
    assert "over dc1, dc2 by token order" in only(two, "simple_strategy").detail


def test_an_unknown_dc_is_reported_and_a_misspelt_one_recognised() -> None:
    """DC-1 is dc_1 in other letters, so the remedy renames it; no second violation speaks of the same fact."""
    ring = make_ring({"dc_1": ["r1"] * 3, "dc2": ["r1"] * 3})
    keyspace = Keyspace("app", Replication("NetworkTopologyStrategy", (("DC-1", 3), ("dc2", 3))), {})
    found = audit(ring, keyspace)
    assert kinds(errors(found)) == ["no_quorum", "unknown_dc"]
    assert "dc_without_replicas" not in kinds(found)
    violation = only(found, "unknown_dc")
    assert violation.detail == (
        "the options ask for 3 replicas in 'DC-1', a data center without a node (there are: dc2, dc_1);"
        " did you mean 'dc_1'?"
    )
    assert "{'class': 'NetworkTopologyStrategy', 'dc2': 3, 'dc_1': 3}" in violation.remedy


def test_an_unknown_dc_counts_towards_quorum() -> None:
    """3 replicas that exist out of 6 asked for are no quorum of 4, though every node is up."""
    found = audit(make_ring(ONE_DC), make_keyspace("app", dc1=3, gone=3))
    assert kinds(found) == ["no_quorum", "unknown_dc"]
    assert "QUORUM over all data centers (4 of 6 replicas) fails for 100.0% of the ring" in found[0].detail
    assert "too few nodes" in found[0].detail
    assert "did you mean" not in found[1].detail
    assert found[0].remedy == found[1].remedy
    assert "'gone'" not in found[0].remedy


def test_an_unknown_dc_without_replicas_is_harmless() -> None:
    """RF 0 in a DC that is gone asks nobody for anything."""
    assert audit(make_ring(ONE_DC), make_keyspace("app", dc1=3, gone=0)) == ()


def test_more_replicas_than_nodes_is_an_error_that_more_nodes_or_a_lower_rf_mend() -> None:
    """RF 5 on 3 nodes can be lowered to 3; RF 3 on 2 nodes cannot be lowered below the minimum."""
    violation = only(audit(make_ring(ONE_DC), make_keyspace("app", dc1=5)), "rf_exceeds_nodes")
    assert violation.severity is Severity.ERROR
    assert violation.detail == "RF 5 in dc1 with 3 token-owning nodes: every row has 3 replicas at most"
    assert violation.remedy == (
        "add 2 nodes to dc1, or: ALTER KEYSPACE app WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3};"
    )
    short = audit(make_ring({"dc1": ["r1", "r1"]}), make_keyspace("app", dc1=3))
    assert kinds(short) == ["rf_exceeds_nodes"]
    assert short[0].remedy == "add 1 node to dc1"


def test_nodes_that_are_still_joining_do_not_count_as_owners() -> None:
    """A third node in state BOOT holds no replica yet."""
    ring = changed(make_ring(ONE_DC), 2, state="BOOT")
    assert kinds(audit(ring, make_keyspace("app", dc1=3))) == ["rf_exceeds_nodes"]


@pytest.mark.parametrize(
    "keyspace",
    [
        make_keyspace("app"),
        make_keyspace("app", dc1=0),
        make_keyspace("app", gone=3),
        make_keyspace("app", replication_factor=0),
    ],
)
def test_a_keyspace_without_a_replica_is_the_gravest_error(keyspace: Keyspace) -> None:
    """No options, RF 0 everywhere, or only DCs that do not exist: nothing is stored anywhere."""
    found = audit(make_ring(ONE_DC), keyspace)
    assert found[0].kind == "no_replicas"
    assert found[0].severity is Severity.ERROR
    assert "'dc1': 3}" in found[0].remedy
    assert not {"no_quorum", "dc_without_replicas"} & set(kinds(found))


def test_a_dc_without_replicas_is_a_warning_with_the_rebuild() -> None:
    """Clients there fail at LOCAL levels; the remedy adds the DC and streams from one that has the rows."""
    (violation,) = audit(make_ring(TWO_DCS), make_keyspace("app", dc1=3))
    assert (violation.kind, violation.severity) == ("dc_without_replicas", Severity.WARNING)
    assert violation.detail.startswith("dc2 (3 nodes) holds no replica")
    assert "'dc1': 3, 'dc2': 3}" in violation.remedy
    assert violation.remedy.endswith("then on every node of dc2: nodetool rebuild -ks app -- dc1")
    assert audit(make_ring(TWO_DCS), make_keyspace("system_traces", dc1=2)) == ()


def test_transient_replicas_are_a_warning() -> None:
    """They hold no full copy to compare."""
    found = audit(make_ring({"dc1": ["r1"] * 4}), make_keyspace("app", dc1="3/1"))
    assert kinds(found) == ["transient_replication"]
    assert found[0].severity is Severity.WARNING
    assert "dc1" in found[0].detail
    assert "'dc1': 3}" in found[0].remedy


def test_a_strategy_of_somebody_else_is_named_and_not_judged() -> None:
    """What cannot be judged is said, never passed over in silence."""
    found = audit(make_ring(ONE_DC), Keyspace("app", Replication("EverywhereStrategy", ()), {}))
    assert kinds(found) == ["unknown_strategy"]
    assert found[0].severity is Severity.WARNING
    assert "EverywhereStrategy" in found[0].detail


def test_a_keyspace_that_does_not_exist_is_a_usage_error() -> None:
    """A typing error must not read as a clean audit."""
    with pytest.raises(UsageError, match="nosuch"):
        judge_replication(make_ring(ONE_DC), {}, scope=["nosuch"])


# system_auth and the background keyspaces.


@pytest.mark.parametrize(
    ("keyspace", "severity", "fact"),
    [
        (make_keyspace("system_auth", replication_factor=3), Severity.ERROR, "SimpleStrategy with RF 3"),
        (make_keyspace("system_auth", dc1=1, dc2=3), Severity.ERROR, "RF 1 in dc1 (3 nodes)"),
        (make_keyspace("system_auth", dc1=3), Severity.ERROR, "no replica in dc2"),
        (make_keyspace("system_auth", dc1=2, dc2=3), Severity.WARNING, "RF 2 in dc1 (3 nodes)"),
    ],
)
def test_logins_that_hang_on_one_node_are_reported_once(keyspace: Keyspace, severity: Severity, fact: str) -> None:
    """system_auth has its own kind, so no general rule repeats the fact; the remedy repairs it."""
    (violation,) = audit(make_ring(TWO_DCS), keyspace)
    assert (violation.kind, violation.severity) == ("system_auth_rf", severity)
    assert fact in violation.detail
    assert violation.remedy == (
        "ALTER KEYSPACE system_auth"
        " WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 3};"
        " then on every node: nodetool repair --full system_auth"
    )


def test_system_auth_needs_no_more_replicas_than_nodes() -> None:
    """On two nodes RF 2 is the best there is, and RF 5 on three is a warning."""
    assert audit(make_ring({"dc1": ["r1", "r1"]}), make_keyspace("system_auth", dc1=2)) == ()
    (violation,) = audit(make_ring(ONE_DC), make_keyspace("system_auth", dc1=5))
    assert (violation.kind, violation.severity) == ("rf_exceeds_nodes", Severity.WARNING)


@pytest.mark.parametrize("name", ["system_traces", "system_distributed"])
def test_background_keyspaces_never_change_the_exit_code(name: str) -> None:
    """Whatever is wrong with them is a warning: nobody's rows are at stake."""
    ring = changed(changed(make_ring(TWO_DCS), 0, **DOWN), 1, **DOWN)
    for keyspace in (
        make_keyspace(name, replication_factor=1),
        make_keyspace(name, dc1=1, gone=2),
        make_keyspace(name, gone=2),
    ):
        found = audit(ring, keyspace)
        assert found
        assert errors(found) == []


def test_traces_at_rf_2_are_as_cassandra_wants_them() -> None:
    """The default of TraceKeyspace is no violation; one below it is."""
    assert audit(make_ring(ONE_DC), make_keyspace("system_traces", dc1=2)) == ()
    (violation,) = audit(make_ring(ONE_DC), make_keyspace("system_traces", dc1=1))
    assert (violation.kind, violation.severity) == ("rf_below_minimum", Severity.WARNING)


# Ranges.


def test_one_node_down_leaves_a_warning_while_quorums_hold() -> None:
    """RF 3 of 6 nodes: half of the ring has 2 of 3 live replicas."""
    ring = changed(make_ring({"dc1": ["r1"] * 6}), 0, **DOWN)
    (violation,) = audit(ring, make_keyspace("app", dc1=3))
    assert (violation.kind, violation.severity) == ("under_replicated", Severity.WARNING)
    assert violation.detail == (
        "50.0% of the ring has fewer than 3 live replicas in dc1, 2 at the least; down: 10.0.0.1:9042"
    )
    assert "10.0.0.1:9042" in violation.remedy


def test_two_nodes_down_put_quorum_out_of_reach() -> None:
    """Neighbours down in a ring of 6: a third of it has both among its three replicas."""
    ring = make_ring({"dc1": ["r1"] * 6})
    ring = changed(changed(ring, 0, **DOWN), 1, state="shutdown")
    found = audit(ring, make_keyspace("app", dc1=3))
    assert [(v.kind, v.severity) for v in found] == [
        ("no_quorum", Severity.ERROR),
        ("under_replicated", Severity.ERROR),
    ]
    assert found[0].detail == (
        "QUORUM (2 of 3 replicas) fails for 33.3% of the ring; down: 10.0.0.1:9042, 10.0.0.2:9042"
    )
    assert found[0].remedy.startswith("start Cassandra on 10.0.0.1:9042, 10.0.0.2:9042")


def test_local_quorum_is_judged_by_dc_and_quorum_over_all() -> None:
    """Two of three down in dc2: LOCAL_QUORUM fails there, QUORUM (4 of 6) still holds; a third down ends it."""
    ring = make_ring(TWO_DCS)
    ring = changed(changed(ring, 3, **DOWN), 4, **DOWN)
    app = make_keyspace("app", dc1=3, dc2=3)
    assert only(audit(ring, app), "no_quorum").detail.startswith("LOCAL_QUORUM in dc2 (2 of 3 replicas) fails")
    details = [v.detail for v in audit(changed(ring, 0, **DOWN), app) if v.kind == "no_quorum"]
    assert [d.split(" (")[0] for d in details] == ["LOCAL_QUORUM in dc2", "QUORUM over all data centers"]


def test_a_node_that_the_others_count_on_is_a_live_replica() -> None:
    """Its client port is closed to us, or to all: coordinators read and write there all the same."""
    ring = changed(make_ring(ONE_DC), 0, up=False, alive=True, silence=silence(ConnectionRefusedError()))
    assert audit(ring, make_keyspace("app", dc1=3)) == ()
    (violation,) = audit(ring, make_keyspace("app", dc1=3), with_nodes=True)
    assert violation.detail.endswith("does not answer us: connection refused; the other nodes take it for alive")
    assert violation.remedy == "on 10.0.0.1:9042: nodetool statusbinary, then nodetool enablebinary"


def test_replicas_that_may_live_are_neither_counted_nor_called_down() -> None:
    """With one down, one silent and one live, whether a quorum lives is not known; nobody is told to start it."""
    ring = changed(changed(make_ring(ONE_DC), 0, **DOWN), 1, up=False, silence=unheard_of("no answer within 5 s"))
    quorums, fewer = audit(ring, make_keyspace("app", dc1=3))
    assert (quorums.kind, quorums.severity) == ("no_quorum", Severity.UNKNOWN)
    assert quorums.detail == (
        "whether QUORUM (2 of 3 replicas) works is not known for 100.0% of the ring;"
        " 10.0.0.2:9042 does not answer us: no answer within 5 s"
    )
    assert (fewer.kind, fewer.severity) == ("under_replicated", Severity.WARNING)
    assert fewer.detail.endswith("2 at the least; down: 10.0.0.1:9042")
    ring = changed(ring, 0, up=True)
    (unsure,) = audit(ring, make_keyspace("app", dc1=3))
    assert (unsure.kind, unsure.severity) == ("under_replicated", Severity.WARNING)
    assert unsure.detail.startswith("whether 100.0% of the ring has 3 live replicas in dc1 is not known; 10.0.0.2")
    assert unsure.remedy == "see on a node that answers whether 10.0.0.2:9042 is up: nodetool status"


@pytest.mark.parametrize("alive", [True, None])
def test_nobody_is_told_to_replace_a_node_that_may_be_alive(alive: bool | None) -> None:
    """A new node at the address of a living one takes its data out of the cluster."""
    ring = changed(make_ring(ONE_DC), 0, up=False, alive=alive, silence=unheard_of("no answer in time"))
    for violation in audit(ring, make_keyspace("app", dc1=3), with_nodes=True):
        assert "replace" not in violation.remedy
        assert "start Cassandra" not in violation.remedy
        assert "down:" not in violation.detail


def test_an_audit_that_could_not_judge_a_node_is_not_complete() -> None:
    """Exit code 3, and the word for it; an error beside it is exit code 1."""
    found = audit(changed(make_ring(ONE_DC), 0, up=False), make_keyspace("app", dc1=3), with_nodes=True)
    report = AuditReport("test", 3, ("app",), found)
    assert (report.exit_code, report.unknown, report.errors) == (ExitCode.INCOMPLETE, 1, 0)
    console = make_console(io.StringIO())
    print_audit(console, report)
    said = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert said.startswith(
        "UNKNOWN No rule of replication is known to be broken in 1 keyspace on 3 nodes of test, but 1"
    )
    assert "1 unknown, 1 warning" in said
    broken = audit(changed(make_ring(ONE_DC), 0, **DOWN), make_keyspace("app", dc1=1), with_nodes=True)
    assert AuditReport("test", 3, ("app",), broken + found).exit_code is ExitCode.DIVERGENT


def test_a_quorum_can_fail_for_want_of_nodes() -> None:
    """RF 3 on a single node: 2 of 3 is never reached, and starting nodes is not the remedy."""
    violation = only(audit(make_ring({"dc1": ["r1"]}), make_keyspace("app", dc1=3)), "no_quorum")
    assert violation.detail.endswith("its replicas have too few nodes")
    assert violation.remedy.startswith("first add 2 nodes to dc1")


def test_few_racks_put_the_quorum_at_the_mercy_of_one() -> None:
    """RF 3 over two racks: one of them holds two replicas of every range."""
    (violation,) = audit(make_ring({"dc1": list("abab")}), make_keyspace("app", dc1=3))
    assert (violation.kind, violation.severity) == ("rack_skew", Severity.WARNING)
    assert violation.detail == (
        "RF 3 in dc1 lies in 2 racks (a: 2 nodes, b: 2 nodes): for 100.0% of the ring the loss of one rack"
        " takes the quorum with it"
    )
    assert "1 further rack" in violation.remedy


def test_uneven_racks_make_hot_nodes() -> None:
    """Racks of 3, 3 and 1 at RF 3: the lone node holds everything, and ownership is not reported again."""
    (violation,) = audit(make_ring({"dc1": list("abcabab")}), make_keyspace("app", dc1=3))
    assert (violation.kind, violation.severity) == ("rack_skew", Severity.WARNING)
    assert "a node of rack c holds 100.0% of the rows, one of rack a 33.3%" in violation.detail
    assert violation.remedy.startswith("add 2 nodes to rack c of dc1")


def test_slightly_uneven_racks_are_left_alone() -> None:
    """Racks of 4, 4 and 3 differ by a third in load, which every growing cluster does for a while."""
    grown = audit(make_ring({"dc1": list("abcabcabcab")}), make_keyspace("app", dc1=3))
    assert "rack_skew" not in kinds(grown)
    assert audit(make_ring({"dc1": list("aab")}), make_keyspace("app", dc1=2), rf_minimum=2) != ()
    assert audit(make_ring({"dc1": list("aabbc")}), make_keyspace("app", dc1=1), rf_minimum=1) == ()


def test_uneven_ownership_names_the_extremes() -> None:
    """Two tokens close together: their nodes share what the others leave, one entry for the DC."""
    ring = make_ring({"dc1": ["r1"] * 6})
    third = ring.nodes[2].tokens[0]
    ring = changed(ring, 1, tokens=(third - 5,))
    (violation,) = audit(ring, make_keyspace("app", dc1=1), rf_minimum=1)
    assert (violation.kind, violation.severity) == ("uneven_ownership", Severity.WARNING)
    assert violation.detail == (
        "a node of dc1 holds 16.7% of the rows on average, but 10.0.0.2:9042 33.3% and 10.0.0.3:9042 <0.1%"
    )
    assert "nodetool move" in violation.remedy
    vnodes = changed(ring, 2, tokens=(third, third - 1))
    (violation,) = audit(vnodes, make_keyspace("app", dc1=1), rf_minimum=1)
    assert "nodetool decommission" in violation.remedy
    assert "num_tokens: 2" in violation.remedy


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 8), st.integers(0, 2**32))
def test_ownership_sums_to_the_replicas_of_each_dc(nodes: int, racks: int, rf: int, seed: int) -> None:
    """Effective ownership adds up to min(RF, nodes), and nobody owns more than everything."""
    rng = random.Random(seed)
    ring = make_ring({"dc1": [f"r{i % racks}" for i in range(nodes)], "dc2": ["r1"]})
    for i in range(nodes):
        ring = changed(ring, i, tokens=(rng.randrange(MIN_TOKEN, MAX_TOKEN), rng.randrange(MIN_TOKEN, MAX_TOKEN)))
    owned = ownership(ring, Replication("NetworkTopologyStrategy", (("dc1", rf),)))
    assert set(owned) == set(ring.nodes)
    assert sum(share for node, share in owned.items() if node.dc == "dc1") == pytest.approx(min(rf, nodes))
    assert owned[ring.nodes[-1]] == 0
    assert max(owned.values()) <= 1 + 1e-9


@pytest.mark.parametrize(("rf", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)])
def test_a_quorum_is_more_than_half(rf: int, needed: int) -> None:
    """As ConsistencyLevel.quorumFor counts it."""
    assert quorum(rf) == needed


# Nodes.


@pytest.mark.parametrize(
    ("fields", "kind", "severity"),
    [
        (DOWN, "node_down", Severity.ERROR),
        ({"state": "shutdown"}, "node_down", Severity.ERROR),
        ({**DOWN, "tokens": ()}, "node_down", Severity.WARNING),
        ({"up": False}, "node_unreachable", Severity.UNKNOWN),
        ({"up": False, "tokens": ()}, "node_unreachable", Severity.WARNING),
        ({"up": False, "alive": True}, "node_unreachable", Severity.WARNING),
        ({"up": False, "alive": True, "state": "hibernate"}, "node_down", Severity.ERROR),
        ({"state": "BOOT"}, "node_joining", Severity.WARNING),
        ({"state": "JOINING", "up": False}, "node_joining", Severity.WARNING),
        ({"state": "LEAVING"}, "node_leaving", Severity.WARNING),
        ({"state": "removing", "up": False}, "node_leaving", Severity.WARNING),
        ({"state": "MOVING"}, "node_moving", Severity.WARNING),
        ({"release": "4.1.10"}, "mixed_versions", Severity.WARNING),
    ],
)
def test_what_a_node_goes_through_is_reported_without_keyspace(
    fields: dict[str, object], kind: str, severity: Severity
) -> None:
    """One violation for one fact, naming the node, and none of it where nodes are not asked for."""
    ring = changed(make_ring({"dc1": ["r1"] * 4}), 3, **fields)
    (violation,) = audit(ring, with_nodes=True)
    assert (violation.kind, violation.keyspace, violation.severity) == (kind, "", severity)
    assert "10.0.0.4:9042" in violation.detail
    assert violation.remedy
    assert audit(ring, with_nodes=False) == ()


def test_a_leaving_node_that_is_down_is_both() -> None:
    """It still owns its ranges, and it cannot stream them away."""
    ring = changed(make_ring(ONE_DC), 0, state="LEAVING", **DOWN)
    assert kinds(audit(ring, with_nodes=True)) == ["node_down", "node_leaving"]


@pytest.mark.parametrize(
    "fields", [{"state": "LEFT", "up": False, "release": "3.11.1"}, {"release": "5.0-beta1"}, {"tokens": ()}]
)
def test_what_is_no_trouble_is_not_reported(fields: dict[str, object]) -> None:
    """A node that has left, another build of the same release, a coordinator without tokens."""
    assert audit(changed(make_ring({"dc1": ["r1"] * 4}), 3, **fields), with_nodes=True) == ()


def test_a_release_that_is_not_known_yet_does_not_stop_the_audit() -> None:
    """system.peers has none for a node that was never spoken to."""
    (violation,) = audit(changed(make_ring(ONE_DC), 2, release=""), with_nodes=True)
    assert violation.detail == (
        "the nodes run different releases (5.0: 10.0.0.1:9042, 10.0.0.2:9042; unknown: 10.0.0.3:9042)"
    )


# The whole.

OPTIONS = st.one_of(
    st.integers(0, 6).map(lambda rf: {"replication_factor": rf}),
    st.dictionaries(st.sampled_from(["dc1", "dc2", "DC1", "gone"]), st.integers(0, 6)),
)


def mended(keyspace: Keyspace, violation: Violation) -> Keyspace | None:
    """Return the keyspace after the ALTER of a remedy, or None where the remedy has none or wants nodes first."""
    found = re.search(r"ALTER KEYSPACE (\w+) WITH replication = (\{.*?\});", violation.remedy)
    if found is None or "first add" in violation.remedy:
        return None
    assert found[1] == keyspace.name
    options = {str(k): str(v) for k, v in ast.literal_eval(found[2]).items()}
    return replace(keyspace, replication=Replication.parse(options))


@given(
    OPTIONS,
    st.sampled_from(["app", "system_auth", "system_traces"]),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=5),
    st.lists(st.sampled_from("ab"), max_size=4),
)
def test_any_remedy_leaves_no_error_behind(options: dict[str, int], name: str, dc1: list[str], dc2: list[str]) -> None:
    """Running the ALTER of whichever violation, in whatever order, ends with no rule of the options broken."""
    ring = make_ring({"dc1": dc1, "dc2": dc2} if dc2 else {"dc1": dc1})
    keyspace = make_keyspace(name, **options)
    after = [k for v in audit(ring, keyspace) if (k := mended(keyspace, v)) is not None]
    assume(after)
    for state in after:
        assert errors(audit(ring, state)) == []


@given(OPTIONS, st.integers(0, 63), st.permutations(range(6)))
def test_the_order_is_gravest_first_and_does_not_depend_on_the_order_of_nodes(
    options: dict[str, int], down: int, order: list[int]
) -> None:
    """Errors before warnings, then by kind and keyspace; shuffled nodes give the same report."""
    ring = make_ring(TWO_DCS)
    for i in range(6):
        ring = changed(ring, i, up=not down >> i & 1, alive=(None, True, False)[i % 3])
    keyspaces = [make_keyspace(name, **options) for name in ("b", "a", "system_auth")]
    found = audit(ring, *keyspaces, with_nodes=True)
    ranks = [(GRAVEST.index(v.severity), KINDS.index(v.kind), v.keyspace) for v in found]
    assert ranks == sorted(ranks)
    shuffled = replace(ring, nodes=tuple(ring.nodes[i] for i in order))
    assert audit(shuffled, *keyspaces[::-1], with_nodes=True) == found
    assert all(v.detail and v.remedy and "\n" not in v.detail + v.remedy for v in found)


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0.0%"), (1e-9, "<0.1%"), (0.125, "12.5%"), (0.99999, ">99.9%"), (1 - 1e-12, "100.0%")]
)
def test_a_share_never_rounds_to_nothing_or_everything(share: float, text: str) -> None:
    """0.0% means nothing at all and 100.0% means all of it."""
    assert percent(share) == text


# What nodes hold.


def test_an_owner_without_a_row_is_an_error_where_it_must_hold_them_all() -> None:
    """RF 3 on 3 nodes: each owns everything, so a node with none of 1,000 rows joined without streaming."""
    ring = make_ring(ONE_DC)
    first, second, third = ring.nodes
    app = make_keyspace("app", dc1=3)
    (violation,) = judge_holdings(ring, app, {("t", first): 500, ("t", second): 500, ("t", third): 0})
    assert (violation.kind, violation.keyspace, violation.severity) == (
        "owner_holds_nothing",
        "app",
        Severity.ERROR,
    )
    assert "10.0.0.3:9042 owns 100.0% of app.t" in violation.detail
    assert "hold 1000" in violation.detail
    assert violation.remedy == "on 10.0.0.3:9042: nodetool repair --full app t"


def test_an_owner_of_a_part_without_a_row_is_a_warning() -> None:
    """RF 3 of 6: one big partition may lie wholly on others, so it is no proof."""
    ring = make_ring({"dc1": ["r1"] * 6})
    held = {("t", node): 1000 for node in ring.nodes[1:]} | {("t", ring.nodes[0]): 0}
    (violation,) = judge_holdings(ring, make_keyspace("app", dc1=3), held)
    assert violation.severity is Severity.WARNING
    assert "owns 50.0%" in violation.detail


def test_an_empty_dc_is_told_to_rebuild_from_another() -> None:
    """A DC that was added to the options and never filled: rows on dc1's nodes must be dc2's too."""
    ring = make_ring(TWO_DCS)
    held = {("t", node): 200 * (node.dc == "dc1") for node in ring.nodes}
    found = judge_holdings(ring, make_keyspace("app", dc1=3, dc2=3), held)
    assert [v.severity for v in found] == [Severity.ERROR] * 3
    assert all("nodetool rebuild -ks app -- dc1" in v.remedy for v in found)


@pytest.mark.parametrize("rows", [{0: 33, 1: 33, 2: 0}, {0: 1000, 1: 1000}, {0: 1000, 1: 1000, 2: 1}, {}])
def test_few_rows_or_an_unread_node_are_no_sign(rows: dict[int, int]) -> None:
    """Under 100 rows, a node that was not read, or one that holds something: nothing is claimed."""
    ring = make_ring(ONE_DC)
    held = {("t", ring.nodes[i]): count for i, count in rows.items()}
    assert judge_holdings(ring, make_keyspace("app", dc1=3), held) == ()


def test_a_node_that_owns_nothing_may_hold_nothing() -> None:
    """Nodes of a DC without replicas, and keyspaces that are not replicated."""
    ring = make_ring(TWO_DCS)
    held = {("t", node): 200 * (node.dc == "dc1") for node in ring.nodes}
    assert judge_holdings(ring, make_keyspace("app", dc1=3), held) == ()
    assert judge_holdings(ring, Keyspace("system", Replication("LocalStrategy", ()), {}), held) == ()


@pytest.mark.parametrize(("differ", "read", "named"), [(1, 6, True), (0, 5, True), (0, 6, False)])
def test_an_owner_without_a_row_is_in_order_where_all_replicas_agree(differ: int, read: int, named: bool) -> None:
    """One big partition lies wholly on other nodes, and the ranges of this one are empty on each of their replicas."""
    ring = make_ring({"dc1": ["r1"] * 6})
    held = {node.host_id: 1000 for node in ring.nodes[1:]} | {ring.nodes[0].host_id: 0}
    coverage = Coverage(planned=6, completed=read, failed=6 - read)
    table = table_report("t", keyspace="app", divergent_rows=differ, coverage=coverage, held=held)
    found = empty_owners(ring, {"app": make_keyspace("app", dc1=3)}, [table])
    assert [violation.kind for violation in found] == ["owner_holds_nothing"] * named
