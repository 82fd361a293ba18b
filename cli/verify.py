"""`octc verify`: tests that an artifact is non-inferior to its reference, or reports what is missing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.remote import remote_python
from octc.cli._app.session import Session
from octc.core.errors import OctcError, Several
from octc.core.options import described
from octc.schemas.configuration import config_option
from octc.schemas.verification import VerifyOptions
from octc.stats.test_plan import ParityOptions

if TYPE_CHECKING:
    from octc.bench.parity.fleet import Fleet
    from octc.bench.parity.result import VerifyResult


def verify(
    session: Session,
    requested: VerifyOptions,
    margins: ParityOptions,
    artifact: Annotated[
        str | None,
        typer.Argument(metavar="ARTIFACT", help="Artifact, folder of artifacts, or run (newest student run)"),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx: build and test its engines on this machine, or check a report")
    ] = None,
    on_device: Annotated[
        bool, typer.Option("--on-device", help="With --target: confirm that this machine will run the engines")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --target: labelled images DIR/<class>/*, to compare INT8 with FP16")
    ] = None,
    allow_fallback: Annotated[
        bool, typer.Option("--allow-fallback", help="With --target: run layers that cannot be INT8 in float, and record it")
    ] = False,
) -> int:
    """Replay the golden images, then compare with the FP32 reference and the teacher on labelled images of other patients.

    Exit code 0 only if every claim is shown: non-inferior at the margins that were stated beforehand. The margins are stored
    (verify-plan.json of the run) before the test set is first read. Later verdicts use them unless you give others; a verdict
    with other margins is exploratory, and is listed beside the planned one.
    """
    if target is not None or on_device or images is not None:
        if requested.on is not None:
            text = "--on and --target: engines are built on the machine that runs them"
            raise OctcError("OCT-E102", text, hint="octc verify --target tensorrt --on-device there", place="--on")
        return _on_device(
            session,
            artifact,
            target=target or "tensorrt",
            on_device=on_device,
            images=images,
            margin=margins.margin,
            allow_fallback=allow_fallback,
        )
    if requested.on is None and requested.fleet is not None:
        return _fleet(session, requested.fleet, artifact)
    if requested.on is None and requested.emulate is not None:
        return _emulate(session, requested.emulate, requested, artifact)
    from octc.bench.parity.verify import place_of, verify_artifacts

    keys = {one.name: f"verify.{config_option('verify', one.name) or one.name}" for one in described(ParityOptions)}
    stated = frozenset(name for name, key in keys.items() if session.origins.get(key, "default") != "default")
    requested = replace(requested, options=margins, stated=stated)
    if requested.on is not None:
        return _far(session, requested.on, requested, artifact)
    result = verify_artifacts(artifact, requested, place_of(session.run_dir, session.data), session)
    session.run_id = result.run_id
    _show(session, result)
    result.raise_if_failed()
    session.say("next: octc bench")
    return 0


def _on_device(session: Session, artifact: str | None, **requested: Any) -> int:
    """Build and test a TensorRT artifact on this machine, or check the report of another machine."""
    from octc.export.tensorrt.device_check import DeviceJob, check_device

    result = check_device(DeviceJob(artifact, run_dir=session.run_dir, reporter=session, **requested))
    session.report(result.to_json())
    session.result("\n".join(result.lines))
    if result.report is not None:
        session.say(f"report: {result.report} (no path, host name or image in it: it can be sent)")
    if result.judgement.fell_back:
        session.warn("OCT-W406", "an engine is not what was requested: the report lists the steps of the fallback")
    result.raise_if_failed()
    return 0


def _fleet(session: Session, folder: Path, reference: str | None) -> int:
    """Compare the verification documents of one artifact from many machines; ARTIFACT names the reference machine."""
    from octc.bench.parity.fleet import read_fleet

    return _show_fleet(session, read_fleet(folder, reference))


def _far(session: Session, address: str, requested: VerifyOptions, artifact: str | None) -> int:
    """Run octc verify on another machine; return its exit code there, or 6 if it cannot be reached."""
    from octc.bench.parity.remote import verify_on
    from octc.bench.parity.verify import place_of

    python = remote_python(session)
    found = verify_on(address, artifact, requested, place_of(session.run_dir, session.data), session, python)
    if found.text:
        session.result(found.text.rstrip("\n"))
    session.report(found.to_json())
    if found.file is not None:
        session.say(f"  fetched {found.file}")
        session.say(f"next: octc verify --fleet {found.file.parent} (with verify.json of octc verify --layers on this machine)")
    found.raise_if_failed()
    return found.exit_code


def _emulate(session: Session, names: str, requested: VerifyOptions, artifact: str | None) -> int:
    """Replay the golden images of one artifact under emulated processors, and compare with this machine."""
    from octc.bench.parity.emulate import emulate, names_of
    from octc.store.find import find_artifacts

    wanted = names_of(names)
    founds, words = find_artifacts(artifact, session.run_dir, os.environ)
    session.say(words)
    if len(founds) > 1:
        text = f"{len(founds)} artifacts: {', '.join(one.artifact.name for one in founds)}"
        raise OctcError("OCT-E107", text, hint=f"octc verify {founds[0].folder} --emulate {names}", place=artifact)
    session.say("  emulation shows answers of an instruction set, and nothing of its speed")
    found = emulate(founds[0].folder, wanted, requested.emulate_root, session, sample=requested.sample)
    return _show_fleet(session, found)


def _show_fleet(session: Session, found: Fleet) -> int:
    """Write and print the comparison of machines."""
    from octc.bench.report.fleet_report import write_fleet
    from octc.cli._app.tables import Rows
    from octc.core.clock import utc_now

    page = write_fleet(found, session.run_dir.parent / "reports", utc_now())
    for name in found.passed_over:
        session.say(f"  ! {name}: no document of a verification")
    session.report({**found.to_json(), "page": str(page)})
    session.result(Rows(found.COLUMNS, found.table(), found.title))
    session.result(str(page))
    found.raise_if_failed()
    return 0


def _show(session: Session, result: VerifyResult) -> None:
    """Write verify.json into each candidate's folder, and print the verdicts."""
    from octc.bench.parity.summary import columns, summary, text_of, title, uses_line
    from octc.cli._app.tables import Rows
    from octc.cli.choose import say_choice

    for note in result.notes:
        session.say(f"  ! {note}")
    brief = not session.verbose
    texts = [text_of(one, result, brief=brief) for one in result.judged]  # before verify.json is replaced: may cite it
    try:
        result.write()
    except OctcError as error:
        for one in error.errors if isinstance(error, Several) else [error]:
            session.warn("OCT-W701", one.message, one.place)
    session.report(result.to_json())
    if len(texts) > 1:
        session.result(Rows(columns(result), list(summary(result)), title(result)))
    session.result("\n\n".join(texts))
    if brief and result.labelled is not None:
        session.say("the other numbers: octc verify -v prints them, octc report draws them, verify.json holds them")
    if line := uses_line(result):
        session.say(line)
    say_choice(session, result.compared)
