"""Which tests keep to one process where pytest-xdist runs several: those of one Cassandra cluster.

A cluster starts once, and one test at a time damages it. Tests without a cluster are shared out by file, after them.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

_OWN = frozenset({"containers", "older_servers", "pages", "topology"})
"""The modules of tests/cluster that start clusters of their own, at addresses of their own."""
_GUARDED = frozenset({"faults", "large_partitions", "write_refusals", "security", "trust"})
_LONGEST = (
    "cluster",
    "guarded_cluster",
    *(f"tests/cluster/test_{module}.py" for module in ("topology", "older_servers", "pages")),
    "tests/sandbox/test_real_nodes.py",
    "tests/unit/test_simulation.py",
    "tests/unit/test_repair_simulation.py",
    "tests/browser/test_page_in_chromium.py",
)
"""What begins first, so that two processes end at about the same time with what is short."""


def scope_of(nodeid: str) -> str:
    """Return the name of the tests that one process runs one after the other."""
    path = PurePosixPath(nodeid.partition("::")[0])
    module = path.stem.removeprefix("test_")
    if path.parent.name != "cluster" or module in _OWN:
        return str(path)
    return "guarded_cluster" if module in _GUARDED else "cluster"


def turn_of(nodeid: str) -> int:
    """Return when a test's turn is: one that is not among the longest comes after those, where it was."""
    scope = scope_of(nodeid)
    return _LONGEST.index(scope) if scope in _LONGEST else len(_LONGEST)


class ByCluster(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out tests by `scope_of`; `--dist loadgroup` of pytest-xdist 3.8 does not see its groups with pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
