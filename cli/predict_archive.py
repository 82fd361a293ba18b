"""`octc predict INPUT... --out RESULTS`: classifies an archive into a folder of results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError
from octc.core.options import option


@dataclass(frozen=True)
class ArchiveFlags:
    """Options that apply with `--out` only."""

    out: Path | None = option(
        None, shown="Classify an archive: write Parquet files to this folder; repeat to resume", metavar="RESULTS"
    )
    workers: int | None = option(None, shown="With --out: processes, one engine each (one per core)", within=(1, None))
    shard: str = option("1/1", shown="With --out: only part I of N, for job arrays", metavar="I/N")
    retry_failed: bool = option(False, shown="With --out: retry inputs that failed")
    anyway: bool = option(False, shown="With --out: continue although the first inputs look wrong")
    time_limit: float = option(120.0, shown="With --out: time limit for reading one input, seconds")
    identity_key: Path | None = option(
        None, shown="With --out: file with the site's secret key, for hashing the patient id", metavar="FILE"
    )
    engine: str = option("local", shown="With --out: run the workers with local (this machine) or ray")
    address: str | None = option(None, shown="With --engine ray: address of the cluster (a local one)")


NO_ARCHIVE = ArchiveFlags()


def predict_archive(
    session: Session, inputs: Sequence[str], flags: ArchiveFlags, common: Mapping[str, Any], shown: Sequence[str]
) -> int:
    """Run the job and print its result.

    Args:
        common: options of `octc predict` that apply with and without --out. shown: given options that apply without it only.

    Raises:
        OctcError: E102 options that do not fit together, E801 some inputs failed, and what the job raises.
    """
    if flags.out is None:
        text = "options of an archive without --out"
        raise OctcError("OCT-E102", text, hint="--out RESULTS, a folder for the rows", place="--out")
    if shown:
        text = f"{shown[0]} is of a printed answer, and --out prints none"
        raise OctcError("OCT-E102", text, hint=f"octc results {flags.out} answers questions about rows", place=shown[0])
    from octc.archive.job import ArchiveOptions, predict_archive
    from octc.runtimes.inputs import choose_artifact, split_inputs

    place, words = split_inputs(inputs, session.run_dir)
    choice = choose_artifact(place, session.run_dir, os.environ)
    session.run_id = choice.run_id
    session.say(f"{choice.words}: {choice.found.folder}" + (f" ({choice.why})" if choice.why else ""))
    own = {name: value for name, value in asdict(flags).items() if name != "out"}
    options = ArchiveOptions(**common, **own, run_dir=session.run_dir)
    result = predict_archive(choice.found.folder, words, flags.out, options=options, reporter=session)
    session.report(asdict(result) | {"folder": str(result.folder)})
    session.result(Rows(("", ""), [(name, _cell(value)) for name, value in asdict(result).items()]))
    if result.failed:
        raise OctcError(
            "OCT-E801",
            f"{result.failed:,} of {result.inputs:,} inputs failed",
            hint="failed.parquet says why of each; the same command with --retry-failed tries them again",
            place=str(result.folder),
        )
    return 0


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
