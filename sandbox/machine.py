"""What this machine can run: checks free ports and memory before anything is started."""

from __future__ import annotations

import errno
import socket
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.layout import NodePlace

# Off-heap memory, code and class space of one node, measured.
NODE_OVERHEAD_MB = 400
# Below the range from which Linux gives ports to outgoing connections.
JMX_FIRST, JMX_SPAN = 10_000, 20_000
CGROUP = Path("/sys/fs/cgroup")


def check_listening(places: Iterable[NodePlace]) -> None:
    """Raise unless every address and port can be listened on."""
    for place in places:
        for what, option, port in (
            ("CQL", "--port", place.port),
            ("storage", "--storage-port", place.storage_port),
        ):
            problem = _bind_error(place.address, port)
            if problem == errno.EADDRINUSE:
                msg = (
                    f"{place.address}:{port} ({what} port of node {place.n}) is in use: stop what listens "
                    f"there, or choose other addresses with --address-base or another {option}"
                )
                raise SandboxError(msg)
            if problem == errno.EADDRNOTAVAIL:
                msg = (
                    f"{place.address} (node {place.n}) is not an address of this machine: "
                    "use --one-address, which puts all nodes on one address"
                )
                raise SandboxError(msg)
            if problem:
                msg = f"{place.address}:{port} (node {place.n}) cannot be listened on: errno {problem}"
                raise SandboxError(msg)


def check_memory(nodes: int, heap_mb: int) -> None:
    """Raise unless the nodes to start fit into what is available now."""
    needed = nodes * (heap_mb + NODE_OVERHEAD_MB)
    available = available_mb()
    if needed > available:
        msg = (
            f"not enough memory: --nodes {nodes} with --heap {heap_mb}m takes about {needed} MB, {available} MB "
            "are available; use a smaller --heap or fewer --nodes"
        )
        raise SandboxError(msg)


def available_mb() -> int:
    """Return the memory that is free for us, seen from inside a container too."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
            # The page cache counts as used but can be reclaimed.
            used = int((CGROUP / "memory.current").read_text()) - int(stat.get("file", 0))
            available = min(available, max(int(limit) - used, 0))
    except (OSError, ValueError):
        pass  # not Linux, or no such controller: use the machine's own figure
    return available // 2**20


def free_jmx_port(directory: Path, n: int, taken: Iterable[int]) -> int:
    """Find a free port on 127.0.0.1; each sandbox starts its search elsewhere, so that two rarely collide."""
    first = zlib.crc32(f"{directory}/{n}".encode()) % JMX_SPAN
    avoid = set(taken)
    for step in range(JMX_SPAN):
        port = JMX_FIRST + (first + step) % JMX_SPAN
        if port not in avoid and _bind_error("127.0.0.1", port) == 0:
            return port
    raise SandboxError("no free port on 127.0.0.1 for JMX")


def accepts_connections(address: str, port: int) -> bool:
    """Whether something listens on the port."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def _bind_error(address: str, port: int) -> int:
    """Return 0 when the port can be listened on, else the error number."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Java does, because connections of a node that has just ended may linger on the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            return error.errno or errno.EIO
    return 0
