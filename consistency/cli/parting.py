"""The options of a run that is split into parts, each read by a process of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from consistency.checking.part_findings import findings_beside
from consistency.cli.options import CommandT, with_options
from consistency.cluster.setting_values import ENV_PREFIX
from consistency.errors import UsageError
from consistency.model.part import Part

_RUN = "Default: CONSISTENCY_RUN, else no name."
_OPTIONS = (
    click.option(
        "--part",
        metavar="I/N",
        help="Read the I-th of N equal pieces of the ring; other processes read the others. What it read waits in "
        "--ledger for 'consistency ledger merge'; a file without --findings lies beside that. The verdict is 'part', "
        "never 'consistent'. 0/N means N/N, so that a job may count from 0. The limits on the load are those of the "
        "whole run: each part takes an N-th.",
    ),
    click.option(
        "--run", metavar="NAME", help=f"What the parts of this run call it; only parts of one name are merged. {_RUN}"
    ),
)


def part_options(command: CommandT) -> CommandT:
    """Add the options to a command; they arrive as `part` and `run`."""
    return with_options(command, _OPTIONS)


def take_part(given: dict[str, Any]) -> Part | None:
    """Return the part that is asked for, None for a whole run; refuse what a part cannot go with."""
    if given["part"] is None:
        return None
    given["run"] = given["run"] or os.environ.get(ENV_PREFIX + "RUN")
    if given["repair"]:
        raise UsageError("--repair mends what a whole check finds: merge the parts, then run: consistency repair plan")
    return Part.parse(given["part"])


def findings_of_part(part: Part, ledger: Path | None, named: str | None) -> str:
    """Return the findings file of a part: the merged report needs it."""
    if ledger is None:
        raise UsageError("--part needs --ledger FILE: what a part has read waits there for 'consistency ledger merge'")
    return named or str(findings_beside(ledger, part))
