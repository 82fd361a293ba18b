"""From options to samples: how every command that splits or trains reads a data set."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from octc.core.data_options import DataOptions
from octc.core.errors import OctcError, shorten
from octc.datasets.base import Progress, Reading, Samples, contradicting
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
    """Scan a data set as the options have it: columns, image folders, links; its patients by a rule, stated or saved before.

    Args:
        place: name and root of the data set. run_dir: where rules are kept. classes: given, instead of those of the layout.
        whose: whether patients are looked for by a rule (not where a split is there already).

    Raises:
        OctcError: E102 or E104 options, what `scan_dataset` raises, E209 or E216 of a table of patients.
    """
    name, root = place
    rule = rule_of(options.patients, options.patient_pattern, options.patient_from)
    samples = scan_dataset(name, root, classes, progress, reading=reading_of(name, options))
    samples = replace(samples, known_as=samples.digest, may_lack=_may_lack(options.allow_empty, samples.classes))
    if whose:
        samples = by_rule(samples, rule, run_dir, say)  # before files are left out: the rule was saved for all of them
    return without_bad(samples, progress) if skip_bad else samples


def reading_of(name: str, options: DataOptions) -> Reading:
    """What a scan is told of the options (E102 of a table where there is none, E104 folders that are not there)."""
    if not spec_of(name).table and (word := "--column" if options.column else "--image-root" if options.image_root else ""):
        raise OctcError("OCT-E102", f"{word} is for tables, and {name} is none", hint="--dataset csv", place=word)
    links = None if options.follow_links is None else _folders(options.follow_links, "--follow-links")
    roots = () if options.image_root is None else _folders(options.image_root, "--image-root")
    return Reading(stated_columns(options.column), roots, links)


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
    """Whether nobody said whose the images are: no file names a patient, no rule was stated, and the source is not known to
    name none."""
    return samples.patient_ids.state == UNKNOWN and not samples.rule and not spec_of(name).nameless


def check_command(name: str, place: Path, options: DataOptions = NOTHING) -> str:
    """The `octc data check` of a data set that was read with options."""
    return f"octc data check {name} --data {shlex.quote(str(place))}{_as_options(options)}"


def _as_options(options: DataOptions) -> str:
    """What says how the data set is read, as words of a command."""
    words = [(name, getattr(options, name)) for name in ("column", "image_root", "follow_links")]
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in words if value is not None)


def refuse_contradictions(samples: Samples, name: str, place: Path, options: DataOptions = NOTHING) -> None:
    """Refuse a data set in which the same bytes have two labels (OctcError E213, every copy named)."""
    if torn := contradicting(samples.items):
        several = any(s.targets is not None for s in samples.items)
        text = f"{len(torn)} images have two labels" if several else f"{len(torn)} images lie under two classes"
        hint = f"keep each under its true class   ({check_command(name, place, options)} lists all)"
        raise OctcError("OCT-E213", text, hint=hint, place=shorten([" = ".join(s.path for s in same) for same in torn]))


def ask_whose(place: Path, run_dir: Path, options: DataOptions = NOTHING) -> OctcError:
    """The question as a refusal (E232), with a command for each of its answers."""
    head = f"octc data patients {shlex.quote(str(place))}{_as_options(options)}"
    if run_dir != Path("runs"):
        head += f" --run-dir {shlex.quote(str(run_dir))}"
    rules = ("--patient-from folder", "--patient-pattern REGEX", "--patients unknown")
    hint = "one of these, once (without --save it is shown):\n" + "\n".join(f"  {head} {rule} --save" for rule in rules)
    return OctcError("OCT-E232", "whose images are these? No file name gives a patient", hint=hint, place=str(place))
