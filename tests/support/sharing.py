"""Which tests keep to one process where pytest-xdist runs several, and in which order they begin.

A module's tests stay together. So do all of those that use the cluster with logins, or a second cluster: it starts
once. Of the other clusters that several modules share two processes have their own, at addresses of their own. A third
process and those after it take what starts its own nodes, then what needs none: they use the processors while tests of
the others wait for nodes, periods and settle windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from xdist.scheduler import LoadScopeScheduling

GUARDED = "guarded_cluster"
"""The name of the tests that use the cluster with logins."""
GUARDED_MODULES = frozenset({"faults", "large_partitions", "write_refusals", "security", "trust"})
PAIR = "two_clusters"
"""The name of the tests that use a second cluster."""
PAIR_MODULES = frozenset({"two_clusters", "target_watch", "migration_page", "migration_at_scale"})


def _modules(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/cluster/test_{name}.py" for name in names)


LONGEST = (
    GUARDED,
    PAIR,
    *_modules("pages", "repair", "older_servers", "repair_kinds", "topology", "watch", "maintenance", "identity",
              "live_page", "several_processes", "refusals", "damage_matrix", "deleted_or_missing", "unusual_data",
              "respelled", "scale", "fortnight"),
)  # fmt: skip
"""What begins first, so that the processes end at about the same time with what is short."""
OF_THEIR_OWN = frozenset(_modules("pages", "older_servers", "topology", "mixed_versions", "compose", "containers"))
"""Modules that start their own nodes."""
SHARERS = 2
"""So many processes have a shared cluster; the others have one if nothing else is left for them."""


def scope_of(nodeid: str) -> str:
    """Return the name of the tests that one process runs one after the other."""
    path = PurePosixPath(nodeid.partition("::")[0])
    name = path.stem.removeprefix("test_") if path.parent.name == "cluster" else ""
    return GUARDED if name in GUARDED_MODULES else PAIR if name in PAIR_MODULES else str(path)


def turn_of(nodeid: str) -> int:
    """Return when a test's turn is: the longest, then what else needs a cluster, then the others, where they were."""
    scope = scope_of(nodeid)
    if scope in LONGEST:
        return LONGEST.index(scope)
    return len(LONGEST) + (not scope.startswith("tests/cluster/"))


def shares(scope: str) -> bool:
    """Whether tests need a cluster that a process starts once for all of its modules."""
    return scope in {GUARDED, PAIR} or (scope.startswith("tests/cluster/") and scope not in OF_THEIR_OWN)


def next_of(waiting: Iterable[str], process: int, processes: int) -> str:
    """Return which of the waiting scopes, in the order of their turns, a process takes, counted from 0."""
    scopes = list(waiting)
    if processes <= SHARERS:
        return scopes[0]
    return next((scope for scope in scopes if shares(scope) is (process < SHARERS)), scopes[0])


class ByCluster(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out tests by `scope_of`; `--dist loadgroup` of pytest-xdist 3.8 does not see its groups with pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        """Have the base class, which hands out the first, find the right one there."""
        process = int(node.gateway.id.removeprefix("gw"))
        self.workqueue.move_to_end(next_of(self.workqueue, process, self.numnodes), last=False)
        super()._assign_work_unit(node)
