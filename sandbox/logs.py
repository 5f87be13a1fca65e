"""What a node's log says: which nodes it sees up, whether it accepts clients, why it did not start."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.layout import NodePlace

# Logged once at the head of every start.
STARTS = re.compile(r"CassandraDaemon\.java.* - (?:JVM vendor/version|Hostname): ")
NORMAL = re.compile(r" - Node [^/\s]*/(\d+\.\d+\.\d+\.\d+:\d+) state (?:jump to )?NORMAL")
SEEN = re.compile(r" - InetAddress [^/\s]*/(\d+\.\d+\.\d+\.\d+:\d+) is now (UP|DOWN)")
LISTENS = re.compile(r" - Starting listening for CQL clients on ")
SUPERUSER = re.compile(r" - Created default superuser role ")
LOG_HEAD = re.compile(r"^(ERROR|WARN|INFO|DEBUG)\s+\[[^\]]*\] \S+ \S+ \S+ - ")
EXCEPTION = re.compile(r"^(?:Caused by: |Exception in thread .*? )?[\w.$]*(?:Exception|Error)\b.*")
JAVA_REFUSES = "Error: Could not create the Java Virtual Machine."
REASON_LENGTH = 400


class LogWatch:
    """Follows one node's system.log from the beginning of its latest start."""

    def __init__(self, place: NodePlace, log: Path) -> None:
        self.place = place
        self.log = log
        self.listens = False
        self.user_made_among: frozenset[str] | None = None
        """Whose tokens the node knew when it made the first user; None if it made none."""
        self._up: dict[str, bool] = {}
        self._normal: set[str] = set()
        self._offset = 0
        self._rest = b""
        for rolled in sorted(log.parent.glob(f"{log.name}.*"), reverse=True):
            for line in _lines(rolled, 0):
                self._take(line)

    def skip_to_end(self) -> None:
        """Skip the existing lines and count only later ones."""
        self.read()
        self._forget()

    def sees(self, place: NodePlace) -> bool:
        """Whether it sees another node up and knows its tokens."""
        return self._up.get(place.endpoint, False) and place.endpoint in self._normal

    def made_user_knowing(self, place: NodePlace) -> bool:
        """Whether it made the first user, and knew this node's tokens by then; its own it knows."""
        return self.user_made_among is not None and place.endpoint in self.user_made_among

    def read(self) -> None:
        """Read what was logged since the last call."""
        try:
            with self.log.open("rb") as handle:
                if handle.seek(0, 2) < self._offset:
                    self._offset, self._rest = 0, b""  # rolled over: this is a new file
                handle.seek(self._offset)
                data = handle.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line.decode("utf-8", "replace"))

    def _take(self, line: str) -> None:
        if STARTS.search(line):
            self._forget()
        elif match := SEEN.search(line):
            self._up[match[1]] = match[2] == "UP"
        elif match := NORMAL.search(line):
            self._normal.add(match[1])
        elif LISTENS.search(line):
            self.listens = True
        elif SUPERUSER.search(line):
            self.user_made_among = frozenset(self._normal)

    def _forget(self) -> None:
        self._up.clear()
        self._normal.clear()
        self.listens, self.user_made_among = False, None


def failure_reason(system_log: Path, console: Path, system_from: int = 0, console_from: int = 0) -> str:
    """Return in one line why a node ended, from its output since the given offsets."""
    return (
        _reason_in(_lines(system_log, system_from))
        or _reason_in(_lines(console, console_from))
        or _last_line(_lines(console, console_from))
    )


def size_of(path: Path) -> int:
    """Return the length of a file, 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _lines(path: Path, start: int) -> list[str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    # A shorter file than before is a new one: it was rolled over.
    fresh = data[start:] if len(data) >= start else data
    return fresh.decode("utf-8", "replace").splitlines()


def _reason_in(lines: list[str]) -> str:
    """Find the last error, and the root cause below it when one is printed."""
    if JAVA_REFUSES in lines[1:]:
        return _shorten(lines[lines.index(JAVA_REFUSES) - 1])  # the line before names the option
    heads = [i for i, line in enumerate(lines) if line.startswith("ERROR")]
    start = heads[-1] if heads else 0
    causes = [line for line in lines[start:] if EXCEPTION.match(line)]
    if heads:
        message = LOG_HEAD.sub("", lines[start])
        cause = next((line for line in reversed(causes) if line.startswith("Caused by: ")), "".join(causes[:1]))
        return _shorten(f"{message} ({cause})" if cause and cause not in message else message)
    return _shorten(causes[-1]) if causes else ""


def _last_line(lines: list[str]) -> str:
    return _shorten(next((line for line in reversed(lines) if line.strip()), "it printed nothing"))


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= REASON_LENGTH else flat[: REASON_LENGTH - 1] + "…"
