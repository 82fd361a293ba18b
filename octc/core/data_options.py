"""Options for reading a data set, shared by every command that scans one."""

from __future__ import annotations

from dataclasses import dataclass

from octc.core.options import Key, option

TEXT = Key(str)
WHOSE = ("patients", "patient_pattern", "patient_from")  # one question: an option of these replaces a configured other one


@dataclass(frozen=True)
class DataOptions:
    """How to read a data set, besides its layout; None: as the layout or a saved rule states."""

    patients: str | None = option(
        None, metavar="unknown", shown="unknown: state that the patients of the images are not known", key=TEXT
    )
    patient_pattern: str | None = option(
        None, metavar="REGEX", shown="Patient id in an image's path: the group of the expression, or the whole match", key=TEXT
    )
    patient_from: str | None = option(
        None,
        metavar="WHERE",
        shown="Source of patient ids: folder, name (without its number), or a table of path and patient",
        key=TEXT,
    )
    column: str | None = option(
        None,
        metavar="path=NAME,...",
        shown="Column names of the table for path, label, patient, split (usual names are recognised)",
        key=TEXT,
    )
    image_root: str | None = option(
        None, metavar="DIR[:DIR]", shown="Folders of the table's images, separated by colons (the table's folder)", key=TEXT
    )
    follow_links: str | None = option(
        None,
        metavar="DIR[:DIR]",
        shown="Follow symbolic links inside the data set and into these folders, separated by colons",
        key=TEXT,
    )
    value_range: str | None = option(
        None, metavar="LOW,HIGH", shown="Stored grey values mapped to black and white (0,4095 for 12 bits in 16)", key=TEXT
    )
    allow_empty: str | None = option(
        None,
        metavar="CLASS[,CLASS]",
        shown="Classes that val or test may lack because of too few patients; it is recorded",
        key=TEXT,
    )
