"""What is in the cache is what was locked, or it is fetched again."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.jars import LockedJar, provide_jars, read_lock
from sandbox.versions import LOCKS, RELEASES, find_version

CONTENT = {"one": b"first jar", "two": b"second jar"}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Write a lock of two small jars."""
    path = tmp_path / "small-1.0.lock"
    lines = [f"{hashlib.sha256(body).hexdigest()} {len(body)} org.x:{name}:1.0" for name, body in CONTENT.items()]
    path.write_text("# a comment\n" + "\n".join(lines) + "\n")
    return path


class Registry:
    """Stands in for the Maven repository; counts what is fetched and may lie."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.body: dict[str, bytes] = dict(CONTENT)
        self.error: Exception | None = None

    def __call__(self, jar: LockedJar, staging: Path) -> Path:
        self.fetched.append(jar.artifact)
        if self.error:
            raise self.error
        path = staging / jar.path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.body[jar.artifact])
        return path


def provide(lock: Path, cache: Path, registry: Registry) -> tuple[Path, ...]:
    """Provide the jars without a word."""
    return provide_jars(lock, cache, lambda _: None, registry)


def test_jars_are_fetched_once(lock: Path, tmp_path: Path) -> None:
    """The second time nothing is fetched, and nothing is left of the download."""
    registry, cache = Registry(), tmp_path / "cache"
    paths = provide(lock, cache, registry)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert provide(lock, cache, registry) == paths
    assert sorted(registry.fetched) == ["one", "two"]
    assert not list(cache.glob(".staging-*"))


def test_a_tampered_jar_is_fetched_again(lock: Path, tmp_path: Path) -> None:
    """Same size, other bytes: the time of change gives it away and the sum decides."""
    registry, cache = Registry(), tmp_path / "cache"
    first, _ = provide(lock, cache, registry)
    first.write_bytes(CONTENT["one"][::-1])
    os.utime(first, ns=(1, 1))
    assert provide(lock, cache, registry)[0].read_bytes() == CONTENT["one"]
    assert sorted(registry.fetched) == ["one", "one", "two"]


def test_a_filled_cache_without_its_record_is_hashed_not_fetched(lock: Path, tmp_path: Path) -> None:
    """A cache copied from elsewhere is believed only after its sums were taken."""
    registry, cache = Registry(), tmp_path / "cache"
    provide(lock, cache, registry)
    (cache / "verified" / "small-1.0.json").write_text("{torn")
    provide(lock, cache, registry)
    assert len(registry.fetched) == 2


def test_a_download_that_is_not_what_was_locked_is_refused(lock: Path, tmp_path: Path) -> None:
    """It never reaches the cache, however often it is tried."""
    registry, cache = Registry(), tmp_path / "cache"
    registry.body["two"] = b"evil jarrr"
    with pytest.raises(SandboxError, match=r"org\.x:two:1\.0: .*sha256"):
        provide(lock, cache, registry)
    assert not list(cache.rglob("two-1.0.jar"))
    assert not list(cache.glob(".staging-*"))


def test_an_unreachable_repository_is_one_line(lock: Path, tmp_path: Path) -> None:
    """The message says what to check."""
    registry = Registry()
    registry.error = ConnectionError("<urllib3 object at 0x7f> ... \n many lines")
    with pytest.raises(SandboxError, match=r"cannot be reached \(ConnectionError\); check the network") as caught:
        provide(lock, tmp_path / "cache", registry)
    assert "\n" not in str(caught.value)


def test_two_at_once_share_one_download(lock: Path, tmp_path: Path) -> None:
    """Whoever comes second waits and finds the jars there."""
    registry, cache = Registry(), tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: provide(lock, cache, registry), range(4)))
    assert len(set(results)) == 1
    assert sorted(registry.fetched) == ["one", "two"]


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.lock")), ids=lambda path: path.stem)
def test_committed_locks_are_whole(path: Path) -> None:
    """Every line has a sum and a size, no line names a host, and no jar comes twice."""
    text = path.read_text()
    jars = read_lock(path)
    assert "//" not in text
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) and jar.size > 0 for jar in jars)
    assert len({jar.path for jar in jars}) == len(jars) > 0


def test_every_release_has_its_lock() -> None:
    """The lock names the release itself."""
    for version in RELEASES:
        coordinates = [jar.coordinates for jar in read_lock(version.lock_path)]
        assert f"org.apache.cassandra:cassandra-all:{version.release}" in coordinates


def test_a_series_means_its_newest_release_and_an_older_one_can_be_named() -> None:
    """What is started by default is what users install today."""
    newest = max((v for v in RELEASES if v.series == "5.0"), key=lambda v: [int(part) for part in v.release.split(".")])
    assert find_version("5.0") is newest
    assert find_version("5.0.8").release == "5.0.8"
    assert find_version("4.1").series == "4.1"
