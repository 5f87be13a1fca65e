"""Make the images and run a command beside an engine: `python -m tests.images docker compose ... up`, or pytest.

The engine that answers is taken; if none does, and `dockerd` is installed and we are root, one of our own is started
without a bridge, and stopped and removed in the end.
"""

from __future__ import annotations

import subprocess
import sys

from tests.images.engine import an_engine
from tests.images.making import import_images

COMPOSE = "tests/images/compose.host.yml"


def main(command: list[str]) -> int:
    """Return the exit code of the command; 3 if there is no engine."""
    import docker  # noqa: PLC0415 - an extra

    with an_engine() as environ:
        if environ is None:
            sys.stderr.write("no Docker engine answers, and none can be started here: install dockerd and be root\n")
            return 3
        client = docker.from_env(environment=environ)
        try:
            import_images(client)
        finally:
            client.close()
        ours = {"CONSISTENCY_TEST_COMPOSE": COMPOSE, "TESTCONTAINERS_RYUK_DISABLED": "true", "DOCKER_BUILDKIT": "0"}
        return subprocess.run(command, env={**environ, **ours}, check=False).returncode if command else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
