"""The page: one HTML file without external scripts, fonts or pictures; the browser may load nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from consistency import __version__
from consistency.cli.show.page.collect import Collector
from consistency.cli.show.page.history import histories
from consistency.cli.show.page.payload import payload, script_safe
from consistency.cli.show.page.ring import SIZE, WORDS, tracks
from consistency.cli.show.terminal.advice import Typed, next_commands
from consistency.cli.show.terminal.problems import percent
from consistency.cli.show.terminal.summary import basis, claim, reach
from consistency.model.cqltext import visible
from consistency.results.figures import counted, moment, short, span
from consistency.results.report import NOT_IN_SAMPLE, Report, Severity, TableReport, Unread, Violation
from consistency.results.verdict import Verdict

MOST_TABLES, MOST_NODES = 500, 200
_PACKAGE = "consistency.cli.show.page"


@dataclass(frozen=True, slots=True)
class _Gap:
    """The unread ranges of one replica, summed over tables."""

    replica: str
    tables: tuple[str, ...]
    ranges: int
    share: str
    reason: str


def render_page(report: Report, found: Collector, typed: Typed, *, keys: bool) -> str:
    """Return the page; without `keys` no part of any key is in it."""
    css, script = asset("page.css"), asset("page.js")
    verdict = f"interrupted, {report.verdict.value} so far" if report.interrupted else report.verdict.value
    shown = sorted(report.tables, key=troubled_first)
    return (
        environment(_PACKAGE)
        .get_template("page.html")
        .render(
            report=report,
            found=found,
            keys=keys,
            verdict=verdict,
            claim=claim(report),
            basis=basis(report),
            reach=reach(report),
            tables=shown[:MOST_TABLES],
            more_tables=len(report.tables) - len(shown[:MOST_TABLES]),
            tracks=tracks(report, found.behind),
            ring_size=SIZE,
            most_behind=max(found.behind.values(), default=1),
            sure=report.coverage.complete and not (report.interrupted or any(t.unsettled_rows for t in report.tables)),
            histories=histories(found.rows),
            gaps=unread_of(report.tables),
            shares=(shares := report.rows_by_node)[:MOST_NODES],
            more_shares=len(shares[MOST_NODES:]),
            violations=gravest_first(report.violations),
            blind=list(dict.fromkeys(sentence for table in report.tables for sentence in table.blind)),
            commands=[(why, " ".join(words)) for why, words in next_commands(report, typed)],
            css=Markup(css),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            policy=policy(css, script),
            data=Markup(script_safe(_data(report, found, keys=keys))),  # noqa: S704 - script_safe escapes it
            version=__version__,
        )
    )


def gravest_first(violations: Sequence[Violation]) -> list[Violation]:
    """Return rules that are broken, then those that might be."""
    return sorted(violations, key=lambda v: v.severity is not Severity.ERROR)


def _data(report: Report, found: Collector, *, keys: bool) -> dict[str, Any]:
    path = report.findings_path
    return {**payload(found.rows, keys=keys), "total": found.total, "file": None if path is None else visible(path)}


def troubled_first(table: TableReport) -> tuple[bool, bool, int, str]:
    """Sort tables: those that differ, those that are unknown, then the others."""
    return (
        table.verdict is not Verdict.DIVERGENT,
        table.verdict is not Verdict.UNKNOWN,
        -table.divergent_rows,
        table.full_name,
    )


def unread_of(tables: Sequence[TableReport]) -> list[_Gap]:
    """Return what was not read, summed by replica and reason."""
    found: dict[tuple[str, str], list[tuple[TableReport, Unread]]] = {}
    for table in tables:
        for unread in (each for each in table.unread if each.reason != NOT_IN_SAMPLE):
            found.setdefault((unread.replica, unread.reason), []).append((table, unread))
    return [
        _Gap(
            replica,
            tuple(dict.fromkeys(table.full_name for table, _ in entries)),
            sum(len(unread.ranges) for _, unread in entries),
            percent(max(sum(r.share for r in unread.ranges) for _, unread in entries)),
            reason.removeprefix(f"{replica}: "),
        )
        for (replica, reason), entries in sorted(found.items())
    ]


@cache
def environment(package: str) -> Environment:
    """Return what renders the templates of a package: all text is escaped, and an unknown name is an error."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(_PACKAGE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        visible=visible,
        span=span,
        counted=counted,
        moment=moment,
        thousands=_thousands,
        pieces=_pieces,
        short=short,
    )
    return made


def _pieces(cells: str) -> list[tuple[int, int, str]]:
    """Return a strip as `(start, length, state)`, with neighbours of one state joined."""
    out: list[tuple[int, int, str]] = []
    start = 0
    for mark, run in groupby(cells):
        length = len(list(run))
        out.append((start, length, WORDS.get(mark, "unread")))
        start += length
    return out


def _thousands(number: int) -> str:
    return f"{number:,}"


@cache
def asset(name: str, package: str = _PACKAGE) -> str:
    """Return a file that lies beside the templates of a package."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def policy(css: str, script: str | None = None) -> str:
    """Return the content security policy: this style, this script if there is one, and nothing else."""
    runs = f" script-src {source_hash(script)};" if script else ""
    return f"default-src 'none'; style-src {source_hash(css)};{runs} img-src data:; base-uri 'none'; form-action 'none'"


def source_hash(text: str) -> str:
    """Return a style or script as a source of a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
