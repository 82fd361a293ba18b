"""Options and documents of `octc simplify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from octc.core.errors import OctcError
from octc.core.options import LEAST, MOST, check_choices, described, option, spelled
from octc.schemas.common import Count, Document, Sha256, Table
from octc.schemas.simplified import ACTIVATIONS
from octc.schemas.training import DEVICES, PRECISIONS


@dataclass(frozen=True)
class SimplifyOptions:
    """Options of `octc.simplify_run`: the steps, and how the student is tuned after each one.

    Attributes:
        activation: replaces SiLU, GELU and Mish. no_se: remove squeeze-excite.
        prune: share of the channels to remove. budget: milliseconds allowed for INT8 on this machine; determines the share.
        epochs: of distillation after each step; None: a quarter of the recipe's, at least one.
        margin: of the gate on the validation set against the original student, percentage points.
        qat: quantisation-aware tuning afterwards. resume: a stopped run of this job ("newest": the last one).
    """

    activation: str | None = option(None, choices=ACTIVATIONS, shown="Replacement of SiLU, GELU and Mish: hard-swish or relu")
    no_se: bool = option(False, names=("--no-se",), shown="Remove squeeze-excite; its mean gates are folded into the weights")
    prune: float | None = option(None, metavar="SHARE", shown="Share of the channels to prune, up to 0.75")
    budget: float | None = option(
        None, metavar="MS", shown="Prune as much as INT8 needs to run in this time on this machine, milliseconds"
    )
    epochs: int | None = option(
        None, within=(1, None), shown="Epochs of distillation after each step (a quarter of the recipe's)"
    )
    margin: float = option(1.0, shown="Gate: largest accepted loss of accuracy of a step, percentage points")
    qat: bool = option(True, names=("--qat/--no-qat",), shown="Quantisation-aware training afterwards")
    device: str = option("auto", shown=f"Device for training: {DEVICES}")
    precision: str = option("auto", choices=PRECISIONS, shown=f"Floating-point format: {', '.join(PRECISIONS)}")
    resume: str | None = option(
        None, metavar="[RUN]", shown="Resume an unfinished run of this command (the newest without RUN)"
    )

    def check(self) -> None:
        """Check the options before anything is read (OctcError E102, E104)."""
        check_choices(self)
        for one in described(self):
            value, least, most = getattr(self, one.name), one.metadata[LEAST], one.metadata[MOST]
            if value is not None and ((least is not None and value < least) or (most is not None and value > most)):
                text = f"{spelled(one)} {value} is out of range"
                raise OctcError("OCT-E104", text, hint=f"from {least:g}", place=spelled(one))
        if self.prune is not None and not 0 < self.prune <= 0.75:
            raise OctcError("OCT-E104", f"--prune {self.prune:g}", hint="a share above 0, at most 0.75", place="--prune")
        if self.budget is not None and not self.budget > 0:
            raise OctcError("OCT-E104", f"--budget {self.budget:g}", hint="milliseconds above 0", place="--budget")
        if self.prune is not None and self.budget is not None:
            text = "--prune and --budget both choose the share of channels to prune"
            raise OctcError("OCT-E102", text, hint="leave out one of them", place="--budget")
        named = self.activation or self.no_se or self.prune is not None or self.budget is not None
        usual = {one.name: one.default for one in described(self)}
        other = [name for name in ("epochs", "margin", "qat") if getattr(self, name) != usual[name]]
        if self.resume is not None and (named or other):
            text = "a resumed run keeps its own options"
            raise OctcError("OCT-E102", text, hint="octc simplify --resume RUN, without the other options", place="--resume")
        if self.resume is None and not named:
            hint = "--activation hard-swish, --no-se, --prune 0.5 or --budget MS"
            raise OctcError("OCT-E102", "no simplification is requested", hint=hint)

    def stored(self) -> dict[str, Any]:
        """The options that determine the result, for run.json."""
        names = ("activation", "no_se", "prune", "budget", "epochs", "margin", "qat")
        return {name: getattr(self, name) for name in names}


class StepTaken(Document, kw_only=True):
    """A step, what it changed, and whether it stays. gate: what the gate decided on the validation set."""

    step: Literal["activation", "squeeze-excite", "channels"]
    kept: bool
    word: str
    facts: Table
    gate: Table


class SimplifyPlan(Document, kw_only=True):
    """A dry run. found: what the steps would change, counted."""

    dry_run: Literal[True]
    source: str
    steps: list[str]
    found: Table
    epochs: Count


class Network(Document):
    sha256: Sha256
    metrics: Table
    folder: str


class SimplifiedRun(Document, kw_only=True):
    """A run that was made simpler.

    With a budget: measured: shares of channels and times, which chose the share. ms: of what was kept; within_budget: whether
    that is at most budget_ms.
    """

    source: str
    steps: list[StepTaken]
    train: Network
    measured: list[dict[str, float]] | UnsetType = UNSET
    budget_ms: float | UnsetType = UNSET
    ms: float | UnsetType = UNSET
    within_budget: bool | UnsetType = UNSET
    qat: Network | UnsetType = UNSET
