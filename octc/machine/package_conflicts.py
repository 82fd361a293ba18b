"""Do the versions of installed packages fit each other? Read from their metadata; nothing is imported and nothing is asked.

Requirements are read by the library `packaging` where it is installed (ONNX Runtime and timm bring it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from octc.core.optional import have

# where the search begins; what these need is followed
ROOTS = (
    "octc", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "openvino", "ai-edge-litert", "tensorrt", "torch",
    "torchvision", "timm", "accelerate", "onnx", "onnxscript", "nvidia-modelopt", "nncf", "torch-tensorrt",
    "brevitas", "polygraphy",
)  # fmt: skip
# distributions that bring the same module: the one that was installed last has overwritten the others
SAME_MODULE = (("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),)


@dataclass(frozen=True)
class Conflict:
    """A package whose version (None: not installed) is not what others need.

    needs: (who, what), those that are not met first, for example ("nvidia-modelopt 0.11", "torch<2.5").
    """

    name: str
    version: str | None
    needs: tuple[tuple[str, str], ...]
    unmet: int

    def message(self) -> str:
        """What is there, and both requirements."""
        have_it = f"{self.name} {self.version} is installed" if self.version else f"{self.name} is not installed"
        return f"{have_it}; {', '.join(f'{who} needs {what}' for who, what in self.needs)}"

    def hint(self) -> str:
        """Another version where everybody can be content with one, else an environment of its own."""
        own = [what for who, what in self.needs[: self.unmet] if who.startswith("octc ")]
        if self.unmet == len(self.needs) or own:
            return f"pip install '{(own or [self.needs[0][1]])[0]}'"
        strangers = ", ".join(dict.fromkeys(who.split()[0] for who, _ in self.needs[: self.unmet]))
        return f"keep {strangers} in an environment of its own: python -m venv"


def can_check() -> bool:
    """Whether the library that reads requirements is here."""
    return have("packaging")


def find_conflicts(roots: Iterable[str] = ROOTS) -> list[Conflict]:
    """Installed packages that do not fit each other, by name.

    Of octc itself the extras count too, but only for what is installed: an extra that is not there is no conflict.
    """
    look = cache(_installed)
    demands: dict[str, list[tuple[str, Any, bool]]] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(_plain(name), frozenset()) for name in roots]
    while waiting:
        name, extras = waiting.pop()
        found = look(name)
        if found is None or (name, extras) in done:
            continue
        done.add((name, extras))
        who = f"{name} {found.version}"
        for requirement, optional in _requirements(found, extras, every=name == "octc"):
            demands.setdefault(_plain(requirement.name), []).append((who, requirement, optional))
            waiting.append((_plain(requirement.name), frozenset(requirement.extras)))
    return [conflict for name in sorted(demands) if (conflict := _judge(name, look(name), demands[name])) is not None]


def same_module() -> list[tuple[str, ...]]:
    """Groups of installed distributions that overwrite each other."""
    groups = (tuple(name for name in names if _distribution(name) is not None) for names in SAME_MODULE)
    return [group for group in groups if len(group) > 1]


@dataclass(frozen=True)
class _Installed:
    """What a distribution on this machine says of itself; each question to `importlib.metadata` reads its file anew."""

    name: str
    version: str
    requires: tuple[str, ...]
    extras: tuple[str, ...]


def _installed(name: str) -> _Installed | None:
    found = _distribution(name)
    if found is None:
        return None
    told = found.metadata
    return _Installed(told["Name"], told["Version"], (*(found.requires or ()),), (*(told.get_all("Provides-Extra") or ()),))


def _judge(name: str, found: _Installed | None, demands: list[tuple[str, Any, bool]]) -> Conflict | None:
    version = None if found is None else found.version
    unmet: dict[tuple[str, str], None] = {}  # a set that keeps its order
    met: dict[tuple[str, str], None] = {}
    for who, requirement, optional in demands:
        shown = f"{name}{requirement.specifier}"
        if version is None:
            if not optional:
                unmet[who, shown] = None
        elif requirement.specifier.contains(version, prereleases=True):
            if requirement.specifier:
                met[who, shown] = None
        else:
            unmet[who, shown] = None
    return Conflict(name, version, (*unmet, *met), len(unmet)) if unmet else None


def _requirements(found: _Installed, extras: frozenset[str], *, every: bool) -> Iterator[tuple[Any, bool]]:
    """(requirement, whether an extra brings it) of a distribution on this machine."""
    from packaging.requirements import InvalidRequirement, Requirement

    own = {*found.extras} - {"dev"} if every else set()
    for text in found.requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if _plain(requirement.name) == _plain(found.name):
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield requirement, False
        elif any(marker.evaluate({"extra": extra}) for extra in (*extras, *own)):
            yield requirement, every


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
