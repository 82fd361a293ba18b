"""What a network is trained for, judged before the training as `octc export --use` would judge it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octc.core.files import read_json
from octc.datasets.licences import read_known, refuse, terms_of
from octc.train.jobs.request import Request
from octc.train.jobs.teachers import Teacher
from octc.train.loop.checkpoint import META
from octc.train.networks.lent import is_lent, source_of
from octc.train.networks.weights import RANDOM, stated_source
from octc.train.stages import parent_of


def check_start(asked: Request) -> None:
    """Refuse a use that the data or start weights of any network that will be trained do not allow (E412), before the images
    are looked at."""
    if not is_judged(asked):
        return
    if asked.kind == "teacher":
        _refuse(asked, asked.recipe.teacher, {})
        return
    taught: dict[str, Any] = {}
    if asked.with_teacher:
        file = None if is_lent(asked.options.weights) else asked.options.weights
        trained = {"model": asked.recipe.teacher.model, "weights": stated_source(asked.recipe.teacher, file)}
        taught = {"parent": trained}
    _refuse(asked, asked.recipe.student, taught)


def check_taught(asked: Request, teachers: Sequence[Teacher | None]) -> None:
    """Refuse a use that a teacher does not allow (E412), before it is asked anything."""
    known = [(one, read_json(one.folder / META)) for one in teachers if one is not None]
    if known and is_judged(asked):
        facts = [{"model": each["model"], "sha256": one.sha256, "weights": each["weights"]} for one, each in known]
        _refuse(asked, asked.recipe.student, {"parent": parent_of(facts)})


def is_judged(asked: Request) -> bool:
    """Whether a use was named; a run that goes on as it began was judged then."""
    return asked.options.use is not None and (asked.resume is None or bool(asked.changed))


def _refuse(asked: Request, stage: Any, taught: dict[str, Any]) -> None:
    options = asked.options
    own = () if options.licences is None else read_known(options.licences)
    facts = {"dataset": asked.dataset, "weights": _start(stage, options.weights, taught), **taught}
    refuse(terms_of(facts, stage.model, own), str(options.use))


def _start(stage: Any, file: Path | None, taught: dict[str, Any]) -> dict[str, Any]:
    """The start weights as they will be recorded. What a teacher lends is judged with it: one that is not known yet forbids
    nothing."""
    if not is_lent(file):
        return stated_source(stage, file)
    return source_of(taught["parent"]) if taught else stated_source(stage, Path(RANDOM))
