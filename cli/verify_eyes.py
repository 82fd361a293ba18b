"""`octc verify` of artifacts whose classes do not exclude each other: store and print what was found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from octc.cli._app.session import Session
from octc.core.errors import OctcError, Several

if TYPE_CHECKING:
    from octc.bench.parity.result import Asked, Place
    from octc.store.find import Found


def verify_eyes(session: Session, founds: Sequence[Found], bundle: str | None, asked: Asked, place: Place) -> int:
    """Verify, write verify.json beside every candidate, print, and raise what did not hold."""
    from octc.bench.parity.references import choose_parties
    from octc.bench.parity.verify_multilabel import eye_document, eye_failures, eye_text, verify_eye_artifacts
    from octc.core.deprecated import variable
    from octc.machine.host import versions
    from octc.store.find import VARIABLE
    from octc.store.test_set_log import spelled
    from octc.store.verdicts import write_verdict

    named = founds[0].folder in (Path(), Path(bundle or ""), Path(variable(os.environ, VARIABLE) or ""))
    parties = choose_parties(founds, session.run_dir, "fp32", named=named)
    session.run_id = str(parties.candidates[0].artifact.lineage.get("run"))
    for found, why in parties.absent:
        session.say(f"  ! NA       {found.artifact.name}: {why}")
    result = verify_eye_artifacts(asked, parties, place, session.progress, session.say)
    facts = {"run_id": session.run_id, "time_utc": place.now, "versions": versions(), "machine": dict(place.machine)}
    documents = []
    for one in result.judged:
        documents.append(eye_document(one, result, facts))
        if one.error is not None:
            continue
        key = "golden" if one.found is None else asked.set_name
        try:
            write_verdict(one.one.folder, one.one.artifact.name, one.sha256, key, documents[-1], result.run)
        except OctcError as error:
            session.warn("OCT-W701", error.message, str(one.one.folder))
    session.report(
        {"run": session.run_id, "set": asked.set_name, "golden_only": result.labelled is None, "artifacts": documents}
    )
    session.result("\n\n".join(eye_text(one, result) for one in result.judged))
    if result.standing is not None:
        session.say(f"{spelled(result.standing.log)}; plan of {result.standing.locked_at}")
    if errors := list(eye_failures(result)):
        raise errors[0] if len(errors) == 1 else Several(errors)
    session.say("next: octc bench")
    return 0
