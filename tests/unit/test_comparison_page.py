"""The page of a comparison: what the terminal says, a picture of where, no key and no value, nothing from elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from consistency import Side
from consistency.cli.show.page.comparison import BETWEEN, render_comparison
from consistency.cli.show.page.token_line import MOST_LINES, PairCollector
from consistency.cli.show.terminal.advice import Typed
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, RING_SIZE, TokenRange
from consistency.results.comparison import Comparison, SchemaDifference
from consistency.results.pair_findings import PairKind, PairRange
from tests.support.pages import HOSTILE, made_up_pair
from tests.unit.fake_cluster import US, Version
from tests.unit.test_comparing import Pair, pair
from tests.unit.test_page import KEPT_KEY, Page

__all__ = ["pair"]

CELL = (RING_SIZE + 1) // 64


def page_of(shown: Comparison, found: PairCollector) -> str:
    """Return the page of a comparison."""
    return render_comparison(shown, found, Typed(("--hosts", "10.0.0.1", "--target-hosts", "10.1.0.1")))


def words_of(text: str) -> str:
    """Return the text that a page shows, in one line; what two elements show are two words."""
    return " ".join(Page(text.replace("<", " <")).text.split())


def counted(table: str, token_range: TokenRange, rows: int) -> PairRange:
    """Return rows of a range that only the source has."""
    return PairRange("ks", table, ("ks", table), token_range, {PairKind.ONLY_SOURCE: rows}, {})


def test_the_page_says_what_the_terminal_says() -> None:
    """Verdict, both clusters, kinds by table, what is declared otherwise, what was not read, and what is next."""
    shown, found = made_up_pair(300)
    words = words_of(page_of(shown, found))
    for said in (
        "Divergent", "600 of 79,238,483 rows in 4 tables are not the same on both sides", "3 source by itself",
        "prod-eu source to prod-eu target", "3 in dc1", "5.0.9 on 3", "shop.orders : 300 rows differ between the sides",
        "300 rows are counted in 1 token range, and drawn evenly over it", "in the target shop2.orders",
        "the target has no such table", "not compared", "gc_grace_seconds source: 864000 target: 3600",
        "shop.orders, shop.events, shop.sessions and 1 more", "clocks of 10.1.0.1:9042", "target 10.0.0.3:9042",
        "timed out after 12 s", "1 table left out on purpose", "Not visible to this comparison",
        "consistency explain differing.jsonl --row 1", "consistency sync plan differing.jsonl -o sync.jsonl",
        "2,038 of 2,041 digests, 2 failed, 1 skipped", "the source holds a row that the target lacks",
        "Check and repair that cluster first", "no keys, no values",
    ):  # fmt: skip
        assert said in words, said


def test_each_kind_has_its_count_of_each_table() -> None:
    """Of both sides together, and of either by itself."""
    shown, found = made_up_pair(300)
    page = page_of(shown, found)
    for table, side_rows in zip(shown.tables[:2], (3, 0), strict=True):
        row = next(
            line for line in page.splitlines() if f"<bdi>{table.report.full_name}</bdi>" in line and "<td" in line
        )
        cells = re.findall(r"<td[^>]*>([^<]*)</td>", row)
        assert cells == [f"{table.kinds.get(kind.value, 0):,}" for kind in PairKind] + [str(side_rows), "0"]


def test_no_key_is_in_it_and_nothing_is_loaded() -> None:
    """It has no script at all; its policy admits its own style alone; hostile names stay text."""
    for hostile in (False, True):
        text = page_of(*made_up_pair(50, hostile=hostile))
        assert not KEPT_KEY.search(text)
        page = Page(text)
        assert not {tag for tag, _ in page.tags} & {"script", "iframe", "img"}
        (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
        assert policy is not None
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "script-src" not in policy
        assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on") or a == "style"]
        for _, attributes in page.tags:
            assert (attributes.get("href") or "#")[0] in "#d"
        for mark in ("\u2028", "\u202e", "\x1b"):
            assert mark not in text
    assert "<script>alert(1)</script>" in page.text
    assert HOSTILE not in text


def test_the_ring_shows_the_sides_and_each_side_by_itself() -> None:
    """That rows differ between the sides is not said of a node; that a node is behind its side is."""
    text = page_of(*made_up_pair(300))
    words = words_of(text)
    assert "both sides 1 source and target differs in 600 rows source by itself: dc1 2 source 10.0.0.1:9042" in words
    (ring,) = [a["aria-label"] for t, a in Page(text).tags if a.get("class") == "ring"]
    assert ring is not None
    assert f"{BETWEEN} divergent" in ring
    assert "source 10.0.0.2:9042 divergent" in ring
    assert "target 10.0.0.1:9042 agreed" in ring
    assert "up to date" not in words


def test_rows_lie_where_their_tokens_are() -> None:
    """A listed row in its cell, counted ones evenly over their range, also if it ends in the middle of a cell."""
    collector = PairCollector()
    collector.take(counted("t", TokenRange(MIN_TOKEN, MIN_TOKEN + 2 * CELL - 1), 100))
    collector.take(counted("t", TokenRange(MAX_TOKEN - CELL // 2, MAX_TOKEN), 30))
    collector.take(counted("t", TokenRange.at(MIN_TOKEN + 5 * CELL), 7))
    (line,) = collector.lines
    assert [round(bar, 6) for bar in line.bars] == [50, 50, 0, 0, 0, 7, *[0] * 57, 30]
    assert (line.rows, line.counted, line.ranges, line.highest) == (137, 137, 3, pytest.approx(50))
    whole = PairCollector()
    whole.take(counted("t", TokenRange.full_ring(), 64_000))
    assert [round(bar) for bar in whole.lines[0].bars] == [1000] * 64


def test_the_tables_that_differ_most_have_lines() -> None:
    """As many as can be looked at; of the others it is said that they are there. A range of inner rows has none."""
    collector = PairCollector()
    for number in range(MOST_LINES + 3):
        collector.take(counted(f"t{number}", TokenRange.full_ring(), number + 1))
    collector.take(PairRange("ks", "inner", ("ks", "inner"), TokenRange.full_ring(), {}, {Side.SOURCE: 9}))
    assert [line.rows for line in collector.lines] == list(range(MOST_LINES + 3, 3, -1))
    assert collector.more == 3
    assert "And 3 more tables" in words_of(page_of(made_up_pair(2)[0], collector))


def test_what_was_not_finished_or_proven_is_said() -> None:
    """An interrupt, a read at LOCAL_QUORUM, columns that cannot be compared; and where nothing is wrong, no section."""
    shown, found = made_up_pair(5)
    words = words_of(page_of(replace(shown, interrupted=True, read="quorum"), found))
    assert "Interrupted, divergent so far" in words
    assert "read repair may have written" in words
    blocked = replace(shown.tables[3], schema=(SchemaDifference("column v", "text", "int", blocks=True),))
    words = words_of(page_of(replace(shown, tables=(blocked,), top=(), notes=()), PairCollector()))
    assert "Unknown" in words
    assert "column v not compared source: text target: int" in words
    clean = replace(shown, tables=shown.tables[4:], top=(), findings_path=None, notes=(), not_checked={})
    words = words_of(page_of(clean, PairCollector()))
    assert "Consistent The target holds exactly what the source holds" in words.replace("✓", "")
    for absent in ("What differs", "The first rows", "Not read", "Notes", "Next", "left out"):
        assert absent not in words


def test_the_command_writes_the_page(pair: Pair, tmp_path: Path) -> None:
    """Mode 0600, of listed and of counted rows, with both clusters; '-' and a file named twice are refused."""
    pair.everywhere(3, None)
    pair.everywhere(5, Version("s3cret", US + 3))
    path = tmp_path / "page.html"
    result = pair.run("--html", str(path))
    assert result.exit_code == 1
    assert str(path) in result.stdout.splitlines()[-1]
    assert path.stat().st_mode & 0o777 == 0o600
    words = words_of(path.read_text())
    assert "shop.orders : 2 rows differ between the sides" in words
    assert "old to new" in words
    assert "s3cret" not in path.read_text()
    assert pair.run("--html", str(path), "--max-findings", "0").exit_code == 1
    assert "2 rows are counted in" in words_of(path.read_text())
    assert pair.run("--html", "-").exit_code == 2
    assert pair.run("--html", str(path), "--json", str(path)).exit_code == 2


def test_a_page_that_cannot_be_written_is_said(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison without the page that was asked for did not do what it was asked."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("consistency.cli.outputs._write", full)
    result = pair.run("--html", str(tmp_path / "page.html"))
    assert result.exit_code == 4
    assert "--html" in result.stderr
    assert "No space left on device: not written" in result.stderr
