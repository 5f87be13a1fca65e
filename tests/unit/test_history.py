"""History: the age of the oldest clean pass against gc_grace_seconds, runs, and rows that came back."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consistency.cli import main
from consistency.cli.show.terminal.console import make_console
from consistency.cli.show.terminal.history import claim, print_history
from consistency.errors import UsageError
from consistency.ledger import LedgerFile, open_ledger
from consistency.ledger.history import History, Standing, read_history
from consistency.ledger.port import RangeRead, RunFacts
from consistency.model.reading import Depth
from consistency.model.ring import MURMUR3, Replication, Ring
from consistency.model.schema import Keyspace, Table
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.results.report import Report, TableReport
from consistency.results.verdict import Coverage, ExitCode
from tests.unit.fake_cluster import nodes
from tests.unit.fake_cluster import table as make

DAY = 86_400
NOW_US = 1_800_000_000_000_000
GRACE_DAYS = 10
HALVES = TokenRange.full_ring().split(2)
NODES = nodes()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerFile]:
    """Return a new ledger."""
    with open_ledger(tmp_path / "l") as opened:
        yield opened


def ago(days: float, now_us: int = NOW_US) -> int:
    """Return a moment some days before now."""
    return now_us - int(days * DAY * 1e6)


def run(
    ledger: LedgerFile,
    days: float,
    *reads: tuple[Table, int, bool],
    tables: tuple[Table, ...] = (),
    rows: tuple[int, ...] = (),
    cluster: str = "test",
    now_us: int = NOW_US,
    end: bool = True,
    ring: Ring | None = None,
) -> None:
    """Record a run of some days ago: tables with which half of the ring was read, and whether it was clean."""
    every = {t.full_name: t for t in (*tables, *(t for t, _, _ in reads))}
    replication = Replication("NetworkTopologyStrategy", (("dc1", 3),))
    schema = {
        name: Keyspace(name, replication, {t.name: t for t in every.values() if t.keyspace == name})
        for name in {t.keyspace for t in every.values()}
    }
    recorder = ledger.recorder()
    started = ago(days, now_us)
    ring = ring or Ring(cluster, MURMUR3, NODES)
    recorder.begin(RunFacts(f"run {days}", started, ring, schema, tuple(every.values())))
    for number in rows:
        recorder.found(finding(number), Depth.CONTENT)
    for table, half, clean in reads:
        read = RangeRead(HALVES[half], ring.nodes, started, complete=True, clean=clean)
        recorder.table_read(table, Depth.CONTENT, [read], non_owners=False)
    if end:
        one = TableReport("shop", "orders", "content", "server", "node-local", 9, len(rows), 0, 1.0, Coverage(6, 6))
        kinds = {"missing": len(rows)} if rows else {}
        recorder.end(Report(f"run {days}", cluster, "", 65.0, (one,), (), kinds))
    assert not recorder.problem


def finding(number: int) -> Finding:
    """Return a finding of the first half of the ring."""
    views = {NODES[0].name: ReplicaView(State.CURRENT), NODES[1].name: ReplicaView(State.MISSING)}
    return Finding(Kind.MISSING, "shop", "orders", -5 - number, {"id": 1}, {"id": f"{number:08x}"}, views)


ORDERS = replace(make(), gc_grace_seconds=GRACE_DAYS * DAY)
CARTS = replace(make(name="carts"), gc_grace_seconds=GRACE_DAYS * DAY)


def both(table: Table) -> tuple[tuple[Table, int, bool], tuple[Table, int, bool]]:
    """Return clean reads of both halves of the ring."""
    return (table, 0, True), (table, 1, True)


def judged(ledger: LedgerFile, **options: object) -> History:
    """Return the history as of now."""
    return read_history(ledger, NOW_US, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("days", "standing", "code"),
    [
        (0.5, Standing.IN_TIME, ExitCode.CONSISTENT),
        (7.9, Standing.IN_TIME, ExitCode.CONSISTENT),
        (8.0, Standing.DUE, ExitCode.DIVERGENT),
        (9.9, Standing.DUE, ExitCode.DIVERGENT),
        (10.0, Standing.OVERDUE, ExitCode.DIVERGENT),
    ],
)
def test_the_oldest_range_is_warned_of_before_gc_grace_passes(
    ledger: LedgerFile, days: float, standing: Standing, code: ExitCode
) -> None:
    """One half was clean a moment ago; it is the other half that counts."""
    run(ledger, days, (ORDERS, 0, True))
    run(ledger, 0.1, (ORDERS, 1, True))
    found = judged(ledger)
    assert (found.standing, found.exit_code) == (standing, code)
    assert found.worst is not None
    assert found.worst.part == pytest.approx(days / GRACE_DAYS)


def test_a_range_that_was_never_clean_is_unchecked(ledger: LedgerFile) -> None:
    """Read and differing is not clean; half of the ring not read is not clean either."""
    run(ledger, 1, (ORDERS, 0, True), (ORDERS, 1, False))
    found = judged(ledger)
    assert (found.standing, found.exit_code) == (Standing.UNCHECKED, ExitCode.INCOMPLETE)
    assert found.worst is not None
    assert found.worst.known.never == pytest.approx(0.5)


def test_a_late_table_beats_an_unchecked_one(ledger: LedgerFile) -> None:
    """What is known to be late is said first, by exit code 1; a table that was only seen is unchecked."""
    run(ledger, 9, *both(ORDERS), tables=(CARTS,))
    found = judged(ledger)
    assert [(t.known.table, t.standing) for t in found.tables] == [
        ("orders", Standing.DUE),
        ("carts", Standing.UNCHECKED),
    ]
    assert found.exit_code is ExitCode.DIVERGENT
    assert judged(ledger, names=["shop.carts"]).exit_code is ExitCode.INCOMPLETE


def test_the_threshold_can_be_moved(ledger: LedgerFile) -> None:
    """Some want to know at half time."""
    run(ledger, 6, *both(ORDERS))
    assert judged(ledger, warn_at=0.5).standing is Standing.DUE
    assert judged(ledger, warn_at=0.7).standing is Standing.IN_TIME


def test_a_table_that_keeps_no_deletes_is_never_late(ledger: LedgerFile) -> None:
    """gc_grace_seconds 0: nothing to wait for, but it must have been checked."""
    none = replace(ORDERS, gc_grace_seconds=0)
    run(ledger, 300, (none, 0, True))
    assert judged(ledger).standing is Standing.UNCHECKED
    run(ledger, 300, (none, 1, True))
    assert (judged(ledger).standing, judged(ledger).tables[0].part) == (Standing.IN_TIME, None)


def test_a_lower_gc_grace_counts_from_the_run_that_saw_it(ledger: LedgerFile) -> None:
    """ALTER TABLE ... gc_grace_seconds voids no pass but changes how long it lasts."""
    run(ledger, 2, *both(ORDERS))
    run(ledger, 1, tables=(replace(ORDERS, gc_grace_seconds=DAY),))
    assert judged(ledger).standing is Standing.OVERDUE


def test_names_that_are_not_there_and_several_clusters_are_usage_errors(ledger: LedgerFile) -> None:
    """Nobody gets the history of another cluster by chance."""
    run(ledger, 1, *both(ORDERS))
    with pytest.raises(UsageError, match=r"'shop\.nosuch'"):
        judged(ledger, names=["shop.nosuch"])
    run(ledger, 1, *both(CARTS), cluster="other")
    with pytest.raises(UsageError, match="--cluster: other, test"):
        judged(ledger)
    assert [t.known.table for t in judged(ledger, cluster="other").tables] == ["carts"]
    with pytest.raises(UsageError, match="--cluster nosuch"):
        judged(ledger, cluster="nosuch")


# As it is typed and printed.


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the machine's own files and variables out."""
    for name in [n for n in os.environ if n.startswith("CONSISTENCY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def type_(*words: object) -> Result:
    """Run `consistency history`."""
    return CliRunner().invoke(main, ["history", *map(str, words)])


def eventful(ledger: LedgerFile, now_us: int) -> None:
    """Record a week with everything in it."""
    users = replace(make(keyspace="people", name="users"), gc_grace_seconds=GRACE_DAYS * DAY)
    run(ledger, 9, *both(ORDERS), *both(users), tables=(CARTS,), now_us=now_us)
    rows = tuple(range(12))
    run(ledger, 6, (ORDERS, 0, False), (ORDERS, 1, True), tables=(CARTS, users), rows=rows, now_us=now_us)
    run(ledger, 5, (ORDERS, 0, True), (ORDERS, 1, True), tables=(CARTS, users), now_us=now_us)
    run(ledger, 4, tables=(CARTS, users, ORDERS), now_us=now_us, end=False)
    run(ledger, 3, (ORDERS, 0, False), (CARTS, 0, True), tables=(users,), rows=(1, 2, 90), now_us=now_us)
    run(ledger, 0.2, (ORDERS, 1, True), tables=(CARTS, users), now_us=now_us)


def test_the_command_tells_the_story_and_returns_what_it_says(ledger: LedgerFile, tmp_path: Path) -> None:
    """Exit code 1 before gc_grace passes; counts and no keys; JSON beside the text."""
    eventful(ledger, time.time_ns() // 1000)
    result = type_("--ledger", ledger.path, "--json", tmp_path / "h.json")
    assert result.exit_code == 1, result.output
    text = " ".join(result.stdout.split())
    assert text.startswith("DUE The oldest range of people.users was last clean 9d 0h ago: 90% of gc_grace_seconds")
    assert "came back 2 rows" in text
    assert "no end" in text
    assert "consistency check people.users shop.carts" in text
    data = json.loads((tmp_path / "h.json").read_text())
    assert (data["schema"], data["standing"], data["exit_code"], len(data["runs"])) == (1, "due", 1, 6)
    orders = next(t for t in data["tables"] if t["table"] == "orders")
    assert orders["differing_rows"] == {"new": 1, "still there": 0, "came back": 2}
    assert orders["part_of_gc_grace"] == pytest.approx(0.5, abs=0.01)
    assert data["runs"][1]["rows"] == {"new": 1, "still there": 0, "came back": 2, "gone": 0}
    assert [r["ended"] for r in data["runs"]] == [True, True, False, True, True, True]


def test_it_fits_80_columns_in_plain_ascii_and_hostile_names_are_shown_harmless(ledger: LedgerFile) -> None:
    """As a log or a mail gets it."""
    hostile = replace(make(keyspace="[red]\x1b[2J", name="x" * 48), gc_grace_seconds=DAY)
    eventful(ledger, NOW_US)
    run(ledger, 0.1, tables=(hostile, *(replace(ORDERS, name=f"t{i}", table_id=f"t{i}") for i in range(30))))
    stream = io.StringIO()
    print_history(make_console(stream), judged(ledger))
    lines = stream.getvalue().replace(str(ledger.path), "ledger.sqlite").splitlines()  # commands are not broken
    assert all(len(line) <= 80 for line in lines), max(lines, key=len)
    assert stream.getvalue().isascii()
    assert "\x1b" not in stream.getvalue()
    assert "21 more tables unchecked" in stream.getvalue()


@pytest.mark.parametrize(("days", "said"), [(1, "within the last 1d 0h"), (11, "gc_grace_seconds (10d 0h) has passed")])
def test_the_claim_of_one_table(ledger: LedgerFile, days: float, said: str) -> None:
    """In time and too late, in a sentence."""
    run(ledger, days, *both(ORDERS))
    assert said in claim(judged(ledger))


def test_the_claim_counts_rows_that_differ_now_and_tables_never_checked(ledger: LedgerFile) -> None:
    """In time is about ranges and must not hide that rows differ; a table never seen clean is not one in parts."""
    run(ledger, 2, *both(ORDERS))
    run(ledger, 1, (ORDERS, 0, False), (ORDERS, 1, True), rows=(1, 2))
    assert claim(judged(ledger)).endswith("2 rows differed when last read, in shop.orders.")
    others = tuple(replace(CARTS, name=name, table_id=name) for name in ("a", "b", "c"))
    run(ledger, 0.5, tables=others)
    assert "in any run, nor all of 2 other tables" in claim(judged(ledger))
    run(ledger, 0.2, (others[1], 0, True), tables=others)
    assert "in any run, nor all or parts of 2 other tables" in claim(judged(ledger))


def test_without_a_ledger_nothing_is_in_time(tmp_path: Path) -> None:
    """None named: 2. Not there, empty or damaged: 3, in one line."""
    assert type_().exit_code == 2
    missing = tmp_path / "missing"
    assert (type_("--ledger", missing).exit_code, missing.exists()) == (3, False)
    with open_ledger(tmp_path / "empty"):
        pass
    result = type_("--ledger", tmp_path / "empty")
    assert (result.exit_code, "holds no run" in result.stderr) == (3, True)
    (tmp_path / "bad").write_bytes(b"?" * 9999)
    result = type_("--ledger", tmp_path / "bad")
    assert (result.exit_code, len(result.stderr.splitlines())) == (3, 1)
    assert "nothing counts as checked" in result.stderr
    assert (tmp_path / "bad").read_bytes() == b"?" * 9999


def test_a_ledger_that_may_not_be_read_is_unchecked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3: to a monitor that is as bad as none."""
    with open_ledger(tmp_path / "l"):
        pass

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    result = type_("--ledger", tmp_path / "l")
    assert (result.exit_code, "nothing counts as checked" in result.stderr) == (3, True)
