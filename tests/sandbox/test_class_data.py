"""Class data: listed by one start, made once, used by every start after it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sandbox.class_data import ATTEMPT_S, ClassData

_JAVA = """#!/bin/sh
for word in "$@"; do
    case "$word" in
        -XX:SharedClassListFile=*) list="${word#*=}" ;;
        -XX:SharedArchiveFile=*) archive="${word#*=}" ;;
    esac
done
cp "$list" "$archive"
"""
"""Makes an archive that is the list it was made from."""


@pytest.fixture
def java(tmp_path: Path) -> Path:
    """Return a program that is called as Java is."""
    path = tmp_path / "java"
    path.write_text(_JAVA)
    path.chmod(0o755)
    return path


@pytest.fixture
def data(java: Path, tmp_path: Path) -> ClassData:
    """Return the archive of two jars, not made yet."""
    return ClassData.of(java, (tmp_path / "a.jar", tmp_path / "b.jar"), tmp_path / "cache")


def listed_in(flags: list[str]) -> Path:
    """Return the file that a node with these flags lists its classes in."""
    (flag,) = flags
    return Path(flag.removeprefix("-XX:DumpLoadedClassList="))


def test_one_start_lists_and_the_next_ones_use_the_archive(data: ClassData) -> None:
    """The second start meanwhile neither lists nor waits; half a line of a node that still lists is left out."""
    assert data.flags == []
    path = listed_in(data.listing())
    assert data.listing() == []
    path.write_text("java/lang/Object id: 0\njava/lang/Str")
    data.make(["--add-opens=x"])
    deadline = time.monotonic() + 30
    while not data.flags:
        assert time.monotonic() < deadline, "no archive"
        time.sleep(0.02)
    assert data.flags == [f"-XX:SharedArchiveFile={data.archive}"]
    assert data.archive.read_text() == "java/lang/Object id: 0\n"
    assert data.listing() == []


def test_a_list_that_never_became_an_archive_is_made_again(data: ClassData) -> None:
    """A start that failed, or a machine that went down meanwhile, costs a while and no more."""
    path = listed_in(data.listing())
    long_ago = time.time() - ATTEMPT_S - 1
    os.utime(path, (long_ago, long_ago))
    assert listed_in(data.listing()) == path


def test_another_java_and_other_jars_have_archives_of_their_own(data: ClassData, java: Path, tmp_path: Path) -> None:
    """What was made from other files is never offered."""
    assert ClassData.of(java, data.jars[:1], tmp_path / "cache").archive != data.archive
    os.utime(java, (0, 0))
    assert ClassData.of(java, data.jars, tmp_path / "cache").archive != data.archive


def test_a_cache_that_cannot_be_written_to_costs_no_start(java: Path, tmp_path: Path) -> None:
    """Jars may be there all the same: the node starts without a list."""
    (tmp_path / "cache").write_text("no directory")
    assert ClassData.of(java, (), tmp_path / "cache").listing() == []
