"""What the machine refuses is said before anything is started."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from sandbox import machine
from sandbox.errors import SandboxError
from sandbox.layout import plan_cluster
from sandbox.options import SandboxOptions

if TYPE_CHECKING:
    from pathlib import Path


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    """Address, port, node and both options."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        places = plan_cluster(SandboxOptions(nodes=1, port=port))
        with pytest.raises(SandboxError, match=rf"127\.0\.0\.1:{port} .*node 1.*--address-base.*--port"):
            machine.check_listening(places)


def test_an_address_that_is_not_there_points_to_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system whose loopback has a single address."""
    monkeypatch.setattr(machine, "_bind_error", lambda *_: machine.errno.EADDRNOTAVAIL)
    with pytest.raises(SandboxError, match="--one-address"):
        machine.check_listening(plan_cluster(SandboxOptions()))


def test_too_little_memory_is_said_in_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is needed, what there is, what to change."""
    monkeypatch.setattr(machine, "available_mb", lambda: 2000)
    machine.check_memory(1, 1024)
    with pytest.raises(SandboxError, match=r"--nodes 3 .* 4272 MB, 2000 MB are available; use a smaller --heap"):
        machine.check_memory(3, 1024)


def test_two_sandboxes_look_for_jmx_ports_in_different_places(tmp_path: Path) -> None:
    """The ports of one sandbox differ, and a taken one is passed over."""
    first = machine.free_jmx_port(tmp_path / "a", 1, [])
    assert machine.free_jmx_port(tmp_path / "a", 1, [first]) != first
    assert machine.free_jmx_port(tmp_path / "b", 1, []) != first
