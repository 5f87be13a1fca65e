"""Random histories of writes, deletes and TTLs on random subsets of replicas: repair ends in the merge, or abstains."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.simulation.repairing import run_repair_case

SEEDS = int(os.environ.get("CONSISTENCY_REPAIR_SEEDS", "400"))


@pytest.mark.parametrize("block", range(4))
def test_repair_ends_in_the_merge_or_abstains(block: int) -> None:
    """Nothing covered comes back, nothing live goes, no write time goes back, on any replica of any seed."""
    seen: Counter[str] = Counter()
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        outcome = run_repair_case(seed)
        assert not outcome.broken, f"seed {seed}: " + "\n".join(outcome.broken[:5])
        seen.update(f"{row.rule.value} {row.action.value}" for row in outcome.plan.rows)
    for needed in ("last-write-wins reconcile", "last-write-wins write-back", "zombie-suspect none"):
        assert seen[needed], seen
