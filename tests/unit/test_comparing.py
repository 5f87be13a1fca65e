"""Two clusters compared: tables matched, placed and declared, each side's errors, the command and its files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import consistency
from consistency import Comparison, Side, read_compared, read_findings
from consistency.cli import main
from consistency.cluster.clock import SystemClock
from consistency.cluster.driver_errors import connect_error
from consistency.cluster.settings import TARGET, GivenOptions, load_settings
from consistency.comparing.matching import TablePair, match_tables
from consistency.comparing.opening import naming, open_pair
from consistency.comparing.placement import Owned, Owners, joint_arcs, sided
from consistency.comparing.preparing import CompareOptions
from consistency.comparing.reader import in_common
from consistency.comparing.schemas import declared_otherwise, why_not_compared
from consistency.errors import ConnectError, ReplicaForbidden, ReplicaUnavailable, UsageError
from consistency.ledger.lock import one_run
from consistency.model.cqltype import parse_type
from consistency.model.reading import Capabilities
from consistency.model.ring import MURMUR3, Doubt, Replication, Ring
from consistency.model.schema import Column, Keyspace, Table
from consistency.model.sides import SidedNode
from consistency.results.comparison import SchemaDifference
from consistency.results.pair_findings import InnerFinding, PairFinding, PairKind, PairRange, read_pair_header
from consistency.results.verdict import Verdict
from tests.unit.fake_cluster import US, FakeCluster, Version, nodes, port, table

pytestmark = pytest.mark.usefixtures("no_settings_of_this_machine")

TWICE = Replication("NetworkTopologyStrategy", (("dc1", 2),))
LOCAL = Replication("LocalStrategy", ())


def schema(**keyspaces: Sequence[str]) -> dict[str, Keyspace]:
    """Return keyspaces with tables of these names."""
    return {
        name: Keyspace(name, TWICE, {each: table(name, each) for each in tables}) for name, tables in keyspaces.items()
    }


def matched(source: dict[str, Keyspace], target: dict[str, Keyspace], *names: str) -> dict[str, str]:
    """Return which table of the source goes with which of the target."""
    found = match_tables(source, target, names)
    return {pair.source.full_name: pair.target.full_name for pair in found.pairs}


# Which tables.


def test_tables_go_by_their_names_or_by_those_given() -> None:
    """All of a keyspace, one table, and either under another name in the target; quoted names too."""
    source, target = schema(ks=["a", "b"], Odd=["T"]), schema(ks=["a", "b"], ks2=["a", "c"], Odd=["T"])
    assert matched(source, target) == {"ks.a": "ks.a", "ks.b": "ks.b", "Odd.T": "Odd.T"}
    assert matched(source, target, "ks.a") == {"ks.a": "ks.a"}
    assert matched(source, target, "ks.b=ks2.c") == {"ks.b": "ks2.c"}
    assert matched(source, target, '"Odd"."T"=ks2.c') == {"Odd.T": "ks2.c"}
    assert matched(source, target, "ks=ks2") == {"ks.a": "ks2.a"}
    assert matched(source, target, "ks=ks2", "ks.b=ks2.c") == {"ks.a": "ks2.a", "ks.b": "ks2.c"}


def test_what_has_no_counterpart_is_told_and_unknown() -> None:
    """Of either side: a table, or a whole keyspace where all are compared."""
    source, target = schema(ks=["a", "b"], gone=["x"]), schema(ks=["a", "z"], more=["y"])
    found = match_tables(source, target, ())
    assert set(found.lacking) == {"ks.b", "gone.x", "ks.z", "more.y"}
    assert found.lacking["ks.z"] == "only the target has this table"
    assert "the target has no keyspace 'gone'" in found.lacking["gone.x"]
    assert set(match_tables(source, target, ("ks",)).lacking) == {"ks.b", "ks.z"}
    unread = {"ks": replace(target["ks"], tables={}, unreadable={"a": "nodes disagree"})}
    assert match_tables(source, unread, ("ks",)).lacking["ks.a"] == "target: nodes disagree"
    other = schema(ks=["a", "b"])
    named = match_tables(source, other | schema(k2=["a", "b", "c"]), ("ks=k2", "ks.b=k2.c"))
    assert set(named.lacking) == {"k2.b"}  # not the counterpart of ks.b
    assert not match_tables(source, other, ("ks", "ks.b")).lacking
    alone = {name: replace(keyspace, unreadable={"w": "nodes disagree"}) for name, keyspace in target.items()}
    assert {"ks.w", "more.w"} <= set(match_tables(source, alone, ()).lacking)
    local = {"ks": replace(target["ks"], replication=LOCAL)}
    assert "on each node by itself" in match_tables(source, local, ("ks",)).lacking["ks.a"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kz", "source: there is no keyspace 'kz'"),
        ("ks=k2", "target: there is no keyspace 'k2'; did you mean 'ks2'"),
        ("ks.b", "target: there is no table 'b'"),
        ("ks.a=ks2", "a table is compared with a table"),
        ("a=b=c", "is none of KS, KS.TABLE"),
        ("", "is none of KS, KS.TABLE"),
    ],
)
def test_a_wrong_name_says_on_which_side(name: str, words: str) -> None:
    """One line, before anything is read."""
    with pytest.raises(UsageError, match=words):
        match_tables(schema(ks=["a", "b"]), schema(ks=["a"], ks2=["c"]), (name,))


def test_two_tables_cannot_be_compared_with_one() -> None:
    """Its rows would count twice; and one is not compared with two."""
    with pytest.raises(UsageError, match=r"ks\.a is to be compared with ks2\.c and with ks\.a: one at a time"):
        match_tables(schema(ks=["a"]), schema(ks=["a"], ks2=["c"]), ("ks.a=ks2.c", "ks.a"))
    with pytest.raises(UsageError, match=r"would both be compared with ks2\.c"):
        match_tables(schema(ks=["a", "b"]), schema(ks2=["c"]), ("ks.a=ks2.c", "ks.b=ks2.c"))


# How they are declared.


def difference(source: Table, target: Table) -> dict[str, SchemaDifference]:
    """Return what is declared otherwise, by what."""
    one, other = {source.keyspace: Keyspace("shop", TWICE, {"orders": source})}, {}
    other[target.keyspace] = Keyspace("shop", TWICE, {"orders": target, "by_v": replace(target, view_of="orders")})
    found = declared_otherwise(TablePair(source, target), one, other)
    return {each.what: each for each in found}


def test_columns_that_are_not_the_same_keep_a_table_from_being_compared() -> None:
    """One that only one side has, another type, another order, another user type under the same name."""
    one = table(clustering="c")
    more = replace(one, columns=(*one.columns, Column("x", "regular", -1, parse_type("int", {}))))
    found = difference(one, more)["column x"]
    assert (found.source, found.target, found.blocks) == ("none", "int", True)
    assert why_not_compared((found,)) == (
        "its columns are not the same (column x: none in the source, int in the target)"
    )
    turned = replace(one, columns=tuple(replace(c, reversed=c.name == "c") for c in one.columns))
    assert difference(one, turned)["column c"].target == "int clustering 1 descending"
    assert difference(one, replace(one, is_counter=True))["counters"].blocks


def test_options_that_matter_are_told_and_block_nothing() -> None:
    """What an operator should know before traffic is switched."""
    one = table()
    other = replace(
        one, gc_grace_seconds=1, default_ttl=2, compaction="Other", indexes=("i on v",), keyspace="s2", table_id="t2"
    )
    found = difference(one, other)
    assert set(found) == {
        "gc_grace_seconds", "default_time_to_live", "compaction", "indexes", "materialized views",
    }  # fmt: skip
    assert (found["indexes"].source, found["indexes"].target) == ("none", "i on v")
    assert why_not_compared(tuple(found.values())) == ""


# Who owns what.


def owners(side: Side, count: int, factor: int, **more: Any) -> Owners:
    """Return a side with so many nodes."""
    ring = Ring(str(side), MURMUR3, nodes(count))
    return Owners(side, ring, Replication("NetworkTopologyStrategy", (("dc1", factor),)), **more)


def test_every_token_has_its_replicas_of_both_sides() -> None:
    """Cut at the tokens of both, with each side's own copies, whatever the numbers of nodes and copies are."""
    source, target = owners(Side.SOURCE, 5, 2), owners(Side.TARGET, 3, 1)
    known = {each.side: sided(each.side, each.ring) for each in (source, target)}
    arcs, asides = joint_arcs(source, target, known)
    assert asides == ()
    for arc in arcs:
        for token_range in arc.ranges:
            for token in (token_range.start + 1, token_range.end):
                of_source = {n.node for n in arc.replicas if isinstance(n, SidedNode) and n.side is Side.SOURCE}
                of_target = {n.node for n in arc.replicas if isinstance(n, SidedNode) and n.side is Side.TARGET}
                assert of_source == set(source.ring.replicas_of(token, source.replication))
                assert of_target == set(target.ring.replicas_of(token, target.replication))
                assert Owned(arcs).of(token) == arc.replicas


def test_two_clusters_that_are_copied_everywhere_have_one_arc() -> None:
    """Its leaves need not be cut at vnodes; nodes of one name are two."""
    source, target = owners(Side.SOURCE, 3, 3), owners(Side.TARGET, 1, 1)
    known = {each.side: sided(each.side, each.ring) for each in (source, target)}
    (arc,), _ = joint_arcs(source, target, known)
    assert len(arc.ranges) == 1
    assert [node.name for node in arc.replicas][-1] == "target 10.0.0.1:9042"
    assert len(set(arc.replicas)) == 4


def test_one_node_speaks_for_a_side_where_a_quorum_is_read() -> None:
    """One that is up, of those that own the range."""
    source, target = owners(Side.SOURCE, 3, 2, one_each=True), owners(Side.TARGET, 3, 3, one_each=True)
    ring = source.ring
    source = replace(source, ring=replace(ring, nodes=(replace(ring.nodes[0], up=False), *ring.nodes[1:])))
    known = {each.side: sided(each.side, each.ring) for each in (source, target)}
    arcs, _ = joint_arcs(source, target, known)
    assert {len(arc.replicas) for arc in arcs} == {2}
    assert all(node.up for arc in arcs for node in arc.replicas)


def test_a_range_without_a_replica_on_a_side_is_set_aside() -> None:
    """Unknown, with the side; so is one on whose owners a side's nodes disagree."""
    source, target = owners(Side.SOURCE, 3, 2), owners(Side.TARGET, 3, 2, dc="elsewhere")
    known = {each.side: sided(each.side, each.ring) for each in (source, target)}
    arcs, asides = joint_arcs(source, target, known)
    assert arcs == ()
    assert all(aside.skipped and "the target has no replica" in aside.reason for aside in asides)
    doubted = replace(source.ring, unplaced=("10.0.0.9:7000",))
    arcs, asides = joint_arcs(replace(source, ring=doubted), owners(Side.TARGET, 3, 2), known)
    assert arcs == ()
    assert all("the source: the nodes disagree" in aside.reason and not aside.skipped for aside in asides)


def test_both_sides_are_read_as_both_can() -> None:
    """A digest has one form on all nodes."""
    old = Capabilities(hashes=False, unchecked_text=True, collection_times=False, timed=False)
    assert in_common(Capabilities(), old) == replace(old, unchecked_text=False)
    assert in_common(old, old) == old


# The command.


def others(name: str) -> Ring:
    """Return a ring of nodes that have the addresses of every fake cluster, and are others."""
    return Ring(name, MURMUR3, tuple(replace(node, host_id=f"{name} {node.host_id}") for node in nodes()))


class Pair:
    """Runs commands against two fake clusters, which are at the hosts s and t."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clusters = {"s": FakeCluster(cluster="old").fill(20), "t": FakeCluster(cluster="new", factor="2").fill(20)}
        self.target.rings(others("new"))
        self.down: set[str] = set()

        @asynccontextmanager
        async def opened(settings: Any, *_: Any, **__: Any) -> AsyncIterator[tuple[Any, SystemClock]]:
            host = settings.contact_points[0][0]
            if host in self.down:
                msg = f"no node answers at {host}"
                raise ConnectError(msg)
            yield port(self.clusters[host]), SystemClock()

        monkeypatch.setattr("consistency.comparing.opening.open_cluster", opened)

    @property
    def target(self) -> FakeCluster:
        """The cluster that is compared."""
        return self.clusters["t"]

    def run(self, *words: str) -> Result:
        """Compare, without waiting for writes to settle."""
        given = ["compare", "--hosts", "s", "--target-hosts", "t", "--settle", "0", "--quiet", *words]
        return CliRunner().invoke(main, given)

    def everywhere(self, number: int, version: Version | None, host: str = "t") -> None:
        """Have a row on all replicas of a side, or on none."""
        for held in self.clusters[host].rows.values():
            held.pop(number, None)
            if version is not None:
                held[number] = version


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Return two clusters that hold the same."""
    return Pair(monkeypatch)


def test_the_same_rows_are_consistent(pair: Pair) -> None:
    """Whatever the replication of either side."""
    result = CliRunner().invoke(main, ["compare", "--hosts", "s", "--target-hosts", "t", "--settle", "0"])
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert text.startswith("CONSISTENT The target holds exactly what the source holds: 20 rows in 1 table.")
    assert "old (3 nodes read) to new (3 nodes read)" in text


def test_each_row_is_found_by_its_name_with_what_both_sides_hold(pair: Pair, tmp_path: Path) -> None:
    """In the file, in the JSON, on the screen; keys only where they are asked for."""
    pair.everywhere(3, None)
    pair.everywhere(40, Version("more"))
    pair.everywhere(5, Version("other"))
    pair.everywhere(6, Version("value 6", US + 9))
    path, told = tmp_path / "f.jsonl", tmp_path / "r.json"
    result = pair.run("shop", "--findings", str(path), "--json", str(told), "--show-keys")
    assert result.exit_code == 1
    assert "4 of 21 rows in 1 table are not the same on both sides" in result.stdout
    assert "only_source 1, only_target 1, value 1, writetime 1" in result.stdout
    found = list(read_compared(path))
    assert {each.key["id"]: each.kind.value for each in found if isinstance(each, PairFinding)} == {
        3: "only_source", 40: "only_target", 5: "value", 6: "writetime",
    }  # fmt: skip
    lacking = next(each for each in found if isinstance(each, PairFinding) and each.kind is PairKind.ONLY_SOURCE)
    assert lacking.sides[Side.SOURCE].writetimes == {"v": US}
    assert not lacking.sides[Side.TARGET].merged
    assert set(lacking.sides[Side.SOURCE].replicas) == {"10.0.0.1:9042", "10.0.0.2:9042", "10.0.0.3:9042"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert "value 6" not in path.read_text()
    report = json.loads(told.read_text())
    assert report["findings_by_kind"] == {"only_source": 1, "only_target": 1, "value": 1, "writetime": 1}
    header = read_pair_header(path)
    assert header.clusters[Side.TARGET][0] == "new"
    assert (header.compare, header.run_id) == ("writetimes", report["run_id"])


def test_what_is_compared_decides(pair: Pair) -> None:
    """Values alone, with write times or a tolerance, with expiries."""
    pair.everywhere(6, Version("value 6", US + 2_000_000, 5_000))
    assert pair.run("--compare", "values").exit_code == 0
    assert pair.run().exit_code == 1
    assert pair.run("--tolerate-writetime", "2").exit_code == 0
    assert pair.run("--tolerate-writetime", "1.9").exit_code == 1
    result = pair.run("--tolerate-writetime", "2", "--compare", "expiries")
    assert result.exit_code == 1
    assert "expiry 1" in result.stdout


def test_a_cluster_that_disagrees_with_itself_is_told_apart(pair: Pair, tmp_path: Path) -> None:
    """With the replica by its own name, and the kind that a check gives it."""
    pair.clusters["s"].rows["10.0.0.2:9042"][7] = Version("older", US - 60)
    path, told = tmp_path / "f.jsonl", tmp_path / "r.json"
    result = pair.run("--findings", str(path), "--json", str(told))
    assert result.exit_code == 1
    assert "No difference between the sides was found in 20 rows" in result.stdout
    assert "the source disagrees with itself in 1." in result.stdout
    assert "source by itself  stale 1" in result.stdout
    (found,) = read_compared(path)
    assert isinstance(found, InnerFinding)
    assert found.side is Side.SOURCE
    assert found.finding.replicas["10.0.0.2:9042"].host_id == "host-2"
    report = json.loads(told.read_text())
    assert report["inner"] == {"source": {"stale": 1}, "target": {}}


def test_rows_beyond_the_list_are_counted(pair: Pair, tmp_path: Path) -> None:
    """By range and kind, in the file too."""
    for number in range(6):
        pair.everywhere(number, None)
    path, told = tmp_path / "f.jsonl", tmp_path / "r.json"
    result = pair.run("--max-findings", "0", "--findings", str(path), "--json", str(told))
    assert result.exit_code == 1
    assert "6 rows are counted by range and not listed" in " ".join(result.stdout.split())
    ranges = [found for found in read_compared(path) if isinstance(found, PairRange)]
    assert sum(found.rows for found in ranges) == 6
    assert {kind for found in ranges for kind in found.kinds} == {PairKind.ONLY_SOURCE}
    report = json.loads(told.read_text())
    assert report["tables"][0]["counted_rows"] == 6


@pytest.mark.parametrize(("down", "side"), [("s", "source"), ("t", "target")])
def test_a_side_that_does_not_answer_is_one_line(pair: Pair, down: str, side: str) -> None:
    """Which names it."""
    pair.down.add(down)
    result = pair.run()
    assert result.exit_code == 4
    assert result.stderr == f"error: {side}: no node answers at {down}\n"


@pytest.mark.parametrize(("where", "side"), [("s", "source"), ("t", "target")])
@pytest.mark.parametrize("command", ["compare", "cutover-check"])
def test_a_side_with_another_partitioner_is_one_line(
    pair: Pair, where: str, side: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokens are others: nothing can be compared."""

    async def ring() -> Ring:
        return Ring("old", "org.apache.cassandra.dht.RandomPartitioner", nodes())

    monkeypatch.setattr(pair.clusters[where], "ring", ring)
    words = [command, "--hosts", "s", "--target-hosts", "t", "--quiet"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"error: {side}: the cluster uses RandomPartitioner; only Murmur3Partitioner can")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("where", "side"), [("s", "source"), ("t", "target")])
def test_a_right_that_one_side_does_not_give_is_unknown_there(pair: Pair, where: str, side: str) -> None:
    """The other side alone proves nothing: exit code 3, and the side and the right are named."""
    missing = {node.name: ReplicaForbidden("our role has no SELECT permission", node) for node in nodes()}
    pair.clusters[where].broken = missing
    result = pair.run()
    assert result.exit_code == 3
    assert f"{side} 10.0.0.1:9042" in result.stdout
    assert "no SELECT permission" in result.stdout


def test_a_wrong_name_and_a_wrong_option_exit_2(pair: Pair) -> None:
    """One line each."""
    assert pair.run("shop.orders=shop2.orders").stderr.startswith("error: target: there is no keyspace 'shop2'")
    for words, said in (
        (("--target-dc", "dc9"), "--target-dc dc9: the target has no such data centre"),
        (("--tolerate-writetime", "1", "--compare", "values"), "write times are not compared"),
        (("--read", "quorum", "--locality", "traced"), "--read quorum asks many"),
        (("--seed", "1"), "--seed draws a sample again"),
        (("--sample", "1%", "--within", "5s"), "give one of the two"),
    ):
        result = pair.run(*words)
        assert result.exit_code == 2
        assert said in result.stderr


def test_a_target_must_be_named() -> None:
    """There is no default: 127.0.0.1 would be the source."""
    result = CliRunner().invoke(main, ["compare", "--hosts", "s"])
    assert result.exit_code == 2
    assert "--target-hosts" in result.stderr


def test_what_cannot_be_read_on_a_side_is_unknown(pair: Pair) -> None:
    """A replica that is away, a right that is missing: never consistent, and the side is named."""
    pair.target.broken["10.0.0.2:9042"] = ReplicaUnavailable("gone", "10.0.0.2:9042")
    result = pair.run()
    assert result.exit_code == 3
    assert "target 10.0.0.2:9042" in result.stdout
    pair.target.broken = {node.name: ReplicaForbidden("our role has no SELECT permission", node) for node in nodes()}
    result = pair.run()
    assert result.exit_code == 3
    assert "no SELECT permission" in result.stdout
    assert "target 10.0.0.1:9042" in result.stdout


def test_a_side_of_which_no_quorum_is_read_makes_no_claim(pair: Pair) -> None:
    """Two of its three replicas are away: what the third one holds is not what the cluster holds."""
    pair.everywhere(3, None, "s")
    for name in ("10.0.0.1:9042", "10.0.0.2:9042"):
        pair.clusters["s"].broken[name] = ReplicaUnavailable("gone", name)
    result = pair.run()
    assert result.exit_code == 3
    assert "kept changing or could not be read again" in result.stdout


def test_tables_that_are_not_alike_are_named_and_unknown(pair: Pair) -> None:
    """The columns that differ are told, and the reason once more where it is said what was not compared."""
    shop = pair.target.shop
    pair.target.shop = replace(shop, columns=(*shop.columns, Column("x", "regular", -1, parse_type("int", {}))))
    result = pair.run()
    assert result.exit_code == 3
    assert "column x: none in the source, int in the target" in " ".join(result.stdout.split())


def test_options_that_are_not_alike_leave_the_verdict_alone(pair: Pair) -> None:
    """They are told."""
    pair.target.shop = replace(pair.target.shop, gc_grace_seconds=5)
    result = CliRunner().invoke(main, ["compare", "--hosts", "s", "--target-hosts", "t", "--settle", "0"])
    assert result.exit_code == 0
    assert "gc_grace_seconds: 864000 in the source, 5 in the target, of shop.orders" in result.stdout


def test_a_sample_is_called_one(pair: Pair, tmp_path: Path) -> None:
    """With its bound."""
    told = tmp_path / "r.json"
    result = pair.run("--sample", "100%", "--seed", "3", "--json", str(told))
    assert result.exit_code == 0
    report = json.loads(told.read_text())
    assert report["verdict"] == "sampled"
    assert report["sample"]["bound"]["rows_read"] == 20


def test_a_quorum_is_read_through_one_node_of_each_side(pair: Pair) -> None:
    """And it is said that this may write."""
    result = CliRunner().invoke(
        main, ["compare", "--hosts", "s", "--target-hosts", "t", "--settle", "0", "--read", "quorum"]
    )
    assert result.exit_code == 0, result.output
    assert "read repair may have written" in result.stdout


def test_the_library_compares_and_hands_over_findings(pair: Pair) -> None:
    """As the command does."""
    pair.everywhere(3, None)
    taken: list[Any] = []
    options = CompareOptions(settle_window_s=0.0)
    result = consistency.compare("shop", hosts="s", target_hosts="t", options=options, take=taken.append)
    assert isinstance(result, Comparison)
    assert result.verdict is Verdict.DIVERGENT
    assert [each.kind for each in taken] == [PairKind.ONLY_SOURCE]
    assert result.top == tuple(taken)
    with pytest.raises(UsageError, match="target_hosts or target_settings"):
        consistency.compare(hosts="s", target_hosts="t", target_settings=consistency.ConnectionSettings())


# Files and names.


def test_a_findings_file_of_two_clusters_is_no_findings_file_of_one(pair: Pair, tmp_path: Path) -> None:
    """A repair would take its rows for those of one cluster; and the other way round."""
    path, other = tmp_path / "f.jsonl", tmp_path / "g.jsonl"
    pair.everywhere(3, None)
    pair.run("--findings", str(path))
    with pytest.raises(UsageError, match="is a findings file of two clusters"):
        list(read_findings(path))
    other.write_text('{"schema":1,"type":"findings"}\n')
    with pytest.raises(UsageError, match="it is a findings file"):
        read_pair_header(other)
    assert pair.run("--findings", str(path)).exit_code == 1  # it is replaced
    broken = path.read_text().replace('"only_source"', '"only_sauce"')
    path.write_text(broken)
    with pytest.raises(UsageError, match="line 2 is not a finding"):
        list(read_compared(path))
    path.write_text(broken.splitlines()[0].replace('"compare"', '"compere"') + "\n")
    with pytest.raises(UsageError, match="line 1 is not the header of a comparison"):
        read_pair_header(path)


def test_an_error_says_its_side() -> None:
    """And keeps its kind, which decides the exit code."""
    with pytest.raises(ReplicaUnavailable, match=r"target: 10\.0\.0\.1:9042: gone"), naming(Side.TARGET):
        raise ReplicaUnavailable("gone", "10.0.0.1:9042")


def test_one_cluster_on_both_sides_is_asked_by_one_reader(pair: Pair) -> None:
    """Two would ask its nodes in the same lanes, where a server mixes up the hashes of two queries."""

    async def readers(target: str) -> list[Any]:
        settings = [consistency.ConnectionSettings(((host, 9042),)) for host in ("s", target)]
        async with open_pair(*settings) as opened:
            return [cluster.reader for cluster in opened]

    same, other = asyncio.run(readers("s")), asyncio.run(readers("t"))
    assert same[0] is same[1]
    assert other[0] is not other[1]


def test_a_table_is_not_compared_with_itself(pair: Pair) -> None:
    """The same hosts named twice would say that a target holds everything; two data centres of one cluster may."""
    pair.clusters["t"] = pair.clusters["s"]
    for words in ((), ("shop",), ("shop.orders",), ("shop.orders=shop.orders",), ("--dc", "dc1", "--target-dc", "dc1")):
        result = pair.run(*words)
        assert result.exit_code == 2, result.output
        assert "source and target are one cluster, so shop.orders would be compared with itself" in result.stderr
    assert pair.run("--dc", "dc1").exit_code == 0


def test_a_cluster_that_is_reached_another_way_is_another(pair: Pair) -> None:
    """A clone of all its machines says the same addresses; where it is reached tells it from the source."""

    async def readers(addresses: dict[str, tuple[str, int]]) -> list[Any]:
        source = consistency.ConnectionSettings((("s", 9042),))
        async with open_pair(source, replace(source, addresses=addresses)) as opened:
            return [cluster.reader for cluster in opened]

    assert len({id(reader) for reader in asyncio.run(readers({"10.0.0.1": ("clone", 9042)}))}) == 2
    assert len({id(reader) for reader in asyncio.run(readers({}))}) == 1


@pytest.mark.parametrize("name", ["old", "new"])
def test_a_cluster_made_from_the_disks_of_another_is_another(pair: Pair, name: str) -> None:
    """Its nodes have the ids of the source's, and it would be said to hold what nobody asked it for."""
    moved = {node: replace(node, address=f"10.1.0.{number}") for number, node in enumerate(nodes())}
    pair.target.rows = {moved[node].name: pair.target.rows[node.name] for node in nodes()}
    pair.target.rings(Ring(name, MURMUR3, tuple(moved.values())))
    assert pair.run().exit_code == 0
    for held in pair.target.rows.values():
        held.pop(5)
    result = pair.run()
    assert result.exit_code == 1, result.output
    assert "only_source 1" in result.stdout


# Explained.


def explained(pair: Pair, path: Path, *words: str) -> Result:
    """Explain a finding of a comparison."""
    return CliRunner().invoke(main, ["explain", str(path), "--hosts", "s", "--target-hosts", "t", *words])


def test_a_row_of_two_clusters_is_explained_on_every_replica_of_both(pair: Pair, tmp_path: Path) -> None:
    """Cell by cell, with values where they are asked for; settled, where both hold the same by now."""
    path = tmp_path / "f.jsonl"
    pair.everywhere(5, Version("changed", US + 9))
    assert "consistency explain" in pair.run("--findings", str(path)).stdout
    result = explained(pair, path, "--show-values")
    assert result.exit_code == 1, result.output
    assert result.stdout.startswith("VALUE  a column has another value in the target\n  shop.orders  id=5")
    for words in ("source 10.0.0.3:9042", "target 10.0.0.2:9042", "value 5", "changed"):
        assert words in result.stdout
    assert "changed" not in explained(pair, path).stdout
    pair.everywhere(5, Version("changed", US + 9), "s")
    result = explained(pair, path)
    assert result.exit_code == 0
    assert result.stdout.startswith("SETTLED")


def test_a_row_that_one_side_lacks_is_shown_with_what_the_other_holds(pair: Pair, tmp_path: Path) -> None:
    """And that CQL shows no deletes; a side that disagrees with itself is named."""
    path = tmp_path / "f.jsonl"
    pair.everywhere(5, None)
    pair.run("--findings", str(path))
    result = explained(pair, path, "--show-values")
    assert result.exit_code == 1
    assert "ONLY SOURCE" in result.stdout
    assert "source  holds" in result.stdout
    assert "value 5" in result.stdout
    assert "target 10.0.0.2:9042 lacks the row, or has its delete" in result.stdout
    del pair.clusters["s"].rows["10.0.0.1:9042"][5]
    result = explained(pair, path)
    assert result.exit_code == 1
    assert result.stdout.startswith("TORN  the source may hold what the other side holds, or not")
    assert "the source disagrees with itself here" in result.stdout


def test_a_row_that_cannot_be_explained_is_one_line(pair: Pair, tmp_path: Path) -> None:
    """A replica that is away, a row that is not there, another cluster, a table that was dropped."""
    path = tmp_path / "f.jsonl"
    pair.everywhere(5, None)
    pair.run("--findings", str(path))
    pair.everywhere(5, Version("value 5"))
    pair.target.broken["10.0.0.2:9042"] = ReplicaUnavailable("gone", "10.0.0.2:9042")
    result = explained(pair, path)
    assert result.exit_code == 3
    assert "UNKNOWN" in result.stdout
    assert "target 10.0.0.2:9042 could not be read" in result.stdout
    pair.target.broken.clear()
    assert "holds 1 row that differs" in explained(pair, path, "--row", "2").stderr
    pair.target.rings(others("third"))
    assert "! the target of the comparison was cluster 'new'" in explained(pair, path).stdout
    pair.target.shop = replace(pair.target.shop, name="gone")
    result = explained(pair, path)
    assert result.exit_code == 2
    assert "target: cluster 'third' has no table shop.orders" in result.stderr
    pair.target.shop = replace(pair.clusters["s"].shop, columns=pair.target.shop.columns[:-1])
    assert "its columns are not the same" in explained(pair, path).stderr
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert "lists no row that differs between the clusters" in explained(pair, path).stderr


# Before the switch.


def may_switch(pair: Pair, *words: str) -> tuple[int, str, list[dict[str, str]]]:
    """Ask whether traffic may be switched; return exit code, first line and reasons."""
    given = ["cutover-check", "--hosts", "s", "--target-hosts", "t", "--settle", "0", "--quiet", "--json", "-", *words]
    result = CliRunner().invoke(main, given)
    told = json.loads(result.stdout)
    assert told["exit_code"] == result.exit_code
    assert result.stderr.splitlines()[0].split()[0].lower() == told["answer"]
    return result.exit_code, result.stderr.splitlines()[0], told["reasons"]


def test_traffic_may_be_switched_to_a_target_that_holds_the_same(pair: Pair) -> None:
    """With what is declared otherwise told, and that a sync on another machine is not known of."""
    pair.target.shop = replace(pair.target.shop, default_ttl=5)
    code, line, reasons = may_switch(pair)
    assert (code, line) == (0, "YES  the target holds exactly what the source holds: 20 rows in 1 table")
    assert [reason["kind"] for reason in reasons] == ["declared_otherwise", "sync"]


def test_traffic_may_not_be_switched_where_anything_differs(pair: Pair) -> None:
    """Rows, a cluster with itself, columns, or a table that is not there."""
    pair.everywhere(3, None)
    pair.target.rows["10.0.0.2:9042"][7] = Version("older", US - 60)
    code, line, reasons = may_switch(pair)
    assert code == 1
    assert line == "NO  shop.orders: rows differ (only_source 1) (and 1 more)"
    assert {reason["kind"] for reason in reasons} == {"rows_differ", "inner", "sync"}
    pair.target.shop = replace(pair.target.shop, name="other")
    code, line, reasons = may_switch(pair)
    assert code == 1
    assert {reason["kind"] for reason in reasons} == {"schema", "sync"}
    assert "has no table 'orders'" in str(reasons)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"up": False}, "node_down", "target 10.0.0.1:9042 does not answer"),
        ({"state": "LEAVING"}, "node_moving", "target 10.0.0.1:9042 is leaving"),
    ],
)
def test_traffic_may_not_be_switched_while_a_node_is_away(
    pair: Pair, change: dict[str, Any], kind: str, words: str
) -> None:
    """Whatever was read: a node is down, or ranges change hands."""
    ring = others("new")
    first, *rest = ring.nodes
    pair.target.rings(replace(ring, nodes=(replace(first, **change), *rest)))
    code, line, reasons = may_switch(pair)
    assert code == 1
    assert words in line
    assert reasons[0]["kind"] == kind


def test_traffic_may_not_be_switched_while_a_sync_is_under_way(pair: Pair) -> None:
    """A sync holds the lock of the cluster that it writes to, as a repair does."""
    with one_run(others("new"), kind="repair"):
        code, line, reasons = may_switch(pair)
    assert (code, reasons[0]["kind"]) == (1, "sync")
    assert line.startswith("NO  target: another repair on cluster")
    assert may_switch(pair)[0] == 0


def test_whether_traffic_may_be_switched_is_unknown_where_not_all_was_read(pair: Pair) -> None:
    """Or where the comparison took too long, or nodes disagree on a ring."""
    assert may_switch(pair, "--max-age", "0.000001")[:1] == (3,)
    doubt = Doubt("peers_disagree", "one node sees another ring", "look")
    pair.target.rings(replace(others("new"), doubts=(doubt,)))
    code, line, _ = may_switch(pair)
    assert (code, line) == (3, "UNKNOWN  target: one node sees another ring")
    pair.target.rings(others("new"))
    pair.target.broken["10.0.0.2:9042"] = ReplicaUnavailable("gone", "10.0.0.2:9042")
    code, line, _ = may_switch(pair)
    assert code == 3
    assert "digests could not be read" in line


def test_an_error_of_the_target_names_its_own_options() -> None:
    """What would mend it is said in the target's words."""
    settings = load_settings(GivenOptions(hosts="no.such.host.invalid"), {}, TARGET)
    refused = connect_error(settings, "", login=True, unknown_host=False)
    assert "CONSISTENCY_TARGET_USERNAME" in str(refused)
    unknown = connect_error(settings, "", login=False, unknown_host=True)
    assert "--target-hosts no.such.host.invalid:9042: no such host name" in str(unknown)
    untrusted = connect_error(settings, "CERTIFICATE_VERIFY_FAILED", login=False, unknown_host=False)
    assert "CONSISTENCY_TARGET_TLS_CA_FILE, or ca_file in [target] tls" in str(untrusted)
