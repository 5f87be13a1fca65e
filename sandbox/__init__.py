"""A real Cassandra cluster on loopback, started from pip packages alone."""

from sandbox.cluster import Node, Sandbox, SandboxStatus
from sandbox.errors import BusyError, SandboxError, StartError, UsageError
from sandbox.options import SandboxOptions, parse_dcs

__all__ = [
    "BusyError",
    "Node",
    "Sandbox",
    "SandboxError",
    "SandboxOptions",
    "SandboxStatus",
    "StartError",
    "UsageError",
    "parse_dcs",
]
