"""Start weights of a file, looked at before a run is made, and in a dry run: what does not fit is said now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from octc.cli._app.session import Session

if TYPE_CHECKING:
    from octc.train.recipes.config import Stage


class Asked(Protocol):
    """The parts of a request that are looked at here."""

    @property
    def weights(self) -> Path | None: ...
    @property
    def trusted(self) -> bool: ...


def checked_weights(session: Session, asked: Asked, stage: Stage, classes: int) -> dict[str, Any] | None:
    """Read the file of `--weights` whole, as the training will, and say how it fits; None where there is no file to look at.

    Raises:
        OctcError: of `octc.train.networks.weights.start_weights`.
    """
    from octc.train.networks.weights import RANDOM, check_weights

    if asked.weights is None or str(asked.weights) == RANDOM:
        return None
    found = check_weights(stage, classes, asked.weights, asked.trusted)
    session.say(f"✓ weights   {asked.weights} fits {stage.model} (sha256 {found['sha256'][:8]})")
    weights_words(session, found)
    return found


def weights_words(session: Session, weights: Mapping[str, Any]) -> None:
    """What of start weights was not one for one that of the network, a line each."""
    fit = weights.get("fit")
    if not fit:
        return
    from octc.train.networks.weight_matching import words

    for line in words(fit):
        session.say(f"  {line}")
