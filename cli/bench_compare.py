"""`octc bench --compare A.json B.json`: two results beside each other."""

from __future__ import annotations

from pathlib import Path

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError


def compare_results(session: Session, places: list[str]) -> int:
    """Print what changed; 1 where two valid ratios of the same pair differ by more than 10 %."""
    from octc.bench.timing.compare_results import AGREE, lines, read_result, why_not_comparable

    if len(places) != 2:
        text = f"--compare takes two results, not {len(places)}"
        raise OctcError("OCT-E102", text, hint="octc bench --compare A.json B.json", place="--compare")
    first, second = (read_result(Path(place)) for place in places)
    apart = why_not_comparable(first, second)
    found = list(lines(first, second))
    if not found:
        text = "the two results have no row and no comparison in common"
        raise OctcError("OCT-E102", text, hint="name results of the same artifacts", place=" ".join(places))
    session.result(Rows(("what", first["run_id"], second["run_id"], "second / first"), [line.cells() for line in found]))
    for reason in apart:
        session.result(f"not comparable: {reason}")
    told = [line for line in found if line.agrees is not None]
    off = [line for line in told if not line.agrees]
    percent = 100 * (AGREE - 1)
    session.result(f"{len(told) - len(off)} of {len(told)} ratios agree within {percent:.0f} %")
    session.report(
        {"runs": [first["run_id"], second["run_id"]], "not_comparable": apart, "lines": [vars(line) for line in found]}
    )
    if off:
        text = f"ratios of the same pair differ by more than {percent:.0f} %: {off[0].what}"
        raise OctcError("OCT-E607", text, hint="end other programs and measure both again", place=places[1])
    return 0
