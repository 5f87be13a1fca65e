"""What goes between a driver and its workers, as JSON: nothing in it is a secret, and nothing in it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consistency.checking.preparing import Prepared
from consistency.checking.scan import ScanOptions
from consistency.checking.tasks import CheckOptions
from consistency.cluster.pinned import ReadLimits
from consistency.cluster.settings import GivenOptions
from consistency.cluster.throttle import Politeness
from consistency.model.reading import Depth, Locality, Route


@dataclass(frozen=True)
class Order:
    """What all workers of a run are told first.

    `ring` and `tables` are fingerprints: a worker that sees others must not read. `given` says how to connect as far as
    options did; passwords come from the worker's own environment and files.
    """

    run_id: str
    options: CheckOptions
    politeness: Politeness
    locality: Locality | None
    readers: int
    given: GivenOptions
    ring: str
    tables: Mapping[str, str]

    @classmethod
    def of(
        cls, prepared: Prepared, politeness: Politeness, locality: Locality | None, readers: int, given: GivenOptions
    ) -> Order:
        """Return the order for a check that was prepared, to so many workers."""
        tables = {task.reading.table.full_name: task.reading.table.fingerprint for task in prepared.tasks}
        ring = prepared.ring.fingerprint
        share = politeness.divided(readers)
        return cls(prepared.run_id, prepared.options, share, locality, readers, given, ring, tables)

    def limits(self, reader: int) -> ReadLimits:
        """Return how hard the worker of a number, from 0, may ask the cluster."""
        return ReadLimits(politeness=self.politeness, reader=reader, readers=self.readers)

    def as_text(self) -> str:
        """Return the JSON form."""
        politeness = {**asdict(self.politeness), "pause_file": str(self.politeness.pause_file or "")}
        return json.dumps(
            {
                "run_id": self.run_id,
                "options": _options_json(self.options),
                "politeness": politeness,
                "locality": self.locality and self.locality.value,
                "readers": self.readers,
                "given": asdict(self.given),
                "ring": self.ring,
                "tables": dict(self.tables),
            }
        )

    @classmethod
    def from_text(cls, text: str) -> Order:
        """Read the JSON form."""
        data = json.loads(text)
        pause = data["politeness"].pop("pause_file")
        return cls(
            data["run_id"],
            _options(data["options"]),
            Politeness(**data["politeness"], pause_file=Path(pause) if pause else None),
            data["locality"] and Locality(data["locality"]),
            data["readers"],
            GivenOptions(**data["given"]),
            data["ring"],
            data["tables"],
        )


def _options_json(options: CheckOptions) -> dict[str, Any]:
    return {
        "names": list(options.names),
        "depth": options.depth and options.depth.value,
        "route": options.route and options.route.value,
        "dc": options.dc,
        "views": options.views,
        "non_owners": options.non_owners,
        "settle_window_s": options.settle_window_s,
        "rf_minimum": options.rf_minimum,
        "scan": asdict(options.scan),
    }


def _options(data: Mapping[str, Any]) -> CheckOptions:
    return CheckOptions(
        **{
            **data,
            "names": tuple(data["names"]),
            "depth": data["depth"] and Depth(data["depth"]),
            "route": data["route"] and Route(data["route"]),
            "scan": ScanOptions(**data["scan"]),
        }
    )


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
    traces: tuple[int, int]
    interrupted: bool

    def as_text(self) -> str:
        """Return the JSON form."""
        return json.dumps({**self.__dict__}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> UnitRead:
        """Read the JSON form."""
        data: dict[str, Any] = json.loads(text)
        for name in ("reads", "findings", "replicas", "notes", "traces"):
            data[name] = tuple(data[name])
        return cls(**data)
