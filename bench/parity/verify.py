"""`octc verify`: golden images first, then the labelled set, then a verdict on every claim. The terminal is the caller's.

The order is fixed: nothing runs on the test set before its images were checked, the artifact reproduces its golden images
and the plan is written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from octc.bench.parity.claim import ParityReport, SetInfo, Side, compare, withhold
from octc.bench.parity.evaluation_set import (
    LabelledSet,
    check_artifact,
    check_images,
    find_set,
    folded_temperature,
)
from octc.bench.parity.inference import Records
from octc.bench.parity.measure import measure_everyone, measure_robustness, temperatures_of
from octc.bench.parity.open_artifact import Bars, Opened, Say, open_candidates, open_references, sha_of
from octc.bench.parity.plan_lock import Look, Standing, planned_options, register_use
from octc.bench.parity.predictions import MEASURED
from octc.bench.parity.references import Parties
from octc.bench.parity.result import Asked, Judged, Place, Result
from octc.bench.parity.subgroups import SIZE, Groups, picture_sizes, read_groups
from octc.core.errors import OctcError
from octc.runtimes.layers import layer_gaps
from octc.stats.robustness import Robustness
from octc.stats.temperature import Temperature
from octc.stats.test_plan import ParityOptions
from octc.store.artifacts import read_golden
from octc.store.find import Found
from octc.store.locations import run_of
from octc.store.runs import Run


def verify_all(asked: Asked, parties: Parties, place: Place, bars: Bars, say: Say) -> Result:
    """Verify every candidate.

    Raises:
        OctcError: E708 no usable reference, E216, E214, E212, E210, E309 of the set, E230 without images when `require_set`,
            and what opening raises where no candidate can be opened (E508, E50x).
    """
    first = parties.candidates[0]
    run = run_of(first.folder, first.artifact, place.run_dir)
    with ExitStack() as stack:
        opened, broken = open_candidates(parties.candidates, asked.threads, stack, bars, say)
        labelled, split, why = find_set(run, asked.set_name, place.data, place.environ)
        if run is not None and asked.set_name == "test":
            asked = replace(asked, options=planned_options(run, asked.options, asked.stated))
        lost = tuple(Judged(found, sha_of(found), None, error=error) for found, error in broken)
        if labelled is None or split is None or run is None:
            if asked.require_set:
                raise OctcError("OCT-E230", f"--require-set: {why}", hint="--data DIR and --run-dir DIR of the training")
            alone = tuple(_located(Judged(one.found, one.sha256, one.golden), parties.reference) for one in opened)
            return Result(run, (*alone, *lost), no_set=why)
        for one in opened:
            check_artifact(one.found.artifact, split)
        with bars(f"sums of the {labelled.name} set", len(labelled.samples)) as step:
            check_images(labelled, split, step)
        groups: Groups = {SIZE: picture_sizes(labelled.samples, labelled.root)}
        if asked.subgroups is not None:
            groups = {**groups, **read_groups(asked.subgroups, labelled.samples)}
        _say_set(labelled, say)
        good = [one for one in opened if one.golden["ok"]]
        claims, notes = open_references(asked.against, asked.threads, parties, split, stack, bars, say) if good else ({}, ())
        standing = None
        if good and labelled.name == "test":
            look = Look(
                len(labelled.samples),
                split.digest,
                {against: one.sha256 for against, one in claims.items()},
                asked.options.resamples(),
            )
            standing = _register(asked, run, look, good, parties, place)
        if standing is not None:
            _say_plan(asked.options, standing, say)
        everyone = [*claims.values(), *good]
        views = max(asked.rows.values(), key=len)
        records = measure_everyone(views, run, labelled, everyone, place, bars, say)
        tempered = temperatures_of(run, labelled, split, everyone, place, bars, say) if good else {}
        worse: dict[str, Robustness] = {}
        if asked.robustness and good:
            worse = measure_robustness(next(iter(claims.values())), good, records, labelled, asked.options, bars)
        total = len(good) * len(claims) * len(asked.rows)
        with bars("statistics", total) as step:
            judge = _Judge(asked, labelled, claims, records, standing, step, tempered, groups)
            judged = [judge(one) if one.golden["ok"] else Judged(one.found, one.sha256, one.golden) for one in opened]
        judged = [_located(replace(one, robustness=worse.get(one.sha256)), parties.reference) for one in judged]
    return Result(run, (*judged, *lost), labelled, standing=standing, notes=notes)


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


def _register(asked: Asked, run: Run, look: Look, good: Sequence[Opened], parties: Parties, place: Place) -> Standing:
    family = {f.artifact.name: sha_of(f) for f in (*parties.candidates, *(f for f, _ in parties.absent))}
    more = {"against": list(look.references), "tta": asked.tta, **({"robustness": True} if asked.robustness else {})}
    return register_use(run, asked.options.locked(), more, {one.name: one.sha256 for one in good}, family, place.now, look)


def _say_set(labelled: LabelledSet, say: Say) -> None:
    mark, whose = "✓" if labelled.leakage == "none" else "!", labelled.known.words
    leakage = labelled.leakage if labelled.leakage != "none" else "leakage: none"
    say(f"  {mark} set      {labelled.name}, {len(labelled.samples)} images, {whose}, sums as split · {leakage}")


def _say_plan(options: ParityOptions, standing: Standing, say: Say) -> None:
    plan = f"margin {options.margin:g} pp, class margin {options.class_margin:g} pp, alpha {options.alpha:g}, {options.claim}"
    count = len(standing.log.readings)
    say(f"  ✓ plan     {plan} · locked {standing.locked_at} · reading {count} of the test set of this run")


@dataclass(frozen=True)
class _Judge:
    """Every claim on one candidate. step: told after each comparison."""

    asked: Asked
    labelled: LabelledSet
    claims: Mapping[str, Opened]
    records: Mapping[str, Records]
    standing: Standing | None
    step: Callable[[int], None]
    tempered: Mapping[str, Temperature] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)

    def __call__(self, one: Opened) -> Judged:
        rows = {name: tuple(self._reports(one, name, views)) for name, views in self.asked.rows.items()}
        more = tuple(report for name, reports in rows.items() if name != "none" for report in reports)
        return Judged(one.found, one.sha256, one.golden, rows["none"], more)

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
        sides = self._side(reference), self._side(one)
        gate = one.found.artifact.details.get("gate") or {}
        select = gate.get("facts") if against == "fp32" and self.labelled.name == "test" else None
        return compare(
            self.records[reference.sha256].only(views),
            self.records[one.sha256].only(views),
            self.labelled.classes,
            self.asked.options,
            against=against,
            sides=sides,
            info=self._info(one.sha256, against, tta),
            tta=tta,
            golden=one.golden,
            select=select,
            groups=self.groups,
            temperatures={
                name: self.tempered.get(who.sha256, Temperature(reason="not_given"))
                for name, who in (("reference", reference), ("candidate", one))
            },
        )

    def _info(self, sha256: str, against: str, tta: str) -> SetInfo:
        known, labelled = self.standing, self.labelled
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
        facts = dict(records.facts)
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
