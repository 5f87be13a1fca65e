"""One finding explained: what every replica holds now, who wins, by which rule, and whether it still differs."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from consistency.checking.run import run_check
from consistency.checking.tasks import CheckOptions
from consistency.cli.show.terminal.console import make_console
from consistency.cli.show.terminal.rowview import ValueText, print_row, stand_in, value_text
from consistency.cluster.clock import SystemClock
from consistency.errors import ReplicaUnavailable, UsageError
from consistency.model.reading import Cell
from consistency.model.ring import Node, Replication
from consistency.model.schema import Keyspace
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.rows.evidence import Evidence
from consistency.rows.explain import Chosen, Explanation, choose_finding, decided_by, explain
from consistency.rows.reconcile import EMPTY, contest
from tests.unit.fake_cluster import TOKEN_STEP, US, FakeCluster, Version, nodes, port, table

MINUTE_US = 60_000_000
HOSTILE = "\x1b[2J[bold]\u202e"


def found_in(cluster: FakeCluster, path: Path) -> Chosen:
    """Check the cluster and return its first finding."""
    options = CheckOptions(findings=path, settle_window_s=0)
    asyncio.run(run_check(port(cluster), SystemClock(), options))
    return choose_finding(path, 1)


def explained(cluster: FakeCluster, chosen: Chosen) -> Explanation:
    """Explain a finding."""
    return asyncio.run(explain(port(cluster), SystemClock(), chosen))


def shown(chosen: Chosen, found: Explanation, show: ValueText = value_text) -> str:
    """Return what is printed."""
    stream = io.StringIO()
    print_row(make_console(stream), chosen, found, ["consistency repair plan", "f"], show=show)
    return stream.getvalue()


def damaged(version: Version | None) -> FakeCluster:
    """Return a cluster whose third replica holds another version of row 4, or none."""
    cluster = FakeCluster().fill(6)
    if version is None:
        del cluster.rows["10.0.0.3:9042"][4]
    else:
        cluster.rows["10.0.0.3:9042"][4] = version
    return cluster


@pytest.mark.parametrize(
    ("version", "kind", "rule"),
    [
        (Version("newer", US + MINUTE_US), Kind.STALE, "newer write time"),
        (Version("zzz"), Kind.TIE, "same write time, greater value"),
        (Version("aaa", ttl=3600), Kind.TIE, "same write time, later expiry"),
        (Version("value 4", ttl=3600), Kind.EXPIRY, "same write time, later expiry"),
    ],
)
def test_each_rule_is_named_and_its_winner_marked(tmp_path: Path, version: Version, kind: Kind, rule: str) -> None:
    """The third replica wins each time, and the others are behind."""
    cluster = damaged(version)
    chosen = found_in(cluster, tmp_path / "f")
    found = explained(cluster, chosen)
    text = shown(chosen, found)
    assert (found.facts[0], int(found.exit_code)) == (kind, 1)
    assert f"decided by: {rule}" in text
    assert [line.split()[-1] for line in text.splitlines() if "2023-11-14" in line] == ["loses", "loses", "wins"]
    assert "x 10.0.0.1:9042 is behind in v" in text
    assert "= 10.0.0.3:9042 is up to date" in text


def test_no_winner_is_marked_where_no_write_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a counter, and before 5.0 of a collection: the greater value may be the older one."""
    cluster = damaged(Version("zzz"))
    chosen = found_in(cluster, tmp_path / "f")
    found = explained(cluster, chosen)
    columns = tuple(replace(column, writetime=False) for column in found.evidence.columns)
    monkeypatch.setattr(Evidence, "columns", columns)
    text = shown(chosen, found)
    assert "not decided here: the servers tell no write time of it" in text
    assert not {"wins", "loses", "x", "="} & set(text.split())
    assert all(f"? 10.0.0.{n}:9042 may be behind in v" in text for n in (1, 2, 3))


def test_a_missing_row_names_who_lacks_it(tmp_path: Path) -> None:
    """And says that a delete would look the same."""
    cluster = damaged(None)
    chosen = found_in(cluster, tmp_path / "f")
    text = shown(chosen, explained(cluster, chosen))
    assert text.startswith("MISSING  a replica lacks a row that others hold")
    assert "x 10.0.0.3:9042 lacks the row" in text
    assert "= 10.0.0.1:9042 holds the row" in text
    assert "CQL does not show deletes" in text
    assert "consistency repair plan f" in text


def test_a_row_that_most_replicas_do_not_have_is_marked_on_no_side(tmp_path: Path) -> None:
    """The two may have missed a write, or know of the delete that the third one missed."""
    cluster = damaged(None)
    chosen = found_in(cluster, tmp_path / "f")
    cluster.rows["10.0.0.2:9042"].pop(4)
    text = shown(chosen, explained(cluster, chosen))
    assert "? 10.0.0.1:9042 holds the row" in text
    assert "? 10.0.0.2:9042 lacks the row, or has its delete" in text
    assert "? 10.0.0.3:9042 lacks the row, or has its delete" in text


def test_a_row_that_agrees_now_is_settled(tmp_path: Path) -> None:
    """Exit code 0 and no plan to make."""
    cluster = damaged(None)
    chosen = found_in(cluster, tmp_path / "f")
    found = explained(cluster.fill(6), chosen)
    text = shown(chosen, found)
    assert int(found.exit_code) == 0
    assert text.startswith("SETTLED  the row is now the same on every replica")
    assert "repair plan" not in text


def test_a_row_that_is_gone_everywhere_is_settled(tmp_path: Path) -> None:
    """Deleted meanwhile."""
    cluster = damaged(None)
    chosen = found_in(cluster, tmp_path / "f")
    for rows in cluster.rows.values():
        rows.pop(4, None)
    found = explained(cluster, chosen)
    assert int(found.exit_code) == 0
    assert "no replica has the row any more" in shown(chosen, found)


def test_agreement_without_every_replica_is_unknown(tmp_path: Path) -> None:
    """A replica that does not answer may be the one that differs."""
    cluster = damaged(None)
    chosen = found_in(cluster, tmp_path / "f")
    cluster.broken["10.0.0.3:9042"] = ReplicaUnavailable("down", "10.0.0.3:9042")
    found = explained(cluster, chosen)
    assert int(found.exit_code) == 3
    assert "? 10.0.0.3:9042 could not be read: down" in shown(chosen, found)


def test_a_write_time_in_the_future_is_wrong_though_all_agree(tmp_path: Path) -> None:
    """It stays a finding until that time."""
    cluster = FakeCluster().fill(3)
    ahead = SystemClock().now_us() + 60 * MINUTE_US
    for rows in cluster.rows.values():
        rows[1] = Version("odd", ahead)
    chosen = found_in(cluster, tmp_path / "f")
    found = explained(cluster, chosen)
    assert (found.facts, int(found.exit_code)) == ((Kind.FUTURE_WRITE_TIME,), 1)
    text = shown(chosen, found)
    assert "FUTURE WRITE TIME" in text
    assert "no write or delete with a correct write time can replace it" in text


def test_values_are_shown_only_when_asked_for(tmp_path: Path) -> None:
    """Else four digits tell equal from unequal."""
    cluster = damaged(Version("secret", US + MINUTE_US))
    chosen = found_in(cluster, tmp_path / "f")
    found = explained(cluster, chosen)
    hidden = shown(chosen, found, partial(stand_in, 1))
    assert "secret" in shown(chosen, found)
    assert "secret" not in hidden
    prints = [line.split("#")[1].split()[0] for line in hidden.splitlines() if " B #" in line]
    assert (prints[0] == prints[1], prints[0] == prints[2]) == (True, False)


def test_hostile_text_cannot_reach_the_terminal(tmp_path: Path) -> None:
    """Neither a value nor a column's name moves the cursor or is read as markup."""
    cluster = FakeCluster(shop=table(value=HOSTILE)).fill(3)
    cluster.rows["10.0.0.3:9042"][1] = Version(HOSTILE, US + MINUTE_US)
    chosen = found_in(cluster, tmp_path / "f")
    text = shown(chosen, explained(cluster, chosen))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count("\\x1b[2J[bold]\\u202e") >= 2


def test_lines_fit_80_columns(tmp_path: Path) -> None:
    """With an expiry column too."""
    cluster = damaged(Version("x" * 500, ttl=3600))
    chosen = found_in(cluster, tmp_path / "f")
    text = shown(chosen, explained(cluster, chosen))
    assert max(map(len, text.splitlines())) <= 80
    assert "(500 bytes)" in text.replace("\n", "").replace(" ", "").replace("500bytes", "500 bytes")


def test_a_static_row_is_named_by_its_partition_key() -> None:
    """A key without clustering columns asks for the static cells."""
    cluster = FakeCluster(shop=table(clustering="c")).fill(6)
    cluster.rows["10.0.0.3:9042"][4] = Version("other", US + MINUTE_US)
    found = explained(cluster, chosen_by_hand(finding_of(4)))
    assert found.name.static
    assert [column.column.name for _, column, _ in found.contested()] == ["s"]


def test_a_row_on_a_non_owner_is_read_there_too() -> None:
    """With NODE_LOCAL it shows; without, it is unknown."""
    cluster = FakeCluster(node_count=4).fill(6)
    finding = finding_of(4, kind=Kind.NON_OWNER, held_by=nodes(4))
    found = explained(cluster, chosen_by_hand(finding))
    assert found.facts == (Kind.NON_OWNER,)
    assert "holds the row and does not own its token range" in shown(chosen_by_hand(finding), found)
    (stranger,) = found.non_owners
    del cluster.rows[stranger.name][4]
    assert int(explained(cluster, chosen_by_hand(finding)).exit_code) == 0
    cluster.node_local = False
    assert int(explained(cluster, chosen_by_hand(finding)).exit_code) == 3


def finding_of(number: int, *, kind: Kind = Kind.STALE, held_by: tuple[Node, ...] = ()) -> Finding:
    """Return a finding about one row of the fake table."""
    return Finding(
        kind=kind,
        keyspace="shop",
        table="orders",
        token=number * TOKEN_STEP,
        key={"id": number},
        key_hex={"id": number.to_bytes(4, "big").hex()},
        replicas={node.name: ReplicaView(State.CURRENT, host_id=node.host_id) for node in held_by},
    )


def chosen_by_hand(finding: Finding) -> Chosen:
    """Return the only finding of a file of another ring."""
    return Chosen(finding, 1, 1, {"cluster": "test", "ring": "another"})


def drop_table(cluster: FakeCluster) -> None:
    """Replace the keyspace's table."""
    cluster.shop = table(name="other")


def unreplicate(cluster: FakeCluster) -> None:
    """Make the keyspace local."""
    local = Replication.parse({"class": "LocalStrategy"})
    cluster.extra = {"shop": Keyspace("shop", local, {"orders": cluster.shop})}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_table, "has no table shop.orders: it was dropped, or the findings are another cluster's"),
        (unreplicate, "keyspace shop is no longer replicated"),
    ],
)
def test_what_is_gone_is_said_in_one_line(change: Callable[[FakeCluster], None], said: str) -> None:
    """The way out too."""
    cluster = FakeCluster().fill(3)
    change(cluster)
    with pytest.raises(UsageError, match=said):
        explained(cluster, chosen_by_hand(finding_of(1)))


def test_another_key_than_when_it_was_checked_is_said() -> None:
    """Bytes of another key would address another row."""
    finding = finding_of(1)
    other = Finding(**{**{f: getattr(finding, f) for f in finding.__slots__}, "key_hex": {"other": "00"}})
    with pytest.raises(UsageError, match="another primary key"):
        explained(FakeCluster().fill(3), chosen_by_hand(other))


def test_another_ring_or_cluster_is_warned_of() -> None:
    """The file may be old, or of another place."""
    cluster = FakeCluster().fill(3)
    assert "ring has changed" in explained(cluster, chosen_by_hand(finding_of(1))).warnings[0]
    cluster = FakeCluster(cluster="elsewhere").fill(3)
    assert "this is 'elsewhere'" in explained(cluster, chosen_by_hand(finding_of(1))).warnings[0]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "is empty"),
        (["{}"], "is not a findings file"),
        (["[1]"], "is not a findings file"),
        (["nonsense"], "not JSON"),
        ([json.dumps({"type": "findings", "schema": 99})], "schema 99"),
        ([json.dumps({"type": "findings", "schema": 1})], "holds no finding"),
        ([json.dumps({"type": "findings", "schema": 1}), "{}"], "line 2 is not a finding"),
    ],
)
def test_a_file_that_is_no_findings_file_is_said_in_one_line(tmp_path: Path, lines: list[str], said: str) -> None:
    """Which line, and what to do."""
    path = tmp_path / "f"
    path.write_text("".join(line + "\n" for line in lines))
    path.chmod(0o600)
    with pytest.raises(UsageError, match=said):
        choose_finding(path, 1)


def test_a_lone_cell_is_told_from_a_newer_one() -> None:
    """Nothing was overwritten: the others have no cell, or a delete that CQL does not show."""
    versions = {"a": Cell(b"x", 5), "b": EMPTY}
    assert decided_by(contest(versions), list(versions.values()), multicell=False) == "only holder"
    versions = {"a": Cell(b"x", (5, 6)), "b": Cell(b"y", (5,))}
    assert decided_by(contest(versions), list(versions.values()), multicell=True) == "merged element by element"
    versions = {"a": Cell(b"x", 5), "b": Cell(b"x", 5)}
    assert decided_by(contest(versions), list(versions.values()), multicell=False) == "the same everywhere"
