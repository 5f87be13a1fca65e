"""A schema version is made of all that is in system_schema: whatever is altered, no node keeps the one it had."""

from __future__ import annotations

import asyncio

import pytest

from consistency.cluster.session import open_cluster
from tests.support.cluster import RunningCluster

pytestmark = pytest.mark.cluster

ALTERED = (
    "ALTER TABLE versioned.t ADD c int",
    "ALTER TABLE versioned.t RENAME id TO number",
    "ALTER TABLE versioned.t DROP c",
    "ALTER TABLE versioned.t WITH gc_grace_seconds = 60",
    "ALTER TABLE versioned.t ALTER a MASKED WITH DEFAULT",
    "ALTER TABLE versioned.t ALTER a DROP MASKED",
    "CREATE TYPE versioned.kind (x int)",
    "ALTER TYPE versioned.kind ADD y int",
    "CREATE INDEX ON versioned.t (a)",
    "ALTER KEYSPACE versioned WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 2}",
    "DROP TABLE versioned.t",
    "CREATE TABLE versioned.t (id int PRIMARY KEY, a text)",
    "DROP KEYSPACE versioned",
)


def test_whatever_is_altered_is_seen_by_its_version(cluster: RunningCluster) -> None:
    """What is read again after each alteration is what a reader that has just come reads."""
    cluster.keyspace("versioned")
    cluster.ddl("CREATE TABLE versioned.t (id int PRIMARY KEY, a text)")

    async def main() -> None:
        async with open_cluster(cluster.settings) as (reader, _):
            await reader.schema()
            for statement in ALTERED:
                cluster.ddl(statement)
                async with open_cluster(cluster.settings) as (fresh, _clock):
                    whole = await fresh.schema()
                    assert await reader.schema_again() == whole, statement
                    assert await reader.schema_again() == whole, statement

    asyncio.run(main())
