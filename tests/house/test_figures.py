"""How a figure stands in a sentence: one of a thing is never `1 rows`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.house.source import Module, listed, modules

_THINGS = (
    "attempts cells columns copies deletes digests errors events findings keyspaces leaves lines nodes pages partitions"
    " pieces queries ranges replicas requests rows rules runs sessions tables tokens units values violations warnings"
    " workers"
)
_PLURAL = re.compile(rf"^ (?:[a-z]*[a-rt-z] )?(?:{_THINGS.replace(' ', '|')})\b(?!/)")
_DO = "agree are carry differ disagree do have hold lack lie remain share stay wait were"
_VERB = re.compile(rf"^ (?:[a-z ]*that )?(?:{_DO.replace(' ', '|')})\b")
_NEVER_ONE = {"short", "_figure", "percent"}
"""What writes a figure that is rounded or not whole, which takes the plural."""
_CONSTANT = re.compile(r"(?:\w+\.)*_?[A-Z][A-Z_0-9]+")
"""A constant that is not 1."""


def test_a_figure_before_a_plural_is_written_by_counted() -> None:
    """`counted(n, "row")`, or `counted(n, "row waits", "rows wait")` where a verb follows, knows one from many."""
    found = [f"{m.place}:{line}: {text}" for m in _modules() for line, text in _bare_plurals(m)]
    assert not found, listed(found, "write it with consistency/results/figures.py: counted:")


def _modules() -> Iterator[Module]:
    """Yield the modules that may import `counted`; those below it have a figure follow its noun: `nodes: 1`."""
    below = ("consistency/model/", "consistency/cluster/")
    return (module for module in modules("consistency", "repair") if not module.place.startswith(below))


def _bare_plurals(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        for figure, text in zip(node.values, node.values[1:], strict=False):
            if not (isinstance(figure, ast.FormattedValue) and isinstance(text, ast.Constant)):
                continue
            said = str(text.value)
            if _is_of_many(figure.value, said) or _does_as_many(figure, said):
                yield figure.lineno, f"{{{ast.unparse(figure.value)}}}{said[:30]}"


def _is_of_many(figure: ast.expr, text: str) -> bool:
    if not _PLURAL.match(text) or _CONSTANT.fullmatch(ast.unparse(figure)):
        return False
    called = ast.unparse(figure.func).rpartition(".")[2] if isinstance(figure, ast.Call) else ""
    return called not in {"counted", *_NEVER_ONE}


def _does_as_many(figure: ast.FormattedValue, text: str) -> bool:
    """Whether a verb of many follows a figure, or what was counted without its verb."""
    value = figure.value
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "counted":
        return len(value.args) == 2 and _VERB.match(text) is not None
    return bool(figure.format_spec) and ast.unparse(figure.format_spec) == "f','" and _VERB.match(text) is not None
