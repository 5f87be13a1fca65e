"""Everything this project raises on purpose, and the exit code each one means.

    ConsistencyError                     4  could not run
    |-- UsageError                       2  an option, file or name the operator gave is wrong
    |   `-- SettingsError                2  a configuration file or environment variable is wrong
    |-- ConnectError                     4  no node answered, or none let us in
    |-- TopologyError                    4  the ring cannot be read or makes no sense
    |-- SchemaError                      4  a table cannot be read from system_schema
    |-- LockedError                      5  another run holds the lock
    |-- LedgerError                      3  there is no ledger, or it is damaged: nothing counts as checked
    |-- ReplicaError                     3  one replica did not answer one question; what it covers is unknown
    |   |-- ReplicaUnavailable           3  the node does not answer, or refused the connection
    |   |   |-- TooFewReplicas           3  the node knows too few live replicas for the request
    |   |   `-- WrongNode                3  another node answers at this node's address
    |   |-- ReplicaTimeout               3  no answer in time: split the range, then give up
    |   |-- ReplicaOverloaded            3  the node asked for less work
    |   |-- ReplicaRefused               3  the node does not accept the statement
    |   |   |-- PageTooLarge             3  a guardrail forbids pages of so many rows
    |   |   |-- LevelForbidden           3  a guardrail forbids the consistency level
    |   |   `-- ReplicaForbidden         3  our role may not read this
    |   |-- TooMuchToScan                3  tombstones or size limits stopped the read: split the range
    |   `-- NotProvenLocal               3  nothing proves that the answer comes from that replica alone
    `-- InternalError                    4  a postcondition of our own failed; nothing it touched is believed

A message is one line, names the option, host, keyspace or column at fault, and says what to do.
It never holds a value, a key or a secret.
"""

from __future__ import annotations

from typing import ClassVar


class ConsistencyError(Exception):
    """The root; `exit_code` is what the command line returns for it."""

    exit_code: ClassVar[int] = 4


class UsageError(ConsistencyError):
    """The operator's input cannot be used."""

    exit_code = 2


class SettingsError(UsageError):
    """A configuration file or environment variable cannot be used."""


class ConnectError(ConsistencyError):
    """No node could be reached or none accepted us."""


class TopologyError(ConsistencyError):
    """The ring could not be read, or what was read contradicts itself."""


DAMAGED = (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, TopologyError)
"""What is raised by whoever reads a JSON form from a file that was cut, edited or damaged: whatever JSON can hold.

Such as 1e999, which is an infinite float; lists that are nested too deep; a token range that runs backwards."""


class SchemaError(ConsistencyError):
    """A keyspace or table could not be described."""


class LockedError(ConsistencyError):
    """Another run holds the lock for this cluster."""

    exit_code = 5


class LedgerError(ConsistencyError):
    """The ledger is missing or damaged."""

    exit_code = 3


class ReplicaError(ConsistencyError):
    """One replica did not answer one question: which one (`node`, if one was asked), and why (`reason`).

    `repeated`: an earlier attempt of the request failed, but the server may have carried it out.
    """

    exit_code = 3
    repeated = False

    def __init__(self, reason: str, node: object = None) -> None:
        super().__init__(reason if node is None else f"{node}: {reason}")
        self.reason = reason
        self.node = node


class ReplicaUnavailable(ReplicaError):
    """The node does not answer: down, unreachable, or it refused the connection."""


class TooFewReplicas(ReplicaUnavailable):
    """The node answered that fewer replicas are alive (`alive`) than the request needs (`needed`)."""

    def __init__(self, reason: str, alive: int, needed: int = 0, node: object = None) -> None:
        super().__init__(reason, node)
        self.alive = alive
        self.needed = needed


class WrongNode(ReplicaUnavailable):
    """Another node than the intended one answered the connection."""


class ReplicaTimeout(ReplicaError):
    """The node did not answer in time."""


class ReplicaOverloaded(ReplicaError):
    """The node shed the request."""


class ReplicaRefused(ReplicaError):
    """The node refused the request for good."""


class PageTooLarge(ReplicaRefused):
    """A guardrail of the server forbids pages of more than `most` rows to our role."""

    def __init__(self, reason: str, most: int, node: object = None) -> None:
        super().__init__(reason, node)
        self.most = most


class LevelForbidden(ReplicaRefused):
    """A guardrail of the server forbids our role the consistency level."""


class ReplicaForbidden(ReplicaRefused):
    """Our role lacks a permission."""


class TooMuchToScan(ReplicaError):
    """A guard of the server (tombstones, size) stopped the read."""


class NotProvenLocal(ReplicaError):
    """No attempt at the read is proven to have used the pinned replica alone."""


class InternalError(ConsistencyError):
    """A postcondition of this program failed."""
