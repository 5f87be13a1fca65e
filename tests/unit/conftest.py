"""Fixtures of the unit tests: commands run against a fake cluster, away from this machine's own settings."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
from click.testing import CliRunner, Result

from consistency.cli import main
from tests.unit.fake_cluster import FakeCluster, opener

# A deadline by the clock would tell, on a busy machine, of the work of others.
hypothesis.settings.register_profile("without deadlines", deadline=None)
hypothesis.settings.load_profile("without deadlines")


class Shell:
    """Runs commands against a fake cluster."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.cluster = FakeCluster().fill(20)

    def run(self, *words: str) -> Result:
        """Run one command."""
        self.patch.setattr("consistency.cluster.session.open_cluster", opener(self.cluster))
        return CliRunner().invoke(main, list(words))

    def check(self, *words: str) -> Result:
        """Run a check that does not wait for writes to settle."""
        return self.run("check", "--settle", "0", *words)


@pytest.fixture
def no_settings_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep the machine's own files and variables out, and the locks of runs in a place of their own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    for name in [n for n in os.environ if n.startswith("CONSISTENCY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, no_settings_of_this_machine: None) -> Shell:
    """Return a shell with a clean cluster."""
    return Shell(monkeypatch)
