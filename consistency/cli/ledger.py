"""The options that name the ledger, and the file itself while a command uses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from consistency.checking.merging import Whole
from consistency.checking.tasks import CheckOptions, recorder_of
from consistency.cli.outputs import require_different, require_writable, written_paths
from consistency.cluster.settings import load_ledger_path
from consistency.ledger import PartRecorder, RunRecorder, open_ledger
from consistency.ledger.lock import one_run
from consistency.ledger.store import require_ours
from consistency.model.ring import Ring
from consistency.model.scope import is_named
from consistency.watching.metrics import CleanPass
from consistency.watching.visit_ledger import clean_pass

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

WRITTEN = (
    "Record this run in FILE: which ranges were clean when, which rows differed. Default: CONSISTENCY_LEDGER, "
    "[ledger] path in the TOML file, else none."
)
READ = "The ledger that 'check --ledger' wrote. Default: CONSISTENCY_LEDGER, [ledger] path in the TOML file."


def ledger_option(meaning: str) -> Callable[[CommandT], CommandT]:
    """Add `--ledger` with its help text for the command."""
    return click.option("--ledger", metavar="FILE", help=meaning)


def take_ledger(given: dict[str, Any], *, written: bool = False) -> Path | None:
    """Take the ledger out of a command's arguments, before the connection is taken out of them.

    No other file may take its place: what a run has recorded would be gone, and the run would say that all is well.
    """
    path = load_ledger_path(given.pop("ledger"), given["config"])
    if path is not None:
        require_different({"--ledger": str(path), **written_paths(given)})
    if written and path is not None:
        require_writable("--ledger", str(path))
        require_ours(path)
    return path


@contextmanager
def recording(ring: Ring, path: Path | None, options: CheckOptions) -> Iterator[RunRecorder | PartRecorder | None]:
    """Hold the cluster's lock, and the ledger if one is named; warn about problems with the ledger in one line."""
    with one_run(ring, path):
        if path is None:
            yield None
            return
        with open_ledger(path, shared=options.part is not None) as ledger:
            warn(ledger.note)
            recorder = recorder_of(ledger, options)
            yield recorder
            warn(recorder.problem)


@contextmanager
def recording_merged(whole: Whole, path: Path | None) -> Iterator[RunRecorder | None]:
    """Hold the lock of a ledger in which a merged run is to be recorded, and the ledger; None if it has the run."""
    if path is None:
        yield None
        return
    with one_run(whole.first.facts.ring, path), open_ledger(path) as ledger:
        warn(ledger.note)
        if ledger.has_run(whole.run_id):
            click.echo(f"the ledger {path} has this run already", err=True)
            yield None
            return
        recorder = ledger.recorder()
        yield recorder
        warn(recorder.problem)
        if not whole.missing and not recorder.problem:
            ledger.mark_merged(whole.run_id, [account.part_id for account in whole.accounts])


def clean_passes(path: Path | None, ring: Ring, names: Sequence[str]) -> tuple[CleanPass, ...]:
    """Return the age of the oldest clean pass of each table that is meant, infinite if a range never had one.

    For the metrics: the ledger knows all tables, and those that the run was not asked for raise no alert.
    """
    if path is None or not path.is_file():
        return ()
    now_us = time.time_ns() // 1000
    with open_ledger(path) as ledger:
        past = ledger.past()
        number = past.of_nodes(ring.cluster, ring.host_ids)
        known = past.tables(number) if number is not None else ()
        return tuple(clean_pass(age, now_us) for age in known if is_named(names, age.keyspace, age.table))


def warn(text: str) -> None:
    """Tell of a problem with a ledger, if there is one."""
    if text:
        click.echo(f"warning: {text}", err=True)
