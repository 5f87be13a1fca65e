"""What goes between a driver and its workers, as JSON: nothing in it is a secret, and nothing in it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from consistency.cluster.locality import TracesLeft
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.settings import GivenOptions
from consistency.cluster.throttle import Politeness
from consistency.model.reading import Locality
from consistency.spreading.port import UnitFailed


class Work(str, Enum):
    """What workers are to do: read units of a check or of a comparison, or plan the repair of rows."""

    CHECK = "check"
    COMPARE = "compare"
    PLAN = "plan"


@dataclass(frozen=True)
class Terms:
    """On what terms workers read: the politeness of the whole run, how to prove answers, how options say to connect.

    `target` says it of the second cluster, None if there is one.
    """

    politeness: Politeness = field(default_factory=Politeness)
    locality: Locality | None = None
    given: GivenOptions = field(default_factory=GivenOptions)
    target: GivenOptions | None = None

    def divided(self, readers: int) -> Terms:
        """Return the terms of one of so many readers."""
        return Terms(self.politeness.divided(readers), self.locality, self.given, self.target)


@dataclass(frozen=True)
class Order:
    """What all workers of a run are told first.

    `options` are those of the work, in its own JSON form. `terms` are those of one worker: they say how to connect as
    far as options did, passwords come from the worker's own environment and files. `ring` and `tables` are fingerprints
    of what the driver sees: a worker that sees others must not read.
    """

    work: Work
    run_id: str
    options: Mapping[str, Any]
    terms: Terms
    readers: int
    ring: str
    tables: Mapping[str, str]

    def limits(self, reader: int) -> ReadLimits:
        """Return how hard the worker of a number, from 0, may ask the cluster."""
        return ReadLimits(politeness=self.terms.politeness, reader=reader, readers=self.readers)

    def require_seen(self, ring: str, tables: Mapping[str, str]) -> None:
        """Raise UnitFailed if a worker sees another ring or other tables than the driver."""
        if ring != self.ring:
            raise UnitFailed("a worker sees another ring than the driver; run it again")
        if unlike := [name for name, known in self.tables.items() if tables.get(name) != known]:
            msg = f"a worker does not see {unlike[0]} as the driver does; run it again"
            raise UnitFailed(msg)

    def as_text(self) -> str:
        """Return the JSON form."""
        terms = self.terms
        return json.dumps(
            {
                "work": self.work.value,
                "run_id": self.run_id,
                "options": dict(self.options),
                "politeness": {**asdict(terms.politeness), "pause_file": str(terms.politeness.pause_file or "")},
                "locality": terms.locality and terms.locality.value,
                "given": asdict(terms.given),
                "target": terms.target and asdict(terms.target),
                "readers": self.readers,
                "ring": self.ring,
                "tables": dict(self.tables),
            }
        )

    @classmethod
    def from_text(cls, text: str) -> Order:
        """Read the JSON form."""
        data = json.loads(text)
        pause = data["politeness"].pop("pause_file")
        terms = Terms(
            Politeness(**data["politeness"], pause_file=Path(pause) if pause else None),
            data["locality"] and Locality(data["locality"]),
            GivenOptions(**data["given"]),
            data["target"] and GivenOptions(**data["target"]),
        )
        work, run_id, options = Work(data["work"]), data["run_id"], data["options"]
        return cls(work, run_id, options, terms, data["readers"], data["ring"], data["tables"])


@dataclass(frozen=True, slots=True)
class Unit:
    """Some leaves of a table, to be read by one worker with whatever they come to.

    The table is cut for `rows` rows, the same leaves for whoever cuts it; of these the unit has those from `first` up
    to, not including, `last`. `max_findings` rows are listed at most, None: all.
    """

    number: int
    table: str
    rows: int
    first: int
    last: int
    max_findings: int | None

    def as_text(self) -> str:
        """Return the JSON form."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Unit:
        """Read the JSON form."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class UnitRead:
    """What came of a unit: its table's report and reads (JSON forms), and its findings, as lines of a findings file."""

    number: int
    report: Mapping[str, Any]
    reads: tuple[Mapping[str, Any], ...]
    findings: tuple[str, ...]
    replicas: tuple[str, ...]
    notes: tuple[str, ...]
    interrupted: bool
    traces: TracesLeft = field(default_factory=TracesLeft)
    """What its proofs by trace left on the servers."""

    def as_text(self) -> str:
        """Return the JSON form."""
        return json.dumps({**self.__dict__, "traces": self.traces.as_json()}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> UnitRead:
        """Read the JSON form."""
        data: dict[str, Any] = json.loads(text)
        for name in ("reads", "findings", "replicas", "notes"):
            data[name] = tuple(data[name])
        return cls(**{**data, "traces": TracesLeft.from_json(data["traces"])})
