"""The sums by which servers before 5.0 digest a range: no two sets of rows and write times may have the same."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from consistency.cluster.driver import murmur3
from consistency.cluster.selects import folded_token, sum_digest
from consistency.model.cqltype import parse_type
from consistency.model.reading import Capabilities, Depth, Reading
from consistency.model.schema import Column, Table
from consistency.model.tokens import TokenRange

CAPABILITIES = Capabilities(hashes=False, collection_times=False, timed=False)
Row = dict[str, int]


def table(clustering: int, type_name: str = "int") -> Table:
    """Return a table of one partition column, clustering columns of a type, and one regular column."""
    keys = [Column("p0", "partition_key", 0, parse_type("int", {}))]
    keys += [Column(f"c{i}", "clustering", i, parse_type(type_name, {})) for i in range(clustering)]
    return Table("ks", "t", "id", (*keys, Column("v", "regular", -1, parse_type("int", {}))))


def wrapped(number: int) -> int:
    """Return a number as a bigint holds it."""
    return (number + 2**63) % 2**64 - 2**63


def evaluated(expression: str, row: Row) -> int:
    """Evaluate an expression of CQL as the servers do, in 64 bits."""

    def token(*values: int) -> int:
        return murmur3(b"".join(value.to_bytes(4, "big", signed=True) for value in values))

    text = re.sub(r"writetime\((\w+)\)", r"time_of_\1", expression)
    return wrapped(eval(text, {"token": token}, row))


def weights(clustering: int, values: range) -> dict[tuple[int, ...], int]:
    """Return the weight of every row of a grid."""
    expression = folded_token(table(clustering))
    assert expression is not None
    names = ["p0", *(f"c{i}" for i in range(clustering))]
    rows = itertools.product(values, repeat=clustering + 1)
    return {key: evaluated(expression, dict(zip(names, key, strict=True))) for key in rows}


@pytest.mark.parametrize("clustering", [1, 2])
def test_keys_that_are_exchanged_do_not_cancel_out(clustering: int) -> None:
    """Neither a swap of two rows' keys, nor rows turned round in pairs or in a cycle, leaves the sum as it was."""
    of = weights(clustering, range(5))
    assert len(set(of.values())) == len(of)
    rest = (0,) * (clustering - 1)
    for a, b, c, d in itertools.permutations(range(5), 4):
        exchanged = (
            ([(a, c), (b, d)], [(a, d), (b, c)]),
            ([(a, b)], [(b, a)]),
            ([(a, b), (b, c), (c, a)], [(b, a), (c, b), (a, c)]),
            ([(a, a), (b, b)], [(a, b), (b, a)]),
        )
        for one, other in exchanged:
            assert len({wrapped(sum(of[(*key, *rest)] for key in keys)) for keys in (one, other)}) == 2, (one, other)


def test_random_sets_of_rows_have_sums_of_their_own() -> None:
    """Whatever two replicas lack."""
    of, rng = weights(1, range(12)), random.Random(5)
    sums: dict[int, frozenset[tuple[int, ...]]] = {}
    for _ in range(20_000):
        rows = frozenset(rng.sample(sorted(of), rng.randint(1, 40)))
        assert sums.setdefault(wrapped(sum(of[row] for row in rows)), rows) == rows


def test_a_weight_is_odd_so_that_no_write_time_is_swallowed() -> None:
    """Also where a token is 0 or a high power of two; and a write time of 0 counts."""
    reading = Reading(table(1), Depth.VERSIONS, CAPABILITIES)
    text = sum_digest(reading, TokenRange.full_ring())
    found = re.search(r"sum\((\(writetime\(v\).*)\) FROM", text)
    assert found is not None, text
    for row in ({"p0": 1, "c0": 2}, {"p0": 0, "c0": -7}):
        summed = {evaluated(found[1], {**row, "time_of_v": time}) for time in (0, 1, 4, 2**40, -5)}
        assert len(summed) == 5
        assert 0 not in summed
    assert all(weight % 2 for weight in weights(2, range(6)).values())


def test_a_key_that_cannot_be_weighed_has_no_sum() -> None:
    """By type, or by the number of its columns: such a table is hashed on the client."""
    assert folded_token(table(1, "text")) is None
    assert folded_token(table(3)) is None
