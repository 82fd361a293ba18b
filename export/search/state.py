"""search.json while a search is running: what is done already is taken from it when the same search is asked for again.

Several workers may share a search. Each changes the document under a claim, after reading it anew, so that it holds what all of
them have done; a trial is claimed by the one that trains it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.files import read_json, write_json
from octc.core.progress import silent
from octc.schemas.common import builtins, convert
from octc.schemas.search import Measured, SearchFile, Trial
from octc.store.claims import waiting_for

FILE = "search.json"
CLAIM = ".lock"  # of whoever changes the document


@dataclass
class Book:
    """The document of a search, its folder, and the seconds that it has taken, over all of its processes."""

    folder: Path
    document: SearchFile
    began: float = field(default_factory=time.monotonic)
    before: float = 0.0

    @property
    def path(self) -> Path:
        return self.folder / FILE

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    @contextmanager
    def looking(self, say: Callable[[str], None] = silent, what: str = "") -> Iterator[None]:
        """The document as it is now, which nobody else changes meanwhile. say, what: see `waiting_for`."""
        with waiting_for(self.folder / CLAIM, say, what):
            if self.path.is_file():
                self.document = read_document(self.path)
                if self.document.seconds > self.seconds:  # another worker has been at it for longer
                    self.before, self.began = self.document.seconds, time.monotonic()
            yield

    @contextmanager
    def changing(self) -> Iterator[None]:
        """`looking`, and at the end the document is saved."""
        with self.looking():
            yield
            self.save()

    def trial_claim(self, name: str, epochs: int) -> Path:
        """Where the worker that trains a trial claims it."""
        return self.folder / f"{CLAIM}-{name}-e{epochs}"

    @property
    def is_done(self) -> bool:
        """Whether there is an answer."""
        return self.document.status == "done"

    def save(self) -> None:
        """Write the document, whole."""
        self.document.seconds = round(self.seconds, 1)
        write_json(self.path, builtins(self.document))

    def note(self, text: str) -> None:
        """Keep a sentence that the result has to say."""
        if text not in self.document.notes:
            self.document.notes.append(text)

    def measured(self, name: str) -> Measured:
        """What is known of a candidate."""
        return next(one for one in self.document.candidates if one.candidate.name == name)

    def last_trials(self) -> dict[str, Trial]:
        """The last trial of each candidate that was trained to its end."""
        rounds = self.document.rounds
        return {trial.name: trial for one in rounds for trial in one.trials if trial.accuracy is not None}


def open_book(folder: Path, fresh: SearchFile) -> Book:
    """The book of a search: as it was left, or a new one (E501, E509 as `read_document`)."""
    if not (folder / FILE).is_file():
        return Book(folder, fresh)
    found = read_document(folder / FILE)
    return Book(folder, found, before=found.seconds)


def read_document(path: Path) -> SearchFile:
    """search.json.

    Raises:
        OctcError: E501 it is none; E509 a newer octc wrote it.
    """
    try:
        return convert(read_json(path), SearchFile, path)
    except ValueError as error:
        text = f"{FILE} of this search cannot be read: {error}"
        hint = "move the folder away: the search begins anew, its measurements and runs are found again"
        raise OctcError("OCT-E501", text, hint=hint, place=str(path)) from error
