"""The page in a real browser: nothing is refused or loaded, 10,000 findings stay fluid, keys and fingers both work.

Drives the system's chromium, or the one that CONSISTENCY_TEST_CHROMIUM names; pictures go to the directory that
CONSISTENCY_TEST_PICTURES names, for people to look at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from consistency.cli.show.page.audit import render_audit
from consistency.cli.show.page.comparison import render_comparison
from consistency.cli.show.page.render import render_page
from consistency.cli.show.terminal.advice import Typed
from tests.support.pages import made_up, made_up_pair
from tests.unit.test_distribution import audited, uneven

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")

CHROMIUM = os.environ.get("CONSISTENCY_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
ROWS = 10_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt install chromium)")


@dataclass
class Opened:
    """A page in a browser, and what went wrong in it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def count(self) -> str:
        """Return what the page says of how many rows match."""
        return str(self.page.inner_text("#count"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start chromium once."""
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a page of 10,000 findings, one of hostile names, one of an audit, and two of comparisons."""
    directory = tmp_path_factory.mktemp("pages")
    out: dict[str, Path] = {}
    out["audit"] = directory / "audit.html"
    out["audit"].write_text(render_audit(audited(uneven())), encoding="utf-8")
    for name, hostile in (("compared", False), ("hostile-pair", True)):
        out[name] = directory / f"{name}.html"
        out[name].write_text(render_comparison(*made_up_pair(2_000, hostile=hostile), Typed()), encoding="utf-8")
    for name, count, hostile in (("many", ROWS, False), ("hostile", 120, True)):
        out[name] = directory / f"{name}.html"
        out[name].write_text(render_page(*made_up(count, hostile=hostile), Typed(), keys=True), encoding="utf-8")
    return out


def opened(browser: Any, file: Path, size: str = "desktop", scheme: str = "light") -> Opened:
    """Open a page; every message of the browser and every request is kept."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    view = Opened(context.new_page())
    view.page.on("console", lambda message: view.complaints.append(message.text))
    view.page.on("pageerror", lambda error: view.complaints.append(str(error)))
    view.page.on("dialog", lambda dialog: view.complaints.append(f"dialog {dialog.message}"))
    view.page.on("request", lambda request: view.requests.append(request.url))
    view.page.goto(file.as_uri())
    return view


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("name", ["many", "hostile", "audit", "compared", "hostile-pair"])
def test_it_fits_and_loads_nothing(browser: Any, files: dict[str, Path], name: str, size: str) -> None:
    """No message, no script of somebody else's, no request but the file, and no wider than the screen."""
    view = opened(browser, files[name], size, scheme_of(size))
    fits_in_both_schemes(view, size, name)
    assert [url for url in view.requests if not url.startswith("data:")] == [files[name].as_uri()]


def scheme_of(size: str) -> str:
    """Return the colours in which a page of a size is opened: each is there from the start on one of them."""
    return "light" if size == "desktop" else "dark"


def fits_in_both_schemes(view: Opened, size: str, name: str) -> None:
    """Assert of an open page that it fits, in the colours in which it was opened and in the others."""
    for scheme in sorted(("light", "dark"), key=lambda scheme: scheme != scheme_of(size)):
        view.page.emulate_media(color_scheme=scheme)
        assert view.page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
        dark = view.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(14, 17, 22)") is (scheme == "dark")
        if pictures := os.environ.get("CONSISTENCY_TEST_PICTURES"):
            view.page.screenshot(path=Path(pictures) / f"{name}-{size}-{scheme}.png", full_page=True)
    assert view.complaints == []
    view.page.context.close()


def busy_s(view: Opened) -> float:
    """Return the processor time that the page's process has used: on a busy machine the clock tells of others' work."""
    session = view.page.context.new_cdp_session(view.page)
    session.send("Performance.enable")
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return float(metrics["ProcessTime"])


def test_ten_thousand_findings_stay_fluid(browser: Any, files: dict[str, Path]) -> None:
    """Open, search, filter and turn a page: each costs two seconds of a core at most, 50 rows in the document."""
    view = opened(browser, files["many"])
    page = view.page
    spent_s = busy_s(view)
    assert 0 < spent_s < 5
    assert view.count() == "10,000 rows."
    for act, expected in (
        (lambda: page.fill("#query", "10.0.0.3 missing"), "rows match"),
        (lambda: page.click("#kinds button:has-text('stale')"), "rows match"),
        (lambda: page.select_option("#replica", label="differs on 10.0.0.3:9042"), "rows match"),
    ):
        act()
        assert expected in view.count()
        before_s, spent_s = spent_s, busy_s(view)
        assert spent_s - before_s < 2
    page.fill("#query", "no such row")
    assert view.count() == "0 of 10,000 rows match."
    page.fill("#query", "")
    assert page.locator("#rows > li").count() == 50
    spent_s = busy_s(view)
    page.click("#next")
    assert busy_s(view) - spent_s < 2
    assert page.inner_text("#page").startswith("page 2 of")


def test_a_filter_finds_exactly_its_rows(browser: Any, files: dict[str, Path]) -> None:
    """What is counted is what the embedded findings hold, by kind, by replica and by text."""
    page = opened(browser, files["many"]).page
    shown, found = made_up(ROWS)
    page.click("#kinds button:has-text('tie')")
    assert page.inner_text("#count") == f"{shown.findings_by_kind['tie']} of 10,000 rows match."
    page.click("#kinds button:has-text('tie')")
    page.select_option("#replica", label="differs on 10.0.0.3:9042")
    assert page.inner_text("#count") == f"{found.behind['10.0.0.3:9042']:,} of 10,000 rows match."
    page.select_option("#replica", "")
    token = str(found.rows[4_321].finding.token)
    page.fill("#query", token)
    assert page.inner_text("#count") == "1 of 10,000 rows match."
    assert page.inner_text("#rows .n") == "#4,322"


def test_replicas_stand_side_by_side_with_their_differences_marked(browser: Any, files: dict[str, Path]) -> None:
    """A stale row shows the older cell on one replica and the newest on the others."""
    page = opened(browser, files["many"]).page
    page.click("#kinds button:has-text('stale')")
    page.click("#rows .row >> nth=0")
    assert page.locator(".detail").count() == 1
    assert page.locator(".cells thead th").count() == 4
    state = page.locator(".cells tbody tr", has=page.locator("th:has-text('state')"))
    assert state.locator("td.b").count() == 1
    assert state.locator("td.a").count() == 2
    assert "older" in state.locator("td.b").inner_text()
    page.click("#rows .row >> nth=1")
    assert page.locator(".detail").count() == 1, "one row is open at a time"


def test_everything_can_be_done_with_the_keyboard(browser: Any, files: dict[str, Path]) -> None:
    """`/` searches, arrows walk the rows, Enter opens one, Tab reaches its cells; all is named for a reader."""
    page = opened(browser, files["many"]).page
    page.keyboard.press("/")
    page.keyboard.type("stale")
    assert "rows match" in page.inner_text("#count")
    page.locator("#rows .row").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("replicas of row")
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, svg[role=img], [role=region], [role=group]")]
           .filter(e => !(e.getAttribute("aria-label") || e.textContent.trim())).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert nameless == []


def test_a_printed_page_has_its_content_and_no_controls(browser: Any, files: dict[str, Path]) -> None:
    """On paper the controls are gone and the verdict, the ring and the rows are there."""
    page = opened(browser, files["many"]).page
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible()
    assert not page.locator("#pager").is_visible()
    assert page.locator("h1").is_visible()
    assert page.locator(".ring").is_visible()
    assert len(page.pdf(print_background=True)) > 10_000
