"""The metrics: true figures, no zero without a proof, a file that node_exporter reads whatever became of the run."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from consistency.cli.telemetry import Telemetry
from consistency.errors import ConnectError, UsageError
from consistency.model.ring import Replication
from consistency.model.schema import Keyspace
from consistency.model.sides import Side
from consistency.results.report import RepairSummary, Report, Severity, Violation
from consistency.results.verdict import Coverage, Verdict
from consistency.watching.metrics import HELP, LABELS, CleanPass, RunEnd, WatchFigures, parse_labels, render
from consistency.watching.target_end import TargetEnd, TargetTable
from tests.unit.conftest import Shell
from tests.unit.fake_cluster import table
from tests.unit.test_terminal import HOSTILE, PART, report, table_report

Figures = dict[tuple[str, ...], float]


def figures(outcome: RunEnd | str) -> Figures:
    """Return every sample by name and label values, as Prometheus' own parser reads the text."""
    text = outcome if isinstance(outcome, str) else render(outcome)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def outcome(shown: Report | None, **changes: Any) -> RunEnd:
    """Return a run that came to this report."""
    plain = RunEnd(1_800_000_000.0, 12.5, int(shown.exit_code) if shown else 4, shown)
    return replace(plain, **changes)


def test_a_clean_run_claims_zeros() -> None:
    """Everything was read, so nothing differs."""
    found = figures(outcome(report(table_report())))
    assert found["consistency_last_run_timestamp_seconds",] == 1_800_000_000.0
    assert found["consistency_last_run_exit_code",] == 0
    assert found["consistency_last_run_duration_seconds",] == 12.5
    assert found["consistency_verdict", "consistent"] == 1
    assert found["consistency_verdict", "unknown"] == found["consistency_verdict", "divergent"] == 0
    assert found["consistency_divergent_rows", "shop", "orders"] == 0
    assert found["consistency_findings", "missing"] == found["consistency_findings", "zombie_suspect"] == 0
    assert found["consistency_digests_planned",] == found["consistency_digests", "completed"] == 9


def test_a_run_that_could_not_run_is_seen_and_claims_nothing() -> None:
    """No figure of a row, a kind or a digest: there is no data, and that is not zero."""
    found = figures(outcome(None))
    assert found["consistency_last_run_exit_code",] == 4
    assert found["consistency_verdict", "unknown"] == 1
    assert {name for name, *_ in found} == {
        "consistency_last_run_timestamp_seconds",
        "consistency_last_run_exit_code",
        "consistency_last_run_duration_seconds",
        "consistency_verdict",
    }


@pytest.mark.parametrize(
    "shown",
    [
        report(table_report(coverage=PART)),
        report(table_report(coverage=Coverage(planned=1, skipped=1))),
        report(table_report(unsettled_rows=1)),
        report(table_report(), interrupted=True),
        report(),
    ],
    ids=["failed", "skipped", "unsettled", "interrupted", "nothing"],
)
def test_what_was_not_read_whole_has_no_zero(shown: Report) -> None:
    """Neither its rows nor the kinds of findings."""
    found = figures(outcome(shown))
    assert found["consistency_verdict", "unknown"] == 1
    assert not [key for key in found if key[0] in {"consistency_divergent_rows", "consistency_findings"}]


def test_what_was_found_in_part_is_told() -> None:
    """A table that was read in part differs by at least so many rows; its clean neighbour has its zero."""
    shown = report(table_report(coverage=PART, divergent_rows=3), table_report("items"))
    found = figures(outcome(shown))
    assert found["consistency_divergent_rows", "shop", "orders"] == 3
    assert found["consistency_divergent_rows", "shop", "items"] == 0
    assert found["consistency_findings", "missing"] == 3
    assert ("consistency_findings", "stale") not in found
    assert found["consistency_digests", "failed"] == 3


REPAIRED = RepairSummary(rows=3, acted_on=3, results={"done": 3}, checked_again=Verdict.CONSISTENT)


@pytest.mark.parametrize(
    ("repair", "rows"),
    [
        (REPAIRED, 0),
        (RepairSummary(), 3),
        (replace(REPAIRED, remaining=1), 3),
        (replace(REPAIRED, unknown=1), 3),
        (replace(REPAIRED, unchecked=True), 3),
        (replace(REPAIRED, interrupted=True), 3),
        (replace(REPAIRED, checked_again=Verdict.DIVERGENT), 3),
        (replace(REPAIRED, checked_again=Verdict.UNKNOWN), 3),
    ],
)
def test_only_a_repair_that_left_nothing_ends_a_divergence(repair: RepairSummary, rows: int) -> None:
    """What was left alone, waits, or was not seen to agree again still counts."""
    found = figures(outcome(report(table_report(divergent_rows=3), repair=repair)))
    assert found["consistency_divergent_rows", "shop", "orders"] == found["consistency_findings", "missing"] == rows


def test_violations_are_told_by_severity() -> None:
    """Warnings apart from errors, zero where there is none."""
    errors = (Violation("rf_below_minimum", "shop", "2", "ALTER"),) * 2
    warned = (Violation("rack_skew", "", "uneven", "even it", Severity.WARNING),)
    found = figures(outcome(report(table_report(), violations=(*errors, *warned))))
    assert found["consistency_replication_violations", "error"] == 2
    assert found["consistency_replication_violations", "warning"] == 1
    assert figures(outcome(report(table_report())))["consistency_replication_violations", "error"] == 0


def test_clean_passes_are_told_where_somebody_keeps_them() -> None:
    """A range that never had one is infinitely old; without a ledger the metric is absent."""
    passes = (CleanPass("shop", "orders", 3600.0, 864_000), CleanPass("shop", "items", math.inf, 864_000))
    found = figures(outcome(None, clean_passes=passes))
    assert found["consistency_oldest_clean_pass_age_seconds", "shop", "orders"] == 3600
    assert found["consistency_oldest_clean_pass_age_seconds", "shop", "items"] == math.inf
    assert found["consistency_gc_grace_seconds", "shop", "items"] == 864_000
    assert not [key for key in figures(outcome(report(table_report()))) if "clean_pass" in key[0]]


def test_every_metric_of_the_list_can_be_told() -> None:
    """What HELP promises is what a full outcome gives, with the labels it promises and a HELP that says what to do."""
    passes = (CleanPass("shop", "orders", 1.0, 2),)
    known = replace(report(table_report()), cluster_id="0a1b2c3d", repair=RepairSummary())
    full = outcome(known, clean_passes=passes, watch=WatchFigures(3, 1))
    pair = TargetTable("shop", "orders", "shop.orders", whole=True)
    end = TargetEnd((pair,), {side: (side.value, "0a1b2c3d") for side in Side}, {Verdict.CONSISTENT: 1})
    both = outcome(None, target=end)
    told = list(text_string_to_metric_families(render(full)))
    known_names = {family.name for family in told}
    told += [f for f in text_string_to_metric_families(render(both)) if f.name not in known_names]
    assert {sample.name for family in told for sample in family.samples} == set(HELP)
    for family in told:
        (name,) = {sample.name for sample in family.samples}
        assert family.documentation == HELP[name]
        assert family.type == ("counter" if name.endswith("_total") else "gauge")
        assert {tuple(sample.labels) for sample in family.samples} == {LABELS.get(name, ())}
    assert figures(full)["consistency_watch_rounds_total",] == 3


def test_names_of_any_kind_survive_the_text_format() -> None:
    """Quotes, backslashes and line breaks in a name are escaped and read back the same."""
    name = HOSTILE + '"\\\n'
    found = figures(outcome(report(table_report(name, divergent_rows=1))))
    assert found["consistency_divergent_rows", "shop", name] == 1


def test_extra_labels_are_on_every_metric() -> None:
    """So that two files in one directory do not collide."""
    labels = parse_labels(("cluster=prod", "site=a=b"))
    told = text_string_to_metric_families(render(outcome(report(table_report()), extra_labels=labels)))
    for sample in (s for family in told for s in family.samples):
        assert (sample.labels["cluster"], sample.labels["site"]) == ("prod", "a=b")


@pytest.mark.parametrize("word", ["cluster", "cluster=", "=x", "1a=x", "__a=x", "table=x", "a-b=c"])
def test_a_label_that_cannot_be_used_is_refused(word: str) -> None:
    """With the word in the message."""
    with pytest.raises(UsageError, match=f"--metrics-label {word!r}|--metrics-label table"):
        parse_labels((word,))


# The command.


def mode_of(path: Path) -> int:
    """Return a file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_check_writes_the_file_for_all_to_read(shell: Shell, tmp_path: Path) -> None:
    """Mode 0644 whatever the umask, and nothing else is left in the directory."""
    path = tmp_path / "consistency.prom"
    former = os.umask(0o077)
    try:
        assert shell.check("--metrics", str(path), "--metrics-label", "cluster=prod").exit_code == 0
    finally:
        os.umask(former)
    assert mode_of(path) == 0o644
    assert list(tmp_path.iterdir()) == [path]
    assert figures(path.read_text())["consistency_divergent_rows", "prod", "shop", "orders"] == 0


@pytest.mark.parametrize(
    ("words", "code"), [(("nosuch",), 2), (("--hosts", ","), 2), (("--username", "u"), 2), (("--dc", "dcx"), 2)]
)
def test_a_check_that_did_not_run_overwrites_the_clean_file(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """Yesterday's zeros must not outlive today's failure."""
    path = tmp_path / "consistency.prom"
    shell.check("--metrics", str(path))
    assert shell.check("--metrics", str(path), *words).exit_code == code
    found = figures(path.read_text())
    assert found["consistency_last_run_exit_code",] == code
    assert found["consistency_verdict", "consistent"] == 0
    assert ("consistency_divergent_rows", "shop", "orders") not in found


def test_clean_passes_are_told_of_a_run_that_failed_too(shell: Shell, tmp_path: Path) -> None:
    """Their ages grow while nothing runs."""
    path = tmp_path / "consistency.prom"
    given = {"metrics": str(path), "metrics_label": (), "log_format": None, "log_file": None, "log_level": "info"}
    telemetry = Telemetry("check", given)
    telemetry.clean_passes = lambda: (CleanPass("shop", "orders", 9.0, 864_000),)
    with pytest.raises(ConnectError), telemetry.recorded():
        raise ConnectError("no node answers")
    told = figures(path.read_text())
    assert told["consistency_oldest_clean_pass_age_seconds", "shop", "orders"] == 9
    assert told["consistency_last_run_exit_code",] == 4


@pytest.mark.parametrize(
    ("names", "told"), [((), {"orders", "items"}), (("shop.orders",), {"orders"}), (("shop",), {"orders", "items"})]
)
def test_clean_passes_are_told_of_what_the_run_was_asked_for(
    shell: Shell, tmp_path: Path, names: tuple[str, ...], told: set[str]
) -> None:
    """The ledger knows every table; those that are left out on purpose would raise an alert for ever."""
    three = Replication.parse({"class": "NetworkTopologyStrategy", "dc1": "3"})
    shell.cluster.extra = {"shop": Keyspace("shop", three, {name: table(name=name) for name in ("orders", "items")})}
    path = tmp_path / "consistency.prom"
    shell.check("--metrics", str(path), "--ledger", str(tmp_path / "ledger"), *names)
    found = figures(path.read_text())
    assert {key[-1] for key in found if key[0] == "consistency_oldest_clean_pass_age_seconds"} == told


def test_an_unforeseen_error_is_told_too(shell: Shell, tmp_path: Path) -> None:
    """Exit code 4, unknown."""

    async def fail() -> None:
        raise RuntimeError("odd")

    shell.cluster.on_digest = fail
    path = tmp_path / "consistency.prom"
    assert shell.check("--metrics", str(path)).exit_code == 4
    assert figures(path.read_text())["consistency_last_run_exit_code",] == 4


def test_an_interrupted_run_is_told(shell: Shell, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """130, unknown, and no zero for what was not read."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, former))
    sent: list[int] = []

    async def interrupted() -> None:
        if not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    shell.cluster.on_digest = interrupted
    path = tmp_path / "consistency.prom"
    assert shell.check("--metrics", str(path)).exit_code == 130
    found = figures(path.read_text())
    assert found["consistency_last_run_exit_code",] == 130
    assert found["consistency_verdict", "unknown"] == 1
    assert ("consistency_divergent_rows", "shop", "orders") not in found


def test_a_run_that_is_stopped_while_it_connects_is_told(tmp_path: Path) -> None:
    """It leaves at once, without waiting for the node, and not without a word."""
    path = tmp_path / "consistency.prom"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CONSISTENCY_")}
    environ |= {"HOME": str(tmp_path), "CONSISTENCY_CONNECT_TIMEOUT": "50"}
    code = "from consistency.cli import main; main()"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        words = [sys.executable, "-c", code, "check", "--hosts", host, "--metrics", str(path)]
        with subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environ) as process:
            silent.settimeout(30)
            connection, _ = silent.accept()  # the driver waits for an answer now
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 130
            connection.close()
    found = figures(path.read_text())
    assert (found["consistency_last_run_exit_code",], found["consistency_verdict", "unknown"]) == (130, 1)


def test_a_report_that_could_not_be_written_is_told_with_its_figures(shell: Shell, tmp_path: Path) -> None:
    """The run could not hand over its report, but what it found was found."""
    folder = tmp_path / "gone"
    folder.mkdir()

    async def remove() -> None:
        if folder.exists():
            folder.rmdir()

    shell.cluster.on_digest = remove
    path = tmp_path / "consistency.prom"
    result = shell.check("--metrics", str(path), "--json", str(folder / "r.json"))
    assert (result.exit_code, figures(path.read_text())["consistency_last_run_exit_code",]) == (4, 4)
    assert figures(path.read_text())["consistency_divergent_rows", "shop", "orders"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--metrics", "-"), "metrics need a file"),
        (("--metrics", "."), "is a directory"),
        (("--metrics", "no/such/dir/x.prom"), "No such file or directory"),
        (("--metrics", "same", "--json", "same"), "--metrics and --json name the same file"),
        (("--metrics", "x.prom", "--metrics-label", "kind=x"), "--metrics-label kind is taken"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_run(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """Exit 2, one line, no file."""
    shell.patch.chdir(tmp_path)
    result = shell.check(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []
