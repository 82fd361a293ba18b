"""`octc ptq`: every PTQ engine that is installed on one checkpoint, side by side with FP32 and with the trained INT8."""

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
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Student run; the newest finished one without it")] = None,
    target: Annotated[str, OneOf(("all", *_targets())), typer.Option(help="Engine of the files")] = "all",
    split: Annotated[
        str,
        OneOf(("val", "select", "test")),
        typer.Option(help="val (or select) or test, which is logged"),
    ] = "select",
) -> int:
    """Compare PTQ engines: agreement with FP32, accuracy, size and latency. Publishes nothing."""
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
