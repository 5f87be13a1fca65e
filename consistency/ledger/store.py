"""The ledger's file: SQLite, mode 0600, safe against a kill at any moment, moved aside if it is damaged."""

from __future__ import annotations

import glob
import os
import re
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from consistency.errors import LedgerError, UsageError
from consistency.ledger import roots
from consistency.ledger.migrate import COMPARED, PARTS, PLACED, migrate

APPLICATION_ID = 0x434C4447
SCHEMA_VERSION = 6
_BUSY_S = 10.0
_MAGIC = b"SQLite format 3\0"

_TABLES = """
CREATE TABLE secret (key BLOB NOT NULL);
CREATE TABLE clusters (id INTEGER PRIMARY KEY, name TEXT NOT NULL, short TEXT NOT NULL DEFAULT '');
CREATE TABLE hosts (
  cluster INTEGER NOT NULL, host_id TEXT NOT NULL, address TEXT NOT NULL DEFAULT '',
  present INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (cluster, host_id)) WITHOUT ROWID;
CREATE TABLE runs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, cluster INTEGER NOT NULL, scope TEXT NOT NULL,
  started_us INTEGER NOT NULL, seconds REAL, verdict TEXT, exit_code INTEGER, interrupted INTEGER,
  planned INTEGER, completed INTEGER, skipped INTEGER, failed INTEGER,
  fresh INTEGER, still INTEGER, back INTEGER, gone INTEGER);
CREATE TABLE run_findings (run INTEGER NOT NULL, kind TEXT NOT NULL, count INTEGER NOT NULL);
CREATE TABLE tables (
  id INTEGER PRIMARY KEY, cluster INTEGER NOT NULL, keyspace TEXT NOT NULL, name TEXT NOT NULL,
  table_id TEXT NOT NULL, fingerprint TEXT NOT NULL, placement TEXT NOT NULL, compared INTEGER NOT NULL,
  gc_grace_s INTEGER NOT NULL, UNIQUE (cluster, keyspace, name));
CREATE TABLE spans (
  tbl INTEGER NOT NULL, depth INTEGER NOT NULL, dc TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
  owners INTEGER NOT NULL, tried_us INTEGER NOT NULL, clean_us INTEGER NOT NULL,
  PRIMARY KEY (tbl, depth, dc, start)) WITHOUT ROWID;
CREATE TABLE replica_sets (
  id INTEGER PRIMARY KEY, hosts TEXT NOT NULL, by_address INTEGER NOT NULL, UNIQUE (hosts, by_address));
CREATE TABLE findings (
  tbl INTEGER NOT NULL, hash BLOB NOT NULL, kind TEXT NOT NULL, depth INTEGER NOT NULL, token INTEGER NOT NULL,
  behind INTEGER NOT NULL, state TEXT NOT NULL, times_back INTEGER NOT NULL, first_us INTEGER NOT NULL,
  last_us INTEGER NOT NULL, run INTEGER NOT NULL, PRIMARY KEY (tbl, hash)) WITHOUT ROWID;
CREATE INDEX findings_by_token ON findings (tbl, token);
"""
_ALL = frozenset(re.findall(r"CREATE TABLE (\w+)", _TABLES + roots.CREATE + PARTS + COMPARED))
_LACKING = "parts of it are missing"


class Store:
    """An open ledger file. `note` says in one line what was wrong with the previous file."""

    def __init__(self, path: Path, db: sqlite3.Connection, note: str = "") -> None:
        self.path = path
        self.db = db
        self.note = note

    @classmethod
    def open(cls, path: Path, *, create: bool, shared: bool = False) -> Store:
        """Open or create a ledger; a damaged one is moved aside, and everything counts as unchecked.

        One that is created as `shared` can lie on a network's file system: it is not written ahead (WAL), which needs
        memory that all its readers share.

        Without `create` a missing or damaged file is a LedgerError, and stays where it is. UsageError if the file
        cannot be used although it may be whole, because it belongs to another user or program.
        """
        if not path.exists() and not create:
            msg = (
                f"there is no ledger {path}, so nothing counts as checked; begin one: consistency check --ledger {path}"
            )
            raise LedgerError(msg)
        _require_usable(path, create=create)
        try:
            return cls(path, _opened(path, shared=shared))
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                msg = f"--ledger {path}: {error}; {_way_out(error)}, or name another file"
                raise UsageError(msg) from None
            if not create:
                raise LedgerError(_nothing_counts(path, error)) from None
            require_ours(path, begun=False)
            note = f"the ledger {path} is damaged ({error}): moved to {_move_aside(path)}; everything is unchecked"
        _require_usable(path, create=create)
        return cls(path, _opened(path, shared=shared), note)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run statements in one transaction."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:  # or what could not be committed would be read as if it were there
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self.db.close()


def _way_out(error: sqlite3.DatabaseError) -> str:
    """Say what may help if an undamaged ledger cannot be used."""
    return "wait until no other process uses it" if "locked" in str(error) else "look for a full or failing disk"


def _nothing_counts(path: Path, error: sqlite3.DatabaseError) -> str:
    """Say what a reader can do about a file that tells nothing: a check replaces only what was a ledger."""
    try:
        require_ours(path, begun=False)
    except UsageError:
        return f"{path} is not a ledger ({error}), so nothing counts as checked; name another file"
    return f"the ledger {path} is damaged ({error}), so nothing counts as checked; a check begins it anew"


def _require_usable(path: Path, *, create: bool) -> None:
    """Create the file with mode 0600, or make sure that it can be a ledger of ours."""
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not path.is_file():
            msg = f"--ledger {path}: is not a regular file; name one"
            raise UsageError(msg)
        with path.open("r+b"):
            pass
    except OSError as error:
        if not create:
            msg = f"the ledger {path} cannot be read ({error.strerror}), so nothing counts as checked"
            raise LedgerError(msg) from None
        msg = f"--ledger {path}: {error.strerror}; name a file in a directory that can be written"
        raise UsageError(msg) from None


def _opened(path: Path, *, shared: bool) -> sqlite3.Connection:
    empty = path.stat().st_size == 0
    if not empty and not _has_magic(path):
        msg = "it is not an SQLite file"
        raise sqlite3.DatabaseError(msg)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and (empty or _mark(path) == APPLICATION_ID):
        path.chmod(0o600)  # before SQLite makes its files beside it, with the same mode
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        if not _pragma(db, "application_id") and not _tables(db):
            _begin(db, shared=shared)
        _require_ours(path, db)
        problem = _pragma(db, "quick_check(1)")
        if problem != "ok":
            raise sqlite3.DatabaseError(" ".join(str(problem).split())[:120])
        migrate(db, SCHEMA_VERSION)
        if not _tables(db) >= _ALL:
            raise sqlite3.DatabaseError(_LACKING)
        db.execute("PRAGMA synchronous = NORMAL")  # in WAL a power cut can lose the last commits, never the file
        db.execute("PRAGMA cache_size = -16000")
    except UnicodeDecodeError:  # SQLite quotes what is damaged, and Python cannot read the quotation
        db.close()
        msg = "its schema cannot be read"
        raise sqlite3.DatabaseError(msg) from None
    except BaseException:
        db.close()
        raise
    return db


def _has_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _begin(db: sqlite3.Connection, *, shared: bool) -> None:
    """Create everything in one transaction: after a kill the file is either empty or whole."""
    if not shared:
        db.execute("PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    for statement in (_TABLES + roots.CREATE + PARTS + COMPARED + PLACED).split(";"):
        db.execute(statement)
    db.execute("INSERT INTO secret VALUES (?)", (os.urandom(32),))
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _require_ours(path: Path, db: sqlite3.Connection) -> None:
    if _pragma(db, "application_id") != APPLICATION_ID:
        msg = f"--ledger {path}: is another program's SQLite file; name another one"
        raise UsageError(msg)
    version = _pragma(db, "user_version")
    if version not in range(1, SCHEMA_VERSION + 1):
        msg = f"--ledger {path} has schema {version}, this version reads {SCHEMA_VERSION}; name another file"
        raise UsageError(msg)
    if not {"runs", "tables", "spans", "findings", "secret"} <= _tables(db) or _key(db) is None:
        raise sqlite3.DatabaseError(_LACKING)


def _tables(db: sqlite3.Connection) -> set[str]:
    with closing(db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")) as rows:
        return {name for (name,) in rows}


def _key(db: sqlite3.Connection) -> bytes | None:
    row = db.execute("SELECT key FROM secret").fetchone()
    return None if row is None else bytes(row[0])


def _pragma(db: sqlite3.Connection, name: str) -> object:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is at fault, not a lock or a full disk."""
    return not isinstance(error, sqlite3.OperationalError)


def require_ours(path: Path, *, begun: bool = True) -> None:
    """Refuse a file that never was a ledger; it is not moved aside like a damaged ledger.

    A ledger has a mark in its header, or a lock beside it that each run leaves. `begun`: an SQLite file without a mark
    is accepted too, because a kill during creation leaves one; opening it tells.
    """
    try:
        mark = _mark(path) if path.stat().st_size else 0
    except OSError:
        return  # missing, or the next function that opens it refuses it
    marks = {APPLICATION_ID, 0} if begun else {APPLICATION_ID}
    if mark not in marks and not any(path.parent.glob(f"{glob.escape(path.name)}.*.lock")):
        msg = f"--ledger {path}: exists and is not a ledger; it is not replaced: name another file"
        raise UsageError(msg)


def _mark(path: Path) -> int | None:
    """Return the application id in an SQLite file's header, None in a file of another kind."""
    with path.open("rb") as file:
        header = file.read(72)
    return int.from_bytes(header[68:], "big") if header.startswith(_MAGIC) else None


def _move_aside(path: Path) -> Path:
    """Rename a damaged file and what SQLite keeps beside it: nothing is deleted, and nothing in it is used."""
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{when}")
    try:
        for end in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    except OSError as error:
        msg = f"--ledger {path} is damaged and cannot be moved aside: {error.strerror}; name another file"
        raise LedgerError(msg) from None
    return aside
