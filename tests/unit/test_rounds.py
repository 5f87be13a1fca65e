"""The benchmark's arithmetic: sides by turns, ratios within a turn, a command that fails is no figure."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from benchmarks.received import counting
from benchmarks.rounds import Sample, Spread, alternate, command, ratio


def test_sides_alternate_and_the_first_run_of_each_is_not_measured() -> None:
    """Every other round runs backwards, so that no side always follows the same one."""
    order: list[str] = []

    def side(name: str) -> Sample:
        order.append(name)
        return Sample(float(len(order)))

    figures = alternate({"a": lambda: side("a"), "b": lambda: side("b")}, 3)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [s.wall_s for s in figures["a"]] == [3.0, 6.0, 7.0]
    assert [s.wall_s for s in figures["b"]] == [4.0, 5.0, 8.0]


def test_a_ratio_is_taken_within_each_turn() -> None:
    """A turn in which the machine was slow for both does not show; the medians' ratio would be 3."""
    ours = [Sample(1.0), Sample(30.0), Sample(3.0)]
    theirs = [Sample(1.0), Sample(10.0), Sample(1.0)]
    assert ratio(ours, theirs) == Spread(3.0, 1.0, 3.0)


def test_a_command_is_timed_whole_and_must_succeed() -> None:
    """Wall time, processor time and peak memory of the process; another exit status than expected is an error."""
    sample = command([sys.executable, "-c", "sum(range(3_000_000)); bytearray(50_000_000)"])
    assert sample.wall_s > sample.cpu_s / 4 > 0
    assert sample.peak_mb > 50  # and as much as the process that began it had, before it was replaced
    assert command([sys.executable, "-c", "raise SystemExit(1)"], accept=(1,)).wall_s > 0
    with pytest.raises(RuntimeError, match="ended with 3"):
        command([sys.executable, "-c", "raise SystemExit(3)"])


def test_what_sockets_receive_is_counted_only_meanwhile(tmp_path: Path) -> None:
    """Bytes of all sockets, written down when the command is over."""
    ours, theirs = socket.socketpair()
    path = tmp_path / "received.json"
    with ours, theirs:
        with counting(path):
            theirs.sendall(b"x" * 300)
            assert len(ours.recv(1_000)) == 300
        theirs.sendall(b"y")
        assert ours.recv(10) == b"y"
    assert path.read_text() == "300"
