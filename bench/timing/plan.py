"""The plan of a bench, fixed and printed before anything runs: artifacts, rows, comparisons, time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from octc.bench.timing.profiles import CANDIDATE, REFERENCE, Options
from octc.core.errors import OctcError
from octc.core.targets import TARGETS, in_order
from octc.runtimes.registry import prefer, why_not
from octc.store.find import Found

BATCHES = (1, 8)
# the teacher as trained: torch, else the closest available form
AS_TRAINED = (("torch", "fp32"), ("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "fp16"), ("onnx", "fp16"))
# for the comparison with the same format and precision on both sides: fastest engine first
SAME = (("openvino", "fp32"), ("openvino", "fp16"), ("onnx", "fp32"), ("torch", "fp32"), ("onnx", "fp16"))
OVERHEAD_S = 3.0  # overhead of a row, seconds: process start, imports, load, golden images, warm-up
QUICK_NOTE = "quick profile: not comparable, not for publication"  # first line of every output
NOT_QUICK = "not measured by the quick profile; name its folder to measure it"
ONLY_BLOCKS = "the quick profile measures it in the blocks of the comparison only"


@dataclass(frozen=True)
class Subject:
    """An artifact in a bench. why_not: the reason why it cannot run on this machine, or None."""

    id: str
    role: str
    found: Found
    why_not: str | None


@dataclass(frozen=True)
class RowPlan:
    """A planned row. batch 0: chosen by short runs. na: why it is not measured, or None. hidden: not shown in the table."""

    id: str
    subject: str
    scenario: str
    scope: str
    batch: int
    na: str | None = None
    hidden: bool = False


@dataclass(frozen=True)
class Versus:
    """A planned comparison of `candidate` with the fastest of `others`. na: why there is none."""

    kind: str
    candidate: str
    others: tuple[str, ...]
    scope: str
    na: str | None = None


@dataclass(frozen=True)
class Plan:
    """The plan in order. gated: the artifacts that gates apply to."""

    subjects: tuple[Subject, ...]
    rows: tuple[RowPlan, ...]
    versus: tuple[Versus, ...]
    gated: tuple[str, ...]
    notes: tuple[str, ...]

    def subject(self, name: str) -> Subject:
        return next(s for s in self.subjects if s.id == name)

    def measured(self) -> list[RowPlan]:
        return [row for row in self.rows if row.na is None]

    def seconds(self, options: Options) -> float:
        """The minimum duration of the plan, seconds."""
        roles = {s.id: s.role for s in self.subjects}
        rows = sum(options.limits(roles[row.subject]).duration_s for row in self.measured())
        processes = len({(row.subject, row.batch) for row in self.measured()}) * OVERHEAD_S
        blocks = sum(v.na is None for v in self.versus) * (2 * options.profile.pairs * options.profile.block_s + OVERHEAD_S)
        return rows + processes + blocks


def make_plan(
    founds: Sequence[Found], teachers: Sequence[Found], options: Options, named: Sequence[bool], no_teacher: str | None
) -> Plan:
    """Make the plan for the given artifacts.

    Args:
        teachers: artifacts of the teacher; may be empty.
        named: for every artifact, whether the user gave its folder (then it is measured in full).
        no_teacher: why there is no teacher to compare with, and a hint; None if `teachers` is not empty, or none is requested.

    Raises:
        OctcError: E901, E903 none of the artifacts can run on this machine.
    """
    candidates = _subjects(founds, CANDIDATE, "")
    given = {s.id for s, exact in zip(candidates, named, strict=True) if exact}
    preferred = prefer([s.found for s in candidates if s.id in given and s.why_not is None] or founds)
    headline = next(s.id for s in candidates if s.found is preferred)
    quick = options.profile.name == "quick"
    measured = _picked(candidates, given, headline) if quick else [s.id for s in candidates if s.why_not is None]
    full = [name for name in measured if not quick or name in given or name == headline]
    rows = [row for s in candidates for row in _candidate_rows(s, options, s.id in measured, s.id in full)]
    versus: list[Versus] = []
    references: list[Subject] = []
    if options.scenario == "single_stream":
        versus += _int8(candidates, measured)
        if options.vs == "teacher":
            references = _subjects(teachers, REFERENCE, "teacher-")
            more, against = _teacher(references, candidates, measured, full, headline, options, no_teacher)
            rows, versus = [*rows, *more], [*against, *versus]
    kept = {row.subject for row in rows}
    subjects = tuple(s for s in (*candidates, *references) if s.id in kept)
    gated = tuple(given & set(measured)) or (headline,)
    return Plan(subjects, tuple(rows), tuple(versus), tuple(sorted(gated)), _notes(options, full, measured, headline))


def _subjects(founds: Sequence[Found], role: str, prefix: str) -> list[Subject]:
    names = [prefix + re.sub(r"[^A-Za-z0-9._-]+", "-", f.artifact.name).strip(".-") for f in founds]
    many = Counter(names)
    made, used = [], Counter[str]()
    for name, found in zip(names, founds, strict=True):
        used[name] += 1
        made.append(Subject(name if many[name] == 1 else f"{name}.{used[name]}", role, found, why_not(found.artifact)))
    return made


def _kind(subject: Subject) -> tuple[str, str]:
    return subject.found.artifact.target, subject.found.artifact.precision


def _picked(candidates: Sequence[Subject], given: set[str], headline: str) -> list[str]:
    """The artifacts that the quick profile measures: those given as folders, else INT8 and one float artifact per engine."""
    runnable = [s for s in candidates if s.why_not is None]
    if given & {s.id for s in runnable}:
        return [s.id for s in runnable if s.id in given]
    chosen = [headline]
    for target in in_order(None):
        for precisions in (("int8",), TARGETS[target].floats):  # the float precision that is faster on a CPU
            fits = [s for precision in precisions for s in runnable if _kind(s) == (target, precision)]
            chosen += [fits[0].id] if fits else []
    return [s.id for s in runnable if s.id in chosen]


def _candidate_rows(subject: Subject, options: Options, measured: bool, full: bool) -> list[RowPlan]:
    name, first = subject.id, options.batch or 1
    if subject.why_not is not None or not measured:
        offline = options.scenario == "offline"
        scenario, row = options.scenario, f"{name}-{'offline' if offline else f'device-{first}'}"
        return [RowPlan(row, name, scenario, "device", first, subject.why_not or NOT_QUICK)]
    if options.scenario == "offline":
        return [RowPlan(f"{name}-offline", name, "offline", "device", options.batch or 0)]
    rows = [_row(name, "device", first), _row(name, "host", first, "same_as_device", hidden=True)]
    if full:
        rows.append(_row(name, "end_to_end", first))
        rows += [_row(name, "device", batch) for batch in BATCHES if options.batch is None and batch != first]
    return rows


def _row(name: str, scope: str, batch: int, na: str | None = None, *, hidden: bool = False) -> RowPlan:
    return RowPlan(f"{name}-{scope}-{batch}", name, "single_stream", scope, batch, na, hidden)


def _int8(candidates: Sequence[Subject], measured: Sequence[str]) -> list[Versus]:
    """Comparisons of every INT8 artifact with float artifacts of the same student: of its own engine, else of any."""
    found = []
    for subject in (s for s in candidates if s.id in measured and _kind(s)[1] == "int8"):
        floats = [
            s
            for s in candidates
            if s.id in measured and _kind(s)[1] != "int8" and s.found.artifact.model == subject.found.artifact.model
        ]
        own = [s for s in floats if _kind(s)[0] == _kind(subject)[0]]
        if chosen := tuple(s.id for s in own or floats):
            found.append(Versus("int8_vs_other", subject.id, chosen, "device"))
    return found


def _teacher(
    references: Sequence[Subject],
    candidates: Sequence[Subject],
    measured: Sequence[str],
    full: Sequence[str],
    headline: str,
    options: Options,
    no_teacher: str | None,
) -> tuple[list[RowPlan], list[Versus]]:
    """Rows of the teacher, and the comparisons: as shipped (its trained form), and with the same format on both sides."""
    if not references and no_teacher is None:
        return [], []
    batch = options.batch or 1
    runnable = {_kind(s): s.id for s in reversed(references) if s.why_not is None}
    rows = [_row(s.id, "device", batch, s.why_not) for s in references if s.why_not is not None and _kind(s) in AS_TRAINED[:2]]
    trained = next((runnable[kind] for kind in (*AS_TRAINED, *_floats()) if kind in runnable), None)
    if trained is None:
        reason = no_teacher or "; ".join(f"{s.id}: {s.why_not}" for s in references)
        rows = rows or [RowPlan("teacher", "teacher", "single_stream", "device", batch, reason)]
        return rows, [Versus("as_shipped", headline, (rows[0].subject,), "device", reason)]
    quick = options.profile.name == "quick"
    rows += [_row(trained, "device", batch), _row(trained, "end_to_end", batch, ONLY_BLOCKS if quick else None)]
    versus = [Versus("as_shipped", headline, (trained,), scope) for scope in ("device", "end_to_end")]
    versus += [Versus("as_shipped", name, (trained,), "device") for name in full if name != headline]
    students = {_kind(s): s.id for s in reversed(candidates) if s.id in measured}
    same = next((kind for kind in (*SAME, *_floats()) if kind in students and kind in runnable), None)
    if same is not None:
        scopes = ("device",) if quick else ("device", "end_to_end")
        if runnable[same] != trained:
            rows += [_row(runnable[same], scope, batch, ONLY_BLOCKS if quick else None) for scope in scopes]
        versus += [Versus("same_precision", students[same], (runnable[same],), scope) for scope in scopes]
    return rows, versus


def _floats() -> list[tuple[str, str]]:
    """(target, precision) of the float artifacts of every engine."""
    return [(name, precision) for name, one in TARGETS.items() if not one.on_gpu for precision in one.floats]


def _notes(options: Options, full: Sequence[str], measured: Sequence[str], headline: str) -> tuple[str, ...]:
    if options.profile.name != "quick":
        return ()
    if set(full) == set(measured) or options.scenario == "offline":
        return (QUICK_NOTE,)
    more = f"end to end and batch 8 of {headline} only (what octc predict takes); name a folder to measure it in full"
    return (QUICK_NOTE, more)


def check_power(options: Options) -> None:
    """Refuse an energy gate without power readings (OctcError E102)."""
    if "max_mj" in options.gates and not options.power:
        raise OctcError("OCT-E102", "--max-mj and --no-power: no energy is read", hint="leave one of them out")
    if options.power_csv is not None and not options.power:
        raise OctcError("OCT-E102", "--power-csv and --no-power: no energy is read", hint="leave one of them out")


def check_gates(options: Options) -> None:
    """Refuse gates that cannot be judged (OctcError E102)."""
    if options.gates and options.profile.name == "quick":
        text = f"--quick and {', '.join(sorted(options.gates))}: the quick profile is not for publication"
        raise OctcError("OCT-E102", text, hint="leave --quick out, or the gates")
    if "min_images_per_s" in options.gates and options.scenario != "offline":
        raise OctcError("OCT-E102", "--min-throughput needs --scenario offline", hint="add --scenario offline")
    late = [name for name in options.gates if name not in ("min_images_per_s", "max_mj")]
    if late and options.scenario == "offline":
        text = f"--scenario offline has no gate on {', '.join(sorted(late))}"
        raise OctcError("OCT-E102", text, hint="--scenario single, or --min-throughput")
