"""`octc compare A.csv B.csv`: compares the predictions of any two programs on the same rows."""

from __future__ import annotations

from pathlib import Path

from octc.cli._app.session import Session
from octc.core.errors import OctcError
from octc.schemas.comparing import TableFiles, TableOptions
from octc.stats.test_plan import ParityOptions


def compare_tables(
    session: Session, tables: tuple[Path, Path], options: TableOptions, gate: ParityOptions, written: TableFiles
) -> int:
    """Print the verdict, write the report and the requested files; exit code 0 only if the claim is shown."""
    from octc.bench.parity.tables.compare import compare_files
    from octc.bench.report.table_report import write_for_ci, write_refusal, write_tables_report
    from octc.core.clock import utc_now

    if given := [name for name in ("split", "tta") if session.origins.get(f"compare.{name}") == "flag"]:
        text = f"tables have neither parts nor views: --{', --'.join(given)}"
        raise OctcError("OCT-E102", text, hint="leave it out", place=f"--{given[0]}")
    try:
        found = compare_files(*tables, options=options, gate=gate, reporter=session)
    except OctcError as error:
        write_refusal(error, tables, written.junit, written.markdown)
        raise
    folder = write_tables_report(found, session.run_dir.parent / "reports", utc_now())
    write_for_ci(found, written.junit, written.markdown)
    session.report({**found.to_json(), "folder": str(folder)})
    session.result(found.to_text() if session.verbose else str(found))
    session.result(str(folder))
    if not session.verbose:
        session.say("the other numbers: octc compare -v prints them, compare.html shows them")
    found.raise_if_failed()
    return 0
