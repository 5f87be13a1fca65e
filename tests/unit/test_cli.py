"""The commands: every exit code, one line for every error, files written whole or not at all, help for everything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import consistency
from consistency.cli import check, main
from consistency.cli.group import LazyGroup
from consistency.cluster.throttle import DEFAULT_GUARD, Politeness
from consistency.errors import ConnectError, ConsistencyError, LockedError, ReplicaTimeout
from consistency.results.report import Report
from tests.unit.conftest import Shell
from tests.unit.fake_cluster import US, FakeCluster, Version, opener

ESC = "\x1b"


pytestmark = pytest.mark.usefixtures("no_settings_of_this_machine")


def damage(cluster: FakeCluster) -> None:
    """Take one row from a replica and leave another behind."""
    del cluster.rows["10.0.0.3:9042"][7]
    cluster.rows["10.0.0.2:9042"][8] = Version("newer", US + 60_000_000)


def one_line(text: str) -> str:
    """Return the only line of a text."""
    (line,) = text.strip().splitlines()
    return line


# Exit codes.


def test_an_interrupt_while_the_commands_are_loaded_is_no_traceback() -> None:
    """On a busy machine that takes a second, and so does the patience of whoever typed the wrong name."""
    program = """if True:
        import sys
        class Interrupting:
            def find_spec(self, name, *_):
                if name == "consistency.cli.group":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupting())
        from consistency.cli import main
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("words", [["--password", "s3cret"], ["--password=s3cret"], ["--passwd", "s3cret"]])
def test_an_option_for_a_password_is_refused_with_the_way_in(shell: Shell, words: list[str]) -> None:
    """What others can read with `ps` is no place for it."""
    result = shell.run("check", *words)
    assert result.exit_code == 2
    assert one_line(result.stderr).count("CONSISTENCY_PASSWORD_FILE") == 1
    assert "s3cret" not in result.output


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_before_the_work_begins_is_one_line(name: str) -> None:
    """While a command loads or reads its files: 130, as for Ctrl-C."""
    program = f"""if True:
        import os, signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
        import consistency.cli.check as check
        from consistency.cli import main
        check._run = lambda *_: os.kill(os.getpid(), signal.{name}) or time.sleep(30)
        main(["check", "--hosts", "127.0.0.1:1"])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "interrupted")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_report_is_written_exits_130(shell: Shell, number: signal.Signals) -> None:
    """The event loop has ended by then, and its handlers with it; the signals are the caller's own again afterwards."""
    work, before = check._run, signal.getsignal(number)

    def worked(*arguments: Any) -> Any:
        done = work(*arguments)
        os.kill(os.getpid(), number)
        time.sleep(30)
        return done

    shell.patch.setattr(check, "_run", worked)
    result = shell.check()
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.endswith("interrupted\n")
    assert signal.getsignal(number) == before


def test_a_clean_cluster_exits_0(shell: Shell) -> None:
    """Every replica agrees and everything was read."""
    result = shell.check()
    assert result.exit_code == 0
    assert result.stdout.startswith("CONSISTENT  All replicas hold the same 20 rows in 1 table.")


def test_a_difference_exits_1_and_is_named(shell: Shell) -> None:
    """A row that differs is printed with who holds what."""
    damage(shell.cluster)
    result = shell.check("--show-keys")
    assert result.exit_code == 1
    assert "2 of 20 rows in 1 table are not the same on all replicas." in result.stdout
    assert "shop.orders  id=7" in result.stdout
    assert "missing on 10.0.0.3:9042" in result.stdout
    assert "current only on 10.0.0.2:9042; in v" in result.stdout


def test_a_violation_alone_exits_1(shell: Shell) -> None:
    """Rows may agree while a rule of replication is broken."""
    shell.cluster = FakeCluster(factor="2").fill(5)
    result = shell.check()
    assert result.exit_code == 1
    assert "rf_below_minimum" in result.stdout


def test_a_replica_that_cannot_be_read_exits_3(shell: Shell) -> None:
    """What was not read is not consistent."""
    shell.cluster.broken["10.0.0.2:9042"] = ReplicaTimeout("no answer within 30 s", "10.0.0.2:9042")
    result = shell.check()
    assert result.exit_code == 3
    assert "? 10.0.0.2:9042" in result.stdout
    assert "100% of the ring, in shop.orders" in result.stdout
    assert "no answer within 30 s" in result.stdout


def test_a_difference_beats_incompleteness(shell: Shell) -> None:
    """Divergence is known even where not everything was read."""
    damage(shell.cluster)
    shell.cluster.broken["10.0.0.1:9042"] = ReplicaTimeout("no answer", "10.0.0.1:9042")
    result = shell.check()
    assert result.exit_code == 1
    assert "there may be more" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "nosuch"), "there is no keyspace 'nosuch'"),
        (("check", "shop.order"), "did you mean 'orders'?"),
        (("check", "--dc", "dcx"), "--dc dcx: the cluster has no such data centre; it has dc1"),
        (("check", "--settle", "nan"), "'nan' is not a number of seconds"),
        (("check", "--settle", "-1"), "'-1' is not a number of seconds"),
        (("check", "--rf-min", "0"), "--rf-min"),
        (("check", "--depth", "deep"), "--depth"),
        (("check", "--bogus"), "--bogus"),
        (("check", "--hosts", ","), "--hosts names no host"),
        (("check", "--username", "u"), "has no password"),
        (("check", "--json", "no/such/dir/x.json"), "--json no/such/dir/x.json: No such file or directory"),
        (("check", "--findings", "no/such/dir/x"), "--findings no/such/dir/x: No such file or directory"),
        (("check", "--findings", os.devnull), "is not a regular file"),
        (("check", "--json", "."), "is a directory"),
        (("check", "--json", "same", "--findings", "same"), "name the same file"),
        (("check", "--json", "same", "--html", "same"), "name the same file"),
        (("check", "--json", "same", "--ledger", "same"), "--ledger and --json name the same file"),
        (("check", "--findings", "same", "--ledger", "./same"), "--ledger and --findings name the same file"),
        (("history", "--json", "same", "--ledger", "same"), "--ledger and --json name the same file"),
        (("check", "--html", "-"), "--html -: name a file"),
        (("check", "--findings", "-"), "--findings -: name a file; this is never printed"),
        (("check", "--ledger", "-"), "--ledger -: name a file; this is never printed"),
        (("check", "--hosts", ""), "--hosts names no host; give one or more, such as 10.0.0.1"),
        (("check", "--rate", "many"), "'many' is not a whole number; see: "),
        (("check", "--port", "x"), "'x' is not a whole number; see: "),
        (("watch", "--hook", "/no/such/command"), "--hook: /no/such/command is not a command that can be run"),
        (("ledger", "merge", "absent"), "there is no ledger absent: name one that "),
        (("ledger", "merge", "."), "there is no *.ledger in .: name one that "),
        (("check", "--html", "no/such/dir/x"), "--html no/such/dir/x: No such file or directory"),
        (("audit", "shop.orders"), "an audit judges keyspaces"),
        (("audit", "sop"), "did you mean 'shop'?"),
        (("explain", "no-such-file"), "cannot read no-such-file"),
        (("chek",), "there is no command 'chek'; did you mean 'check'?"),
    ],
)
def test_a_mistake_of_the_operator_exits_2_with_one_line(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """The line names what is wrong; nothing is printed on stdout and no file is left."""
    shell.patch.chdir(tmp_path)
    result = shell.run(*words)
    assert result.exit_code == 2
    assert one_line(result.stderr).startswith("error: ")
    assert said in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("check", "--findings", "same"), ("compare", "--target-hosts", "x", "--html", "same")]
)
def test_the_ledger_of_the_environment_is_no_other_file(shell: Shell, tmp_path: Path, words: tuple[str, ...]) -> None:
    """What a run recorded would be gone, and the run would say that all is well."""
    shell.patch.chdir(tmp_path)
    shell.patch.setenv("CONSISTENCY_LEDGER", str(tmp_path / "same"))
    result = shell.run(*words)
    assert (result.exit_code, "--ledger and --" in result.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_any_number_of_replicas_may_be_asked_for(shell: Shell) -> None:
    """More than a machine counts to: the rule is broken, and said to be."""
    for words in (("audit",), ("check", "--settle", "0")):
        result = shell.run(*words, "--rf-min", str(10**30))
        assert result.exit_code == 1
        assert "rf_below_minimum" in result.stdout


@pytest.mark.parametrize(("error", "code"), [(ConnectError("no node answers"), 4), (LockedError("locked"), 5)])
def test_an_error_of_ours_exits_with_its_own_code(shell: Shell, error: Exception, code: int) -> None:
    """The exit code is on the class of the error."""

    async def refuse() -> None:
        raise error

    shell.cluster.on_digest = refuse
    result = shell.check()
    assert result.exit_code == code
    assert one_line(result.stderr) == f"error: {error}"


def test_an_unforeseen_error_is_one_line_and_exits_4(shell: Shell) -> None:
    """An operator gets a line and the way to the traceback."""

    async def fail() -> None:
        raise RuntimeError("odd\x1b[2J\nsecond line")

    shell.cluster.on_digest = fail
    result = shell.check()
    assert result.exit_code == 4
    line = one_line(result.stderr)
    assert line.startswith("internal error: RuntimeError: odd\\x1b[2J second line")
    assert "CONSISTENCY_DEBUG=1" in line


def test_the_traceback_is_there_when_asked_for(shell: Shell) -> None:
    """CONSISTENCY_DEBUG prints it."""

    async def fail() -> None:
        raise RuntimeError("odd")

    shell.cluster.on_digest = fail
    shell.patch.setenv("CONSISTENCY_DEBUG", "1")
    assert "Traceback" in shell.check().stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_exits_130_with_a_true_partial_report(
    shell: Shell, tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """What was read until then is reported, the rest counts as failed.

    The handler is set first: a test run in the background of a shell is started with SIGINT ignored.
    """
    former = signal.signal(number, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(number, former))
    sent: list[int] = []

    async def interrupted() -> None:
        if not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        await asyncio.sleep(60)

    shell.cluster.on_digest = interrupted
    result = shell.check("--json", str(tmp_path / "r.json"))
    assert result.exit_code == 130
    assert "INTERRUPTED, unknown so far" in result.stdout
    assert "interrupted: ending with what was read so far" in result.stderr
    data = json.loads((tmp_path / "r.json").read_text())
    assert (data["exit_code"], data["verdict"], data["interrupted"]) == (130, "unknown", True)
    assert data["coverage"]["failed"] == data["coverage"]["planned"] > 0


def run_process(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    code = "import sys; from consistency.cli import main; sys.argv[0] = 'consistency'; main()"
    environ = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-c", code, *words], check=False, capture_output=True, text=True, timeout=60, env=environ
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--version",), 0),
        (("--help",), 0),
        (("check", "-h"), 0),
        ((), 2),
        (("chek",), 2),
        (("check", "--port", "x"), 2),
        (("check", "--hosts", "127.0.0.1:1"), 4),
        (("audit", "--hosts", "127.0.0.1:1"), 4),
    ],
)
def test_the_shell_sees_the_exit_code(words: tuple[str, ...], code: int) -> None:
    """In a process of its own: the code, and never a traceback."""
    done = run_process(*words)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if words and code:
        assert one_line(done.stderr).startswith("error: ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`| true` must not end in a traceback."""
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from consistency.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


# Files and streams.


def test_the_json_report_has_the_promised_fields(shell: Shell, tmp_path: Path) -> None:
    """Scripts rely on these names."""
    damage(shell.cluster)
    path = tmp_path / "r.json"
    assert shell.check("--json", str(path)).exit_code == 1
    data = json.loads(path.read_text())
    assert data["schema"] == 1
    assert data["verdict"] == "divergent"
    assert data["exit_code"] == 1
    assert set(data["coverage"]) == {"planned", "completed", "skipped", "failed"}
    assert data["findings_by_kind"] == {"missing": 1, "stale": 1}
    (row,) = data["tables"]
    promised = {"keyspace", "table", "depth", "route", "locality", "rows", "divergent_rows", "seconds"}
    assert promised <= set(row)
    assert list(tmp_path.iterdir()) == [path]


def test_json_on_stdout_is_nothing_but_json(shell: Shell) -> None:
    """The text goes to stderr."""
    result = shell.check("--json", "-")
    assert json.loads(result.stdout)["verdict"] == "consistent"
    assert "CONSISTENT" in result.stderr


def test_the_page_is_private_and_holds_no_key_unless_asked_for(shell: Shell, tmp_path: Path) -> None:
    """`--html` writes one file of mode 0600, over whatever was there, and `--show-keys` alone puts keys into it."""
    damage(shell.cluster)
    page = tmp_path / "page.html"
    page.write_text("old")
    page.chmod(0o644)
    result = shell.check("--html", str(page), "--findings", str(tmp_path / "f"))
    assert result.exit_code == 1
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert [p.name for p in sorted(tmp_path.iterdir()) if "page" in p.name] == ["page.html"]
    text = page.read_text("utf-8")
    assert "2 of 20 rows in 1 table are not the same on all replicas." in text
    assert "id=7" not in text
    shell.check("--html", str(page), "--show-keys")
    assert "id=7" in page.read_text("utf-8")


def test_an_earlier_report_survives_a_run_that_fails(shell: Shell, tmp_path: Path) -> None:
    """The file is replaced only by a whole one."""
    path = tmp_path / "r.json"
    path.write_text("earlier")
    assert shell.check("nosuch", "--json", str(path)).exit_code == 2
    assert path.read_text() == "earlier"


def test_a_link_is_followed_and_stays(shell: Shell, tmp_path: Path) -> None:
    """The report goes where the link points."""
    target = tmp_path / "real.json"
    link = tmp_path / "link.json"
    link.symlink_to(target)
    shell.check("--json", str(link))
    assert link.is_symlink()
    assert json.loads(target.read_text())["schema"] == 1


def test_a_device_is_written_to_and_not_replaced(shell: Shell) -> None:
    """`--json` to a device must not rename a file over it."""
    assert shell.check("--json", os.devnull).exit_code == 0
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_quiet_prints_nothing_where_all_is_well(shell: Shell) -> None:
    """Cron mails what is printed."""
    result = shell.check("--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_quiet_prints_the_report_where_something_is_wrong(shell: Shell) -> None:
    """And then the report is wanted."""
    damage(shell.cluster)
    result = shell.check("--quiet")
    assert result.exit_code == 1
    assert result.stdout.startswith("DIVERGENT")
    assert result.stderr == ""


def test_no_escape_codes_without_a_terminal(shell: Shell) -> None:
    """Neither on stdout nor on stderr."""
    damage(shell.cluster)
    assert ESC not in shell.check().output


def test_keys_are_printed_only_when_asked_for_without_a_terminal(shell: Shell) -> None:
    """Logs and mails are read by others."""
    damage(shell.cluster)
    hidden = shell.check().stdout
    assert "id=7" not in hidden
    assert "--show-keys prints them" in hidden
    assert "id=7" in shell.check("--show-keys").stdout


def test_commands_to_come_repeat_how_to_connect(shell: Shell, tmp_path: Path) -> None:
    """What is printed can be pasted."""
    damage(shell.cluster)
    path = str(tmp_path / "f.jsonl")
    said = " ".join(shell.check("--hosts", "10.9.9.9", "--no-tls", "--findings", path).stdout.split())
    assert f"consistency explain {path} --row 1" in said.replace(" \\", "")
    assert "--hosts 10.9.9.9 --no-tls" in said.replace(" \\", "")


def test_a_check_is_polite_unless_told_otherwise(shell: Shell, tmp_path: Path) -> None:
    """The guard is on by default, off with --full-speed; rate and pause file are taken as given."""
    asked: list[Politeness] = []

    def record(*args: Any, **_: Any) -> Any:
        asked.append(args[1].politeness)
        return opener(shell.cluster)()

    shell.patch.setattr("consistency.cluster.session.open_cluster", record)
    pause = tmp_path / "pause"
    CliRunner().invoke(main, ["check"])
    CliRunner().invoke(main, ["check", "--full-speed"])
    CliRunner().invoke(main, ["check", "--rate", "500", "--latency-guard", "2", "--pause-file", str(pause)])
    assert asked == [Politeness(), Politeness(guard=None), Politeness(rate=500, guard=2.0, pause_file=pause)]
    assert Politeness().guard == DEFAULT_GUARD


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--full-speed", "--latency-guard", "2"], "give one of them"),
        (["--latency-guard", "1"], "is not a number above 1"),
        (["--rate", "0"], "--rate"),
    ],
)
def test_politeness_that_makes_no_sense_is_refused(shell: Shell, words: list[str], said: str) -> None:
    """Exit 2, in one line that names the option."""
    result = CliRunner().invoke(main, ["check", *words])
    assert result.exit_code == 2
    assert said in result.output


def test_a_paused_check_says_so_and_that_it_goes_on(shell: Shell, tmp_path: Path) -> None:
    """Whoever forgot the file is told why nothing moves."""
    pause = tmp_path / "pause"
    pause.touch()

    async def slow() -> None:
        await asyncio.sleep(1.5)
        pause.unlink(missing_ok=True)
        await asyncio.sleep(1.0)

    shell.cluster.on_digest = slow
    said = "".join(shell.check("--pause-file", str(pause)).stderr.split())
    assert f"pausedwhile{pause}exists" in said
    assert "goingon" in said


# Audit and explain.


def test_an_audit_of_a_sound_cluster_exits_0(shell: Shell) -> None:
    """Nothing is broken."""
    result = shell.run("audit")
    assert result.exit_code == 0
    assert result.stdout.startswith("IN ORDER  No rule of replication is broken in 1 keyspace on 3 nodes of test.")


def test_an_audit_names_each_violation_with_its_remedy(shell: Shell, tmp_path: Path) -> None:
    """And writes them as JSON."""
    shell.cluster = FakeCluster(factor="1")
    path = tmp_path / "a.json"
    result = shell.run("audit", "shop", "--json", str(path))
    assert result.exit_code == 1
    assert "x shop  rf_below_minimum" in result.stdout
    assert "ALTER KEYSPACE shop" in result.stdout
    data = json.loads(path.read_text())
    assert (data["schema"], data["cluster"], data["exit_code"]) == (1, "test", 1)
    assert set(data["violations"][0]) >= {"kind", "keyspace", "detail", "remedy"}


def test_an_audit_of_nothing_exits_3(shell: Shell) -> None:
    """A keyspace that is not replicated cannot be judged."""
    result = shell.run("audit", "system")
    assert result.exit_code == 3
    assert result.stdout.startswith("UNKNOWN")


def test_explain_reads_the_row_of_a_finding_again(shell: Shell, tmp_path: Path) -> None:
    """It differs, then it does not."""
    damage(shell.cluster)
    path = str(tmp_path / "f.jsonl")
    shell.check("--findings", path)
    result = shell.run("explain", path, "--row", "1")
    assert result.exit_code == 1
    assert "row 1 of 2; --row N shows another" in result.stdout
    shell.cluster.fill(20)
    assert shell.run("explain", path, "--row", "1").exit_code == 0
    result = shell.run("explain", path, "--row", "3")
    assert (result.exit_code, one_line(result.stderr).startswith("error: --row 3: ")) == (2, True)


# Help and the library.


def commands(group: click.Group = main, path: str = "consistency") -> Iterator[tuple[str, click.Command]]:
    """Yield every command of ours with its path."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), [pytest.param(p, c, id=p) for p, c in commands()])
def test_every_command_and_option_has_help(path: str, command: click.Command) -> None:
    """The help is the manual."""
    assert command.help, path
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{path} {param.opts[0]}"
            assert "password" not in param.opts[0], "a command line is visible to every user of the machine"


@pytest.mark.parametrize("words", [(), *(tuple(path.split()[1:]) for path, _ in commands())])
def test_help_fits_80_columns(words: tuple[str, ...]) -> None:
    """Also the parts that are laid out by hand."""
    said = CliRunner().invoke(main, [*words, "--help"], terminal_width=80).stdout
    assert [line for line in said.splitlines() if len(line) > 80] == []


def test_help_is_a_manual() -> None:
    """Examples, exit codes, environment."""
    said = CliRunner().invoke(main, ["--help"]).stdout
    for part in ("Examples:", "Exit codes:", "Environment", "CONSISTENCY_PASSWORD_FILE", "NO_COLOR", "130"):
        assert part in said
    assert "\b" not in said


def test_the_version_is_one_line() -> None:
    """One line."""
    assert CliRunner().invoke(main, ["--version"]).stdout == f"consistency {consistency.__version__}\n"


def test_a_command_whose_module_is_absent_is_not_listed() -> None:
    """And asking for it is a usage error."""
    group = LazyGroup("x", commands_at={"gone": "no_such_package.cli:gone"})
    result = CliRunner().invoke(group, ["gone"])
    assert group.list_commands(click.Context(group)) == []
    assert result.exit_code == 2
    assert "there is no command 'gone'" in result.stderr


def test_a_command_that_lacks_packages_says_which_extra() -> None:
    """The sandbox needs more than a check does; help lists it all the same."""
    code = "import sys; sys.modules['psutil'] = None; from consistency.cli import main; main()"
    words = ([sys.executable, "-c", code, *rest] for rest in (["sandbox", "up", "--nodes", "3"], ["--help"]))
    refused, listed = (subprocess.run(w, capture_output=True, text=True, check=False) for w in words)
    assert refused.returncode == 4
    assert one_line(refused.stderr).endswith("pip install 'cassandra-consistency[sandbox]', in a clone '.[sandbox]'")
    assert (listed.returncode, "sandbox" in listed.stdout) == (0, True)


def test_the_library_returns_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from consistency import check, audit`, whatever was imported before."""
    from consistency import audit, check  # noqa: PLC0415

    cluster = FakeCluster().fill(3)
    monkeypatch.setattr("consistency.api.open_cluster", opener(cluster))
    report = check("shop.orders")
    assert isinstance(report, Report)
    assert (report.exit_code, report.tables[0].rows) == (0, 3)
    assert audit("shop").exit_code == 0


def test_importing_the_package_does_not_load_the_driver() -> None:
    """Help must not wait for it."""
    code = "import sys, consistency, consistency.cli; sys.exit('cassandra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_submodules_stay_importable_beside_the_functions_of_their_name() -> None:
    """In a fresh interpreter, in the order that would shadow the function."""
    code = "from consistency.checking.run import run_check; from consistency import check; assert callable(check)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A disk that is full.


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(("differs", "code"), [(True, 1), (False, 4)])
def test_a_full_disk_loses_the_files_and_not_the_verdict(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, differs: bool, code: int
) -> None:
    """The report is printed, one line names what is not written, and the exit code is never 0."""
    monkeypatch.setattr("consistency.cli.check.require_writable", lambda *_, **__: None)
    if differs:
        damage(shell.cluster)
    result = shell.check("--findings", "/dev/full")
    assert result.exit_code == code
    assert result.stdout.startswith("DIVERGENT" if differs else "CONSISTENT")
    assert one_line(result.stderr) == (
        "error: --findings /dev/full: No space left on device: not written; make room and check again"
    )
    result = shell.check("--json", "/dev/full")
    assert result.exit_code == code
    assert result.stdout.startswith("DIVERGENT" if differs else "CONSISTENT")
    assert "--json /dev/full" in one_line(result.stderr)


@pytest.mark.parametrize(("differs", "code"), [(True, 1), (False, 4)])
def test_metrics_that_cannot_be_written_keep_the_verdict(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, differs: bool, code: int
) -> None:
    """Rows that differ are not hidden behind a disk that is full."""

    def full(*_: object) -> None:
        raise ConsistencyError("--metrics m.prom: No space left on device; make room")

    monkeypatch.setattr("consistency.cli.telemetry.write_public", full)
    if differs:
        damage(shell.cluster)
    result = shell.check("--metrics", str(tmp_path / "m.prom"))
    assert result.exit_code == code
    assert result.stdout.startswith("DIVERGENT" if differs else "CONSISTENT")
    assert "--metrics m.prom: No space left on device" in one_line(result.stderr)


@pytest.mark.parametrize(("differs", "code"), [(True, 1), (False, 4)])
def test_a_report_that_cannot_be_printed_keeps_the_verdict(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, differs: bool, code: int
) -> None:
    """As with the output sent to a file on a full disk: one line says it, and the exit code is never 0."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("consistency.cli.reported.print_report", full)
    if differs:
        damage(shell.cluster)
    result = shell.check()
    assert result.exit_code == code
    verdict = "divergent" if differs else "consistent"
    assert one_line(result.stderr) == (f"error: standard output: No space left on device: {verdict}, not shown whole")


def test_findings_replace_findings_and_nothing_else(shell: Shell, tmp_path: Path) -> None:
    """Last night's file makes room for tonight's; whatever else has the name stays as it is."""
    path = tmp_path / "f.jsonl"
    assert [shell.check("--findings", str(path)).exit_code for _ in range(2)] == [0, 0]
    path.write_text("notes\n")
    result = shell.check("--findings", str(path))
    assert (result.exit_code, "holds no findings: it is not replaced" in one_line(result.stderr)) == (2, True)
    assert path.read_text() == "notes\n"


def test_who_calls_the_command_in_his_own_process_keeps_his_place(shell: Shell) -> None:
    """Only a process that is ours alone lets others go first on the machine."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert shell.check().exit_code == 0
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
