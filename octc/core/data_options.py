"""Options for reading a data set, shared by every command that scans one."""

from __future__ import annotations

from dataclasses import dataclass

from octc.core.options import Key, option

TEXT = Key(str)
WHOSE = ("patients", "patient_pattern", "patient_from")  # one question: an option of these replaces a configured other one


@dataclass(frozen=True)
class DataOptions:
    """How to read a data set, besides its layout; None: as the layout or a saved rule states."""

    patients: str | None = option(None, metavar="unknown", shown="unknown: nobody knows whose the images are", key=TEXT)
    patient_pattern: str | None = option(
        None, metavar="REGEX", shown="What is the patient in an image's path: the group, or the whole match", key=TEXT
    )
    patient_from: str | None = option(
        None, metavar="WHERE", shown="folder, name (without its number), or a table with path and patient", key=TEXT
    )
    column: str | None = option(
        None, metavar="path=NAME,...", shown="What the table calls path, label, patient, split; usual names are known", key=TEXT
    )
    image_root: str | None = option(
        None, metavar="DIR[:DIR]", shown="Where the table's images lie, if not beside it (separated as PATH is)", key=TEXT
    )
    follow_links: str | None = option(
        None,
        metavar="DIR[:DIR]",
        shown="Follow links inside the data set, and into these folders (separated as PATH is)",
        key=TEXT,
    )
    value_range: str | None = option(
        None, metavar="LOW,HIGH", shown="Stored grey values that become black and white (0,4095 of 12 bits in 16)", key=TEXT
    )
    allow_empty: str | None = option(
        None, metavar="CLASS[,CLASS]", shown="Classes that val or test may lack, for want of patients; it is recorded", key=TEXT
    )
