"""The library: findings while the check runs, progress, cancel, errors where the caller sees them, names that stay."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import consistency
import repair
from consistency import (
    CheckOptions,
    ConnectError,
    ConnectionSettings,
    Finding,
    Kind,
    Progress,
    RunningCheck,
    UsageError,
    Verdict,
    audit,
    background,
    begin_check,
    check,
    connection_settings,
    preflight,
)
from consistency.cluster.waits import within
from repair import Tally
from tests.unit.fake_cluster import FakeCluster, Version, opener

AT_ONCE = CheckOptions(settle_window_s=0)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, no_settings_of_this_machine: None) -> FakeCluster:
    """Three nodes that hold the same 50 rows, behind every function of the library."""
    found = FakeCluster().fill(50)
    monkeypatch.setattr("consistency.api.open_cluster", opener(found))
    return found


def damage(cluster: FakeCluster, rows: int) -> None:
    """Take rows from node 3."""
    for row in range(rows):
        cluster.rows["10.0.0.3:9042"].pop(row)


@pytest.fixture
def endless(cluster: FakeCluster) -> Iterator[threading.Event]:
    """Make every digest wait; yields what is set once the check has begun to read."""
    began = threading.Event()

    async def wait() -> None:
        began.set()
        await asyncio.sleep(20)

    cluster.on_digest = wait
    yield began
    assert not [t for t in threading.enumerate() if t.name == "consistency-check"]


def test_findings_come_while_the_check_runs(cluster: FakeCluster) -> None:
    """Each row once, as findings; then the report that `check` returns."""
    damage(cluster, 7)
    with begin_check("shop", options=AT_ONCE) as under_way:
        found = list(under_way)
        assert under_way.done
    assert sorted(finding.key["id"] for finding in found) == list(range(7))
    assert {type(finding) for finding in found} == {Finding}
    assert {finding.kind for finding in found} == {Kind.MISSING}
    assert under_way.report.findings_by_kind == check("shop", options=AT_ONCE).findings_by_kind == {"missing": 7}


def test_a_finding_is_handed_over_before_the_end(cluster: FakeCluster) -> None:
    """The first one is there while the rest of the check still waits."""
    damage(cluster, 2)
    taken = threading.Event()

    class Waiting(consistency.Silent):
        def found(self, finding: Finding) -> None:
            if waited:
                assert taken.wait(10)
            waited.append(finding)

    waited: list[Finding] = []
    with begin_check(options=AT_ONCE, observer=Waiting()) as under_way:
        next(iter(under_way))
        assert not under_way.done
        taken.set()
        assert len(list(under_way)) == 1


def test_a_slow_loop_holds_the_check_back(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more findings wait than are allowed to, and none is lost."""
    monkeypatch.setattr(background, "_MOST_WAITING", 4)
    damage(cluster, 40)
    most = 0
    with begin_check("shop", options=AT_ONCE) as under_way:
        count = 0
        for _ in under_way:
            time.sleep(0.002)
            most = max(most, len(under_way._findings))
            count += 1
    assert count == 40
    assert most <= 4
    assert under_way.report.verdict is Verdict.DIVERGENT


def test_the_report_alone_can_be_asked_for(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it takes no findings, and must not wait for ever."""
    monkeypatch.setattr(background, "_MOST_WAITING", 2)
    damage(cluster, 20)
    with begin_check("shop", options=AT_ONCE) as under_way:
        assert under_way.report.findings_by_kind == {"missing": 20}
        assert list(under_way) == []


def test_cancel_ends_with_a_true_partial_report(cluster: FakeCluster, endless: threading.Event) -> None:
    """Whoever cancels: the loop's own thread or another."""
    with begin_check("shop", options=AT_ONCE) as under_way:
        assert endless.wait(10)
        under_way.cancel()
        assert list(under_way) == []
    assert under_way.report.interrupted
    assert under_way.report.verdict is Verdict.UNKNOWN
    assert under_way.report.exit_code == 130
    assert not under_way.report.coverage.complete


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, ValueError])
def test_leaving_early_cancels(cluster: FakeCluster, endless: threading.Event, leaving: type[BaseException]) -> None:
    """By Ctrl-C or an error of the caller's, which goes on as it is; the report is there all the same."""
    started = time.monotonic()
    under_way = begin_check("shop", options=AT_ONCE)
    with pytest.raises(leaving), under_way:  # noqa: PT012 - what is left is the block
        assert endless.wait(10)
        raise leaving
    assert time.monotonic() - started < 10
    assert under_way.report.interrupted


def test_ctrl_c_is_noticed_while_the_loop_waits(cluster: FakeCluster, endless: threading.Event) -> None:
    """The real signal, with no finding to come: the loop ends at once, the check soon after."""

    def interrupt() -> None:
        assert endless.wait(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    under_way = begin_check("shop", options=AT_ONCE)
    with pytest.raises(KeyboardInterrupt), under_way:
        list(under_way)
    assert under_way.report.interrupted


def test_a_break_leaves_too(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first finding is enough for some."""
    monkeypatch.setattr(background, "_MOST_WAITING", 2)
    damage(cluster, 40)
    with begin_check("shop", options=AT_ONCE) as under_way:
        for _ in under_way:
            break
    assert under_way.report.interrupted
    assert under_way.report.verdict is Verdict.DIVERGENT


def test_errors_are_raised_where_the_caller_is(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """By the loop, by the report, and at the latest by leaving."""
    with pytest.raises(UsageError, match="'shpo'"), begin_check("shpo") as under_way:
        list(under_way)
    with pytest.raises(UsageError, match="'shpo'"):
        under_way.report  # noqa: B018
    with pytest.raises(UsageError, match="'shpo'"), begin_check("shpo"):
        time.sleep(0.3)
    monkeypatch.undo()
    nobody = ConnectionSettings((("127.0.0.1", 1),), connect_timeout_s=1)
    with pytest.raises(ConnectError, match="no node answers"), begin_check(settings=nobody) as under_way:
        list(under_way)


def test_a_check_is_begun_once_and_by_with(cluster: FakeCluster) -> None:
    """Each misuse says what to do."""
    under_way = begin_check("shop", options=AT_ONCE)
    for misuse in (lambda: list(under_way), lambda: under_way.report):
        with pytest.raises(UsageError, match="use it in a with statement"):
            misuse()
    with under_way:
        pass
    with pytest.raises(UsageError, match="call begin_check again"), under_way:
        pass


def test_check_can_be_cancelled_from_another_thread(cluster: FakeCluster, endless: threading.Event) -> None:
    """By an event of the caller's."""
    cancel = threading.Event()
    threading.Thread(target=lambda: (endless.wait(10), cancel.set())).start()
    report = check("shop", options=AT_ONCE, cancel=cancel)
    assert report.interrupted


def test_progress_counts_up_to_the_whole(cluster: FakeCluster) -> None:
    """Counts only grow; in the end all leaves are read, all rows found."""
    damage(cluster, 3)
    told: list[Progress] = []
    report = check("shop", options=AT_ONCE, progress=told.append)
    last = told[-1]
    assert (last.tables, last.tables_planned, last.table, last.share) == (1, 1, "shop.orders", 1.0)
    assert last.leaves == last.leaves_done == report.tables[0].ranges
    assert last.rows == report.tables[0].rows == 50
    assert last.findings == 3
    for one, other in itertools.pairwise(told):
        assert one.share <= other.share
        assert one.leaves_done <= other.leaves_done
        assert one.findings <= other.findings


def test_an_error_of_a_callback_is_the_callers(cluster: FakeCluster) -> None:
    """It ends the check and is raised as it is."""

    def tell(_: Progress) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        check("shop", options=AT_ONCE, progress=tell)
    with pytest.raises(LookupError, match="mine"), begin_check("shop", options=AT_ONCE, progress=tell) as under_way:
        list(under_way)


def test_within_an_event_loop_each_function_says_what_to_do_instead(cluster: FakeCluster) -> None:
    """A notebook runs one; `begin_check` works there."""

    async def notebook() -> int:
        for function in (check, audit, lambda: preflight("1")):
            with pytest.raises(UsageError, match=r"event loop already runs in this thread.*asyncio\.to_thread"):
                function()
        with begin_check("shop", options=AT_ONCE) as under_way:
            return int(under_way.report.exit_code)

    assert asyncio.run(notebook()) == 0


def test_a_repair_is_told_of_progress_and_cancel(
    monkeypatch: pytest.MonkeyPatch, no_settings_of_this_machine: None, tmp_path: Path
) -> None:
    """What `apply` is given reaches the work between rows; `resume` refuses what is no journal."""
    said: list[int] = []

    async def work(*given: Any, stop: asyncio.Event, progress: Callable[[Tally], None], **_: Any) -> Tally:
        async with within(10):
            await stop.wait()
        progress(Tally(3, interrupted=True))
        return Tally(3, interrupted=True)

    monkeypatch.setattr("repair.api.run_apply", work)
    cancel = threading.Event()
    threading.Timer(0.1, cancel.set).start()
    plan: Any = object()
    tally = repair.apply(plan, tmp_path / "journal", cancel=cancel, progress=lambda t: said.append(t.total))
    assert (tally.interrupted, said) == (True, [3])
    assert not (tmp_path / "journal").exists()
    (tmp_path / "no-journal").write_text("{}\n")
    (tmp_path / "no-journal").chmod(0o600)
    with pytest.raises(UsageError, match="not a repair journal"):
        repair.resume(tmp_path / "no-journal")
    with pytest.raises(UsageError, match="either hosts or settings"):
        repair.apply(plan, tmp_path / "journal", hosts="10.0.0.1", settings=ConnectionSettings())


def test_settings_are_given_or_found(monkeypatch: pytest.MonkeyPatch, no_settings_of_this_machine: None) -> None:
    """Both at once is a mistake."""
    monkeypatch.setenv("CONSISTENCY_HOSTS", "10.0.0.7")
    assert connection_settings().contact_points == (("10.0.0.7", 9042),)
    assert connection_settings(hosts="10.0.0.8").contact_points == (("10.0.0.8", 9042),)
    with pytest.raises(UsageError, match="either hosts or settings"):
        connection_settings(ConnectionSettings(), "10.0.0.8")


def test_findings_go_to_a_file_as_well(cluster: FakeCluster, tmp_path: Path) -> None:
    """What is taken one by one is what the file holds."""
    cluster.rows["10.0.0.1:9042"][5] = Version("other", 2_000_000)
    file = tmp_path / "findings.jsonl"
    with begin_check("shop", options=CheckOptions(settle_window_s=0, findings=file)) as under_way:
        found = list(under_way)
    assert list(consistency.read_findings(file)) == found != []


@pytest.mark.parametrize("package", [consistency, repair])
def test_every_public_name_is_there_and_loaded_when_it_is_used(package: Any) -> None:
    """`__all__` is what the reference shows; each name in it comes from the module that defines it."""
    lazy = {name: module for module, names in package._FROM.items() for name in names}
    assert set(package.__all__) - {"__version__"} == set(lazy)
    for name, module in lazy.items():
        found = getattr(package, name)
        assert found is getattr(importlib.import_module(f"{package.__name__}.{module}"), name)
        assert getattr(found, "__doc__", None), name


def test_public_names_are_no_modules() -> None:
    """A submodule that was imported would stand in the place of a function of its name."""
    for package in (consistency, repair):
        folder = Path(package.__file__ or "").parent
        assert not [name for name in package.__all__ if (folder / f"{name}.py").exists() or (folder / name).is_dir()]


def test_importing_the_packages_loads_no_driver() -> None:
    """Nor does using a name that needs none."""
    code = "import sys, consistency, repair; consistency.Finding; sys.exit('cassandra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_running_check_says_what_it_is() -> None:
    """`begin_check` alone connects to nothing."""
    assert isinstance(begin_check(hosts="192.0.2.1"), RunningCheck)
