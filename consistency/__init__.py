"""Prove that the replicas of a Cassandra cluster hold the same rows.

As a library, everything that is named here is stable: `check`, `begin_check`, `compare`, `audit` and `preflight` do
what the commands do, the rest is what goes into them and comes out. Importing the package loads no driver; using a name
does. Every error is a `ConsistencyError`: one line that says the way out, without a key, a value or a secret.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consistency.api import AuditReport, audit, begin_check, check, compare, connection_settings, preflight
    from consistency.auditing.preflight import Answer, Preflight
    from consistency.auditing.preflight_facts import PreflightOptions
    from consistency.background import RunningCheck
    from consistency.checking.observer import Observer, Progress, Silent
    from consistency.checking.sampling import Sample
    from consistency.checking.tasks import CheckOptions
    from consistency.cluster.pinned import ReadLimits
    from consistency.cluster.settings import ConnectionSettings
    from consistency.cluster.throttle import Politeness
    from consistency.cluster.tls import TlsSettings, WeakTlsWarning
    from consistency.comparing.preparing import CompareOptions, Read
    from consistency.comparing.terms import Compare
    from consistency.errors import (
        ConnectError,
        ConsistencyError,
        LedgerError,
        LockedError,
        ReplicaError,
        SchemaError,
        SettingsError,
        TopologyError,
        UsageError,
    )
    from consistency.model.part import Part
    from consistency.model.reading import Depth, Locality, Route
    from consistency.model.sides import Side
    from consistency.results.comparison import ComparedTable, Comparison
    from consistency.results.findings import Finding, ReplicaView, State, read_findings, read_ranges
    from consistency.results.kinds import Kind
    from consistency.results.pair_findings import InnerFinding, PairFinding, PairKind, PairRange, read_compared
    from consistency.results.range_findings import RangeFinding, RangeView
    from consistency.results.report import Report, Severity, TableReport, Unread, Violation
    from consistency.results.sample import Bound, fewer_than
    from consistency.results.verdict import Coverage, ExitCode, Verdict

__version__ = "0.1.0"

_FROM = {
    "cluster.pinned": ("ReadLimits",),
    "api": ("AuditReport", "audit", "begin_check", "check", "compare", "connection_settings", "preflight"),
    "comparing.preparing": ("CompareOptions", "Read"),
    "comparing.terms": ("Compare",),
    "checking.sampling": ("Sample",),
    "checking.tasks": ("CheckOptions",),
    "errors": (
        "ConnectError",
        "ConsistencyError",
        "LedgerError",
        "LockedError",
        "ReplicaError",
        "SchemaError",
        "SettingsError",
        "TopologyError",
        "UsageError",
    ),
    "results.findings": ("Finding", "ReplicaView", "State", "read_findings", "read_ranges"),
    "results.kinds": ("Kind",),
    "results.comparison": ("ComparedTable", "Comparison"),
    "results.pair_findings": ("InnerFinding", "PairFinding", "PairKind", "PairRange", "read_compared"),
    "results.range_findings": ("RangeFinding", "RangeView"),
    "checking.observer": ("Observer", "Progress", "Silent"),
    "model.part": ("Part",),
    "model.sides": ("Side",),
    "model.reading": ("Depth", "Locality", "Route"),
    "results.report": ("Report", "Severity", "TableReport", "Unread", "Violation"),
    "background": ("RunningCheck",),
    "cluster.settings": ("ConnectionSettings",),
    "auditing.preflight": ("Answer", "Preflight"),
    "auditing.preflight_facts": ("PreflightOptions",),
    "cluster.throttle": ("Politeness",),
    "cluster.tls": ("TlsSettings", "WeakTlsWarning"),
    "results.sample": ("Bound", "fewer_than"),
    "results.verdict": ("Coverage", "ExitCode", "Verdict"),
}
"""Which module each name is loaded from when it is first used."""

__all__ = [
    "Answer",
    "AuditReport",
    "Bound",
    "CheckOptions",
    "Compare",
    "CompareOptions",
    "ComparedTable",
    "Comparison",
    "ConnectError",
    "ConnectionSettings",
    "ConsistencyError",
    "Coverage",
    "Depth",
    "ExitCode",
    "Finding",
    "InnerFinding",
    "Kind",
    "LedgerError",
    "Locality",
    "LockedError",
    "Observer",
    "PairFinding",
    "PairKind",
    "PairRange",
    "Part",
    "Politeness",
    "Preflight",
    "PreflightOptions",
    "Progress",
    "RangeFinding",
    "RangeView",
    "Read",
    "ReadLimits",
    "ReplicaError",
    "ReplicaView",
    "Report",
    "Route",
    "RunningCheck",
    "Sample",
    "SchemaError",
    "SettingsError",
    "Severity",
    "Side",
    "Silent",
    "State",
    "TableReport",
    "TlsSettings",
    "TopologyError",
    "Unread",
    "UsageError",
    "Verdict",
    "Violation",
    "WeakTlsWarning",
    "__version__",
    "audit",
    "begin_check",
    "check",
    "compare",
    "connection_settings",
    "fewer_than",
    "preflight",
    "read_compared",
    "read_findings",
    "read_ranges",
]


def __getattr__(name: str) -> Any:
    """Load a name on first use, so that importing the package does not load the driver."""
    for module, names in _FROM.items():
        if name in names:
            return getattr(importlib.import_module(f"consistency.{module}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
