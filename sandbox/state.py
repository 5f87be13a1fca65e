"""The file that remembers a sandbox between commands: its options, its nodes, their processes."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError, UsageError
from sandbox.layout import NodePlace
from sandbox.options import SandboxOptions
from sandbox.process import ProcessId

STATE_FILE = "sandbox.json"
SCHEMA = 1


@dataclass(frozen=True)
class NodeRecord:
    """The record of one node."""

    place: NodePlace
    jmx_port: int
    # Whether it joined an existing cluster and took its share of the data from the others.
    joins: bool = False
    streams: bool = False
    # A node that was up once knows the ring; only its first start has to wait for it.
    joined: bool = False
    jvm_opts: tuple[str, ...] = ()
    process: ProcessId | None = None

    @property
    def n(self) -> int:
        """The node's number."""
        return self.place.n

    @property
    def live_process(self) -> ProcessId | None:
        """Its process, if that is alive."""
        return self.process if self.process and self.process.alive else None


@dataclass(frozen=True)
class SandboxState:
    """A whole sandbox, as its state file has it."""

    options: SandboxOptions
    nodes: dict[int, NodeRecord]
    next_n: int
    # Set when all nodes were up together; before that, the data is worthless.
    formed: bool = False

    def with_node(self, record: NodeRecord) -> SandboxState:
        """Return a copy in which one node is replaced or added."""
        nodes = {**self.nodes, record.n: record}
        return replace(self, nodes=nodes, next_n=max(self.next_n, record.n + 1))

    def node(self, n: int) -> NodeRecord:
        """Return one node; UsageError if there is none of that number."""
        record = self.nodes.get(n)
        if record is None:
            known = ", ".join(str(number) for number in self.nodes)
            msg = f"node {n}: this sandbox has the nodes {known}"
            raise UsageError(msg)
        return record

    def without_node(self, n: int) -> SandboxState:
        """Return a copy without one node; its number is not used again."""
        return replace(self, nodes={k: v for k, v in self.nodes.items() if k != n})

    def save(self) -> None:
        """Write the state file in one step."""
        plain = {
            "schema": SCHEMA,
            "options": self.options.to_json(),
            "formed": self.formed,
            "next_n": self.next_n,
            "nodes": [asdict(record) for record in self.nodes.values()],
        }
        directory = self.options.dir
        with tempfile.NamedTemporaryFile("w", dir=directory, prefix=".state-", delete=False, encoding="utf-8") as out:
            json.dump(plain, out, indent=1)
        Path(out.name).replace(directory / STATE_FILE)


def load_state(directory: Path) -> SandboxState | None:
    """Read the state of a sandbox directory; None when there never was one."""
    path = directory / STATE_FILE
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read ({error}); remove the directory and start again"
        raise SandboxError(msg) from error
    if plain.get("schema") != SCHEMA:
        msg = f"{path}: written by another version; remove the directory and start again"
        raise SandboxError(msg)
    # The directory may have been moved since.
    options = replace(SandboxOptions.from_json(plain["options"]), dir=directory)
    records = [_record(node) for node in plain["nodes"]]
    return SandboxState(options, {record.n: record for record in records}, plain["next_n"], plain["formed"])


def _record(plain: dict[str, Any]) -> NodeRecord:
    place = NodePlace(**{**plain["place"], "tokens": tuple(plain["place"]["tokens"])})
    process = ProcessId(**plain["process"]) if plain["process"] else None
    return NodeRecord(**{**plain, "place": place, "jvm_opts": tuple(plain["jvm_opts"]), "process": process})


def resized(state: SandboxState) -> SandboxState:
    """Set the number of nodes in the options to the current one."""
    present = [record.place.dc for record in state.nodes.values()]
    counts = {dc: present.count(dc) for dc in dict.fromkeys(present)}
    named = {} if set(counts) == {"dc1"} and not state.options.dcs else counts
    return replace(state, options=replace(state.options, nodes=len(present), dcs=named))


def seeds(state: SandboxState, record: NodeRecord) -> list[str]:
    """Every initial node is a seed; a joining node must not name itself."""
    others = [other for other in state.nodes.values() if other.n != record.n]
    seeds = [other for other in others if not other.joins] or others
    return [other.place.endpoint for other in ([] if record.joins else [record]) + seeds]
