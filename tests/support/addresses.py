"""The loopback addresses of the clusters that tests start: a network each, so that any two may be up at once.

CONSISTENCY_TEST_NET=127.7 moves them all, beside another run on the same machine. The processes of `-n` have their own.
"""

from __future__ import annotations

import os

_NET = os.environ.get("CONSISTENCY_TEST_NET", "127.0")
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 3
_THIRD = {
    "one node": 20,
    "shared": 31,
    "traced": 32,
    "guarded": 33,
    "4.1": 34,
    "4.0": 35,
    "client certificates": 36,
    "two data centres": 37,
    "upgrade": 38,
    "moving": 39,
    "stoppable": 41,
    "roomy": 43,
    "target": 44,
    "pages": 63,
}


def network(cluster: str) -> str:
    """Return the first three parts of a cluster's addresses."""
    return f"{_NET}.{_THIRD[cluster] + 64 * _PROCESS}"


def address(cluster: str, n: int = 1) -> str:
    """Return the address of a cluster's node `n`; what is no node of it has a number far from theirs."""
    return f"{network(cluster)}.{n}"
