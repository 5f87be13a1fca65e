"""Images that are made without a registry: their root file system, and the compose file that takes them."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.images.rootfs import RootFs
from tests.support.containers import nodes

OVER = "tests/images/compose.host.yml"


def test_a_root_file_system_has_each_path_once_and_lets_all_users_in(tmp_path: Path) -> None:
    """Directories above a file are made for all; what is said first stays; a program brings its libraries."""
    if shutil.which("ldd") is None:
        pytest.skip("ldd names the libraries, and is not here")
    tar = tmp_path / "root.tar"
    with closing(RootFs(tar)) as root:
        root.users(cassandra=999)
        root.directory("/var/lib/cassandra", uid=999)
        root.text("/var/lib/cassandra/notes", "first")
        root.text("/var/lib/cassandra/notes", "second")
        root.program(Path("/bin/sh"), "/usr/bin/sh")
        root.link("/bin", "usr/bin")
    with tarfile.open(tar) as written:
        entries = {entry.name: entry for entry in written}
        assert len(entries) == len(written.getnames())
        notes = written.extractfile("var/lib/cassandra/notes")
        assert notes is not None
        assert notes.read() == b"first"
    assert entries["var/lib/cassandra"].uid == 999
    assert entries["var/lib"].mode == 0o755
    assert entries["bin"].linkname == "usr/bin"
    assert any("libc.so" in name for name in entries)


@pytest.mark.parametrize("script", ["docker-entrypoint.sh", "cassandra", "nodetool"])
def test_the_scripts_of_the_node_can_be_read_by_bash(script: str) -> None:
    """Before an engine runs them."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("bash is not here")
    path = Path(__file__).resolve().parents[1] / "images" / "node" / script
    done = subprocess.run([bash, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_file_for_one_machine_changes_addresses_and_little_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node has an address and a port for JMX of its own, and is asked for its health there."""
    shipped = nodes()
    monkeypatch.setenv("CONSISTENCY_TEST_COMPOSE", OVER)
    laid = nodes()
    assert len(laid) == len(shipped) == 3
    for number, (node, before) in enumerate(zip(laid, shipped, strict=True), 1):
        environment = node["environment"]
        address, port = f"127.0.87.{number}", 7190 + number
        assert environment["CASSANDRA_LISTEN_ADDRESS"] == environment["CASSANDRA_RPC_ADDRESS"] == address
        assert environment["CASSANDRA_SEEDS"] == "127.0.87.1"
        assert f"-Dcassandra.jmx.local.port={port}" in environment["JVM_EXTRA_OPTS"]
        assert before["environment"]["JVM_EXTRA_OPTS"] in environment["JVM_EXTRA_OPTS"]
        (health,) = node["healthcheck"]["test"][1:]
        assert address in health
        assert health.count(f"nodetool -p {port} ") == 2
