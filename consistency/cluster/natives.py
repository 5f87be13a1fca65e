"""The servers' own functions, by the one name that means no other.

Anybody may create a function in a keyspace. From 5.0 on, the bare name of one there hides the servers' own from the
statements on its tables: a `blob_as_varint` that returns 0 would make every digest the same. `count(*)`, `writetime`,
`maxwritetime`, `ttl`, `cast`, operators, and `token` in a condition are syntax, which nobody can hide.
"""

from __future__ import annotations


def native(name: str, *terms: str) -> str:
    """Return the call of a function that is the servers' own, whatever the table's keyspace has."""
    return f"system.{name}({', '.join(terms)})"
