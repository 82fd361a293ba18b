"""`octc train retnet-teacher | retnet-student`: cross-modal distillation, resolved and said before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli.train_resume import request_of, settle
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.cli.train_retnet_teacher import Request
    from octc.store.runs import Run
    from octc.train.recipes.crossmodal import EyeRecipe

DEVICES = "auto, cpu, cuda or cuda:N"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
FIELDS = ("epochs", "batch")

Dataset = Annotated[str | None, typer.Option(metavar="NAME", help="Data set with OCT and fundus images (octc data list)")]
Modality = Annotated[str | None, typer.Option(metavar="oct|fundus", help="What the network looks at")]
Modalities = Annotated[
    str | None, typer.Option("--modality", metavar="oct|fundus|both", help="What the network looks at; both: two runs")
]
RecipeName = Annotated[str | None, typer.Option(metavar="NAME", help="Recipe (octc list recipes)")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs instead of the recipe's")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of the split and of the training (0; a student: its teacher's)")]
Batch = Annotated[int | None, typer.Option(min=1, metavar="N", help="Images per step instead of the recipe's")]
Device = Annotated[str, typer.Option(help=DEVICES)]
Precision = Annotated[str, typer.Option(help=", ".join(PRECISIONS))]
Resume = Annotated[str | None, typer.Option(metavar="RUN", help="Go on with this unfinished run")]
AllowChange = Annotated[bool, typer.Option("--allow-change", help="Resume although options differ; they are listed")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read; they are listed")]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE|none", help="Start weights (safetensors), or none, instead of the recipe's")
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="FILE may be of torch.save: its tensors alone are read, nothing in it is run")
]
Fetch = Annotated[bool, typer.Option("--fetch-weights", help="Download the recipe's start weights from timm's hub")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop")]


def teacher(
    session: Session, dataset: Dataset = None, modality: Modality = None, recipe: RecipeName = None, epochs: Epochs = None,
    seed: Seed = None, batch: Batch = None, device: Device = "auto", precision: Precision = "auto", resume: Resume = None,
    allow_change: AllowChange = False, skip_bad: SkipBad = False, weights: Weights = None,
    trust_pickle: TrustPickle = False, fetch_weights: Fetch = False,
    dry_run: DryRun = False,
) -> int:  # fmt: skip
    """Train a network on the labels of one modality, several labels an image. Writes runs/<id>/."""
    from octc.cli.train_retnet_run import run_eye_training

    return run_eye_training(session, _request(session, "teacher", locals()), dry_run)


def student(
    session: Session, dataset: Dataset = None, modality: Modalities = None, recipe: RecipeName = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="RUN|none", help="Teacher of the other modality; newest fitting run without it")
    ] = None,
    mutual: Annotated[bool, typer.Option("--mutual", help="Two students, one a modality, learn from each other")] = False,
    qat: Annotated[bool, typer.Option("--qat/--no-qat", help="Quantisation-aware tuning afterwards")] = False,
    epochs: Epochs = None, seed: Seed = None, batch: Batch = None, device: Device = "auto", precision: Precision = "auto",
    resume: Resume = None, allow_change: AllowChange = False, skip_bad: SkipBad = False, weights: Weights = None,
    trust_pickle: TrustPickle = False, fetch_weights: Fetch = False, dry_run: DryRun = False,
) -> int:  # fmt: skip
    """Distil a teacher of one modality into a student of the other: FDDM (oct), ODDM (fundus), or both. Writes runs/<id>/."""
    from octc.cli.train_retnet_run import run_eye_training

    if mutual and teacher == "none":
        raise OctcError("OCT-E102", "--mutual and --teacher none contradict each other", hint="leave out one of them")
    if modality == "both":
        if resume is not None or teacher not in (None, "none"):
            text = "--modality both makes two runs: --resume and --teacher name one"
            raise OctcError("OCT-E102", text, hint="--modality oct, then --modality fundus")
        given = locals()
        for one in ("oct", "fundus"):
            asked = _request(session, "student", {**given, "modality": one})
            run_eye_training(session, replace(asked, teacher=teacher), dry_run)
        return 0
    asked = _request(session, "student", locals())
    stored = asked.resume.read() if asked.resume is not None else {}
    if stored and stored.get("teacher_run") is None and teacher is None:
        teacher = "none"
    return run_eye_training(session, replace(asked, teacher=teacher), dry_run)


def _request(session: Session, kind: str, given: dict[str, Any]) -> Request:
    """Options as one request (E104 for what is out of range, before any work)."""
    from octc.cli.train_retnet_teacher import Request
    from octc.datasets.base import MODALITIES
    from octc.datasets.registry import spec_of

    resume = None if given["resume"] is None else _unfinished(session, kind, given["resume"])
    stored = {} if resume is None else resume.read()
    changed: list[str] = []
    if resume is not None:
        settled, changed = settle(session, resume, stored, given)
        given.update(settled)
    dataset = given["dataset"] or stored.get("dataset")
    if dataset is None:
        raise OctcError("OCT-E104", "no data set named", hint="--dataset NAME   (octc data list)", place="--dataset")
    if len(spec_of(dataset).modalities) < 2:
        text = f"data set {dataset} has no fundus images"
        raise OctcError("OCT-E104", text, hint="a data set of both modalities: octc data list", place="--dataset")
    modality = given["modality"] or stored.get("modality")
    if modality not in MODALITIES:
        text = "no modality named" if modality is None else f"--modality {modality}"
        raise OctcError("OCT-E104", text, hint=f"--modality {' or '.join(MODALITIES)}", place="--modality")
    if given["precision"] not in PRECISIONS:
        raise OctcError("OCT-E104", f"--precision {given['precision']}", hint=f"one of: {', '.join(PRECISIONS)}")
    if given["device"] not in ("auto", "cpu", "cuda") and not given["device"].removeprefix("cuda:").isdigit():
        raise OctcError("OCT-E104", f"--device {given['device']}", hint=DEVICES, place="--device")
    changes = {key: given[key] for key in FIELDS if given[key] is not None}
    return Request(
        kind=kind, dataset=dataset, modality=modality, recipe=_recipe(given["recipe"], stored, changes, modality),
        seed=given["seed"] if given["seed"] is not None else stored.get("seed"), device=given["device"],
        precision=given["precision"], resume=resume, allow_change=given["allow_change"],
        skip_bad=given["skip_bad"] or bool(stored.get("skip_bad")), weights=given["weights"], trusted=given["trust_pickle"],
        fetch=given["fetch_weights"], mutual=given.get("mutual", False), qat=given.get("qat", False),
        request=request_of(session, given), changed=tuple(changed),
    )  # fmt: skip


def _unfinished(session: Session, kind: str, name: str) -> Run:
    from octc.store.runs import find_run

    run = find_run(session.run_dir, name)
    stored = run.read()
    if stored.get("kind") != kind or stored.get("task") != "multilabel":
        command = f"{'retnet-' if stored.get('task') == 'multilabel' else ''}{stored.get('kind')}"
        text = f"run {run.id} is one of octc train {command}"
        raise OctcError("OCT-E107", text, hint=f"octc train {command} --resume {run.id}", place=str(run.path))
    return run


def _recipe(name: str | None, stored: dict[str, Any], changes: dict[str, Any], modality: str) -> EyeRecipe:
    from octc.train.recipes.crossmodal import EYE_DEFAULT, EYE_RECIPES, eye_recipe_from_json

    if name is not None and name not in EYE_RECIPES:
        from difflib import get_close_matches

        near = get_close_matches(name, list(EYE_RECIPES), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(EYE_RECIPES)}"
        raise OctcError("OCT-E104", f"unknown recipe {name!r}", hint=hint, place="--recipe")
    own = eye_recipe_from_json(stored["recipe"]) if stored else None
    recipe = own if own is not None and name in (None, own.name) else EYE_RECIPES[name or EYE_DEFAULT]()
    stages: dict[str, Any] = {"teacher": replace(recipe.teacher, **changes), "student": replace(recipe.student, **changes)}
    return replace(recipe, **stages, modality=modality)
