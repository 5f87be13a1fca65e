"""Commands as copies of one process that has loaded the command line: what loading costs is paid once.

`python -m tests.support.warm SOCKET` loads it and waits. Each connection hands over a command line, the environment and
the files for its output; a copy of the process (fork) is then what `python -m consistency` would be, with its own
pid, environment, signals and exit. That it loads by itself what it needs is shown by
tests that start it anew, as `tests.support.processes`, the watches and the pages do.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

_BEGIN_S = 120.0
"""How long loading may take beside other tests."""


@cache
def _socket() -> Path:
    """Start the process, once; it ends with this one."""
    folder = tempfile.TemporaryDirectory(prefix="consistency-warm-")
    path = Path(folder.name) / "socket"
    keeper = subprocess.Popen(
        [sys.executable, "-m", __name__, str(path)],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads are not copied
    )

    def end() -> None:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait()
        folder.cleanup()

    atexit.register(end)
    deadline = time.monotonic() + _BEGIN_S
    while not path.exists():
        assert keeper.poll() is None, "the command line could not be loaded"
        assert time.monotonic() < deadline, f"the command line was not loaded within {_BEGIN_S:.0f} s"
        time.sleep(0.02)
    return path


def run(arguments: Sequence[str], environ: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run `consistency ARGUMENTS` to its end; TimeoutExpired where it does not end."""
    command = ["consistency", *arguments]
    asked = json.dumps({"arguments": command, "environ": dict(environ), "folder": str(Path.cwd())}).encode()
    with socket.socket(socket.AF_UNIX) as there, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        there.connect(str(_socket()))
        socket.send_fds(there, [len(asked).to_bytes(4, "big")], [out.fileno(), err.fileno()])
        there.sendall(asked)
        pid = _number(there)
        there.settimeout(timeout)
        try:
            code = _number(there)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if isinstance(error, TimeoutError):
                raise subprocess.TimeoutExpired(command, timeout) from None
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(command, code, *texts)


def _number(there: socket.socket) -> int:
    raw = there.recv(4)
    assert len(raw) == 4, "the process that loads the command line for others has ended"
    return int.from_bytes(raw, "big", signed=True)


def _serve(path: Path) -> None:
    """Answer connections until the process that started us ends; return only in the copy that is to be a command."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path.with_suffix(".new")))
        listener.listen()
        path.with_suffix(".new").rename(path)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                os._exit(0)
            connection, _ = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    length, files, _, _ = socket.recv_fds(connection, 4, 2)
    asked = json.loads(connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
    pid = os.fork()
    if pid:
        connection.sendall(pid.to_bytes(4, "big", signed=True))
        _, status = os.waitpid(pid, 0)
        with suppress(OSError):  # nobody waits any more
            connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
        os._exit(0)
    connection.close()
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    time.tzset()
    sys.argv = asked["arguments"]


def _load(group: Any) -> None:
    """Import the commands of a group, and those of its groups; the sandbox's are run by no cluster test."""
    context = group.make_context(group.name, ["x"], resilient_parsing=True)
    for name in sorted({*group.list_commands(context)} - {"demo", "sandbox"}):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            _load(command)


if __name__ == "__main__":
    from consistency.cli import main

    _load(main)
    gc.freeze()
    _serve(Path(sys.argv[1]))
    main(prog_name="consistency")
