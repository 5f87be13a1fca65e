"""The mutants break lines that are there: one whose line was moved or reworded would prove nothing."""

from __future__ import annotations

from pathlib import Path

from tests.mutants import MUTANTS

ROOT = Path(__file__).parents[2]


def test_every_mutant_finds_its_line_once() -> None:
    """And no two mutants have one name."""
    found = {mutant.what: (ROOT / mutant.place).read_text(encoding="utf-8").count(mutant.old) for mutant in MUTANTS}
    assert {what: count for what, count in found.items() if count != 1} == {}
    assert len(found) == len(MUTANTS)
