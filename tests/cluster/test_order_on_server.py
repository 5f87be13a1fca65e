"""What the server itself says about values: the order it keeps them in."""

from __future__ import annotations

import struct
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.protocol import ProtocolHandler, ResultMessage, read_int
from cassandra.query import BatchStatement, BatchType, BoundStatement, tuple_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consistency.model.cqlbytes import fixed_bytes
from consistency.model.cqlorder import key_function, sort_key
from consistency.model.cqltype import CqlType, UserType, parse_type
from tests.support.encoding import join_decimal, minimal_bytes
from tests.support.figures import LONG, SOAK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cassandra.cluster import Session

pytestmark = pytest.mark.cluster

KEYSPACE = "vals_order"
UDTS = {"pair": UserType("pair", ("x", "Y z"), ("int", "frozen<list<text>>"))}
SCALARS = (
    "ascii", "bigint", "blob", "boolean", "date", "decimal", "double", "float", "inet", "int", "smallint",
    "text", "time", "timestamp", "timeuuid", "tinyint", "uuid", "varint",
)  # fmt: skip
COMPOSITES = (
    "frozen<list<blob>>",
    "frozen<set<varint>>",
    "frozen<map<uuid, frozen<list<decimal>>>>",
    "frozen<tuple<decimal, frozen<tuple<int, timeuuid>>, blob>>",
    "frozen<pair>",
    "vector<float, 3>",
    "vector<smallint, 2>",
    "vector<frozen<tuple<text, int>>, 2>",
)
ORDERED = SCALARS + COMPOSITES
_ALIKE = frozenset(
    {"ascii", "bigint", "smallint", "tinyint", "double", "date", "time", "timestamp", "vector<smallint, 2>"}
)
"""Each keeps the order of another one that is tried too: fixed integers that of int, and so on."""
ALLOW_EMPTY = frozenset(SCALARS) - {"date", "smallint", "time", "tinyint", "ascii", "text", "blob"}
BOUNDED = settings(
    derandomize=True,
    max_examples=3,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class _RawResult(ResultMessage):
    """A result whose cells stay bytes."""

    def recv_results_rows(self, f: Any, protocol_version: Any, types: Any, metadata: Any, _policy: Any) -> None:
        self.recv_results_metadata(f, types)
        columns = self.column_metadata or metadata
        self.parsed_rows = [self.recv_row(f, len(columns)) for _ in range(read_int(f))]
        self.column_names = [column[2] for column in columns]
        self.column_types = [column[3] for column in columns]


class _RawProtocol(ProtocolHandler):
    message_types_by_opcode: ClassVar[dict[int, Any]] = {
        **ProtocolHandler.message_types_by_opcode,
        _RawResult.opcode: _RawResult,
    }


@pytest.fixture(scope="module")
def session(cluster: Any) -> Iterator[Session]:
    """Open a session that leaves cells as bytes, in a keyspace of its own."""
    profile = ExecutionProfile(row_factory=tuple_factory, request_timeout=60)
    driver = Cluster(
        cluster.hosts,
        port=cluster.port,
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    )
    session = driver.connect()
    session.client_protocol_handler = _RawProtocol
    session.execute(f"DROP KEYSPACE IF EXISTS {KEYSPACE}")
    replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    session.execute(f"CREATE KEYSPACE {KEYSPACE} WITH replication = {replication}")
    session.set_keyspace(KEYSPACE)
    session.execute('CREATE TYPE pair (x int, "Y z" frozen<list<text>>)')
    cluster.tables(f"CREATE TABLE {KEYSPACE}.{table}" for table in _tables())
    yield session
    session.execute(f"DROP KEYSPACE IF EXISTS {KEYSPACE}")
    driver.shutdown()


def sized(raw: bytes | None) -> bytes:
    """Put a 4-byte length before a component."""
    return struct.pack(">i", -1) if raw is None else struct.pack(">i", len(raw)) + raw


def fixed(form: str, extremes: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Any bytes of the format's size, often one of the extremes."""
    size = struct.calcsize(form)
    return st.sampled_from([struct.pack(form, value) for value in extremes]) | st.binary(min_size=size, max_size=size)


def integers(form: str) -> st.SearchStrategy[bytes]:
    """Integers of one size, often where signs and borders are."""
    top = 1 << (8 * struct.calcsize(form) - 1)
    return fixed(form, [0, 1, -1, top - 1, -top, -top + 1])


def uuids(versions: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    """UUIDs of these versions, with bytes where signed and unsigned orders differ."""
    body = st.lists(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), min_size=16, max_size=16)
    return st.builds(_with_version, body, versions)


def _with_version(raw: list[int], version: int) -> bytes:
    return bytes([*raw[:6], version << 4 | raw[6] & 0xF, *raw[7:]])


NUMBERS = st.sampled_from([0, 1, -1, 10, -10, 127, 128, -128, -129, 10**30]) | st.integers(-(2**70), 2**70)
FLOATS = [0.0, -0.0, 1.5, -1.5, float("inf"), float("-inf"), float("nan"), -float("nan")]
# Positive or negative throughout, within 32, 32 and 64 bits.
DURATIONS = ["000000", "020406", "010305", "f0fffffffef0fffffffe02", "0000fffffffffffffffffe"]
RAW = {
    "ascii": st.text(st.characters(codec="ascii"), max_size=4).map(str.encode),
    "text": st.text(st.characters(codec="utf-8"), max_size=4).map(str.encode),
    "blob": st.lists(st.sampled_from([0, 1, 127, 128, 255]), max_size=4).map(bytes),
    "tinyint": integers(">b"),
    "smallint": integers(">h"),
    "int": integers(">i"),
    "bigint": integers(">q"),
    "timestamp": integers(">q"),
    "date": integers(">i"),
    "time": integers(">q"),
    "boolean": st.sampled_from([b"\0", b"\1", b"\2", b"\xff"]),
    "float": fixed(">f", [*FLOATS, 0.1, 1e-45, 3.4028234e38]),
    "double": fixed(">d", [*FLOATS, 0.1, 5e-324, 1.7976931348623157e308]),
    "varint": st.builds(
        lambda pad, number: (b"\xff" if number < 0 else b"\0") * pad + minimal_bytes(number),
        st.integers(0, 2),
        NUMBERS,
    ),
    "decimal": st.builds(
        join_decimal, NUMBERS, st.integers(-35, 35) | st.sampled_from([2**31 - 1, -(2**31), 10**9])
    ),
    "inet": st.sampled_from([b"\0" * 10 + b"\xff\xff\1\2\3\4", b"\0" * 16])
    | st.binary(min_size=4, max_size=4)
    | st.binary(min_size=16, max_size=16),
    "uuid": uuids(st.sampled_from([0, 1, 1, 4, 7, 8, 15])),
    "timeuuid": uuids(st.just(1)),
    "duration": st.sampled_from(DURATIONS).map(bytes.fromhex),
}  # fmt: skip


def raw_values(cql_type: CqlType) -> st.SearchStrategy[bytes]:
    """Every value the server accepts, biased to where orders and spellings go wrong."""
    name = cql_type.name
    if name in RAW:
        return RAW[name] | st.just(b"") if name in ALLOW_EMPTY else RAW[name]
    parts = [raw_values(arg) for arg in cql_type.args]
    if name in ("tuple", "udt"):
        complete = st.tuples(*(st.none() | part for part in parts))
        return complete.map(lambda values: b"".join(map(sized, values)))
    if name == "vector":
        return _vectors(cql_type, parts[0].filter(bool))
    if name == "list":
        return st.lists(parts[0], max_size=3).map(lambda values: _collection(len(values), values))
    # Keys are unique and sorted as the server sorts them, or it would not be the set or map it claims to be.
    values = parts[1] if name == "map" else st.none()
    key = key_function([(cql_type.args[0], False)])
    pairs = st.lists(st.tuples(parts[0], values), max_size=3, unique_by=lambda pair: key([pair[0]]))
    return pairs.map(lambda found: sorted(found, key=lambda pair: key([pair[0]]))).map(
        lambda found: _collection(len(found), [part for pair in found for part in pair if part is not None])
    )


def _collection(count: int, values: Sequence[bytes]) -> bytes:
    return struct.pack(">i", count) + b"".join(map(sized, values))


def _vectors(cql_type: CqlType, part: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    bare = fixed_bytes(cql_type.args[0]) is not None
    values = st.lists(part, min_size=cql_type.dimension, max_size=cql_type.dimension)
    return values.map(lambda found: b"".join(raw if bare else bytes([len(raw)]) + raw for raw in found))


def _tables() -> Iterator[str]:
    """Name a table for each type that orders rows."""
    for number, text in enumerate(ORDERED):
        if text in _ALIKE and not LONG:
            continue
        cql = parse_type(text, UDTS).cql
        yield (
            f"o{number} (k int, up {cql}, down {cql}, PRIMARY KEY (k, up, down)) "
            "WITH CLUSTERING ORDER BY (up ASC, down DESC)"
        )


def _write(session: Session, table: str, rows: Sequence[tuple[bytes, bytes, bytes]]) -> None:
    insert = session.prepare(f"INSERT INTO {table} (k, up, down) VALUES (?, ?, ?)")
    batch = BatchStatement(BatchType.UNLOGGED)
    for row in rows:
        bound = BoundStatement(insert)
        bound.values = list(row)  # already serialized: the driver's own encoders refuse the odd ones
        batch.add(bound)
    session.execute(batch)


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=SOAK if text in _ALIKE else ()) for n, text in enumerate(ORDERED)],
    ids=ORDERED.__getitem__,
)
def test_rows_come_back_in_the_order_of_their_keys(session: Session, number: int) -> None:
    """Shows that keys increase strictly in the server's order, and that equal keys are one row."""
    cql_type, table = parse_type(ORDERED[number], UDTS), f"o{number}"
    unused = count()

    @BOUNDED
    @given(st.lists(raw_values(cql_type), min_size=30, max_size=60))
    def check(values: list[bytes]) -> None:
        one, other = next(unused), next(unused)
        _write(session, table, [(struct.pack(">i", one), raw, values[0]) for raw in values])
        _write(session, table, [(struct.pack(">i", other), values[0], raw) for raw in values])
        key = key_function([(cql_type, False), (cql_type, True)])
        distinct = len({sort_key(cql_type, raw) for raw in values})
        for partition in (one, other):
            rows = session.execute(f"SELECT up, down FROM {table} WHERE k = {partition}")
            keys = [key(row) for row in rows]
            assert len(keys) == distinct
            assert all(before < after for before, after in pairwise(keys))

    check()
