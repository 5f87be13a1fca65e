"""The live page: what it knows of each range, what it shows and to whom, and what it never shows."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consistency.checking.observer import Silent
from consistency.cli.serving import take_token
from consistency.cli.show.live import figures
from consistency.cli.show.live.render import AGEING_S, LiveRenderer
from consistency.cli.show.live.reports import KeptReports
from consistency.cli.show.live.ring_map import RingMap, text_of
from consistency.cli.show.live.trend import MOST_POINTS, Trend
from consistency.cli.show.page.render import render_page
from consistency.cli.show.terminal.advice import Typed
from consistency.errors import UsageError
from consistency.ledger.history import Standing
from consistency.ledger.spans import Span
from consistency.model.tokens import MIN_TOKEN, RING_SIZE, TokenRange
from consistency.results.report import PUT_OFF, TableReport, Unread, not_scanned
from consistency.results.verdict import Coverage
from consistency.watching import http, live_stream
from consistency.watching.http import Server
from consistency.watching.page_access import PageAccess, PageMode
from tests.support.live import DAY_S, MadeUpWatch
from tests.support.pages import CANARY, CANARY_HEX, HOSTILE, made_up
from tests.unit.test_watching import Bench, get

TOKEN = "0123456789abcdef-token"
NODES = ("a:9042", "b:9042")


def read(marks: str, **changed: Any) -> TableReport:
    """Return the report of a visit in which both nodes and the table have the same strip."""
    report = replace(
        not_scanned("shop", "orders", ""),
        depth="content",
        coverage=Coverage(2, 2),
        strip=marks,
        tracks=dict.fromkeys(NODES, marks),
    )
    return replace(report, **changed)


def tracks(ring: RingMap, now_s: float, names: tuple[str, ...] = ("shop.orders",)) -> dict[str, str]:
    """Return the cells of both nodes as marks."""
    return {name: text_of(codes) for name, codes in ring.tracks(NODES, names, now_s).items()}


# The map of the ring.


def test_a_cell_ages_with_its_last_clean_pass_and_never_looks_newer_than_it_is() -> None:
    """Agreed, then half of gc_grace ago, then due; a table that was not visited makes everything unvisited."""
    ring = RingMap()
    ring.visited(read("=" * 64), 1.0, 10 * DAY_S)
    assert [tracks(ring, 1 + day * DAY_S)["a:9042"][0] for day in (1, 4.9, 5.1, 7.9, 8.1, 99)] == list("==aadd")
    assert ring.strip("shop.orders", 9 * DAY_S) == "d" * 64
    assert tracks(ring, 1.0, ("shop.orders", "shop.users"))["a:9042"] == "." * 64
    assert RingMap().tracks(NODES, (), 0.0)["a:9042"].max() == 0


def test_a_table_that_keeps_no_tombstones_does_not_age() -> None:
    """No pass can be late."""
    ring = RingMap()
    ring.visited(read("=" * 64), 0.0, 0)
    assert tracks(ring, 99 * DAY_S)["b:9042"] == "=" * 64


def test_what_differs_or_fails_keeps_its_last_clean_time() -> None:
    """A divergence is no clean pass; the age goes on growing."""
    ring = RingMap()
    ring.visited(read("=" * 64), 100.0, 10 * DAY_S)
    ring.visited(read("x" + "=" * 63), 200.0, 10 * DAY_S)
    assert ring.clean_age_s("shop.orders", 300.0) == 200
    ring.failed("shop.orders")
    assert set(tracks(ring, 300.0)["a:9042"]) == {"?"}
    assert ring.clean_age_s("shop.orders", 300.0) == 200
    ring.visited(read("x" + "=" * 63), 400.0, 10 * DAY_S, mended=True)
    assert set(tracks(ring, 400.0)["a:9042"]) == {"="}
    ring.keep(())
    assert ring.clean_age_s("shop.orders", 400.0) == math.inf


def test_a_table_that_could_not_be_read_at_all_is_unread_everywhere() -> None:
    """Not left out of the picture."""
    ring = RingMap()
    ring.visited(read("=" * 64), 0.0, DAY_S)
    ring.visited(not_scanned("shop", "users", "no", failed=True), 0.0, DAY_S)
    assert set(tracks(ring, 1.0)["a:9042"]) == {"?"}


def test_ranges_left_for_the_next_visit_stay_as_they_were_and_failed_ones_do_not() -> None:
    """`?` of a slice means not its turn; with a reason it means unread."""
    half = TokenRange(MIN_TOKEN + RING_SIZE // 2, MIN_TOKEN + RING_SIZE)
    left = (Unread("a:9042", (half,), PUT_OFF),)
    ring = RingMap()
    ring.visited(read("=" * 32 + "?" * 32, unread=left), 10.0, DAY_S)
    assert tracks(ring, 11.0)["a:9042"] == "=" * 32 + "." * 32
    assert ring.clean_age_s("shop.orders", 11.0) == math.inf
    ring.visited(
        read("?" * 32 + "=" * 32, unread=(replace(left[0], ranges=(TokenRange(MIN_TOKEN, -2),)),)), 20.0, DAY_S
    )
    assert tracks(ring, 21.0)["a:9042"] == "=" * 64
    assert ring.clean_age_s("shop.orders", 21.0) == 11
    failed = (Unread("a:9042", (half,), "timed out"),)
    ring.visited(read("=" * 32 + "?" * 32, unread=failed), 30.0, DAY_S)
    assert tracks(ring, 31.0)["a:9042"] == "=" * 32 + "?" * 32


def spans(*times: tuple[float, float]) -> list[Span]:
    """Return spans of equal width over the ring, each with when it was tried and clean, in seconds."""
    bounds = [MIN_TOKEN + RING_SIZE * i // len(times) for i in range(len(times) + 1)]
    return [
        Span(start, end, 0, int(tried * 1e6), int(clean * 1e6))
        for start, end, (tried, clean) in zip(bounds[:-1], bounds[1:], times, strict=True)
    ]


def test_a_ledger_tells_cells_that_are_read_in_parts() -> None:
    """Slices that cut every cell never cover one at once; the ledger knows when each part was clean."""
    ring = RingMap()
    parts = spans(*[(50, 50), (60, 60)] * 128)
    left = (Unread("a:9042", (TokenRange(MIN_TOKEN, MIN_TOKEN + RING_SIZE),), PUT_OFF),)
    ring.visited(read("?" * 64, unread=left), 60.0, DAY_S, parts)
    assert tracks(ring, 61.0)["a:9042"] == "=" * 64
    assert ring.clean_age_s("shop.orders", 61.0) == 11
    ring.visited(read("?" * 64, unread=left), 70.0, DAY_S, spans(*[(50, 50)] * 255, (70, 50)))
    assert tracks(ring, 71.0)["a:9042"] == "=" * 64


def test_after_a_restart_the_ledger_colours_the_ring() -> None:
    """Agreed if every part of a cell was clean when last read, else not visited yet; gaps were never read."""
    ring = RingMap()
    ring.known("shop.orders", spans(*[(50, 50)] * 32, *[(60, 50)] * 32), 10 * DAY_S)
    assert tracks(ring, 61.0)["a:9042"] == "=" * 32 + "." * 32
    assert ring.clean_age_s("shop.orders", 61.0) == 11
    ring.known("shop.orders", spans(*[(50, 50)] * 4)[:3], 10 * DAY_S)
    assert ring.clean_age_s("shop.orders", 61.0) == math.inf
    assert tracks(ring, 9 * DAY_S)["b:9042"] == "d" * 48 + "." * 16


# Sparklines.


def test_a_trend_keeps_to_its_memory_and_to_its_newest_point() -> None:
    """Old times become coarser; what is now is exact."""
    trend = Trend()
    for i in range(10 * MOST_POINTS + 7):
        trend.add(float(i), {"missing": i, "tie": 0})
    assert len(trend._points) <= MOST_POINTS
    (line,), more = trend.lines()
    assert (line.name, line.now, line.highest, more) == ("missing", 10 * MOST_POINTS + 6, 10 * MOST_POINTS + 6, 0)
    assert trend.began_s == 0
    assert Trend().lines() == ((), 0)


def test_a_trend_shows_those_that_differ_most_now_first() -> None:
    """And says how many it leaves out."""
    trend = Trend()
    trend.add(0, {"a": 9})
    trend.add(1, {"b": 1, "c": 2})
    lines, more = trend.lines(most=2)
    assert ([line.name for line in lines], more) == (["c", "b"], 1)


# Reports.


def test_only_reports_without_keys_are_read_back(tmp_path: Path) -> None:
    """Not one with keys, no link, no pipe, nothing that another name could reach."""
    reports = KeptReports(tmp_path, most=2)
    found = made_up(5)
    hidden, shown = (render_page(*found, Typed(), keys=keys) for keys in (False, True))
    ids = [str(uuid.UUID(int=i)) for i in range(6)]
    assert reports.keep(ids[0], hidden)
    assert reports.read(ids[0]) == hidden
    assert (tmp_path / f"{ids[0]}.html").stat().st_mode & 0o777 == 0o600
    assert reports.keep(ids[1], shown)
    assert reports.read(ids[1]) is None
    (tmp_path / f"{ids[2]}.html").symlink_to(tmp_path / f"{ids[0]}.html")
    assert reports.read(ids[2]) is None
    os.mkfifo(tmp_path / f"{ids[3]}.html")
    assert reports.read(ids[3]) is None
    (tmp_path / "index.html").write_text(hidden)
    for name in ("index", "../x", f"{ids[0]}.html", "", "/etc/passwd", ids[5]):
        assert reports.read(name) is None
        assert not reports.keep(name, hidden) or name == ids[5]


def test_the_newest_reports_stay_and_nothing_else_is_removed(tmp_path: Path) -> None:
    """A folder of the operator's may hold other things."""
    reports = KeptReports(tmp_path, most=2)
    (tmp_path / "mine.html").write_text("mine")
    ids = [str(uuid.UUID(int=i)) for i in range(4)]
    for i, run_id in enumerate(ids):
        assert reports.keep(run_id, "x")
        os.utime(tmp_path / f"{run_id}.html", (i, i))
    assert sorted(path.stem for path in tmp_path.iterdir()) == [*ids[2:], "mine"]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """In one line, with the option."""
    with pytest.raises(UsageError, match=r"--html-dir .*create it first"):
        KeptReports(tmp_path / "none")


# Access.


@pytest.mark.parametrize(
    ("address", "token", "mode"),
    [
        ("127.0.0.1", "", PageMode.OPEN),
        ("127.0.7.3", "", PageMode.OPEN),
        ("::1", "", PageMode.OPEN),
        ("0.0.0.0", "", PageMode.REFUSED),
        ("::", "", PageMode.REFUSED),
        ("10.1.2.3", "", PageMode.REFUSED),
        ("10.1.2.3", TOKEN, PageMode.GUARDED),
        ("127.0.0.1", TOKEN, PageMode.GUARDED),
    ],
)
def test_who_may_see_the_page_depends_on_address_and_token(address: str, token: str, mode: PageMode) -> None:
    """This machine without a token, others only with one."""
    assert PageAccess(address, token).mode is mode
    assert TOKEN not in repr(PageAccess(address, token))


def test_a_token_that_can_be_guessed_is_refused() -> None:
    """With the command that makes a better one."""
    with pytest.raises(UsageError, match="openssl rand"):
        PageAccess("127.0.0.1", "secret")


def basic(text: str) -> str:
    """Return the login of a browser."""
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (basic(f"me:{TOKEN}"), None),
        (basic(f":{TOKEN}"), None),
        (f"Bearer {TOKEN}", None),
        (f"bearer {TOKEN}", None),
        (basic(TOKEN), 401),
        (basic(f"{TOKEN}:"), 401),
        ("Basic ???", 401),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), 401),
        (f"Digest {TOKEN}", 401),
        (f"Bearer {TOKEN}x", 401),
        ("", 401),
    ],
)
def test_the_token_is_a_password_or_a_bearer(given: str, status: int | None) -> None:
    """Nothing else opens the page."""
    refused = PageAccess("0.0.0.0", TOKEN).refusal({"authorization": given})
    assert (refused and refused.status) == status
    if refused is not None:
        assert "www-authenticate" in refused.headers


@pytest.mark.parametrize("host", ["localhost:9477", "127.0.0.1", "127.0.0.1:80", "[::1]:9477", "[::1]", "LOCALHOST"])
def test_this_machine_is_called_by_its_own_names(host: str) -> None:
    """A tunnel of ssh keeps them."""
    assert PageAccess("127.0.0.1").refusal({"host": host}) is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9477", "10.0.0.1:9477", "", "127.0.0.1.evil.example"])
def test_another_name_is_refused_without_a_token(host: str) -> None:
    """A proxy that passes the page on, or a web site whose name points here."""
    refused = PageAccess("127.0.0.1").refusal({"host": host})
    assert refused is not None
    assert (refused.status, "--listen-token-file" in refused.reason) == (403, True)


# HTTP.


@contextmanager
def serving(watch: MadeUpWatch, token: str = "", listen: str = "127.0.0.1:0", **changed: Any) -> Iterator[str]:
    """Serve a made-up watch; yield its address."""
    page = LiveRenderer(watch.state, lambda: True, **changed)
    server = Server(listen, watch.board.now, lambda: True, page, token)
    try:
        yield server.address
    finally:
        server.close()


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> MadeUpWatch:
    """A watch that saw an outage, and keeps reports."""
    made = MadeUpWatch(folder=tmp_path_factory.mktemp("reports"))
    for number in range(1, 7):
        made.visit(number, rows={2: 150, 3: 12}.get(number, 0))
    return made


def ask(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Return status, headers by lower-case name, and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode()


def test_the_page_is_whole_without_javascript_and_loads_nothing(watch: MadeUpWatch) -> None:
    """Tables, standings, replicas, causes, runs are in the document; the policy lets in this style and script alone."""
    with serving(watch) as address:
        status, headers, body = ask(f"http://{address}/")
    assert status == 200
    policy = headers["content-security-policy"]
    for part in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    for text in (
        "shop.table_002",
        "overdue",
        "unchecked",
        "10.0.0.3:9042",
        "did it miss writes",
        "162 rows in 2 tables",
    ):
        assert text in body, text
    assert 'http-equiv="refresh"' in body
    assert "//" not in body.replace('"use strict"', "").split("<script>")[0].replace("<!doctype html>", "")


def test_no_key_is_on_the_page_in_its_events_or_in_its_reports(watch: MadeUpWatch) -> None:
    """Neither as text nor as bytes; the findings that it was told of had both."""
    with serving(watch) as address:
        body = ask(f"http://{address}/")[2]
        links = [part.split('"')[0] for part in body.split('href="runs/')[1:]]
        assert links
        texts = [body, *(ask(f"http://{address}/runs/{link}")[2] for link in links)]
    for text in texts:
        assert CANARY not in text
        assert CANARY_HEX not in text


def test_a_report_is_served_apart_from_the_page(watch: MadeUpWatch) -> None:
    """Its script may not act as the live page's; what is not there, or has keys, is not found."""
    with serving(watch) as address:
        body = ask(f"http://{address}/")[2]
        run_id = body.split('href="runs/')[1].split('"')[0]
        status, headers, text = ask(f"http://{address}/runs/{run_id}")
        assert (status, "consistency check" in text) == (200, True)
        assert headers["content-security-policy"].startswith("sandbox allow-scripts;")
        assert ask(f"http://{address}/runs/{uuid.uuid4()}")[0] == 404
        assert ask(f"http://{address}/runs/../metrics")[0] == 404


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """A table may be called like a script."""
    made = MadeUpWatch(tables=3, hostile=True, folder=tmp_path)
    made.visit(0, rows=3)
    with serving(made) as address:
        body = ask(f"http://{address}/")[2]
    assert HOSTILE not in body
    assert "<img" not in body
    assert body.count("<script>") == 1


def test_an_open_address_serves_machines_and_refuses_the_page_without_a_token(watch: MadeUpWatch) -> None:
    """Those who listen on every address for Prometheus go on; the page says in one line what it needs."""
    with serving(watch, listen="0.0.0.0:0") as address:
        base = f"http://127.0.0.1:{address.rpartition(':')[2]}"
        assert get(base + "/metrics")[0] == 200
        assert get(base + "/healthz")[0] == 200
        for path in ("/", "/events", f"/runs/{uuid.uuid4()}"):
            status, _, text = ask(base + path)
            assert (status, text.count("\n")) == (403, 1)
            assert "--listen-token-file" in text


def test_with_a_token_only_the_page_asks_for_it(watch: MadeUpWatch) -> None:
    """/metrics and /healthz are as they were."""
    with serving(watch, TOKEN) as address:
        base = f"http://{address}"
        status, headers, _ = ask(base + "/")
        assert (status, headers["www-authenticate"].startswith("Basic ")) == (401, True)
        assert ask(base + "/events")[0] == 401
        assert ask(base + "/", Authorization=basic(f"me:{TOKEN}"))[0] == 200
        assert get(base + "/metrics")[0] == 200


def test_nothing_can_be_changed(watch: MadeUpWatch) -> None:
    """Only GET and HEAD are answered."""
    with serving(watch) as address:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            request = urllib.request.Request(f"http://{address}/", method=method, data=b"x")
            with pytest.raises(urllib.error.HTTPError, match="405"):
                urllib.request.urlopen(request, timeout=10)
        head = urllib.request.Request(f"http://{address}/", method="HEAD")
        with urllib.request.urlopen(head, timeout=10) as answer:
            assert (answer.status, answer.read()) == (200, b"")


class Tail:
    """A page that is open: its events as they come."""

    def __init__(self, address: str, since: str = "", **headers: str) -> None:
        request = urllib.request.Request(f"http://{address}/events?since={since}", headers=headers)
        self._answer = urllib.request.urlopen(request, timeout=10)

    def event(self) -> tuple[str, dict[str, str]]:
        """Return the version and the sections of the next event."""
        version = ""
        for raw in self._answer:
            line = raw.decode().rstrip("\n")
            if line.startswith("id: "):
                version = line[4:]
            elif line.startswith("data: "):
                return version, json.loads(line[6:])
        raise AssertionError("the stream ended")

    def close(self) -> None:
        """Close the page."""
        self._answer.close()


def test_an_open_page_gets_what_changes_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sections to one that knows nothing, then only what changed; a browser that comes back says what it has."""
    monkeypatch.setattr(live_stream, "LOOK_S", 0.05)
    made = MadeUpWatch()
    made.visit(1)
    with serving(made, busy_s=0.0) as address:
        tail = Tail(address)
        first, sections = tail.event()
        assert {"head", "now", "ring", "tables", "runs"} <= set(sections)
        made.begin(2)
        version, sections = tail.event()
        assert set(sections) == {"now"}
        made.visit(2, rows=12)
        changed: dict[str, str] = {}
        while "runs" not in changed:
            version, sections = tail.event()
            changed |= sections
        assert "12 rows in 1 table differ" in changed["head"]
        tail.close()
        again = Tail(address, since="nonsense", **{"Last-Event-ID": first})
        _, sections = again.event()
        assert "causes" not in sections
        assert "head" in sections
        again.close()
        assert version != first


def test_a_page_of_an_earlier_watch_gets_everything() -> None:
    """Its version means nothing here."""
    made = MadeUpWatch()
    page = LiveRenderer(made.state, lambda: True)
    update = page.update("0badcafe.7")
    assert {"head", "now", "ring", "tables"} <= set(update.sections)
    assert not page.update(update.version).sections


def test_nothing_is_rendered_more_often_than_needed() -> None:
    """Many visits in a second, or none for long: both cost one rendering."""
    made, now = MadeUpWatch(), [0.0]
    page = LiveRenderer(made.state, lambda: True, clock=lambda: now[0])
    version = page.update("").version
    made.visit(1)
    assert set(page.update(version).sections) <= {"now"}
    now[0] += 2.1
    update = page.update(version)
    assert "head" in update.sections
    made.clock += 3 * DAY_S
    assert set(page.update(update.version).sections) <= {"now"}
    now[0] += AGEING_S
    assert "runs" not in page.update(update.version).sections
    assert "head" in page.update(update.version).sections


def test_a_page_too_many_is_told_to_come_back(watch: MadeUpWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a forgotten tab costs others nothing; one that closes makes room within a moment."""
    monkeypatch.setattr(live_stream, "MOST_STREAMS", 1)
    with serving(watch) as address:
        tail = Tail(address)
        tail.event()
        assert ask(f"http://{address}/events")[0] == 503
        tail.close()
        deadline = time.monotonic() + 10
        while (status := _stream_status(address)) != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status == 200


def _stream_status(address: str) -> int:
    try:
        Tail(address).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def test_a_client_that_never_asks_is_let_go(watch: MadeUpWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request keeps no connection; before the first request and after one alike."""
    monkeypatch.setattr(http, "REQUEST_S", 0.3)
    with serving(watch) as address:
        host, _, port = address.rpartition(":")
        for sent in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal"):
            with socket.create_connection((host, int(port)), timeout=5) as client:
                client.sendall(sent)
                began = time.monotonic()
                with suppress(ConnectionResetError):
                    while client.recv(1_000):
                        pass
                assert time.monotonic() - began < 4


def test_the_server_ends_at_once_with_pages_open(watch: MadeUpWatch) -> None:
    """A watch that is told to stop does not wait for browsers."""
    with serving(watch) as address:
        tails = [Tail(address) for _ in range(3)]
        for tail in tails:
            tail.event()
        began = time.monotonic()
    assert time.monotonic() - began < 3
    for tail in tails:
        tail.close()


# What it shows.


def test_tables_stand_by_the_age_of_their_oldest_clean_pass() -> None:
    """Overdue, due, never clean, then in time, the oldest first."""
    made = MadeUpWatch()
    assert figures.table_lines(None, made.state.view()) == []
    made.visit(1)
    view = made.state.view()
    assert view.run_end is not None
    lines = figures.table_lines(view.run_end.report, view)
    assert [line.standing for line in lines[:3]] == [Standing.OVERDUE, Standing.DUE, Standing.UNCHECKED]
    parts = [line.part or 0 for line in lines[3:]]
    assert parts == sorted(parts, reverse=True)
    assert lines[0].age == "11 d of 10 d"


def test_without_a_ledger_ages_count_from_the_start_of_the_watch() -> None:
    """A table that was visited is as old as its visit, another one is unchecked."""
    made = MadeUpWatch(tables=2)
    made.board._clean_passes = tuple
    made.visit(1)
    made.clock += 6 * DAY_S
    view = made.state.view()
    assert view.run_end is not None
    lines = {line.name: line for line in figures.table_lines(view.run_end.report, view)}
    assert (lines["shop.table_001"].age, lines["shop.table_001"].standing) == ("6 d of 10 d", Standing.IN_TIME)
    assert lines["shop.table_000"].standing is Standing.UNCHECKED


def test_the_ring_shows_a_node_that_went_down() -> None:
    """Its ranges turn unread, it says so by name, and the reason is told."""
    made = MadeUpWatch()
    for number in range(8):
        made.visit(number)
    view = made.state.view()
    assert {track.worst for track in figures.ring(view)} == {"agreed"}
    made.down.add(4)
    made.visit(5)
    view = made.state.view()
    worst = {track.name: track.worst for track in figures.ring(view)}
    assert [name for name, state in worst.items() if state != "agreed"] == ["10.0.0.5:9042"]
    assert worst["10.0.0.5:9042"] == "unread"
    assert figures.silent_nodes(view) == {"10.0.0.5:9042": "does not answer"}
    (gap,), more = figures.gaps(view)
    assert (gap.replica, gap.tables, more) == ("10.0.0.5:9042", ("shop.table_005",), 0)


def test_of_many_nodes_those_with_trouble_have_their_own_circle() -> None:
    """The others share one for each data centre; no node is lost."""
    made = MadeUpWatch(nodes=200, tables=3)
    for number in range(3):
        made.visit(number, rows=12 if number == 1 else 0)
    made.down.add(150)
    made.visit(2)
    drawn = figures.ring(made.state.view())
    names = {track.name for track in drawn}
    assert {"10.0.0.3:9042", "10.0.0.151:9042"} <= names
    rest = [int(name.split()[0]) for name in names if name.endswith(("other nodes", "other node"))]
    assert sum(rest) + len(names) - len(rest) == 200
    assert len(drawn) <= 14


def test_what_is_read_now_has_a_rate_and_the_time_left() -> None:
    """By replica, the slowest first; between visits it says when the next one begins."""
    made = MadeUpWatch()
    made.begin(2, part=0.5)
    page = LiveRenderer(made.state, lambda: True)
    now = page.update("").sections["now"]
    for text in ("shop.table_002", "rows read", "a second", "left", "10.0.0.1:9042"):
        assert text in now
    made.visit(2)
    made.state.resting(90)
    assert "begins in 1m 30s" in page.update("").sections["now"]
    made.state.waiting()
    assert "lock" in page.update("").sections["now"]


def test_a_watch_that_hangs_says_so() -> None:
    """The page is served by another thread and would look alive."""
    page = LiveRenderer(MadeUpWatch().state, lambda: False)
    assert "The watch does not answer" in page.update("").sections["now"]


def test_a_visit_without_a_report_is_a_run_too() -> None:
    """Its table is unknown again; a reason that may quote a server is not told."""
    made = MadeUpWatch()
    made.visit(1)
    made.board.failed("shop.table_001", "secret", 1.0, 4)
    made.state.failed("run", "shop.table_001", "", 4)
    sections = LiveRenderer(made.state, lambda: True).update("").sections
    assert "ended without a report" in sections["runs"]
    assert "?" in made.state.view().strips["shop.table_001"]


# With a watch.


def test_the_watch_tells_its_audience_of_every_visit() -> None:
    """In virtual time, on a fake cluster: visits, a divergence, a cluster that does not answer, the rest between."""
    bench = Bench(("items", "orders"))
    told: list[str] = []

    class Audience:
        """Writes down what it is shown."""

        def __getattr__(self, name: str) -> Any:
            def tell(*_: Any) -> Any:
                told.append(name)
                return Silent()

            return tell

    bench.audience = Audience()
    bench.at(22, lambda: setattr(bench, "refuse", True))
    bench.run(35, period_s=20)
    assert told[:5] == ["in_scope", "visiting", "recorded", "visited", "resting"]
    assert told.count("visited") == 3
    assert "failed" in told


# The command.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "--listen-token-file .*No such file"),
        ("", "is empty; make a token: openssl rand -hex 32"),
        ("short\n", "fewer than 16 characters"),
    ],
)
def test_a_token_file_that_is_no_use_is_refused(shell: Any, tmp_path: Path, text: str | None, said: str) -> None:
    """Before anything is connected to, in one line."""
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    result = shell.run("watch", "--listen", "127.0.0.1:0", "--listen-token-file", str(path))
    assert result.exit_code == 2
    assert re.search(said, result.stderr)
    assert len(result.stderr.splitlines()) == 1


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option wins; the end of a line is no part of it."""
    (tmp_path / "a").write_text("from-the-option\r\n")
    (tmp_path / "b").write_text("from-a-file\n")
    assert take_token({"listen_token_file": None}) == ""
    monkeypatch.setenv("CONSISTENCY_LISTEN_TOKEN", "from-the-environment")
    assert take_token({"listen_token_file": None}) == "from-the-environment"
    monkeypatch.setenv("CONSISTENCY_LISTEN_TOKEN_FILE", str(tmp_path / "b"))
    assert take_token({"listen_token_file": None}) == "from-a-file"
    assert take_token({"listen_token_file": tmp_path / "a"}) == "from-the-option"
