"""What is written down before the test set is read (docs/parity.md, sections 1 and 2).

runs/<id>/verify-plan.json holds the plan: margins, level, claim, the artifacts that it is for, the references in their order,
the views, the split. Who gives no margins later gets those of the plan. The artifacts that the first call judges together are
one planned family: each is judged once, none is chosen by what the others scored. Every read is a row of the test-set log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import read_json, write_json
from octc.core.locks import lock
from octc.core.newer import refuse_newer
from octc.schemas.logs import Reading
from octc.stats.test_plan import ParityOptions
from octc.store.runs import Run
from octc.store.test_set_log import EXPLORATORY, PLANNED, ReadingLog, log_reading

PLAN = "verify-plan.json"
SCHEMA = "1.0"


@dataclass(frozen=True)
class Access:
    """How a call reads the test set.

    images: how many; references: claim -> checksum of its reference, in the order that they are tested.
    resamples: number and seed of the resamples, which the plan keeps for later calls although others make nothing exploratory.
    """

    images: int | None = None
    split_digest: str | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    resamples: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SetUse:
    """What the plan and the test-set log say of one read of the test set.

    locked_at: when the plan was written; uses: reads of the test set of this run that could tell something new, this one
    included; log: every reading.
    reasons: artifact sum -> why its verdict is exploratory, or None. claims, tta: the same of one claim ("fp32", "teacher"),
    and of rows with test-time augmentation.
    """

    locked_at: str
    uses: int
    reasons: dict[str, str | None]
    log: ReadingLog
    claims: dict[str, str | None] = field(default_factory=dict)
    tta: str | None = None

    def why(self, sha256: str, against: str | None = None, tta: str = "none") -> str | None:
        """Why a verdict is exploratory, or None."""
        words = [self.reasons.get(sha256), self.claims.get(against or ""), None if tta == "none" else self.tta]
        known = [word for word in words if word]
        return f"{'; '.join(known)}; test set used {self.uses} time{'' if self.uses == 1 else 's'}" if known else None


def planned_options(run: Run, options: ParityOptions, stated: Collection[str] | None) -> ParityOptions:
    """The options of a read of the test set: what was not stated is as it was locked, where a plan is there.

    Args:
        stated: names of the options that the caller gave; None for all of them.

    Raises:
        OctcError: E709 the plan cannot be read.
    """
    document = None if stated is None else _read(run.path / PLAN)
    if document is None or stated is None:
        return options
    plan = document["plan"]
    names = [one.name for one in fields(ParityOptions) if one.name in plan and one.name not in stated]
    try:
        return replace(options, **{name: plan[name] for name in names})
    except (OctcError, TypeError) as error:
        text = f"the plan of the test set cannot be read: {error}"
        raise OctcError("OCT-E709", text, hint="restore this file from a copy", place=str(run.path / PLAN)) from error


def register_use(
    run: Run,
    decides: Mapping[str, Any],
    more: Mapping[str, Any],
    judged: Mapping[str, str],
    family: Mapping[str, str],
    now: str,
    access: Access | None = None,
) -> SetUse:
    """Write the plan if there is none, and this read. Called before any artifact runs on the set.

    Args:
        decides: `ParityOptions.locked()`; more: the other options of this read (against, views).
        judged: name -> manifest checksum of the artifacts that will be run; family: those that the call was asked for, of which
            some may not run on this machine.

    Raises:
        OctcError: E709 the plan or the log cannot be read (neither is written anew over what it says), E109 the run cannot be
            written.
    """
    access = access or Access()
    with _held(run.path / PLAN):
        document = _read(run.path / PLAN)
        if document is None:
            plan = {
                **decides,
                **access.resamples,
                "locked_at": now,
                "artifacts": dict(sorted(family.items())),
                "split_digest": access.split_digest,
                "references": dict(access.references),
                "tta": more.get("tta", "none"),
                "order": list(more.get("against") or access.references),
            }
            document = {"schema_version": SCHEMA, "plan": plan, "uses": []}
            write_json(run.path / PLAN, document)
        plan = document["plan"]
        reasons = {sha: _why(plan, decides, sha, access) for sha in judged.values()}
        exploratory = all(reasons.values()) and bool(reasons)
        log = log_reading(
            run.path,
            Reading(
                now,
                "verify",
                "test",
                access.images,
                access.split_digest,
                dict(sorted(judged.items())),
                {**decides, **more},
                EXPLORATORY if exploratory else PLANNED,
            ),
        )
        claims = {against: _why_claim(plan, list(more.get("against") or ()), against, access) for against in access.references}
        views = str(more.get("tta", "none"))
        tta = None if plan.get("tta", views) == views else f"test-time augmentation {views} was not planned"
        return SetUse(plan["locked_at"], log.uses, reasons, log, claims, tta)


def _why(plan: Mapping[str, Any], decides: Mapping[str, Any], sha: str, access: Access) -> str | None:
    changed = [f"{key} {plan.get(key)} -> {value}" for key, value in decides.items() if plan.get(key) != value]
    words = []
    if changed:
        words.append(f"not as locked on {plan['locked_at']}: {', '.join(changed)}")
    if plan.get("split_digest") not in (None, access.split_digest):
        words.append(f"the plan of {plan['locked_at']} was made for another split")
    if sha not in plan["artifacts"].values():
        words.append("this artifact is not one of those that the plan was made for")
    return "; ".join(words) or None


def _why_claim(plan: Mapping[str, Any], order: Sequence[str], against: str, access: Access) -> str | None:
    """Claims keep their planned order, and their reference: another one could be chosen by what it scored."""
    planned = plan.get("order")
    if planned is None or against not in order:  # a plan of an older octc does not say
        return None
    count = order.index(against) + 1
    if list(order[:count]) != list(planned[:count]):
        return f"the plan of {plan['locked_at']} tests against {', then '.join(planned)}"
    if plan["references"].get(against) not in (None, access.references[against]):
        return f"the plan of {plan['locked_at']} names another reference artifact"
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = read_json(path)
        refuse_newer(value["schema_version"], SCHEMA, "this plan", str(path))
        plan = value["plan"]
        if value["schema_version"] != SCHEMA or not isinstance(plan["artifacts"], dict):
            raise ValueError(f"schema_version {value['schema_version']!r}")
        order, sums, when = plan.get("order"), plan.get("references"), plan["locked_at"]
        named = order is None or (isinstance(order, list) and isinstance(sums, dict) and all(isinstance(o, str) for o in order))
        if not named or not isinstance(sums or {}, dict) or not isinstance(when, str):
            raise ValueError("locked_at, references or order of the plan")
        for use in value["uses"]:
            _ = (use["time_utc"], use["artifacts"].values(), use["options"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"the record of the uses of the test set cannot be read: {error!r}"
        raise OctcError("OCT-E709", text, hint="restore this file from a copy; it is not made anew", place=str(path)) from error
    return value


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process, whatever ends it."""
    try:
        stream = path.with_name(f".{path.name}.lock").open("w")
    except OSError as error:
        text = f"the plan of the test set cannot be written: {error.strerror}"
        raise OctcError("OCT-E109", text, hint="make the run's folder writable; nothing was read", place=str(path)) from error
    with stream:
        lock(stream, wait=True)
        yield
