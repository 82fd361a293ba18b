"""Patient ids from file names. octc/stats/patients.py defines which claims they allow."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from octc.core.cells import given

PREFIXES = ("CNV", "DME", "DRUSEN", "NORMAL")  # prefixes of UCSD's file names, often found in folders of other names
# After the class: -PATIENT-INDEX, and any addition of a copy or an export. Underscores were replaced by hyphens.
FIELDS = re.compile(r"^-([0-9]+)-([0-9]+)(?![0-9])(.*)$", re.DOTALL)
THIRD = re.compile(r"^[-.]([0-9]+)(?![0-9])")  # a third number, which turns the first two fields into a date
YEARS = (1900, 2099)
SHORT_YEARS = (*range(90, 100), *range(36))  # 1990 to 2035; OCT did not exist before
ORDERS = ("%Y%m%d", "%d%m%Y", "%m%d%Y")


def before_fields(
    dataset: str, listed: Sequence[tuple[str, str, str | None, str | None]], classes: Sequence[str]
) -> list[str | None]:
    """Patients of a split file from a version before `patient_ids`: ids that today's rules do not confirm become None.

    No id is added, so the groups of the split never grow.

    Args:
        listed: (path, class, patient, eye) of each image in the file.
    """
    before = [patient for _, _, patient, _ in listed]
    if dataset == "multieye":
        return [None] * len(listed)
    if dataset.startswith("mmc-amd"):
        return [None if patient == eye else patient for _, _, patient, eye in listed]
    if dataset in ("topcon-mm", "paired-phantom"):
        now = without_dates([None if patient == eye else patient for _, _, patient, eye in listed])
    elif dataset == "csv":
        now = [None if patient is None else given(patient) for patient in before]
    elif dataset.startswith("neh"):
        return before
    else:
        now = patients_of([(PurePosixPath(path).stem, name) for path, name, _, _ in listed], classes)
    return [one if one == other else None for one, other in zip(before, now, strict=True)]


def patient_of(stem: str, *names: str) -> str | None:
    """The patient id in a file name, or None.

    Args:
        stem: file name without extension: CLASS-PATIENT-INDEX; "_" separates like "-".
        names: accepted names of CLASS in any letter case: its folder first, then others of the tree. UCSD's four are always
            accepted.
    """
    number = _number(stem, names)
    return None if number is None or _is_date(number) else number


def patients_of(named: Sequence[tuple[str, str]], classes: Sequence[str] = ()) -> list[str | None]:
    """The patient ids in the file names of a tree.

    Digits may be a date or a patient number (UCSD has a patient 2038). If at least half of the different numbers with the same
    number of digits are valid dates, those are taken as dates and give None.

    Args:
        named: (stem, class folder) of each image. classes: all class folders.
    """
    return without_dates([_number(stem, (name, *classes)) for stem, name in named])


def without_dates(people: Sequence[str | None]) -> list[str | None]:
    """The ids with dates replaced by None, decided as in `patients_of`."""
    by_length: dict[int, set[str]] = defaultdict(set)
    for one in people:
        if one is not None and one.isascii() and one.isdecimal():
            by_length[len(one)].add(one)
    dates: set[str] = set()
    for alike in by_length.values():
        found = {number for number in alike if _is_date(number)}
        if 2 * len(found) >= len(alike):
            dates |= found
    return [None if one in dates else one for one in people]


def _number(stem: str, names: Sequence[str]) -> str | None:
    """The digits at the position of the patient; None if the name has another form, or its fields are a date."""
    plain = _plain(stem)
    for name in map(_plain, dict.fromkeys((*names[:1], *sorted(names[1:], key=len, reverse=True), *PREFIXES))):
        if name.isdecimal():
            continue  # "1-12-3" in a folder "1" is ambiguous
        if plain[: len(name)].lower() == name.lower() and (match := FIELDS.match(plain[len(name) :])):
            return None if _is_spelt_date(*match.groups()) else match[1]
    return None


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("_", "-")


def _is_spelt_date(first: str, second: str, rest: str) -> bool:
    """Whether the fields are a date: 2019-03-03, 2019-3-3, 03-03-2019, 19-03-03, 03-03-19, 03-2019, with anything after it."""
    found = THIRD.match(rest)
    third = found[1] if found else ""
    if _is_year(first):
        return _between(second, 1, 12) and _between(third, 1, 31)
    if not _between(first, 1, 31 if third else 12):
        return _is_short_date(first, second, third)
    if _is_year(third):
        return _between(second, 1, 31)
    return (_is_year(second) and _between(first, 1, 12)) or _is_short_date(first, second, third)


def _is_short_date(*fields: str) -> bool:
    return all(len(field) == 2 for field in fields) and _is_date("".join(fields))


def _between(field: str, low: int, high: int) -> bool:
    return 0 < len(field) <= 2 and low <= int(field) <= high


def _is_year(field: str) -> bool:
    return len(field) == 4 and YEARS[0] <= int(field) <= YEARS[1]


def _is_date(number: str) -> bool:
    """Whether digits without separators are a year, a year and month, a day (in any order), or a day with a time."""
    length = len(number)
    if length == 4:
        return _is_year(number)
    if length == 6:
        days = (number[4:] + number[2:4] + number[:2], number[4:] + number[:2] + number[2:4], number)
        short = any(int(day[:2]) in SHORT_YEARS and _is_day(f"20{day}", "%Y%m%d") for day in days)
        return short or (_is_year(number[:4]) and _between(number[4:], 1, 12))
    if length == 8:
        return any(_is_day(number, order) for order in ORDERS)
    if length in (10, 12, 14, 17):
        limits = zip((24, 60, 60), (number[8:10], number[10:12], number[12:14]), strict=True)
        return _is_date(number[:8]) and all(not part or int(part) < limit for limit, part in limits)
    return False


def _is_day(digits: str, order: str) -> bool:
    try:
        return YEARS[0] <= datetime.datetime.strptime(digits, order).year <= YEARS[1]
    except ValueError:
        return False
