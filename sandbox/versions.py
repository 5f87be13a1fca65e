"""The Cassandra releases a sandbox can run, each pinned; a series means its newest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import UsageError

LOCKS = Path(__file__).parent / "locks"


@dataclass(frozen=True)
class CassandraVersion:
    """One pinned release, and which Java runs it."""

    series: str
    release: str
    java: int
    accepts_java: tuple[int, ...]

    @property
    def lock_path(self) -> Path:
        """The committed list of jars with their sha256 sums."""
        return LOCKS / f"cassandra-{self.release}.lock"

    @property
    def has_unit_suffixes(self) -> bool:
        """Whether cassandra.yaml spells durations and sizes with their unit (4.1 and later)."""
        return self.series != "4.0"


RELEASES = (
    CassandraVersion("5.0", "5.0.9", java=17, accepts_java=(11, 17)),
    CassandraVersion("5.0", "5.0.8", java=17, accepts_java=(11, 17)),
    CassandraVersion("4.1", "4.1.10", java=11, accepts_java=(11,)),
    CassandraVersion("4.0", "4.0.19", java=11, accepts_java=(11,)),
)
"""Every release that can be started, the newest of each series first."""
SERIES = {name: next(v for v in RELEASES if v.series == name) for name in dict.fromkeys(v.series for v in RELEASES)}
"""The newest release of each series."""


def find_version(name: str) -> CassandraVersion:
    """Look up a series ("5.0"), which means its newest release, or one of its releases ("5.0.8")."""
    for version in RELEASES:
        if name in (version.series, version.release):
            return version
    known = ", ".join(f"{v.release} ({v.series})" if v is SERIES[v.series] else v.release for v in RELEASES)
    msg = f"--cassandra {name}: not one of {known}"
    raise UsageError(msg)
