"""Commands as copies of a process that has loaded the command line behave as ones that are started anew."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import warm

ENVIRON = {key: value for key, value in os.environ.items() if not key.startswith("CONSISTENCY_")}


@pytest.mark.parametrize("words", [["--version"], ["chek"], ["check", "--help"], ["check", "--settle", "no"]])
def test_it_ends_and_says_what_a_process_of_its_own_does(words: list[str]) -> None:
    """Exit code, output and errors."""
    command = [sys.executable, "-m", "consistency", *words]
    anew = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRON, timeout=120)
    copy = warm.run(words, ENVIRON, 120)
    assert (copy.returncode, copy.stdout, copy.stderr) == (anew.returncode, anew.stdout, anew.stderr)


def test_its_environment_is_the_one_that_it_is_given() -> None:
    """What another copy was given, and what this process holds, is not in it."""
    given = [{**ENVIRON, "CONSISTENCY_HOSTS": f"127.0.250.{n}"} for n in (1, 2)]
    with ThreadPoolExecutor() as pool:  # at once
        said = [done.stderr for done in pool.map(lambda environ: warm.run(["audit"], environ, 120), given)]
    assert ["127.0.250.1:9042" in said[0], "127.0.250.2:9042" in said[1]] == [True, True], said
    assert "127.0.250." not in warm.run(["audit", "--hosts", "127.0.251.1"], ENVIRON, 120).stderr


def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    """The node that it waits for sees its connections closed."""
    config = tmp_path / "c.toml"
    config.write_text("[connection]\nconnect_timeout = 60\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        words = ["check", "--hosts", f"{host}:{port}", "--config", str(config)]
        with ThreadPoolExecutor() as pool:
            warm.run(["--version"], ENVIRON, 120)  # it is loaded
            asking = pool.submit(warm.run, words, ENVIRON, 8.0)
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                with pytest.raises(subprocess.TimeoutExpired):
                    asking.result()
                connection.settimeout(30)
                with suppress(ConnectionResetError):
                    while connection.recv(4096):
                        pass
