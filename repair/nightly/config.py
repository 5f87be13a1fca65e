"""The `[repair]` table of the configuration file: what a nightly `check --repair` may do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from consistency.cluster.settings import DEFAULT_CONFIG
from consistency.errors import SettingsError
from consistency.rows.delete_search import DEFAULT_MOST_TRACES
from repair.applying.pace import DEFAULT_RATE
from repair.deciding.decide import Rule
from repair.deciding.policy import Policy, Require, Zombies

DEFAULT_MAX_ROWS = 1_000
DEFAULT_MAX_SECONDS = 3_600.0
DEFAULT_DIRECTORY = "~/.local/state/consistency/repairs"


@dataclass(frozen=True, slots=True)
class NightlyPolicy:
    """What is repaired without anyone looking: the policy, its bounds, and where the evidence of it is kept."""

    policy: Policy = field(default_factory=Policy)
    only: frozenset[Rule] = frozenset()
    max_rows: int = DEFAULT_MAX_ROWS
    max_seconds: float = DEFAULT_MAX_SECONDS
    rate: float = DEFAULT_RATE
    max_deletes: int | None = None
    """How many rows that most replicas hold may vanish in a run; None: as `repair apply` by default."""
    max_traces: int = DEFAULT_MOST_TRACES
    """Traced reads of a run that look for deletes on replicas which lack rows; 0: none."""
    directory: Path = field(default_factory=lambda: Path(DEFAULT_DIRECTORY).expanduser())

    def new_findings(self) -> Path:
        """Name a new findings file in the directory, which is made where it is not there."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            msg = f"[repair] directory {self.directory}: {error.strerror}; name one that can be written"
            raise SettingsError(msg) from None
        return self.directory / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{os.getpid()}.findings.jsonl"


_MOST = 10**9
_KINDS: Mapping[str, tuple[type, ...]] = {
    "zombies": (str,),
    "require": (str,),
    "only": (list,),
    "max_clock_skew": (int, float),
    "settle": (int, float),
    "max_rows": (int,),
    "max_seconds": (int, float),
    "rate": (int, float),
    "max_deletes": (int,),
    "max_traces": (int,),
    "directory": (str,),
}


def nightly_policy(config: Mapping[str, Any], path: str | None = None) -> NightlyPolicy:
    """Read the table; SettingsError names the entry that cannot be used."""
    source = f"--config {path or DEFAULT_CONFIG}: [repair]"
    if "repair" not in config:
        msg = f"{source} is not there: it says what may be repaired unattended; an empty [repair] allows the defaults"
        raise SettingsError(msg)
    section = config["repair"]
    if not isinstance(section, dict):
        msg = f"{source} must be a table"
        raise SettingsError(msg)
    for key, value in section.items():
        if key not in _KINDS:
            msg = f"{source} knows no {key!r}; it knows {', '.join(sorted(_KINDS))}"
            raise SettingsError(msg)
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            msg = f"{source} {key} has the wrong type"
            raise SettingsError(msg)
        if isinstance(value, int | float) and not 0 <= value <= _MOST:
            msg = f"{source} {key} must be a number from 0 to {_MOST:,}"
            raise SettingsError(msg)
    default = NightlyPolicy()
    policy = Policy(
        _one(source, "zombies", section.get("zombies", default.policy.zombies.value), Zombies),
        _one(source, "require", section.get("require", default.policy.require.value), Require),
        float(section.get("max_clock_skew", default.policy.max_skew_s)),
        float(section["settle"]) if "settle" in section else None,
    )
    if section.get("rate") == 0:
        msg = f"{source} rate must be above 0: rows begun a second"
        raise SettingsError(msg)
    return NightlyPolicy(
        policy=policy,
        only=frozenset(_one(source, "only", name, Rule) for name in section.get("only", ())),
        max_rows=section.get("max_rows", default.max_rows),
        max_seconds=float(section.get("max_seconds", default.max_seconds)),
        rate=float(section.get("rate", default.rate)),
        max_deletes=section.get("max_deletes"),
        max_traces=section.get("max_traces", default.max_traces),
        directory=_directory(source, section["directory"]) if "directory" in section else default.directory,
    )


def _directory(source: str, text: str) -> Path:
    try:
        if "\0" in text:
            raise ValueError(text)
        return Path(text).expanduser()
    except (RuntimeError, ValueError):
        msg = f"{source} directory is not a path that can be used; name a directory that can be written"
        raise SettingsError(msg) from None


def _one(source: str, key: str, value: object, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        msg = f"{source} {key} knows no {value!r}; it knows {', '.join(each.value for each in kind)}"
        raise SettingsError(msg) from None
