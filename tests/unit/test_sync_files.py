"""The files of a sync: believed only as written, and cut anywhere they read as what had happened until then."""

from __future__ import annotations

import asyncio
import io
import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from consistency.cli import main
from consistency.cli.show.terminal.console import make_console
from consistency.comparing.terms import Compare, Terms
from consistency.errors import LockedError, UsageError
from consistency.model.reading import Cell, RowState
from consistency.model.ring import MURMUR3, Ring
from consistency.model.sides import Side
from consistency.results.verdict import ExitCode
from consistency.rows.names import RowRef
from repair import read_sync_plan
from repair.cli.show import print_preview
from repair.cli.show_sync import plan_exit, print_sync_plan, print_sync_record, what_is_done
from repair.keeping.entries import Entry, Fate, Outcome
from repair.keeping.entries import Result as Came
from repair.keeping.files import SYNC_JOURNAL
from repair.sync.cases import PairRef
from repair.sync.decide import Action, Rule
from repair.sync.guards import require_clusters
from repair.sync.journal import SyncJournal, read_sync_journal
from repair.sync.planfile import PlanWriter, SideGround, SyncHeader, SyncPlan, SyncRow
from repair.sync.policy import Direction, Extra, SyncPolicy
from repair.sync.undo import preview
from tests.unit.fake_cluster import nodes

pytestmark = pytest.mark.usefixtures("no_settings_of_this_machine")

POLICY = SyncPolicy(Direction.TO_TARGET, Extra.DELETE, Terms(Compare.VALUES), 2.5)
GROUNDS = {side: SideGround(f"{side}-cluster", f"ring-{side}", frozenset({f"h-{side}"})) for side in Side}
STATE = RowState((Cell(b"\xff", 5, 9), Cell(None)))
DECIDED = (
    (Rule.MISSING, Action.WRITE),
    (Rule.EXTRA_ROW, Action.DELETE),
    (Rule.NEWER, Action.NONE),
    (Rule.SAME, Action.NONE),
    (Rule.WAITS, Action.NONE),
)


def row_of(number: int) -> SyncRow:
    """Return one row of a plan."""
    rule, action = DECIDED[number % len(DECIDED)]
    ref = RowRef("ks", "t", number, {"id": f"{number:08x}"}, {"id": number})
    return SyncRow(PairRef.of(ref, ("ks2", "t")), rule, action, "why", dict.fromkeys(Side, "d"), dict.fromkeys(Side, 3))


def planned(folder: Path, rows: int = 5) -> SyncPlan:
    """Write a plan."""
    header = SyncHeader("run", "compared", "2026", "0.1", POLICY, "salt", GROUNDS)
    with PlanWriter(folder / "plan", header) as writer:
        for number in range(rows):
            writer.add(row_of(number))
        writer.summary.tables[Side.SOURCE]["ks.t"] = "fp"
        writer.summary.unread["a range could not be read"] += 2
        writer.summary.warnings.append("clocks differ")
        return writer.end()


def test_a_plan_reads_back_as_it_was(tmp_path: Path) -> None:
    """What is written is read, row by row; the file is for its owner alone, and no part of another is left."""
    made = planned(tmp_path)
    assert read_sync_plan(made.path) == made
    assert list(read_sync_plan(made.path).rows()) == [row_of(n) for n in range(5)]
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]
    assert made.ground(Side.SOURCE).tables == {"ks.t": "fp"}
    assert (made.summary.to_do, made.summary.deletes) == (2, 1)


def test_every_cut_and_every_changed_byte_is_refused(tmp_path: Path) -> None:
    """No truncation and no single changed byte of a plan is accepted."""
    raw = planned(tmp_path, 2).path.read_bytes()
    path = tmp_path / "cut"
    path.touch(0o600)
    for end in (*range(0, len(raw), 7), len(raw) - 1):
        path.write_bytes(raw[:end])
        with pytest.raises(UsageError):
            read_sync_plan(path)
    for at in range(0, len(raw), 3):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(UsageError):
            read_sync_plan(path)


def test_a_plan_takes_the_place_of_a_plan_alone(tmp_path: Path) -> None:
    """Pre-images are not to be had again: nothing but the plan of a sync is replaced, and a failed one leaves it."""
    made = planned(tmp_path)
    planned(tmp_path, 2)
    (tmp_path / "other").write_text("keep me")
    with pytest.raises(UsageError, match="is not the plan of a sync"):
        PlanWriter(tmp_path / "other", made.header)
    with pytest.raises(UsageError, match="name a file in a directory"):
        PlanWriter(tmp_path / "nowhere" / "plan", made.header)
    with pytest.raises(UsageError, match="not a regular file"):
        PlanWriter(tmp_path, made.header)
    with pytest.raises(RuntimeError), PlanWriter(made.path, made.header):
        raise RuntimeError
    assert read_sync_plan(made.path).summary.rows == 2
    assert {path.name for path in tmp_path.iterdir()} == {"plan", "other"}


def journaled(folder: Path) -> tuple[Path, list[int]]:
    """Write a journal of every kind of line; return it, with where it ended after each."""
    path = folder / "journal"
    ends: list[int] = []

    async def write() -> None:
        journal, record = SyncJournal.begin(path, planned(folder))
        assert record.open_rows == 5
        before = {"h1": None, "h2": STATE}
        for line in (
            journal.intent(0, before),
            journal.outcome(0, Outcome(Came.REFUSED, "busy", before, Fate.UNKNOWN)),
            journal.intent(0, {"h1": STATE, "h2": STATE}),
            journal.outcome(0, Outcome(Came.VERIFIED, "", {"h1": STATE}, Fate.DONE, frozenset({"h1"}))),
            journal.outcome(2, Outcome(Came.LEFT, "newer")),
            journal.intent(1, before),
            journal.undoing(0, 77),
            journal.undone(0, Came.UNDONE, "back"),
        ):
            await line
            ends.append(path.stat().st_size)
        journal.close()

    asyncio.run(write())
    return path, ends


def test_a_journal_cut_anywhere_reads_as_what_had_happened(tmp_path: Path) -> None:
    """A kill takes what was not written yet, and nothing before it."""
    path, ends = journaled(tmp_path)
    raw = path.read_bytes()
    whole = read_sync_journal(path)
    entry = whole.entry(0)
    assert entry.before == {"h1": None, "h2": STATE}, "the first pre-image is the true one"
    assert (entry.result, entry.undo, entry.undoing_us) == (Came.VERIFIED, Came.UNDONE, 77)
    assert (list(whole.begun), whole.ended, whole.open_rows) == ([0, 1], 2, 3)
    assert whole.entry(4) == Entry()
    assert whole.deletes_begun() == 1
    start = ends[0] - len(raw.splitlines(keepends=True)[-8])
    cut = tmp_path / "cut"
    cut.touch(0o600)
    for end in range(start, len(raw), 11):
        cut.write_bytes(raw[:end])
        assert read_sync_journal(cut).length == max(at for at in (start, *ends) if at <= end)
    cut.write_bytes(raw[: ends[2]])
    found = read_sync_journal(cut)
    assert (found.is_open(0), found.entry(0).result) == (True, None), "nothing is known yet of the second attempt"
    assert found.account(with_open=False).rows == 0
    cut.write_bytes(raw[: start - 5])
    with pytest.raises(UsageError, match="nothing was begun"):
        read_sync_journal(cut)


def test_a_changed_byte_of_a_journal_is_refused(tmp_path: Path) -> None:
    """An undo would write it."""
    path, ends = journaled(tmp_path)
    raw = path.read_bytes()
    for at in range(ends[0], len(raw) - 1, 11):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(UsageError, match="is damaged; nothing after it can be trusted"):
            read_sync_journal(path)
    older = raw.replace(b'{"schema":2', b'{"schema":1', 1)
    path.write_bytes(older[: ends[-1]].replace(b'"reason":"busy"', b'"reason":"late"'))
    assert read_sync_journal(path).check is None, "an older one has no checksums: it is believed"


@pytest.mark.parametrize("line", [b"{}\n", b'{"intent":9,"before":{}}\n', b'{"outcome":0}\n', b"[]\n", b"x\n"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    """Nothing after it can be trusted, so nothing is done."""
    path, _ = journaled(tmp_path)
    with path.open("ab") as file:
        file.write(line)
    with pytest.raises(UsageError, match="line 9 after the plan is damaged"):
        read_sync_journal(path)


def test_one_run_writes_a_journal(tmp_path: Path) -> None:
    """A second one is refused, and a journal is never written over."""
    path, _ = journaled(tmp_path)
    journal, _ = SyncJournal.go_on(path)
    with pytest.raises(LockedError):
        SyncJournal.go_on(path)
    with pytest.raises(UsageError, match="'sync resume"):
        SyncJournal.begin(path, read_sync_plan(tmp_path / "plan"))
    journal.close()


def said(console_of: Any, *given: Any, **more: Any) -> str:
    """Return what is printed."""
    stream = io.StringIO()
    console_of(make_console(stream), *given, **more)
    return stream.getvalue()


def test_a_plan_and_what_came_of_it_are_printed(tmp_path: Path) -> None:
    """Rules, what is left and why, keys on demand with deletes first, and what came of it."""
    path, _ = journaled(tmp_path)
    record = read_sync_journal(path)
    text = said(print_sync_plan, record.plan, keys=True)
    assert "5 rows, 2 to act on, 2 left alone" in text
    assert "warning: clocks differ" in text
    assert "2 rows not read: a range could not be read" in text
    assert [line.split()[1] for line in text.splitlines() if "->" in line][:2] == ["id=1", "id=0"]
    assert plan_exit(record.plan) is ExitCode.DIVERGENT
    assert what_is_done(record.plan).startswith("Write cells of 1 row and DELETE what only the target holds of 1 row")
    told = said(print_sync_record, record)
    assert "not complete: continue with 'sync resume'" in told
    assert "1 undone" in told
    assert "left alone: the run ended" not in said(print_preview, preview(record))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Neither while a plan is written nor while it or its journal is read: a row takes tens of bytes."""
    tracemalloc.start()
    made = planned(tmp_path, 20_000)
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    journal, record = SyncJournal.begin(tmp_path / "journal", made)
    journal.close()
    assert sum(row.action is Action.WRITE for row in record.plan.rows()) == 4_000
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (written < 1_000_000, read < 4_000_000) == (True, True), (written, read)


def rings(**names: str) -> dict[Side, Ring]:
    """Return the rings of two clusters of these names."""
    return {side: Ring(names[side.value], MURMUR3, nodes(1)) for side in Side}


def test_files_of_other_clusters_are_refused() -> None:
    """Swapped, of another name, or of the same name and other nodes: each is one line that says what to do."""
    found = rings(source="a", target="b")
    told: Mapping[Side, tuple[str, str]] = {side: (ring.cluster, ring.fingerprint) for side, ring in found.items()}
    require_clusters(told, found, "f")
    with pytest.raises(UsageError, match="the other way round"):
        require_clusters(told, rings(source="b", target="a"), "f")
    with pytest.raises(UsageError, match="is of a target called 'b', this is 'c'"):
        require_clusters(told, rings(source="a", target="c"), "f")
    with pytest.raises(UsageError, match="a source with another ring"):
        require_clusters({**told, Side.SOURCE: ("a", "x")}, found, "f")


def invoke(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["sync", *arguments], catch_exceptions=False)


def test_the_command_refuses_what_is_no_file_of_its_own(tmp_path: Path) -> None:
    """Findings of a check, plans and journals of a repair, and the other way: one line and exit code 2."""
    made, (journal, _) = planned(tmp_path), journaled(tmp_path)
    check = tmp_path / "findings"
    check.write_text(json.dumps({"schema": 1, "type": "findings"}) + "\n")
    other = tmp_path / "repair-plan"
    other.write_text('{"schema":1,"type":"repair-plan"}\n')
    for path in (check, other):
        path.chmod(0o600)
    to = ("--target-hosts", "127.0.0.9")
    cases = (
        (("plan", str(check), "-o", "x", *to), "is not a findings file of two clusters"),
        (("apply", str(other), "--journal", "x", *to), "it is a repair plan, for 'repair apply'"),
        (("apply", str(journal), "--journal", "x", *to), "it is the journal of a sync, for 'sync resume'"),
        (("apply", str(made.path), "--journal", str(journal), *to), "exists: continue it with 'sync resume"),
        (("apply", str(made.path), "--journal", str(tmp_path / "new"), *to), "no one is at the terminal"),
        (("resume", str(made.path), *to), "is not the journal of a sync"),
        (("undo", str(tmp_path / "none"), *to), "cannot read"),
        (("show", str(check)), "is not the plan of a sync"),
    )
    for arguments, words in cases:
        result = invoke(*arguments)
        assert (result.exit_code, words in result.output) == (2, True), result.output
    assert not SYNC_JOURNAL.is_of(made.path)


def test_show_and_a_dry_run_contact_nobody(tmp_path: Path) -> None:
    """What a plan would do, what came of it, and what an undo would do."""
    made, (journal, _) = planned(tmp_path), journaled(tmp_path)
    assert invoke("show", str(made.path)).exit_code == 0
    assert invoke("show", str(journal)).exit_code == ExitCode.INCOMPLETE
    result = invoke("undo", str(journal), "--dry-run", "--target-hosts", "127.0.0.9")
    assert result.exit_code == 0
    assert "not changed" in result.output or "left alone" in result.output
