"""The HTML page: nothing from elsewhere, nothing that runs but its own script, no keys unless asked, bounded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from consistency.cli.show.page.collect import MOST_OF_A_RARE_KIND, MOST_ROWS, Collector, Numbered
from consistency.cli.show.page.history import histories
from consistency.cli.show.page.payload import payload, script_safe
from consistency.cli.show.page.render import render_page
from consistency.cli.show.page.ring import MOST_TRACKS, tracks
from consistency.cli.show.terminal.advice import Typed
from consistency.model.tokens import TokenRange
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.results.range_findings import RangeFinding, RangeView
from consistency.results.report import Report
from tests.support.pages import CANARY, CANARY_HEX, HOSTILE, NIGHT_US, NODES, made_up
from tests.unit.test_terminal import report, table_report

VOID = {"meta", "link", "input", "img", "br"}
KEPT_KEY = re.compile(f"canary|4711|{CANARY_HEX}", re.IGNORECASE)


class Page(HTMLParser):
    """A page taken apart: every tag with its attributes, the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.bodies: list[tuple[str, dict[str, str | None], str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "a tag was never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            attributes = next(a for t, a in reversed(self.tags) if t == self._open[-1])
            self.bodies.append((self._open[-1], attributes, data))
        else:
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        """Return the embedded JSON."""
        text = "".join(body for tag, attributes, body in self.bodies if attributes.get("id") == "data")
        parsed: dict[str, Any] = json.loads(text)
        return parsed


def page_of(shown: Report, found: Collector, *, keys: bool = False) -> str:
    """Return the page of a report."""
    return render_page(shown, found, Typed(("--hosts", "10.0.0.1")), keys=keys)


@pytest.fixture(scope="module")
def hostile() -> str:
    """Return a page with hostile text wherever text comes from a cluster, and keys."""
    return page_of(*made_up(300, hostile=True), keys=True)


# What the page is made of.


def test_nothing_is_loaded_from_elsewhere(hostile: str) -> None:
    """No attribute names a place outside, no style imports or refers to one, and the policy forbids it all."""
    page = Page(hostile)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data", "poster", "formaction", "xlink:href"):
            value = attributes.get(name) or ""
            assert value in ("", "data:,") or value.startswith("#"), (tag, name, value)
    own = "".join(body for _, attributes, body in page.bodies if attributes.get("id") != "data")
    assert not re.search(r"https?:|//[a-z]|@import|fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML", own)
    assert set(re.findall(r"url\(([^)]*)\)", own)) == {"#hatch"}


def test_the_policy_admits_this_script_and_this_style_alone(hostile: str) -> None:
    """The hashes in the content security policy are those of the page's own two blocks."""
    page = Page(hostile)
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    blocks = [(tag, body) for tag, attributes, body in page.bodies if attributes.get("id") != "data"]
    assert sorted(tag for tag, _ in blocks) == ["script", "style"]
    for tag, body in blocks:
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_hostile_text_stays_text(hostile: str) -> None:
    """Names that hold markup, line separators, controls or marks of direction add no tag and no attribute."""
    page = Page(hostile)
    assert "<img" not in hostile
    assert "alert(1)</script>" not in hostile
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on") or a == "style"]
    for mark in ("\u2028", "\u202e", "\x1b"):
        assert mark not in hostile
    assert "</script><script>alert(1)</script>" in page.text, "it is shown, escaped"
    assert any("\\u202e" in name and "שלום" in name for name in page.data["tables"])


def test_json_cannot_leave_its_element() -> None:
    """Whatever a string holds, the block has no angle bracket, no ampersand and no line separator in it."""
    text = script_safe({"a": HOSTILE + "<!--<script>]]>&amp;\u2029"})
    assert not set(text) & set("<>&\u2028\u2029\u202e\n")
    assert json.loads(text)["a"].startswith("</script>")


def test_keys_are_absent_unless_asked_for() -> None:
    """The canary in every key, as text and as bytes, is nowhere in the page by default."""
    shown, found = made_up(200)
    hidden, whole = page_of(shown, found), page_of(shown, found, keys=True)
    assert not KEPT_KEY.search(hidden)
    assert "Keys are hidden" in hidden
    assert all("y" not in row for row in Page(hidden).data["rows"])
    assert f"{CANARY}-7" in whole
    assert "Keys are hidden" not in whole


# What it says.


def test_the_page_says_what_the_terminal_says() -> None:
    """Verdict, claim, coverage, causes, gaps, violations with remedies, and the next commands."""
    shown, found = made_up(300)
    text = " ".join(Page(page_of(shown, found)).text.split())
    for words in (
        "Divergent",
        "300 of 101,139,774 rows in 5 tables are not as they should be; not all was read, so there may be more.",
        "2,508 of 2,550 digests, 42 failed",
        shown.likely_causes[0].sentence,
        "timed out after 12 s, tried 4 times",
        "dc2 keeps 2 replicas of each row",
        "ALTER KEYSPACE billing",
        "consistency repair plan findings.jsonl",
        "materialized view of orders",
        "deletes that left no live row",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (report(table_report()), ("Consistent", "100%", "No row was found that differs.")),
        (report(table_report(), interrupted=True), ("Interrupted, unknown so far",)),
        (report(), ("Unknown", "Nothing was compared")),
    ],
    ids=["clean", "interrupted", "empty"],
)
def test_a_page_without_findings_is_whole(shown: Report, words: tuple[str, ...]) -> None:
    """A clean, an interrupted and an empty run have a page too."""
    text = Page(page_of(shown, Collector())).text
    for word in words:
        assert word in text, word


def test_a_cell_is_marked_by_how_it_stands() -> None:
    """Newest, older and null in a column that differs; equal times where only values differ; nothing elsewhere."""
    views = {
        "a": ReplicaView(State.CURRENT, {"v": 9, "w": 5, "m": [1, 8], "s": 3}),
        "b": ReplicaView(State.STALE, {"v": 7, "w": 5, "m": [1], "s": 3}),
        "c": ReplicaView(State.UNREADABLE),
    }
    found = Finding(Kind.STALE, "k", "t", 1, {}, {}, views, columns=("v", "m", "s"))
    data = payload([Numbered(1, found)], keys=False)
    (row,) = data["rows"]
    marks = {
        data["replicas"][place]: {data["columns"][c]: (time, cells, mark) for c, time, cells, mark in cells}
        for place, _, cells in row["r"]
    }
    assert marks["a"] == {"v": (9, 1, "a"), "m": (8, 2, "a"), "s": (3, 1, "t"), "w": (5, 1, "")}
    assert marks["b"] == {"v": (7, 1, "b"), "m": (1, 1, "b"), "s": (3, 1, "t"), "w": (5, 1, "")}
    assert marks["c"] == {}
    missing = replace(found, kind=Kind.MISSING, replicas={**views, "c": ReplicaView(State.MISSING)}, columns=("s",))
    ((_, _, first), *_) = payload([Numbered(1, missing)], keys=False)["rows"][0]["r"]
    assert first[0][3] == "", "equal times tell nothing where a replica lacks the row"


def test_numbers_that_a_browser_cannot_hold_go_as_text() -> None:
    """Tokens have 64 bits, and so have write times of clients that pass nanoseconds."""
    views = {"a": ReplicaView(State.CURRENT, {"v": NIGHT_US * 1000}), "b": ReplicaView(State.MISSING)}
    found = Finding(Kind.MISSING, "k", "t", -(2**63) + 1, {}, {}, views, columns=("v",))
    (row,) = payload([Numbered(1, found)], keys=False)["rows"]
    assert row["o"] == "-9223372036854775807"
    assert row["w"] == str(NIGHT_US * 1000)


# What it costs.


def test_a_page_holds_ten_thousand_rows_and_some_of_every_kind() -> None:
    """Of 30,000 findings the first are kept, a kind that comes late is not lost, and all are counted."""
    view = {"a:1": ReplicaView(State.MISSING), "b:1": ReplicaView(State.CURRENT)}
    many = Finding(Kind.MISSING, "k", "t", 1, {}, {}, view)
    collector = Collector()
    for _ in range(30_000):
        collector.found(many)
    for _ in range(1_000):
        collector.found(replace(many, kind=Kind.TIE))
    assert collector.total == 31_000
    assert collector.behind == {"a:1": 31_000}
    assert len(collector.rows) == MOST_ROWS + MOST_OF_A_RARE_KIND
    assert collector.rows[-1].number == 30_000 + MOST_OF_A_RARE_KIND


# The ring and the bars.


def test_rows_that_are_counted_are_said_to_differ_though_none_is_listed() -> None:
    """A page without listed rows does not say that none differs; each replica's rows count in its track."""
    shown, collector = made_up(0)[0], Collector()
    lacking = {"10.0.0.1:9042": RangeView(missing=4), "10.0.0.2:9042": RangeView(stale=3)}
    collector.found_range(RangeFinding("ks", "t", TokenRange(0, 9), {Kind.MISSING: 4, Kind.STALE: 3}, lacking))
    text = Page(page_of(shown, collector)).text
    assert "7 rows differ: counted by token range and not listed" in text
    assert "No row was found that differs." not in text
    assert collector.behind == {"10.0.0.1:9042": 4, "10.0.0.2:9042": 3}


def test_a_track_shows_its_nodes_own_states() -> None:
    """A node that is behind is divergent on its own track; the others stay as they are; centres stay together."""
    strips = {NODES[0]: "=" * 64, NODES[1]: "x" + "=" * 63, NODES[2]: "?" * 32 + " " * 32}
    shown = report(table_report(tracks=strips), replicas=NODES[:3], places=dict.fromkeys(NODES[:3], "dc1"))
    drawn = {track.name: track for track in tracks(shown, {NODES[1]: 4})}
    assert [drawn[n].worst for n in NODES[:3]] == ["agreed", "divergent", "unread"]
    assert [len(drawn[n].slices) for n in NODES[:3]] == [1, 2, 2]
    assert drawn[NODES[1]].behind == 4
    assert drawn[NODES[2]].states == ("unread", "elsewhere")


def test_many_nodes_are_summed_up_by_data_centre() -> None:
    """Of 200 nodes the troubled ones keep their tracks, the rest share one for each data centre."""
    names = [f"10.0.{i}.1:9042" for i in range(200)]
    strips = {n: ("x" if i < 5 else "=") * 64 for i, n in enumerate(names)}
    places = {n: f"dc{i % 2}" for i, n in enumerate(names)}
    shown = report(table_report(tracks=strips), replicas=tuple(names), places=places)
    drawn = tracks(shown, dict.fromkeys(names[:5], 1))
    assert len(drawn) == 7 <= MOST_TRACKS
    assert {track.name for track in drawn} == {*names[:5], "97 more nodes", "98 more nodes"}
    assert [track.dc for track in drawn] == sorted(track.dc for track in drawn)


def test_an_outage_is_drawn_closer_where_it_towers() -> None:
    """Bars over the whole time first, then over the stretch around the highest; every row is counted."""
    _, found = made_up(2_000)
    whole, closer = histories(found.rows)
    assert sum(whole.bars) + whole.outside + whole.undated == 2_000
    assert max(whole.bars) > sum(whole.bars) // 2
    assert closer.first.startswith("2026-07-14 02:1")
    assert max(closer.bars) < sum(closer.bars) // 4
    assert histories(found.rows[:10]) == ()


def test_rows_of_one_minute_are_all_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left out for having come a second after the others."""
    _, found = made_up(100)
    times = iter([*range(0, 90_000, 1_000), *range(1_000_000, 11_000_000, 1_000_000)])
    monkeypatch.setattr("consistency.cli.show.page.history.newest_of", lambda _: next(times))
    (whole,) = histories(found.rows)
    assert (sum(whole.bars), whole.outside) == (100, 0)


# What it looks like.


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(hostile: str, scheme: str) -> None:
    """Every colour of text has a contrast of 4.5 to 1 on every surface it stands on, light and dark."""
    (css,) = [body for tag, _, body in Page(hostile).bodies if tag == "style"]
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark))
    pairs = [(text, surface) for text in ("text", "dim") for surface in ("back", "card", "elsewhere")]
    for state in ("agreed", "divergent", "unread"):
        pairs += [(f"{state}-text", surface) for surface in ("card", "back", f"{state}-soft")]
    for text, surface in pairs:
        low, high = sorted((luminance(colours[text]), luminance(colours[surface])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, surface)
