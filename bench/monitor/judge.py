"""Rows of a store -> what they say: drift, golden replays, accuracy without labels and with them (docs/monitor.md)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from octc.runtimes.monitored import STREAMS
from octc.schemas.monitor import Drift, FieldAccuracy, LabelFree, MonitorReport, Replays, Stream
from octc.stats.betting import capital, mean_interval
from octc.stats.drift import alarm_at, evidence, ranks, together
from octc.stats.metrics import Float64
from octc.stats.reference_sketch import ReferenceSketch
from octc.store.monitor_store import MonitorStore, Replay, Seen, Truth

LEAST = 20  # predictions, or reference patients, below which a stream says nothing yet


@dataclass(frozen=True)
class Limits:
    """alpha: false alarms of drift in the whole life of a store. margin: of the accuracy in the field, a fraction. level: of
    intervals, and of the test of accuracy."""

    alpha: float = 0.01
    margin: float = 0.02
    level: float = 0.05


def judge(
    artifact: Mapping[str, str], store: MonitorStore, reference: ReferenceSketch | None, limits: Limits, time_utc: str
) -> MonitorReport:
    """Everything that the rows of an artifact say now. artifact: its "name" and "digest"."""
    digest = artifact["digest"]
    seen, truth, replays = store.seen(digest), store.truth(digest), store.replays(digest)
    drift = judge_drift(seen, reference, store, limits.alpha)
    field = judge_truth(truth, reference, limits)
    golden = judge_replays(replays)
    alarms = [
        *([f"drift: {', '.join(drift.named)}, after {drift.alarm_at} eyes"] if drift.alarm else []),
        *([f"golden images differ, on {golden.last_failed}"] if golden.failed else []),
        *(["accuracy in the field is shown to be below its floor"] if field.word == "below" else []),
    ]
    return MonitorReport(
        schema_version="1.0",
        time_utc=time_utc,
        artifact=artifact["name"],
        artifact_sha256=digest,
        eyes=len(seen),
        eyes_of_others=store.seen_of_others(digest),
        first_day=seen[0].day if seen else None,
        last_day=seen[-1].day if seen else None,
        labels=dict(Counter(row.label or "none" for row in seen)),
        drift=drift,
        golden=golden,
        without_labels=judge_confidence(seen, reference, limits.level),
        with_labels=field,
        alarms=alarms,
    )


def judge_drift(seen: Sequence[Seen], reference: ReferenceSketch | None, store: MonitorStore, alpha: float) -> Drift:
    """Ranks of every stream and a bettor for each: an alarm where one of them alone is rich enough for all that were tried."""
    known = {} if reference is None else reference.streams
    names = [name for name in STREAMS if _judgeable(name, seen, known)]
    if not names or not seen:
        return Drift(
            against=_against(reference), alpha=alpha, alarm=False, alarm_at=None, log_capital=0.0, named=[], streams=[]
        )
    paths = evidence(np.stack([_ranks(name, seen, known.get(name, []), store) for name in names]))
    whole = together(paths)
    at = alarm_at(whole, alpha)
    rows = [
        Stream(
            name=name, values=sum(_value(row, name) is not None for row in seen), reference=len(known.get(name, [])),
            log_capital=float(path.max()), alarm=alarm_at(path, alpha / len(names)) is not None,
        )
        for name, path in zip(names, paths, strict=True)
    ]  # fmt: skip
    rows.sort(key=lambda row: -row.log_capital)
    return Drift(
        against=_against(reference), alpha=alpha, alarm=at is not None, alarm_at=at, log_capital=float(whole.max()),
        named=[row.name for row in rows if row.alarm], streams=rows,
    )  # fmt: skip


def _against(reference: ReferenceSketch | None) -> str:
    return "the box's own past" if reference is None else f"the validation set ({reference.known.words})"


def _value(row: Seen, name: str) -> float | None:
    value = row.sketch.get(name)
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _judgeable(name: str, seen: Sequence[Seen], known: Mapping[str, Sequence[float]]) -> bool:
    return len(known.get(name, [])) >= LEAST or (not known and any(_value(row, name) is not None for row in seen))


def _ranks(name: str, seen: Sequence[Seen], reference: Sequence[float], store: MonitorStore) -> Float64:
    values = [math.nan if (value := _value(row, name)) is None else value for row in seen]
    draws = [store.draw(f"{name}:{row.artifact}:{row.key}") for row in seen]
    return ranks(values, reference, draws)


def judge_replays(replays: Sequence[Replay]) -> Replays:
    """How often the golden images were replayed, and how often they differed."""
    failed = [row.day for row in replays if not row.ok]
    last = replays[-1] if replays else None
    return Replays(
        count=len(replays), failed=len(failed), last_failed=failed[-1] if failed else None,
        last_day=None if last is None else last.day, last_delta=None if last is None else last.delta,
    )  # fmt: skip


def judge_confidence(seen: Sequence[Seen], reference: ReferenceSketch | None, level: float) -> LabelFree:
    """An interval for the accuracy without a label: mean confidence here, plus how much righter than sure validation was.

    Both parts hold, the first at every look, at half the level and at that of the reference: together at their sum. It rests on
    calibration being what it was on validation: where drift is found, or the disease looks otherwise, it says nothing.
    """
    sure = [row.confidence for row in seen if row.confidence is not None and math.isfinite(row.confidence)]
    if reference is None or len(sure) < LEAST:
        why = "the artifact has no reference" if reference is None else f"fewer than {LEAST} answers"
        return LabelFree(answers=len(sure), accuracy=None, limits=None, level=level, reason=why)
    low, high = mean_interval(sure, level / 2)
    found = float(np.mean(sure)) + reference.gap
    limits = [max(0.0, low + reference.gap_limits[0]), min(1.0, high + reference.gap_limits[1])]
    both = min(1.0, level / 2 + reference.alpha)
    return LabelFree(answers=len(sure), accuracy=min(1.0, max(0.0, found)), limits=limits, level=both, reason=None)


def judge_truth(truth: Sequence[Truth], reference: ReferenceSketch | None, limits: Limits) -> FieldAccuracy:
    """Sequential non-inferiority: is the accuracy here above the validation set's less the margin? Patients count once, and
    so does an image of whom nobody is named.

    "above": shown to be; "below": shown not to be, an alarm; "open": neither, so far. Each at `level`, at every look.
    """
    values = [row.correct for row in truth]
    base = None if reference is None else reference.accuracy
    floor = None if base is None else max(0.0, base - limits.margin)
    interval = list(mean_interval(values, limits.level)) if values else None
    mean = float(np.mean(values)) if values else None
    word: Literal["above", "below", "open"] = "open"
    against = [0.0, 0.0]
    if values and floor is not None and 0 < floor < 1:
        against = [float(capital(values, floor, above=side).max(initial=0.0)) for side in (True, False)]
        rich = math.log(1 / limits.level)
        word = "below" if against[1] >= rich else "above" if against[0] >= rich else "open"
    return FieldAccuracy(
        groups=len(values), images=sum(row.images for row in truth), accuracy=mean, limits=interval, floor=floor,
        margin=limits.margin, level=limits.level, word=word, log_capital_above=against[0], log_capital_below=against[1],
    )  # fmt: skip
