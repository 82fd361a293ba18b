"""What a training reports while it runs: steps, a line an epoch, metrics.jsonl, the stage log."""

from __future__ import annotations

import json
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from octc.core.files import append_whole, finite
from octc.core.progress import Step
from octc.store.runs import Run
from octc.train.jobs.job import Job
from octc.train.loop.checkpoint import Checkpoint

if TYPE_CHECKING:
    from accelerate import Accelerator


class StageProgress:
    """Callbacks of `octc.train.stages.Context`; a context manager that closes its bars."""

    def __init__(self, job: Job, run: Run, accelerator: Accelerator) -> None:
        self.job, self.run, self.accelerator = job, run, accelerator
        self.reporter = job.reporter
        self.stack, self.bars = ExitStack(), ExitStack()
        self.step: Step | None = None
        self.what, self.epochs, self.images = "", 0, 0
        self.decoder: Step | None = None
        self.decoded = 0

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.close()
        self.stack.close()

    def begin(self, what: str, epochs: int, batch: int, images: int) -> None:
        """A stage with its own bar of steps."""
        self.bars.close()
        steps = epochs * max(1, images // min(batch, max(1, images)) // self.accelerator.num_processes)
        self.what, self.epochs, self.images = what, epochs, images
        self.step = self.bars.enter_context(self.reporter.progress(what, steps))

    def tick(self, steps: int) -> None:
        """Steps done."""
        if self.step is not None:
            self.step(steps)

    def decoding(self, done: int, total: int) -> None:
        """Images decoded into the cache."""
        if self.decoder is None or done < self.decoded:
            self.stack.close()
            self.decoder, self.decoded = self.stack.enter_context(self.reporter.progress("decoding", total)), 0
        self.decoder(done - self.decoded)
        self.decoded = done
        if done == total:
            self.stack.close()
            self.decoder = None

    def row(self, row: dict[str, Any]) -> None:
        """An epoch's row, or a warning."""
        if "warning" in row:
            self.reporter.warn(str(row.get("code", "OCT-W306")), str(row["warning"]), str(self.run.path))
            return
        if not self.accelerator.is_main_process:
            return
        line = json.dumps(finite({"stage": self.what, **row}), allow_nan=False) + "\n"
        with (self.run.path / "metrics.jsonl").open("ab", buffering=0) as stream:
            append_whole(stream.fileno(), line.encode())
        rate = f", {self.images / row['seconds']:.0f} img/s" if row.get("seconds") else ""
        leads = f"  val mAP {100 * row['val_map']:.2f}" if "val_map" in row else ""
        self.reporter.say(
            f"  epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
            f"val acc {100 * row['val_acc']:.2f}{leads}{rate}"
        )

    def stage(self, name: str, made: Checkpoint, *, again: bool = False) -> None:
        """A finished stage, in the run's log, once: a process that was killed may have written it down already. again: it went
        on after its end, and has another one."""
        self.bars.close()
        self.step = None
        if self.accelerator.is_main_process:
            if again or not self.run.has_stage(name, sha256=made.sha256):
                self.run.log_stage(name, sha256=made.sha256, metrics=made.metrics)
            self.job.document[name] = {"sha256": made.sha256, "metrics": made.metrics, "folder": str(self.run.path / name)}
