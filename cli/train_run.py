"""What `octc train` does once it is clear what is wanted: data, split, teacher, run folder, the stages, the last lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli.session import Session
from octc.cli.train_request import Request

if TYPE_CHECKING:
    from accelerate import Accelerator

    from octc.datasets.split import Split
    from octc.run import Run
    from octc.train.checkpoint import Checkpoint


def run_training(session: Session, asked: Request, dry_run: bool) -> int:
    """Resolve, say the plan, train. `--with-teacher` trains the teacher in the same command first."""
    from octc.datasets.table import find_root, spec_of
    from octc.optional import need

    spec_of(asked.dataset)
    for module in ("torch", "timm", "safetensors", "accelerate"):
        need(module)
    from octc.train.memory import keep_memory
    from octc.train.processes import make_accelerator

    keep_memory()
    accelerator = make_accelerator(asked.device, asked.precision)
    session.quiet = session.quiet or not accelerator.is_main_process
    root = find_root(asked.dataset, session.data, os.environ)
    teacher = None
    if asked.kind == "student" and asked.with_teacher and not dry_run:
        teacher = _train(session, as_teacher(asked), root, accelerator, None, dry_run=False)
        if teacher is None:
            return 0
    _train(session, asked, root, accelerator, teacher, dry_run=dry_run)
    return 0


def as_teacher(asked: Request) -> Request:
    """The same request for the teacher of the recipe."""
    from dataclasses import replace

    return replace(asked, kind="teacher", resume=None)


def _train(
    session: Session, asked: Request, root: Path, accelerator: Accelerator, teacher: Run | None, *, dry_run: bool
) -> Run | None:
    from octc.cli.train_data import check_resumed, scan_and_check, split_for
    from octc.cli.train_teacher import choose_teacher

    samples = scan_and_check(session, asked, root)
    chosen = choose_teacher(session, asked, teacher) if asked.kind == "student" else None
    resumed = _resumed(session, asked)
    split = split_for(session, asked, samples, resumed, chosen)
    if resumed is not None:
        check_resumed(session, asked, resumed, samples)
    say_plan(session, asked, split, root, accelerator)
    if dry_run:
        session.report({"dry_run": True, "recipe": asdict(asked.recipe), "split": split.digest, "counts": split.counts()})
        session.result("dry run: nothing was written")
        return None
    run = resumed or _create(session, asked, split, root, samples.digest, chosen, accelerator)
    session.run_id = run.id
    _stages(session, asked, run, root, split, samples.digest, accelerator, None if chosen is None else chosen.folder)
    return run


def _resumed(session: Session, asked: Request) -> Run | None:
    if asked.resume is None:
        return None
    from octc.cli.train_request import find_unfinished

    run: Run = find_unfinished(session, asked.kind, asked.resume)
    return run


def _create(
    session: Session, asked: Request, split: Split, root: Path, digest: str, teacher: Any, accelerator: Accelerator
) -> Run:
    """The run folder, made by the first process and named to the others."""
    from accelerate.utils import broadcast_object_list

    from octc.cli.train_data import write_lock
    from octc.run import Run, create_run

    place: list[Any] = [None]
    if accelerator.is_main_process:
        run = create_run(
            session.run_dir, asked.kind, asked.dataset, data_root=str(root.resolve()), data_digest=digest,
            split_digest=split.digest, recipe=asdict(asked.recipe), seed=asked.seed, skip_bad=asked.skip_bad,
            teacher_run=None if teacher is None else teacher.run_id,
            teacher_sha256=None if teacher is None else teacher.sha256,
        )  # fmt: skip
        split.write(run.split)
        write_lock(run, asked)
        place[0] = str(run.path)
    if accelerator.num_processes > 1:
        broadcast_object_list(place)
    return Run(Path(place[0]))


def say_plan(session: Session, asked: Request, split: Split, root: Path, accelerator: Accelerator) -> None:
    """Every default that was chosen."""
    stage = asked.recipe.teacher if asked.kind == "teacher" else asked.recipe.student
    counts = {part: sum(row.values()) for part, row in split.counts().items()}
    people = {part: len({s.patient or s.path for s in items}) for part, items in split.parts.items()}
    total = sum(counts.values())
    session.say(f"octc train {asked.kind} · recipe {asked.recipe.name} · seed {asked.seed}")
    session.say(f"✓ dataset {asked.dataset}   {total:,} images in {root} (choose with --data DIR)")
    shown = "/".join(f"{counts[part]} ({people[part]} patients)" for part in ("train", "val", "test"))
    left = f" · {split.dropped} training images share a patient or content with test and are left out" if split.dropped else ""
    session.say(f"✓ split     patient-level · train/val/test {shown} · leakage: none{left}")
    precision = {"no": "fp32"}.get(str(accelerator.mixed_precision), str(accelerator.mixed_precision))
    several = f" · {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    qat = f" + {asked.recipe.quantisation.epochs} of QAT" if asked.kind == "student" and asked.qat else ""
    more = f" x {stage.accumulate} = {stage.batch * stage.accumulate} an update" if stage.accumulate > 1 else ""
    session.say(
        f"✓ plan      {stage.model} at {stage.size} px · {stage.epochs} epochs{qat} · batch {stage.batch}{more} · "
        f"{precision} on {accelerator.device}{several}"
    )


def _stages(
    session: Session, asked: Request, run: Run, root: Path, split: Split, digest: str, accelerator: Accelerator,
    teacher: Path | None,
) -> None:  # fmt: skip
    """Train (and tune) inside the run's lock; its status says how that ended."""
    with _owned(session, run, accelerator):
        try:
            _work(session, asked, run, root, split, digest, accelerator, teacher)
        except KeyboardInterrupt:
            _status(run, accelerator, "interrupted")
            session.say(f"state is saved; go on with: octc train {asked.kind} --resume {run.id}")
            raise
        except BaseException:
            _status(run, accelerator, "failed")
            raise
        _status(run, accelerator, "done")


def _status(run: Run, accelerator: Accelerator, word: str) -> None:
    if accelerator.is_main_process:
        run.update(status=word)


@contextmanager
def _owned(session: Session, run: Run, accelerator: Accelerator) -> Iterator[None]:
    from octc.run import owning

    if not accelerator.is_main_process:
        yield
        return
    with owning(run) as recovered:
        if recovered:
            session.warn("OCT-W306", recovered, str(run.path))
        yield


def _work(
    session: Session, asked: Request, run: Run, root: Path, split: Split, digest: str, accelerator: Accelerator,
    teacher: Path | None,
) -> None:  # fmt: skip
    import torch

    from octc.cli.train_report import Reporter
    from octc.host import usable_threads
    from octc.train.checkpoint import META
    from octc.train.stages import Context, train_student, train_teacher

    if accelerator.device.type == "cpu":
        torch.set_num_threads(max(1, usable_threads()[0] // max(1, accelerator.num_processes)))
    _status(run, accelerator, "running")
    recipe = asked.recipe
    stage = recipe.teacher if asked.kind == "teacher" else recipe.student
    with Reporter(session, run, accelerator) as reporter:
        context = Context(
            run=run, root=root, split=split, data_digest=digest, recipe=recipe, seed=asked.seed, accelerator=accelerator,
            tick=reporter.tick, report=reporter.row, decoding=reporter.decoding, resume=asked.resume is not None,
            weights=asked.weights, fetch=asked.fetch, allow_change=asked.allow_change,
        )  # fmt: skip
        finished = asked.resume is not None and not asked.allow_change and (run.path / "train" / META).is_file()
        if not finished:
            reporter.begin(stage.model, stage.epochs, stage.batch, len(split.parts["train"]))
            made = train_teacher(context) if asked.kind == "teacher" else train_student(context, teacher)
            reporter.stage("train", made)
            say_outcome(session, made, split)
        if asked.kind == "student" and asked.qat:
            from octc.compress.qat import quantise_student

            how = recipe.quantisation
            reporter.begin("QAT", how.epochs, how.batch, len(split.parts["train"]))
            tuned = quantise_student(context, teacher)
            reporter.stage("qat", tuned)
            say_tuned(session, tuned)
    nexts = {"teacher": f"octc train student --dataset {asked.dataset}", "student": "octc export && octc verify && octc bench"}
    if accelerator.is_main_process:
        session.result(str(run.path))
    session.say(f"next: {nexts[asked.kind]}")


def say_outcome(session: Session, made: Checkpoint, split: Split) -> None:
    """Accuracy on the select set with its interval; it chose the epoch, so it is no claim."""
    from octc.stats import wilson

    metrics = made.metrics
    n = int(metrics["val_n"])
    hits = round(float(metrics["val_accuracy"]) * n)
    low, high = wilson(hits, n) or (0.0, 1.0)
    people = len({s.patient or s.path for s in split.parts["val"]})
    session.say(
        f"✓ best epoch {metrics['epoch']} of {metrics['epochs']} by {metrics['select']} (sha256 {made.sha256[:8]})\n"
        f"  val accuracy {100 * hits / n:.2f} [{100 * low:.2f}, {100 * high:.2f}] ({hits}/{n}), {people} patients; "
        f"it chose the epoch: no claim"
    )
    source, licence = made.weights.get("source", "unknown"), made.weights.get("licence", "unknown")
    session.say(f"  start weights: {source}; licence: {licence}")


def say_tuned(session: Session, tuned: Checkpoint) -> None:
    """PTQ and QAT on the select set, and which was kept."""
    for name in ("ptq", "qat"):
        found = tuned.metrics.get(name)
        if found:
            mark = "✓" if tuned.metrics["chosen"] == name else " "
            session.say(
                f"{mark} {name.upper()}   val accuracy {100 * found['val_accuracy']:.2f}, agreement with the float student "
                f"{100 * found['agreement']:.2f} %, KL {found['kl']:.5f}"
            )
