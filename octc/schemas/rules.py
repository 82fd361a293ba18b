"""Options and documents of `octc threshold` and `octc abstain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.options import check_choices, option
from octc.schemas.common import Document
from octc.stats.decision_rules import Decision

PERCENT = (0.0, 100.0)


@dataclass(frozen=True)
class PointOptions:
    """Options of `octc.fit_rules`: an operating point, a share to refer, or costs. Levels are fractions (0 to 1).

    Attributes:
        class_name: the class of the operating point, with its target sensitivity or specificity (one of the two).
        refer: largest share of images that a person decides. costs: CSV table of costs, true class by predicted class.
        remove: delete operating points, costs and the share. force: change a signed artifact too; this removes its signature.

    Raises:
        OctcError: E102 none or several of them; E104 a level outside 0 to 1.
    """

    class_name: str | None = option(None, names=("--class",), metavar="CLASS", shown="Class whose threshold to choose")
    sensitivity: float | None = option(None, within=PERCENT, per=100, shown="Target sensitivity, percent")
    specificity: float | None = option(None, within=PERCENT, per=100, shown="Target specificity, percent")
    refer: float | None = option(None, within=PERCENT, per=100, shown="Refer at most this share of images, percent")
    costs: Path | None = option(
        None, metavar="FILE", shown="CSV of costs: true classes in rows, predicted classes (and refer) in columns"
    )
    remove: bool = option(False, names=("--remove",), shown="Forget what this command stored")
    force: bool = option(False, names=("--force",), shown="Also where the artifact is signed: sign it again afterwards")

    def __post_init__(self) -> None:
        levels = (self.sensitivity, self.specificity)
        kinds = [any(one is not None for one in levels), self.refer is not None, self.costs is not None, self.remove]
        if sum(kinds) != 1 or levels.count(None) == 0 or (self.class_name is not None) != kinds[0]:
            text = "one of: --class with --sensitivity or --specificity, --refer, --costs, --remove"
            raise OctcError("OCT-E102", text, hint="octc threshold --class CNV --sensitivity 98", place="octc threshold")
        _check_levels({"--sensitivity": self.sensitivity, "--specificity": self.specificity, "--refer": self.refer})


@dataclass(frozen=True)
class SetOptions:
    """Options of `octc.fit_rules`: prediction sets, and a limit on the risk. Levels are fractions (0 to 1).

    Attributes:
        sets: conformal method, "lac" or "aps". coverage: the target. together: coverage over all classes, not for each one.
        risk: largest share of wrong predictions among those that are not referred.
        remove: delete sets and risk. force: change a signed artifact too; this removes its signature.

    Raises:
        OctcError: E102 nothing is requested; E104 a level outside 0 to 1, or an unknown method.
    """

    sets: str | None = option(None, choices=("lac", "aps"), shown="Prediction sets: lac (smallest) or aps (adaptive)")
    coverage: float = option(0.95, within=PERCENT, per=100, shown="Target coverage of the sets, percent")
    together: bool = option(False, names=("--together",), shown="Coverage over all classes together instead of for each class")
    risk: float | None = option(
        None, within=PERCENT, per=100, shown="Largest share of wrong predictions among images that are not referred, percent"
    )
    remove: bool = option(False, names=("--remove",), shown="Forget what this command stored")
    force: bool = option(False, names=("--force",), shown="Also where the artifact is signed: sign it again afterwards")

    def __post_init__(self) -> None:
        check_choices(self)
        if (self.sets is None and self.risk is None) != self.remove:
            text = "one of: --sets and --risk, or --remove"
            raise OctcError("OCT-E102", text, hint="octc abstain --sets lac --coverage 95", place="octc abstain")
        _check_levels({"--coverage": self.coverage, "--risk": self.risk})


def _check_levels(levels: dict[str, float | None]) -> None:
    for name, level in levels.items():
        if level is not None and not 0 < level < 1:
            raise OctcError("OCT-E104", f"{name} {100 * level:g}", hint=f"{name}: above 0 and below 100", place=name)


class StoredRules(Document):
    """The rules of an artifact by unit ("image", "eye"), as they are now; folder; what was said."""

    artifact: str
    folder: str
    rules: dict[str, Decision]
    words: list[str]


class RulesStored(Document):
    """The document of `octc threshold` and `octc abstain`."""

    stored: list[StoredRules]
