"""The ledger of comparisons: `compare --ledger` records them, and a cutover check takes them, but no doubtful one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import consistency
from consistency.checking.sampling import Sample
from consistency.cli import main
from consistency.cluster.clock import SystemClock
from consistency.comparing.recording import Begun
from consistency.errors import LockedError, UsageError
from consistency.ledger import ComparedPair, open_ledger
from consistency.ledger.lock import one_run
from consistency.ledger.migrate import COMPARED
from consistency.ledger.store import SCHEMA_VERSION
from consistency.model.ring import Ring
from consistency.model.schema import Keyspace
from consistency.model.servertime import ServerTime
from consistency.results.verdict import Verdict
from tests.support.pages import made_up_pair
from tests.unit.fake_cluster import US, FakeCluster, nodes, table
from tests.unit.test_comparing import Pair, may_switch, others, pair
from tests.unit.test_target_watch import both_rings
from tests.unit.test_watching import RF3

__all__ = ["pair"]

HOUR_US = 3_600_000_000
Doing = Callable[[Pair, Path], Any]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Return where a ledger may be."""
    return tmp_path / "pairs.ledger"


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Let the servers' clocks be as far ahead as `us` says."""
    shift = {"us": 0}
    now = SystemClock.server_time

    def later(clock: SystemClock) -> ServerTime:
        time = now(clock)
        return ServerTime(time.earliest_us + shift["us"], time.latest_us + shift["us"])

    monkeypatch.setattr(SystemClock, "server_time", later)
    return shift


def count_reads(cluster: FakeCluster) -> list[int]:
    """Count the digests that a cluster is asked for from now on."""
    reads: list[int] = []
    meanwhile(cluster, lambda: reads.append(1))
    return reads


def meanwhile(cluster: FakeCluster, act: Callable[[], object]) -> None:
    """Do something at each digest that a cluster is asked for."""

    async def then() -> None:
        act()

    cluster.on_digest = then


def asked(pair: Pair, path: Path, *words: str, max_age: str = "1h") -> tuple[int, str, set[str], int]:
    """Ask for a switch by a ledger: exit code, line, kinds of reasons, and how many digests the target made."""
    reads = count_reads(pair.target)
    code, line, reasons = may_switch(pair, "--ledger", str(path), "--max-age", max_age, *words)
    return code, line, {reason["kind"] for reason in reasons}, len(reads)


def recorded(pair: Pair, path: Path, *words: str) -> None:
    """Compare, and record it."""
    result = pair.run("--ledger", str(path), *words)
    assert result.exit_code == 0, result.output


def change(path: Path, statement: str, *values: object) -> None:
    """Change what a ledger holds."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement, values)


# Recorded.


def test_a_comparison_is_recorded_as_a_watch_records_it(pair: Pair, ledger: Path) -> None:
    """When it began and whether the tables were equal; a later difference leaves when they last were."""
    recorded(pair, ledger)
    with closing(sqlite3.connect(ledger)) as db:
        row = "SELECT keyspace, name, target, terms, verdict, compared_us, equal_us, placement FROM compared"
        (before,) = db.execute(row).fetchall()
        assert before[:5] == ("shop", "orders", "shop.orders", "writetimes replicas", "consistent")
        assert before[5] == before[6] > 0
        assert len(before[7]) == 32
        pair.everywhere(3, None)
        assert pair.run("--ledger", str(ledger)).exit_code == 1
        (after,) = db.execute(row).fetchall()
        assert after[4] == "divergent"
        assert after[5] > before[5]
        assert after[6] == before[6]


def test_the_library_records_a_comparison_as_the_command_does(pair: Pair, ledger: Path) -> None:
    """A switch may rest on it; a sample is refused, and a lock that another run holds is an error."""
    reach = {"hosts": "s", "target_hosts": "t"}
    options = consistency.CompareOptions(settle_window_s=0.0)
    result = consistency.compare("shop", options=options, ledger=ledger, **reach)
    assert result.verdict is Verdict.CONSISTENT
    code, _, _, reads = asked(pair, ledger)
    assert (code, reads) == (0, 0)
    with pytest.raises(UsageError, match="a sample is not entered"):
        consistency.compare("shop", options=replace(options, sample=Sample(0.5)), ledger=ledger, **reach)
    with one_run(others("new"), ledger), pytest.raises(LockedError):
        consistency.compare("shop", options=options, ledger=ledger, **reach)


def test_a_sample_is_not_recorded(pair: Pair, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor may it name a ledger; one that the environment names is for whole comparisons."""
    assert pair.run("--sample", "50%", "--ledger", str(ledger)).exit_code == 2
    monkeypatch.setenv("CONSISTENCY_LEDGER", str(ledger))
    assert pair.run("--sample", "99%").exit_code == 0
    assert not ledger.exists()
    assert pair.run().exit_code == 0
    assert ledger.exists()


def test_a_comparison_waits_for_no_lock_and_holds_both(pair: Pair, ledger: Path) -> None:
    """Exit code 5, on either side; without a ledger nothing is locked."""
    for ring in (others("new"), replace(others("old"), nodes=nodes())):
        with one_run(ring, ledger):
            assert pair.run("--ledger", str(ledger)).exit_code == 5
            assert pair.run().exit_code == 0


def test_a_comparison_that_cannot_be_recorded_does_not_pass(
    pair: Pair, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4 and one line; one that found a difference keeps its own."""
    recorded(pair, ledger)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("consistency.ledger.pairs.PairsLedger.record", full)
    result = pair.run("--ledger", str(ledger))
    assert result.exit_code == 4
    assert "could not be recorded (database or disk is full)" in result.stderr
    pair.everywhere(3, None)
    assert pair.run("--ledger", str(ledger)).exit_code == 1


def test_a_comparison_that_was_cut_off_is_not_recorded() -> None:
    """What it had read before may have changed hands since, and nobody looked."""
    shown, _ = made_up_pair(0)
    (clean,) = (each for each in shown.tables if each.report.table == "invoices")
    pair = ComparedPair(table(), table(), "writetimes replicas")
    entered: list[tuple[Any, ...]] = []

    class Kept:
        """Takes what is recorded."""

        def record(self, *given: Any) -> None:
            """Keep it."""
            entered.append(given)

    begun = Begun(7, {"shop.invoices": (pair, "there")})
    begun.enter(replace(shown, tables=(clean,), interrupted=True), Kept())
    assert entered == []
    begun.enter(shown, Kept())
    assert entered == [(pair, 7, Verdict.CONSISTENT, "there")]


def test_what_is_suggested_next_keeps_the_ledger(pair: Pair, ledger: Path) -> None:
    """Or the comparison that is made again would not be recorded."""
    pair.everywhere(3, None)
    assert f"--ledger {ledger}" in " ".join(pair.run("--ledger", str(ledger)).stdout.split())


# Taken for equal.


def test_a_table_that_was_equal_just_now_is_not_compared_again(pair: Pair, ledger: Path) -> None:
    """Its schema is looked at, and what is declared otherwise is told."""
    recorded(pair, ledger)
    pair.target.shop = replace(pair.target.shop, default_ttl=5)
    code, line, kinds, reads = asked(pair, ledger)
    assert code == 0
    assert line.startswith("YES  the target holds exactly what the source holds: 1 table by the ledger, as of ")
    assert kinds == {"recorded", "declared_otherwise", "sync"}
    assert reads == 0
    told = CliRunner().invoke(
        main,
        ["cutover-check", "--hosts", "s", "--target-hosts", "t", "--quiet", "--ledger", str(ledger), "--max-age", "1h"],
    )
    assert "it was not compared again" in " ".join(told.stdout.split())


def test_tables_of_which_nothing_is_recorded_are_compared(pair: Pair, ledger: Path) -> None:
    """And the answer rests on both: a difference in what is compared makes it no."""
    recorded(pair, ledger)
    extra = {"more": Keyspace("more", RF3, {"items": replace(table(name="items"), keyspace="more")})}
    for cluster in pair.clusters.values():
        cluster.extra = extra
    code, line, kinds, reads = asked(pair, ledger)
    assert (code, kinds) == (0, {"recorded", "sync"})
    assert "20 rows in 1 table, and 1 table by the ledger" in line
    assert reads > 0
    pair.everywhere(3, None)
    code, line, kinds, _ = asked(pair, ledger)
    assert code == 1
    assert line == "NO  more.items: rows differ (only_source 1)"


DOUBTS: dict[str, Doing] = {
    "it is stale": lambda _, path: change(path, "UPDATE compared SET compared_us = ?, equal_us = ?", US, US),
    "it was found to differ since": lambda _, path: change(
        path, "UPDATE compared SET compared_us = compared_us + 1, verdict = 'divergent'"
    ),
    "not all was read since": lambda _, path: change(
        path, "UPDATE compared SET compared_us = compared_us + 1, verdict = 'unknown'"
    ),
    "a sample of it was read": lambda _, path: change(path, "UPDATE compared SET verdict = 'sampled'"),
    "a part of it was read": lambda _, path: change(path, "UPDATE compared SET verdict = 'part'"),
    "values alone were compared": lambda _, path: change(path, "UPDATE compared SET terms = 'values replicas'"),
    "coordinators were asked": lambda _, path: change(path, "UPDATE compared SET terms = 'writetimes quorum'"),
    "one data centre was read": lambda _, path: change(path, "UPDATE compared SET terms = terms || ' dc=dc1'"),
    "its time is to come": lambda _, path: change(
        path, "UPDATE compared SET compared_us = compared_us + ?, equal_us = equal_us + ?", HOUR_US // 2, HOUR_US // 2
    ),
    "its time is far away": lambda _, path: change(
        path, "UPDATE compared SET compared_us = compared_us + ?, equal_us = equal_us + ?", 99 * HOUR_US, 99 * HOUR_US
    ),
    "it does not say where the rows lay": lambda _, path: change(path, "UPDATE compared SET placement = ''"),
    "the target is another cluster": lambda pair, _: pair.target.rings(others("third")),
    "the target's nodes are others": lambda pair, _: pair.target.rings(
        replace(others("new"), nodes=tuple(replace(n, host_id=f"x{n.host_id}") for n in others("new").nodes))
    ),
    "the target was made from its disks": lambda pair, _: moved(pair),
    "the source has other tokens": lambda pair, _: pair.clusters["s"].rings(turned(others("old"))),
    "the target replicates otherwise": lambda pair, _: setattr(pair.target, "factor", "3"),
    "the table was made anew": lambda pair, _: setattr(
        pair.target, "shop", replace(pair.target.shop, table_id="another")
    ),
}


def turned(ring: Ring) -> Ring:
    """Return a ring of the source's nodes, each with the tokens of another."""
    tokens = [node.tokens for node in nodes()]
    places = zip(nodes(), (*tokens[1:], tokens[0]), strict=True)
    return replace(ring, nodes=tuple(replace(node, tokens=held) for node, held in places))


def moved(pair: Pair) -> None:
    """Have the target's nodes at other addresses."""
    there = tuple(replace(n, address=n.address.replace("10.0.0", "10.9.0")) for n in others("new").nodes)
    pair.target.rows = dict(zip((n.name for n in there), pair.target.rows.values(), strict=True))
    pair.target.rings(replace(others("new"), nodes=there))


@pytest.mark.parametrize("doubt", list(DOUBTS))
def test_a_doubtful_record_is_no_record(pair: Pair, ledger: Path, doubt: str) -> None:
    """The table is compared again: a difference is found, and without one the answer rests on what was read."""
    recorded(pair, ledger)
    DOUBTS[doubt](pair, ledger)
    code, line, kinds, reads = asked(pair, ledger)
    assert code == 0, line
    assert "20 rows in 1 table" in line
    assert "recorded" not in kinds
    assert reads > 0
    pair.everywhere(3, None)
    assert asked(pair, ledger)[0] == 1


@pytest.mark.parametrize("words", [("--compare", "expiries"), ("--compare", "values"), ("--tolerate-writetime", "5")])
def test_a_record_of_other_terms_is_no_record(pair: Pair, ledger: Path, words: tuple[str, ...]) -> None:
    """Whichever of the two was compared, and whichever is asked for."""
    recorded(pair, ledger)
    assert asked(pair, ledger, *words)[3] > 0
    ledger.unlink()
    recorded(pair, ledger, *words)
    assert asked(pair, ledger)[3] > 0
    assert asked(pair, ledger, *words)[3] == 0


def test_a_record_ages_by_the_servers_time(pair: Pair, ledger: Path, ahead: dict[str, int]) -> None:
    """Within the time that is asked for it counts, a moment later it does not; nor if clocks were set back."""
    recorded(pair, ledger)
    ahead["us"] = HOUR_US - 60_000_000
    assert asked(pair, ledger)[3] == 0
    ahead["us"] = HOUR_US + 1_000_000
    assert asked(pair, ledger)[3] > 0
    assert asked(pair, ledger, max_age="2h")[3] == 0
    ahead["us"] = -HOUR_US // 60
    assert asked(pair, ledger)[3] > 0


def test_what_is_no_longer_proven_at_the_end_is_unknown(pair: Pair, ledger: Path, ahead: dict[str, int]) -> None:
    """A watch finds a difference, a table is made anew, or the time is over while other tables are compared."""
    changes: list[Callable[[], object]] = [
        lambda: change(ledger, "UPDATE compared SET verdict = 'divergent' WHERE name = 'orders'"),
        lambda: setattr(pair.target, "shop", replace(pair.target.shop, table_id="another")),
        lambda: ahead.update(us=2 * HOUR_US),
    ]
    for during in changes:
        ledger.unlink(missing_ok=True)
        ahead["us"] = 0
        for cluster in pair.clusters.values():
            cluster.extra = {}
        recorded(pair, ledger)
        for cluster in pair.clusters.values():
            cluster.extra = {"more": Keyspace("more", RF3, {"items": replace(table(name="items"), keyspace="more")})}
        meanwhile(pair.target, during)
        code, line, _ = may_switch(pair, "--ledger", str(ledger), "--max-age", "1h")
        assert code == 3
        assert "shop.orders: the ledger said that it was equal, and no longer proves it: ask again" in line


def test_nodes_tables_and_syncs_are_looked_at_now(pair: Pair, ledger: Path) -> None:
    """Whatever the ledger says of the rows."""
    recorded(pair, ledger)
    with one_run(others("new"), kind="repair"):
        code, _, kinds, reads = asked(pair, ledger)
    assert (code, "sync" in kinds, reads) == (1, True, 0)
    first, *rest = others("new").nodes
    pair.target.rings(replace(others("new"), nodes=(replace(first, up=False), *rest)))
    code, line, kinds, _ = asked(pair, ledger)
    assert code == 1
    assert "does not answer" in line
    pair.target.rings(others("new"))
    pair.target.extra = {"more": Keyspace("more", RF3, {"items": table(name="items")})}
    code, line, kinds, _ = asked(pair, ledger)
    assert (code, kinds) == (1, {"schema", "recorded", "sync"})
    pair.target.extra = {}
    pair.target.shop = replace(pair.target.shop, columns=pair.target.shop.columns[:-1])
    assert asked(pair, ledger)[0] == 1


def test_a_ledger_that_is_not_there_or_damaged_is_one_line(pair: Pair, ledger: Path) -> None:
    """Exit code 3, and it is not begun; without a time nothing can be told; the environment names none."""
    for words, code, said in (
        (("--ledger", str(ledger), "--max-age", "1h"), 3, "there is no ledger"),
        (("--ledger", str(ledger)), 2, "say with --max-age"),
    ):
        given = ["cutover-check", "--hosts", "s", "--target-hosts", "t", "--quiet", *words]
        result = CliRunner().invoke(main, given)
        assert result.exit_code == code
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not ledger.exists()
    recorded(pair, ledger)
    change(ledger, "UPDATE compared SET verdict = 'perhaps'")
    given = ["cutover-check", "--hosts", "s", "--target-hosts", "t", "--quiet", "--ledger", str(ledger)]
    result = CliRunner().invoke(main, [*given, "--max-age", "1h"])
    assert result.exit_code == 3
    assert "cannot be read (what it holds of two clusters is damaged), so it proves nothing" in result.stderr


def test_no_ledger_is_taken_that_was_not_asked_for(pair: Pair, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a comparison gets one."""
    recorded(pair, ledger)
    monkeypatch.setenv("CONSISTENCY_LEDGER", str(ledger))
    reads = count_reads(pair.target)
    assert may_switch(pair, "--max-age", "1h")[0] == 0
    assert reads


def test_a_ledger_of_before_proves_nothing_and_keeps_what_it_knows(ledger: Path) -> None:
    """Where the rows lay was not kept: the tables are compared again."""
    with open_ledger(ledger):
        pass
    change(ledger, "DROP TABLE compared")
    change(ledger, "DROP TABLE pairs")
    for statement in COMPARED.split(";"):
        change(ledger, statement)
    row = "INSERT INTO compared VALUES (1, 'shop', 'orders', 'shop.orders', 'writetimes replicas', 'i', 5, 5, ?)"
    change(ledger, row, "consistent")
    change(ledger, "PRAGMA user_version = 5")
    with open_ledger(ledger) as file:
        assert file.pairs(*both_rings().values())
    with closing(sqlite3.connect(ledger)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert db.execute("SELECT equal_us, placement FROM compared").fetchall() == [(5, "")]
