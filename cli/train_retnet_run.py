"""What `octc train retnet-...` does once it is clear what is wanted: data, split, teacher, run folder, the stages."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.cli.train_data import differences
from octc.cli.train_report import Reporter
from octc.cli.train_retnet_teacher import Chosen, Request, check_eye_teachers, choose_eye_teacher
from octc.cli.train_weights import checked_weights, weights_words
from octc.core.errors import OctcError, shorten

if TYPE_CHECKING:
    from octc.datasets.base import Samples
    from octc.datasets.split import Split
    from octc.store.runs import Run
    from octc.train.loop.checkpoint import Checkpoint
    from octc.train.recipes.crossmodal import EyeRecipe
    from octc.train.stages import Context

SEED = 0


def run_eye_training(session: Session, asked: Request, dry_run: bool) -> int:
    """Resolve, say the plan, train."""
    from octc.core.optional import need
    from octc.datasets.registry import find_root
    from octc.store.locations import image_root
    from octc.train.recipes.crossmodal import OTHER

    for module in ("torch", "timm", "safetensors", "accelerate"):
        need(module)
    from octc.train.loop.memory import keep_memory
    from octc.train.loop.processes import make_accelerator

    keep_memory()
    accelerator = make_accelerator(asked.device, asked.precision)
    if asked.resume is None:
        root = find_root(asked.dataset, session.data, os.environ)
    else:
        root = image_root(asked.resume, session.data, os.environ)
    samples = _scan(session, asked, root)
    teacher = None
    if asked.kind == "student" and asked.teacher != "none":
        teacher = choose_eye_teacher(session, asked, OTHER[asked.modality], asked.teacher)
    elif asked.kind == "student":
        session.say("! teacher   none: the student learns from labels alone")
    own = choose_eye_teacher(session, asked, asked.modality, None) if asked.mutual else None
    seed = asked.seed if asked.seed is not None else (SEED if teacher is None else int(teacher.facts["seed"]))
    recipe = _with_mutual(asked.recipe) if asked.mutual else asked.recipe
    split, digest = _split(asked, samples, recipe, seed)
    check_eye_teachers(asked, split, teacher, own)
    if asked.resume is not None:
        _check_resumed(session, asked, recipe, seed, split, teacher, dry_run)
    _say_plan(session, asked, recipe, split, seed, root, str(accelerator.device))
    stage = recipe.teacher if asked.kind == "teacher" else recipe.student
    weights = checked_weights(session, asked, stage, len(split.classes))
    if dry_run:
        document = {"dry_run": True, "recipe": asdict(recipe), "split": split.digest, "counts": split.counts()}
        session.report({**session.document, **document, "weights": weights})
        session.result("dry run: nothing was written")
        return 0
    run = asked.resume or _create(session, asked, recipe, split, digest, seed, root, samples, teacher, own)
    session.run_id = run.id
    from octc.store.runs import owning

    with owning(run) as recovered, Reporter(session, run, accelerator) as reporter:
        if recovered:
            session.warn("OCT-W306", recovered, str(run.path))
        from octc.train.stages import Context

        context = Context(
            run=run, root=root, split=split, data_digest=samples.digest, recipe=recipe, seed=seed, accelerator=accelerator,
            tick=reporter.tick, report=_rows(session, reporter), decoding=reporter.decoding, resume=asked.resume is not None,
            weights=asked.weights, trusted=asked.trusted, fetch=asked.fetch, allow_change=asked.allow_change,
        )  # fmt: skip
        try:
            run.update(status="running")
            _work(session, asked, context, reporter, teacher, own)
        except KeyboardInterrupt:
            run.update(status="interrupted")
            session.say(f"state is saved; go on with: octc train retnet-{asked.kind} --resume {run.id}")
            raise
        except BaseException:
            run.update(status="failed")
            raise
        run.update(status="done")
    session.result(str(run.path))
    more = f"octc train retnet-student --dataset {asked.dataset} --modality {OTHER[asked.modality]} --recipe {recipe.name}"
    session.say(f"next: {more if asked.kind == 'teacher' else 'octc export && octc verify && octc bench'}")
    return 0


def _work(
    session: Session, asked: Request, context: Context, reporter: Reporter, teacher: Chosen | None, own: Chosen | None
) -> None:
    import torch

    from octc.machine.host import usable_threads
    from octc.train.crossmodal.stages import train_eye_student, train_eye_teacher
    from octc.train.loop.checkpoint import META

    if context.accelerator.device.type == "cpu":
        torch.set_num_threads(max(1, usable_threads()[0]))
    recipe = context.recipe
    stage = recipe.teacher if asked.kind == "teacher" else recipe.student
    images = len(context.split.parts["train"])
    taught = None if teacher is None else teacher.taught()
    if not (asked.resume is not None and not asked.allow_change and (context.run.path / "train" / META).is_file()):
        reporter.begin(stage.model, stage.epochs, stage.batch, images)
        if asked.kind == "teacher":
            made = train_eye_teacher(context)
        else:
            made = train_eye_student(context, taught, None if own is None else own.taught())
        reporter.stage("train", made)
        _say_outcome(session, context, made)
    if asked.kind == "student" and asked.qat:
        from octc.compress.finetune_crossmodal import quantise_eye_student

        reporter.begin("QAT", recipe.quantisation.epochs, recipe.quantisation.batch, images)
        tuned = quantise_eye_student(context, taught)
        reporter.stage("qat", tuned)
        for name in ("ptq", "qat"):
            if found := tuned.metrics.get(name):
                mark = "✓" if tuned.metrics["chosen"] == name else " "
                agreement = f"decisions as the float student's {100 * found['agreement']:.2f} %"
                session.say(f"{mark} {name.upper()}   val mAP {100 * found['val_map']:.2f}, {agreement}, KL {found['kl']:.5f}")


def _rows(session: Session, reporter: Reporter) -> Any:
    """The reporter's rows, with the mAP of each epoch."""

    def row(value: dict[str, Any]) -> None:
        reporter.row(value)
        if "val_map" in value:
            session.say(f"    val mAP {100 * value['val_map']:.2f}")

    return row


def _scan(session: Session, asked: Request, root: Path) -> Samples:
    """Scan, and refuse one image under two labellings (E213)."""
    from collections import defaultdict

    from octc.cli.data import tell_scan, ticking
    from octc.datasets.registry import scan_dataset

    with ticking(session, "sums") as step:
        samples = scan_dataset(asked.dataset, root, progress=step, skip_bad=asked.skip_bad)
    tell_scan(session, samples)
    known: dict[str, set[Any]] = defaultdict(set)
    for sample in samples.items:
        if sample.sha256:
            known[sample.sha256].add((sample.label, sample.targets))
    if torn := [s.path for s in samples.items if s.sha256 and len(known[s.sha256]) > 1]:
        text = f"{len(torn)} images have the content of another one with other labels"
        raise OctcError("OCT-E213", text, hint=f"octc data check {asked.dataset} lists them", place=shorten(torn))
    if samples.skipped:
        named = shorten([path for path, _ in samples.skipped])
        session.warn("OCT-W201", f"--skip-bad: {len(samples.skipped)} images cannot be read and are left out: {named}")
    return samples


def _split(asked: Request, samples: Samples, recipe: EyeRecipe, seed: int) -> tuple[Split, str]:
    """The images of the modality in the split of the whole data set, and the digest of that whole split."""
    from octc.datasets.layouts.paired import only
    from octc.datasets.split import RELEASED, make_split

    whole = make_split(samples, asked.dataset, seed, val=recipe.val)
    if recipe.select != "val":
        whole = replace(whole, protocol=RELEASED)
    return only(whole, asked.modality), whole.digest


def _with_mutual(recipe: EyeRecipe) -> EyeRecipe:
    return replace(recipe, cross=replace(recipe.cross, mutual=recipe.cross.mutual or 1.0))


def _create(
    session: Session, asked: Request, recipe: EyeRecipe, split: Split, digest: str, seed: int, root: Path, samples: Samples,
    teacher: Chosen | None, own: Chosen | None,
) -> Run:  # fmt: skip
    from octc.core.files import write_json
    from octc.machine.host import read_machine, versions
    from octc.store.runs import create_run

    run = create_run(
        session.run_dir, asked.kind, asked.dataset, data_root=str(root.resolve()), data_digest=samples.digest,
        split_digest=split.digest, paired_split_digest=digest, recipe=asdict(recipe), seed=seed, skip_bad=asked.skip_bad,
        task="multilabel", modality=asked.modality, mutual=asked.mutual, qat=asked.qat,
        teacher_run=None if teacher is None else teacher.run.id, own_run=None if own is None else own.run.id,
        request=asked.request, **split.patient_ids.to_json(),
    )  # fmt: skip
    split.write(run.split)
    write_json(run.path / "env.json", {"versions": versions(), "machine": read_machine().to_json()})
    return run


def _check_resumed(
    session: Session, asked: Request, recipe: EyeRecipe, seed: int, split: Split, teacher: Chosen | None, dry_run: bool
) -> None:  # fmt: skip
    """A run goes on with the images it began with (E216), and as it began (E110) unless changes are allowed."""
    import json

    from octc.core.files import parse_json

    assert asked.resume is not None
    stored = asked.resume.read()
    if stored.get("split_digest") != split.digest:
        text = f"the images, or how they are split, changed since {asked.resume.id} began"
        raise OctcError("OCT-E216", text, hint="restore the images, or train anew", place=str(asked.resume.path))
    changes = [*differences("recipe", stored.get("recipe"), parse_json(json.dumps(asdict(recipe)))), *asked.changed]
    if stored.get("seed") != seed:
        changes.append(f"seed {stored.get('seed')} -> {seed}")
    now = None if teacher is None else teacher.run.id
    if asked.kind == "student" and stored.get("teacher_run") != now:
        changes.append(f"--teacher {stored.get('teacher_run') or 'none'} -> {now or 'none'}")
    if changes and not asked.allow_change:
        text = f"{asked.resume.id} began with other values: {shorten(changes)}"
        raise OctcError("OCT-E110", text, hint="leave these options out, or --allow-change", place=str(asked.resume.path))
    if changes:
        session.warn("OCT-W306", f"--allow-change: {shorten(changes)}", str(asked.resume.path))
    if changes and not dry_run:
        asked.resume.update(
            recipe=asdict(recipe), seed=seed, teacher_run=now, mutual=asked.mutual, qat=asked.qat, request=asked.request
        )  # fmt: skip
        asked.resume.log_stage("changed", changes=changes, recipe=asdict(recipe), seed=seed)


def _say_plan(
    session: Session, asked: Request, recipe: EyeRecipe, split: Split, seed: int, root: Path, device: str
) -> None:  # fmt: skip
    stage = recipe.teacher if asked.kind == "teacher" else recipe.student
    counts, known = {part: len(items) for part, items in split.parts.items()}, split.patient_ids
    people = {part: f" ({count:,} patients)" if count is not None else "" for part, count in split.people().items()}
    shown = "/".join(f"{counts[part]}{people[part]}" for part in ("train", "val", "test"))
    qat = f" + {recipe.quantisation.epochs} of QAT" if asked.qat else ""
    session.say(f"octc train retnet-{asked.kind} · {asked.modality} · recipe {recipe.name} · seed {seed}")
    session.say(
        f"✓ dataset {asked.dataset}   {sum(counts.values()):,} {asked.modality} images in {root} (choose with --data DIR)"
    )
    if known.warning:
        session.warn("OCT-W212", known.warning)
        how = "by image" if known.count is None else "by patient where one is known"
        session.say(f"! split     {how}, over both modalities · train/val/test {shown} · {known.leakage}")
    elif split.note:
        session.say(f"! split     over both modalities · train/val/test {shown} · leakage: see the warning")
    else:
        session.say(f"✓ split     patient-level over both modalities · train/val/test {shown} · leakage: none")
    session.say(f"✓ plan      {stage.model} at {stage.size} px · {stage.epochs} epochs{qat} · batch {stage.batch} on {device}")
    if split.note:
        session.warn("OCT-W219", f"{split.note}; the epoch is chosen on the {recipe.select} part")


def _say_outcome(session: Session, context: Context, made: Checkpoint) -> None:
    from octc.datasets.base import ids_of

    metrics = made.metrics
    people = ids_of(context.split.parts["val"]).words
    session.say(
        f"✓ best epoch {metrics['epoch']} of {metrics['epochs']} by mAP (sha256 {made.sha256[:8]})\n"
        f"  val mAP {100 * metrics['val_map']:.2f}, {people}; it chose the epoch: no claim"
    )
    session.say(f"  start weights: {made.weights.get('source', 'unknown')}; licence: {made.weights.get('licence', 'unknown')}")
    weights_words(session, made.weights)
