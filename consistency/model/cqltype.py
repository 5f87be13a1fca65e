"""CQL types as values: read from the text that system_schema.columns.type holds, printed back as CQL.

The grammar is the one of Cassandra's CQL3Type.toString: a native name, `list<T>`, `set<T>`, `map<K, V>`,
`tuple<A, B>`, `vector<T, n>`, `frozen<T>`, a user type's name (quoted where it must be), or the class name of
a custom type in single quotes. A custom type is opaque bytes to us.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from consistency.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NATIVE_WORDS = """
    ascii bigint blob boolean counter date decimal double duration empty float inet int smallint text time
    timestamp timeuuid tinyint uuid varchar varint
"""
# reserved_keywords.txt of Cassandra 4.0 to 5.0.
_RESERVED_WORDS = """
    add allow alter and apply asc authorize batch begin by columnfamily create delete desc describe drop
    entries execute from full grant if in index infinity insert into is keyspace limit materialized modify
    nan norecursive not null of on or order primary rename revoke schema select set table to token truncate
    unlogged update use using view where with
"""

NATIVE = frozenset(_NATIVE_WORDS.split())
"""Type names without parameters (CQL3Type.Native)."""

RESERVED = frozenset(_RESERVED_WORDS.split())
"""Words that CQL never takes as a bare identifier."""

_RESPELLED = frozenset(("boolean", "custom", "decimal", "double", "empty", "float", "tuple", "udt", "varint"))
"""They differ by scale, padding, bits of a NaN, or nulls at the end; custom types are not known."""

_ARITY = {"list": 1, "set": 1, "map": 2}

_BARE_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_TOKEN = re.compile(
    r"""\s* (?: (?P<word> [A-Za-z_0-9]+ ) | " (?P<quoted> (?:[^"]|"")+ ) "
             | ' (?P<custom> (?:[^']|'')+ ) ' | (?P<mark> [<>,] ) ) \s*""",
    re.VERBOSE,
)


class UnknownTypeError(SchemaError):
    """The text of a type is not CQL, or names a user type that the keyspace lacks."""


@dataclass(frozen=True)
class UserType:
    """A row of system_schema.types: the name unquoted, the field types as text."""

    name: str
    field_names: tuple[str, ...]
    field_types: tuple[str, ...]


@dataclass(frozen=True)
class CqlType:
    """One CQL type; `name` is a native name, `list`, `set`, `map`, `tuple`, `vector`, `udt` or `custom`.

    `args` are the element types (for a map key then value, for a user type one per field); `frozen` is as
    spelled. `label` is the user type's name unquoted, or the custom type's class.
    """

    name: str
    args: tuple[CqlType, ...] = ()
    frozen: bool = False
    fields: tuple[str, ...] = ()
    dimension: int | None = None
    label: str = ""

    @property
    def is_respelled(self) -> bool:
        """Whether the type's comparator takes different bytes for one value, such as the decimals 1.0 and 1.00."""
        return self.name in _RESPELLED or any(arg.is_respelled for arg in self.args)

    @property
    def is_collection(self) -> bool:
        """Whether this is a list, a set or a map, frozen or not."""
        return self.name in _ARITY

    @property
    def is_multicell(self) -> bool:
        """Whether a column of this type is stored as several cells, each with its own write time.

        Only for a column's own type: inside another type everything is stored frozen, whatever its spelling.
        """
        return not self.frozen and (self.is_collection or self.name == "udt")

    @property
    def fields_of_user_types(self) -> tuple[str, ...]:
        """The type with every user type's fields and their types, because a name does not change when it is altered."""
        pairs = zip(self.fields, self.args, strict=True) if self.fields else ()
        own = tuple(f"{field} {arg.cql}" for field, arg in pairs)
        return own + tuple(text for arg in self.args for text in arg.fields_of_user_types)

    @property
    def cql(self) -> str:
        """The type as CQL, spelled as system_schema spells it."""
        bare = self._bare_cql()
        return f"frozen<{bare}>" if self.frozen else bare

    def _bare_cql(self) -> str:
        if self.name == "udt":
            return quote_identifier(self.label)
        if self.name == "custom":
            return quote_string(self.label)
        if self.name in NATIVE:
            return self.name
        inner = [arg.cql for arg in self.args]
        if self.dimension is not None:
            inner.append(str(self.dimension))
        return f"{self.name}<{', '.join(inner)}>"


def quote_identifier(name: str) -> str:
    """Return `name` as CQL takes it for a keyspace, table, column or type: quoted only if it must be."""
    if _BARE_IDENTIFIER.fullmatch(name) and name not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def quote_string(text: str) -> str:
    """Return `text` as a CQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def parse_type(text: str, udts: Mapping[str, UserType]) -> CqlType:
    """Parse a type's text; `udts` are the keyspace's user types by unquoted name, looked up only if named.

    Raises UnknownTypeError for text that is not a type, an unknown user type, or one that contains itself.
    """
    return _Parser(text, udts, ()).parse()


class _Parser:
    """Recursive descent over one type's text; `within` are the user types being resolved, outermost first."""

    def __init__(self, text: str, udts: Mapping[str, UserType], within: tuple[str, ...]) -> None:
        self._text = text
        self._udts = udts
        self._within = within
        self._tokens = list(self._split())
        self._next = 0

    def parse(self) -> CqlType:
        parsed = self._type()
        if self._next != len(self._tokens):
            self._fail("has something after its end")
        return parsed

    def _split(self) -> Iterator[tuple[str, str]]:
        """Yield (kind, value) with quotes removed; kind is word, quoted, custom or mark."""
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                self._fail(f"cannot be read from character {at}")
            yield match.lastgroup, match[match.lastgroup]
            at = match.end()

    def _type(self) -> CqlType:
        kind, value = self._take()
        if kind == "custom":
            return CqlType("custom", label=value.replace("''", "'"))
        if kind == "quoted":
            return self._user_type(value.replace('""', '"'))
        if kind == "mark":
            self._fail(f"has {value!r} where a type should be")
        name = value.lower()
        if self._peek() == ("mark", "<"):
            return self._parametric(name)
        return CqlType(name) if name in NATIVE else self._user_type(name)

    def _parametric(self, name: str) -> CqlType:
        self._expect("<")
        if name == "frozen":
            return self._frozen()
        args = [self._type()]
        dimension = None
        while self._peek() == ("mark", ","):
            self._expect(",")
            if name == "vector":
                dimension = self._dimension()
                break
            args.append(self._type())
        self._expect(">")
        self._check_arity(name, len(args), dimension)
        return CqlType(name, tuple(args), dimension=dimension)

    def _frozen(self) -> CqlType:
        inner = self._type()
        self._expect(">")
        return CqlType(inner.name, inner.args, True, inner.fields, inner.dimension, inner.label)  # noqa: FBT003

    def _check_arity(self, name: str, count: int, dimension: int | None) -> None:
        if name not in {*_ARITY, "tuple", "vector"}:
            self._fail(f"has parameters on {name!r}, which takes none")
        if count != _ARITY.get(name, count):
            self._fail(f"gives {name} {count} parameters instead of {_ARITY[name]}")
        if name == "vector" and not dimension:
            self._fail("has a vector without a positive dimension")

    def _dimension(self) -> int:
        kind, value = self._take()
        if kind != "word" or not value.isdecimal():
            self._fail("has a vector whose dimension is not a number")
        return int(value)

    def _user_type(self, name: str) -> CqlType:
        user_type = self._udts.get(name)
        if user_type is None:
            self._fail(f"names the type {quote_identifier(name)}, which is neither native nor in this keyspace")
        if name in self._within:
            self._fail(f"names the user type {quote_identifier(name)}, which contains itself")
        within = (*self._within, name)
        args = tuple(_Parser(text, self._udts, within).parse() for text in user_type.field_types)
        if len(args) != len(user_type.field_names):
            self._fail(f"names {quote_identifier(name)}, whose field names and types differ in number")
        return CqlType("udt", args, fields=user_type.field_names, label=name)

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        if token is None:
            self._fail("ends too early")
        self._next += 1
        return token

    def _expect(self, mark: str) -> None:
        if self._take() != ("mark", mark):
            self._fail(f"lacks a {mark!r}")

    def _fail(self, what: str) -> NoReturn:
        msg = f"The CQL type {self._text!r} {what}."
        raise UnknownTypeError(msg)
