"""Build consistency.pyz: one file with all that it needs, for every Python of this kind of machine. `make dist`.

Pex takes a wheel of each package for each version of Python that it is told of; compiled packages have one for each.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.markers import default_environment
from packaging.tags import compatible_tags, cpython_tags, platform_tags

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "pyz.txt"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""Of a newer one the lock may have no wheel yet."""
_GLIBC = re.compile(r"manylinux_2_(\d+)_")
_NEWEST_GLIBC = 28
"""Wheels that need a newer C library would not run on the machines of today's long-term distributions."""


def complete_platform(version: str) -> dict[str, object]:
    """Return a Python of this machine's kind as pex wants it told: markers and the tags of fitting wheels."""
    major, minor = (int(part) for part in version.split("."))
    kinds = [tag for tag in platform_tags() if not (found := _GLIBC.match(tag)) or int(found[1]) <= _NEWEST_GLIBC]
    tags = [
        *cpython_tags((major, minor), platforms=kinds),
        *compatible_tags((major, minor), f"cp{major}{minor}", platforms=kinds),
    ]
    markers = {
        **default_environment(),
        "python_version": version,
        "python_full_version": f"{version}.0",
        "implementation_version": f"{version}.0",
    }
    return {"marker_environment": markers, "compatible_tags": [str(tag) for tag in tags]}


def build(wheel: Path, target: Path, pythons: Sequence[str]) -> None:
    """Build the file from our wheel and what the lock names."""
    with tempfile.TemporaryDirectory() as folder:
        options: list[str] = []
        for version in pythons:
            told = Path(folder) / f"{version}.json"
            told.write_text(json.dumps(complete_platform(version)))
            options += ["--complete-platform", str(told)]
        sources = Path(folder) / "sources"
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(sources, [name for name in packed.namelist() if ".data/" not in name])
        options += ["--sources-directory", str(sources), "--requirement", str(LOCK), "--no-build"]
        options += ["--no-pre-install-wheels", "--entry-point", "consistency"]
        # Its first line finds any Python 3; pex then looks for one that it has wheels for.
        options += ["--python-shebang", "/usr/bin/env python3", "--output-file", str(target)]
        subprocess.run([sys.executable, "-m", "pex", *options], check=True)


def main() -> None:
    """Take the wheel, the target and the versions of Python from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--python", action="append", choices=PYTHONS, help="leave out for all")
    given = parser.parse_args()
    if platform.python_implementation() != "CPython":
        sys.exit("the wheels are those of CPython: build with it")
    build(given.wheel, given.target, given.python or PYTHONS)


if __name__ == "__main__":
    main()
