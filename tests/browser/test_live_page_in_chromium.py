"""The live page in a real browser: it updates by itself, fits, loads nothing foreign, and works without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from consistency.cli.show.live.render import LiveRenderer
from consistency.watching.http import Server
from tests.browser.test_page_in_chromium import (
    SIZES,
    Opened,
    browser,
    busy_s,
    fits_in_both_schemes,
    playwright,
    pytestmark,
    scheme_of,
)
from tests.support.live import MadeUpWatch

__all__ = ["browser", "playwright", "pytestmark"]

TOKEN = "0123456789abcdef-token"


def outage(folder: Path) -> MadeUpWatch:
    """Return a watch of six nodes that saw an outage; a table is being read, a node is down."""
    made = MadeUpWatch(folder=folder)
    for number in range(8):
        made.visit(number, rows={2: 400, 3: 12}.get(number, 0))
    made.down.add(4)
    made.visit(5)
    made.begin(6)
    return made


def many(folder: Path) -> MadeUpWatch:
    """Return a watch of 200 nodes and 500 tables."""
    made = MadeUpWatch(nodes=200, tables=500)
    for number in range(500):
        made.visit(number, rows=12 if number == 3 else 0, seconds=2.0)
    made.down |= {5, 90}
    made.visit(5)
    return made


def hostile(folder: Path) -> MadeUpWatch:
    """Return a watch of a table with a name that is a script."""
    made = MadeUpWatch(folder=folder, hostile=True)
    made.visit(0, rows=12)
    return made


MADE: dict[str, Callable[[Path], MadeUpWatch]] = {"outage": outage, "many": many, "hostile": hostile}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MadeUpWatch]:
    """Make each watch once."""
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MADE.items()}


@contextmanager
def served(watch: MadeUpWatch, token: str = "") -> Iterator[str]:
    """Serve a watch; yield the page's address."""
    page = LiveRenderer(watch.state, lambda: True, busy_s=0.0)
    server = Server("127.0.0.1:0", watch.board.now, lambda: True, page, token)
    try:
        yield f"http://{server.address}/"
    finally:
        server.close()


def opened(browser: Any, url: str, size: str = "desktop", scheme: str = "light", **context: Any) -> Opened:
    """Open a page; every message of the browser and every request is kept."""
    width, height = SIZES[size]
    new = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **context)
    view = Opened(new.new_page())
    view.page.on("console", lambda message: view.complaints.append(message.text))
    view.page.on("pageerror", lambda error: view.complaints.append(str(error)))
    view.page.on("dialog", lambda dialog: view.complaints.append(f"dialog {dialog.message}"))
    view.page.on("request", lambda request: view.requests.append(request.url))
    view.page.goto(url)
    return view


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("name", list(MADE))
def test_it_fits_and_loads_nothing_from_elsewhere(
    browser: Any, made: dict[str, MadeUpWatch], name: str, size: str
) -> None:
    """No message, no script of somebody else's, no request but to the watch, and no wider than the screen."""
    with served(made[name]) as url:
        view = opened(browser, url, size, scheme_of(size))
        view.page.wait_for_selector(".pulse.on")
        fits_in_both_schemes(view, size, f"live-{name}")
        assert {asked.partition("?")[0] for asked in view.requests if not asked.startswith("data:")} <= {
            url,
            url + "events",
        }


def test_it_updates_by_itself_and_keeps_what_a_person_did(browser: Any, tmp_path: Path) -> None:
    """A node goes down while the page is open: its circle and its line change; filter, focus and scroll stay."""
    watch = MadeUpWatch(folder=tmp_path)
    for number in range(8):
        watch.visit(number)
    with served(watch) as url:
        view = opened(browser, url)
        page = view.page
        page.wait_for_selector(".pulse.on")
        assert page.locator("#ring path.unread").count() == 0
        page.fill("#query", "table_005")
        assert page.locator("#tables tbody tr:visible").count() == 1
        watch.down.add(4)
        watch.visit(5)
        page.wait_for_selector("#ring path.unread")
        assert "does not answer" in page.inner_text("#ring .node-list li:has-text('10.0.0.5:9042')")
        assert "10.0.0.5:9042" in page.inner_text("#trouble")
        assert page.locator("#tables tbody tr:visible").count() == 1
        assert page.evaluate("document.activeElement.id") == "query"
        page.fill("#query", "unknown")
        assert page.inner_text("#count") == "1 of 8 tables"
        watch.begin(6)
        page.wait_for_selector("#now:has-text('shop.table_006')")
        assert view.complaints == []
        page.click("#runs a >> nth=0")
        assert "consistency check" in page.inner_text(".brand")
        page.context.close()


def test_without_javascript_it_is_a_static_table(browser: Any, made: dict[str, MadeUpWatch]) -> None:
    """Everything is there, and it comes anew by itself."""
    with served(made["outage"]) as url:
        page = opened(browser, url, java_script_enabled=False).page
        assert page.locator("#tables tbody tr").count() == 8
        assert page.locator("#ring path.divergent").count() > 0
        assert page.locator("noscript meta[http-equiv=refresh]").count() == 1
        assert not page.locator("#filters").is_visible()
        page.context.close()


def test_a_browser_logs_in_with_the_token(browser: Any, made: dict[str, MadeUpWatch]) -> None:
    """Page and events both; a wrong password gets neither."""
    with served(made["outage"], TOKEN) as url:
        page = opened(browser, url, http_credentials={"username": "me", "password": TOKEN}).page
        page.wait_for_selector(".pulse.on")
        page.context.close()
        wrong = browser.new_context(http_credentials={"username": "me", "password": "no"})
        refused = wrong.new_page().goto(url)
        assert refused.status == 401
        wrong.close()


def test_a_page_that_nobody_sees_leaves_its_connection_to_others(browser: Any, made: dict[str, MadeUpWatch]) -> None:
    """A browser has six connections to a server; the tenth tab works too, and one that lost the watch says so."""
    with served(made["outage"]) as url:
        context = browser.new_context()
        pages = [context.new_page() for _ in range(10)]
        for page in pages:
            page.goto(url)
            page.wait_for_selector(".pulse.on")
            page.evaluate(
                """Object.defineProperty(document, "hidden", {value: true, configurable: true});
                   document.dispatchEvent(new Event("visibilitychange"));"""
            )
            assert page.inner_text("#pulse") == "paused"
        last = pages[-1]
        last.evaluate(
            """Object.defineProperty(document, "hidden", {value: false, configurable: true});
               document.dispatchEvent(new Event("visibilitychange"));"""
        )
        last.wait_for_selector(".pulse.on")
    last.wait_for_selector("#pulse:has-text('not connected')")
    context.close()


def test_five_hundred_tables_and_two_hundred_nodes_stay_fluid(browser: Any, made: dict[str, MadeUpWatch]) -> None:
    """To open, to filter, and to take an update of everything each cost two seconds of a core at most."""
    watch = made["many"]
    with served(watch) as url:
        view = opened(browser, url)
        page = view.page
        page.wait_for_selector(".pulse.on")
        spent_s = busy_s(view)
        assert 0 < spent_s < 5
        page.fill("#query", "table_49")
        assert page.inner_text("#count") == "10 of 500 tables"
        watch.visit(7, rows=30)
        page.wait_for_selector("#runs:has-text('30')")
        assert busy_s(view) - spent_s < 4
        page.click("#every-node summary")
        assert page.locator(".every-node li").count() == 200
        assert page.locator("#ring .track").count() <= 14
        page.context.close()


def test_all_is_named_for_a_reader(browser: Any, made: dict[str, MadeUpWatch]) -> None:
    """Pictures and regions have names, and the keyboard reaches the tables."""
    with served(made["outage"]) as url:
        page = opened(browser, url).page
        nameless = page.evaluate(
            """[...document.querySelectorAll("button, input, a, svg[role=img], [role=region]")]
               .filter(e => !(e.getAttribute("aria-label") || e.textContent.trim())).map(e => e.outerHTML)"""
        )
        assert nameless == []
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "tables-title"
        page.context.close()
