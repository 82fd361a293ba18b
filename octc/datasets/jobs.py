"""What `octc data check | split | stats | patients` do, as functions: a data set by its name, its folder or its table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.data_options import DataOptions
from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Reporter, counting
from octc.datasets.audit import AuditReport, audit
from octc.datasets.base import Finding, Samples
from octc.datasets.patient_rules import apply_rule, preview, read_rule, rule_of, wonders, words, write_rule
from octc.datasets.reading import read_data, reading_of, refuse_contradictions, say_scan
from octc.datasets.registry import DATASETS, find_root, guess_layout, scan_dataset, spec_of
from octc.datasets.released_splits import make_splits
from octc.datasets.split import CLEAN, Split, make_split
from octc.datasets.statistics import Stats, read_stats
from octc.datasets.tree import has_file, is_folder
from octc.imaging.value_range import value_range_of


@dataclass(frozen=True)
class SplitOptions:
    """Which split.

    Attributes:
        seed: of the split; None: 0, and 43 for the released protocols.
        folds: number of folds by patient, each with a fifth of its rest for validation; None: one split.
        leave_out: "size" or "site": a fold for each acquisition, which it leaves out; None: none is left out.
        protocol: "clean", or "as-released" and "as-released-teacher", KD-OCT's splits with their leakage.
    """

    seed: int | None = None
    folds: int | None = None
    leave_out: str | None = None
    protocol: str = CLEAN


@dataclass(frozen=True)
class OpenedData:
    """A data set that was found and scanned. name: of the table of data sets (`octc data list`). root: its folder or table."""

    name: str
    root: Path
    samples: Samples


@dataclass(frozen=True)
class PatientPreview:
    """The patients that a rule gives, or the layout where there is no rule.

    Attributes:
        rule: the rule as an option of the command line, or None. stored: whether it was stored before.
        rows: (patient, number of images, path of one) of the patients with most images. summary: the numbers in a line.
        warnings: what looks implausible.
    """

    dataset: str
    root: str
    rule: str | None
    stored: bool
    images: int
    patients: int
    unknown: int
    rows: tuple[tuple[str, int, str], ...]
    summary: str
    warnings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `octc data patients`, without `saved`."""
        return {
            "dataset": self.dataset, "root": self.root, "rule": self.rule, "images": self.images, "patients": self.patients,
            "unknown": self.unknown, "first": [{"patient": one, "images": n, "path": path} for one, n, path in self.rows],
        }  # fmt: skip


def find_data(
    what: str | Path, data: str | Path | None, options: DataOptions, environ: Mapping[str, str]
) -> tuple[str, Path, str]:
    """Name and root of a data set, and how they were chosen.

    what: a name, a folder of images, or a table. data: the root of a data set that is given by name.

    Raises:
        OctcError: E230 there is no such folder or table, or the data set is not here; E104 unknown name.
    """
    word, place = str(what), Path(what)
    if word not in DATASETS and not place.exists() and (place.name != word or place.suffix):
        hint = f"a folder of images, a table, or one of: {', '.join(DATASETS)}"
        raise OctcError("OCT-E230", f"no such folder or table: {word}", hint=hint, place=word)
    if word not in DATASETS and (has_file(place) or options.column or options.image_root):
        guessed = guess_layout(place)
        return guessed if spec_of(guessed).table else "csv", place, "a table"
    if word in DATASETS or not is_folder(place):
        return spec_of(word).name, find_root(word, None if data is None else str(data), environ), "choose with --data DIR"
    return guess_layout(place), place, "told by its folders"


def _found(what: str | Path, data: str | Path | None, options: DataOptions, reporter: Reporter) -> tuple[str, Path]:
    """Name and root of a data set in this environment; what was chosen is said."""
    name, root, how = find_data(what, data, options, os.environ)
    reporter.say(f"using data set {name} in {root} ({how})")
    return name, root


def open_data(
    what: str | Path = "ucsd",
    *,
    data: str | Path | None = None,
    options: DataOptions | None = None,
    run_dir: str | Path = "runs",
    reporter: Reporter | None = None,
    for_split: bool = False,
) -> OpenedData:
    """Find a data set and scan it, with the patients of a stated or stored rule.

    for_split: refuse what cannot be split, and tell `reporter` what was left out and the warnings of the scan; else whatever
    the data set may contain is taken.

    Raises:
        OctcError: E213 identical images in two classes; and those of `find_data`, `octc.datasets.reading.read_data` and
            `scan_dataset`.
    """
    given, told = options or DataOptions(), reporter or LogReporter()
    name, root = _found(what, data, given, told)
    with counting(told, "checksums") as step:
        samples = read_data((name, root), given, Path(run_dir), told.say, step)
    if for_split:
        refuse_contradictions(samples, name, root, given)
        say_scan(samples, told)
    return OpenedData(name, root, samples)


def check_data(
    what: str | Path = "ucsd",
    *,
    data: str | Path | None = None,
    near_duplicates: str = "error",
    expect: str = "subset",
    options: DataOptions | None = None,
    run_dir: str | Path = "runs",
    reporter: Reporter | None = None,
) -> AuditReport:
    """Check a data set before it is trained on: unreadable files, duplicates, patients in both parts, conflicting labels.

    Every image is hashed and decoded once.

    Args:
        what: name of a data set (`octc data list`), a folder of images, or a table of them.
        data: root of a data set that is given by name; None: OCTC_DATA, else its default folder.
        near_duplicates: "error", "warn" or "off": how images of both parts that look the same are reported.
        expect: "subset": fewer images than published are accepted; "published": any other number is a finding.
        options: how patients are told, columns of a table, folders of its images, the range of stored values.
        run_dir: folder of the runs, where rules of patients are stored. reporter: receives messages and progress; None: the
            log `octc`.

    Returns:
        Counts, patients, sizes, and `findings` (each with code, hint and every image concerned) beside `warnings`. A finding
        does not raise: a data set without any has `not report.findings`.

    Raises:
        OctcError: E230 the data set is not here; E104 an unknown name or word; E205, E206, E207, E231 it cannot be scanned.

    >>> import octc
    >>> octc.check_data("no-such-folder/images")
    Traceback (most recent call last):
    octc.core.errors.OctcError: no such folder or table: no-such-folder/images
    """
    given, told = options or DataOptions(), reporter or LogReporter()
    values = value_range_of(given.value_range)
    opened = open_data(what, data=data, options=given, run_dir=run_dir, reporter=told)
    with counting(told, "images") as read:
        return audit(opened.name, opened.root, near_duplicates, expect, read=read, samples=opened.samples, values=values)


def split_data(
    what: str | Path = "ucsd",
    split: SplitOptions | None = None,
    *,
    data: str | Path | None = None,
    options: DataOptions | None = None,
    run_dir: str | Path = "runs",
    reporter: Reporter | None = None,
) -> list[Split]:
    """The split that a run with this seed trains on, by patient where patients are known; or the folds of a cross-validation.

    Args:
        what, data, options, run_dir, reporter: as for `octc.check_data`.
        split: seed, folds and protocol; None: one split by patient with seed 0.

    Returns:
        One split, or one for each fold: `parts` (train, val, test), `digest`, `leakage`, `counts()`; `write(path)` stores it.

    Raises:
        OctcError: E230 the data set is not here; E213 identical images in two classes; E207, E208 too few images or patients of
            a class; E102, E104 words that contradict each other or are unknown.

    >>> import octc
    >>> octc.split_data("no-such-folder/images", octc.SplitOptions(folds=5))
    Traceback (most recent call last):
    octc.core.errors.OctcError: no such folder or table: no-such-folder/images
    """
    opened = open_data(what, data=data, options=options, run_dir=run_dir, reporter=reporter, for_split=True)
    how = split or SplitOptions()
    return make_splits(opened.samples, opened.name, how.protocol, how.folds, how.seed, by=how.leave_out)


def write_splits(splits: Sequence[Split], folder: Path) -> list[Path]:
    """Write split.json, or fold-I-of-K.json for each fold. Files that are there are never replaced.

    Raises:
        OctcError: E106 one of them is there.
    """
    paths = [folder / (f"fold-{one.fold[0]}-of-{one.fold[1]}.json" if one.fold else "split.json") for one in splits]
    if there := [str(path) for path in paths if path.exists()]:
        raise OctcError("OCT-E106", f"{there[0]} exists", hint="another --out", place="--out")
    for one, path in zip(splits, paths, strict=True):
        one.write(path)
    return paths


def data_stats(
    opened: OpenedData, seed: int = 0, *, options: DataOptions | None = None, reporter: Reporter | None = None
) -> Stats:
    """Counts of the split of this seed, and mean and deviation of the pixels of its training images.

    Raises:
        OctcError: all images that cannot be read; and those of `make_split`.
    """
    told = reporter or LogReporter()
    made = make_split(opened.samples, opened.name, seed)
    if unknown := made.patient_ids.warning:
        told.warn("OCT-W212", unknown)
    with counting(told, "images") as step:
        return read_stats(opened.samples, made, step, value_range_of((options or DataOptions()).value_range))


def preview_patients(
    what: str | Path = "ucsd",
    *,
    data: str | Path | None = None,
    options: DataOptions | None = None,
    save: bool = False,
    run_dir: str | Path = "runs",
    reporter: Reporter | None = None,
) -> PatientPreview:
    """The patients that a rule gives (`DataOptions.patients`, `patient_pattern` or `patient_from`), else the rule stored for
    these images, else their layout. save: store the rule, so that later trainings and splits of these images use it.

    Raises:
        OctcError: E102 `save` without a rule, or several rules; E104, E209, E216 a rule that cannot be applied; and those of
            `open_data`.
    """
    given, told = options or DataOptions(), reporter or LogReporter()
    rule = rule_of(given.patients, given.patient_pattern, given.patient_from)
    if save and rule is None:
        raise OctcError("OCT-E102", "--save needs a rule", hint="--patients unknown, --patient-pattern or --patient-from")
    name, root = _found(what, data, given, told)
    with counting(told, "checksums") as step:
        samples = scan_dataset(name, root, progress=step, reading=reading_of(name, given))
    chosen = rule or read_rule(Path(run_dir), samples.digest)
    if chosen is not None:
        samples = apply_rule(samples, chosen)
    found = PatientPreview(
        name,
        str(root),
        None if chosen is None else str(chosen),
        rule is None and chosen is not None,
        len(samples.items),
        len({s.patient for s in samples.items if s.patient is not None}),
        sum(s.patient is None for s in samples.items),
        tuple(preview(samples)),
        words(samples),
        tuple(wonders(samples)),
    )
    if save and rule is not None:
        write_rule(Path(run_dir), samples.digest, rule)
    return found
