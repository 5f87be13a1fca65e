"""The files around the code agree with it and with each other."""

from __future__ import annotations

import os
import re
import sys
from itertools import chain
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from consistency import __version__
from tests.house.source import ROOT, listed, text_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOCK = "requirements/dev.txt"
SMALLER = ("requirements/demo.txt", "requirements/pyz.txt")
"""What `make demo` installs, and what consistency.pyz holds."""
OLDEST = "requirements/oldest.txt"
"""The oldest versions that are allowed."""


def declared() -> list[Requirement]:
    """Return what is asked for by name: to run, for every extra, and to build."""
    project = tomllib.loads(text_of("pyproject.toml"))
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]
    lines = [*project["project"]["dependencies"], *project["build-system"]["requires"], *chain(*extras.values())]
    lines += re.findall(r"^[^#\s].*", text_of("requirements", "build.in"), re.MULTILINE)
    return [Requirement(line) for line in lines]


def locked(lock: str = LOCK) -> dict[str, list[tuple[Requirement, str]]]:
    """Return every pin by package name, with the text that follows it up to the next one."""
    pins: dict[str, list[tuple[Requirement, str]]] = {}
    for block in re.split(r"^(?=[a-z0-9])", text_of(lock), flags=re.MULTILINE | re.IGNORECASE)[1:]:
        requirement = Requirement(block.splitlines()[0].rstrip(" \\"))
        pins.setdefault(canonicalize_name(requirement.name), []).append((requirement, block))
    return pins


def test_the_lock_satisfies_what_is_declared() -> None:
    """A dependency that was added or raised without `make lock` is found here."""
    pins = locked()
    found = [
        f"{wanted} is pinned as {[str(pin.specifier) for pin, _ in pins.get(canonicalize_name(wanted.name), [])]}"
        for wanted in declared()
        if not (mine := pins.get(canonicalize_name(wanted.name)))
        or not all(wanted.specifier.contains(str(pin.specifier).removeprefix("==")) for pin, _ in mine)
    ]
    assert not found, listed(found, "run: make lock")


@pytest.mark.parametrize("lock", [LOCK, *SMALLER, OLDEST])
def test_every_pin_has_hashes_and_no_origin(lock: str) -> None:
    """A lock says what is installed, never from where."""
    found = [str(pin) for pins in locked(lock).values() for pin, block in pins if "--hash=sha256:" not in block]
    found += [
        line
        for line in text_of(lock).splitlines()
        if "://" in line or " @ " in line or re.match(r"\s*(?:-[a-z]|--(?!hash=sha256:))", line)
    ]
    assert not found, listed(found, "run: make lock")


def test_the_oldest_versions_that_are_allowed_are_those_that_are_tried() -> None:
    """A bound that was raised without `make lock` is found here."""
    pins = locked(OLDEST)
    project = tomllib.loads(text_of("pyproject.toml"))["project"]["dependencies"]
    found = []
    for wanted in (Requirement(line) for line in project):
        (bound,) = (Version(spec.version).release for spec in wanted.specifier if spec.operator == ">=")
        tried = [Version(str(pin.specifier).removeprefix("==")) for pin, _ in pins[canonicalize_name(wanted.name)]]
        if not any(version.release[: len(bound)] == bound for version in tried):
            found.append(f"{wanted}: {[str(v) for v in tried]}")
    assert not found, listed(found, "run: make lock")


@pytest.mark.parametrize("lock", SMALLER)
def test_a_smaller_lock_has_the_same_versions_and_nothing_of_the_tests(lock: str) -> None:
    """What is demonstrated and carried about is what is tested."""
    known = {(name, str(pin.specifier)) for name, pins in locked().items() for pin, _ in pins}
    pins = locked(lock)
    found = [str(pin) for name, some in pins.items() for pin, _ in some if (name, str(pin.specifier)) not in known]
    assert not found, listed(found, "run: make lock")
    needed = tomllib.loads(text_of("pyproject.toml"))["project"]["dependencies"]
    assert {canonicalize_name(Requirement(line).name) for line in needed} <= set(pins)
    assert not {"pytest", "mypy", "ruff", "playwright", "hypothesis"} & set(pins)


def test_every_dependency_has_a_reason() -> None:
    """docs/dependencies.md says why each one is here, under its name in backquotes."""
    page = text_of("docs", "dependencies.md")
    found = sorted({wanted.name for wanted in declared() if f"`{wanted.name}`" not in page})
    assert not found, listed(found, "add a line to docs/dependencies.md, or do without:")


def test_the_changelog_knows_this_version() -> None:
    """What users get is written down before they get it."""
    headings = re.findall(r"^## \[?([^\]\s]+)", text_of("CHANGELOG.md"), re.MULTILINE)
    assert {"Unreleased", __version__} & set(headings), f"add '## Unreleased' or '## {__version__}' to CHANGELOG.md"


def test_the_readme_is_short() -> None:
    """What does not fit is a page of its own in docs/."""
    assert len(text_of("README.md").splitlines()) <= 130


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """What a reader is told to run is what is run for every change."""
    assert re.search(r"^\s*(?:\$ )?make test\b", text_of("README.md"), re.MULTILINE), "README.md must say: make test"
    assert "\nmake test\n" in text_of(".ci", "run"), ".ci/run must run exactly: make test"
    assert os.access(ROOT / ".ci" / "run", os.X_OK), ".ci/run must be executable"


def test_every_promise_names_a_test_that_exists() -> None:
    """docs/reliability.md is a table of promises; each of its rows ends with a test of tests/."""
    rows = re.findall(r"^\| (?!promise|---)(.+) \|$", text_of("docs", "reliability.md"), re.MULTILINE)
    names = {path.name for path in (ROOT / "tests").rglob("*.py")}
    found = [row for row in rows if not (tests := re.findall(r"(\w+\.py)`", row)) or not set(tests) <= names]
    assert rows
    assert not found, listed(found, "name the test that proves it, by its file:")


def test_every_file_with_long_variants_is_in_make_soak() -> None:
    """What `make test` leaves out is run by somebody."""
    makefile = text_of("Makefile")
    soak = makefile[makefile.index("\nLONG :=") : makefile.index("\nmutants:")]
    switches = re.compile(
        r"^from tests\.support\.(?:figures import .*(?:LONG|SOAK)|modes import .*PAIRS)", re.MULTILINE
    )
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if switches.search(path.read_text("utf-8"))]
    found = [path.name for path in files if not re.search(rf"(?:test|\b)_?{path.stem.removeprefix('test_')}\b", soak)]
    assert len(files) > 5
    assert not found, listed(found, "name it in the soak target of the Makefile")


def test_every_make_target_that_is_named_exists() -> None:
    """A page that names a chore names one that is there."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", text_of("Makefile"), re.MULTILINE))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    found = [
        f"{page.relative_to(ROOT)}: make {name}"
        for page in pages
        for name in re.findall(r"(?:`|^\s+(?:\$ )?)make ([a-z][a-z-]*)", page.read_text("utf-8"), re.MULTILINE)
        if name not in targets
    ]
    assert not found, listed(found, "the Makefile has no such target:")


def test_the_compose_file_describes_three_nodes_that_allow_node_local() -> None:
    """Every Cassandra of docker-compose.yml can be checked, and is waited for by its health."""
    compose: dict[str, Any] = yaml.safe_load(text_of("docker-compose.yml"))
    nodes = {name: s for name, s in compose["services"].items() if str(s.get("image", "")).startswith("cassandra:")}
    assert len(nodes) >= 3
    for name, service in nodes.items():
        assert "-Dcassandra.enable_nodelocal_queries=true" in service["environment"]["JVM_EXTRA_OPTS"], name
        assert service["healthcheck"]["test"], name
