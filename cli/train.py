"""`octc train teacher | student`: what is asked for, resolved and said before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli.train_distil import CachedViews, Calibrate, Distil, Standardise, several, with_distillation
from octc.cli.train_request import Request, find_unfinished
from octc.cli.train_resume import REQUEST, request_of, settle
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.store.runs import Run
    from octc.train.recipes.registry import Recipe

DEVICES = "auto, cpu, cuda or cuda:N"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
FIELDS = ("epochs", "lr", "batch", "size")  # of both stages of a recipe, from options or the configuration
SEED = 0

Dataset = Annotated[str | None, typer.Option(metavar="NAME", help="Data set (octc data list)")]
RecipeName = Annotated[str | None, typer.Option(metavar="NAME", help="Recipe (octc list recipes)")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs instead of the recipe's")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the split and of the training (0)")]
Batch = Annotated[str, typer.Option(metavar="auto|N", help="Images per step; auto halves it where memory is short")]
Device = Annotated[str, typer.Option(help=DEVICES)]
Precision = Annotated[str, typer.Option(help=", ".join(PRECISIONS))]
Resume = Annotated[str | None, typer.Option(metavar="[RUN]", help="Go on with an unfinished run (the newest without RUN)")]
AllowChange = Annotated[bool, typer.Option("--allow-change", help="Resume although options differ; they are listed")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read; they are listed")]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE|none", help="Start weights (safetensors), or none, instead of the recipe's")
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="FILE may be of torch.save: its tensors alone are read, nothing in it is run")
]
Fetch = Annotated[bool, typer.Option("--fetch-weights", help="Download the recipe's start weights from timm's hub")]
Folds = Annotated[
    int | None,
    typer.Option(min=2, metavar="K", help="Cross-validation by patient: K runs and their summary; repeated, it goes on"),
]
Fold = Annotated[int | None, typer.Option(min=1, metavar="I", help="Only this fold of --folds, as another machine may do")]
Protocol = Annotated[
    str, typer.Option(help="Split: clean; as-released or as-released-teacher (KD-OCT's, leaks included)", metavar="NAME")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop")]


def teacher(
    session: Session, dataset: Dataset = None, recipe: RecipeName = None, epochs: Epochs = None, seed: Seed = None,
    batch: Batch = "auto", device: Device = "auto", precision: Precision = "auto", resume: Resume = None,
    allow_change: AllowChange = False, skip_bad: SkipBad = False, weights: Weights = None,
    trust_pickle: TrustPickle = False, fetch_weights: Fetch = False,
    folds: Folds = None, fold: Fold = None, protocol: Protocol = "clean", dry_run: DryRun = False,
) -> int:  # fmt: skip
    """Train the large network of a recipe on labels. Writes runs/<id>/."""
    asked = _request(session, "teacher", locals())
    return _go(session, asked, dry_run)


def student(
    session: Session, dataset: Dataset = None, recipe: RecipeName = None,
    teacher: Annotated[str | None, typer.Option(metavar="RUN[,RUN]|FILE|none", help="Teacher(s); newest fitting run")] = None,
    with_teacher: Annotated[bool, typer.Option("--with-teacher", help="Train the teacher first, in one go")] = False,
    qat: Annotated[bool, typer.Option("--qat/--no-qat", help="Quantisation-aware tuning afterwards")] = True,
    epochs: Epochs = None, seed: Seed = None, batch: Batch = "auto", device: Device = "auto", precision: Precision = "auto",
    resume: Resume = None, allow_change: AllowChange = False, skip_bad: SkipBad = False, weights: Weights = None,
    trust_pickle: TrustPickle = False, fetch_weights: Fetch = False, folds: Folds = None, fold: Fold = None,
    protocol: Protocol = "clean",
    distil: Distil = None, standardise: Standardise = None, calibrate: Calibrate = None, cached_views: CachedViews = None,
    dry_run: DryRun = False,
) -> int:  # fmt: skip
    """Distil a frozen teacher into the small network, then tune it quantisation-aware. Writes runs/<id>/."""
    if with_teacher and teacher is not None:
        raise OctcError("OCT-E102", "--with-teacher and --teacher contradict each other", hint="leave out one of them")
    if teacher not in (None, "none") and folds is not None and fold is None:
        text = "--teacher gives one teacher to all folds: it has seen what the other folds hold out"
        raise OctcError("OCT-E102", text, hint="leave --teacher out (octc train teacher --folds K makes one for each fold)")
    if with_teacher and resume is not None:
        text = "--resume and --with-teacher contradict each other: a run goes on with the teacher that it has"
        raise OctcError("OCT-E102", text, hint="leave --with-teacher out")
    given = locals()
    asked = with_distillation(_request(session, "student", given), given)
    first, more = several(teacher)
    return _go(session, replace(asked, teacher=first, more=more, with_teacher=with_teacher), dry_run)


def _go(session: Session, asked: Request, dry_run: bool) -> int:
    from octc.cli.train_start import run_training

    return run_training(session, asked, dry_run)


def _request(session: Session, kind: str, given: dict[str, Any]) -> Request:
    """Options and configuration as one request (E104 for what is out of range, before any work)."""
    from octc.datasets.released_splits import SEED as RELEASED_SEED
    from octc.datasets.split import CLEAN

    resume = None if given["resume"] is None else find_unfinished(session, kind, given["resume"])
    stored = {} if resume is None else _stored(resume, kind)
    changed: list[str] = []
    if resume is not None:
        settled, changed = settle(session, resume, stored, given)
        given.update(settled)
    dataset = given["dataset"] or stored.get("dataset")
    if dataset is None:
        raise OctcError("OCT-E104", "no data set named", hint="--dataset NAME   (octc data list)", place="--dataset")
    batch = _batch(str(given["batch"]))
    if given["precision"] not in PRECISIONS:
        raise OctcError("OCT-E104", f"--precision {given['precision']}", hint=f"one of: {', '.join(PRECISIONS)}")
    if given["device"] not in ("auto", "cpu", "cuda") and not given["device"].removeprefix("cuda:").isdigit():
        raise OctcError("OCT-E104", f"--device {given['device']}", hint=DEVICES, place="--device")
    configured = {key: value for key in ("lr", "size", "val") if (value := _configured(session, key)) is not None}
    changes = {"epochs": given["epochs"], "batch": batch, **configured}
    changes = {key: value for key, value in changes.items() if value is not None}
    split = _split(given, stored)
    recipe = _recipe(given["recipe"], stored, changes)
    default = SEED if split["protocol"] == CLEAN else RELEASED_SEED
    seed = given["seed"] if given["seed"] is not None else stored.get("seed", default)
    return Request(
        kind=kind, dataset=dataset, recipe=recipe, seed=seed, changes=changes, device=given["device"],
        precision=given["precision"], resume=resume, allow_change=given["allow_change"],
        skip_bad=given["skip_bad"] or bool(stored.get("skip_bad")), weights=given["weights"], trusted=given["trust_pickle"],
        fetch=given["fetch_weights"], auto_batch=batch is None, qat=given.get("qat", True),
        request=request_of(session, given) if resume is None or changed or REQUEST not in stored else stored[REQUEST],
        changed=tuple(changed), **split,
    )  # fmt: skip


def _split(given: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """folds, fold and protocol: as asked, or those of the run that goes on."""
    from octc.datasets.split import PROTOCOLS

    folds, fold, protocol = given["folds"], given["fold"], given["protocol"]
    if stored:
        if folds is not None or fold is not None:
            hint = "leave --resume out (the same --folds command goes on where it stopped), or leave --folds out"
            raise OctcError("OCT-E102", "--resume and --folds contradict each other", hint=hint)
        fold, folds = stored.get("fold") or (None, None)
        return {"folds": folds, "fold": fold, "protocol": stored.get("protocol", PROTOCOLS[0]), "job": stored.get("job")}
    if protocol not in PROTOCOLS:
        hint = f"one of: {', '.join(PROTOCOLS)}"
        raise OctcError("OCT-E104", f"unknown protocol {protocol!r}", hint=hint, place="--protocol")
    if fold is not None and folds is None:
        raise OctcError("OCT-E102", "--fold without --folds", hint=f"--folds 5 --fold {fold}", place="--fold")
    if fold is not None and fold > folds:
        raise OctcError("OCT-E104", f"--fold {fold} of {folds}", hint=f"1 to {folds}", place="--fold")
    return {"folds": folds, "fold": fold, "protocol": protocol}


def _stored(run: Run, kind: str) -> dict[str, Any]:
    """run.json of the run that is to be resumed (E107 when it is of the other kind)."""
    stored: dict[str, Any] = run.read()
    if stored.get("kind") != kind:
        text = f"run {run.id} is a {stored.get('kind')} run"
        raise OctcError("OCT-E107", text, hint=f"octc train {stored.get('kind')} --resume {run.id}", place=str(run.path))
    if not isinstance(stored.get("recipe"), dict):
        text = f"run {run.id} keeps no recipe: octc train did not make it, and cannot go on with it"
        raise OctcError("OCT-E107", text, hint=f"octc train {kind} --dataset NAME", place=str(run.path))
    return stored


def _recipe(name: str | None, stored: dict[str, Any], changes: dict[str, Any]) -> Recipe:
    """A recipe with the fields that were asked for; a resumed run's own one where none is named."""
    from octc.train.recipes.registry import DEFAULT, RECIPES, recipe_from_json, with_fields

    if name is not None and name not in RECIPES:
        from difflib import get_close_matches

        near = get_close_matches(name, list(RECIPES), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(RECIPES)}"
        raise OctcError("OCT-E104", f"unknown recipe {name!r}", hint=hint, place="--recipe")
    make: Callable[[], Recipe] = RECIPES[name or DEFAULT]
    own = recipe_from_json(stored["recipe"]) if stored else None
    recipe = own if own is not None and name in (None, own.name) else make()  # the same name again is no other recipe
    stages = {key: value for key, value in changes.items() if key in FIELDS}
    return replace(with_fields(recipe, **stages), val=changes.get("val", recipe.val))


def _batch(text: str) -> int | None:
    """None for "auto"."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise OctcError("OCT-E104", f"--batch {text}", hint="auto, or a whole number from 1", place="--batch")
    return int(text)


def _configured(session: Session, key: str) -> Any:
    """A key of [train] that has no option of its own; None where it is what the run that goes on began with."""
    value, origin = session.settings.get("train", {}).get(key, (None, "default"))
    if session.origins.setdefault(f"train.{key}", origin) == "default":
        return None
    return value
