"""Packages that are functions too: `octc.export(...)` is called, and `octc.export.pipeline` is imported.

A package and a public function cannot both be the attribute `export` of `octc`: whichever is bound last wins, and importing any
module below the package binds the package. So the package itself can be called.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def callable_package(package: str, home: str, function: str) -> None:
    """Let the module `package` be called as `function` of the module `home`, which is imported at the first call."""

    def target() -> Any:
        return getattr(import_module(home), function)

    class Package(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return target()(*args, **kwargs)

        @property
        def __doc__(self) -> str | None:  # type: ignore[override]
            """`help(octc.train)` is the help of the function; that of the package where its libraries are not installed."""
            try:
                return inspect.getdoc(target())
            except ImportError:
                return str(vars(self)["__doc__"])

        @property
        def __signature__(self) -> inspect.Signature:
            return inspect.signature(target())

        @property
        def __wrapped__(self) -> Any:
            return target()

    sys.modules[package].__class__ = Package
