"""Our only Java class, without which nodetool cannot find its node.

nodetool looks its node up by an RMI name, and the Java runtime in the wheel lacks the module that resolves such
names (jdk.naming.rmi). It also lacks a compiler, so a compiler in a jar compiles the class once.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.errors import SandboxError
from sandbox.jars import provide_jars
from sandbox.process import run
from sandbox.versions import LOCKS

if TYPE_CHECKING:
    from sandbox.cache import Progress

SOURCE = Path(__file__).with_name("RegistryContextFactory.java")
FACTORY = SOURCE.stem
COMPILER = "org.eclipse.jdt.internal.compiler.batch.Main"
COMPILER_LOCK = LOCKS / "ecj-3.33.0.lock"
# The oldest Java that a sandbox runs on.
LEVEL = "11"


def provide_naming(java: Path, cache: Path, progress: Progress) -> Path:
    """Return the directory that holds the compiled class."""
    target = cache / "classes" / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    if (target / f"{FACTORY}.class").is_file():
        return target
    (compiler,) = provide_jars(COMPILER_LOCK, cache, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))
    command = [str(java), "-cp", str(compiler), COMPILER, "-source", LEVEL, "-target", LEVEL]
    try:
        done = run([*command, "-d", str(staging), str(SOURCE)])
        if done.returncode != 0:
            msg = f"{SOURCE.name} could not be compiled: {' '.join(done.stderr.split())[:300]}"
            raise SandboxError(msg)
        if not (target / f"{FACTORY}.class").is_file():  # another process may have been faster
            shutil.rmtree(target, ignore_errors=True)
            staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target
