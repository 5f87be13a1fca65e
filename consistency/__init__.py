"""Prove that the replicas of a Cassandra cluster hold the same rows.

As a library: `from consistency import audit, check, preflight`; see `consistency.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consistency.api import audit, check, preflight

__version__ = "0.1.0"

__all__ = ["__version__", "audit", "check", "preflight"]


def __getattr__(name: str) -> Any:
    """Load the library's functions on first use, so that importing the package does not load the driver."""
    if name in {"audit", "check", "preflight"}:
        from consistency import api  # noqa: PLC0415 - that is the point

        return getattr(api, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
