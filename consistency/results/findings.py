"""Findings: the facts that a check reports, and the file that they are streamed to.

The file is JSON Lines, mode 0600. Line 1 is a header, every further line one finding. It holds keys and
write times, never values. `key` is for people and scripts; `key_hex` is the same key in the server's own
bytes, so that a later step addresses exactly this row, whatever the types of its key.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from consistency.errors import DAMAGED, UsageError
from consistency.private import begin_partial, partial_of, require_unshared
from consistency.results.forecast import Forecast
from consistency.results.json_lines import KNOWN_FILES, lines_of
from consistency.results.kinds import Kind
from consistency.results.range_findings import RANGE, RangeFinding

SCHEMA_VERSION = 1
FINDINGS = "findings"
"""The type of a check's file, in its header."""
COMPARISON = "comparison"
"""The type of the file of a comparison of two clusters (pair_findings.py)."""
_CALLED = {FINDINGS: "findings file", COMPARISON: "findings file of two clusters"}
_ROOM = " " * 24
"""What a header leaves free for the number of rows."""
_RANGE_LINE = f'{{"type":"{RANGE}"'


WriteTime = int | None | list[int | None]
"""Microseconds since the epoch; a list, element by element, for a non-frozen collection or UDT."""


class State(str, Enum):
    """What one replica holds of the row."""

    CURRENT = "current"
    STALE = "stale"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica's copy of the row: its state and the write time of every cell it holds (never values).

    `host_id` identifies the node even if its address changes; it is empty in files of earlier versions.
    """

    state: State
    writetimes: Mapping[str, WriteTime] = field(default_factory=dict)
    host_id: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        told = {"host_id": self.host_id} if self.host_id else {}
        return {"state": self.state.value, "writetimes": dict(self.writetimes), **told}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReplicaView:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(State(data["state"]), dict(data["writetimes"]), str(data.get("host_id", "")))


@dataclass(frozen=True, slots=True)
class Finding:
    """One row on which the replicas do not agree.

    `key` maps column to a JSON value (JSON-native where exact, else as cqlsh prints it); a static row has
    only its partition key. `key_hex` maps the same columns to their serialized bytes in hex. `columns` are
    the columns that differ, `facts` all kinds that apply, gravest first. `forecast` is what a merge would do to the row
    as far as its copies tell; None if they are alike, and in files of earlier versions.
    """

    kind: Kind
    keyspace: str
    table: str
    token: int
    key: Mapping[str, Any]
    key_hex: Mapping[str, str]
    replicas: Mapping[str, ReplicaView]
    columns: tuple[str, ...] = ()
    facts: tuple[Kind, ...] = ()
    forecast: Forecast | None = None

    @property
    def full_name(self) -> str:
        """`keyspace.table`."""
        return f"{self.keyspace}.{self.table}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form: one line of the findings file."""
        return {
            "kind": self.kind.value,
            "keyspace": self.keyspace,
            "table": self.table,
            "token": self.token,
            "key": dict(self.key),
            "replicas": {name: view.as_json() for name, view in self.replicas.items()},
            "columns": list(self.columns),
            "facts": [fact.value for fact in self.facts],
            "forecast": self.forecast.value if self.forecast else None,
            "key_hex": dict(self.key_hex),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Read the JSON form; KeyError, ValueError or TypeError if it is not valid."""
        return cls(
            kind=Kind(data["kind"]),
            keyspace=str(data["keyspace"]),
            table=str(data["table"]),
            token=int(data["token"]),
            key=dict(data["key"]),
            key_hex={name: bytes.fromhex(text).hex() for name, text in data["key_hex"].items()},
            replicas={name: ReplicaView.from_json(view) for name, view in data["replicas"].items()},
            columns=tuple(data.get("columns", ())),
            facts=tuple(Kind(fact) for fact in data.get("facts", ())),
            forecast=Forecast(data["forecast"]) if data.get("forecast") else None,
        )


def differing_replicas(finding: Finding) -> tuple[str, ...]:
    """Name the replicas that differ in a row: those that lack it or what wins of it, else all that hold it.

    What one lacks may be the newest truth of all, a delete: nobody is called wrong for it.
    """
    behind = [n for n, view in finding.replicas.items() if view.state in (State.MISSING, State.STALE)]
    return tuple(behind or (n for n, view in finding.replicas.items() if view.state is State.CURRENT))


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a findings file: which run, which cluster, which ring."""

    run_id: str
    cluster: str
    ring: str
    started_at: str
    tool: str
    listed: int | None = None
    """How many rows the file lists, once it is whole: who takes lines out of it has chosen among them."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "schema": SCHEMA_VERSION,
            "type": FINDINGS,
            "run_id": self.run_id,
            "cluster": self.cluster,
            "ring": self.ring,
            "started_at": self.started_at,
            "tool": self.tool,
            **({} if self.listed is None else {"listed": self.listed}),
        }


class Line(Protocol):
    """What a findings file holds: its header, or a line."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""


class FindingsWriter:
    """Streams findings to a file of mode 0600, one flushed line each, and counts them by kind.

    The file is written beside its final name and renamed when it is closed, so an earlier file survives until
    this run's file is whole; a kill leaves the partial file with the suffix `.partial`. If the disk is full the
    check continues without the file: `error` says why it is missing, `counts` stay correct.
    """

    def __init__(self, path: Path | None, header: Line) -> None:
        self.path = path
        self.counts: Counter[Kind] = Counter()
        self.error = ""
        self._told: Header | None = None
        self._listed = 0
        self._file: TextIO | None = None
        if path is not None:
            # A pipe or a device is written directly: renaming a file over /dev/null would replace it.
            special = path.exists() and not path.is_file()
            self._partial = path if special else partial_of(path)
            self._file = _begun(path, "--findings")
            if isinstance(header, Header) and not special:  # it is written again in its place, which no pipe can
                self._told = header
            self._line(header.as_json(), _ROOM if self._told else "")

    def write(self, finding: Finding) -> None:
        """Append one finding."""
        self.counts[finding.kind] += 1
        self._listed += 1
        if self._file is not None:
            self._line(finding.as_json())

    def write_range(self, finding: RangeFinding) -> None:
        """Append the rows of one range that are counted and not listed."""
        self.counts.update(finding.kinds)
        if self._file is not None:
            self._line(finding.as_json())

    def write_line(self, found: Line) -> None:
        """Append something else that was found; it is not counted."""
        if self._file is not None:
            self._line(found.as_json())

    def close(self) -> None:
        """Make the file durable under its final name."""
        if self._file is None or self.path is None:
            return
        try:
            if self._told is not None:
                self._file.seek(0)
                self._file.write(_line_of(replace(self._told, listed=self._listed).as_json()))
            self._file.flush()
            if self._partial != self.path:
                os.fsync(self._file.fileno())
                self._partial.replace(self.path)  # before it is closed, which lets another run take the name
            self._file.close()
            self._file = None
        except OSError as error:
            self._give_up(error)

    def __enter__(self) -> FindingsWriter:  # noqa: PYI034 - Self is 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()

    def _line(self, data: Mapping[str, Any], room: str = "") -> None:
        if self._file is None:
            return
        try:
            self._file.write(f"{_line_of(data)}{room}\n")
            self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Continue without the file, because a partial file would pass for a complete one."""
        file, self._file = self._file, None
        self.error = error.strerror or type(error).__name__
        if self._partial != self.path:
            with suppress(OSError):
                self._partial.unlink()
        with suppress(OSError):  # the rest of the buffer does not fit either
            if file is not None:
                file.close()


def _line_of(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"))


def _begun(path: Path, option: str) -> TextIO:
    """Open a pipe or a device, or begin the file that takes the place of a file once it is whole."""
    try:
        if path.exists() and not path.is_file():
            return path.open("w", encoding="ascii")
        handle = begin_partial(path)
    except OSError as error:
        msg = f"{option} {path}: {error.strerror}; name a file in a directory that can be written"
        raise UsageError(msg) from None
    return os.fdopen(handle, "w", encoding="ascii")


def read_header(path: Path) -> Mapping[str, Any]:
    """Return the header line of a findings file, or raise one line that says why it is not one."""
    return read_first(path, FINDINGS, f"consistency check --findings {path}")


def read_first(path: Path, kind: str, written_by: str) -> Mapping[str, Any]:
    """Return the header line of a file of some kind, or raise one line that says why it is not one."""
    lines = lines_of(path, f"a {_CALLED[kind]} is written by: {written_by}")
    try:
        first = next(lines)
    except StopIteration:
        msg = f"{path} is empty; a {_CALLED[kind]} is written by: {written_by}"
        raise UsageError(msg) from None
    found = str(first.get("type")) if isinstance(first, dict) else ""
    if found != kind:
        other = f"it is {KNOWN_FILES[found]}" if found in KNOWN_FILES else "line 1 is not its header"
        msg = f"{path} is not a {_CALLED[kind]}: {other}; one is written by: {written_by}"
        raise UsageError(msg)
    if first.get("schema") != SCHEMA_VERSION:
        msg = f"{path} has schema {first.get('schema')!r}; this version reads {SCHEMA_VERSION}: run the check again"
        raise UsageError(msg)
    require_unshared(path, path.stat().st_mode)
    checked: Mapping[str, Any] = first
    return checked


def require_replaceable(option: str, path: str | None) -> None:
    """Refuse to overwrite an existing file that holds anything but findings."""
    if path is None or not Path(path).is_file() or not Path(path).stat().st_size:
        return
    try:
        with Path(path).open("rb") as lines:
            first = json.loads(lines.readline(10_000))
    except (OSError, ValueError, RecursionError):
        first = None
    if not isinstance(first, dict) or str(first.get("type")) not in _CALLED:
        msg = f"{option} {path} exists and holds no findings: it is not replaced; name another file"
        raise UsageError(msg)


def read_findings(path: Path) -> Iterator[Finding]:
    """Yield the rows that a file lists, checking its header and every line."""
    return (finding for finding in read_all(path) if isinstance(finding, Finding))


def read_ranges(path: Path) -> Iterator[RangeFinding]:
    """Yield the ranges of a file whose rows are counted and not listed."""
    return (finding for finding in read_all(path) if isinstance(finding, RangeFinding))


def finding_of(line: str) -> Finding | RangeFinding:
    """Read one line that `as_json` has made; KeyError, ValueError or TypeError if it is none."""
    return _finding(json.loads(line))


def _finding(data: Mapping[str, Any]) -> Finding | RangeFinding:
    return RangeFinding.from_json(data) if data.get("type") == RANGE else Finding.from_json(data)


def is_range(line: str) -> bool:
    """Whether a line of a findings file counts the rows of a range, and lists none."""
    return line.startswith(_RANGE_LINE)


def read_all(path: Path) -> Iterator[Finding | RangeFinding]:
    """Yield every finding of a file in its order, checking its header and every line."""
    read_header(path)
    for number, data in enumerate(lines_of(path), start=1):
        if number == 1:
            continue
        try:
            yield _finding(data)
        except DAMAGED as error:
            msg = f"{path} line {number} is not a finding ({type(error).__name__}); run the check again"
            raise UsageError(msg) from None


def copy_findings(source: Path, target: Path, numbers: Collection[int], option: str) -> int:
    """Write the findings with these numbers (from 1) to another file, byte by byte under the same header.

    The file has mode 0600 and appears whole or not at all. Returns how many there are.
    """
    if target.resolve() == source.resolve():
        msg = f"{option} {target}: is the input file; name another"
        raise UsageError(msg)
    if target.exists() and not target.is_file():
        msg = f"{option} {target}: is not a regular file; name one"
        raise UsageError(msg)
    read_header(source)
    copied = 0
    try:
        with source.open(encoding="utf-8") as lines, _begun(target, option) as out:
            try:
                out.write(lines.readline())
                rows = (line for line in lines if not is_range(line))
                for number, line in enumerate(rows, start=1):
                    if number in numbers:
                        out.write(line)
                        copied += 1
                out.flush()
                os.fsync(out.fileno())
                partial_of(target).replace(target)
            except BaseException:
                with suppress(OSError):  # before it is closed, which lets another run take the name
                    partial_of(target).unlink()
                raise
    except UnicodeError:
        msg = f"{source} holds characters that no check writes; run the check again"
        raise UsageError(msg) from None
    except OSError as error:
        msg = f"{option} {target}: {error.strerror}; name a file in a directory that can be written"
        raise UsageError(msg) from None
    return copied
