"""Which module and line of a network torch's exporter failed at."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import fx, nn

FOREIGN = tuple(str(Path(torch.__file__).parent.parent / name) for name in ("torch", "onnxscript", "onnx_ir", "timm"))
LINE = re.compile(r'File "([^"]+)", line (\d+), in \S+\n\s*(.*)')
WRAPPED = "model."  # what a network is below octc's input


def failed_at(error: BaseException, model: nn.Module) -> tuple[str, str]:
    """Where torch's exporter failed, in words, and the name of the module ("" where they are not known).

    model: what was exported, with the network below `model`.
    """
    frames = [frame for one in _causes(error) for frame in _frames(one.__traceback__)]
    nodes = [one for frame in frames if isinstance(one := frame.f_locals.get("node"), fx.Node)]
    if nodes:
        node = nodes[0]
        *_, (name, kind) = ("", ""), *(entry[:2] for entry in node.meta.get("nn_module_stack", {}).values())
        lines = LINE.findall(str(node.meta.get("stack_trace") or ""))
        return _words(name, str(kind), lines, f"operator {node.target}"), name.removeprefix(WRAPPED)
    names = {id(part): name for name, part in model.named_modules()}
    inside = [one for frame in frames if id(one := frame.f_locals.get("self")) in names]
    name, kind = (names[id(inside[-1])], type(inside[-1]).__name__) if inside else ("", "")
    found = [one for cause in _causes(error) for one in traceback.extract_tb(cause.__traceback__)]
    return _words(name, kind, [(one.filename, str(one.lineno), one.line or "") for one in found], ""), name.removeprefix(
        WRAPPED
    )


def _words(name: str, kind: str, lines: list[tuple[str, str, str]], what: str) -> str:
    own = [one for one in lines if not one[0].startswith((*FOREIGN, str(Path(__file__).parents[1]))) and Path(one[0]).is_file()]
    at = f"{Path(own[-1][0]).name}:{own[-1][1]}: {own[-1][2]}" if own else ""
    module = f"{name.removeprefix(WRAPPED)} ({kind.rpartition('.')[2]})" if name else ""
    return ", ".join(one for one in (module, at, what) if one)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was made of, the first one last."""
    while error is not None:
        yield error
        error = error.__cause__


def _frames(trace: TracebackType | None) -> Iterator[Any]:
    return (frame for frame, _line in traceback.walk_tb(trace))
