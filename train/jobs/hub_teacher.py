"""A teacher of a hub or of a file in timm's form: network, classes, normalisation and licence as its config.json states them.

`hub:OWNER/NAME` names a repository of the Hugging Face hub with `config.json` and `model.safetensors`, as timm writes them
(`timm.models.push_to_hf_hub`). It is read from the hub's cache; --fetch-weights lets it be downloaded once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.core.optional import need
from octc.imaging.preprocess import Preprocess
from octc.train.networks.weights import hub_network

HUB = "hub:"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
LICENCES = ("license", "licence")


@dataclass(frozen=True)
class Card:
    """What config.json states of a network; None where it says nothing.

    Attributes:
        source: where it comes from, for the lineage. classes: names in the order of the outputs.
        mean, std: of RGB in [0, 1]; size: pixels of a side. licence: its tag, which may be wrong (docs/licences.md).
    """

    source: str
    architecture: str | None = None
    classes: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    licence: str | None = None

    def prepared(self, before: Preprocess) -> Preprocess:
        """A preprocessing with the size and the normalisation that are stated."""
        known: dict[str, Any] = {"size": self.size, "mean": self.mean, "std": self.std}
        return replace(before, **{key: value for key, value in known.items() if value is not None})


def from_hub(name: str, fetch: bool) -> tuple[Path, Card]:
    """The weights of `hub:OWNER/NAME` on this machine, and what its config.json states.

    Raises:
        OctcError: E104 no such form of a name; E310 not in the cache, and not to be fetched; E307 a config.json that is none.
    """
    repository = name.removeprefix(HUB)
    if not NAME.fullmatch(repository):
        raise OctcError("OCT-E104", f"--teacher {name}", hint="--teacher hub:OWNER/NAME", place="--teacher")
    hub = need("huggingface_hub")
    try:
        with hub_network(fetch):
            found = [Path(hub.hf_hub_download(repository, file)) for file in (CONFIG, WEIGHTS)]
    except (OSError, ValueError, RuntimeError) as error:
        text, why = f"{repository} is not on disk", (str(error).splitlines() or [""])[0][:200]
        hint = "--fetch-weights downloads it from the hub once; --teacher FILE takes a file"
        raise OctcError("OCT-E310", text, hint=hint, why=why) from error
    return found[1], read_card(found[0], f"hub {repository}")


def beside(file: Path) -> Card | None:
    """What a config.json in the folder of a weights file states, where it is one of timm's; None without."""
    path = file.parent / CONFIG
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return read_card(path, f"file {file.name}") if isinstance(value, dict) and "architecture" in value else None


def read_card(path: Path, source: str) -> Card:
    """timm's config.json (E307 for what cannot be one)."""
    try:
        value: Mapping[str, Any] = read_json(path)
        inner: Mapping[str, Any] = value.get("pretrained_cfg") or {}
        names = value.get("label_names") or inner.get("label_names")
        licence = next((str(one[key]) for one in (inner, value) for key in LICENCES if one.get(key)), None)
        size = inner.get("input_size")
        return Card(
            source,
            str(value["architecture"]),
            None if names is None else tuple(str(one) for one in names),
            _three(inner.get("mean")),
            _three(inner.get("std")),
            None if size is None else int(size[-1]),
            licence,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"config.json is not one of timm's: {error}"
        raise OctcError("OCT-E307", text, hint="--teacher FILE --teacher-model NAME", place=str(path)) from error


def _three(values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    found = tuple(float(value) for value in values)
    if len(found) != 3:
        raise ValueError(f"{len(found)} values of a mean or a deviation")
    return found
