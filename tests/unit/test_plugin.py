"""--nagios: one line, figures behind a bar, and an exit code that a monitoring system understands, for every end."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from consistency.cli.outputs import NotWritten
from consistency.cli.show.terminal.plugin import PluginState, judge_for_plugin
from consistency.errors import ReplicaTimeout
from consistency.results.report import RepairSummary, Report, Severity, Violation
from consistency.results.verdict import Coverage, Verdict
from tests.unit.conftest import Shell
from tests.unit.fake_cluster import US, FakeCluster, Version
from tests.unit.test_terminal import HOSTILE, PART, report, table_report

ERROR = Violation("rf_below_minimum", "shop", "2", "ALTER")
WARNING = replace(ERROR, severity=Severity.WARNING)
REPAIRED = RepairSummary(rows=2, acted_on=2, checked_again=Verdict.CONSISTENT)
PARTLY = replace(REPAIRED, remaining=1)
LINE = re.compile(
    r"CONSISTENCY (?P<state>OK|WARNING|CRITICAL|UNKNOWN) - (?P<text>[^|\n]+)"
    r"(?: \| (?P<figures>[a-z_]+=\d+(?:\.\d+)?s?(?:;[\d.]*){0,4}(?: [a-z_]+=\d+(?:\.\d+)?s?(?:;[\d.]*){0,4})*))?"
)


@pytest.mark.parametrize(
    ("shown", "state", "said"),
    [
        (report(table_report()), PluginState.OK, "all replicas hold the same 1,234 rows in 1 table"),
        (report(table_report(), violations=(WARNING,)), PluginState.WARNING, "1 warning about replication"),
        (report(table_report(), violations=(ERROR,)), PluginState.CRITICAL, "1 violation of replication"),
        (report(table_report(divergent_rows=2)), PluginState.CRITICAL, "replicas differ in 2 rows of shop.orders"),
        (report(table_report(coverage=PART)), PluginState.UNKNOWN, "6 of 9 digests read"),
        (report(table_report(coverage=PART), violations=(WARNING,)), PluginState.UNKNOWN, "6 of 9 digests read"),
        (report(table_report(coverage=PART, divergent_rows=2)), PluginState.CRITICAL, "6 of 9 digests read"),
        (report(table_report(unsettled_rows=1)), PluginState.UNKNOWN, "1 row kept changing"),
        (report(table_report(), interrupted=True), PluginState.UNKNOWN, "interrupted"),
        (report(table_report(coverage=Coverage(planned=1, skipped=1))), PluginState.UNKNOWN, "0 of 1 digest read"),
        (report(), PluginState.UNKNOWN, "0 of 0 digests read"),
        (
            report(table_report(divergent_rows=2), repair=REPAIRED),
            PluginState.OK,
            "2 rows differed and were repaired; all",
        ),
        (report(table_report(divergent_rows=2), repair=PARTLY), PluginState.CRITICAL, "replicas differ in 2 rows"),
    ],
)
def test_the_state_says_what_the_report_says(shown: Report, state: PluginState, said: str) -> None:
    """Damage before ignorance before warnings, and only a whole clean run is OK."""
    result = judge_for_plugin(shown)
    assert result.state is state
    told = LINE.fullmatch(result.line)
    assert told is not None, result.line
    assert told["state"] == state.name
    assert said in told["text"]
    assert told["figures"].startswith("divergent_rows=")


def test_names_cannot_break_the_line() -> None:
    """A bar would begin the figures, a line break the long output."""
    tables = [table_report(HOSTILE + "|" + str(i), divergent_rows=1) for i in range(5)]
    result = judge_for_plugin(report(*tables))
    assert LINE.fullmatch(result.line), result.line
    assert " and 2 more" in result.line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "there is no keyspace 'nosuch'"),
        (("--bogus",), "No such option"),
        (("--depth", "deep"), "'deep' is not one of"),
        (("--hosts", ","), "--hosts names no host"),
        (("--json", "-"), "both write to stdout"),
        (("--metrics", "."), "is a directory"),
    ],
)
def test_what_cannot_run_is_unknown(shell: Shell, words: tuple[str, ...], said: str) -> None:
    """Exit code 2 would say CRITICAL of an option that is misspelt."""
    result = shell.check("--nagios", *words)
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.stdout.startswith("CONSISTENCY UNKNOWN - could not run: ")
    assert said in result.stdout
    assert result.stdout.count("\n") == 1


def test_an_unforeseen_error_is_unknown_by_type_alone(shell: Shell) -> None:
    """Its message may quote anything, and plugin output is mailed."""

    async def fail() -> None:
        raise RuntimeError("odd")

    shell.cluster.on_digest = fail
    result = shell.check("--nagios")
    assert (result.exit_code, result.stdout.count("\n")) == (3, 1)
    assert "RuntimeError" in result.stdout
    assert "odd" not in result.stdout


def test_a_check_as_a_plugin(shell: Shell) -> None:
    """OK 0, CRITICAL 2, UNKNOWN 3: one line each, and nothing else is printed."""
    result = shell.check("--nagios")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"CONSISTENCY OK - all replicas hold the same 20 rows in 1 table \| .*\n", result.stdout)
    shell.cluster.broken["10.0.0.1:9042"] = ReplicaTimeout("no answer", "10.0.0.1:9042")
    assert shell.check("--nagios").exit_code == 3
    shell.cluster.rows["10.0.0.2:9042"][8] = Version("newer", US + 60_000_000)
    result = shell.check("--nagios")
    assert (result.exit_code, result.stderr) == (2, "")
    assert "replicas differ in 1 row of shop.orders" in result.stdout
    shell.cluster = FakeCluster(factor="2").fill(5)
    assert shell.check("--nagios").exit_code == 2


def test_without_the_option_exit_codes_are_the_checks_own(shell: Shell) -> None:
    """The command is the same command."""
    assert shell.check("--bogus").exit_code == 2
    assert shell.check("nosuch").exit_code == 2


def test_the_shell_sees_the_plugins_exit_code() -> None:
    """In a process of its own, where no node answers."""
    code = "import sys; from consistency.cli import main; main()"
    words = [sys.executable, "-c", code, "check", "--nagios", "--hosts", "127.0.0.1:1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("CONSISTENCY UNKNOWN - could not run: ")


def test_an_interrupted_plugin_says_what_it_saw(shell: Shell, request: pytest.FixtureRequest) -> None:
    """A monitoring system that loses patience sends SIGTERM; the answer is UNKNOWN, not 130."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, former))
    sent: list[int] = []

    async def interrupted() -> None:
        if not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    shell.cluster.on_digest = interrupted
    result = shell.check("--nagios")
    assert result.exit_code == 3
    assert "interrupted" in result.stdout


def test_a_report_that_could_not_be_kept_is_unknown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin has a line and an exit code of 0 to 3 for a full disk too, and OK is not it."""

    def full(*_: object) -> None:
        raise NotWritten("--json", "report.json", OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr("consistency.cli.reported.write_json", full)
    result = shell.check("--nagios")
    assert result.exit_code == 3
    (line,) = result.stdout.splitlines()
    assert line.startswith("CONSISTENCY UNKNOWN - could not run: ")
