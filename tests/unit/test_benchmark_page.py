"""docs/benchmarks.md is rendered from the raw figures, which are kept whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pairs
from benchmarks.page import read_raw, render, write_raw
from benchmarks.rounds import Sample
from benchmarks.suites import CONTENT, PREVIEW, Row, Target

MACHINE = {"processors": 2, "memory_gb": 23, "python": "3.12.1", "cassandra": "5.0.8"}


def grown(rows: int, ours_s: float, theirs_s: float) -> Row:
    """Return a row of the suite `growth`."""
    figures = {CONTENT: [Sample(ours_s, 0.5 + rows / 1e7, 50.0)] * 2, PREVIEW: [Sample(theirs_s)] * 2}
    return Row("growth", f"{rows:,} rows", rows, figures, (Target(CONTENT, PREVIEW, 1.0),))


def test_a_page_says_what_was_reached_and_what_was_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratio and limit of each target, what a further million rows costs, and a plot that the page shows."""
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    render([grown(1_000_000, 3.0, 4.0), grown(4_000_000, 12.0, 10.0)], MACHINE)
    page = Path("docs/benchmarks.md").read_text(encoding="utf-8")
    assert "**0.75 (0.75 to 0.75)**, to be at most 1.0: reached" in page
    assert "**1.20 (1.20 to 1.20)**, to be at most 1.0: **missed**" in page
    assert f"each further million rows, {CONTENT}: 3.00 (3.00 to 3.00) s" in page
    assert "in proportion: **1.50**, to be at most 1.2" in page
    assert "client CPU of each further million rows: 0.10" in page
    assert "](benchmarks/growth.svg)" in page
    plot = Path("docs/benchmarks/growth.svg").read_text(encoding="utf-8")
    assert plot.startswith("<svg")
    assert "<script" not in plot


def test_a_suite_that_was_not_run_again_keeps_its_figures(tmp_path: Path) -> None:
    """The raw file holds every sample, and comes back as it was written."""
    path = tmp_path / "figures.json"
    kept = grown(1_000_000, 3.0, 4.0)
    planned = Row("planning", "a thousand nodes", 0, {"planning": [Sample(1.0, 0.8, 57.0)]})
    write_raw(path, [kept], MACHINE)
    write_raw(path, [planned], MACHINE)
    assert read_raw(path) == ([kept, planned], MACHINE)
    write_raw(path, [grown(1_000_000, 5.0, 4.0)], MACHINE)
    assert [row.figures[CONTENT][0].wall_s for row in read_raw(path)[0] if row.suite == "growth"] == [5.0]


def compared(rows: int, cpu_s: float, wall_s: float) -> Row:
    """Return a row of the suite `pairs`, of a clean comparison."""
    figures = {
        pairs.CHECKED: [Sample(2.0, 1.0, 50.0)],
        pairs.COMPARED: [Sample(wall_s, cpu_s, 60.0)],
        pairs.FEW: [Sample(0.6, 0.5, 45.0)],
    }
    return Row("pairs", "the same", rows, figures, (Target(pairs.COMPARED, pairs.CHECKED, pairs.AT_MOST),))


def lacking(rows: int, compare_mb: float, plan_mb: float) -> Row:
    """Return a row of the suite `pairs`, of rows that only the source holds."""
    figures = {pairs.LACKING: [Sample(9.0, 3.0, compare_mb)], pairs.PLANNED: [Sample(20.0, 9.0, plan_mb)]}
    return Row("pairs", f"{rows:,} rows", rows, figures)


def test_a_page_says_what_two_clusters_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a check of one, by the client's processor time without its start, and whether memory is flat."""
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    render([compared(1_001_000, 0.9, 4.2), lacking(100_000, 90.0, 95.0), lacking(1_000_000, 120.0, 300.0)], MACHINE)
    page = Path("docs/benchmarks.md").read_text(encoding="utf-8")
    assert "**2.10 (2.10 to 2.10)**, to be at most 2.2: reached" in page
    assert f"each further million rows, {pairs.COMPARED}: **0.40 (0.40 to 0.40)** s, to be under 0.5: reached" in page
    assert f"100,000 to 1,000,000 rows, {pairs.LACKING}: 90 to 120 MB, to grow by 40 MB at most: reached" in page
    assert f"100,000 to 1,000,000 rows, {pairs.PLANNED}: 95 to 300 MB, to grow by 40 MB at most: **missed**" in page
