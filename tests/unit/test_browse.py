"""Browsing a findings file: what is listed, filtered and marked, driven by keys as a person would."""

from __future__ import annotations

import asyncio
import io
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from consistency.cli import main
from consistency.errors import UsageError
from consistency.results.findings import Finding, FindingsWriter, Header, read_findings, read_header
from consistency.results.kinds import Kind
from tests.support.pages import HOSTILE, made_up

textual = pytest.importorskip("textual", reason="textual is not installed: pip install '.[browse]'")

from consistency.cli.show.browse.app import Browser  # noqa: E402 - after the skip
from consistency.cli.show.browse.detail import row_text  # noqa: E402
from consistency.cli.show.browse.rowlist import RowList  # noqa: E402
from consistency.cli.show.browse.shelf import SLICES, Choice, Shelf  # noqa: E402

HEADER = Header("run", "prod", "ring", "2026-07-15T04:00:12+00:00", "consistency 0")
Play = Callable[[Any, Browser], Awaitable[None]]


def findings_file(path: Path, count: int = 60, *, hostile: bool = False) -> list[Finding]:
    """Write a findings file and return what is in it."""
    _, found = made_up(count, hostile=hostile)
    with FindingsWriter(path, HEADER) as writer:
        for row in found.rows:
            writer.write(row.finding)
    return [row.finding for row in found.rows]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a findings file of 60 rows."""
    path = tmp_path / "findings.jsonl"
    findings_file(path)
    return path


def play(path: Path, keys: Play, *, width: int = 120, output: Path | None = None) -> Browser:
    """Open the browser, play the keys, and return it closed."""

    async def run() -> Browser:
        app = Browser(Shelf(path), output or path.with_name("marked.jsonl"))
        async with app.run_test(size=(width, 36)) as pilot:
            await pilot.pause()
            await keys(pilot, app)
        return app

    return asyncio.run(run())


def shown(app: Browser) -> list[int]:
    """Return the numbers of the rows in the list."""
    return [row.number for row in app.query_one(RowList).rows]


def head(app: Browser) -> str:
    """Return the first line of the screen."""
    return str(app.query_one("#head").render())


# The file as an index.


def test_a_shelf_counts_what_is_in_a_file(file: Path) -> None:
    """Tables, sixteenths of the ring, kinds and replicas; every row can be read again where it stands."""
    found = list(read_findings(file))
    shelf = Shelf(file)
    assert [shelf.finding(entry) for entry in shelf.entries] == found
    assert sum(shelf.by_table.values()) == sum(shelf.by_part.values()) == sum(shelf.by_kind.values()) == 60
    assert shelf.by_kind[Kind.MISSING] == sum(f.kind is Kind.MISSING for f in found)
    for part, token_range in enumerate(SLICES):
        inside = shelf.matching(Choice(part=part))
        assert [e.number for e in inside] == [i for i, f in enumerate(found, 1) if f.token in token_range]


def test_a_choice_joins_all_its_conditions(file: Path) -> None:
    """Kind, replica and words narrow one another."""
    shelf = Shelf(file)
    one = shelf.entries[17]
    assert shelf.matching(Choice(words=(one.label.rsplit(" ", 1)[1],))) == [one]
    some = shelf.matching(Choice(kind=Kind.STALE, replica="10.0.0.3:9042", words=("orders",)))
    assert some
    assert all(e.kind is Kind.STALE and "10.0.0.3:9042" in e.differing and e.table == "shop.orders" for e in some)


def test_written_rows_are_the_same_bytes_under_the_same_header(file: Path, tmp_path: Path) -> None:
    """The new file is private, in the old order, and a findings file in its own right."""
    out = tmp_path / "out.jsonl"
    assert Shelf(file).write(out, {9, 2, 30}) == 3
    lines = file.read_bytes().splitlines(keepends=True)
    assert out.read_bytes() == b"".join([lines[0], lines[2], lines[9], lines[30]])
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert read_header(out) == read_header(file)
    with pytest.raises(UsageError, match="is the input file"):
        Shelf(file).write(file, {1})
    with pytest.raises(UsageError, match="No such file or directory"):
        Shelf(file).write(tmp_path / "no" / "such", {1})


def test_ten_thousand_rows_are_indexed_and_filtered(tmp_path: Path) -> None:
    """A large file opens and answers a filter without reading it again."""
    path = tmp_path / "f.jsonl"
    findings_file(path, 2_000)
    first, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"".join(lines) * 5)
    shelf = Shelf(path)
    assert len(shelf.entries) == 10_000
    began = time.process_time()
    assert len(shelf.matching(Choice(words=("10.0.0.3", "missing")))) > 200
    assert time.process_time() - began < 3
    assert shelf.finding(shelf.entries[-1]) == shelf.finding(shelf.entries[1_999])


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ("{}\n", "not a findings file"), ('{"type":"findings","schema":1}\n{"kind":1}\n', "line 2")],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    """What is wrong with it is said, with the line."""
    path = tmp_path / "f"
    path.write_text(text)
    path.chmod(0o600)
    result = CliRunner().invoke(main, ["browse", str(path)])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_file_without_rows_says_so(tmp_path: Path) -> None:
    """Rather than show an empty screen."""
    path = tmp_path / "f.jsonl"
    findings_file(path, 0)
    result = CliRunner().invoke(main, ["browse", str(path)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "holds no rows" in " ".join(result.stdout.split())


# The screen.


def test_the_cursor_shows_a_rows_replicas(file: Path) -> None:
    """Moving down shows the next row's key, token and each replica's state."""

    async def keys(pilot: Any, app: Browser) -> None:
        await pilot.press("down", "down")
        current = app.query_one(RowList).current
        assert current is not None
        assert current.number == 3

    play(file, keys)


def test_a_row_is_shown_with_its_replicas_side_by_side(file: Path) -> None:
    """State and write time of every replica, the differing ones named for what they are."""
    shelf = Shelf(file)
    stale = shelf.matching(Choice(kind=Kind.STALE))[0]
    shown_text, width = row_text(shelf.finding(stale), stale.number)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(shown_text)
    text = console.export_text()
    assert "…" not in text, "it is as wide as it says"
    for name in shelf.finding(stale).replicas:
        assert name in text
    assert "behind" in text
    assert "up to date" in text
    assert "older" in text
    assert "canary-key" in text
    assert "(3 cells)" in text


def test_a_filter_narrows_as_it_is_typed_and_escape_clears_it(file: Path) -> None:
    """`/`, words, Enter, then Escape."""

    async def keys(pilot: Any, app: Browser) -> None:
        await pilot.press("slash", *"stale", "enter")
        await pilot.pause()
        numbers = shown(app)
        assert 0 < len(numbers) < 60
        assert f"{len(numbers)} of 60 rows" in head(app)
        await pilot.press("slash", *"zzz", "enter", "space", "a", "down", "pagedown", "end")
        await pilot.pause()
        assert shown(app) == []
        assert "0 of 60 rows, 0 marked" in head(app)
        await pilot.press("escape")
        await pilot.pause()
        assert len(shown(app)) == 60

    play(file, keys)


def test_the_tree_chooses_tables_ranges_kinds_and_replicas(file: Path) -> None:
    """Every node of the tree lists exactly the rows it counts."""

    async def keys(pilot: Any, app: Browser) -> None:
        tree = app.query_one("#choices")
        tree.focus()
        tree.root.expand_all()
        await pilot.pause()
        seen = 0
        await pilot.press("home")
        for _ in range(tree.last_line + 1):
            await pilot.pause()
            node = tree.cursor_node
            label = str(node.label)
            if node.data != Choice():
                assert str(len(shown(app))) == label.split(" ", maxsplit=1)[0], label
                seen += 1
            await pilot.press("down")
        assert seen > 20

    play(file, keys)


def test_marked_rows_are_written_and_nothing_else(file: Path) -> None:
    """Space marks, `a` marks what is shown, `u` takes it back, `w` writes; quitting then asks nothing."""
    out = file.with_name("marked.jsonl")

    async def keys(pilot: Any, app: Browser) -> None:
        await pilot.press("space", "down", "space")
        assert app._marked == {1, 3}, "a key pressed right after finds the marks there"
        await pilot.pause()
        assert ", 2 marked" in head(app)
        await pilot.press("slash", *"stale", "enter", "a")
        await pilot.pause()
        stale = shown(app)
        assert f"{len({1, 3, *stale})} marked" in head(app)
        await pilot.press("u", "escape", "w")
        await pilot.pause()
        await pilot.press("q")

    app = play(file, keys)
    every = list(read_findings(file))
    stale = {i for i, f in enumerate(every, 1) if f.kind is Kind.STALE}
    assert list(read_findings(out)) == [every[i - 1] for i in sorted({1, 3} - stale)]
    assert app.return_value == len({1, 3} - stale)


def test_marks_that_were_not_written_are_not_lost_silently(file: Path) -> None:
    """The first `q` says so, the second leaves."""

    async def keys(pilot: Any, app: Browser) -> None:
        await pilot.press("space", "q")
        await pilot.pause()
        assert app.is_running
        assert app._exit is False
        await pilot.press("q")

    assert play(file, keys).return_value == 0


def test_a_disk_that_refuses_is_said(file: Path, tmp_path: Path) -> None:
    """The browser goes on, and the marks stay unwritten."""

    async def keys(pilot: Any, app: Browser) -> None:
        await pilot.press("space", "w")
        await pilot.pause()
        assert app._saved == frozenset()
        await pilot.press("q")
        await pilot.pause()
        assert app._exit is False

    play(file, keys, output=tmp_path / "no" / "such" / "file")


@pytest.mark.parametrize("width", [80, 200])
def test_hostile_names_neither_break_nor_move_anything(tmp_path: Path, width: int) -> None:
    """Names that hold markup, controls or marks of direction are drawn as text."""
    path = tmp_path / "f.jsonl"
    findings_file(path, 40, hostile=True)

    async def keys(pilot: Any, app: Browser) -> None:
        for _ in range(12):
            await pilot.press("down")
        await pilot.pause()
        picture = app.export_screenshot()
        assert "\x1b" not in picture
        assert "\u202e" not in picture
        assert HOSTILE not in picture

    play(path, keys, width=width)


def test_keys_are_seen_on_a_narrow_screen_however_long_the_tables_names_are(tmp_path: Path) -> None:
    """Of a long name the end is shown; where all rows are of one table it takes no room at all."""
    path, names = tmp_path / "f.jsonl", ("customer_purchase_history_by_region", "customer_purchase_history_by_month")
    _, found = made_up(40)
    with FindingsWriter(path, HEADER) as writer:
        for i, row in enumerate(found.rows):
            writer.write(replace(row.finding, keyspace="shop", table=names[i % 2]))

    async def keys(pilot: Any, app: Browser) -> None:
        rows = app.query_one(RowList)
        lines = [rows.render_line(y).text for y in range(4)]
        assert [("by_region" in line, "by_month" in line) for line in lines] == [(True, False), (False, True)] * 2
        assert all(entry.label[:8] in line for entry, line in zip(rows.rows[:4], lines, strict=True))
        rows.show(app._shelf.matching(Choice(table=f"shop.{names[0]}")))
        await pilot.pause()
        assert "history" not in rows.render_line(0).text

    play(path, keys, width=80)


# The command.


def test_without_a_terminal_it_says_what_else_there_is(file: Path) -> None:
    """A pipe gets one line and exit code 2."""
    result = CliRunner().invoke(main, ["browse", str(file)])
    assert result.exit_code == 2
    assert "browse needs a terminal" in result.stderr


def test_without_textual_it_names_the_extra(file: Path) -> None:
    """One line that says what to install; help works without it."""
    code = (
        "import sys; sys.modules['textual'] = None\n"
        "from consistency.cli import main; main(sys.argv[1:], prog_name='consistency')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "browse", str(file)], capture_output=True, check=False, text=True
    )
    assert result.returncode == 4
    assert result.stderr.strip() == (
        "error: 'browse' needs more packages (textual): "
        "pip install 'cassandra-consistency[browse]', in a clone '.[browse]'"
    )
    helped = subprocess.run(
        [sys.executable, "-c", code, "browse", "--help"], capture_output=True, check=False, text=True
    )
    assert helped.returncode == 0


def test_other_commands_do_not_load_it() -> None:
    """Textual and the templates' engine are loaded by those who use them."""
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom consistency.cli import main\n"
        "CliRunner().invoke(main, ['--help'])\nprint('textual' in sys.modules, 'jinja2' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]
