"""The options of a sandbox, checked as far as possible without touching the machine."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.errors import UsageError
from sandbox.versions import CassandraVersion, find_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_DIR = Path(".sandbox")
HEAP_UNITS = {"m": 1, "g": 1024}
MAX_NODES = 30
MIN_HEAP_MB = 256

# The data on disk depends on these, so they cannot change between two starts of one directory.
FIXED_BY_DATA = ("cassandra", "racks", "num_tokens", "address_base", "one_address", "port", "storage_port")

TAKEN_UP_AT_START = ("node_local", "heap", "java_home", "settings", "jvm_opts", "auth")


@dataclass(frozen=True)
class SandboxOptions:
    """Everything that describes a sandbox; frozen, so one object can start the same cluster twice."""

    dir: Path = DEFAULT_DIR
    nodes: int = 3
    dcs: Mapping[str, int] = field(default_factory=dict)
    racks: int = 1
    cassandra: str = "5.0"
    node_local: bool = True
    address_base: str = "127.0.0.1"
    one_address: bool = False
    port: int = 9042
    storage_port: int = 7000
    num_tokens: int = 16
    heap: str = "1g"
    java_home: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    jvm_opts: Sequence[str] = ()
    auth: bool = False
    tied: bool = False
    start_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        """Refuse options that no cluster can have."""
        if not 1 <= self.node_count <= MAX_NODES:
            msg = f"--nodes {self.node_count}: between 1 and {MAX_NODES} nodes fit on one machine"
            raise UsageError(msg)
        if any(count < 1 for count in self.dcs.values()):
            raise UsageError("--dcs: every data centre needs at least one node")
        if self.racks < 1:
            msg = f"--racks {self.racks}: a data centre has at least one rack"
            raise UsageError(msg)
        if not 1 <= self.num_tokens <= 256:
            msg = f"--num-tokens {self.num_tokens}: between 1 and 256"
            raise UsageError(msg)
        _check_address(self.address_base, 1 if self.one_address else self.node_count)
        _check_ports(self)
        for key, value in self.settings.items():
            check_setting(key, value)
        if self.heap_mb < MIN_HEAP_MB:
            msg = f"--heap {self.heap}: Cassandra needs {MIN_HEAP_MB}m or more"
            raise UsageError(msg)
        find_version(self.cassandra)

    @property
    def dc_counts(self) -> dict[str, int]:
        """Nodes per data centre, in order; one data centre called dc1 unless told otherwise."""
        return dict(self.dcs) or {"dc1": self.nodes}

    @property
    def node_count(self) -> int:
        """How many nodes the cluster has."""
        return sum(self.dcs.values()) if self.dcs else self.nodes

    @property
    def version(self) -> CassandraVersion:
        """The release that runs."""
        return find_version(self.cassandra)

    @property
    def heap_mb(self) -> int:
        """The heap of one node in MiB."""
        match = re.fullmatch(r"(\d+)([mg])", self.heap.lower())
        if not match:
            msg = f"--heap {self.heap}: write it as 512m or 1g"
            raise UsageError(msg)
        return int(match[1]) * HEAP_UNITS[match[2]]

    def to_json(self) -> dict[str, Any]:
        """Turn into plain JSON values, for the state file."""
        plain = asdict(self)
        plain["dir"] = str(self.dir)
        plain["java_home"] = str(self.java_home) if self.java_home else None
        plain["dcs"], plain["settings"] = dict(self.dcs), dict(self.settings)
        plain["jvm_opts"] = list(self.jvm_opts)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> SandboxOptions:
        """Turn back from what `to_json` wrote."""
        values = dict(plain)
        values["dir"] = Path(values["dir"])
        values["java_home"] = Path(values["java_home"]) if values["java_home"] else None
        values["jvm_opts"] = tuple(values["jvm_opts"])
        return cls(**values)


def parse_dcs(text: str) -> dict[str, int]:
    """Read `dc1=3,dc2=2`."""
    counts: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([A-Za-z0-9_-]+)\s*=\s*(\d+)\s*", part)
        if not match:
            msg = f"--dcs {text}: write it as dc1=3,dc2=2"
            raise UsageError(msg)
        if match[1] in counts:
            msg = f"--dcs {text}: {match[1]} is named twice"
            raise UsageError(msg)
        counts[match[1]] = int(match[2])
    return counts


def parse_setting(text: str) -> tuple[str, str]:
    """Read `KEY=VALUE`, the value being YAML on one line."""
    key, equals, value = text.partition("=")
    if not equals:
        msg = f"--set {text}: write it as KEY=VALUE, for example hinted_handoff_enabled=false"
        raise UsageError(msg)
    check_setting(key.strip(), value.strip())
    return key.strip(), value.strip()


def check_setting(key: str, value: str) -> None:
    """Refuse a key or value that would break the structure of cassandra.yaml."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
        msg = f"--set {key}: not the name of a cassandra.yaml key (nested keys are joined by dots)"
        raise UsageError(msg)
    if not value or "\n" in value:
        msg = f"--set {key}: the value is one line of YAML and not empty"
        raise UsageError(msg)


def _check_address(base: str, count: int) -> None:
    try:
        first = ipaddress.IPv4Address(base)
    except ValueError:
        msg = f"--address-base {base}: not an IPv4 address such as 127.0.0.1"
        raise UsageError(msg) from None
    if not first.is_loopback or not (first + (count - 1)).is_loopback:
        msg = f"--address-base {base}: a sandbox listens on loopback (127.x.x.x) only"
        raise UsageError(msg)


def _check_ports(options: SandboxOptions) -> None:
    span = options.node_count if options.one_address else 1
    for name, port in (("--port", options.port), ("--storage-port", options.storage_port)):
        if not 1024 <= port <= 65535 - span:
            msg = f"{name} {port}: between 1024 and {65535 - span}"
            raise UsageError(msg)
    if abs(options.port - options.storage_port) < span:
        msg = f"--port {options.port} and --storage-port {options.storage_port} overlap"
        raise UsageError(msg)
