"""Asks once at a terminal how the patients of a data set are known."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from octc.cli._app.session import Session
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.datasets.base import Samples
    from octc.datasets.patient_rules import PatientRule


def asker(session: Session) -> Callable[[Samples], PatientRule | None] | None:
    """A function that asks the user for a patient rule; None if there is no interactive terminal."""
    alone = int(os.environ.get("WORLD_SIZE", "1") or 1) == 1
    there = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    return (lambda samples: _ask(session, samples)) if there and alone and not (session.json or session.quiet) else None


def _ask(session: Session, samples: Samples) -> PatientRule | None:
    """The chosen rule, or None for an empty reply. The patients that each rule gives are shown first."""
    from octc.datasets.patient_rules import FOLDER, NAME, UNKNOWN, PatientRule, apply_rule, rule_of, wonders, words

    rules = {"1": PatientRule(FOLDER), "2": PatientRule(NAME), "3": PatientRule(UNKNOWN)}
    session.say(
        f"whose are these {len(samples.items)} images? No file name gives a patient (the first: {samples.items[0].path})"
    )
    for key, rule in rules.items():
        given = words(apply_rule(samples, rule)) if rule.kind != UNKNOWN else "nobody knows: leakage cannot be excluded"
        session.say(f"  {key}  {rule}: {given}")
    session.say("  or a regular expression whose group is the patient in a path, or the path of a table (.csv)")
    while True:
        session.say("1, 2, 3, REGEX or TABLE (nothing to stop):")
        answer = sys.stdin.readline().strip()
        if not answer:
            return None
        try:
            chosen = rules.get(answer) or rule_of(None, *_as_option(answer))
            assert chosen is not None
            found = apply_rule(samples, chosen)
        except OctcError as error:
            session.say(f"! {error.message}")
            continue
        session.say(f"{chosen}: {words(found)}")
        for one in wonders(found) if chosen.kind != UNKNOWN else ():
            session.warn(one.code, one.message, one.place)
        session.say("use this? y, or anything else for another answer:")
        if sys.stdin.readline().strip().casefold() in ("y", "yes"):
            return chosen


def _as_option(answer: str) -> tuple[str | None, str | None]:
    """(pattern, source) of a reply; a reply with the extension of a table is a source."""
    return (None, answer) if answer.casefold().endswith((".csv", ".tsv")) else (answer, None)
