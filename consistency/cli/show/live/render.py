"""The live page and its sections: rendered only for somebody who looks, and once for all open pages."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from consistency import __version__
from consistency.cli.show.live import figures
from consistency.cli.show.live.ring_map import MARKS
from consistency.cli.show.live.state import LiveState, View
from consistency.cli.show.live.trend import HEIGHT, WIDTH
from consistency.cli.show.page.render import asset, environment, source_hash
from consistency.cli.show.page.ring import MOST_TRACKS, SIZE, WORDS
from consistency.ledger.history import Standing
from consistency.results.figures import moment, span
from consistency.results.report import Report, Severity
from consistency.results.verdict import Coverage
from consistency.watching.live_stream import Update

_PACKAGE = "consistency.cli.show.live"
_SECTIONS = ("head", "causes", "ring", "trend", "tables", "trouble", "runs")
"""All but `now`, which changes every second."""
AGEING_S = 20.0
"""After this long the sections are rendered anew although no visit has ended: what they tell of grows older."""
BUSY_S = 2.0
"""They are rendered this often at most, however fast visits end."""


@dataclass(slots=True)
class _Section:
    html: str = ""
    changed: int = 0


class LiveRenderer:
    """The LivePage of a watch; used by one thread alone."""

    def __init__(
        self,
        state: LiveState,
        healthy: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        busy_s: float = BUSY_S,
    ) -> None:
        self._state = state
        self._healthy = healthy
        self._clock = clock
        self._busy_s = busy_s
        self._css = asset("page.css") + asset("live.css", _PACKAGE)
        self._script = asset("live.js", _PACKAGE)
        self._whole = environment(_PACKAGE).get_template("live.html")
        self._macros = environment(_PACKAGE).get_template("sections.html").module
        self._epoch = uuid.uuid4().hex[:8]
        """Sections of another process are unknown here."""
        self._number = 0
        self._sections = {name: _Section() for name in ("now", *_SECTIONS)}
        self._rendered_s = -AGEING_S
        self._changes = -1
        self._cluster = ""

    @property
    def policy(self) -> str:
        """This style, this script, this server's events, and nothing else."""
        return (
            f"default-src 'none'; style-src {source_hash(self._css)}; script-src {source_hash(self._script)};"
            " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def document(self) -> str:
        """Return the whole page."""
        self._refresh()
        return self._whole.render(
            cluster=self._cluster or "no cluster yet",
            css=Markup(self._css),  # noqa: S704 - our own file
            script=Markup(self._script),  # noqa: S704 - our own file
            sections_version=self._version,
            sections={name: Markup(section.html) for name, section in self._sections.items()},  # noqa: S704 - rendered
            version=__version__,
            as_of=moment(time.time_ns() // 1000),
        )

    def update(self, since: str) -> Update:
        """Return the sections that changed after a version."""
        self._refresh()
        epoch, _, number = since.partition(".")
        known = int(number) if epoch == self._epoch and number.isdecimal() else -1
        changed = {name: s.html for name, s in self._sections.items() if s.changed > known}
        return Update(self._version, changed)

    def run(self, run_id: str) -> str | None:
        """Return the report of a run, if it is there and has no keys."""
        return self._state.reports.read(run_id)

    @property
    def _version(self) -> str:
        return f"{self._epoch}.{self._number}"

    def _refresh(self) -> None:
        """Render what may have changed."""
        self._put({"now": _html(self._macros, "now", self._now())})
        elapsed_s, changes = self._clock() - self._rendered_s, self._state.changes
        if elapsed_s < self._busy_s or (changes == self._changes and elapsed_s < AGEING_S):
            return
        self._rendered_s, self._changes = self._clock(), changes
        view = self._state.view()
        report = view.run_end.report if view.run_end is not None else None
        self._cluster = figures.cluster(view)
        values = _values(view, report)
        self._put({name: _html(self._macros, name, values) for name in _SECTIONS})

    def _put(self, rendered: Mapping[str, str]) -> None:
        changed = [name for name, html in rendered.items() if html != self._sections[name].html]
        if changed:
            self._number += 1
        for name in changed:
            self._sections[name] = _Section(rendered[name], self._number)

    def _now(self) -> dict[str, Any]:
        now = self._state.now()
        counts, (lanes, more) = now.counts, figures.lanes(now)
        left_s = counts.seconds_left if counts is not None else None
        return {
            "healthy": self._healthy(),
            "table": now.table,
            "counts": counts,
            "percent": round(100 * counts.part) if counts is not None else 0,
            "rate": round(counts.rows / counts.table_seconds) if counts is not None else 0,
            "left": span(left_s) if left_s is not None else "",
            "lanes": lanes,
            "more_lanes": more,
            "next_in": span(round(now.next_in_s)) if now.next_in_s is not None else "",
            "waits_for_lock": now.waits_for_lock,
        }


def _html(macros: Any, name: str, values: Mapping[str, Any]) -> str:
    return str(getattr(macros, name)(values))


def _values(view: View, report: Report | None) -> dict[str, Any]:
    """Return what the sections show, by name."""
    lines, pairs = figures.table_lines(report, view), figures.target_lines(view)
    gaps, more_gaps = figures.gaps(view)
    verdict, claim, basis = figures.headline(report, view)
    coverage = report.coverage if report is not None else Coverage()
    violations = report.violations if report is not None else ()
    silent = figures.silent_nodes(view)
    (kind_lines, _), (replica_lines, more_replicas) = view.kinds, view.replicas
    return {
        "verdict": verdict,
        "claim": claim,
        "basis": basis,
        "kinds": figures.kinds(view),
        "pairs": pairs,
        "coverage": coverage,
        # Rounded down: 100% means all of it.
        "covered": 100 * coverage.completed // coverage.planned if coverage.planned else 0,
        "nodes": len(view.nodes),
        "silent": silent,
        "tables": len(lines) or len(pairs),
        "late": sum(line.standing in (Standing.OVERDUE, Standing.DUE) for line in lines),
        "rounds": view.run_end.watch.rounds if view.run_end is not None and view.run_end.watch is not None else 0,
        "began": figures.ago(view.now_s - view.began_s),
        "causes": figures.causes(view),
        "tracks": figures.ring(view),
        "ring_size": SIZE,
        "most_behind": max(view.behind.values(), default=1) or 1,
        "every_node": _every_node(view) if len(view.nodes) > MOST_TRACKS else [],
        "kind_lines": kind_lines,
        "replica_lines": replica_lines,
        "more_replicas": more_replicas,
        "spark_width": WIDTH,
        "spark_height": HEIGHT,
        "trend_began": moment(int(view.trend_began_s * 1e6)) if view.trend_began_s is not None else "",
        "lines": lines[: figures.MOST_TABLES],
        "more_lines": max(0, len(lines) - figures.MOST_TABLES),
        "not_checked": report.not_checked if report is not None else {},
        "has_ledger": view.run_end is not None and bool(view.run_end.clean_passes),
        "gaps": gaps,
        "more_gaps": more_gaps,
        "violations": sorted(violations, key=lambda v: v.severity is not Severity.ERROR),
        "runs": [_run(run) for run in view.runs],
    }


def _run(run: Any) -> dict[str, Any]:
    names = ("run_id", "table", "seconds", "exit_code", "verdict", "rows", "divergent_rows", "reason", "has_report")
    return {**{name: getattr(run, name) for name in names}, "ended_us": int(run.ended_s * 1e6)}


def _every_node(view: View) -> list[tuple[str, str, str, int]]:
    """Return name, data centre, gravest state and differing rows of every node."""
    return [
        (node.name, node.dc, WORDS[MARKS[int(view.tracks[node.name].max())]], view.behind.get(node.name, 0))
        for node in sorted(view.nodes, key=lambda node: (node.dc, node.name))
    ]
