"""Which process runs which tests: the clusters that several modules share are few."""

from __future__ import annotations

from itertools import chain, zip_longest
from pathlib import Path

from tests.support.sharing import (
    GUARDED,
    GUARDED_MODULES,
    LONGEST,
    OF_THEIR_OWN,
    PAIR,
    PAIR_MODULES,
    next_of,
    scope_of,
    shares,
    turn_of,
)

HERE = Path(__file__).resolve().parents[2]
MODULES = sorted(str(path.relative_to(HERE)) for path in (HERE / "tests").glob("*/test_*.py"))
SCOPES = list(dict.fromkeys(scope_of(f"{module}::test") for module in sorted(MODULES, key=turn_of)))
"""In the order of their turns."""


def handed_out(processes: int) -> dict[int, list[str]]:
    """Hand out everything, a scope each in turn."""
    waiting, taken = list(SCOPES), {process: list[str]() for process in range(processes)}
    while waiting:
        for process in range(processes):
            if waiting:
                waiting.remove(scope := next_of(waiting, process, processes))
                taken[process].append(scope)
    return taken


def test_everything_is_handed_out_once() -> None:
    """By any number of processes."""
    for processes in (1, 2, 3, 5):
        assert sorted(chain(*handed_out(processes).values())) == sorted(SCOPES)


def test_modules_that_are_named_exist() -> None:
    """One that is renamed would lose its turn, or its cluster."""
    assert {*LONGEST, *OF_THEIR_OWN} - {GUARDED, PAIR} <= set(MODULES)
    assert {f"tests/cluster/test_{name}.py" for name in GUARDED_MODULES | PAIR_MODULES} <= set(MODULES)


def test_two_processes_take_turns_as_they_come() -> None:
    """First the longest, then what else needs a cluster, at last what needs none."""
    assert SCOPES[:2] == [GUARDED, PAIR]
    assert list(chain(*zip_longest(*handed_out(2).values())))[: len(SCOPES)] == SCOPES
    clusters = [scope in {GUARDED, PAIR} or scope.startswith("tests/cluster/") for scope in SCOPES]
    assert clusters == sorted(clusters, reverse=True)


def test_a_third_process_takes_no_shared_cluster_while_there_is_anything_else() -> None:
    """It begins with what starts its own nodes; what shares a cluster is left to the first two."""
    taken = handed_out(3)
    assert taken[2][0] == "tests/cluster/test_pages.py"
    assert not any(shares(scope) for scope in taken[2])
    shared = {scope for scope in SCOPES if shares(scope)}
    assert {*taken[0][: len(shared) // 2], *taken[1][: len(shared) // 2]} <= shared
    assert next_of([GUARDED, PAIR], 2, 3) == GUARDED  # nothing else is left
    assert next_of(["tests/unit/test_ring.py"], 0, 3) == "tests/unit/test_ring.py"
