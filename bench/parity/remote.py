"""A verification on another machine: copy the artifact, what it is compared with and the images there, run `octc verify`, and
bring its document back, so that `octc verify --fleet` puts it beside others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octc.bench.parity.evaluation_set import LabelledSet, check_artifact, check_images, find_set, spoken
from octc.bench.parity.job import Job, Place
from octc.bench.parity.plan_lock import PLAN, planned_options
from octc.bench.parity.references import companions
from octc.bench.parity.verify import check_options, register
from octc.bench.remote.package import place_of, run_place, write_package
from octc.bench.remote.ssh import PYTHON, check_address, host_of, opened_answer, run_far
from octc.core.errors import OctcError, combined
from octc.core.files import parse_json, write_json
from octc.core.options import typed
from octc.core.progress import Reporter
from octc.core.scratch import scratch
from octc.datasets.base import Sample
from octc.datasets.pictures import is_here, volume_of
from octc.datasets.split import SETS, Split
from octc.schemas.common import convert
from octc.schemas.verification import VerifyOptions
from octc.schemas.verify import VerifyFile
from octc.stats.task import task_of
from octc.store.artifacts import read_artifact
from octc.store.find import Found, find_artifacts
from octc.store.locations import run_of
from octc.store.runs import RUN
from octc.store.test_set_log import LOG
from octc.store.verdicts import FILE

MOST = 2 << 30  # bytes of images that are carried
LARGEST = 1 << 28  # bytes of a document
FETCHED = ("-name", FILE, "-type", "f")  # words of find(1)
HERE = ("subgroups", "emulate", "sample")  # what another machine is not asked for


@dataclass(frozen=True)
class FarVerdict:
    """What came back. text: the screen of the other machine; document: its verify.json, None where it did not get so far;
    file: where that was written; errors: what it raised.
    """

    host: str
    text: str
    document: dict[str, Any] | None
    file: Path | None
    exit_code: int
    errors: tuple[OctcError, ...]

    def raise_if_failed(self) -> None:
        """Raise what the other machine raised."""
        if self.errors:
            raise combined(self.errors)

    def to_json(self) -> dict[str, Any]:
        """Plain data: what `octc verify --on --json` prints."""
        file = None if self.file is None else str(self.file)
        return {"remote_host": self.host, "file": file, "verdicts": self.document}


def verify_on(
    address: str, artifact: str | None, requested: VerifyOptions, place: Place, reporter: Reporter, python: str = PYTHON
) -> FarVerdict:
    """Verify one artifact on another machine, over the user's own ssh; its document goes into `requested.fleet`.

    The images are those of the set, all of them (and those of the validation set, for its temperature), where they are here;
    else the golden images alone are replayed. On the test set the plan and a row of the test-set log are written here before
    anything is copied.

    Args:
        address: user@host. artifact: as of `find_artifacts`. python: the interpreter of the other machine.
        requested: `fleet` None is fleet/<artifact>-<checksum>/ beside the runs; every layer is recorded.

    Raises:
        OctcError: E102 what cannot go along, E104 no address or more than 2 GiB of images, E107 several artifacts, E708 no FP32
            artifact that runs without torch, E606 the other machine failed; those of `find_set` and of checking the images.
    """
    if given := [f"--{name}" for name in HERE if getattr(requested, name) is not None]:
        raise OctcError("OCT-E102", f"{given[0]} and --on go together in no way", hint="leave one of them out", place="--on")
    check_address(address)
    founds, words = find_artifacts(artifact, place.run_dir, place.environ)
    reporter.say(words)
    if len(founds) > 1:
        text = f"{len(founds)} artifacts: {', '.join(one.artifact.name for one in founds)}"
        raise OctcError("OCT-E107", text, hint=f"octc verify {founds[0].folder} --on {address}", place="--on")
    task = task_of(founds[0].artifact.task)
    check_options(task, requested)
    against = requested.against if task.exclusive else "fp32"
    asked = replace(requested, against=against, layers=True, on=None, fleet=None)
    load = _loaded(founds[0], asked, place, reporter)
    with scratch("verify") as folder:
        package, answer = folder / "there.tar", folder / "back.tar"
        write_package(package, load.founds, load.files)
        size = f"{package.stat().st_size / 2**20:.1f} MiB"
        reporter.say(f"on {address}: {load.words}; {size} to copy, over your own ssh")
        far = run_far(address, package, load.typed, python, answer, reporter.say, FETCHED)
        text, document = _taken(answer, founds[0], address)
    file = None if document is None else _folder(founds[0], requested, place) / f"{_plain(host_of(address))}.json"
    if file is not None:
        write_json(file, document)
    return FarVerdict(host_of(address), text, document, file, far.exit_code, far.errors)


@dataclass(frozen=True)
class _Load:
    """What is carried, what it is in words, and the command there."""

    founds: tuple[Found, ...]
    files: Mapping[str, Path | bytes]
    words: str
    typed: tuple[str, ...]


def _loaded(found: Found, requested: VerifyOptions, place: Place, reporter: Reporter) -> _Load:
    """Artifacts, run and images; the reading of the test set is written down when all is there."""
    run = run_of(found.folder, found.artifact, place.run_dir)
    labelled, split, why = find_set(run, requested.set_name, place.data, place.environ)
    base = ("verify", place_of(found), "--run-dir", "runs")
    if run is None or labelled is None or split is None:
        if requested.require_set:
            raise OctcError("OCT-E230", f"--require-set: {why}", hint="--data DIR and --run-dir DIR of the training")
        reporter.say(f"  ! golden images alone: {why}")
        threads = () if requested.threads is None else ("--threads", str(requested.threads))
        return _Load((found,), {}, "1 artifact, no labelled image", (*base, "--layers", *threads))
    claims = _claims(found, requested, place)
    founds = tuple({one.folder.resolve(): one for one in (found, *claims.values())}.values())
    if labelled.name == "test":
        requested = replace(requested, options=planned_options(run, requested.options, requested.stated))
    for one in founds:
        check_artifact(one.artifact, split)
    images = _images(labelled, split, exclusive=task_of(found.artifact.task).exclusive)
    with reporter.progress(f"checksums of the {spoken(labelled.name)}", len(labelled.samples)) as step:
        check_images(labelled, split, step)
    log = run.path / LOG
    before = log.read_bytes() if log.is_file() else None  # the other machine adds this reading to its copy
    if labelled.name == "test":
        mine = {found.artifact.name: found.artifact.sha256}
        sums = {claim: one.artifact.sha256 for claim, one in claims.items()}
        register(run, labelled, split, sums, mine, mine, Job(requested, place, reporter))
    files: dict[str, Path | bytes] = {f"images/{name}": path for name, path in images.items()}
    files |= {
        f"{run_place(found)}/{path.name}": path for path in (run.path / RUN, run.split, run.path / PLAN) if path.is_file()
    }
    files |= {} if before is None else {f"{run_place(found)}/{LOG}": before}
    words = f"{len(founds)} artifacts, {len(images)} files of images"
    return _Load(founds, files, words, (*base, "--data", "images", *typed(requested), *typed(requested.options)))


def _claims(found: Found, requested: VerifyOptions, place: Place) -> dict[str, Found]:
    """Claim -> what it is compared with there, in the order that they are tested."""
    known = companions(found, place.run_dir)
    if requested.reference is not None:
        known = {**known, "fp32": Found(requested.reference, read_artifact(requested.reference))}
    claims: dict[str, Found] = {c: known[c] for c in ("fp32", "teacher") if c in known and requested.against in (None, c)}
    if (wanted := requested.against or "fp32") not in claims:
        run = str(found.artifact.lineage.get("run" if wanted == "fp32" else "teacher_run"))
        text = f"no FP32 artifact of run {run} is here that runs without torch"
        raise OctcError("OCT-E708", text, hint=f"octc export {run} --target onnx --fp32", place=str(found.folder))
    return claims


def _images(labelled: LabelledSet, split: Split, *, exclusive: bool) -> dict[str, Path]:
    """Files of the set, and those of the validation set where a temperature is fitted on it; names relative to the root.

    Raises:
        OctcError: E104 more than is carried; of a volume that cannot be read.
    """
    root, samples = labelled.root, list(labelled.samples)
    validation = split.parts[SETS["select"]]
    if exclusive and labelled.name == "test" and all(is_here(root, sample) for sample in validation):
        samples += validation
    files = dict(_files(root, samples))
    if (size := sum(path.stat().st_size for path in files.values())) > MOST:
        text = f"the images are {size / 2**30:.1f} GiB; at most {MOST >> 30} GiB are carried"
        hint = "--set val, where that is smaller; or copy run and images there, octc verify there, and octc verify --fleet here"
        raise OctcError("OCT-E104", text, hint=hint, place="--on")
    return files


def _files(root: Path, samples: Sequence[Sample]) -> Iterator[tuple[str, Path]]:
    """What the samples are read from; of a volume the files beside it that it is made of too."""
    for sample in {sample.file: sample for sample in samples if is_here(root, sample)}.values():
        yield sample.file, root / sample.file
        if sample.scan is not None:
            others = volume_of(root, sample.scan).others
            yield from ((path.relative_to(root).as_posix(), path) for path in others)


def _taken(answer: Path, found: Found, address: str) -> tuple[str, dict[str, Any] | None]:
    """The text of the far end's screen, and its verify.json, which names both machines; everything else is left.

    Raises:
        OctcError: E606 it sent something else, or what it sent is cut off.
    """
    text, document = "", None
    with opened_answer(answer, address) as tar:
        for entry in tar:
            stream = tar.extractfile(entry) if entry.isfile() and entry.size <= LARGEST else None
            if stream is None:
                continue
            if entry.name == "out.txt":
                text = stream.read().decode(errors="replace")
            elif entry.name == f"{place_of(found)}/{FILE}":
                document = _checked(stream.read(), found, address)
    return text, document


def _checked(data: bytes, found: Found, address: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = parse_json(data)
        convert(value, VerifyFile)
        if value["artifact_sha256"] != found.artifact.sha256:
            raise ValueError("it is about another artifact")
        stored = (value["test"], value["repeated"], value["select"], value["golden"], *value["exploratory"])
        for one in stored:
            if one is not None:
                one["machine"] = {**(one.get("machine") or {}), "remote_host": host_of(address)}
    except (ValueError, KeyError, TypeError) as error:
        text = f"{address} sent a document that cannot be read: {error}"
        raise OctcError("OCT-E606", text, hint="octc verify --on again", place=address) from error
    return value


def _folder(found: Found, requested: VerifyOptions, place: Place) -> Path:
    """Where documents of this artifact are gathered."""
    return requested.fleet or place.run_dir.parent / "fleet" / f"{found.artifact.name}-{found.artifact.sha256[:12]}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name)
