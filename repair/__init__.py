"""Repair exactly the rows that a check found to differ: evidence, decision, action, proof, and a way back.

As a library, everything that is named here is stable: `plan`, `apply` and `resume` do what the commands do,
`sync_plan`, `sync_apply` and `sync_resume` the same of two clusters, the rest is what goes into them and comes out.
Errors are those of `consistency`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repair.api import apply, plan, resume
    from repair.applying.guard import PlanRefused
    from repair.applying.outcomes import Tally
    from repair.applying.pace import ApplyOptions
    from repair.deciding.decide import Action, Rule
    from repair.deciding.policy import Policy, Require, Zombies
    from repair.keeping.entries import Result
    from repair.keeping.planfile import Plan, PlannedRow, read_plan, write_plan
    from repair.planning.planner import PlanOptions
    from repair.sync.api import sync_apply, sync_plan, sync_resume
    from repair.sync.planfile import SyncPlan, read_sync_plan
    from repair.sync.planner import SyncOptions
    from repair.sync.policy import Direction, Extra, Level
    from repair.sync.run import SyncApplyOptions

_FROM = {
    "api": ("apply", "plan", "resume"),
    "deciding.decide": ("Action", "Rule"),
    "applying.guard": ("PlanRefused",),
    "keeping.entries": ("Result",),
    "applying.outcomes": ("Tally",),
    "applying.pace": ("ApplyOptions",),
    "keeping.planfile": ("Plan", "PlannedRow", "read_plan", "write_plan"),
    "planning.planner": ("PlanOptions",),
    "deciding.policy": ("Policy", "Require", "Zombies"),
    "sync.api": ("sync_apply", "sync_plan", "sync_resume"),
    "sync.planfile": ("SyncPlan", "read_sync_plan"),
    "sync.planner": ("SyncOptions",),
    "sync.policy": ("Direction", "Extra", "Level"),
    "sync.run": ("SyncApplyOptions",),
}
"""Which module each name is loaded from when it is first used."""

__all__ = [
    "Action",
    "ApplyOptions",
    "Direction",
    "Extra",
    "Level",
    "Plan",
    "PlanOptions",
    "PlanRefused",
    "PlannedRow",
    "Policy",
    "Require",
    "Result",
    "Rule",
    "SyncApplyOptions",
    "SyncOptions",
    "SyncPlan",
    "Tally",
    "Zombies",
    "apply",
    "plan",
    "read_plan",
    "read_sync_plan",
    "resume",
    "sync_apply",
    "sync_plan",
    "sync_resume",
    "write_plan",
]


def __getattr__(name: str) -> Any:
    """Load a name on first use, so that importing the package does not load the driver."""
    for module, names in _FROM.items():
        if name in names:
            return getattr(importlib.import_module(f"repair.{module}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
