"""The rooms of consistency/ and of repair/ import in one direction; nothing stands outside of them but what may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = (
    "errors",
    "private",
    "model",
    "cluster",
    "results",
    "ledger",
    "rows",
    "auditing",
    "checking",
    "comparing",
    "spreading",
    "background",
    "watching",
    "api",
    "cli",
)
REPAIRS_ROOMS = ("writing", "deciding", "keeping", "planning", "applying", "undoing", "api", "sync", "nightly", "cli")
"""From the lowest to the highest: each may import from itself and from those before it."""


def imports(package: str) -> Iterator[tuple[str, str, str]]:
    """Yield the room of every module, the room that it imports from, and both in words."""
    for path in sorted((ROOT / package).rglob("*.py")):
        inside = path.relative_to(ROOT / package)
        room = inside.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                top, *rest = node.module.split(".")
                if top == package and rest:
                    yield room, rest[0], f"{inside} imports {node.module}"


@pytest.mark.parametrize(("package", "rooms"), [("consistency", ROOMS), ("repair", REPAIRS_ROOMS)])
def test_no_room_imports_from_a_higher_one(package: str, rooms: tuple[str, ...]) -> None:
    """What is asked for low down never depends on who asks."""
    inside = [(room, other, words) for room, other, words in imports(package) if room in rooms]
    assert len(inside) > 150
    assert not [words for room, other, words in inside if rooms.index(other) > rooms.index(room)]


def test_nothing_but_rooms_and_what_everybody_needs_lies_on_the_top_floor() -> None:
    """At most six files; every directory is a room that says its duty."""
    top = ROOT / "consistency"
    assert sorted(path.stem for path in top.glob("*.py")) == [
        "__init__",
        "__main__",
        "api",
        "background",
        "errors",
        "private",
    ]
    assert sorted(path.stem for path in (ROOT / "repair").glob("*.py")) == ["__init__", "api"]
    for place, rooms in ((top, ROOMS), (ROOT / "repair", REPAIRS_ROOMS)):
        for room in (path for path in place.iterdir() if path.is_dir() and path.name != "__pycache__"):
            assert room.name in rooms
            assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), room


def test_only_the_command_line_of_repairs_shows_anything() -> None:
    """What is planned, kept and written asks nothing of a terminal."""
    for path in (ROOT / "repair").rglob("*.py"):
        if path.parent.name != "cli":
            assert "from consistency.cli" not in path.read_text(), path


def test_the_map_names_every_room() -> None:
    """ARCHITECTURE.md has a line for each, and the modules that it names are there."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for room in (*ROOMS, *REPAIRS_ROOMS):
        assert f"`{room}/`" in text or f"`{room}.py`" in text, room
    named = [word.split(":")[0] for word in text.split("`")[1::2] if ".py" in word and "/" in word]
    assert len(named) > 30
    for name in named:
        assert any((ROOT / start / name).is_file() for start in ("", "consistency", "repair")), name
