"""Plan files are believed only as written; a journal cut anywhere reads as what had happened until then."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from consistency.cli.show.terminal.console import make_console
from consistency.errors import LockedError, UsageError
from consistency.model.reading import Cell, RowState
from consistency.results.json_lines import KNOWN_FILES
from consistency.rows.names import RowRef
from repair.cli.show import print_plan
from repair.deciding.copies import state_from_json, state_json
from repair.deciding.decide import Action, Rule
from repair.deciding.policy import Policy, Zombies
from repair.keeping.entries import Entry, Fate, Outcome, Result
from repair.keeping.files import FORMATS, REPAIR_JOURNAL, REPAIR_PLAN, json_line
from repair.keeping.journal import Journal, JournalError
from repair.keeping.planfile import Plan, PlannedRow, parse_plan, read_plan, write_plan
from repair.keeping.record import Record, parse_journal, read_journal
from repair.undoing.undo import Proof, Undoing, preview, proof, unproven

STATE = RowState((Cell(b"\xff", 5, 9), Cell(None), Cell(b"", (1, None), (None, 7))))


def plan_of(rows: int = 3) -> Plan:
    """Return a plan."""
    made = tuple(
        PlannedRow(
            RowRef("ks", "t", n, {"id": f"{n:08x}"}, {"id": n}),
            Rule.TIE,
            Action.RECONCILE,
            "why",
            {"h": "d"},
            (),
            {"dc1": (3, 3)},
        )
        for n in range(rows)
    )
    return Plan(
        "run", "check", "2026", "0.1", "c", "ring", {"ks.t": "fp"}, Policy(Zombies.PURGE, settle_s=2.5), "salt", made
    )


def test_a_plan_reads_back_as_it_was(tmp_path: Path) -> None:
    """What is written is read; the file is for its owner alone."""
    path = tmp_path / "plan"
    write_plan(path, plan_of())
    assert read_plan(path) == plan_of()
    assert path.stat().st_mode & 0o777 == 0o600


def test_keys_are_shown_as_people_read_them_and_deletes_come_first() -> None:
    """A plan of an earlier version tells only the bytes; neither form moves the cursor."""
    last = replace(plan_of(1).rows[0], action=Action.PURGE, ref=RowRef("ks", "t", 9, {"id": "0a1b"}))
    named = replace(plan_of(1).rows[0], ref=RowRef("ks", "t", 8, {"id": "1b"}, {"id": "x\x1b[2J"}))
    plan = replace(plan_of(1), rows=(*plan_of(1).rows, named, last))
    stream = io.StringIO()
    print_plan(make_console(stream), parse_plan(plan.text().encode(), "plan"), keys=True)
    lines = [line.strip() for line in stream.getvalue().splitlines() if "->" in line]
    assert [line.split("  ")[0] for line in lines] == ["ks.t id=0x0a1b", "ks.t id=0", 'ks.t id="x\\x1b[2J"']


def test_every_cut_and_every_changed_byte_is_refused() -> None:
    """No truncation and no single changed byte of a plan is accepted."""
    raw = plan_of().text().encode()
    for end in range(len(raw)):
        with pytest.raises(UsageError):
            parse_plan(raw[:end], "plan")
    for at in range(len(raw)):
        with pytest.raises(UsageError):
            parse_plan(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], "plan")


def test_a_plan_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """A plan is an order to write: nobody else may have touched it."""
    path = tmp_path / "plan"
    write_plan(path, plan_of())
    path.chmod(0o620)
    with pytest.raises(UsageError, match="0620"):
        read_plan(path)


def test_a_filtered_plan_is_a_plan() -> None:
    """`only` keeps the rows asked for, and the file of it is whole."""
    smaller = plan_of().only(lambda row: row.ref.token == 1)
    assert [row.ref.token for row in parse_plan(smaller.text().encode(), "plan").rows] == [1]


def test_states_survive_json() -> None:
    """Values, write times and expiries come back exactly; so does the absence of a row."""
    assert state_from_json(json.loads(json.dumps(state_json(STATE)))) == STATE
    assert state_from_json(state_json(None)) is None


def test_a_journal_cut_anywhere_is_what_had_happened(tmp_path: Path) -> None:
    """At every cut point only whole lines count: an intent is never lost once its write may have begun."""
    path = tmp_path / "journal"
    journal = Journal.create(path, plan_of())

    async def work() -> None:
        await journal.intent(0, {"h": STATE, "g": None})
        await journal.outcome(0, Outcome(Result.VERIFIED, "", {"h": STATE}))
        await journal.intent(1, {"h": None})

    asyncio.run(work())
    journal.close()
    raw = path.read_bytes()
    first = raw.index(b"\n") + 1
    for end in range(first, len(raw) + 1):
        record = parse_journal(raw[:end], "journal")
        whole = raw[:end].count(b"\n") - 1
        zero, one = record.entries.get(0), record.entries.get(1)
        assert (zero is not None) == (whole >= 1)
        assert (zero is not None and zero.result is Result.VERIFIED) == (whole >= 2)
        assert (one is not None) == (whole >= 3)
        assert not record.complete
        assert zero is None or zero.before == {"h": STATE, "g": None}
    for end in range(first):
        with pytest.raises(UsageError):
            parse_journal(raw[:end], "journal")


def test_no_changed_lost_or_moved_line_of_a_journal_is_believed(tmp_path: Path) -> None:
    """An undo would write the changed byte, and a row whose beginning was lost would pass for one that never began."""
    path = tmp_path / "journal"

    async def work(journal: Journal, number: int) -> None:
        await asyncio.gather(*(journal.intent(n, {"h": STATE}) for n in range(number)))
        await journal.outcome(0, Outcome(Result.VERIFIED, "", {"h": STATE}))
        journal.close()

    asyncio.run(work(Journal.create(path, plan_of()), 2))
    asyncio.run(work(Journal.reopen(path)[0], 1))
    raw = path.read_bytes()
    first, *lines = raw.splitlines(keepends=True)
    assert len(lines) == 5
    assert parse_journal(raw, "f").entries.keys() == {0, 1}
    for at in range(len(first), len(raw) - 1, 3):
        with pytest.raises(UsageError, match="is damaged; nothing after it can be trusted: put back a copy"):
            parse_journal(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], "f")
    for at in range(4):
        lost = b"".join([first, *lines[:at], *lines[at + 1 :]])
        moved = b"".join([first, *lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
        for text in (lost, moved):
            with pytest.raises(UsageError, match=f"line {at + 2} is damaged"):
                parse_journal(text, "f")


def test_a_reopened_journal_drops_the_torn_line(tmp_path: Path) -> None:
    """What follows a torn line is written after the last whole one; the first pre-image stays."""
    path = tmp_path / "journal"
    journal = Journal.create(path, plan_of())
    asyncio.run(journal.intent(0, {"h": STATE}))
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"outcome":0,"resu')
    journal, record = Journal.reopen(path)
    assert record.entries[0].result is None
    with pytest.raises(LockedError):
        Journal.reopen(path)

    async def work() -> None:
        await journal.intent(0, {"h": None})
        await journal.outcome(0, Outcome(Result.SKIPPED, "changed"))

    asyncio.run(work())
    journal.close()
    entry = read_journal(path).entries[0]
    assert entry.before == {"h": STATE}
    assert entry.result is Result.SKIPPED


def test_a_journal_is_never_overwritten(tmp_path: Path) -> None:
    """A second apply must name another file; a damaged middle line is refused, not skipped."""
    path = tmp_path / "journal"
    journal = Journal.create(path, plan_of())
    asyncio.run(journal.outcome(0, Outcome(Result.VERIFIED)))
    journal.close()
    with pytest.raises(UsageError, match="resume"):
        Journal.create(path, plan_of())
    raw = path.read_bytes()
    with pytest.raises(UsageError, match="line 2"):
        parse_journal(raw[:-5] + b"x\n" + raw[-20:], "journal")


def test_rows_under_way_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred rows at once cost a few fsyncs, and each line is durable before its row goes on."""
    journal = Journal.create(tmp_path / "journal", plan_of(100))
    synced: list[int] = []
    real = os.fsync

    def counted(handle: int) -> None:
        synced.append((tmp_path / "journal").read_bytes().count(b'"intent"'))
        real(handle)

    monkeypatch.setattr(os, "fsync", counted)

    async def row(number: int) -> None:
        await journal.intent(number, {"h": STATE})
        assert f'"intent":{number},'.encode() in (tmp_path / "journal").read_bytes()

    async def work() -> None:
        await asyncio.gather(*map(row, range(100)))

    asyncio.run(work())
    journal.close()
    assert len(synced) <= 3
    assert synced[-1] == 100
    assert set(read_journal(tmp_path / "journal").entries) == set(range(100))


@pytest.mark.parametrize("way_on", ["resume", "undo"])
def test_a_full_disk_stops_the_journal_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way_on: str) -> None:
    """After a torn line nothing is added, whoever tries; what was durable reads back, and the way on is the same."""
    path = tmp_path / "journal"
    journal = Journal.create(path, plan_of())
    if way_on != "resume":
        journal.close()
        journal, _ = Journal.reopen(path, way_on)
    real = os.write
    room = 30

    def full(handle: int, raw: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part, room = raw[:room], 0
        return real(handle, part)

    async def work() -> None:
        await journal.outcome(0, Outcome(Result.VERIFIED))
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(JournalError, match=rf"No space left.*: make room, then 'repair {way_on} {path}'"):
            await journal.intent(1, {"h": STATE})
        monkeypatch.setattr(os, "write", real)
        with pytest.raises(JournalError):
            await journal.outcome(2, Outcome(Result.VERIFIED))

    asyncio.run(work())
    journal.close()
    record = read_journal(path)
    assert set(record.entries) == {0}
    assert record.length < len(path.read_bytes())


def test_a_plan_replaces_nothing_but_a_plan(tmp_path: Path) -> None:
    """The pre-images of a journal are not to be had again: --output never takes its place."""
    journal = tmp_path / "journal"
    Journal.create(journal, plan_of()).close()
    before = journal.read_bytes()
    with pytest.raises(UsageError, match="is not a repair plan"):
        write_plan(journal, plan_of())
    assert journal.read_bytes() == before
    write_plan(tmp_path / "plan", plan_of())
    write_plan(tmp_path / "plan", plan_of(1))
    assert len(read_plan(tmp_path / "plan").rows) == 1


def test_a_file_of_another_format_is_named_for_what_it_is(tmp_path: Path) -> None:
    """Each of the four tells which of the others it was given, and with which command that one is used."""
    for given in FORMATS:
        path = tmp_path / given.type
        path.touch(0o600)
        path.write_bytes(json_line(given.mark))
        for wanted in FORMATS:
            assert wanted.is_of(path) == (wanted is given)
            with wanted.opened(path) as file:
                first = file.read()
            if wanted is given:
                assert wanted.header(first, "f")["type"] == given.type
                continue
            with pytest.raises(UsageError, match=f"f is not {wanted.called}: it is {KNOWN_FILES[given.type]}$"):
                wanted.header(first, "f")
    with pytest.raises(UsageError, match=r"f has schema 7; this version reads 1, 2 and 3$"):
        REPAIR_JOURNAL.header(json_line({**REPAIR_JOURNAL.mark, "schema": 7}), "f")
    with pytest.raises(UsageError, match="f has schema 7; this version reads 1: plan again"):
        REPAIR_PLAN.header(json_line({**REPAIR_PLAN.mark, "schema": 7}), "f")


def test_files_that_are_no_files_are_refused(tmp_path: Path) -> None:
    """A pipe would wait for ever for somebody to write to it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (read_plan, read_journal):
        with pytest.raises(UsageError, match="not a regular file"):
            read(pipe)


def sealed(text: str) -> bytes:
    """Return a plan's body with a checksum that fits."""
    return (text + json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n").encode()


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('"max_skew_s":60.0', '"max_skew_s":NaN'),
        ('"settle_s":2.5', '"settle_s":-1'),
        ('"token":0', '"token":Infinity'),
        ('"token":0', '"token":' + "[" * 5000 + "]" * 5000),
        ('"dcs":{"dc1":[3,3]}', '"dcs":{"dc1":[Infinity,3]}'),
    ],
)
def test_values_that_make_no_sense_are_refused(good: str, bad: str) -> None:
    """A plan whose checksum fits may still not be one; neither switches a safety rule off."""
    body = plan_of().text().rsplit("\n", 2)[0] + "\n"
    assert good in body
    parse_plan(sealed(body), "plan")
    with pytest.raises(UsageError):
        parse_plan(sealed(body.replace(good, bad)), "plan")


@pytest.mark.parametrize(
    "line", ['{"outcome":999,"result":"verified","reason":""}', '{"undoing":1,"at":Infinity}', "[" * 9000]
)
def test_journal_lines_that_make_no_sense_are_refused(tmp_path: Path, line: str) -> None:
    """A row that the plan does not have, or a time that is none: refused with the line's number."""
    path = tmp_path / "journal"
    Journal.create(path, plan_of()).close()
    with pytest.raises(UsageError, match="line 2"):
        parse_journal(path.read_bytes() + line.encode() + b"\n", "journal")


def changed(before: dict[str, RowState | None], after: RowState | None) -> Entry:
    """Return the entry of a row that was acted on and proven."""
    hosts = frozenset(host for host, state in before.items() if state != after)
    return Entry(before, Result.VERIFIED, after=dict.fromkeys(before, after), fate=Fate.DONE, changed=hosts)


def test_what_an_undo_is_said_to_do_is_what_it_will_do() -> None:
    """A row that a repair brought to what most replicas held is not written, nor is a row deleted that is gone."""
    older = RowState((Cell(b"\1", 1), Cell(None), Cell(None)))
    one_behind = changed({"a": STATE, "b": STATE, "c": None}, STATE)
    deleted = changed({"a": None, "b": None, "c": STATE}, None)
    two_behind = changed({"a": STATE, "b": older, "c": older}, STATE)
    lone = changed({"a": STATE, "b": None, "c": None}, STATE)
    record = Record(plan_of(6), dict(enumerate((one_behind, deleted, two_behind, lone))))
    assert preview(record) == {Undoing.NOTHING: 2, Undoing.REWRITE: 1, Undoing.DELETE: 1}


BEFORE: dict[str, RowState | None] = {"a": STATE, "b": None}
ALIKE: dict[str, RowState | None] = {"a": STATE, "b": STATE}


@pytest.mark.parametrize(
    ("entry", "proves"),
    [
        (Entry(BEFORE), Proof.UNKNOWN),
        (Entry(BEFORE, Result.VERIFIED, after=ALIKE), Proof.UNKNOWN),
        (Entry(BEFORE, Result.REFUSED, after=BEFORE, fate=Fate.NONE), Proof.UNCHANGED),
        (Entry(BEFORE, Result.UNKNOWN, after=ALIKE, fate=Fate.UNKNOWN), Proof.UNKNOWN),
        (Entry(BEFORE, Result.DIVERGENT, after=BEFORE, fate=Fate.DONE), Proof.UNCHANGED),
        (Entry(BEFORE, Result.WAITING, after={"a": STATE}, fate=Fate.DONE), Proof.UNKNOWN),
        (changed(BEFORE, STATE), Proof.CHANGED),
    ],
    ids=["killed", "older journal", "refused", "no answer", "nothing moved", "one not read after", "proven"],
)
def test_a_row_was_changed_where_the_journal_proves_it_and_nowhere_else(entry: Entry, proves: Proof) -> None:
    """Acknowledged, and read before and after on every replica: nothing else is undone."""
    assert proof(entry) is proves


def test_the_journal_tells_what_is_known_of_each_rows_writes(tmp_path: Path) -> None:
    """Fate and changed replicas are read back; equal copies are written once; a refused row is begun afresh."""
    path = tmp_path / "journal"
    journal = Journal.create(path, plan_of(3))
    large = RowState((Cell(bytes(50_000), 1), Cell(None), Cell(None)))

    async def work() -> None:
        await journal.intent(0, {"a": large, "b": large, "c": None})
        await journal.outcome(
            0, Outcome(Result.VERIFIED, "", dict.fromkeys("abc", large), Fate.DONE, frozenset({"c"})), 5
        )
        await journal.intent(1, {"a": STATE, "b": None})
        await journal.outcome(1, Outcome(Result.REFUSED, "forbidden", {"a": STATE, "b": None}))
        await journal.intent(1, {"a": STATE, "b": STATE, "c": None})
        await journal.intent(2, {"a": STATE})
        await journal.intent(2, {"a": None})

    asyncio.run(work())
    journal.close()
    entries = read_journal(path).entries
    assert (entries[0].fate, entries[0].changed, entries[0].by_us) == (Fate.DONE, frozenset({"c"}), 5)
    assert entries[0].before == {"a": large, "b": large, "c": None}
    assert entries[0].after == dict.fromkeys("abc", large)
    assert path.stat().st_size < 2.5 * 2 * 50_000, "a copy is written for each replica"
    assert entries[1] == Entry({"a": STATE, "b": STATE, "c": None}), "the refused attempt's pre-image was kept"
    assert entries[2] == Entry({"a": STATE}), "the pre-image of an attempt of unknown end was lost"
    assert [n for n, entry in entries.items() if entry.open] == [1, 2]


def test_a_journal_of_an_older_version_is_read_and_proves_nothing(tmp_path: Path) -> None:
    """Schema 1: the rows are known, and undo leaves them alone."""
    path = tmp_path / "journal"
    journal = Journal.create(path, plan_of())
    asyncio.run(journal.intent(0, {"a": STATE, "b": None}))
    journal.close()
    text = path.read_text(encoding="ascii").replace('{"schema":3', '{"schema":1', 1)
    copies = '{"a":[["01",1,null],[null,null,null],[null,null,null]]}'
    path.write_text(text + '{"outcome":0,"result":"verified","reason":"","after":' + copies + "}\n", encoding="ascii")
    record = read_journal(path)
    assert record.entries[0].fate is None
    assert preview(record) == {Undoing.UNKNOWN: 1}
    again, _ = Journal.reopen(path)
    asyncio.run(again.outcome(1, Outcome(Result.LEFT)))
    again.close()
    assert b'"check"' not in path.read_bytes().splitlines()[-1], "what it began without it goes on without"
    assert read_journal(path).entries[1].result is Result.LEFT
    assert "older version" in unproven(record.entries[0])


def test_an_intent_is_read_back_from_where_it_was_put(tmp_path: Path) -> None:
    """Also after a journal was opened again, and with others' lines around it."""
    path = tmp_path / "journal.jsonl"

    async def write(journal: Journal, number: int) -> None:
        copies = [{"h": RowState((Cell(bytes([n]) * (n + 1), 1, None),)), "g": None} for n in range(number, number + 9)]
        places = await asyncio.gather(*(journal.intent(n, before) for n, before in enumerate(copies)))
        assert [journal.intended(place) for place in places] == copies

    journal = Journal.create(path, plan_of(200))
    asyncio.run(write(journal, 0))
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"cut sh')
    journal, _ = Journal.reopen(path)
    asyncio.run(write(journal, 100))
    journal.close()


@pytest.mark.parametrize("undoing", Undoing)
def test_an_undo_is_told_of_one_row_as_of_many(undoing: Undoing) -> None:
    """One row is as it was, many are as they were."""
    one, many = undoing.of(1), undoing.of(2_000)
    assert one.startswith("1 row ")
    assert many.startswith("2,000 rows ")
    assert not {"they", "them", "their"} & set(one.split())
    assert not {"it", "its"} & set(many.partition(":")[0].split())
