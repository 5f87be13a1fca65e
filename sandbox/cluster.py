"""The sandbox itself: start, stop, grow and remove a cluster."""

from __future__ import annotations

import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sandbox.cache import Progress, cache_dir, exclusive
from sandbox.class_data import ClassData
from sandbox.errors import SandboxError, UsageError
from sandbox.flags import Runtime, nodetool_command
from sandbox.jars import provide_jars
from sandbox.java import find_java
from sandbox.launch import Launch, made_user, node_home, system_log, wait_seen
from sandbox.layout import plan_cluster, plan_joining
from sandbox.logs import LogWatch
from sandbox.machine import check_listening, check_memory, free_jmx_port
from sandbox.naming import provide_naming
from sandbox.options import FIXED_BY_DATA, TAKEN_UP_AT_START, SandboxOptions
from sandbox.process import run
from sandbox.state import STATE_FILE, NodeRecord, SandboxState, load_state, resized, seeds
from sandbox.status import Node, SandboxStatus, hosts_of, look_at, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from sandbox.process import KeptProcess, ProcessId

How = Literal["term", "kill", "freeze"]
LOCK_FILE = "lock"
STOP_TIMEOUT_S = 30.0


def _silent(_: str) -> None:
    pass


class Sandbox:
    """A Cassandra cluster on loopback in its own directory.

    As a context manager it is tied to this process: the nodes end with the process in any case.
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.options = replace(options, dir=options.dir.expanduser().absolute())
        self._kept: dict[int, KeptProcess] = {}

    @classmethod
    def attach(cls, directory: Path | str) -> Sandbox:
        """Open an existing sandbox, running or not."""
        path = Path(directory).expanduser().absolute()
        state = load_state(path)
        if state is None:
            raise _no_sandbox(path)
        # What this process starts there must outlive it.
        return cls(replace(state.options, tied=False))

    def __enter__(self) -> Self:
        self.options = replace(self.options, tied=True)
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down(how="kill")

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, by number."""
        return self.status().nodes

    @property
    def hosts(self) -> list[str]:
        """Where clients connect: addresses, with ports if these differ."""
        return list(hosts_of(self._state()))

    def status(self) -> SandboxStatus:
        """Look at every node."""
        return status_of(self._state())

    def up(self, progress: Progress | None = None) -> None:
        """Start the cluster, or those of its nodes that are not running; add nodes if the options ask for more."""
        say = progress or _silent
        with self._locked(create=True):
            state = load_state(self.options.dir)
            if state is None or not state.formed:
                self._form(state, say)
            else:
                self._resume(self._reconcile(state, say), say)

    def add(
        self,
        dc: str | None = None,
        *,
        stream: bool = True,
        jvm_opts: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Node:
        """Let one more node join the running cluster.

        It streams its ranges from the others first; with `stream=False` it owns them at once and holds none of their
        rows, as after a failed join.
        """
        with self._locked():
            record = self._join(dc, progress or _silent, stream=stream, jvm_opts=tuple(jvm_opts))
            return look_at(self._state(), record)

    def start(self, n: int, progress: Progress | None = None) -> None:
        """Start one node, or wake it if it is frozen, and wait until all running nodes see it up."""
        with self._locked():
            state = self._state()
            record = state.node(n)
            process = record.live_process
            if process is None:
                self._launch(state, [record], progress or _silent)
            elif process.frozen:
                self._wake(state, record, process, progress or _silent)

    def stop(self, n: int, how: How = "term") -> None:
        """Stop one node: cleanly (`term`), at once (`kill`), or suspended (`freeze`)."""
        with self._locked():
            state = self._state()
            record = state.node(n)
            if how == "freeze":
                if record.live_process is None:
                    msg = f"node {n} is not running: nothing to freeze"
                    raise SandboxError(msg)
                record.live_process.signal(signal.SIGSTOP)
            else:
                self._end(state, [record], how)

    def remove(self, n: int, *, force: bool = False, progress: Progress | None = None) -> None:
        """Take one node out of the cluster for good: its data moves to the others, then it stops."""
        say = progress or _silent
        with self._locked():
            state = self._state()
            record = state.node(n)
            if len(state.nodes) == 1:
                msg = f"node {n} is the last one: use down --delete"
                raise UsageError(msg)
            if record.live_process is None or record.live_process.frozen:
                msg = f"node {n} is not up: start it first, so that it can hand its data over"
                raise SandboxError(msg)
            say(f"node {n} hands its data over")
            done = self.nodetool(n, "decommission", *(["--force"] if force else []))
            if done.returncode != 0:
                lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
                msg = f"node {n} was not removed: {lines[0].strip() if lines else 'nodetool failed'}"
                raise SandboxError(msg)
            self._end(state, [record], "term")
            resized(self._state().without_node(n)).save()
            shutil.rmtree(node_home(state.options, n), ignore_errors=True)

    def down(self, *, how: Literal["term", "kill"] = "term", delete: bool = False) -> int:
        """Stop every node and return how many ran; `delete` removes their data too."""
        with self._locked():
            state = self._state()
            running = [record for record in state.nodes.values() if record.live_process]
            # Data that is about to be removed need not be flushed.
            self._end(state, running, "kill" if delete else how)
            if delete:
                _delete(state)
                (self.options.dir / LOCK_FILE).unlink()
                with suppress(OSError):  # the directory holds files of somebody else
                    self.options.dir.rmdir()
        return len(running)

    def nodetool(self, n: int, *args: str, capture: bool = True) -> subprocess.CompletedProcess[str]:
        """Run nodetool against one node; without `capture` it prints to our output."""
        state = self._state()
        record = state.node(n)
        if record.live_process is None:
            msg = f"node {n} is not running: start it with 'consistency sandbox start {n}'"
            raise SandboxError(msg)
        runtime = _runtime(state.options, _silent)
        home = node_home(state.options, n)
        done = run(nodetool_command(runtime, home, record.jmx_port, args), capture=capture)
        # The real command line is a hundred jars long and does not help the caller.
        return subprocess.CompletedProcess(["nodetool", *args], done.returncode, done.stdout, done.stderr)

    # -- starting ----------------------------------------------------------------------------------

    def _form(self, former: SandboxState | None, say: Progress) -> None:
        """Start a new cluster; remains of an unfinished attempt are deleted."""
        if former is not None:
            self._end(former, former.nodes.values(), "kill")
            _delete(former)
        elif any(entry.name != LOCK_FILE for entry in self.options.dir.iterdir()):
            msg = f"--dir {self.options.dir}: holds files that are not a sandbox's; name another directory"
            raise UsageError(msg)
        places = plan_cluster(self.options)
        records: dict[int, NodeRecord] = {}
        for place in places:
            taken = [record.jmx_port for record in records.values()]
            records[place.n] = NodeRecord(place, free_jmx_port(self.options.dir, place.n, taken))
        state = SandboxState(self.options, records, next_n=len(places) + 1)
        self._launch(state, list(records.values()), say)
        replace(self._state(), formed=True).save()

    def _reconcile(self, state: SandboxState, say: Progress) -> SandboxState:
        """Compare the options with those of the directory; adopt those that may change."""
        for name in FIXED_BY_DATA:
            held, asked = getattr(state.options, name), getattr(self.options, name)
            if name == "cassandra" and state.options.version == self.options.version:
                continue  # "5.0" and its newest release are the same
            if held != asked:
                option = "--" + name.replace("_", "-")
                msg = (
                    f"{option} {asked}: {self.options.dir} holds the data of a sandbox with {option} {held}; "
                    "name another --dir, or remove that data with 'consistency sandbox down --delete'"
                )
                raise UsageError(msg)
        if any(record.live_process for record in state.nodes.values()) and any(
            getattr(state.options, name) != getattr(self.options, name) for name in TAKEN_UP_AT_START
        ):
            say("nodes that are running take up changed options when they are started next")
        # The size stays until more nodes have really joined.
        state = replace(state, options=replace(self.options, nodes=state.options.nodes, dcs=state.options.dcs))
        state.save()
        return state

    def _resume(self, state: SandboxState, say: Progress) -> None:
        for record in state.nodes.values():
            process = record.live_process
            if process is not None and process.frozen:
                self._wake(state, record, process, say)
        stopped = [record for record in state.nodes.values() if record.live_process is None]
        if stopped:
            self._launch(state, stopped, say)
        for dc in self._missing_dcs(self._state()):
            self._join(dc, say)

    def _missing_dcs(self, state: SandboxState) -> list[str]:
        """Return the data centre of each node that the cluster lacks according to the options."""
        present = [record.place.dc for record in state.nodes.values()]
        missing: list[str] = []
        for dc, wanted in self.options.dc_counts.items():
            if present.count(dc) > wanted:
                msg = (
                    f"nodes of {dc}: {present.count(dc)}, the options ask for {wanted}: "
                    "take nodes out with 'consistency sandbox remove N'"
                )
                raise UsageError(msg)
            missing.extend([dc] * (wanted - present.count(dc)))
        return missing

    def _join(
        self, dc: str | None, say: Progress, *, stream: bool = True, jvm_opts: tuple[str, ...] = ()
    ) -> NodeRecord:
        state = self._state()
        down = [record.n for record in state.nodes.values() if not record.live_process or record.live_process.frozen]
        if down:
            msg = f"node {down[0]} is not up: a node can join only a cluster that is up ('consistency sandbox up')"
            raise SandboxError(msg)
        places = [record.place for record in state.nodes.values()]
        place = plan_joining(state.options, state.next_n, dc or places[0].dc, places)
        taken = [record.jmx_port for record in state.nodes.values()]
        port = free_jmx_port(state.options.dir, place.n, taken)
        record = NodeRecord(place, port, joins=True, streams=stream, jvm_opts=jvm_opts)
        say(f"node {place.n} joins {place.dc}")
        try:
            self._launch(state.with_node(record), [record], say)
        except BaseException:
            # A node that did not join leaves only its log, so that the next attempt is like the first.
            replace(self._state().without_node(place.n), next_n=place.n).save()
            shutil.rmtree(node_home(state.options, place.n) / "data", ignore_errors=True)
            raise
        state = self._state()
        resized(state).save()
        return state.nodes[place.n]

    def _launch(self, state: SandboxState, records: list[NodeRecord], say: Progress) -> None:
        """Start some nodes together; on any failure none of them keeps running."""
        check_listening(record.place for record in records)
        check_memory(len(records), state.options.heap_mb)
        launch = Launch(state.options, _runtime(state.options, say), say)
        state.save()
        watches = {
            record.n: LogWatch(record.place, system_log(state.options, record.n))
            for record in state.nodes.values()
            if record in records or (record.live_process and not record.live_process.frozen)
        }
        for watch in watches.values():
            watch.skip_to_end()
        say(f"starting {_names(records)} of Cassandra {state.options.version.release}")
        try:
            for record in records:
                state = _started(launch, state, record)
            launch.wait(watches, new_cluster=not state.formed)
            if state.options.auth and not state.formed and not made_user(watches):
                say(f"starting node {records[-1].n} again: the first user was made before the nodes knew each other")
                launch.end(records[-1].n)
                watches[records[-1].n].skip_to_end()
                state = _started(launch, state, records[-1])
                launch.wait(watches, new_cluster=True)
        except BaseException:
            launch.kill()
            raise
        for record in records:
            state = state.with_node(replace(state.nodes[record.n], joined=True))
        state.save()
        if self.options.tied:
            self._kept.update(launch.kept)
        else:
            launch.release()

    def _wake(self, state: SandboxState, record: NodeRecord, process: ProcessId, say: Progress) -> None:
        """Let a frozen node go on, and wait until it and the others see each other up again."""
        say(f"waking node {record.n}")
        process.signal(signal.SIGCONT)
        watches = {
            other.n: LogWatch(other.place, system_log(state.options, other.n))
            for other in state.nodes.values()
            if other.live_process and not other.live_process.frozen
        }
        wait_seen(watches, [record.n], state.options)

    # -- stopping ----------------------------------------------------------------------------------

    def _end(self, state: SandboxState, records: Iterable[NodeRecord], how: How) -> None:
        ending = [(record, record.live_process) for record in records]
        for _, process in ending:
            if process is not None:
                process.signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
                process.signal(signal.SIGCONT)  # a frozen process receives no other signal
        for record, process in ending:
            if process is not None and not process.wait(STOP_TIMEOUT_S):
                process.signal(signal.SIGKILL)
                process.wait(STOP_TIMEOUT_S)
            if record.n in self._kept:
                self._kept.pop(record.n).reap()
            state = state.with_node(replace(record, process=None))
        state.save()

    # -- the directory -----------------------------------------------------------------------------

    @contextmanager
    def _locked(self, *, create: bool = False) -> Iterator[None]:
        directory = self.options.dir
        if create:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                msg = f"--dir {directory}: {error.strerror}"
                raise UsageError(msg) from error
        elif not (directory / STATE_FILE).exists():
            raise _no_sandbox(directory)
        with exclusive(directory / LOCK_FILE):
            yield

    def _state(self) -> SandboxState:
        state = load_state(self.options.dir)
        if state is None:
            raise _no_sandbox(self.options.dir)
        return state


def _no_sandbox(directory: Path) -> SandboxError:
    return SandboxError(
        f"no sandbox in {directory}: start one with 'consistency sandbox up', or name its directory with --dir"
    )


def _runtime(options: SandboxOptions, say: Progress) -> Runtime:
    cache = cache_dir()
    java = find_java(options.version, options.java_home, cache, say)
    jars = provide_jars(options.version.lock_path, cache, say)
    return Runtime(java, jars, provide_naming(java, cache, say), ClassData.of(java, jars, cache))


def _started(launch: Launch, state: SandboxState, record: NodeRecord) -> SandboxState:
    kept = launch.start(record, seeds(state, record))
    state = state.with_node(replace(record, process=kept.id))
    state.save()
    return state


def _names(records: Sequence[NodeRecord]) -> str:
    numbers = ", ".join(str(record.n) for record in records)
    return f"{'node' if len(records) == 1 else 'nodes'} {numbers}"


def _delete(state: SandboxState) -> None:
    # Not only known nodes, because a node that failed to join has left its log.
    for home in state.options.dir.glob("node[0-9]*"):
        shutil.rmtree(home, ignore_errors=True)
    (state.options.dir / STATE_FILE).unlink(missing_ok=True)
