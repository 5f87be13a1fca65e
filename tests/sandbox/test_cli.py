"""The commands: exit codes, and one line for every refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sandbox import cluster
from sandbox.cli import sandbox
from sandbox.layout import plan_cluster
from sandbox.options import SandboxOptions
from sandbox.state import NodeRecord, SandboxState


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """Return a sandbox that was up once."""
    directory = tmp_path / "box"
    directory.mkdir()
    options = SandboxOptions(dir=directory, address_base="127.0.20.1")
    nodes = {place.n: NodeRecord(place, jmx_port=10_000 + place.n) for place in plan_cluster(options)}
    SandboxState(options, nodes, next_n=4, formed=True).save()
    return directory


def run(*args: str | Path) -> Result:
    """Run one command."""
    return CliRunner().invoke(sandbox, [str(arg) for arg in args], prog_name="sandbox")


def error_line(result: Result) -> str:
    """Return what was said on standard error, which must be one line."""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.strip()


@pytest.mark.parametrize("command", [["down"], ["status"], ["stop", "1"], ["start", "1"], ["add"], ["remove", "1"]])
def test_a_directory_without_a_sandbox_is_refused(tmp_path: Path, command: list[str]) -> None:
    """Whatever is asked of it, the way out is the same."""
    result = run(*command, "--dir", tmp_path / "never")
    assert result.exit_code == 4
    assert "start one with 'consistency sandbox up'" in error_line(result)
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--dcs", "dc1=x"], "--dcs dc1=x"),
        (["--cassandra", "6.0"], "--cassandra 6.0: not one of 5.0.9 (5.0), 5.0.8, 4.1.10 (4.1)"),
        (["--set", "oops"], "--set oops"),
        (["--address-base", "192.168.0.1"], "loopback"),
        (["--java-home", "/nonexistent"], "--java-home /nonexistent"),
    ],
)
def test_options_at_fault_end_with_2(
    tmp_path: Path, args: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started and the message repeats the option."""
    monkeypatch.setattr(cluster, "check_listening", lambda _: None)
    result = run("up", "--dir", tmp_path / "box", *args)
    assert result.exit_code == 2
    assert said in error_line(result)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--cassandra", "4.1"], "holds the data of a sandbox with --cassandra 5.0"),
        (["--num-tokens", "4"], "with --num-tokens 16"),
        (["--address-base", "127.0.30.1"], "with --address-base 127.0.20.1"),
        (["--one-address"], "--one-address True"),
    ],
)
def test_what_the_data_fixes_cannot_be_changed(stopped: Path, args: list[str], said: str) -> None:
    """The way out is another directory or an explicit delete."""
    result = run("up", "--dir", stopped, *args)
    assert result.exit_code == 2
    assert said in error_line(result)
    assert "--delete" in result.stderr


def test_a_strange_directory_is_left_alone(tmp_path: Path) -> None:
    """Files that are not ours are a reason to stop."""
    (tmp_path / "thesis.txt").write_text("precious")
    result = run("up", "--dir", tmp_path)
    assert result.exit_code == 2
    assert "not a sandbox's" in error_line(result)
    assert (tmp_path / "thesis.txt").exists()


def test_a_node_that_is_not_there_is_refused(stopped: Path) -> None:
    """The message lists those that are."""
    result = run("stop", "9", "--dir", stopped)
    assert result.exit_code == 2
    assert error_line(result) == "error: node 9: this sandbox has the nodes 1, 2, 3"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["stop", "1", "--freeze"], "nothing to freeze"),
        (["nodetool", "1", "--", "status"], "'consistency sandbox start 1'"),
        (["add"], "node 1 is not up"),
        (["remove", "2"], "start it first"),
    ],
)
def test_what_needs_a_running_node_says_so(stopped: Path, command: list[str], said: str) -> None:
    """All of these end with 4: they could not run."""
    result = run(command[0], "--dir", stopped, *command[1:])
    assert result.exit_code == 4
    assert said in error_line(result)


def test_status_as_json_has_what_a_script_needs(stopped: Path) -> None:
    """Hosts as `--hosts` takes them, and every node."""
    result = run("status", "--json", "--dir", stopped)
    status = json.loads(result.stdout)
    assert result.exit_code == 0
    assert status["hosts"] == "127.0.20.1,127.0.20.2,127.0.20.3"
    assert (status["port"], status["cassandra"], status["dir"]) == (9042, "5.0.9", str(stopped))
    assert [(node["n"], node["state"], node["pid"]) for node in status["nodes"]] == [
        (1, "down", None),
        (2, "down", None),
        (3, "down", None),
    ]


def test_a_busy_directory_is_refused(stopped: Path) -> None:
    """Two commands on one sandbox would undo each other's work."""
    with cluster.exclusive(stopped / cluster.LOCK_FILE):
        result = run("down", "--dir", stopped)
    assert result.exit_code == 4
    assert "another sandbox command" in error_line(result)


def test_down_can_remove_everything(stopped: Path) -> None:
    """Data, state and directory go; a second time there is nothing to stop."""
    assert run("down", "--dir", stopped).stdout == "nothing was running\n"
    for node in ("node1", "node4"):  # the fourth failed to join and was forgotten
        (stopped / node / "logs").mkdir(parents=True)
    assert run("down", "--delete", "--dir", stopped).exit_code == 0
    assert not stopped.exists()


def test_a_torn_state_file_is_named(stopped: Path) -> None:
    """Nothing is guessed from half a file."""
    (stopped / "sandbox.json").write_text("{")
    result = run("status", "--dir", stopped)
    assert result.exit_code == 4
    assert str(stopped / "sandbox.json") in error_line(result)


@pytest.mark.parametrize("command", ["up", "down", "status", "stop", "start", "nodetool", "add", "remove"])
def test_every_command_has_a_manual(command: str) -> None:
    """Help needs neither Java nor a cluster."""
    assert run(command, "--help").exit_code == 0
