"""`octc verify`: test that an artifact is not worse than its reference, or say what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError, Several

if TYPE_CHECKING:
    from octc.bench.parity.result import VerifyResult

SETS = {"val": "select"}  # as it is typed -> as documents spell it

# option of the parity plan -> its name among the origins of this command's options
STATED = {
    "alpha": "alpha", "margin": "margin_pp", "class_margin": "class_margin_pp", "claim": "test", "tier": "tier",
    "ece_slack": "ece_slack", "plan_discordance": "plan_discordance", "plan_icc": "plan_icc", "auc_margin": "auc_margin",
    "bootstrap": "bootstrap", "seed": "seed",
}  # fmt: skip


def verify(  # noqa: PLR0913 - an option a parameter
    session: Session,
    bundle: Annotated[
        str | None,
        typer.Argument(metavar="[ARTIFACT]", help="Artifact, folder of artifacts, or run; newest student run"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="fp32 or teacher; without: fp32, and if that holds the teacher, if it is here"),
    ] = None,
    set_: Annotated[str, typer.Option("--set", help="test, or val (the validation set of the run)")] = "test",
    test: Annotated[str, typer.Option(help="Claim: ni (non-inferior) or tost (equivalent)")] = "ni",
    margin: Annotated[float, typer.Option(help="Largest acceptable loss of accuracy, percentage points")] = 1.0,
    class_margin: Annotated[float, typer.Option(help="The same for each class's sensitivity")] = 3.0,
    alpha: Annotated[float, typer.Option(help="Two-sided level; 0.05 gives 95 % intervals")] = 0.05,
    tier: Annotated[str, typer.Option(help="Floor of right images against the reference, percent: 99 or 99.9")] = "99",
    tta: Annotated[
        str, typer.Option(help="none, hflip or 5 views: a second row beside the headline, which stays without (exit code too)")
    ] = "none",
    plan_discordance: Annotated[
        float | None, typer.Option(help="Planned share of discordant images, percent (from the validation set, else 2)")
    ] = None,
    plan_icc: Annotated[
        float | None, typer.Option(help="Planned correlation within a patient (from the validation set, else 0.5)")
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
        str | None, typer.Option(help="tensorrt or tensorrt-rtx: build and judge its engines here, or judge a report")
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
    down (verify-plan.json of the run) before the test set is first read, and are those of every later verdict that does not
    state its own; one with others is exploratory, and is listed beside the planned verdict.
    """
    if target is not None or on_device or images is not None:
        return _on_device(
            session,
            bundle,
            target=target or "tensorrt",
            on_device=on_device,
            images=images,
            margin=margin,
            allow_fallback=allow_fallback,
        )
    from octc.bench.parity.job import VerifyOptions
    from octc.bench.parity.verify import place_of, verify_artifacts
    from octc.stats.test_plan import ParityOptions

    share = None if plan_discordance is None else plan_discordance / 100
    stated = frozenset(field for field, key in STATED.items() if session.origins.get(f"verify.{key}", "default") != "default")
    margins = ParityOptions(alpha, margin, class_margin, test, tier, ece_slack, bootstrap, seed, share, plan_icc, auc_margin)
    requested = VerifyOptions(
        margins,
        SETS.get(set_, set_),
        against,
        tta,
        threads,
        require_set,
        subgroups,
        robustness,
        stated=stated,
    )
    result = verify_artifacts(bundle, requested, place_of(session.run_dir, session.data), session)
    session.run_id = result.run_id
    _show(session, result)
    result.raise_if_failed()
    session.say("next: octc bench")
    return 0


def _on_device(session: Session, artifact: str | None, **requested: Any) -> int:
    """Build and judge a TensorRT artifact on this machine, or judge the report of another one."""
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


def _show(session: Session, result: VerifyResult) -> None:
    """Write verify.json beside each candidate, and print."""
    from octc.bench.parity.summary import columns, summary, text_of, title, uses_line
    from octc.cli._app.tables import Rows
    from octc.cli.choose import say_choice

    for note in result.notes:
        session.say(f"  ! {note}")
    brief = not session.verbose
    texts = [text_of(one, result, brief=brief) for one in result.judged]  # before verify.json is written: it may tell of before
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
