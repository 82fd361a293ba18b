"""Settings that are fixed before a candidate is tested: margins, level, claim (docs/parity.md, sections 1 and 4). They are
options of commands, so this module imports no numerical library; `planned_power` computes the power."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from octc.core.errors import OctcError
from octc.core.options import check_choices, option

CLAIMS = ("ni", "tost")
TIERS = {"99": (99, 100), "99.9": (999, 1000)}  # minimum candidate hits as a fraction of the reference's


@dataclass(frozen=True)
class ParityOptions:
    """The settings of a verdict: margins, level and claim. `octc.Gate` is this class.

    Attributes:
        alpha: two-sided level; 0.05 gives 95 % intervals.
        margin, class_margin: largest acceptable loss of accuracy, and of the sensitivity of any class, in percentage points.
            They are independent: setting one leaves the other at its default. Both are printed and recorded.
        claim: "ni" (non-inferiority decides) or "tost" (only equivalence ends with 0).
        tier: "99" or "99.9", the accuracy floor.
        ece_slack: how far the ECE may rise, as a fraction.
        bootstrap, seed: patient resamples and their seed.
        plan_discordance: planned share of discordant pairs as a fraction; None takes it from the validation set, else 2 %.
        plan_icc: planned intra-patient correlation; None as above, else 0.5.
        auc_margin: largest acceptable loss of the mean area under the ROC curves, percentage points; None: it does not decide.

    Raises:
        OctcError: E104 a value out of range.

    >>> ParityOptions(margin=2).class_margin
    3.0
    """

    alpha: float = option(0.05, shown="Two-sided level; 0.05 gives 95 % intervals")
    margin: float = option(1.0, shown="Largest acceptable loss of accuracy, percentage points")
    class_margin: float = option(3.0, shown="Largest acceptable loss of sensitivity per class, percentage points")
    claim: str = option("ni", names=("--test",), choices=CLAIMS, shown="Claim: ni (non-inferior) or tost (equivalent)")
    tier: str = option("99", choices=tuple(TIERS), shown="Minimum correct images relative to the reference, percent")
    ece_slack: float = option(0.005, shown="Largest acceptable rise of the calibration error (ECE), as a fraction")
    bootstrap: int = option(10_000, shown="Number of patient bootstrap resamples")
    seed: int = option(0, shown="Random seed of the resamples")
    plan_discordance: float | None = option(
        None, per=100, shown="Power plan: share of discordant images, percent (from the validation set, else 2)"
    )
    plan_icc: float | None = option(None, shown="Power plan: correlation within a patient (from the validation set, else 0.5)")
    auc_margin: float | None = option(
        None, shown="Largest acceptable loss of the mean AUC, percentage points; without it the AUC is not tested"
    )

    def __post_init__(self) -> None:
        check_choices(self)
        planned = self.plan_discordance
        rules = (
            ("--alpha", self.alpha, 0 < self.alpha < 0.5, "above 0 and below 0.5"),
            ("--margin", self.margin, 0 < self.margin < 100, "percentage points above 0 and below 100"),
            ("--class-margin", self.class_margin, 0 < self.class_margin < 100, "percentage points above 0 and below 100"),
            ("--ece-slack", self.ece_slack, 0 <= self.ece_slack < 1, "a fraction from 0 to below 1"),
            ("--bootstrap", self.bootstrap, 1000 <= self.bootstrap <= 1_000_000, "1000 to 1000000 resamples"),
            ("--seed", self.seed, self.seed >= 0, "0 or above"),
            ("--plan-discordance", _percent(planned), _share(planned), "percent above 0 and below 100"),
            ("--auc-margin", self.auc_margin, _margin(self.auc_margin), "percentage points above 0 and below 100"),
            ("--plan-icc", self.plan_icc, self.plan_icc is None or 0 <= self.plan_icc <= 1, "0 to 1"),
        )
        for name, value, holds, allowed in rules:
            if not holds:
                raise OctcError("OCT-E104", f"{name} {value} is out of range", hint=f"{name}: {allowed}")

    @property
    def delta(self) -> float:
        """The margin as a fraction."""
        return self.margin / 100

    @property
    def class_delta(self) -> float:
        """The class margin as a fraction."""
        return self.class_margin / 100

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def locked(self) -> dict[str, Any]:
        """The settings that determine the verdict and must not change between readings of the test set."""
        return {name: value for name, value in asdict(self).items() if name not in self.resamples()}

    def resamples(self) -> dict[str, int]:
        """The settings of the bootstrap, which should not change a verdict."""
        return {"bootstrap": self.bootstrap, "seed": self.seed}


def _margin(value: float | None) -> bool:
    return value is None or 0 < value < 100


def _percent(value: float | None) -> str | None:
    """A fraction as percent, as on the command line."""
    return None if value is None else f"{100 * value:.15g}"


def _share(value: float | None) -> bool:
    return value is None or 0 < value < 1
