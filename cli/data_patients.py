"""`octc data patients`: shows the patient of each image under a rule; --save stores the rule for all later commands."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.cli.data import NAME, place_of
from octc.core.data_options import DataOptions
from octc.core.errors import OctcError
from octc.core.progress import counting


def patients(
    session: Session,
    options: DataOptions,
    what: Annotated[str, typer.Argument(metavar="NAME|PATH", help=NAME)] = "ucsd",
    save: Annotated[
        bool, typer.Option("--save", help="Store the rule: later trainings and splits of these images use it")
    ] = False,
) -> int:
    """Show the patients that a rule gives, with warnings if they look implausible."""
    from octc.datasets.patient_rules import apply_rule, preview, read_rule, rule_of, wonders, words, write_rule
    from octc.datasets.reading import reading_of
    from octc.datasets.registry import scan_dataset

    rule = rule_of(options.patients, options.patient_pattern, options.patient_from)
    if save and rule is None:
        raise OctcError("OCT-E102", "--save needs a rule", hint="--patients unknown, --patient-pattern or --patient-from")
    name, root = place_of(session, what, options)
    with counting(session, "checksums") as step:
        samples = scan_dataset(name, root, progress=step, reading=reading_of(name, options))
    kept = read_rule(session.run_dir, samples.digest)
    chosen = rule or kept
    if chosen is not None:
        samples = apply_rule(samples, chosen)
    whose = "as its layout gives them" if chosen is None else f"{chosen}{'' if rule is not None else ' (saved before)'}"
    found = list(wonders(samples))
    for one in found:
        session.warn(one.code, one.message, one.place)
    rows = preview(samples)
    session.report({
        "dataset": name, "root": str(root), "rule": None if chosen is None else str(chosen), "saved": save,
        "images": len(samples.items), "patients": len({s.patient for s in samples.items if s.patient is not None}),
        "unknown": sum(s.patient is None for s in samples.items),
        "first": [{"patient": one, "images": count, "path": path} for one, count, path in rows],
    })  # fmt: skip
    cells = [(one, str(count), path) for one, count, path in rows]
    session.result(Rows(("patient", "images", "one of them"), cells, words(samples)))
    session.say(f"patients: {whose}")
    if save and rule is not None:
        write_rule(session.run_dir, samples.digest, rule)
        session.say(f"saved for these images in {session.run_dir}")
    return 0
