"""The project's files as the house rules see them: shipped modules as syntax trees, tracked files as text."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("consistency", "repair", "sandbox")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One module of a shipped package."""

    path: Path

    @property
    def place(self) -> str:
        """Its path below the project's root, as messages name it."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def name(self) -> str:
        """Its dotted name."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def text(self) -> str:
        """Its source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def lines(self) -> list[str]:
        """Its source by line."""
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, self.place)

    @property
    def functions(self) -> Iterator[Function]:
        """Every function and method in it, nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    @property
    def imports(self) -> Iterator[tuple[int, str]]:
        """Every module that it imports anywhere, with the line; a relative import is resolved."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.lineno, name) for name in self._imported_from(node))

    def _imported_from(self, node: ast.ImportFrom) -> Iterator[str]:
        package = self.name.split(".") if self.path.name == "__init__.py" else self.name.split(".")[:-1]
        base = package[: len(package) - node.level + 1] if node.level else []
        origin = ".".join([*base, *([node.module] if node.module else [])])
        yield origin
        yield from (f"{origin}.{alias.name}" for alias in node.names)


@cache
def modules(*packages: str) -> tuple[Module, ...]:
    """Return the modules of the packages named, or of all that are shipped."""
    roots = [ROOT / package for package in packages or PACKAGES]
    return tuple(Module(path) for root in roots for path in sorted(root.rglob("*.py")))


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return every text file that git knows of, those just added too."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    paths = [ROOT / name for name in listed if name]
    return tuple(path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192])


def text_of(*places: str) -> str:
    """Return a project file's text."""
    return ROOT.joinpath(*places).read_text(encoding="utf-8")


def listed(found: list[str], remedy: str) -> str:
    """Return an assertion's message: what was found, a line each, and what to do about it."""
    return "\n".join([remedy, *(f"  {line}" for line in found)])
