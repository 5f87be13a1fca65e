"""A real Cassandra cluster on loopback, started from pip packages alone."""

from sandbox.cluster import Sandbox
from sandbox.errors import BusyError, SandboxError, StartError, UsageError
from sandbox.options import SandboxOptions, parse_dcs
from sandbox.status import Node, SandboxStatus

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
