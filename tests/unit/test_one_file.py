"""consistency.pyz: what `make dist` built runs without network and without a package, on each Python that is here."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "dist" / "consistency.pyz"
needs_it = pytest.mark.skipif(not BUILT.is_file(), reason="there is no dist/consistency.pyz: make dist")


def onefile() -> ModuleType:
    """Load deploy/onefile.py, which is no module of ours."""
    spec = importlib.util.spec_from_file_location("onefile", ROOT / "deploy" / "onefile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", onefile().PYTHONS)
def test_each_python_is_told_with_the_wheels_that_fit_it(version: str) -> None:
    """Its own compiled ones before pure ones; none of another version, and none for a newer C library."""
    told = onefile().complete_platform(version)
    nodot = version.replace(".", "")
    tags = told["compatible_tags"]
    assert tags[0].startswith(f"cp{nodot}-cp{nodot}-")
    assert "py3-none-any" in tags
    assert not [tag for tag in tags if tag.split("-")[1].startswith("cp3") and f"-cp{nodot}-" not in tag]
    assert not [tag for tag in tags if "manylinux_2_3" in tag]
    markers = told["marker_environment"]
    assert (markers["python_version"], markers["python_full_version"]) == (version, f"{version}.0")
    json.dumps(told)


def pythons() -> list[str]:
    """Return the oldest and the newest Python on this machine of those that the file is for."""
    found = []
    for version in onefile().PYTHONS:
        # Before pyenv's shims, which need pyenv.
        places = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
        found += [str(place) for place in places if place][:1]
    return list(dict.fromkeys((found[0], found[-1]))) if found else [sys.executable]


@pytest.fixture(scope="module", params=pythons())
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A Python without our packages, and a directory where the file may unpack itself; no network where that can be."""
    home = tmp_path_factory.mktemp("home")
    alone = ["unshare", "--map-root-user", "--net"]
    offline = subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    bare = ["env", "-i", f"HOME={home}", f"PEX_ROOT={home}/pex", "PATH=/usr/bin:/bin"]
    return [*(alone if offline else []), *bare, request.param, str(BUILT)]


def run(python: list[str], *words: str) -> tuple[int, str]:
    """Return exit code and what is printed."""
    done = subprocess.run([*python, *words], cwd="/", capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


@needs_it
def test_it_runs_on_a_bare_python_without_network(python: list[str]) -> None:
    """A check reaches for the cluster, with the driver; repair and browse read a file; nothing is missing."""
    assert run(python, "--version")[0] == 0
    code, said = run(python, "check", "--hosts", "127.0.0.1:1")
    assert (code, "no node answers at 127.0.0.1:1" in said) == (4, True), said
    code, said = run(python, "repair", "plan", "/no/such/file", "-o", "/no/plan")
    assert (code, "/no" in said) == (2, True), said
    code, said = run(python, "browse", "/no/such/file")
    assert (code, "needs more packages" in said) == (2, False), said
    code, said = run(python, "repair", "--help")
    assert (code, "apply" in said) == (0, True)
    code, said = run(python, "watch", "--listen", "nowhere")
    assert (code, "HOST:PORT" in said) == (2, True), said


@needs_it
def test_its_size_is_bounded() -> None:
    """It is carried over slow lines; the sandbox, its Java and the tests' packages are not in it."""
    assert 20e6 < BUILT.stat().st_size < 130e6
    assert os.access(BUILT, os.X_OK)
