"""Which tests keep to one process where pytest-xdist runs several, and in which order they begin.

A module's tests stay together. So do all of those that use the cluster with logins, or a second cluster: it starts
once. Of the other clusters that several modules share each process has its own, at addresses of its own.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

GUARDED = "guarded_cluster"
"""The name of the tests that use the cluster with logins."""
_GUARDED = frozenset({"faults", "large_partitions", "write_refusals", "security", "trust"})
PAIR = "two_clusters"
"""The name of the tests that use a second cluster."""
_PAIR = frozenset({"two_clusters", "target_watch", "migration_page", "migration_at_scale"})
_LONGEST = (
    GUARDED,
    PAIR,
    *(
        f"tests/cluster/test_{module}.py"
        for module in ("repair", "maintenance", "topology", "pages", "repair_kinds",
                       "several_processes", "scale", "refusals", "identity",
                       "older_servers", "unusual_data", "watch", "fortnight", "order_on_server", "damage_matrix")
    ),
)  # fmt: skip
"""What begins first, so that two processes end at about the same time with what is short."""


def scope_of(nodeid: str) -> str:
    """Return the name of the tests that one process runs one after the other."""
    path = PurePosixPath(nodeid.partition("::")[0])
    name = path.stem.removeprefix("test_") if path.parent.name == "cluster" else ""
    return GUARDED if name in _GUARDED else PAIR if name in _PAIR else str(path)


def turn_of(nodeid: str) -> int:
    """Return when a test's turn is: the longest, then what else needs a cluster, then the others, where they were."""
    scope = scope_of(nodeid)
    if scope in _LONGEST:
        return _LONGEST.index(scope)
    return len(_LONGEST) + (not scope.startswith("tests/cluster/"))


class ByCluster(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out tests by `scope_of`; `--dist loadgroup` of pytest-xdist 3.8 does not see its groups with pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
