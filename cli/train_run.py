"""What `octc train` does once it is clear what is wanted: data, split, teacher, run folder, the stages, the last lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.cli.train_request import Request
from octc.cli.train_say import say_outcome, say_plan, say_tuned

if TYPE_CHECKING:
    from accelerate import Accelerator

    from octc.cli.train_report import Reporter
    from octc.datasets.base import Samples
    from octc.datasets.split import Split
    from octc.store.runs import Run
    from octc.train.loop.checkpoint import Checkpoint
    from octc.train.stages import Context


@dataclass(frozen=True)
class Place:
    """Where a training happens: the images that were scanned, their folder, the processes; what was found in --weights FILE."""

    samples: Samples
    root: Path
    accelerator: Accelerator
    weights: dict[str, Any] | None = None


def as_teacher(asked: Request) -> Request:
    """The same request for the teacher of the recipe."""
    request = {key: value for key, value in asked.request.items() if key != "qat"}
    return replace(asked, kind="teacher", resume=None, request=request)


def train_one(
    session: Session, asked: Request, place: Place, *, split: Split | None = None, teacher: Run | None = None,
    dry_run: bool = False,
) -> Run | None:  # fmt: skip
    """One run, begun or gone on with; None of a dry run. split: of a fold. teacher: a run that was just trained."""
    from octc.cli.train_data import check_resumed, split_for
    from octc.cli.train_distil import more_teachers, note_more
    from octc.cli.train_teacher import check_taught, choose_teacher

    chosen = choose_teacher(session, asked, teacher, split) if asked.kind == "student" else None
    whole = split or split_for(session, asked, place.samples, chosen)
    if chosen is not None and not asked.recipe.distillation.any_teacher:
        check_taught(chosen, whole)
    more = () if chosen is None else more_teachers(session, asked, whole)
    resumed = asked.resume
    if resumed is not None:
        asked = check_resumed(session, asked, resumed, place.samples, chosen, more, dry_run)
    say_plan(session, asked, whole, place.root, place.accelerator)
    if dry_run:
        document = {"dry_run": True, "recipe": asdict(asked.recipe), "split": whole.digest, "counts": whole.counts()}
        session.report({**session.document, **document, "weights": place.weights})
        session.result("dry run: nothing was written")
        return None
    run = resumed or _create(session, asked, whole, place, chosen)
    session.run_id = run.id
    if place.accelerator.is_main_process:
        note_more(run, more)
    asked = replace(asked, more=tuple(str(folder) for folder in more))
    _stages(session, asked, run, whole, place, None if chosen is None else chosen.folder)
    return run


def told(accelerator: Accelerator, value: Any) -> Any:
    """What the first process says, in every process."""
    from accelerate.utils import broadcast_object_list

    box = [value]
    if accelerator.num_processes > 1:
        broadcast_object_list(box)
    return box[0]


def _create(session: Session, asked: Request, split: Split, place: Place, teacher: Any) -> Run:
    """The run folder, made by the first process and named to the others."""
    from octc.cli.train_data import write_lock
    from octc.store.runs import Run, create_run

    path = None
    if place.accelerator.is_main_process:
        run = create_run(
            session.run_dir, asked.kind, asked.dataset, suffix="" if split.fold is None else f"-f{split.fold[0]}",
            data_root=str(place.root.resolve()), data_digest=place.samples.digest, split_digest=split.digest,
            recipe=asdict(asked.recipe), seed=asked.seed, skip_bad=asked.skip_bad, fold=split.fold, protocol=split.protocol,
            job=asked.job, teacher_run=None if teacher is None else teacher.run_id,
            teacher_sha256=None if teacher is None else teacher.sha256, request=asked.request, **split.patient_ids.to_json(),
        )  # fmt: skip
        split.write(run.split)
        write_lock(run, asked)
        path = str(run.path)
    return Run(Path(told(place.accelerator, path)))


def _stages(session: Session, asked: Request, run: Run, split: Split, place: Place, teacher: Path | None) -> None:
    """Train (and tune) inside the run's lock; its status says how that ended."""
    accelerator = place.accelerator
    with _owned(session, run, accelerator):
        try:
            _work(session, asked, run, split, place, teacher)
        except KeyboardInterrupt:
            _status(run, accelerator, "interrupted")
            session.say(f"state is saved; go on with: {asked.again(run.id)}")
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
    from octc.store.runs import owning

    if not accelerator.is_main_process:
        yield
        return
    with owning(run) as recovered:
        if recovered:
            session.warn("OCT-W306", recovered, str(run.path))
        yield


def _work(session: Session, asked: Request, run: Run, split: Split, place: Place, teacher: Path | None) -> None:
    import torch

    from octc.cli.train_report import Reporter
    from octc.machine.host import usable_threads
    from octc.train.stages import Context

    accelerator = place.accelerator
    if accelerator.device.type == "cpu":
        torch.set_num_threads(max(1, usable_threads()[0] // max(1, accelerator.num_processes)))
    _status(run, accelerator, "running")
    with Reporter(session, run, accelerator) as reporter:
        context = Context(
            run=run, root=place.root, split=split, data_digest=place.samples.digest, recipe=asked.recipe, seed=asked.seed,
            accelerator=accelerator, tick=reporter.tick, report=reporter.row, decoding=reporter.decoding,
            resume=asked.resume is not None, weights=asked.weights, trusted=asked.trusted, fetch=asked.fetch,
            allow_change=asked.allow_change, more_teachers=tuple(Path(folder) for folder in asked.more),
        )  # fmt: skip
        context = _train(session, asked, context, reporter, teacher)
        if asked.kind == "student" and asked.qat:
            from octc.compress.finetune import quantise_student

            how = context.recipe.quantisation
            reporter.begin("QAT", how.epochs, how.batch, len(split.parts["train"]))
            tuned = quantise_student(context, teacher)
            reporter.stage("qat", tuned)
            say_tuned(session, tuned)
    if asked.member:
        return
    nexts = {"teacher": f"octc train student --dataset {asked.dataset}", "student": "octc export && octc verify && octc bench"}
    if accelerator.is_main_process:
        session.result(str(run.path))
    session.say(f"next: {nexts[asked.kind]}")


def _train(session: Session, asked: Request, context: Context, reporter: Reporter, teacher: Path | None) -> Context:
    """The first stage, or what a kill left undone after it; with the recipe that it ended with."""
    from octc.train.evaluation.assess import complete
    from octc.train.loop.checkpoint import META

    run = context.run
    if asked.resume is not None and not asked.retrain and (run.path / "train" / META).is_file():
        if context.accelerator.is_main_process:
            made = complete(run, context.root, context.accelerator.device)
            if not any(entry["stage"] == "train" and entry.get("sha256") == made.sha256 for entry in run.read()["stages"]):
                reporter.stage("train", made)
        context.accelerator.wait_for_everyone()
        return context
    context, made = _fitted(session, asked, context, reporter, teacher)
    reporter.stage("train", made)
    say_outcome(session, made, context.split)
    return context


def _fitted(
    session: Session, asked: Request, context: Context, reporter: Reporter, teacher: Path | None
) -> tuple[Context, Checkpoint]:
    """Train; where memory is short and the batch is `auto`, it is halved until it fits, with as many images an update.

    Raises:
        OctcError: E302 with every batch that was tried, when that one was asked for, or when two images do not fit.
    """
    from octc.cli.train_batch import LEAST, halved, too_large
    from octc.core.errors import OctcError
    from octc.train.stages import train_student, train_teacher

    tried: list[int] = []
    while True:
        stage = context.recipe.teacher if asked.kind == "teacher" else context.recipe.student
        reporter.begin(stage.model, stage.epochs, stage.batch, len(context.split.parts["train"]))
        try:
            made = train_teacher(context) if asked.kind == "teacher" else train_student(context, teacher)
        except OctcError as error:
            if error.code != "OCT-E302":
                raise
            tried.append(stage.batch)
            why = error.why  # the error itself holds the frames that hold the memory
        else:
            return context, made
        if not asked.auto_batch or stage.batch <= LEAST or context.accelerator.num_processes > 1:
            raise too_large(why, tried, auto=asked.auto_batch)
        context = halved(session, asked, context)
