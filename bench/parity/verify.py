"""`octc verify`: golden images first, then the labelled set, then a verdict on every claim.

The order is fixed: nothing runs on the test set before its images were checked, the artifact reproduces its golden images
and the plan is written down. Classes that exclude each other and classes that do not take the same way; what differs is in
their `Task` and in `octc.bench.parity.tasks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from octc.bench.parity.box import box_of
from octc.bench.parity.claim import Context, ParityReport, SetInfo, Side, compare, withhold
from octc.bench.parity.decisions import DecisionVerdict
from octc.bench.parity.evaluation_set import (
    LabelledSet,
    check_artifact,
    check_images,
    find_set,
    folded_temperature,
    spoken,
)
from octc.bench.parity.eyes import EyeVerdict, judge_eyes
from octc.bench.parity.inference import Records, image_ids
from octc.bench.parity.job import Job, Place
from octc.bench.parity.measure import measure_everyone, measure_robustness, temperatures_of
from octc.bench.parity.open_artifact import Opened, open_candidates, open_references
from octc.bench.parity.plan_lock import Access, SetUse, planned_options, register_use
from octc.bench.parity.predictions import MEASURED
from octc.bench.parity.references import Roles, choose_roles
from octc.bench.parity.result import Judged, VerifyResult
from octc.bench.parity.rules import judge_rules
from octc.bench.parity.subgroups import SIZE, Groups, picture_sizes, read_groups
from octc.core.clock import utc_now
from octc.core.deprecated import variable
from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Reporter
from octc.datasets.split import Split
from octc.machine.host import read_machine, versions
from octc.runtimes.layers import layer_gaps
from octc.schemas.verification import VerifyOptions
from octc.stats.aggregation import stated_aggregation
from octc.stats.robustness import Robustness
from octc.stats.task import Task, task_of
from octc.stats.temperature import Temperature
from octc.stats.test_plan import ParityOptions
from octc.store.artifacts import read_artifact, read_golden
from octc.store.find import VARIABLE, Found, artifact_of, find_artifacts, path_of
from octc.store.locations import run_of
from octc.store.runs import Run


def place_of(run_dir: Path, data: str | None) -> Place:
    """The place of this process: environment, machine facts, time."""
    machine = read_machine()
    facts = {"cpu_model": machine.cpu_model, "cpu_isa": machine.cpu_class, "host": machine.name}
    return Place(run_dir, data, os.environ, facts, utc_now())


def verify_artifacts(artifacts: str | None, requested: VerifyOptions, place: Place, reporter: Reporter) -> VerifyResult:
    """Verify what a path, a run or nothing names (`octc.store.find.find_artifacts`), every candidate among it.

    The plan and a row of the test-set log are written with the run, before anything runs on the test set; the verdicts are
    written by `VerifyResult.write`.

    Raises:
        OctcError: E107 nothing to verify, E104 options that do not go with these artifacts, and those of `_verify`.
    """
    founds, words = find_artifacts(artifacts, place.run_dir, place.environ)
    reporter.say(words)
    task = task_of(founds[0].artifact.task)
    check_options(task, requested)
    named = founds[0].folder in (Path(), artifact_of(artifacts or ""), artifact_of(variable(place.environ, VARIABLE) or ""))
    against = requested.against if task.exclusive else "fp32"
    roles = choose_roles(founds, place.run_dir, against, named=named)
    if requested.reference is not None:
        roles = replace(roles, reference=Found(requested.reference, read_artifact(requested.reference)))
    for found, why in roles.absent:
        reporter.say(f"  ! NA       {found.artifact.name}: {why}")
    with ExitStack() as stack:
        return _verify(replace(requested, against=against), task, roles, Job(requested, place, reporter, stack))


def check_options(task: Task, requested: VerifyOptions) -> None:
    """Refuse options that a multi-label verification does not support."""
    rejected = {
        "--against teacher": requested.against == "teacher",
        "--tta": requested.tta != "none",
        "--subgroups": requested.subgroups is not None,
        "--robustness": requested.robustness,
    }
    if not task.exclusive and (given := [name for name, is_given in rejected.items() if is_given]):
        text = f"classes that do not exclude each other are compared with FP32 only, without {', '.join(given)}"
        raise OctcError("OCT-E104", text, hint=f"leave out {', '.join(given)}", place="octc verify")


def _verify(requested: VerifyOptions, task: Task, roles: Roles, job: Job) -> VerifyResult:
    """Verify every candidate.

    Raises:
        OctcError: E708 no usable reference, E216, E214, E212, E210, E309 of the set, E230 without images when `require_set`,
            and what opening raises where no candidate can be opened (E508, E50x).
    """
    place, first = job.place, roles.candidates[0]
    run = run_of(first.folder, first.artifact, place.run_dir)
    run_id = str(first.artifact.lineage.get("run"))
    facts = {
        "run_id": run.id if run else run_id,
        "time_utc": place.now,
        "versions": versions(),
        "machine": dict(place.machine),
    }
    opened, broken = open_candidates(roles.candidates, job)
    unopened = tuple(Judged(found, found.artifact.sha256, None, error=error) for found, error in broken)
    labelled, split, why = find_set(run, requested.set_name, place.data, place.environ)
    if run is not None and requested.set_name == "test":
        requested = replace(requested, options=planned_options(run, requested.options, requested.stated))
    result = VerifyResult(run, run_id, requested.set_name, (), facts, absent=roles.absent, reference=roles.reference)
    if labelled is None or split is None or run is None:
        if requested.require_set:
            raise OctcError("OCT-E230", f"--require-set: {why}", hint="--data DIR and --run-dir DIR of the training")
        alone = tuple(_told(_located(Judged(one.found, one.sha256, one.golden), roles.reference), one, job) for one in opened)
        return replace(result, judged=(*alone, *unopened), no_set=why)
    job = replace(job, requested=requested)
    groups = _checked(task, labelled, split, opened, job)
    good = [one for one in opened if one.golden["ok"]]
    claims, notes = open_references(requested.against, roles, split, job) if good else ({}, ())
    use = None
    if good and labelled.name == "test":
        sums = {against: one.sha256 for against, one in claims.items()}
        family = {
            one.artifact.name: one.artifact.sha256 for one in (*roles.candidates, *(absent for absent, _ in roles.absent))
        }
        use = register(run, labelled, split, sums, {one.name: one.sha256 for one in good}, family, job)
    records, temperatures, worse = _measured(task, run, labelled, split, claims, good, job)
    total = len(good) * len(claims) * len(requested.rows)
    with job.reporter.progress("statistics", total) as step:
        judge = _Judge(task, requested, labelled, claims, records, use, step, temperatures, groups)
        judged = [judge(one) if one.golden["ok"] else Judged(one.found, one.sha256, one.golden) for one in opened]
    judged = [_located(replace(one, robustness=worse.get(one.sha256)), roles.reference) for one in judged]
    judged = [_told(one, own, job, records.get(one.sha256)) for one, own in zip(judged, opened, strict=True)]
    return replace(result, judged=(*judged, *unopened), labelled=labelled, use=use, notes=notes)


def _checked(task: Task, labelled: LabelledSet, split: Split, opened: Sequence[Opened], job: Job) -> Groups:
    """Check every candidate and every image against the split; the subgroups of the images."""
    for one in opened:
        check_artifact(one.found.artifact, split)
    with job.reporter.progress(f"checksums of the {spoken(labelled.name)}", len(labelled.samples)) as step:
        check_images(labelled, split, step)
    groups: Groups = {SIZE: picture_sizes(labelled.samples, labelled.root)} if task.exclusive else {}
    if job.requested.subgroups is not None:
        groups = {**groups, **read_groups(job.requested.subgroups, labelled.samples)}
    mark, whose = "✓" if labelled.leakage == "none" else "!", labelled.known.words
    leakage = labelled.leakage if labelled.leakage != "none" else "leakage: none"
    job.reporter.say(
        f"  {mark} set      {labelled.name}, {len(labelled.samples)} images, {whose}, checksums as split · {leakage}"
    )
    return groups


def _measured(
    task: Task,
    run: Run,
    labelled: LabelledSet,
    split: Split,
    claims: Mapping[str, Opened],
    good: Sequence[Opened],
    job: Job,
) -> tuple[dict[str, Records], dict[str, Temperature], dict[str, Robustness]]:
    """Logits of everyone by manifest checksum, what temperature scaling would do, and how they fare on worse pictures."""
    everyone = [*claims.values(), *good]
    views = max(job.requested.rows.values(), key=len)
    records = measure_everyone(views, run, labelled, everyone, job)
    if not good or not task.exclusive:
        return records, {}, {}
    temperatures = temperatures_of(run, labelled, split, everyone, job)
    if not job.requested.robustness:
        return records, temperatures, {}
    return records, temperatures, measure_robustness(next(iter(claims.values())), good, records, labelled, job)


def _located(one: Judged, reference: Found | None) -> Judged:
    """Of a candidate that did not pass: every layer beside its FP32 reference, on the golden images; or why not."""
    if one.passed or one.golden is None:
        return one
    if reference is None:
        return replace(one, no_layers="no FP32 artifact of its run is here")
    try:
        images = read_golden(one.found.folder).inputs
        pair = (reference.folder, reference.artifact), (one.found.folder, one.found.artifact)
        return replace(one, layers=layer_gaps(*pair, images))
    except OctcError as error:
        return replace(one, no_layers=error.message)


def _told(one: Judged, own: Opened, job: Job, records: Records | None = None) -> Judged:
    """With what this machine answered, which `octc verify --fleet` puts beside other machines."""
    return replace(one, box=box_of(own, records, layers=job.requested.layers, reporter=job.reporter))


def register(
    run: Run,
    labelled: LabelledSet,
    split: Split,
    claims: Mapping[str, str],
    judged: Mapping[str, str],
    family: Mapping[str, str],
    job: Job,
) -> SetUse:
    """Write the plan, where there is none, and a row of the test-set log; say what is planned.

    Args:
        claims: "fp32", "teacher" -> checksum of the reference's manifest, in the order that they are tested.
        judged: name -> checksum of the artifacts that will be run; family: of those that were asked for.
    """
    requested, options = job.requested, job.options
    access = Access(len(labelled.samples), split.digest, dict(claims), options.resamples())
    more = {"against": list(claims), "tta": requested.tta, **({"robustness": True} if requested.robustness else {})}
    use = register_use(run, options.locked(), more, judged, family, job.place.now, access)
    plan = f"margin {options.margin:g} pp, class margin {options.class_margin:g} pp, alpha {options.alpha:g}, {options.claim}"
    count = len(use.log.readings)
    job.reporter.say(f"  ✓ plan     {plan} · locked {use.locked_at} · reading {count} of the test set of this run")
    return use


@dataclass(frozen=True)
class _Judge:
    """Every claim on one candidate. step: told after each comparison."""

    task: Task
    requested: VerifyOptions
    labelled: LabelledSet
    claims: Mapping[str, Opened]
    records: Mapping[str, Records]
    use: SetUse | None
    step: Callable[[int], None]
    temperatures: Mapping[str, Temperature] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)

    def __call__(self, one: Opened) -> Judged:
        rows = {name: tuple(self._reports(one, name, views)) for name, views in self.requested.rows.items()}
        more = tuple(report for name, reports in rows.items() if name != "none" for report in reports)
        decisions = tuple(self._decisions(one))
        return Judged(one.found, one.sha256, one.golden, rows["none"], more, eyes=self._eyes(one), decisions=decisions)

    def _decisions(self, one: Opened) -> Iterator[DecisionVerdict]:
        """The rules of the candidate and of the first reference, on images and, where there are some, on eyes; nothing on the
        validation set, which they were chosen on."""
        if self.labelled.name == "select":
            return
        reference = next(iter(self.claims.values()))
        views = self.requested.rows["none"]
        both = self.records[reference.sha256].only(views), self.records[one.sha256].only(views)
        yield from judge_rules(self.labelled, both, (reference.found, one.found), self.requested.options.alpha)

    def _eyes(self, one: Opened) -> EyeVerdict | None:
        """The first claim, on eyes."""
        against, reference = next(iter(self.claims.items()))
        views = self.requested.rows["none"]
        both = self.records[reference.sha256].only(views), self.records[one.sha256].only(views)
        ways = stated_aggregation(reference.found.artifact.details), stated_aggregation(one.found.artifact.details)
        context = Context(
            self.task, against=against, sides=(self._side(reference), self._side(one)),
            info=self._info(one.sha256, against, "none"), details=one.found.artifact.details,
        )  # fmt: skip
        return judge_eyes(self.labelled, both, ways, self.requested.options, context)

    def _reports(self, one: Opened, tta: str, views: tuple[str, ...]) -> Iterator[ParityReport]:
        before: ParityReport | None = None
        for against, reference in self.claims.items():
            report = self._report(one, reference, against, tta, views)
            if before is not None and before.exit_code != 0:
                shown = "is withheld" if before.withheld else f"is {before.word}"
                report = withhold(report, f"the claim against {before.reference.name} {shown}, so this one is not tested")
            self.step(1)
            yield report
            before = report

    def _report(self, one: Opened, reference: Opened, against: str, tta: str, views: tuple[str, ...]) -> ParityReport:
        gate = one.found.artifact.details.get("gate") or {}
        context = Context(
            self.task,
            against=against,
            sides=(self._side(reference), self._side(one)),
            info=self._info(one.sha256, against, tta),
            tta=tta,
            golden=one.golden,
            select=gate.get("facts") if against == "fp32" and self.labelled.name == "test" else None,
            groups=self.groups,
            temperatures={
                name: self.temperatures.get(who.sha256, Temperature(reason="not_given"))
                for name, who in (("reference", reference), ("candidate", one))
            },
            details=one.found.artifact.details,
            images=dict(zip(image_ids(self.labelled.samples), self.labelled.samples, strict=True)),
        )
        both = self.records[reference.sha256].only(views), self.records[one.sha256].only(views)
        return compare(*both, self.labelled.classes, self.requested.options, context)

    def _info(self, sha256: str, against: str, tta: str) -> SetInfo:
        known, labelled = self.use, self.labelled
        info = SetInfo(labelled.name, labelled.protocol, note=labelled.note, leakage=labelled.leakage)
        if known is None:
            return info
        return replace(
            info,
            uses_of_test=known.uses,
            readings_of_test=len(known.log.readings),
            locked_at=known.locked_at,
            exploratory=known.why(sha256, against, tta),
        )

    def _side(self, one: Opened) -> Side:
        artifact, records = one.found.artifact, self.records[one.sha256]
        facts: dict[str, Any] = dict(records.facts)
        when = facts.pop(MEASURED, None)
        return Side(
            one.name,
            one.sha256,
            artifact.precision,
            artifact.target,
            artifact.files[artifact.main_file].sha256,
            artifact.role,
            artifact.model,
            str(facts.pop("runtime", "")),
            tuple(facts.items()),
            source=f"measured {when}",
            temperature=folded_temperature(artifact),
        )


def verify_artifact(
    artifact: Any = None,
    *,
    reference: str | Path | None = None,
    data: str | Path | None = None,
    gate: ParityOptions | None = None,
    options: VerifyOptions | None = None,
    run_dir: str | Path = "runs",
    reporter: Reporter | None = None,
) -> VerifyResult:
    """Test that an artifact is not worse than its FP32 reference, on labelled images that it was not trained on.

    First the golden images are replayed. The labelled images are those of the run's split, identified by checksum. Before a
    network runs on the test set, the margins are stored with the run (verify-plan.json) and the reading is logged (the test-set
    log); with other margins than the stored ones, the verdict is exploratory. If the run or its images are not here, as for a
    network of your own, only the golden images are checked and `word` is "golden_only"; `octc.compare` compares predictions on
    any images.

    Args:
        artifact: an artifact, a folder of artifacts, a run, or a model of `octc.load`; None: the newest student run.
        reference: the FP32 artifact to compare with; None: that of the same run.
        data: root of the data set; None: OCTC_DATA, else the folder that the run was trained on.
        gate: margins in percentage points, claim, level; None: those stored with the run, else 1 point.
        options: the set ("test", or "select" for the validation set), views, subgroups, robustness.
        run_dir: folder of the runs. reporter: receives messages and progress; None: the log `octc`.

    Returns:
        A verdict for each candidate; `write()` stores it as verify.json beside the artifact, where `octc.report` reads it.

    Raises:
        OctcError: E107 no artifact; E708 no reference that runs here; E216, E214, E210, E309 images or artifacts that do not
            fit the split; E104 an unknown option. A claim that is not shown does not raise: see `raise_if_failed`.

    >>> import octc
    >>> octc.verify("no-such-artifact")
    Traceback (most recent call last):
    octc.core.errors.OctcError: no artifact and no run: no-such-artifact
    """
    requested = options or VerifyOptions()
    if gate is not None:
        requested = replace(requested, options=gate)
    elif requested.options == ParityOptions():  # no margin was given
        requested = replace(requested, stated=frozenset())
    if reference is not None:
        requested = replace(requested, reference=Path(path_of(reference)))
    place = place_of(Path(run_dir), None if data is None else str(data))
    given = None if artifact is None else path_of(artifact)
    return verify_artifacts(given, requested, place, reporter or LogReporter())
