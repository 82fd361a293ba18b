"""`octc bench --on user@host`: the same bench on another machine, its results here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.core.errors import OctcError, Several
from octc.core.files import read_json

if TYPE_CHECKING:
    from octc.store.find import Found

# parameters of the command that go with it as they are
PASSED = ("scenario", "batch", "duration", "min_queries", "max_duration", "threads", "max_p50", "max_p90", "max_p99",
          "min_throughput", "max_mj", "require_speedup", "vs")  # fmt: skip
FLAGS = ("quick", "allow_power_cap")
PYTHON = "python3"  # of the other machine


def bench_on(
    session: Session,
    address: str,
    founds: Sequence[Found],
    teachers: Sequence[Found],
    named: Sequence[bool],
    values: Mapping[str, Any],
    images: str | None,
) -> int:
    """Copy, run there, bring back; ends as the bench there ended, or with 6.

    Raises:
        OctcError: E102 with --offline or --power-csv, E606 the far end failed, and what the bench there raised.
    """
    if session.offline:
        text = "--offline and --on: another machine is reached over the network"
        raise OctcError("OCT-E102", text, hint="leave one of them out")
    if values["power_csv"] is not None:
        raise OctcError("OCT-E102", "--power-csv and --on: the clocks differ", hint="leave one of them out")
    from octc.bench.timing.images import choose_pictures
    from octc.bench.timing.remote import check_address, run_far
    from octc.bench.timing.remote_pack import host_of, place_of, take_results, write_package, write_partial

    check_address(address)
    python = str(session.settings.get("bench", {}).get("remote_python", (PYTHON, ""))[0])
    reports = session.run_dir.parent / "reports"
    everything = [*founds, *teachers]
    with tempfile.TemporaryDirectory(prefix="octc-bench-") as scratch:
        package, answer = Path(scratch) / "there.tar", Path(scratch) / "back.tar"
        pictures = choose_pictures(images, founds[0], session.run_dir, None, os.environ, Path(scratch))[0] if images else []
        write_package(package, everything, pictures)
        places = [place_of(found) for found in founds] if any(named) else [f"{place_of(founds[0]).rpartition('/')[0]}"]
        words = ["bench", *places, "--run-dir", "runs", *_options(values), *(["--images", "images"] if images else [])]
        session.say(f"on {address}: {package.stat().st_size / 2**20:.1f} MiB to copy, over your own ssh")
        far = run_far(address, package, words, python, answer, session.say)
        lost = any(error.code == "OCT-E606" for error in far.errors)
        if not lost:
            text, files = take_results(answer, everything, reports, address)
            session.result(text.rstrip("\n"))
            for file in files:
                session.say(f"  fetched {file}")
                if file.suffix == ".json":
                    try:
                        _report(session, read_json(file))
                    except ValueError as error:
                        text = f"{address} sent a result that cannot be read: {error}"
                        raise OctcError("OCT-E606", text, hint="octc bench --on again", place=str(file)) from error
    if lost and far.partial is not None:
        document = far.partial
        document["machine"]["remote_host"] = host_of(address)
        document.update(status="INVALID", exit_code=6)
        session.say(f"  partial result: {write_partial(document, founds, reports)}")
        _report(session, document)
    if far.errors:
        raise far.errors[0] if len(far.errors) == 1 else Several(far.errors)
    return far.exit_code


def _report(session: Session, document: dict[str, Any]) -> None:
    session.run_id = document["run_id"]
    session.report(document)


def _options(values: Mapping[str, Any]) -> list[str]:
    words = []
    for name in PASSED:
        if values[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(values[name])]
    words += [f"--{name.replace('_', '-')}" for name in FLAGS if values[name]]
    return [*words, *([] if values["power"] else ["--no-power"])]
