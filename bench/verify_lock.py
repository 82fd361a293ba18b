"""What is written down before the test set is looked at, and every look at it (sections 1 and 2.3 of the parity contract).

runs/<id>/verify-plan.json holds the plan (margins, level, claim, and the artifacts that it is for) and the uses. The artifacts
that the first call judges together are one planned family: each is judged once, none is chosen by what the others scored.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.errors import OctcError
from octc.files import canonical_json, read_json, write_json
from octc.run import Run

PLAN = "verify-plan.json"
SCHEMA = "1.0"


@dataclass(frozen=True)
class Standing:
    """How a look at the test set stands.

    locked_at: when the plan was written; uses: looks at the test set by this run, this one included.
    reasons: artifact sum -> why its verdict is exploratory, or None.
    """

    locked_at: str
    uses: int
    reasons: dict[str, str | None]


def register_use(
    run: Run, decides: Mapping[str, Any], more: Mapping[str, Any], judged: Mapping[str, str], family: Mapping[str, str],
    now: str,
) -> Standing:  # fmt: skip
    """Write the plan if there is none, and this use if it is a new one. Called before any artifact runs on the set.

    Args:
        decides: `ParityOptions.locked()`; more: the other options of this look (against, views).
        judged: name -> manifest sum of the artifacts that will be run; family: those that the call was asked for, of which
            some may not run on this machine.

    Raises:
        OctcError: E709 the file cannot be read; it is never written anew over what it says.
    """
    with _held(run.path / PLAN):
        document = _read(run.path / PLAN)
        if document is None:
            plan = {**decides, "locked_at": now, "artifacts": dict(sorted(family.items()))}
            document = {"schema_version": SCHEMA, "plan": plan, "uses": []}
        options = {**decides, **more}
        seen = {(sha, canonical_json(use["options"])) for use in document["uses"] for sha in use["artifacts"].values()}
        fresh = {name: sha for name, sha in sorted(judged.items()) if (sha, canonical_json(options)) not in seen}
        if fresh:
            document["uses"].append({"time_utc": now, "artifacts": fresh, "options": options})
            write_json(run.path / PLAN, document)
        count = len(document["uses"])
        return Standing(
            document["plan"]["locked_at"], count, {s: _why(document["plan"], decides, s, count) for s in judged.values()}
        )


def _why(plan: Mapping[str, Any], decides: Mapping[str, Any], sha: str, uses: int) -> str | None:
    changed = [f"{key} {plan.get(key)} -> {value}" for key, value in decides.items() if plan.get(key) != value]
    words = []
    if changed:
        words.append(f"not as locked on {plan['locked_at']}: {', '.join(changed)}")
    if sha not in plan["artifacts"].values():
        words.append("this artifact is not one of those that the plan was made for")
    return f"{'; '.join(words)}; test set used {uses} time{'' if uses == 1 else 's'}" if words else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = read_json(path)
        if value["schema_version"] != SCHEMA or not isinstance(value["plan"]["artifacts"], dict):
            raise ValueError(f"schema_version {value['schema_version']!r}")
        for use in value["uses"]:
            _ = (use["time_utc"], use["artifacts"].values(), use["options"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"the record of the uses of the test set cannot be read: {error!r}"
        raise OctcError("OCT-E709", text, mend="restore this file from a copy; it is not made anew", place=str(path)) from error
    return value


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process, whatever ends it."""
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)
