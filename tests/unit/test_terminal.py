"""What a person sees: calm, within 80 columns, plain where it is no terminal, and safe whatever the cluster holds."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

import pytest
from rich.cells import cell_len

from consistency.checking.leaves import LeafResult
from consistency.checking.plan import Leaf, TablePlan
from consistency.cli.show.page.collect import Collector
from consistency.cli.show.page.render import render_page
from consistency.cli.show.terminal import strip
from consistency.cli.show.terminal.advice import Typed, next_commands
from consistency.cli.show.terminal.console import command, is_live, make_console
from consistency.cli.show.terminal.counts import Counts
from consistency.cli.show.terminal.problems import choose_findings, key_text, percent, states_text
from consistency.cli.show.terminal.progress import LINE_EVERY_S, LineProgress, LiveProgress, line, picture
from consistency.cli.show.terminal.summary import print_report
from consistency.cli.show.terminal.tables import MOST_LINES, choose_lines
from consistency.cluster.locality import TracesLeft
from consistency.errors import ReplicaTimeout
from consistency.model.tokens import MAX_TOKEN, MIN_TOKEN, TokenRange
from consistency.model.tree import Digest
from consistency.results.cause import Cause, CauseKind
from consistency.results.figures import counted, moment, short, span
from consistency.results.findings import Finding, ReplicaView, State
from consistency.results.kinds import Kind
from consistency.results.recency import recencies
from consistency.results.report import Report, Severity, TableReport, Unread, Violation
from consistency.results.strip import overlaid
from consistency.results.verdict import Coverage, Verdict
from tests.unit.fake_cluster import nodes, table

HOSTILE = "[red]\x1b[2J\u202e\r\n漢字" + "x" * 60
BLIND = ("values: different values written at the same time look alike (use --depth content)",)
WHOLE = Coverage(planned=9, completed=9)
PART = Coverage(planned=9, completed=6, failed=3)


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def table_report(name: str = "orders", **changes: object) -> TableReport:
    """Return a clean table's report, with changes."""
    clean = TableReport(
        keyspace="shop",
        table=name,
        depth="content",
        route="server",
        locality="node-local",
        rows=1234,
        divergent_rows=0,
        unsettled_rows=0,
        seconds=1.5,
        coverage=WHOLE,
        strip="=" * 64,
        blind=BLIND,
    )
    return replace(clean, **changes)  # type: ignore[arg-type]


def report(*tables: TableReport, **changes: object) -> Report:
    """Return a report of these tables, with changes."""
    found = {"missing": sum(t.divergent_rows for t in tables)} if any(t.divergent_rows for t in tables) else {}
    plain = Report(
        run_id="0123456789abcdef",
        cluster="prod",
        started_at="2026-01-01T00:00:00+00:00",
        seconds=12.0,
        tables=tables,
        violations=(),
        findings_by_kind=found,
        replicas=("10.0.0.1:9042", "10.0.0.2:9042", "10.0.0.3:9042"),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def finding(kind: Kind = Kind.MISSING, states: str = "ccm", key: Mapping[str, object] | None = None) -> Finding:
    """Return a finding; `states` has a letter for each replica: current, missing, stale, unreadable."""
    letters = {"c": State.CURRENT, "m": State.MISSING, "s": State.STALE, "u": State.UNREADABLE}
    views = {
        f"10.0.0.{i}:9042": ReplicaView(letters[x], {"v": 1_700_000_000_000_000} if x in "cs" else {})
        for i, x in enumerate(states, start=1)
    }
    return Finding(kind, "shop", "orders", 5, key or {"id": 7}, {}, views, columns=("v",))


def text_of(shown: Report, *, keys: bool = True, stream: io.StringIO | None = None, typed: Typed | None = None) -> str:
    """Return the summary."""
    stream = stream or io.StringIO()
    print_report(make_console(stream, environ={"TERM": "xterm"}), shown, typed or Typed(), keys=keys)
    return stream.getvalue()


def worst() -> Report:
    """Return a report with everything in it, and hostile text wherever text comes from a cluster."""
    ranges = (TokenRange(MIN_TOKEN, 0), TokenRange(5, MAX_TOKEN))
    return report(
        table_report(HOSTILE, divergent_rows=3, strip="x" + "=" * 63, note=HOSTILE),
        table_report("b", coverage=PART, strip="?" * 64, unread=(Unread("10.0.0.1:9042", ranges, HOSTILE),)),
        table_report("c", depth="", route="", locality="", note=HOSTILE, coverage=Coverage(planned=1, skipped=1)),
        table_report("d", unsettled_rows=2),
        cluster=HOSTILE,
        top=(finding(key={HOSTILE: HOSTILE}), replace(finding(Kind.STALE, "css"), columns=(HOSTILE,))),
        violations=(
            Violation(HOSTILE, HOSTILE, HOSTILE, HOSTILE),
            Violation("rack_skew", "", "uneven", "even it", Severity.WARNING),
        ),
        not_checked={"shop.view": "materialized view of orders: check its table", HOSTILE: HOSTILE},
        findings_path="findings.jsonl",
    )


def causes(count: int) -> tuple[Cause, ...]:
    """Return likely causes with a number each."""
    return tuple(Cause(CauseKind.TIED_CLOCKS, f"cause {i} " + "word " * 30, 50) for i in range(count))


# The summary.


def test_the_two_likeliest_causes_are_said() -> None:
    """What probably happened stands under the findings; a third is only counted, and none leaves no heading."""
    text = text_of(report(table_report(divergent_rows=50), likely_causes=causes(3)), keys=False)
    assert "likely causes\n  - cause 0 word" in text
    assert "- cause 1" in text
    assert "cause 2" not in text
    assert "and 1 more" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "likely" not in text_of(report(table_report()))


def test_a_clean_run_says_what_it_rests_on() -> None:
    """The verdict, the digests read, and how it is known whose they were."""
    text = text_of(report(table_report()))
    assert text.startswith("CONSISTENT  All replicas hold the same 1,234 rows in 1 table.\n")
    flat = " ".join(text.split())
    assert "9 of 9 planned digests read from 3 nodes (content, node-local), each proven that node's own." in flat
    assert "use --depth content" in flat
    assert "next" not in text


def test_an_unknown_verdict_says_what_is_missing() -> None:
    """Digests, tables and rows that kept changing, each counted."""
    skipped = table_report("v", depth="", note="one replica", coverage=Coverage(planned=1, skipped=1))
    shown = report(table_report(coverage=PART), skipped, table_report("b", unsettled_rows=2))
    flat = " ".join(text_of(shown).split())
    assert flat.startswith("UNKNOWN No difference was found in 2,468 rows in 2 tables, but 3 of 18 digests could not")
    assert "1 table could not be checked and 2 rows kept changing or could not be read again." in flat
    assert "? shop.v: one replica" in flat
    # A table with nothing to compare it with stays so however often it is checked.
    assert "consistency check shop.orders" in flat
    assert "shop.v --" not in flat


def test_a_check_of_nothing_does_not_claim_agreement() -> None:
    """No table, no claim."""
    assert "Nothing was compared" in text_of(report())


def test_a_check_that_read_nothing_does_not_speak_of_proof() -> None:
    """Where no digest came back there is nothing to prove."""
    text = text_of(report(table_report(rows=0, coverage=Coverage(planned=9, failed=9))))
    assert "Nothing was read" in text
    assert "proven" not in text


@pytest.mark.parametrize("stream", [io.StringIO, Tty])
def test_everything_fits_80_columns(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide characters count double."""
    monkeypatch.setenv("COLUMNS", "80")
    text = text_of(worst(), stream=stream())
    plain = text if stream is io.StringIO else without_codes(text)
    assert max(map(cell_len, plain.splitlines())) <= 80


def test_a_narrow_terminal_keeps_the_names_of_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells fold: a line that says 'divergent' and not of what is no use."""
    monkeypatch.setenv("COLUMNS", "40")
    shown = report(tables=(table_report("orders", divergent_rows=3),))
    plain = without_codes(text_of(shown, stream=Tty()))
    assert any("shop.orders" in line.replace(" ", "") and "3" in line for line in plain.splitlines()), plain
    assert max(map(cell_len, plain[: plain.index("ring")].splitlines())) <= 40


def without_codes(text: str) -> str:
    """Return text without colours; nothing else may be in it."""
    import re  # noqa: PLC0415

    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b" not in plain
    return plain


def test_hostile_names_are_escaped_and_never_markup() -> None:
    """No escape, no reordering, no line of its own; the brackets stay as they are."""
    text = text_of(worst())
    assert not {"\x1b", "\u202e", "\r"} & set(text)
    assert "[red]\\x1b[2J\\u202e\\r\\n" in text.replace("\n", "").replace(" ", "")


def test_plain_text_is_ascii() -> None:
    """Logs, mails and old terminals show it."""
    assert text_of(replace(worst(), cluster="prod", top=(finding(),))).replace("漢字", "").isascii()


def test_a_terminal_gets_colours_and_blocks() -> None:
    """The strip is drawn; nothing but colours is sent."""
    text = text_of(worst(), stream=Tty())
    assert "\x1b[" in text
    assert "█" in without_codes(text)


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}, {}])
def test_no_codes_where_none_are_wanted(environ: Mapping[str, str]) -> None:
    """NO_COLOR, which takes no progress away, a dumb terminal, none at all."""
    assert is_live(Tty(), environ) == ("NO_COLOR" in environ)
    stream = Tty()
    print_report(make_console(stream, environ=environ), worst(), Typed(), keys=True)
    assert "\x1b" not in stream.getvalue()


def test_a_small_check_fits_a_screen() -> None:
    """24 lines with differences, findings and commands to come."""
    tables = [table_report("a"), table_report("b", divergent_rows=3, strip="x" + "=" * 63)]
    shown = report(*tables, top=tuple(finding(k) for k in (Kind.MISSING, Kind.STALE, Kind.TIE)), findings_path="f")
    assert len(text_of(shown).splitlines()) <= 24


def test_of_hundreds_of_tables_the_troubled_come_first() -> None:
    """The clean ones are one line."""
    clean = [table_report(f"t{i}") for i in range(300)]
    bad = [
        table_report("z1", coverage=PART),
        table_report("z2", divergent_rows=5),
        table_report("z3", divergent_rows=9),
    ]
    shown, rest = choose_lines([*clean, *bad])
    assert ([t.table for t in shown], len(rest)) == (["z3", "z2", "z1"], 300)
    text = text_of(report(*clean, *bad))
    assert "= 300 more tables consistent, 370k rows, 7m 30s" in text
    assert len(text.splitlines()) <= 24


def test_of_many_troubled_tables_the_rest_is_counted() -> None:
    """None is left out silently."""
    bad = [table_report(f"t{i}", divergent_rows=2) for i in range(MOST_LINES + 5)]
    assert "x 5 more tables divergent, 6.2k rows, 10 differ" in text_of(report(*bad))


def test_a_remedy_is_printed_once_a_keyspace() -> None:
    """Several rules may have one remedy."""
    same = [Violation(kind, "shop", "a fact", "ALTER KEYSPACE shop") for kind in ("a", "b")]
    text = text_of(report(table_report(), violations=tuple(same)))
    assert text.count("ALTER KEYSPACE shop") == 1
    assert "2 rules of replication are broken" in " ".join(text.split())


def test_hidden_keys_leave_the_token() -> None:
    """And say how to see them."""
    shown = report(table_report(divergent_rows=1), top=(finding(key={"id": "secret"}),))
    text = text_of(shown, keys=False)
    assert "secret" not in text
    assert "token 5" in text
    assert 'id="secret"' in text_of(shown, keys=True)


@pytest.mark.parametrize(
    ("kind", "states", "said"),
    [
        (Kind.MISSING, "ccm", "missing on 10.0.0.3:9042; newest write 2023-11-14 22:13:20 UTC"),
        (Kind.MISSING, "cmm", "only on 10.0.0.1:9042; newest"),
        (Kind.STALE, "ccs", "behind on 10.0.0.3:9042; in v; newest"),
        (Kind.STALE, "css", "current only on 10.0.0.1:9042; in v"),
        (Kind.MISSING, "csm", "missing on 10.0.0.3:9042; behind on 10.0.0.2:9042; current on 10.0.0.1:9042"),
        (Kind.TIE, "cs", "behind on 10.0.0.2:9042"),
        (Kind.MISSING, "cum", "missing on 10.0.0.3:9042; unreadable on 10.0.0.2:9042"),
        (Kind.FUTURE_WRITE_TIME, "ccc", "alike on 3 replicas; in v; newest write"),
        (Kind.NON_OWNER, "c", "held by 10.0.0.1:9042, which does not own its token range"),
    ],
)
def test_a_finding_names_the_smaller_side(kind: Kind, states: str, said: str) -> None:
    """What is left unsaid follows."""
    assert states_text(finding(kind, states)).startswith(said)


def test_nobody_is_behind_where_no_write_time_is_told() -> None:
    """Of a counter, and before 5.0 of a collection: which value is newer is not known. Equal times have a winner."""
    tied = finding(Kind.TIE, "ccsu")
    untold = {name: replace(view, writetimes={}) for name, view in tied.replicas.items()}
    assert states_text(replace(tied, replicas=untold)) == (
        "one value on 10.0.0.1:9042, 10.0.0.2:9042, another on 10.0.0.3:9042; unreadable on 10.0.0.4:9042; in v"
    )
    held = next(iter(untold.values()))
    assert [recency.word for _, _, recency in recencies(replace(tied, replicas=untold), held)] == [""]
    assert [r.word for _, _, r in recencies(tied, next(iter(tied.replicas.values())))] == ["same time, differs"]


def test_the_findings_shown_are_of_different_kinds() -> None:
    """By their numbers in the file."""
    kinds = [Kind.MISSING, Kind.MISSING, Kind.MISSING, Kind.STALE, Kind.TIE]
    assert choose_findings([finding(k) for k in kinds]) == [1, 4, 5]


# The ring strip.


def test_strips_are_laid_over_each_other() -> None:
    """The gravest mark of a cell shows."""
    assert overlaid(["==? ", "=x= ", ""]) == "=x? "
    assert overlaid([]) == ""


@pytest.mark.parametrize("room", [1, 17, 30, 38, 58, 63, 64, 98])
def test_a_strip_fits_its_terminal_and_loses_no_mark(room: int) -> None:
    """Neighbours share a cell, which shows the graver mark."""
    for place in (0, 31, 62, 63):
        cells = "=" * place + "x" + "=" * (63 - place)
        drawn = strip.draw(cells, blocks=False, room=room).plain
        assert (len(drawn) <= room, drawn.count("x")) == (True, 1)
        assert abs(drawn.index("x") - place * len(drawn) / 64) < 2
    assert strip.draw("", blocks=False, room=room).plain == ""


def test_each_troubled_table_has_its_strip_until_they_are_many() -> None:
    """Then one holds them all."""
    tables = [table_report(f"t{i}", strip="x===") for i in range(3)]
    assert [title for title, _ in strip.chosen_strips(tables, 3)] == ["shop.t0", "shop.t1", "shop.t2"]
    assert strip.chosen_strips(tables, 2) == [("3 tables", "x===")]
    assert strip.chosen_strips([table_report(strip="====")], 2) == [("shop.orders", "====")]
    assert strip.chosen_strips([table_report(strip="")], 2) == []


# Commands and figures.


def test_a_long_command_is_continued_and_never_broken_in_a_word() -> None:
    """It can be pasted."""
    stream = io.StringIO()
    words = ["consistency check", *(f"keyspace{i}.table{i}" for i in range(8)), "--hosts a,b"]
    command(make_console(stream), words, "why")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  # why"
    assert all(text.endswith(" \\") for text in lines[1:-1])
    joined = " ".join(text.removesuffix("\\").strip() for text in lines[1:])
    assert joined == " ".join(words)


@pytest.mark.parametrize(
    ("interrupted", "why"), [(False, "once every replica can be read"), (True, "what was not reached")]
)
def test_what_was_not_read_is_to_be_checked_next(interrupted: bool, why: str) -> None:
    """After Ctrl-C no replica is to blame."""
    partly = table_report(coverage=Coverage(12, completed=8))
    ((said, words),) = next_commands(report(partly, interrupted=interrupted), Typed(connection=("--hosts", "a")))
    assert (said, words[0], words[-1]) == (why, "consistency check", "--hosts a")


def test_names_in_commands_are_quoted_for_the_shell() -> None:
    """A file may be called anything."""
    shown = report(table_report(divergent_rows=1), findings_path="my file; rm x")
    _, first = next_commands(shown, Typed(connection=("--hosts", "a b")))[0]
    assert " ".join(first) == "consistency explain 'my file; rm x' --row 1 --hosts 'a b'"
    assert shown.verdict is Verdict.DIVERGENT


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(1, "row"), "1 row"),
        (counted(2000, "row"), "2,000 rows"),
        (short(999), "999"),
        (short(12_345), "12.3k"),
        (short(999_999), "1.0M"),
        (short(123_456_789), "123M"),
        (short(5e12), "5000G"),
        (span(0.04), "0.0s"),
        (span(59.7), "1m 00s"),
        (span(125), "2m 05s"),
        (span(3780), "1h 03m"),
        (span(187_200), "2d 4h"),
        (moment(0), "1970-01-01 00:00:00 UTC"),
        (moment(1_700_000_000_123_456, micros=True), "2023-11-14 22:13:20.123456"),
        (moment(2**63 - 1), "9223372036854775807 us"),
        (moment(-(2**63)), "-9223372036854775808 us"),
        (percent(0), "0%"),
        (percent(0.0001), "<0.1%"),
        (percent(0.125), "12.5%"),
        (percent(1.0000001), "100%"),
    ],
)
def test_figures_read_well(said: str, expected: str) -> None:
    """Also at the edges."""
    assert said == expected


# Progress.


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def planned(name: str = "orders", leaves: int = 4, count: int = 3) -> TablePlan:
    """Return a plan over all nodes."""
    pieces = TokenRange.full_ring().split(leaves)
    return TablePlan(table(name=name), (tuple(Leaf(piece, nodes(count)) for piece in pieces),), 400)


def result(leaf: Leaf, failed: int = 0) -> LeafResult:
    """Return a leaf's result of 100 rows a replica, the first replicas of which failed."""
    bad = {node: ReplicaTimeout("slow") for node in leaf.replicas[:failed]}
    good = {node: Digest(100, b"") for node in leaf.replicas[failed:]}
    return LeafResult(leaf, 0, good, bad)


def test_the_tally_counts_digests_by_replica() -> None:
    """A digest that failed and is tried again is one digest."""
    watch = Watch()
    counts = Counts(watch)
    plan = planned()
    counts.scan_started(2)
    counts.table_planned(plan.table, plan)
    watch.now = 2.0
    counts.leaf_digested(result(plan.leaves[0], failed=1))
    counts.leaf_digested(result(plan.leaves[1]))
    lanes = list(counts.lanes.values())
    assert [(lane.done, lane.failed, lane.rows) for lane in lanes] == [(2, 1, 100), (2, 0, 200), (2, 0, 200)]
    assert (counts.part, counts.failed, counts.seconds_left) == (0.5, 1, 2.0)
    counts.leaf_digested(result(plan.leaves[0]))
    assert (counts.part, counts.failed) == (0.5 + 2 / 12, 0)


def test_plain_progress_is_a_line_every_ten_seconds() -> None:
    """However much happens."""
    stream, watch = io.StringIO(), Watch()
    progress = LineProgress(make_console(stream), watch)
    plan = planned()
    progress.observer.scan_started(1)
    progress.observer.table_planned(plan.table, plan)
    for second in range(1, 25):
        watch.now = float(second)
        if second in (5, 15):
            progress.observer.leaf_digested(result(plan.leaves[second // 10]))
            progress.observer.found(finding())
        progress.tick()
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 24 // int(LINE_EVERY_S)
    assert lines[0] == "shop.orders: digesting 25%, 30 rows/s, 1 finding, 30s left"
    assert "\x1b" not in stream.getvalue()


def test_progress_says_what_it_waits_for() -> None:
    """Before, between and after the digests."""
    counts = Counts(Watch())
    assert line(counts) == "check: reading the schema, 0 findings"
    counts.scan_started(3)
    assert line(counts).startswith("check: estimating rows")
    plan = planned()
    counts.table_planned(plan.table, plan)
    for leaf in plan.leaves:
        counts.leaf_digested(result(leaf))
    assert line(counts).startswith("shop.orders, table 1 of 3: comparing rows 100%")
    counts.settling(1200)
    assert line(counts) == "reading suspects again: 1,200 rows left, 0 findings"


@pytest.mark.parametrize("count", [3, 100])
def test_the_live_picture_fits(count: int) -> None:
    """A bar a replica; of many, those furthest behind."""
    counts = Counts()
    counts.scan_started(2)
    plan = planned(HOSTILE, count=count)
    counts.table_planned(plan.table, plan)
    counts.leaf_digested(result(plan.leaves[0], failed=1))
    stream = Tty()
    console = make_console(stream, environ={"TERM": "xterm"})
    console.width = 79
    console.print(picture(counts, console.width))
    lines = without_codes(stream.getvalue()).splitlines()
    assert max(map(cell_len, lines)) <= 79
    assert len(lines) <= 16
    assert ("and 88 replicas further ahead" in "".join(lines)) == (count == 100)


def test_live_progress_leaves_the_screen_clean() -> None:
    """The cursor is shown again."""
    stream = Tty()
    progress = LiveProgress(make_console(stream, environ={"TERM": "xterm"}))
    plan = planned()
    progress.observer.scan_started(1)
    progress.observer.table_planned(plan.table, plan)
    progress.observer.settling(3)
    progress.tick()
    progress.say("interrupted")
    progress.close()
    progress.close()
    assert stream.getvalue().rstrip().endswith("\x1b[2K") or "\x1b[?25h" in stream.getvalue()
    assert "interrupted" in stream.getvalue()


def test_a_key_of_64_kilobytes_is_cut() -> None:
    """It would push everything else off the screen; a key of ordinary length is shown whole."""
    text = key_text({"p": "x" * 65_000, "c": 7, "n": "y" * 300})
    assert text == f'p="{"x" * 300}"... (65,000 characters), c=7, n="{"y" * 300}"'


def test_what_traces_leave_is_said() -> None:
    """On the terminal and on the page, where anything is left."""
    traced = report(table_report(locality="traced"), traces=TracesLeft(1_204, 3))
    page = render_page(traced, Collector(), Typed(), keys=False)
    for text in (text_of(traced), page):
        said = " ".join(text.split())
        assert "1,204 traced queries stay in system_traces for a day" in said
        assert "in 3 of them a key" in said
    assert "system_traces" not in text_of(report(table_report()))
