"""What holds for every shipped module: who imports whom, who prints, how long things get, what is said of them."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from consistency.cli import COMMANDS
from tests.house.source import ROOT, Function, Module, listed, modules, tracked_files

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 70
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
DRIVER_MODULE = "consistency/cluster/driver.py"

SWALLOWING = {
    "consistency/model/schema.py": (1, "a table that cannot be described becomes unknown, the others are checked"),
    "consistency/background.py": (1, "it is kept, and raised in the thread of whoever takes the findings"),
    "consistency/cluster/waits.py": (1, "it is handed over, and raised where the thread's result is awaited"),
    "consistency/cli/worker.py": (2, "the driver is told: a unit is unknown, or the worker could not begin"),
    "consistency/spreading/dask_side.py": (1, "the driver is told, and the unit is unknown"),
    "consistency/cli/group.py": (1, "the last line of defence: an operator gets one line, not a traceback"),
}
"""Broad excepts that do not raise again, by module: how many, and why that is right there."""


def test_only_one_module_imports_the_driver() -> None:
    """Everything the driver raises, decodes and retries passes through one seam."""
    found = {m.place for m in modules() if any(_top(name) == "cassandra" for _, name in m.imports)}
    assert found <= {DRIVER_MODULE}, listed(sorted(found), f"import cassandra in {DRIVER_MODULE} alone; wrap there:")


def test_consistency_imports_neither_repair_nor_sandbox() -> None:
    """What checks a cluster cannot write to it; the command table names the other packages as strings."""
    found = [
        f"{m.place}:{line} imports {name}"
        for m in modules("consistency")
        for line, name in m.imports
        if _top(name) in {"repair", "sandbox"}
    ]
    assert not found, listed(found, "depend the other way round, or load it by the table in consistency/cli/:")


def test_sandbox_imports_no_checker_and_no_repair() -> None:
    """A sandbox starts clusters for anyone; only its demo may use the checker."""
    found = [
        f"{m.place}:{line} imports {name}"
        for m in modules("sandbox")
        if not m.name.startswith("sandbox.demo")
        for line, name in m.imports
        if _top(name) in {"repair", "consistency"}
    ]
    assert not found, listed(found, "keep the sandbox free of the checker; only sandbox/demo uses it:")


def test_only_the_command_line_prints_or_exits() -> None:
    """A library returns and raises; what is printed and which code is returned is the command line's to say."""
    found = [
        f"{m.place}:{call.lineno} {_called(call)}()"
        for m in modules()
        if not _of_the_command_line(m)
        for call in _calls_outside_main_guard(m.tree)
        if _called(call) in {"print", "exit", "quit", "SystemExit", "sys.exit", "os._exit", "click.echo"}
    ]
    assert not found, listed(found, "return a value or raise a ConsistencyError, and let the command print it:")


def test_modules_are_named_for_what_is_in_them() -> None:
    """A module named for nothing collects everything."""
    found = [m.place for m in modules() if m.path.stem in VAGUE_NAMES]
    assert not found, listed(found, "name the module for the noun it is about:")


def test_modules_and_functions_stay_short() -> None:
    """A module is read in one sitting, a function on one screen; a docstring does not count."""
    found = [
        f"{m.place} has {len(m.lines)} lines, {MAX_MODULE_LINES} are allowed"
        for m in modules()
        if len(m.lines) > MAX_MODULE_LINES
    ]
    found += [
        f"{m.place}:{f.lineno} {f.name} has {_length(f)} lines, {MAX_FUNCTION_LINES} are allowed"
        for m in modules()
        for f in m.functions
        if _length(f) > MAX_FUNCTION_LINES
    ]
    assert not found, listed(found, "split by noun: give the second thing it deals with a place of its own:")


def test_what_is_public_has_a_docstring() -> None:
    """Every public module, class and function says what it is for."""
    found = [f"{m.place}:{line} {name}" for m in modules() for line, name in _undocumented(m)]
    assert not found, listed(found, "say in one sentence what it is, or give it a leading underscore:")


def test_nothing_is_left_for_later() -> None:
    """Shipped code holds no notes to ourselves."""
    note = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    found = [f"{m.place}:{i}" for m in modules() for i, line in enumerate(m.lines, 1) if note.search(line)]
    assert not found, listed(found, "do it now, or write it down where the project keeps its plans:")


def test_no_except_is_bare() -> None:
    """A bare except also catches the interrupt that should end the run."""
    found = [f"{m.place}:{h.lineno}" for m in modules() for h in _handlers(m) if h.type is None]
    assert not found, listed(found, "name what is caught:")


def test_every_broad_except_raises_again_or_is_listed_with_its_reason() -> None:
    """A swallowed error is how a checker comes to say 'consistent' of what it never read."""
    found = [(m, h) for m in modules() for h in _handlers(m) if _is_broad(h) and not _raises_again(h)]
    silent = [
        f"{m.place}:{h.lineno}" for m, h in found if not re.search(r"# noqa: BLE001 - \S+", m.lines[h.lineno - 1])
    ]
    assert not silent, listed(silent, "catch something narrower, or write '# noqa: BLE001 - reason' on the line:")
    counts = dict(Counter(m.place for m, _ in found))
    allowed = {place: count for place, (count, _) in SWALLOWING.items()}
    assert counts == allowed, "the list SWALLOWING in this test must name exactly the broad excepts there are"


def test_no_path_of_one_machine_is_written_down() -> None:
    """What is tracked works on every machine; temporary places come from tempfile."""
    roots = "|".join(("home", "root", "work", "tmp", "Users"))  # noqa: FLY002 - this file is searched too
    path = re.compile(rf"(?<![\w.~$}}/-])/(?:{roots})/")
    found = [line for line in _tracked_lines(path) if not line.startswith("tests/")]
    assert not found, listed(found, "take the path from an option, the environment, or tempfile:")


def test_no_registry_host_is_written_down() -> None:
    """Where packages and jars come from is the machine's own setting."""
    hosts = (
        ("pypi", "org"),
        ("files", "pythonhosted"),
        ("repo1", "maven"),
        ("repo", "maven"),
        ("maven", "org"),
        ("central", "sonatype"),
        ("registry", "npmjs"),
        ("static", "crates"),
        ("proxy", "golang"),
    )
    found = _tracked_lines(re.compile("|".join(rf"\b{a}\.{b}\b" for a, b in hosts)))
    assert not found, listed(found, "leave the host out: pip, jgo and their mirrors are configured outside:")


def _top(name: str) -> str:
    return name.split(".", 1)[0]


def _of_the_command_line(module: Module) -> bool:
    commands = {place.partition(":")[0] for place in COMMANDS.values()}
    return (
        module.place.startswith(("consistency/cli/", "repair/cli"))
        or module.path.name == "__main__.py"
        or module.name in commands
    )


def _calls_outside_main_guard(tree: ast.Module) -> Iterator[ast.Call]:
    """Yield calls, but for those below `if __name__ == "__main__"`: there a module is a program of its own."""
    for statement in tree.body:
        if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
            continue
        yield from (node for node in ast.walk(statement) if isinstance(node, ast.Call))


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func) if isinstance(call.func, ast.Name | ast.Attribute) else ""


def _length(function: Function) -> int:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def _undocumented(module: Module) -> Iterator[tuple[int, str]]:
    """Yield what is public and says nothing: a magic method is documented by its class."""
    if ast.get_docstring(module.tree) is None:
        yield 1, "the module"
    pending: list[ast.Module | ast.ClassDef] = [module.tree]
    while pending:
        for node in pending.pop().body:
            if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None and not _is_overload(node):
                yield node.lineno, node.name
            if isinstance(node, ast.ClassDef):
                pending.append(node)


def _is_overload(node: ast.ClassDef | Function) -> bool:
    return any(ast.unparse(decorator) in {"overload", "typing.overload"} for decorator in node.decorator_list)


def _handlers(module: Module) -> Iterator[ast.ExceptHandler]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler))


def _is_broad(handler: ast.ExceptHandler) -> bool:
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(name is not None and ast.unparse(name) in {"Exception", "BaseException"} for name in names)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    return isinstance(handler.body[-1], ast.Raise)


def _tracked_lines(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT).as_posix()}:{i}: {line.strip()[:100]}"
        for path in tracked_files()
        for i, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
