"""An engine for containers: the one that answers, else one of our own without a bridge, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_S = 60.0
_STOP_S = 30.0


@contextmanager
def an_engine() -> Iterator[dict[str, str] | None]:
    """Yield the environment in which an engine answers; None where there is none and none can be started."""
    environ = dict(os.environ)
    if answers(environ):
        yield environ
    elif shutil.which("dockerd") and os.geteuid() == 0:
        with tempfile.TemporaryDirectory(prefix="engine-") as directory, _own_engine(Path(directory)) as socket:
            yield {**environ, "DOCKER_HOST": f"unix://{socket}"}
    else:
        yield None


def answers(environ: dict[str, str]) -> bool:
    """Whether an engine answers where the environment says that one is."""
    import docker  # noqa: PLC0415 - an extra

    try:
        client = docker.from_env(environment=environ)
    except docker.errors.DockerException:
        return False
    client.close()
    return True


@contextmanager
def _own_engine(directory: Path) -> Iterator[Path]:
    """Start an engine that changes nothing of this machine's network, and end it by its pid, its containers first."""
    socket = directory / "docker.sock"
    command = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"]
    command += [f"--data-root={directory}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid"]
    environ = {**os.environ, "DOCKER_HOST": f"unix://{socket}"}
    with (directory / "log").open("w") as log:
        engine = subprocess.Popen([*command, "--host", f"unix://{socket}"], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + _START_S
            while not answers(environ):
                if engine.poll() is not None or time.monotonic() > deadline:
                    said = (directory / "log").read_text()[-2000:]
                    msg = f"dockerd does not answer:\n{said}"
                    raise RuntimeError(msg)
                time.sleep(0.2)
            yield socket
        finally:
            _remove_containers(environ)
            engine.terminate()
            engine.wait(_STOP_S)
            _unmount(directory / "exec")


def _unmount(directory: Path) -> None:
    """Take down what the engine leaves mounted, a network of its own, so that the directory can be removed."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    for mounted in reversed([line.split()[1] for line in mounts]):
        if directory in Path(mounted).parents:
            subprocess.run(["umount", mounted], check=True)


def _remove_containers(environ: dict[str, str]) -> None:
    import docker  # noqa: PLC0415 - an extra

    client = docker.from_env(environment=environ)
    for container in client.containers.list(all=True):
        container.remove(force=True, v=True)
    client.close()
