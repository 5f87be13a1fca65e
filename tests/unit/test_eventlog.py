"""The event log: one list of events, numbered without gaps, and never a key or a value in it."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import struct
import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import consistency
from consistency.checking.observer import Observer, Several, Silent
from consistency.cli.show.terminal.plugin import could_not_run, judge_for_plugin
from consistency.errors import ConnectError, InternalError, ReplicaTimeout
from consistency.model.cqltext import to_json, to_text
from consistency.model.cqltype import NATIVE, parse_type
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.results.report import Unread, Violation
from consistency.watching.event_log import EventLog, LogFormat, LogSink
from consistency.watching.events import COMMON_FIELDS, EVENTS
from consistency.watching.metrics import RunEnd, render
from tests.simulation.scenario import Scenario, row
from tests.simulation.values import make_table
from tests.unit.conftest import Shell
from tests.unit.fake_cluster import US, Version
from tests.unit.test_terminal import planned, report, result, table_report

CANARIES: dict[str, bytes] = {
    "ascii": b"canary-ascii",
    "bigint": (7_316_240_958_113_377).to_bytes(8, "big"),
    "blob": b"canary-blob",
    "boolean": b"\1",
    "counter": (7_316_240_958_113_378).to_bytes(8, "big"),
    "date": ((1 << 31) + 87_654).to_bytes(4, "big"),
    "decimal": (5).to_bytes(4, "big") + (731_624_095_811).to_bytes(5, "big"),
    "double": struct.pack(">d", 73_162.409_581),
    "duration": b"\x02\x04\xf0\x01\x00",
    "empty": b"",
    "float": struct.pack(">f", 73_162.5),
    "inet": bytes((203, 0, 113, 77)),
    "int": (1_873_162_409).to_bytes(4, "big"),
    "smallint": (31_709).to_bytes(2, "big"),
    "text": "canary-tèxt".encode(),
    "time": (31_709_581_133_771).to_bytes(8, "big"),
    "timestamp": (4_731_624_095_811).to_bytes(8, "big"),
    "timeuuid": uuid.UUID("731624ca-958a-11ee-8c90-0242ac120002").bytes,
    "tinyint": b"\x7b",
    "uuid": uuid.UUID("ca4a7000-7316-4240-9581-1337713377aa").bytes,
    "varchar": b"canary-varchar",
    "varint": (73_162_409_581_133_771_337).to_bytes(9, "big"),
}
"""A value of every native type that nothing else in a log looks like."""
SHORT = {"boolean", "empty", "tinyint"}
"""Their values, `true` or `123`, may well stand in a log for another reason; they are looked for in quotes alone."""


def traces(name: str, raw: bytes) -> set[str]:
    """Return the texts by which a value would give itself away."""
    kind = parse_type(name, {})
    told = {raw.hex(), to_text(kind, raw).strip("'"), str(to_json(kind, raw)), raw.decode("latin-1")}
    told |= {json.dumps(text)[1:-1] for text in told}
    return {text for text in told if len(text) > 3} if name not in SHORT else {f'"{t}"' for t in told if t}


def canary_finding(name: str) -> Finding:
    """Return a finding whose key is the canary."""
    raw = CANARIES[name]
    views = {"10.0.0.1:9042": ReplicaView(State.CURRENT, {"v": US}), "10.0.0.2:9042": ReplicaView(State.MISSING)}
    key = {"k": to_json(parse_type(name, {}), raw)}
    return Finding(Kind.MISSING, "shop", "orders", 4_242_424_242_424_242, key, {"k": raw.hex()}, views, ("v",))


def logged(text: str) -> list[dict[str, Any]]:
    """Return the events of a JSON log."""
    return [json.loads(line) for line in text.splitlines()]


def test_the_canaries_cover_every_type() -> None:
    """A type that Cassandra gets needs a canary too."""
    assert set(CANARIES) == set(NATIVE)


@pytest.mark.parametrize("log_format", LogFormat)
@pytest.mark.parametrize("name", sorted(CANARIES))
def test_no_log_metric_or_plugin_line_holds_a_value(name: str, log_format: LogFormat) -> None:
    """Planted in the key of a finding, in errors, notes and reasons, at the most talkative level."""
    secret = " ".join(sorted(traces(name, CANARIES[name])))
    found = canary_finding(name)
    stream, plan = io.StringIO(), planned()
    log = EventLog(LogSink(stream, log_format, "debug"), "run")
    bad = replace(result(plan.leaves[0]), errors={plan.leaves[0].replicas[0]: ReplicaTimeout(secret)}, fell_back=secret)
    unread = (Unread("10.0.0.1:9042", (TokenRange.full_ring(),), secret),)
    shown = report(
        table_report(divergent_rows=1, note=secret, blind=(secret,), unread=unread),
        top=(found,),
        not_checked={"shop.v": secret},
        violations=(Violation("rack_skew", "shop", secret, secret),),
    )
    log.table_planned(plan.table, plan)
    log.leaf_digested(bad)
    log.found(found)
    log.table_done(shown.tables[0])
    log.ended(shown)
    log.failed(RuntimeError(secret), 4, 1.0)
    written = stream.getvalue()
    assert written.count("\n") == 7
    said = [written, render(RunEnd(1.0, 1.0, 1, shown)), judge_for_plugin(shown).line]
    said += [could_not_run(RuntimeError(secret)).line, could_not_run(InternalError(secret)).line]
    for trace in traces(name, CANARIES[name]):
        assert not [text for text in said if trace in text], trace
    assert str(found.token) not in written, "a token is made of the key"


def test_a_whole_check_of_canaries_logs_none(shell: Shell, tmp_path: Path) -> None:
    """Rows that differ in text keys and values, read by the real check, logged at every level."""
    secret, scenario = b"canary-text", Scenario(make_table("t", ("text",), ("text",), (), ("text", "blob")))
    stream = io.StringIO()
    scenario.watching = Several(scenario.watching, EventLog(LogSink(stream, level="debug"), "run"))  # type: ignore[assignment]
    write = replace(row(1, 1, v0=secret, v1=secret), key=(secret,), clustering=(secret,))
    scenario.apply(write)
    scenario.apply(replace(write, ts=write.ts + 1), on=[1])
    report_ = scenario.check(findings=tmp_path / "f.jsonl")
    assert report_.findings_by_kind == {"stale": 1}
    assert "canary" in (tmp_path / "f.jsonl").read_text()
    names = [event["event"] for event in logged(stream.getvalue())]
    assert {"scan.started", "table.planned", "leaf.digested", "row.found", "table.done"} <= set(names)
    assert "canary" not in stream.getvalue()


def test_events_are_numbered_without_gaps_and_dated() -> None:
    """Whatever the level leaves out, the numbers that are written are 1, 2, 3, ..."""
    for level in ("debug", "info", "warning"):
        stream, plan = io.StringIO(), planned()
        log = EventLog(LogSink(stream, level=level), "run-7")
        log.scan_started(1)
        log.table_planned(plan.table, plan)
        log.leaf_digested(result(plan.leaves[0], failed=2))
        log.table_done(table_report(divergent_rows=1))
        events = logged(stream.getvalue())
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert {event["run_id"] for event in events} == {"run-7"}
        assert min(logging.getLevelName(e["level"].upper()) for e in events) == logging.getLevelName(level.upper())
        for event in events:
            stamp = datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
            assert stamp.utcoffset() == timedelta(0)
            assert set(event) == {*COMMON_FIELDS, *EVENTS[event["event"]].fields}


def test_a_table_that_is_not_consistent_is_a_warning() -> None:
    """So that a filter by level finds it."""
    stream = io.StringIO()
    log = EventLog(LogSink(stream), "run")
    log.table_done(table_report())
    log.table_done(table_report(unsettled_rows=1))
    log.ended(report(table_report(divergent_rows=1)))
    assert [event["level"] for event in logged(stream.getvalue())] == ["info", "warning", "warning"]


def test_an_event_or_field_that_is_not_listed_is_refused() -> None:
    """The list is the whole truth: nothing is logged beside it."""
    log = EventLog(LogSink(io.StringIO()), "run")
    with pytest.raises(InternalError, match="not in the list"):
        log.emit("row.value", value=1)
    with pytest.raises(InternalError, match="not in the list"):
        log.emit("scan.started", tables=1, key=1)


def test_every_listed_event_is_emitted_somewhere_and_every_emitted_one_is_listed() -> None:
    """The names in the code and the list agree."""
    emitted = set()
    for path in Path(consistency.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith((".emit", ".emit_at")):
                emitted |= {a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    assert emitted == set(EVENTS)


def test_a_stream_that_fails_loses_lines_and_not_the_run() -> None:
    """A full disk is told at the end."""

    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    log = EventLog(LogSink(Full()), "run")
    log.scan_started(1)
    assert log.sink.lost == "No space left on device"


def test_several_observers_are_told_everything() -> None:
    """Each method of the protocol reaches each of them, in order."""
    heard: list[tuple[str, str]] = []

    class Ear:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattr__(self, event: str) -> Any:
            return lambda *_: heard.append((self.name, event))

    several = Several(Ear("a"), Ear("b"))  # type: ignore[arg-type]
    methods = [name for name in vars(Observer) if not name.startswith("_")]
    assert set(methods) == {name for name in vars(Silent) if not name.startswith("_")}
    for name in methods:
        arguments = [None] * (getattr(Silent, name).__code__.co_argcount - 1)
        getattr(several, name)(*arguments)
    assert heard == [(who, name) for name in methods for who in ("a", "b")]


# The command.


def test_nothing_is_logged_unless_asked_for(shell: Shell) -> None:
    """Cron mails what is printed, and at a terminal progress is shown."""
    assert shell.check("--quiet").output == ""


def test_a_check_logs_to_a_file_under_its_reports_run_id(shell: Shell, tmp_path: Path) -> None:
    """JSON by default; a second run is appended with numbers of its own."""
    path, json_path = tmp_path / "check.log", tmp_path / "r.json"
    shell.cluster.rows["10.0.0.2:9042"][8] = Version("newer", US + 60_000_000)
    assert shell.check("--log-file", str(path), "--json", str(json_path)).exit_code == 1
    first = logged(path.read_text())
    assert [e["event"] for e in first] == [
        "run.started",
        "run.connected",
        "scan.started",
        "table.planned",
        "table.done",
        "run.ended",
    ]
    assert {e["run_id"] for e in first} == {json.loads(json_path.read_text())["run_id"]}
    assert (first[-1]["verdict"], first[-1]["exit_code"], first[-1]["divergent_rows"]) == ("divergent", 1, 1)
    shell.check("--log-file", str(path))
    events = logged(path.read_text())
    assert [e["seq"] for e in events] == [*range(1, 7), *range(1, 7)]
    assert len({e["run_id"] for e in events}) == 2


def test_a_log_on_stderr_takes_the_place_of_progress(shell: Shell) -> None:
    """Every line of stderr is an event; the report stays on stdout."""
    result_ = shell.check("--log-format", "json", "--log-level", "debug")
    assert logged(result_.stderr)[0]["event"] == "run.started"
    assert result_.stdout.startswith("CONSISTENT")


def test_the_environment_asks_for_a_log_too(shell: Shell) -> None:
    """CONSISTENCY_LOG=console is a line of text an event, without escape codes where it is no terminal."""
    shell.patch.setenv("CONSISTENCY_LOG", "console")
    result_ = shell.check()
    assert re.search(r"^\S+Z \[info\s*\] run\.ended .*verdict=consistent", result_.stderr, re.MULTILINE)
    assert "\x1b" not in result_.stderr
    shell.patch.setenv("CONSISTENCY_LOG", "xml")
    result_ = shell.check()
    assert (result_.exit_code, "set it to json or console" in result_.stderr) == (2, True)


def test_a_run_that_fails_says_so_by_type_alone(shell: Shell, tmp_path: Path) -> None:
    """The message may quote anything."""

    async def fail() -> None:
        raise RuntimeError("canary")

    shell.cluster.on_digest = fail
    path = tmp_path / "check.log"
    assert shell.check("--log-file", str(path)).exit_code == 4
    last = logged(path.read_text())[-1]
    assert (last["event"], last["error"], last["reason"], last["exit_code"]) == ("run.failed", "RuntimeError", "", 4)
    assert "canary" not in path.read_text()


def test_what_fails_before_any_row_is_read_is_told_in_words() -> None:
    """Of a watch nobody sees a line on stderr; a replica's error or one of ours inside may quote, and is not told."""
    stream = io.StringIO()
    log = EventLog(LogSink(stream), "run")
    for error in (
        ConnectError("no node answers"),
        ReplicaTimeout("secret"),
        InternalError("secret"),
        ValueError("secret"),
    ):
        log.failed(error, 4, 1.0)
    assert [event["reason"] for event in logged(stream.getvalue())] == ["no node answers", "", "", ""]


@pytest.mark.parametrize(
    ("path", "said"), [("no/such/dir/x.log", "No such file or directory"), (".", "is a directory")], ids=["dir", "is"]
)
def test_a_log_that_cannot_be_written_is_refused(shell: Shell, path: str, said: str) -> None:
    """Before anything is read."""
    result_ = shell.check("--log-file", path)
    assert (result_.exit_code, f"--log-file {path}: {said}" in result_.stderr) == (2, True)
