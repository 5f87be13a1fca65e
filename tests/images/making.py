"""The two images: a node that keeps the contract of the official image, and a Python in the place of python:slim."""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from sandbox.cache import cache_dir
from sandbox.config import LOGBACK_TOOLS
from sandbox.flags import module_flags
from sandbox.jars import provide_jars
from sandbox.java import find_java
from sandbox.naming import FACTORY, provide_naming
from sandbox.versions import SERIES
from tests.images.rootfs import RootFs

NODE = "cassandra-stand-in:5.0"
PYTHON = "python-stand-in:slim"
_NODE_FILES = Path(__file__).with_name("node")
_USER = 999
"""The id of the user cassandra in the official image."""
_NOT_NEEDED = frozenset({"test", "tests", "idlelib", "tkinter", "turtledemo", "site-packages", "__pycache__", "share"})
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def node_root(target: Path) -> None:
    """Write the root file system of a node: the sandbox's jars and Java, and the entry point."""
    version, cache = SERIES["5.0"], cache_dir()
    java = find_java(version, None, cache, _silent)
    with closing(RootFs(target)) as root:
        root.shell()
        root.users(cassandra=_USER)
        for at in ("/etc/cassandra", "/var/lib/cassandra", "/var/log/cassandra"):
            root.directory(at, uid=_USER)
        root.tree(java.resolve().parents[1], "/opt/java")
        root.link("/usr/bin/java", "/opt/java/bin/java")
        for jar in provide_jars(version.lock_path, cache, _silent):
            root.file(jar, f"/opt/cassandra/lib/{jar.name}")
        root.tree(provide_naming(java, cache, _silent), "/opt/cassandra/classes")
        root.text("/opt/cassandra/conf/modules", "\n".join(module_flags()) + "\n")
        root.text("/opt/cassandra/conf/naming", FACTORY + "\n")
        for name in ("cassandra", "nodetool", "docker-entrypoint.sh"):
            at = "/usr/local/bin" if name.endswith(".sh") else "/opt/cassandra/bin"
            root.text(f"{at}/{name}", _of(name), mode=0o755)
        for name, text in {
            "cassandra.yaml": _of("cassandra.yaml"),
            "cassandra-rackdc.properties": "dc=dc1\nrack=rack1\n",
            "logback.xml": _of("logback.xml"),
            "logback-tools.xml": LOGBACK_TOOLS,
        }.items():
            root.text(f"/etc/cassandra/{name}", text, uid=_USER)


NODE_CHANGES = (
    "ENV PATH=/opt/cassandra/bin:/usr/local/bin:/usr/bin CASSANDRA_CONF=/etc/cassandra CASSANDRA_HOME=/opt/cassandra",
    'ENTRYPOINT ["docker-entrypoint.sh"]',
    'CMD ["cassandra", "-f"]',
    "VOLUME /var/lib/cassandra",
    "EXPOSE 7000 7001 7199 9042 9160",
)


def python_root(target: Path) -> None:
    """Write the root file system of this Python, without packages of its own, beside a shell."""
    base = Path(sys.base_prefix)
    library = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"
    program = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    with closing(RootFs(target)) as root:
        root.shell()
        root.users()
        root.for_wheels()
        root.program(base / "bin" / program, f"/usr/local/bin/{program}")
        for name in ("python", "python3"):
            root.link(f"/usr/local/bin/{name}", program)
        root.tree(base / library, f"/usr/local/{library}", lambda path: bool(_NOT_NEEDED & set(path.parts)))
        # An index may have a certificate that this machine alone trusts.
        if _CERTIFICATES.exists():
            root.file(_CERTIFICATES.resolve(), str(_CERTIFICATES))


PYTHON_CHANGES = (
    f"ENV PATH=/usr/local/bin:/usr/bin LANG=C.UTF-8 PIP_CERT={_CERTIFICATES}",
    'CMD ["python3"]',
)


def import_images(client: Any) -> None:
    """Make both images anew in the engine of a client (docker.DockerClient)."""
    for name, write, changes in ((NODE, node_root, NODE_CHANGES), (PYTHON, python_root, PYTHON_CHANGES)):
        repository, _, tag = name.partition(":")
        with tempfile.TemporaryDirectory() as directory:
            tar = Path(directory) / "root.tar"
            write(tar)
            client.api.import_image_from_file(str(tar), repository=repository, tag=tag, changes=list(changes))


def _of(name: str) -> str:
    return (_NODE_FILES / name).read_text(encoding="utf-8")


def _silent(_: str) -> None:
    """Take the progress of a download and show nothing."""
