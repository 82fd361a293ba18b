"""`octc simplify RUN`: a student made simpler, step by step, each tuned and judged on the validation set; a new run."""

from __future__ import annotations

import copy
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from octc.compress.jobs import new_job
from octc.compress.simplify.distil import short_stage
from octc.compress.simplify.network import sizes
from octc.compress.simplify.source import SourceRun, read_student
from octc.compress.simplify.steps import (
    lots,
    preview,
)
from octc.compress.simplify.walk import FOLDER, MakeLatency, Walk, stated, take_steps, wanted_of
from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.core.progress import LogReporter, Reporter
from octc.schemas.simplified import KEY, read_steps, steps_json
from octc.schemas.simplifying import SimplifyOptions
from octc.stats.task import MULTICLASS
from octc.store.runs import Run, create_run, find_run, newest_run, owning, read_runs, refuse_unread
from octc.train.evaluation.assess import complete
from octc.train.jobs.data import write_environment
from octc.train.jobs.job import Job
from octc.train.jobs.lines import say_tuned
from octc.train.jobs.progress import StageProgress
from octc.train.loop.checkpoint import META, Checkpoint, is_checkpoint, read_checkpoint, write_checkpoint
from octc.train.loop.memory import keep_memory
from octc.train.loop.processes import accelerate_apart, make_accelerator, torch_lent
from octc.train.recipes.config import Recipe, Stage
from octc.train.stages import Context

# fields of run.json that a run has in common with the student that it was made of
INHERITED = (
    "data_root", "data_place", "data_digest", "patients_by", "split_digest", "seed", "skip_bad", "fold", "protocol",
    "teacher_run", "teacher_sha256", "more_teachers", "patient_ids", "images_without_patient",
)  # fmt: skip


@dataclass(frozen=True)
class Simplified:
    """What came of a request. run: None after a dry run. document: as `octc simplify --json` prints it."""

    run: Run | None
    document: dict[str, Any]

    def raise_if_failed(self) -> None:
        """Raise (OctcError E604) where what was kept is not within the budget that was asked for."""
        if self.run is not None and self.document.get("within_budget") is False:
            text = f"{self.document['ms']:.2f} ms in INT8 with what was kept, {self.document['budget_ms']:g} ms are allowed"
            hint = "more --epochs or a larger --margin keep more steps, a smaller --budget leaves room; the run stays as it is"
            raise OctcError("OCT-E604", text, hint=hint, place=str(self.run.path))


def simplify_run(
    run: Run | str | None = None,
    options: SimplifyOptions | None = None,
    *,
    run_dir: str | Path = "runs",
    data: str | None = None,
    latency: MakeLatency | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> Simplified:
    """Simplify a trained student: a new run with the same data, split, teacher and recipe, and a smaller network.

    Each step (activation, squeeze-excite, channels a quarter at a time) is followed by a short distillation from the original
    student and its teacher. It is kept only if the gate on the validation set accepts it against the original student
    (docs/parity.md, section 4.2). The network is then tuned for INT8 like every student.

    Args:
        run: the student (a run, its id or path); None: the newest finished one.
        options: the steps; `resume` continues a run of this job that was stopped.
        latency: needed for `options.budget`: makes the function that measures a network (`octc.latency_of`).
        run_dir: folder of the runs. data: root of the images, if they have moved since the run.
        dry_run: only plan the steps. reporter: receives messages and progress; None: the log `octc`.

    Returns: the new run and the steps that were kept; every command and function takes it like any other run.

    Raises:
        OctcError: E102, E104 options; E107 no such student, or its teacher is gone; E405 no step was accepted; E413 nothing to
            change; E604 no share of channels is fast enough; E901 torch-pruning is not installed; and what a training raises.

    >>> import octc
    >>> octc.simplify_run("no-such-run", octc.SimplifyOptions(activation="hard-swish", no_se=True))
    Traceback (most recent call last):
    octc.core.errors.OctcError: no such run: no-such-run

    The result of a trained run names the new one:

    >>> octc.simplify_run("r-0002", octc.SimplifyOptions(activation="hard-swish", no_se=True)).run.id  # doctest: +SKIP
    'r-0003-student-ucsd-simple'
    """
    options = options or SimplifyOptions()
    options.check()
    reporter, folder = reporter or LogReporter(), Path(run_dir)
    resumed = None if options.resume is None else _unfinished(folder, options.resume, reporter)
    if resumed is not None:
        kept = resumed.read()["simplify"]
        source_run = find_run(folder, str(kept["source"]))
        if run is not None and _student(folder, run, reporter).id != source_run.id:
            text = f"{resumed.id} is made of {source_run.id}, and another student is named"
            raise OctcError("OCT-E102", text, hint=f"octc simplify --resume {resumed.id}", place="RUN")
        run = source_run
        options = replace(options, **kept["options"], resume=None)
    source = read_student(_student(folder, run, reporter), folder, data)
    if resumed is not None and source.checkpoint.sha256 != resumed.read()["simplify"]["source_sha256"]:
        text = f"{source.run.id} has changed since {resumed.id} began"
        raise OctcError("OCT-E110", text, hint=f"octc simplify {source.run.id} anew", place=str(source.folder))
    if options.budget is not None and latency is None:
        text = "a budget is kept by measuring, and nothing that measures was given"
        raise OctcError("OCT-E102", text, hint="latency=octc.latency_of", place="budget")
    stage = short_stage(source.recipe.student, options.epochs)
    found = _preview(source, options)
    _say_plan(reporter, source, options, stage, found)
    names = [one.kind for one in wanted_of(options)]
    if dry_run:
        plan = {"dry_run": True, "source": source.run.id, "steps": names, "found": found, "epochs": stage.epochs}
        return Simplified(None, plan)
    job = new_job(folder, data, reporter)
    made = resumed or _create(folder, source, options)
    job.run_id = made.id
    with accelerate_apart(), owning(made) as recovered:
        if recovered:
            reporter.warn("OCT-W306", recovered, str(made.path))
        return Simplified(made, _whole(job, source, options, stage, made, latency))


def _student(run_dir: Path, run: Run | str | None, reporter: Reporter) -> Run:
    if isinstance(run, Run):
        return run
    if run is not None:
        return find_run(run_dir, run)
    chosen = newest_run(run_dir, "student")
    reporter.say(f"using run {chosen.id} (newest successful student; choose with RUN)")
    return chosen


def _unfinished(run_dir: Path, name: str, reporter: Reporter) -> Run:
    """The run that `--resume` means (E107 where it is none of this job)."""
    if name != "newest":
        run = find_run(run_dir, name)
        if not isinstance(run.read().get("simplify"), dict):
            text = f"{run.id} is no run of octc simplify"
            raise OctcError("OCT-E107", text, hint=f"octc train student --resume {run.id}", place=str(run.path))
        return run
    for run, value in read_runs(run_dir, "student"):
        if isinstance(value.get("simplify"), dict) and value.get("status") != "done":
            refuse_unread(run_dir, "student", None, run)
            reporter.say(f"using run {run.id} (newest unfinished one of octc simplify; choose with --resume RUN)")
            return run
    refuse_unread(run_dir, "student", None, None)
    raise OctcError("OCT-E107", "no unfinished run of octc simplify", hint="octc simplify RUN", place=str(run_dir))


def _preview(source: SourceRun, options: SimplifyOptions) -> dict[str, Any]:
    """What the steps will find; whatever can be refused is refused here."""
    wanted = wanted_of(options, 0.5 if options.budget is not None else 0.0)
    return preview(copy.deepcopy(source.model).eval(), wanted, source.checkpoint.preprocess.size)


def _say_plan(reporter: Reporter, source: SourceRun, options: SimplifyOptions, stage: Stage, found: dict[str, Any]) -> None:
    words = []
    if options.activation:
        words.append(f"{found['activations']} activations -> {options.activation}")
    if options.no_se:
        words.append(f"{found['gates']} squeeze-excite out")
    if options.prune:
        words.append(f"{100 * options.prune:g} % of {found['channels']} channels out, in {len(lots(options.prune))} lots")
    if options.budget:
        words.append(f"of {found['channels']} channels as many out as {options.budget:g} ms in INT8 need here")
    taught = "itself" if source.teacher is None else f"itself and {source.stored.get('teacher_run') or source.teacher}"
    reporter.say(f"octc simplify {source.run.id} · {source.checkpoint.model} at {source.checkpoint.preprocess.size} px")
    reporter.say(f"✓ steps     {' · '.join(words)}")
    reporter.say(f"✓ each      {stage.epochs} epochs of distillation from {taught}; kept within {options.margin:g} pp on val")


def _create(run_dir: Path, source: SourceRun, options: SimplifyOptions) -> Run:
    """The run folder: everything of the student's run but its network."""
    stored = source.stored

    def begin(run: Run) -> None:
        shutil.copyfile(source.run.split, run.split)
        write_environment(run)

    return create_run(
        run_dir,
        "student",
        str(stored["dataset"]),
        suffix="-simple",
        begin=begin,
        **{name: stored[name] for name in INHERITED if name in stored},
        recipe=asdict(source.recipe),
        request={**stored.get("request", {}), "qat": options.qat},
        simplify={"source": source.run.id, "source_sha256": source.checkpoint.sha256, "options": options.stored()},
    )


def _whole(
    job: Job, source: SourceRun, options: SimplifyOptions, stage: Stage, run: Run, latency: MakeLatency | None
) -> dict[str, Any]:
    """All steps, the checkpoint, its evaluation, the tuning; the status of the run says how that ended."""
    keep_memory()
    accelerator = make_accelerator(options.device, options.precision)
    if accelerator.num_processes > 1:
        text = f"{accelerator.num_processes} processes: octc simplify works in one"
        raise OctcError("OCT-E104", text, hint="start it without torchrun")
    run.update(status="running")
    try:
        with torch_lent(accelerator), StageProgress(job, run, accelerator) as shown:
            context = Context(
                run=run,
                root=source.root,
                split=source.split,
                data_digest=source.checkpoint.data_digest,
                recipe=source.recipe,
                seed=int(source.stored.get("seed") or 0),
                accelerator=accelerator,
                tick=shown.tick,
                report=shown.row,
                decoding=shown.decoding,
                resume=True,
                teachers=() if source.teacher is None else (source.teacher,),
            )
            current, stored = copy.deepcopy(source.model).eval(), read_steps(source.checkpoint.model_kwargs.get(KEY, []))
            walk = Walk(source, options, context, shown, job.reporter, stage, current, stored, dict(source.checkpoint.metrics))
            document = take_steps(walk, latency)
            document |= _finish(walk, job)
    except KeyboardInterrupt:
        run.note_end("interrupted")
        job.reporter.say(f"state is saved; go on with: octc simplify --resume {run.id}")
        raise
    except BaseException:
        run.note_end("failed")
        raise
    run.update(status="done")
    return document


def _finish(walk: Walk, job: Job) -> dict[str, Any]:
    """train/ of the new run: the network as an ordinary checkpoint, its evaluation on val, and the tuning for INT8."""
    run, student = walk.run, walk.source.recipe.student
    steps = steps_json(walk.steps)
    recipe = replace(walk.source.recipe, student=replace(student, model_kwargs={**student.model_kwargs, KEY: steps}))
    if not is_checkpoint(run.path / "train"):
        size = sizes(walk.source.model, walk.current, walk.stage.size)
        metrics = {**walk.metrics, **{name: after for name, (_, after) in size.items()}}
        checkpoint = replace(stated(walk, walk.steps), recipe=asdict(recipe), metrics=metrics)
        run.update(recipe=asdict(recipe))
        (run.path / "train").mkdir(exist_ok=True)
        shutil.copyfile(_last_kept(run) / "history.csv", run.path / "train" / "history.csv")
        write_checkpoint(run.path / "train", walk.current.state_dict(), checkpoint)
    made = complete(run, walk.source.root, walk.ctx.accelerator.device)
    walk.shown.stage("train", made)
    document = {"train": {"sha256": made.sha256, "metrics": made.metrics, "folder": str(run.path / "train")}}
    _tidy(run)
    if not walk.options.qat:
        return document
    tuned = _tuned(run, made) or _tune(walk, job, recipe)
    walk.shown.stage("qat", tuned)
    say_tuned(walk.reporter, MULTICLASS, tuned)
    return {**document, "qat": {"sha256": tuned.sha256, "metrics": tuned.metrics, "folder": str(run.path / "qat")}}


def _tuned(run: Run, made: Checkpoint) -> Checkpoint | None:
    """The tuning of this very network that an earlier process finished, which artifacts may be made of."""
    if not is_checkpoint(run.path / "qat"):
        return None
    found, _ = read_checkpoint(run.path / "qat")
    return found if (found.parent or {}).get("sha256") == made.sha256 else None


def _tune(walk: Walk, job: Job, recipe: Recipe) -> Checkpoint:
    how = recipe.quantisation
    walk.shown.begin("QAT", how.epochs, how.batch, len(walk.source.split.parts["train"]))
    return job.tune(replace(walk.ctx, recipe=recipe))


def _last_kept(run: Run) -> Path:
    """The folder of the last step that was kept."""
    folders = sorted(path.parent for path in (run.path / FOLDER).glob(f"*/{META}"))
    return [folder for folder in folders if read_json(folder / META)["metrics"]["step"]["kept"]][-1]


def _tidy(run: Run) -> None:
    """What only a step that goes on needs: states and weights of epochs. The checkpoint of each step stays."""
    for folder in sorted((run.path / FOLDER).glob("*/")):
        for path in [*folder.glob("state-*/"), *folder.glob("best-*.safetensors"), *folder.glob("tensorboard/")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
