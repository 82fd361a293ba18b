"""`octc --version`: the version; with `--json` also those of the installed libraries, without importing them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from octc.core.version import own_version


def found(names: tuple[str, ...]) -> dict[str, str | None]:
    """Distribution name -> version, or None if it is not installed."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def version_json() -> dict[str, object]:
    """`octc --version --json`."""
    from octc.machine.host import libraries
    from octc.machine.package_conflicts import SAME_MODULE

    names = tuple(dict.fromkeys((*libraries(), *(name for group in SAME_MODULE for name in group))))[1:]  # octc is the first
    return {"octc": own_version(), "python": platform.python_version(), "libraries": found(names)}
