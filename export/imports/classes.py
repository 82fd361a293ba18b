"""Class names in the order of the logits, however they are given. No torch, no onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import parse_json

HINT = "--classes CNV,DME,NORMAL, a file with one name a line, or a JSON with a list, id2label or label_names"
MOST = 1 << 20  # bytes


def read_classes(given: str) -> tuple[str, ...]:
    """Names of `--classes`: separated by commas, or a file: one a line, a JSON list, {"0": name, ...}, config.json of
    transformers (id2label) or of timm (label_names).

    Raises:
        OctcError: E104 the file holds no names.

    >>> read_classes("CNV, DME,NORMAL")
    ('CNV', 'DME', 'NORMAL')
    """
    path = Path(given)
    try:
        if "," in given or not path.is_file():
            return tuple(part.strip() for part in given.split(","))
        text = path.read_text("utf-8-sig")
        if path.suffix.lower() == ".json" or text.lstrip().startswith(("[", "{")):
            return tuple(map(str, _of_json(parse_json(text.encode(), MOST))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OctcError("OCT-E104", f"no class names in {given}: {error}", hint=HINT, place="--classes") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _of_json(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    inner = value.get("pretrained_cfg") if isinstance(value.get("pretrained_cfg"), dict) else {}
    for holder in (value, inner):
        if isinstance(holder.get("label_names"), list):
            return list(holder["label_names"])
    named = value.get("id2label", value)
    order = sorted(int(key) for key in named)
    if order != list(range(len(order))):
        raise ValueError(f"numbers of classes are {order}, not 0, 1, ...")
    return [named[str(k)] for k in order]
