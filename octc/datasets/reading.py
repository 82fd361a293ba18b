"""Reads a data set according to the command's options."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from octc.core.data_options import DataOptions
from octc.core.errors import OctcError, shorten
from octc.core.progress import Reporter
from octc.datasets.base import Finding, Progress, Reading, Samples, contradicting, words_of_scan
from octc.datasets.patient_rules import by_rule, rule_of
from octc.datasets.registry import scan_dataset, spec_of, without_bad
from octc.datasets.tables import stated_columns
from octc.datasets.tree import has_folder
from octc.stats.patients import UNKNOWN

NOTHING = DataOptions()


def read_data(
    place: tuple[str, Path],
    options: DataOptions,
    run_dir: Path,
    say: Callable[[str], None],
    progress: Progress | None = None,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    whose: bool = True,
) -> Samples:
    """Scan a data set according to the options (columns, image folders, links), with patients from a given or stored rule.

    Args:
        place: name and root of the data set. run_dir: folder with stored rules. classes: class names instead of the layout's.
        whose: whether to apply a patient rule (not needed if a split exists).

    Raises:
        OctcError: E102, E104 invalid options; E209, E216 a table of patients; and the errors of `scan_dataset`.
    """
    name, root = place
    rule = rule_of(options.patients, options.patient_pattern, options.patient_from)
    samples = scan_dataset(name, root, classes, progress, reading=reading_of(name, options))
    samples = replace(samples, known_as=samples.digest, may_lack=_may_lack(options.allow_empty, samples.classes))
    if whose:
        samples = by_rule(samples, rule, run_dir, say)  # before unreadable files are dropped: they are part of the digest
    return without_bad(samples, progress) if skip_bad else samples


def reading_of(name: str, options: DataOptions) -> Reading:
    """The options of a scan (OctcError E102: options for tables without a table, E104: missing folders)."""
    if not spec_of(name).table and (word := "--column" if options.column else "--image-root" if options.image_root else ""):
        raise OctcError("OCT-E102", f"{word} is for tables, and {name} is none", hint="--dataset csv", place=word)
    links = None if options.follow_links is None else _folders(options.follow_links, "--follow-links")
    roots = () if options.image_root is None else _folders(options.image_root, "--image-root")
    return Reading(stated_columns(options.column), roots, links)


def say_scan(samples: Samples, reporter: Reporter, more: Iterable[Finding] = ()) -> None:
    """How each folder was read, what was left out, and the warnings of the scan and `more`."""
    for line in words_of_scan(samples.items, samples.parts, samples.unread):
        reporter.say(line)
    warn_notes((*samples.notes, *more), reporter)


def warn_notes(notes: Iterable[Finding], reporter: Reporter) -> None:
    """The warnings of a scan."""
    for note in notes:
        reporter.warn(note.code, f"{note.message}; {note.hint}" if note.code == "OCT-W223" else note.message, note.place)


def _folders(text: str, option: str) -> tuple[Path, ...]:
    found = tuple(Path(one).expanduser() for one in text.split(os.pathsep) if one)
    if not found or (lost := [str(one) for one in found if not has_folder(one)]):
        lacking = ", ".join(lost) if found else text
        raise OctcError("OCT-E104", f"{option}: no folder {lacking}", hint=f"{option} DIR[{os.pathsep}DIR]", place=option)
    return found


def _may_lack(text: str | None, classes: Sequence[str]) -> tuple[str, ...]:
    if text is None:
        return ()
    names = (text,) if text in classes else tuple(one.strip() for one in text.split(","))
    if unknown := [name for name in names if name not in classes]:
        hint = f"one or more of: {', '.join(classes)}"
        raise OctcError("OCT-E104", f"--allow-empty: no class {', '.join(unknown)}", hint=hint, place="--allow-empty")
    return names


def is_unanswered(name: str, samples: Samples) -> bool:
    """Whether the patients are undetermined: no file names one, no rule is given, and the data set is not known to lack
    patient ids."""
    return samples.patient_ids.state == UNKNOWN and not samples.rule and not spec_of(name).nameless


def check_command(name: str, place: Path, options: DataOptions = NOTHING) -> str:
    """The `octc data check` command for a data set that was read with these options."""
    return f"octc data check {name} --data {shlex.quote(str(place))}{_as_options(options)}"


def _as_options(options: DataOptions) -> str:
    """The options as command-line arguments."""
    words = [(name, getattr(options, name)) for name in ("column", "image_root", "follow_links")]
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in words if value is not None)


def refuse_contradictions(samples: Samples, name: str, place: Path, options: DataOptions = NOTHING) -> None:
    """Refuse a data set with identical files under two labels (OctcError E213 lists all copies)."""
    if torn := contradicting(samples.items):
        several = any(s.targets is not None for s in samples.items)
        text = f"{len(torn)} images have two labels" if several else f"{len(torn)} images are in two classes"
        hint = f"keep each in its true class only   ({check_command(name, place, options)} lists all)"
        raise OctcError("OCT-E213", text, hint=hint, place=shorten([" = ".join(s.path for s in same) for same in torn]))


def ask_whose(place: Path, run_dir: Path, options: DataOptions = NOTHING) -> OctcError:
    """OctcError E232, which asks for a patient rule, with a command for each choice."""
    head = f"octc data patients {shlex.quote(str(place))}{_as_options(options)}"
    if run_dir != Path("runs"):
        head += f" --run-dir {shlex.quote(str(run_dir))}"
    rules = ("--patient-from folder", "--patient-pattern REGEX", "--patients unknown")
    hint = "run one of these once (without --save it only shows the patients):\n" + "\n".join(
        f"  {head} {rule} --save" for rule in rules
    )
    return OctcError("OCT-E232", "the patients are not known: no file name contains a patient id", hint=hint, place=str(place))
