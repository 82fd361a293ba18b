"""search.json while a search is running: what is done already is taken from it when the same search is asked for again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.files import read_json, write_json
from octc.schemas.common import builtins, convert
from octc.schemas.search import Measured, SearchFile, Trial

FILE = "search.json"


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
    """The book of a search: as it was left, or a new one.

    Raises:
        OctcError: E501 search.json is none; E509 a newer octc wrote it.
    """
    if not (folder / FILE).is_file():
        return Book(folder, fresh)
    try:
        found = convert(read_json(folder / FILE), SearchFile, folder / FILE)
    except ValueError as error:
        text = f"{FILE} of this search cannot be read: {error}"
        hint = "move the folder away: the search begins anew, its measurements and runs are found again"
        raise OctcError("OCT-E501", text, hint=hint, place=str(folder / FILE)) from error
    return Book(folder, found, before=found.seconds)
