"""What was changed in the structure of a network, as data: enough to build the same structure anew and load its weights.

It stands in `model_kwargs` of a checkpoint and of the student of a recipe, under the name `simplified`, step after step.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from octc.schemas.common import Count, Document, Table, builtins, convert

KEY = "simplified"
ACTIVATIONS = ("hard-swish", "relu")
Names = Annotated[list[str], Meta(min_length=1)]


class ActivationStep(Document, tag="activation", tag_field="step", forbid_unknown_fields=True):
    """Activations that were replaced. modules: their names in the network."""

    to: Literal["hard-swish", "relu"]
    modules: Names


class GateStep(Document, tag="squeeze-excite", tag_field="step", forbid_unknown_fields=True):
    """Squeeze-excite modules that were taken out; the modules do nothing since."""

    modules: Names


class Coupled(Document, forbid_unknown_fields=True):
    """Channels that went together. removed: their indices in layers that give them (`out`) and that read them (`into`)."""

    removed: Annotated[list[Count], Meta(min_length=1)]
    out: list[str]
    into: list[str]


class ChannelStep(Document, tag="channels", tag_field="step", forbid_unknown_fields=True):
    """Channels that were removed. The indices are those of the network as it was before this step."""

    groups: Annotated[list[Coupled], Meta(min_length=1)]


Step = ActivationStep | GateStep | ChannelStep


def words_of(steps: list[Step]) -> str:
    """ "44 squeeze-excite out, channels out"."""
    return ", ".join(_words(step) for step in steps)


def _words(step: Step) -> str:
    if isinstance(step, ActivationStep):
        return f"{len(step.modules)} activations {step.to}"
    return f"{len(step.modules)} squeeze-excite out" if isinstance(step, GateStep) else "channels out"


def read_steps(value: Any) -> list[Step]:
    """Steps from JSON (ValueError where they are none)."""
    return convert(value, list[Step])


def steps_json(steps: list[Step]) -> list[Table]:
    """Steps as plain JSON values."""
    return [builtins(step) for step in steps]
