"""Repair exactly the rows that a check found to differ: evidence, decision, action, proof, and a way back.

As a library: `from repair import plan, apply`; see `repair.run`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repair.run import apply, plan

__all__ = ["apply", "plan"]


def __getattr__(name: str) -> Any:
    """Load the library's functions on first use, so that importing the package does not load the driver."""
    if name in __all__:
        return getattr(importlib.import_module("repair.run"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
