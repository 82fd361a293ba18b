"""The class of a class folder in unclear cases: names that differ in letter case, patient folders instead of class folders,
copies of a whole tree. An unambiguous case is resolved with a warning (OCT-W222); otherwise the tree is refused with a hint."""

from __future__ import annotations

import filecmp
import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from octc.core.errors import OctcError
from octc.datasets.base import Finding
from octc.datasets.parts import Parts
from octc.datasets.tree import COPY, Tree, joined
from octc.machine.cpu import reading_pool

NUMBERED = re.compile(r"(.*?[^\W\d_])[\s_-]*(\d+)")  # folders of the Duke data set: AMD1, AMD2, ..., NORMAL15
PERSON = re.compile(r"(.*?)[\s_-]*\d+(?:[\s_-]*(?:O[DSU]|[RL]E?|right|left))?", re.IGNORECASE)  # P007_OD, 1037
MANY = 12  # numbered folders with one word, or none: more than a disease has grades
SURE, POSSIBLE = 6, 2  # numbered folders per word: fewer could be grades or types, which are classes


@dataclass(frozen=True)
class ClassFolders:
    """Classes of a tree. of: (top folder, class folder) -> class. patients: each folder is a patient. notes: decisions made."""

    names: tuple[str, ...]
    of: Mapping[tuple[str, str], str]
    patients: bool = False
    notes: tuple[Finding, ...] = ()


def plain(name: str) -> str:
    """A class name normalised for comparison: case-folded, underscores as blanks, stripped.

    >>> plain(" Wet_AMD") == plain("wet  amd"), plain("DR+") == plain("DR")
    (True, False)
    """
    return re.sub(r"[\s_]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def class_names(tree: Tree, parts: Parts, given: Sequence[str] | None) -> ClassFolders:
    """Determine the class of each class folder.

    Args:
        given: class names in order, if known.

    Raises:
        OctcError: E206 two folders of one part differ only in letter case, blanks or the encoding of an accent.
    """
    folders = [(top, name) for top, _ in parts.tops for name in tree.inside[top]]
    for top, _ in parts.tops:
        _refuse_twins(tree, top)
        _refuse_nested(tree, top)
    if given is None and (found := _numbered(tree, folders)) is not None:
        return found
    first: dict[str, str] = {plain(name): name for name in given or ()}
    for _, name in folders:
        first.setdefault(plain(name), name)
    of = {(top, name): first[plain(name)] for top, name in folders}
    other = sorted({f"{name} = {one}" for (_, name), one in of.items() if name != one})
    text = f"{len(other)} class folders have another spelling of a class name and are read as that class"
    notes = (
        (Finding("OCT-W222", text, tuple(other), "no action needed; to avoid the warning use one spelling"),) if other else ()
    )
    names = tuple(given) if given is not None else tuple(sorted(set(of.values())))
    return ClassFolders(names, of, notes=(*notes, *(_perhaps_numbered(tree, folders) if given is None else ())))


def _refuse_twins(tree: Tree, top: str) -> None:
    twins: dict[str, list[str]] = defaultdict(list)
    for name in tree.inside[top]:
        twins[plain(name)].append(name)
    if same := next((names for names in twins.values() if len(names) > 1), None):
        place = tree.root / top
        alike = len({unicodedata.normalize("NFC", name) for name in same}) < len(same)
        how = "in the encoding of an accent" if alike else "in letter case or blanks"
        text = f"class folders that differ only {how}: {', '.join(map(ascii if alike else repr, same))}"
        one, other = (shlex.quote(str(place / name)) for name in same[:2])
        hint = f"if they are one class: mv -n {other}/* {one}/ && rmdir {other}; if not: give one of them another name"
        raise OctcError("OCT-E206", text, hint=hint, place=str(place))


def _refuse_nested(tree: Tree, top: str) -> None:
    """Refuse a folder among the class folders that contains the same class folders again, with different content."""
    names = {plain(name) for name in tree.inside[top]}
    for name in tree.inside[top]:
        core = _core(tree, joined(top, name))
        inner = [one for one in tree.inside[core] if plain(one) in names and tree.below.get(joined(core, one))]
        if len(inner) > 1:
            here, there = (shlex.quote(str(tree.root / place)) for place in (top, core))
            text = f"{name} is among the class folders and contains {', '.join(inner)} itself"
            hint = f"--data {there} reads it alone; or move it out of {here}"
            raise OctcError("OCT-E206", text, hint=hint, place=str(tree.root / top))


def _words(tree: Tree, folders: Sequence[tuple[str, str]]) -> dict[str, set[str]] | None:
    """Word -> its numbers, if every folder with images is named WORD NUMBER with several words; else None."""
    found: dict[str, set[str]] = defaultdict(set)
    for top, name in folders:
        if not tree.below.get(joined(top, name)):
            continue
        match = NUMBERED.fullmatch(name)
        if match is None:
            return None
        found[match[1]].add(match[2])
    return found if len(found) > 1 else None


def _numbered(tree: Tree, folders: Sequence[tuple[str, str]]) -> ClassFolders | None:
    words = _words(tree, folders)
    if words is None or min(map(len, words.values())) < SURE:
        return None
    of = {(top, name): match[1] for top, name in folders if (match := NUMBERED.fullmatch(name))}
    text = f"{len(of)} folders are read as patients of {len(words)} classes: {', '.join(sorted(words))}"
    listed = tuple(sorted({name for _, name in of}))
    return ClassFolders(tuple(sorted(words)), of, True, (Finding("OCT-W222", text, listed, "no action needed if they are"),))


def _perhaps_numbered(tree: Tree, folders: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Warnings about folders that are read as classes but may be patients."""
    words = _words(tree, folders)
    full = sorted({name for top, name in folders if tree.below.get(joined(top, name))})
    alike = {match[1].casefold() for name in full if (match := PERSON.fullmatch(name))}
    if len(full) >= MANY and len(alike) == 1 and all(map(PERSON.fullmatch, full)):
        hint = "if they are: put each into a folder of its class, or write labels.csv with path,label,patient"
        text = f"{len(full)} numbered folders are read as one class each, and may be patients or eyes"
        yield Finding("OCT-W222", text, tuple(full), hint)
    elif words is not None and min(map(len, words.values())) >= POSSIBLE:
        listed = tuple(sorted({name for _, name in folders}))
        word = min(words)
        top, name = next(pair for pair in folders if pair[1].startswith(word))
        place, source = shlex.quote(str(tree.root / top / word)), shlex.quote(str(tree.root / top / name))
        hint = f"if they are patients of {', '.join(sorted(words))}: mkdir -p {place} && mv {source} {place}/   (and so on)"
        yield Finding("OCT-W222", f"{len(listed)} numbered folders are read as one class each", listed, hint)


def without_copies(tree: Tree) -> tuple[Tree, str, tuple[Finding, ...]]:
    """Remove folders with identical copies of their sibling folders (an archive that was packed twice).

    Returns: the tree, the folder to read it from, and warnings.
    """
    base = _core(tree, "")
    full = [name for name in tree.inside[base] if tree.below.get(joined(base, name))]
    twice = _siblings(tree, base, full)
    copies = twice or _inside(tree, base, full)
    if not copies:
        return tree, "", ()
    for folder in copies:
        tree = tree.without(folder, COPY)
    text = f"{len(copies)} folders contain identical copies of other folders and are left out"
    note = Finding(
        "OCT-W222", text, tuple(f"{one}/" for one in copies), "no action needed; delete the copies to avoid the warning"
    )
    return tree, _core(tree, "") if twice else "", (note,)


def _core(tree: Tree, folder: str) -> str:
    """The first folder below `folder` (or itself) that has more than one subfolder."""
    while len(names := tree.inside[folder]) == 1 and tree.below.get(joined(folder, names[0])) == tree.below.get(folder):
        folder = joined(folder, names[0])
    return folder


def _siblings(tree: Tree, base: str, full: Sequence[str]) -> list[str]:
    """If all folders of `full` contain the same tree: all of them but the one to read."""
    cores = sorted((_core(tree, joined(base, name)) for name in full), key=lambda core: (core.count("/"), core))
    if len(cores) < 2 or any(len(tree.inside[core]) < 2 for core in cores):
        return []
    first = _listing(tree, cores[0])
    if not all(_same(tree, (cores[0], first), (core, _listing(tree, core))) for core in cores[1:]):
        return []
    kept = cores[0]
    return [
        joined(base, name) for name in full if not (kept == joined(base, name) or kept.startswith(f"{joined(base, name)}/"))
    ]


def _inside(tree: Tree, base: str, full: Sequence[str]) -> list[str]:
    """The folder that contains a copy of everything beside it, if there is one."""
    whole = tree.below.get(base, 0)
    for name in full:
        folder = joined(base, name)
        core = _core(tree, folder)
        if 2 * tree.below[folder] == whole and len(tree.inside[core]) > 1:
            beside = [path for path in _listing(tree, base) if not path.startswith(f"{name}/")]
            if _same(tree, (base, beside), (core, _listing(tree, core))):
                return [folder]
    return []


def _listing(tree: Tree, folder: str) -> list[str]:
    return [path.removeprefix(f"{folder}/") if folder else path for path in tree.under(folder)]


def _same(tree: Tree, one: tuple[str, Sequence[str]], other: tuple[str, Sequence[str]]) -> bool:
    """Whether two folders contain the same subfolders and files, by name and content."""
    names = sorted(one[1])
    if names != sorted(other[1]) or not all("/" in name for name in names):
        return False
    pairs = [(tree.root / one[0] / name, tree.root / other[0] / name) for name in names]
    try:
        if any(a.stat().st_size != b.stat().st_size for a, b in pairs):
            return False
        with reading_pool() as pool:
            return all(pool.map(lambda pair: filecmp.cmp(pair[0], pair[1], shallow=False), pairs))
    except OSError:
        return False
