"""Starting nodes: together, under keepers, until every running node sees every other one up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sandbox.config import write_config
from sandbox.errors import StartError
from sandbox.flags import daemon_command, module_flags
from sandbox.layout import owner_of
from sandbox.logs import LogWatch, failure_reason, size_of
from sandbox.machine import accepts_connections
from sandbox.process import KeptProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sandbox.cache import Progress
    from sandbox.flags import Runtime
    from sandbox.options import SandboxOptions
    from sandbox.state import NodeRecord

POLL_S = 0.1
# A node logs that it learns of another's tokens a moment before it uses them.
SETTLE_S = 0.3
# Of the name cassandra, by which system_auth has its row.
FIRST_USER_TOKEN = 356242581507269238
# How long nodes that all see each other may take to make the first user.
USER_S = 5.0
RING_DELAY = "-Dcassandra.ring_delay_ms="
FIRST_NODES_DELAY_MS = 1000
# Also how long a node looks for a first peer; with less time it may give up on a busy machine.
JOINING_DELAY_MS = 10_000


def node_home(options: SandboxOptions, n: int) -> Path:
    """Return the directory of one node."""
    return options.dir / f"node{n}"


def system_log(options: SandboxOptions, n: int) -> Path:
    """Return the log of one node."""
    return node_home(options, n) / "logs" / "system.log"


def console_log(options: SandboxOptions, n: int) -> Path:
    """Return the output file of one node's Java process."""
    return node_home(options, n) / "logs" / "console.log"


class Launch:
    """One round of starting nodes; owns their processes until they are released or killed."""

    def __init__(self, options: SandboxOptions, runtime: Runtime, progress: Progress) -> None:
        self._options = options
        self._runtime = runtime
        self._progress = progress
        self._log_starts: dict[int, tuple[int, int]] = {}
        self._lists = False
        self.kept: dict[int, KeptProcess] = {}

    def start(self, record: NodeRecord, seeds: Iterable[str]) -> KeptProcess:
        """Write the configuration of a node and start its process."""
        options, n = self._options, record.n
        home = node_home(options, n)
        write_config(options, record.place, seeds, home, streams=record.streams)
        listing = [] if self._lists else self._runtime.class_data.listing()
        self._lists = self._lists or bool(listing)
        extra = [*ring_delay(record), *listing, *record.jvm_opts]
        command = daemon_command(self._runtime, options, home, record.jmx_port, extra)
        system, console = system_log(options, n), console_log(options, n)
        self._log_starts[n] = (size_of(system), size_of(console))
        self.kept[n] = KeptProcess(command, console, home)
        return self.kept[n]

    def wait(self, watches: Mapping[int, LogWatch], *, new_cluster: bool) -> None:
        """Wait until the started nodes accept clients, and they and the other running nodes see each other up.

        `watches` holds every running node, the started ones among them.
        """
        awaits_user = new_cluster and self._options.auth
        begun = time.monotonic()
        announced: set[int] = set()
        seen_at: float | None = None
        while True:
            for watch in watches.values():
                watch.read()
            self._raise_if_dead()
            ready = {n for n in self.kept if n in announced or _takes_clients(watches[n])}
            for n in sorted(ready - announced):
                self._progress(f"node {n} takes clients ({time.monotonic() - begun:.0f} s)")
            announced |= ready
            if len(announced) == len(self.kept) and not unseen(watches, self.kept):
                seen_at = seen_at or time.monotonic()
                if not awaits_user or made_user(watches) or time.monotonic() - seen_at > USER_S:
                    time.sleep(SETTLE_S)
                    if self._lists:
                        self._runtime.class_data.make(module_flags())
                    return
            if time.monotonic() - begun > self._options.start_timeout_s:
                raise self._timed_out(watches, announced)
            time.sleep(POLL_S)

    def end(self, n: int) -> None:
        """End one process of this round, which may then be started again."""
        self.kept[n].kill()

    def kill(self) -> None:
        """End all processes of this round."""
        for kept in self.kept.values():
            kept.kill()

    def release(self) -> None:
        """Let all processes of this round outlive us."""
        for kept in self.kept.values():
            kept.release()

    def _raise_if_dead(self) -> None:
        for n, kept in self.kept.items():
            if not kept.id.alive:
                system, console = system_log(self._options, n), console_log(self._options, n)
                reason = failure_reason(system, console, *self._log_starts[n])
                msg = f"node {n} did not start: {reason} (log: {system if system.exists() else console})"
                raise StartError(msg)

    def _timed_out(self, watches: Mapping[int, LogWatch], announced: set[int]) -> StartError:
        limit = f"within {self._options.start_timeout_s:.0f} s"
        silent = sorted(set(self.kept) - announced)
        if silent:
            n = silent[0]
            reason = failure_reason(system_log(self._options, n), console_log(self._options, n), *self._log_starts[n])
            return StartError(f"node {n} took no clients {limit}; last: {reason} (log: {system_log(self._options, n)})")
        observer, other = unseen(watches, self.kept)[0]
        return StartError(
            f"node {observer} does not see node {other} up {limit} (log: {system_log(self._options, observer)})"
        )


def made_user(watches: Mapping[int, LogWatch]) -> bool:
    """Whether a node made the first user where all of them look for it.

    A node makes it as soon as it has tokens itself, on the one it then takes for its owner. On a busy machine that may
    be before it knows the owner: the user lies on a node that nobody asks, and no login works.
    """
    owner = owner_of(FIRST_USER_TOKEN, [watch.place for watch in watches.values()])
    return any(watch.made_user_knowing(owner) for watch in watches.values())


def ring_delay(record: NodeRecord) -> list[str]:
    """Shorten the wait for the ring to settle, except before a node streams, because then it must know all others."""
    if record.joined or not record.joins:
        return [f"{RING_DELAY}{FIRST_NODES_DELAY_MS}"]
    return [] if record.streams else [f"{RING_DELAY}{JOINING_DELAY_MS}"]


def _takes_clients(watch: LogWatch) -> bool:
    return watch.listens and accepts_connections(watch.place.address, watch.place.port)


def wait_seen(watches: Mapping[int, LogWatch], woken: Iterable[int], options: SandboxOptions) -> None:
    """Wait until the woken nodes and the other running ones see each other up, as their logs have it."""
    begun = time.monotonic()
    while True:
        for watch in watches.values():
            watch.read()
        missing = unseen(watches, woken)
        if not missing:
            return
        if time.monotonic() - begun > options.start_timeout_s:
            observer, other = missing[0]
            msg = (
                f"node {observer} does not see node {other} up within {options.start_timeout_s:.0f} s "
                f"(log: {system_log(options, observer)})"
            )
            raise StartError(msg)
        time.sleep(POLL_S)


def unseen(watches: Mapping[int, LogWatch], started: Iterable[int]) -> list[tuple[int, int]]:
    """Return the pairs (observer, other) with a started node in which the observer does not see the other."""
    new = set(started)
    return [
        (observer, other)
        for observer, watch in watches.items()
        for other, target in watches.items()
        if observer != other and {observer, other} & new and not watch.sees(target.place)
    ]
