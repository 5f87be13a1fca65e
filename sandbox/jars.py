"""Cassandra's jars: the committed lock, the download, and the proof that the files on disk match the lock.

The lock makes resolution unnecessary: every jar is fetched by its coordinates and must have its sha256 sum.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from sandbox.cache import Progress, exclusive
from sandbox.errors import SandboxError

DOWNLOADS_AT_ONCE = 8
ATTEMPTS = 3
READ_TIMEOUT_S = 60


@dataclass(frozen=True)
class LockedJar:
    """One line of a lock."""

    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str
    size: int

    @property
    def coordinates(self) -> str:
        """How error messages and jgo name it."""
        tail = f":{self.classifier}" if self.classifier else ""
        return f"{self.group}:{self.artifact}:{self.version}{tail}"

    @property
    def path(self) -> Path:
        """Its path in the jar directory, in Maven's own layout, so that releases share jars."""
        tail = f"-{self.classifier}" if self.classifier else ""
        folder = Path(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}{tail}.jar"


Fetch = Callable[[LockedJar, Path], Path]


def read_lock(path: Path) -> tuple[LockedJar, ...]:
    """Read a committed lock."""
    jars = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            sha256, size, coordinates = line.split()
            group, artifact, version, *rest = coordinates.split(":")
            jars.append(LockedJar(group, artifact, version, rest[1] if rest else "", sha256, int(size)))
    return tuple(jars)


def provide_jars(lock: Path, cache: Path, progress: Progress, fetch: Fetch | None = None) -> tuple[Path, ...]:
    """Return the class path of a lock; download and verify what the cache lacks or holds damaged."""
    locked = read_lock(lock)
    store = JarStore(cache, lock.stem)
    if not store.missing(locked):
        return store.paths(locked)
    with exclusive(cache / "jars.lock", waiting=lambda: progress("waiting for another download to finish")):
        missing = store.missing(locked)
        if missing:
            _download(missing, store, progress, fetch or _fetch_with_jgo)
            still_missing = store.missing(locked)
            if still_missing:
                names = ", ".join(jar.coordinates for jar in still_missing)
                msg = f"cache {cache}: changed while it was filled ({names})"
                raise SandboxError(msg)
    return store.paths(locked)


class JarStore:
    """The jars of one lock in the cache, with a record of the verified ones."""

    def __init__(self, cache: Path, name: str) -> None:
        self.name = name
        self.root = cache / "jars"
        self._record_path = cache / "verified" / f"{name}.json"

    def paths(self, locked: Iterable[LockedJar]) -> tuple[Path, ...]:
        """Return the paths of the jars."""
        return tuple(self.root / jar.path for jar in locked)

    def missing(self, locked: Iterable[LockedJar]) -> list[LockedJar]:
        """Return the jars that are missing or differ from the lock.

        A jar is hashed once; afterwards its size and modification time stand for its sum.
        """
        record = self._read_record()
        verified: dict[str, list[object]] = {}
        missing = []
        for jar in locked:
            path = self.root / jar.path
            stamp = _stamp(path, jar)
            if stamp is not None and (record.get(str(jar.path)) == stamp or sha256_of(path) == jar.sha256):
                verified[str(jar.path)] = stamp
            else:
                missing.append(jar)
        if verified != record:
            self._write_record(verified)
        return missing

    def _read_record(self) -> dict[str, list[object]]:
        try:
            record = json.loads(self._record_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # a lost or torn record costs one round of hashing
        return record if isinstance(record, dict) else {}

    def _write_record(self, verified: dict[str, list[object]]) -> None:
        self._record_path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=self._record_path.parent, prefix=".record-", delete=False, encoding="utf-8"
        ) as handle:
            json.dump(verified, handle)
        Path(handle.name).replace(self._record_path)


def sha256_of(path: Path) -> str:
    """Hash a file."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _stamp(path: Path, jar: LockedJar) -> list[object] | None:
    """Return the record of an intact jar, or None if its size already rules it out."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [jar.sha256, stat.st_size, stat.st_mtime_ns] if stat.st_size == jar.size else None


def _download(missing: list[LockedJar], store: JarStore, progress: Progress, fetch: Fetch) -> None:
    root = store.root
    root.mkdir(parents=True, exist_ok=True)
    total_mb = sum(jar.size for jar in missing) / 1e6
    progress(f"downloading {store.name}: {len(missing)} jars, {total_mb:.0f} MB")
    # On the file system of the cache, so that the last step is a rename.
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=root.parent))
    pool = ThreadPoolExecutor(DOWNLOADS_AT_ONCE)
    try:
        waiting = {pool.submit(_fetch_verified, jar, staging / str(i), fetch): jar for i, jar in enumerate(missing)}
        done_mb, shown_tenths = 0.0, 0
        for future in as_completed(waiting):
            jar = waiting[future]
            target = root / jar.path
            target.parent.mkdir(parents=True, exist_ok=True)
            future.result().replace(target)
            done_mb += jar.size / 1e6
            if int(10 * done_mb / total_mb) > shown_tenths:
                shown_tenths = int(10 * done_mb / total_mb)
                progress(f"downloading {store.name}: {done_mb:.0f} of {total_mb:.0f} MB")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(staging, ignore_errors=True)


def _fetch_verified(jar: LockedJar, staging: Path, fetch: Fetch) -> Path:
    problem = ""
    for attempt in range(ATTEMPTS):
        try:
            path = fetch(jar, staging / str(attempt))
        except OSError as error:  # what `requests` raises is an OSError
            problem = f"the Maven repository cannot be reached ({_short(error)}); check the network or the proxy"
            continue
        except RuntimeError:
            msg = f"{jar.coordinates}: the Maven repository does not hold it"
            raise SandboxError(msg) from None
        if sha256_of(path) == jar.sha256:
            return path
        problem = "what was downloaded does not have the locked sha256 sum"
    msg = f"{jar.coordinates}: {problem}"
    raise SandboxError(msg)


def _short(error: OSError) -> str:
    """Name the kind of failure, because the text of a connection error has several lines."""
    return error.strerror or type(error).__name__


def _fetch_with_jgo(jar: LockedJar, staging: Path) -> Path:
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - an extra
        from jgo.maven import MavenContext  # noqa: PLC0415 - an extra
    except ImportError:
        raise SandboxError("jgo is missing: pip install 'cassandra-consistency[sandbox]'") from None
    mirrors = GlobalSettings.load().repositories
    context = MavenContext(repo_cache=staging, timeout=READ_TIMEOUT_S, **({"remote_repos": mirrors} if mirrors else {}))
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    return Path(component.artifact(jar.classifier, "jar").resolve())
