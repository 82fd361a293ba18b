"""The version of octc, from its metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The version of octc, from its metadata."""
    try:
        return version("octc")
    except PackageNotFoundError:
        return "0+unknown"
