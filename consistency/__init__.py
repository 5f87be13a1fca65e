"""Prove that the replicas of a Cassandra cluster hold the same rows.

As a library: `from consistency import audit, check`; see `consistency.api`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consistency.api import audit, check  # noqa: TC004 - exported lazily, see below

__version__ = "0.1.0"

__all__ = ["__version__", "audit", "check"]

_LIBRARY = frozenset({"audit", "check"})


class _Package(ModuleType):
    """Exports the library's functions on first use, so that importing the package does not load the driver.

    Two of them are named like the module that does the work. Python binds a submodule to its package when it
    is imported, which would put the module in the function's place; that binding is left out here. The
    modules stay importable: `from consistency.check import run_check`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _LIBRARY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _LIBRARY:
            return getattr(importlib.import_module("consistency.api"), name)
        msg = f"module {self.__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_LIBRARY})


sys.modules[__name__].__class__ = _Package
