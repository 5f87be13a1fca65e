"""Reading a node's log: whom it sees, and why it did not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.layout import plan_cluster
from sandbox.logs import LogWatch, failure_reason
from sandbox.options import SandboxOptions

HEAD = "INFO  [GossipStage:1] 2030-01-01 00:00:00,000"
PLACES = plan_cluster(SandboxOptions())
UP = f"{HEAD} Gossiper.java:1473 - InetAddress /127.0.0.2:7000 is now UP\n"
DOWN = f"{HEAD} Gossiper.java:1490 - InetAddress /127.0.0.2:7000 is now DOWN\n"
NORMAL = f"{HEAD} StorageService.java:3317 - Node /127.0.0.2:7000 state NORMAL, token [1, 2]\n"
STARTED = f"{HEAD} CassandraDaemon.java:609 - JVM vendor/version: X\n"
ERROR = "ERROR [main] 2030-01-01 00:00:00,000 CassandraDaemon.java:900 - Exception encountered during startup"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Make an empty log."""
    path = tmp_path / "system.log"
    path.write_text("")
    return path


def append(log: Path, text: str) -> None:
    """Log some more."""
    with log.open("a") as handle:
        handle.write(text)


@pytest.mark.parametrize(
    ("logged", "sees"),
    [
        (UP + NORMAL, True),
        (NORMAL + UP, True),
        (UP, False),
        (NORMAL, False),
        (UP + NORMAL + DOWN, False),
        (UP + NORMAL + DOWN + UP, True),
        (UP + NORMAL + STARTED, False),
        (STARTED + UP + NORMAL[:-1], False),
    ],
)
def test_a_node_is_seen_when_it_is_up_and_its_tokens_are_known(log: Path, logged: str, sees: bool) -> None:
    """Up without tokens is not enough, half a line is none, and a restart forgets everything."""
    watch = LogWatch(PLACES[0], log)
    append(log, logged)
    watch.read()
    assert watch.sees(PLACES[1]) is sees
    assert not watch.sees(PLACES[2])


def test_what_was_logged_before_can_be_skipped(log: Path) -> None:
    """A node that is started again must be seen again."""
    append(log, UP + NORMAL)
    watch = LogWatch(PLACES[0], log)
    watch.skip_to_end()
    assert not watch.sees(PLACES[1])
    append(log, UP + NORMAL)
    watch.read()
    assert watch.sees(PLACES[1])


def test_logs_that_were_rolled_over_count(log: Path) -> None:
    """A long-running node said whom it sees in a file that has moved on."""
    log.with_name("system.log.2").write_text(UP)
    log.with_name("system.log.1").write_text(NORMAL)
    watch = LogWatch(PLACES[0], log)
    watch.read()
    assert watch.sees(PLACES[1])


@pytest.mark.parametrize(
    ("system", "console", "reason"),
    [
        (f"{ERROR}: Invalid yaml.\n", "x\n", "Exception encountered during startup: Invalid yaml."),
        (
            f"{ERROR}\njava.lang.RuntimeException: outer\n\tat x\nCaused by: java.io.IOException: disk full\n",
            "",
            "Exception encountered during startup (Caused by: java.io.IOException: disk full)",
        ),
        (
            f"{ERROR}\njava.lang.IllegalStateException: Unable to contact any seeds\n\tat x\n",
            "",
            "Exception encountered during startup (java.lang.IllegalStateException: Unable to contact any seeds)",
        ),
        (
            "INFO  [main] 2030-01-01 00:00:00,000 X.java:1 - fine\n",
            'Exception in thread "main" java.lang.NoClassDefFoundError: a/B\n\tat y\n',
            'Exception in thread "main" java.lang.NoClassDefFoundError: a/B',
        ),
        (
            "",
            "Unrecognized VM option 'X'\nError: Could not create the Java Virtual Machine.\nError: A fatal exception\n",
            "Unrecognized VM option 'X'",
        ),
        ("", "Killed\n", "Killed"),
        ("", "", "it printed nothing"),
    ],
)
def test_the_reason_is_one_line(log: Path, tmp_path: Path, system: str, console: str, reason: str) -> None:
    """The last error with its root cause, else what Java printed."""
    log.write_text(system)
    out = tmp_path / "console.log"
    out.write_text(console)
    assert failure_reason(log, out) == reason


def test_errors_of_an_earlier_start_are_not_blamed(log: Path, tmp_path: Path) -> None:
    """Only what was written since this start counts."""
    log.write_text(f"{ERROR}: old\n")
    start = log.stat().st_size
    append(log, f"{ERROR}: new\n")
    assert failure_reason(log, tmp_path / "none", start).endswith(": new")
