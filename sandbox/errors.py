"""What can go wrong, and the exit code each kind ends with.

SandboxError (4: could not run)
├── UsageError (2: an option is wrong)
├── StartError (4: a node did not come up; names its log)
└── BusyError (4: another command holds the same directory)
"""

from __future__ import annotations


class SandboxError(Exception):
    """The sandbox could not do what was asked; the message is one line with the remedy."""

    exit_code = 4


class UsageError(SandboxError):
    """An option, or a combination of options, cannot be used."""

    exit_code = 2


class StartError(SandboxError):
    """A node did not come up."""


class BusyError(SandboxError):
    """Another sandbox command uses the same directory."""
