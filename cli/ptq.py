"""`octc ptq`: compares the installed post-training quantisation engines on one checkpoint with FP32 and the run's INT8."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.options import OneOf
from octc.schemas.verification import SPELLED

if TYPE_CHECKING:
    from octc.export.ptq.compare import Row

COLUMNS = ("engine", "target", "agreement, %", "accuracy, %", "lost", "gained", "noise, dB", "MB", "ms")


def _targets() -> Iterable[str]:
    from octc.export.formats import foreign_targets

    return foreign_targets()


def ptq(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Student run (the newest finished one)")] = None,
    target: Annotated[str, OneOf(("all", *_targets())), typer.Option(help="Inference engine of the quantised files")] = "all",
    split: Annotated[
        str,
        OneOf(("val", "select", "test")),
        typer.Option(help="Set to compare on: val (or select), or test (recorded in the test-set log)"),
    ] = "select",
) -> int:
    """Compare post-training quantisation engines: agreement with FP32, accuracy, size and latency. Writes no artifact."""
    from octc.core.optional import need_wing

    need_wing("export")
    from octc.bench.timing.turns import ROUNDS, medians
    from octc.cli.export import find_student
    from octc.export.ptq.compare import check_request, compare_engines

    targets = None if target == "all" else [target]
    split = SPELLED.get(split, split)
    check_request(targets, split)
    chosen = find_student(session, run)
    session.run_id = chosen.id
    found = compare_engines(chosen, targets, split, data=session.data, timer=medians, reporter=session)
    session.report(found.to_json())
    for name, why in found.absent.items():
        session.say(f"  ! {name}: {why}")
    title = f"{chosen.id}: {found.images} images of {split}; ms: median, batch 1, {ROUNDS} interleaved rounds"
    session.result(Rows(COLUMNS, [_cells(row) for row in found.rows], title))
    return 0


def _cells(row: Row) -> list[str]:
    shares = (f"{100 * row.agreement:.2f}", f"{100 * row.accuracy:.2f}", str(row.lost), str(row.gained))
    time = "-" if row.median_ms is None else f"{row.median_ms:.2f}"
    return [row.engine, row.target, *shares, f"{row.snr_db:.1f}", f"{row.bytes / 1e6:.2f}", time]
