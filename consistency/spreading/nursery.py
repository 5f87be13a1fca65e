"""A process that loads what workers need once, and forks them off itself: none of them loads it again.

Loading takes longer than a worker takes to connect. A command that is asked for workers begins the nursery before it
loads anything itself, so both are ready at about the same time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from consistency.errors import ConnectError

WORKERS = (sys.executable, "-m", "consistency.cli.worker")
_PID = struct.Struct(">i")
_SOCKETS = 2
_PATIENCE_S = 3.0
_LOOK_EVERY_S = 0.01


@dataclass(frozen=True, slots=True)
class Forked:
    """A worker's process: what it hears is written to `hears`, what it says is read from `says`."""

    pid: int
    hears: socket.socket
    says: socket.socket


class Nursery:
    """The process that workers are forked off, begun at once; `words` start it."""

    def __init__(self, words: Sequence[str] = WORKERS) -> None:
        self._turn = asyncio.Lock()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(0)
        nothing = subprocess.DEVNULL
        # Its own session, so that Ctrl-C is for the driver alone; no threads of numpy's, as those do not fork well.
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - a program of ours
                words,
                stdin=theirs.fileno(),
                stdout=nothing,
                stderr=nothing,
                start_new_session=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )

    @property
    def gone(self) -> bool:
        """Whether the process ended."""
        return self._process.poll() is not None

    async def fork(self) -> Forked:
        """Have a worker forked, once all is loaded; ConnectError if the nursery ended before. Not to be cancelled."""
        hears, its_input = socket.socketpair()
        says, its_output = socket.socketpair()
        with its_input, its_output:
            async with self._turn:
                try:
                    socket.send_fds(self._control, [b"w"], [its_input.fileno(), its_output.fileno()])
                    told = await asyncio.get_running_loop().sock_recv(self._control, _PID.size)
                except OSError:
                    told = b""
        if len(told) < _PID.size:
            hears.close()
            says.close()
            raise ConnectError("a worker ended before it was connected; run it without --workers to see why")
        hears.settimeout(0)
        says.settimeout(0)
        return Forked(_PID.unpack(told)[0], hears, says)

    async def end(self) -> None:
        """Have it end once its workers have, and kill it if it does not."""
        self._control.close()
        left_s = _PATIENCE_S
        while not self.gone and left_s > 0:
            await asyncio.sleep(_LOOK_EVERY_S)
            left_s -= _LOOK_EVERY_S
        if not self.gone:
            self._process.kill()
        self._process.wait()


_early: list[Nursery] = []


def begin_early() -> None:
    """Begin a nursery for whoever takes one next; if nobody does, it ends with this process."""
    _early.append(Nursery())


def take_nursery(words: Sequence[str]) -> Nursery:
    """Return the nursery that was begun early, else one that begins now."""
    return _early.pop() if _early and tuple(words) == WORKERS else Nursery(words)


def fork_workers(work: Callable[[int], None]) -> None:
    """Be a nursery: fork a worker each time the driver asks for one, until it is gone.

    `work` is what a worker does. It hears its driver on its standard input, is given the descriptor that it is to
    write to, and must not return.
    """
    with socket.socket(fileno=os.dup(0)) as control:
        while True:
            _, sockets, _, _ = socket.recv_fds(control, 1, _SOCKETS)
            _forget_those_that_ended()
            if len(sockets) < _SOCKETS:
                break
            pid = os.fork()
            if not pid:
                control.close()
                os.dup2(sockets[0], 0)
                os.close(sockets[0])
                work(sockets[1])
            for each in sockets:
                os.close(each)
            with suppress(OSError):  # the driver is gone, and the worker hears it
                control.sendall(_PID.pack(pid))
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _forget_those_that_ended() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
