"""Rules that assign patients to images: from file names, folders or a table, or that patients are unknown.

A rule replaces the patient ids of the layout. It is stored under the digest of the data set, so that every later command on the
same images uses the same patients.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from octc.core.cells import given, same_names
from octc.core.errors import OctcError, shorten
from octc.core.files import read_json, sha256_file, write_json
from octc.datasets.base import Finding, Sample, Samples
from octc.datasets.patients import without_dates
from octc.datasets.tables import read_columns, refuse_lines, resolver

UNKNOWN, PATTERN, FOLDER, NAME, TABLE = "unknown", "pattern", "folder", "name", "table"
STORE = ".patients.json"  # in the run folder: digest of a data set -> its rule
INDEX = re.compile(r"[\W_]*\d+\W*$")  # the number of an image at the end of its name
HINT = "--patients unknown, --patient-pattern REGEX, or --patient-from folder, name or TABLE.csv; octc data patients shows each"
ROUNDED = re.compile(r"\d(?:[.,]\d+)?e\+\d+", re.IGNORECASE)  # 1.23457E+12
_MONTH = r"(?:jan|feb|mar|mär|mrz|apr|may|mai|june?|july?|aug|sept?|oct|okt|nov|dec|dez)\.?"
DATE = re.compile(
    rf"(?:\d{{1,2}}[.\s/-]+{_MONTH}(?:[.\s/-]+\d{{2,4}})?|{_MONTH}[.\s/-]+(?:\d\d){{1,2}}"
    r"|(?:19|20)\d\d-\d\d?-\d\d?|\d\d?([./])\d\d?\1(?:19|20)\d\d)(?:[T\s]+\d\d?:\d\d(?::\d\d)?)?",
    re.IGNORECASE,
)  # 12. Mrz, Mar-12, 1905-07-10 00:00:00, 03.12.2019
EYES = frozenset(("od", "os", "ou", "r", "l", "re", "le", "right", "left"))
LONGEST = 1000  # maximum length of a pattern, characters


@dataclass(frozen=True)
class PatientRule:
    """A patient rule. kind: UNKNOWN, PATTERN, FOLDER, NAME or TABLE. value: the pattern, or the path of the table; sha256: of
    that table, in a stored rule."""

    kind: str
    value: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        words = {
            UNKNOWN: "--patients unknown",
            PATTERN: f"--patient-pattern {self.value!r}",
            TABLE: f"--patient-from {self.value}",
        }
        return words.get(self.kind, f"--patient-from {self.kind}")


def rule_of(patients: str | None, pattern: str | None, source: str | None) -> PatientRule | None:
    """The rule from three options, of which at most one may be given; None without any.

    Raises:
        OctcError: E102 more than one option, E104 an unknown value or an invalid regular expression.
    """
    options = {"--patients": patients, "--patient-pattern": pattern, "--patient-from": source}
    if len(named := [name for name, value in options.items() if value is not None]) > 1:
        raise OctcError("OCT-E102", f"{' and '.join(named)} contradict each other", hint="give one of them", place=named[1])
    if patients is not None:
        if patients != UNKNOWN:
            raise OctcError("OCT-E104", f"--patients {patients!r} is not known", hint=HINT, place="--patients")
        return PatientRule(UNKNOWN)
    if pattern is not None:
        _compiled(pattern)
        return PatientRule(PATTERN, pattern)
    if source is None:
        return None
    return PatientRule(source) if source in (FOLDER, NAME) else PatientRule(TABLE, source)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        if len(pattern) > LONGEST:
            raise re.error(f"longer than {LONGEST} characters")
        found = re.compile(pattern)
        if found.groups > 1 and "patient" not in found.groupindex:
            raise re.error(f"{found.groups} groups: call one of them (?P<patient>...)")
    except (re.error, RecursionError, OverflowError) as error:
        hint = r"for example 'P(\d+)': the group is the patient, without one the whole match"
        raise OctcError("OCT-E104", f"no pattern: {error}", hint=hint, place="--patient-pattern") from error
    return found


def apply_rule(samples: Samples, rule: PatientRule) -> Samples:
    """The samples with the patients that a rule gives; the patient is None if the rule gives none.

    Raises:
        OctcError: E209 the table cannot be read, or lists none of the images.

    >>> from octc.datasets.base import Sample, Samples
    >>> one = Samples(Path("."), ("A", "B"), (Sample("A/P07_3.png", 0, None, None, ""),))
    >>> apply_rule(one, PatientRule("pattern", r"P(\\d+)")).items[0].patient
    '07'
    """
    people = _people(samples, rule)
    items = tuple(replace(s, patient=one) for s, one in zip(samples.items, people, strict=True))
    return replace(samples, items=items, rule=str(rule))


def _people(samples: Samples, rule: PatientRule) -> list[str | None]:
    paths = [PurePosixPath(s.path) for s in samples.items]
    if rule.kind == UNKNOWN:
        return [None] * len(paths)
    if rule.kind == PATTERN:
        pattern = _compiled(rule.value)
        return [_matched(pattern, path.as_posix()) for path in paths]
    if rule.kind == FOLDER:
        tops = {*samples.classes, *(name for top, _ in samples.parts for name in PurePosixPath(top).parts), ""}
        return [None if path.parent.name in tops else path.parent.name for path in paths]
    if rule.kind == NAME:
        return [_of_name(path.stem) for path in paths]
    return _of_table(samples, Path(rule.value))


def _matched(pattern: re.Pattern[str], path: str) -> str | None:
    found = pattern.search(path)
    if found is None:
        return None
    key: str | int = "patient" if "patient" in pattern.groupindex else min(1, pattern.groups)
    return given(found[key] or "")


def _of_name(stem: str) -> str | None:
    """The name without the image number at its end: "P07-left-3" gives "P07-left"; a number alone gives None."""
    found = INDEX.sub("", stem).strip(" -_.")
    return given(found) if found and found != stem else None


def _of_table(samples: Samples, table: Path) -> list[str | None]:
    find, known, torn = resolver([s.path for s in samples.items]), dict[str, str](), list[str]()
    for line, cells in read_columns(table, ("path", "patient")):
        path = find(cells["path"])
        if path is not None and known.setdefault(path, cells["patient"]) != cells["patient"]:
            torn.append(f"line {line}: {path} is of {known[path]!r} and of {cells['patient']!r}")
    refuse_lines(table, torn, "one patient for each image")
    if not known:
        text = f"{table.name} lists no image of {samples.root}"
        raise OctcError(
            "OCT-E209", text, hint="the table needs a column path (or file name) and a column patient", place=str(table)
        )
    return [given(known.get(s.path, "")) for s in samples.items]


def wonders(samples: Samples) -> Iterator[Finding]:
    """Warnings about implausible patients of a data set: none known, one for all images, one per image, dates."""
    people = [s.patient for s in samples.items if s.patient is not None]
    different = len(set(people))
    if not people:
        yield Finding("OCT-W212", "no patient of any image is known: leakage between parts cannot be excluded", (), HINT)
        return
    if missing := [s.path for s in samples.items if s.patient is None]:
        yield Finding("OCT-W212", f"{len(missing)} of {len(samples.items)} images have no patient", tuple(missing), HINT)
    if different == 1:
        yield Finding("OCT-W221", f"every image is of one patient, {people[0]!r}: no split is possible", (), HINT)
    elif different == len(people) > len(samples.classes):
        text = "every image has a patient of its own: the rule probably gives the image number"
        yield Finding("OCT-W221", text, tuple(people), HINT)
    dates = [one for one, kept in zip(people, without_dates(people), strict=True) if kept is None]
    if 2 * len(dates) >= len(people):
        yield Finding("OCT-W221", f"{len(set(dates))} patients look like dates", tuple(dict.fromkeys(dates)), HINT)
    yield from doubtful(people)


def doubtful(people: Sequence[str]) -> Iterator[Finding]:
    """Warnings about patient ids that may denote one patient, that a spreadsheet program changed, or that are eyes."""
    yield from alike("patients", people)
    different = list(dict.fromkeys(people))
    if rounded := tuple(one for one in different if ROUNDED.fullmatch(one)):
        text = f"{len(rounded)} patients are numbers that a spreadsheet program rounded: each may be several patients"
        yield Finding("OCT-W221", text, rounded, "export the table again, with the column of patients as text")
    if dates := tuple(one for one in different if DATE.fullmatch(one)):
        text = f"{len(dates)} patients are dates: a spreadsheet program converts a number such as 3-12 to a date"
        yield Finding("OCT-W221", text, dates, "export the table again, with the column of patients as text")
    if different and all(one.casefold() in EYES for one in different):
        yield Finding("OCT-W221", f"patients are called {', '.join(different)}: these are eyes", (), HINT)


def alike(what: str, values: Sequence[str]) -> Iterator[Finding]:
    """Warnings about values that may be the same: they differ only in letter case, blanks, or as 123, 0123 and 123.0 do."""
    if same := same_names(values):
        differ = f"{len(same)} {what} differ only in letter case, blanks, the form of an accent, or as 123, 0123 and 123.0 do"
        text = f"{differ}: each spelling counts as a separate one"
        yield Finding("OCT-W221", text, tuple(same), "use one spelling for each")


def read_rule(run_dir: Path, digest: str) -> PatientRule | None:
    """Read the stored rule of a data set; None if there is none or it is unreadable."""
    try:
        kept = read_json(run_dir / STORE)[digest]
        return PatientRule(str(kept["kind"]), str(kept["value"]), str(kept.get("sha256", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_rule(run_dir: Path, digest: str, rule: PatientRule) -> None:
    """Store a rule under the digest of a data set; a table is stored by its path and checksum."""
    if rule.kind == TABLE:
        table = Path(rule.value).resolve()
        rule = PatientRule(TABLE, str(table), sha256_file(table))
    try:
        known = read_json(run_dir / STORE)
    except (OSError, ValueError):
        known = {}
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / STORE, {**(known if isinstance(known, dict) else {}), digest: asdict(rule)})


def by_rule(samples: Samples, rule: PatientRule | None, run_dir: Path, say: Callable[[str], None]) -> Samples:
    """Apply a rule, or else the rule stored for these samples in the run folder, if there is one. Warnings about implausible
    patients are added to the notes.

    Raises:
        OctcError: E209 as `apply_rule`; E216 the table of a stored rule has changed.
    """
    kept = read_rule(run_dir, samples.known_as or samples.digest) if rule is None else None
    if kept is not None and kept.sha256 and Path(kept.value).is_file() and sha256_file(Path(kept.value)) != kept.sha256:
        hint = f"octc data patients DIR --patient-from {shlex.quote(kept.value)} --save   (to use the table as it is now)"
        raise OctcError("OCT-E216", "the table of patients has changed since the rule was saved", hint=hint, place=kept.value)
    chosen = rule or kept
    if chosen is None:
        return samples
    say(f"patients by {chosen}{'' if rule is not None else ' (saved before)'}")
    found = apply_rule(samples, chosen)
    odd = (one for one in wonders(found) if one.code == "OCT-W221" and one not in samples.notes)
    return replace(found, notes=(*samples.notes, *odd))


def patients_by_class(items: Sequence[Sample], classes: Sequence[str]) -> dict[str, int]:
    """Number of known patients per class."""
    return {name: len({s.patient for s in items if s.has(k) and s.patient is not None}) for k, name in enumerate(classes)}


def preview(samples: Samples, most: int = 8) -> list[tuple[str, int, str]]:
    """(patient, number of images, path of one) of the patients with most images, at most `most`."""
    counts = Counter(s.patient for s in samples.items if s.patient is not None)
    first = {s.patient: s.path for s in reversed(samples.items) if s.patient is not None}
    return [(str(one), count, first[one]) for one, count in sorted(counts.items(), key=lambda p: (-p[1], str(p[0])))[:most]]


def words(samples: Samples) -> str:
    """The numbers of patients and images in one line."""
    known = sum(s.patient is not None for s in samples.items)
    people = len({s.patient for s in samples.items if s.patient is not None})
    counts = patients_by_class(samples.items, samples.classes)
    each = shorten([f"{name} {count}" for name, count in counts.items()], 20)
    return f"{people} patients of {known} of {len(samples.items)} images ({each})"
