"""`octc verify`: prove that an artifact is as good as its reference, or say what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError, Several

if TYPE_CHECKING:
    from octc.bench.parity.references import Parties
    from octc.bench.parity.result import Asked, Place, Result

CHOICES = {"--against": ("fp32", "teacher"), "--set": ("test", "select"), "--tta": ("none", "hflip", "5")}

# option of the parity plan -> its name among the origins of this command's options
STATED = {
    "alpha": "alpha", "margin": "margin_pp", "class_margin": "class_margin_pp", "claim": "test", "tier": "tier",
    "ece_slack": "ece_slack", "plan_discordance": "plan_discordance", "plan_icc": "plan_icc", "auc_margin": "auc_margin",
    "bootstrap": "bootstrap", "seed": "seed",
}  # fmt: skip


def verify(
    session: Session,
    bundle: Annotated[
        str | None,
        typer.Argument(metavar="[BUNDLE]", help="Artifact, folder of artifacts, or run; newest student run"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="fp32 or teacher; without: fp32, and if that holds the teacher, if it is here"),
    ] = None,
    set_: Annotated[str, typer.Option("--set", help="test, or select (the validation images of the run)")] = "test",
    test: Annotated[str, typer.Option(help="Claim: ni (non-inferior) or tost (equivalent)")] = "ni",
    margin: Annotated[float, typer.Option(help="Largest acceptable loss of accuracy, percentage points")] = 1.0,
    class_margin: Annotated[float, typer.Option(help="The same for each class's sensitivity")] = 3.0,
    alpha: Annotated[float, typer.Option(help="Two-sided level; 0.05 gives 95 % intervals")] = 0.05,
    tier: Annotated[str, typer.Option(help="Floor of right images against the reference, percent: 99 or 99.9")] = "99",
    tta: Annotated[
        str, typer.Option(help="none, hflip or 5 views: a second row beside the headline, which stays without (exit code too)")
    ] = "none",
    plan_discordance: Annotated[
        float | None, typer.Option(help="Planned share of discordant images, percent (from the select set, else 2)")
    ] = None,
    plan_icc: Annotated[
        float | None, typer.Option(help="Planned correlation within a patient (from the select set, else 0.5)")
    ] = None,
    ece_slack: Annotated[float, typer.Option(help="How far the calibration error may rise, as a fraction")] = 0.005,
    auc_margin: Annotated[
        float | None,
        typer.Option(help="Largest acceptable loss of the mean AUC, percentage points; without it AUC decides nothing"),
    ] = None,
    subgroups: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV: path, sha256 or patient, and columns whose values are compared apart"),
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Also on pictures made worse: noise, speckle, brightness, blur, JPEG, resizing")
    ] = False,
    bootstrap: Annotated[int, typer.Option(help="Patient resamples")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples")] = 0,
    require_set: Annotated[bool, typer.Option("--require-set", help="Fail where the images are not on this machine")] = False,
    threads: Annotated[int | None, typer.Option(help="Threads of the engine (physical cores)")] = None,
    target: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx: build and judge the engines of BUNDLE here, or judge a report")
    ] = None,
    on_device: Annotated[
        bool, typer.Option("--on-device", help="With --target: this is the machine that will run them")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --target: labelled pictures, DIR/<class>/*, for INT8 against FP16")
    ] = None,
    allow_fallback: Annotated[
        bool, typer.Option("--allow-fallback", help="With --target: layers that cannot be INT8 go to float, and it is recorded")
    ] = False,
) -> int:
    """Replay the golden images, then compare with the FP32 reference and the teacher on labelled images of other patients.

    Ends with 0 only when every claim is shown: non-inferior at the margins that were stated before. The margins are written
    down (verify-plan.json of the run) before the first look at the test set, and are those of every later look that does not
    state its own; one with others is exploratory, and stands beside the planned verdict.
    """
    if target is not None or on_device or images is not None:
        from octc.cli.verify_device import verify_device

        return verify_device(
            session,
            bundle,
            target or "tensorrt",
            on_device=on_device,
            images=images,
            margin=margin,
            allow_fallback=allow_fallback,
        )
    for name, value in (("--against", against), ("--set", set_), ("--tta", tta)):
        if value is not None and value not in CHOICES[name]:
            raise OctcError("OCT-E104", f"{name} {value} is not known", hint=f"one of: {', '.join(CHOICES[name])}", place=name)
    from octc.bench.parity.result import Asked
    from octc.stats.test_plan import ParityOptions

    share = None if plan_discordance is None else plan_discordance / 100
    stated = frozenset(field for field, key in STATED.items() if session.origins.get(f"verify.{key}", "default") != "default")
    options = ParityOptions(alpha, margin, class_margin, test, tier, ece_slack, bootstrap, seed, share, plan_icc, auc_margin)
    return _verify(session, bundle, Asked(options, set_, against, tta, threads, require_set, subgroups, robustness, stated))


def _verify(session: Session, bundle: str | None, asked: Asked) -> int:
    import os

    from octc.bench.parity.references import choose_parties
    from octc.bench.parity.verify import verify_all
    from octc.store.find import VARIABLE, artifact_of, find_artifacts

    founds, words = find_artifacts(bundle, session.run_dir, os.environ)
    session.say(words)
    if founds[0].artifact.task == "multilabel":
        from octc.cli.verify_eyes import verify_eyes

        return verify_eyes(session, founds, bundle, asked, _place(session))
    named = founds[0].folder in (Path(), artifact_of(bundle or ""), artifact_of(os.environ.get(VARIABLE, "")))
    parties = choose_parties(founds, session.run_dir, asked.against, named=named)
    session.run_id = str(parties.candidates[0].artifact.lineage.get("run"))
    for found, why in parties.absent:
        session.say(f"  ! NA       {found.artifact.name}: {why}")
    place = _place(session)
    result = verify_all(asked, parties, place, session.progress, session.say)
    for note in result.notes:
        session.say(f"  ! {note}")
    return _conclude(session, result, parties, place, asked)


def _place(session: Session) -> Place:
    import os

    from octc.bench.parity.result import Place
    from octc.machine.host import read_machine
    from octc.store.runs import utc_now

    machine = read_machine()
    facts = {"cpu_model": machine.cpu_model, "cpu_isa": machine.cpu_class, "host": machine.name}
    return Place(session.run_dir, session.data, os.environ, facts, utc_now())


def _conclude(session: Session, result: Result, parties: Parties, place: Place, asked: Asked) -> int:
    """Store and print what was found; raise what did not hold."""
    from octc.bench.parity.summary import COLUMNS, document, failures, summary, text_of, title, uses_line
    from octc.cli._app.tables import Rows
    from octc.cli.choose import say_choice
    from octc.store.verdicts import write_verdict

    facts = _facts(session, result, place)
    documents = []
    brief = not session.verbose
    texts = [text_of(one, result, brief=brief) for one in result.judged]  # before verify.json is written: it may tell of before
    for one in result.judged:
        documents.append(document(one, result, facts))
        key = "golden" if result.labelled is None or not one.claims else asked.set_name
        if one.error is not None:
            continue
        try:
            write_verdict(one.found.folder, one.found.artifact.name, one.sha256, key, documents[-1], result.run)
        except OctcError as error:
            session.warn("OCT-W701", error.message, str(one.found.folder))
    rows = list(summary(result))
    session.report(
        {
            "run": session.run_id,
            "set": asked.set_name,
            "golden_only": result.labelled is None,
            "artifacts": documents,
            "absent": [{"name": found.artifact.name, "reason": why} for found, why in parties.absent],
            "notes": list(result.notes),
            "summary": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
            "uses_of_test": None if result.standing is None else result.standing.uses,
            "test_set_log": None if result.standing is None else result.standing.log.to_json(),
        }
    )
    if len(texts) > 1:
        session.result(Rows(COLUMNS, rows, title(result)))
    session.result("\n\n".join(texts))
    if brief and result.labelled is not None:
        session.say("the other numbers: octc verify -v prints them, octc report draws them, verify.json holds them")
    if line := uses_line(result):
        session.say(line)
    beside = [] if parties.reference is None else [parties.reference]
    say_choice(session, list({one.folder: one for one in (*parties.candidates, *beside)}.values()))
    errors = list(failures(result))
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
    session.say("next: octc bench")
    return 0


def _facts(session: Session, result: Result, place: Place) -> dict[str, Any]:
    from octc.machine.host import versions

    return {
        "run_id": result.run.id if result.run else session.run_id,
        "time_utc": place.now,
        "versions": versions(),
        "machine": dict(place.machine),
    }
