"""Finds the part folders (train, val, test, in many spellings) and the class folders of a class tree.

    ROOT/CLASS/...        ROOT/PART/CLASS/...        ROOT/ROOT/... (an archive that was unpacked into a folder of its name)

An ambiguous tree is refused with a hint: otherwise a network might learn to tell train from test, or train on test images.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NoReturn

from octc.core.errors import OctcError, shorten
from octc.datasets.tree import Tree, has_folder, joined, litter, names_in

# Spellings of the parts; letter case, separators, digits at the ends and the words of FILLER are ignored.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "train": (
        "train", "trains", "training", "trainings", "trn", "trainval", "trainvalid", "trainvalidation", "trainandval",
        "entrenamiento", "entrainement", "apprentissage", "treino", "treinamento", "addestramento", "eğitim", "обучение",
        "训练", "訓練", "학습",
    ),
    "val": (
        "val", "vals", "valid", "validate", "validating", "validation", "validations", "vld", "vali", "dev", "devel",
        "development", "validierung", "validierungs", "validacion", "validacao", "validazione", "doğrulama", "валидация",
        "验证", "驗證", "検証", "검증",
    ),
    "test": (
        "test", "tests", "testing", "tst", "holdout", "heldout", "prueba", "pruebas", "teste", "prova", "тест", "测试", "測試",
        "テスト", "테스트",
    ),
    "eval": ("eval", "evals", "evaluate", "evaluation"),
}  # fmt: skip
FILLER = (
    "set", "sets", "data", "dataset", "datasets", "daten", "datensatz", "image", "images", "img", "imgs", "pic", "pics",
    "picture", "pictures", "photo", "photos", "oct", "octs", "scan", "scans", "bscan", "bscans", "sample", "samples", "split",
    "subset",
    "part", "partition", "folder", "dir", "files", "cases", "group", "final", "official", "集", "セット", "データ", "用",
)  # fmt: skip
KIND = {word: kind for kind, words in SPELLINGS.items() for word in words}
_FILLED = "(?:" + "|".join(sorted(FILLER, key=len, reverse=True)) + ")*"
_WORD = re.compile(rf"\d*{_FILLED}({'|'.join(sorted(KIND, key=len, reverse=True))}){_FILLED}\d*")
READ_AS = {"train": "train", "val": "train", "test": "test"}  # validation images are drawn again, by patient
# Additions to an archive's name: "set (1)" from a second download, "set-main" from GitHub, "set.zip" from an unpacker.
ARCHIVE = re.compile(r"\s*\(\d+\)$|-(?:main|master)$|\.(?:zip|tar|tgz|tar\.gz|7z|rar)$")
# Names of subfolders that are neither classes nor parts: eyes, and folders for images.
NEUTRAL = frozenset({
    "od", "os", "ou", "right", "left", "r", "l", "re", "le", "eye", "eyes", "image", "images", "img", "imgs", "scan", "scans",
    "bscan", "bscans", "jpg", "jpeg", "png", "tif", "tiff", "bmp",
})  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The location of the class folders.

    Attributes:
        base: folder of the data set relative to the root ("": the root itself).
        tops: (folder that contains the class folders, part that its name denotes or None); "val" is a part here.
    """

    base: str
    tops: tuple[tuple[str, str | None], ...]

    @property
    def split(self) -> bool:
        """Whether the tree has parts."""
        return any(kind for _, kind in self.tops)


def part_of(name: str) -> str | None:
    """The part that a name denotes: "train", "val", "test" or "eval" (val or test); None: no part."""
    found = _WORD.fullmatch(_plain(name))
    return KIND[found[1]] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def parts_of(names: Sequence[str], full: Sequence[str], place: str) -> dict[str, str]:
    """Name -> "train", "val" or "test", for the names that denote a part. full: names of the folders that contain images.

    Raises:
        OctcError: E206 two folders of one part; `eval` without a sibling that determines its meaning.
    """
    kinds = {name: kind for name in names if (kind := part_of(name))}
    kinds = _alike(full) or kinds
    known = set(kinds.values())
    for name in [name for name, kind in kinds.items() if kind == "eval"]:
        if known >= {"val", "test"}:
            raise _refused(
                f"{name} lies beside a validation and a test part", f"move it out of {place}, or rename the others", place
            )
        if not known & {"val", "test"}:
            hint = f"mv {_quoted(place, name)} {_quoted(place, 'test')}   (or val: it is then read as train)"
            raise _refused(f"{name} may be the validation or the test part", hint, place)
        kinds[name] = "val" if "test" in known else "test"
    for kind in READ_AS:
        if len(same := [name for name in kinds if kinds[name] == kind]) > 1:
            text = f"{len(same)} folders are spelt as the {kind} part: {shorten(same)}"
            raise _refused(text, "put their class folders into one of them, or move the others out of the data set", place)
    return kinds


def part_folders(place: Path, prefix: str = "") -> dict[str, str]:
    """ "train", "val", "test" -> name of the subfolder for that part (after `prefix`); {} if the folder cannot be listed.

    For layouts with one folder of lists per part, and for recognising a layout. Nothing is refused here: of two folders for one
    part, the one with the exact name is used.
    """
    names = [name.removeprefix(prefix) for name in names_in(place) if name.startswith(prefix) and has_folder(place / name)]
    names = [name for name in names if not litter(name)]
    found = {kind: prefix + name for name in reversed(names) if (kind := part_of(name)) in READ_AS}
    return {**found, **{kind: prefix + kind for kind in READ_AS if kind in names}}


def _alike(names: Sequence[str]) -> dict[str, str]:
    """Parts whose names share the same additional words: kermany_train, kermany_test."""
    found = {name: words for name in names if (words := _words(name))}
    rests = {" ".join(rest).casefold() for _, rest in found.values()}
    kinds = {name: kind for name, (kind, _) in found.items()}
    alike = len(found) > 1 and len(rests) == 1 and len(found) == len(names) and {"train"} < set(kinds.values())
    return kinds if alike else {}


def _words(name: str) -> tuple[str, list[str]] | None:
    """The part denoted by one word of a name, and the other words; None if no word, or more than one, denotes a part."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words = [word for word in re.split(r"[\W_]+", spaced) if word]
    kinds = [KIND[word.casefold()] for word in words if word.casefold() in KIND]
    return (kinds[0], [word for word in words if word.casefold() not in KIND]) if len(kinds) == 1 else None


def read_parts(tree: Tree, base: str = "") -> Parts:
    """Find the parts and class folders of a tree, starting at the folder `base`.

    Raises:
        OctcError: E206 part folders beside other folders with images, no training part, two folders of one part, parts below
            classes, class folders that all contain the same subfolders, a single folder that may be a class or a wrapper.
    """
    names = tree.inside[base]
    place = str(tree.root / base)
    full = [name for name in names if tree.below.get(joined(base, name))]
    if kinds := parts_of(names, full, place):
        return Parts(base, tuple(_tops(tree, base, kinds)))
    _refuse_joined(tree, base)
    if len(names) == 1 and (inner := tree.inside[joined(base, names[0])]):
        return _inner(tree, base, names[0], inner)
    return Parts(base, ((base, None),))


def _tops(tree: Tree, base: str, kinds: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """The part folders, train first."""
    place = str(tree.root / base)
    beside = [name for name in tree.inside[base] if name not in kinds and tree.below.get(joined(base, name))]
    listed = ", ".join(kinds)
    if beside:
        text = f"folders of parts ({listed}) and other folders with images ({shorten(beside)}) lie side by side"
        hint = (
            f"move {shorten(beside)} into the parts (PART/CLASS/IMAGE) or out of {place}; no class may be called as a part is"
        )
        raise _refused(text, hint, place)
    if "train" not in kinds.values():
        text = f"no training part beside {listed}"
        raise _refused(
            text, f"rename the folder of the training images: mv {_quoted(place, 'NAME')} {_quoted(place, 'train')}", place
        )
    for kind in READ_AS:
        for name in kinds:
            if kinds[name] == kind:
                yield _unwrapped(tree, joined(base, name), kind), kind


def _unwrapped(tree: Tree, top: str, kind: str) -> str:
    """The inner folder of train/train/CLASS: an archive that was unpacked into a folder of its own name."""
    while len(names := tree.inside[top]) == 1 and part_of(names[0]) == kind:
        top = joined(top, names[0])
    if deeper := [name for name in tree.inside[top] if part_of(name) and tree.below.get(joined(top, name))]:
        place = str(tree.root / top)
        raise _refused(
            f"folders of parts inside a part: {shorten([joined(top, name) for name in deeper])}", f"--data {place}", place
        )
    return top


def _inner(tree: Tree, base: str, name: str, inner: Sequence[str]) -> Parts:
    """Handle a single folder: a wrapper, if its name or its parts show that; otherwise it may be a class and is refused."""
    deep, above = base, (tree.root.resolve() / base).name
    doubled = ""
    while len(tree.inside[deep]) == 1 and tree.inside[joined(deep, tree.inside[deep][0])]:
        below = tree.inside[deep][0]
        deep = joined(deep, below)
        if any(map(part_of, tree.inside[deep])) or _alike(tree.inside[deep]):
            return read_parts(tree, deep)
        doubled = deep if _plain(ARCHIVE.sub("", above)) == _plain(ARCHIVE.sub("", below)) else doubled
        above = below
    if doubled:
        return read_parts(tree, doubled)
    place = str(tree.root / base)
    text = f"one folder alone in {place}: {name}, which holds {shorten(inner, 5, 'folders')}"
    hint = (
        f"if those are the classes: --data {shlex.quote(str(tree.root / joined(base, name)))}; at least two classes are needed"
    )
    raise _refused(text, hint, place)


def _refuse_joined(tree: Tree, base: str) -> None:
    """Refuse names that join part and class: train_CNV, test_CNV."""
    found = {n: words for n in tree.inside[base] if tree.below.get(joined(base, n)) and (words := _words(n))}
    kinds = {kind for kind, _ in found.values()}
    if "train" in kinds and len(kinds) > 1:
        place = str(tree.root / base)
        name, (kind, rest) = next(iter(found.items()))
        into = _quoted(place, f"{kind}/{'_'.join(rest) or 'CLASS'}")
        hint = f"mkdir -p {_quoted(place, kind)} && mv {_quoted(place, name)} {into}   (and so on: PART/CLASS/IMAGE)"
        raise _refused(f"folder names join parts and classes: {shorten(list(found))}", hint, place)


def check_no_parts(tree: Tree, top: str) -> None:
    """Refuse class folders that contain parts (OctcError E206)."""
    full = [name for name in tree.inside[top] if tree.below.get(joined(top, name))]
    below = {name: [f for f in tree.folders_under(joined(top, name)) if part_of(f.rpartition("/")[2])] for name in full}
    if any(below.values()):
        _refuse_below(tree, top, {name: found for name, found in below.items() if found})


def check_classes(tree: Tree, top: str, names: Sequence[str]) -> None:
    """Refuse class folders that all contain the same subfolders: those may be the classes (OctcError E206)."""
    place = str(tree.root / top)
    full = [name for name in names if tree.below.get(joined(top, name))]
    if len(full) < 2:
        return
    if same := _same(tree, top, full):
        text = f"the folders {shorten(full)} all hold the folders {shorten(same)}: which are the classes is not clear"
        first = shlex.quote(str(tree.root / joined(top, full[0])))
        hint = (
            f"if {shorten(same, 4, 'more')} are the classes and {shorten(full, 2, 'more')} patients: {_as_table(tree, top)}; "
            f"or --data {first} for one of them, or name them train and test; "
            f"if {shorten(full, 4, 'more')} are: give the sub-folders other names in each class, or name each image "
            f"in {tree.root}/labels.csv"
        )
        raise _refused(text, hint, place)


def _as_table(tree: Tree, top: str) -> str:
    """A shell command that writes labels.csv for a tree PATIENT/CLASS/..."""
    endings = sorted({image.rpartition(".")[2] for image in tree.under(top)})
    names = " -o ".join(f"-name '*.{one}'" for one in endings)
    write = """awk -F/ 'BEGIN { print "path,label,patient" } { printf "\\"%s\\",%s,%s\\n", substr($0, 3), $3, $2 }'"""
    place = shlex.quote(str(tree.root / top))
    return f"(cd {place} && find . -mindepth 3 -type f \\( {names} \\) | sort | {write} > labels.csv)"


def _same(tree: Tree, top: str, full: Sequence[str]) -> list[str]:
    """Names of subfolders which indicate that the folders above them are not classes.

    Names without digits count if every folder has two of them that also occur in other folders. Numbers and ids count only if
    all folders contain exactly the same ones, because a patient may be in several classes, or numbered per class.
    """
    held: dict[str, set[str]] = {}
    seen: dict[str, set[str]] = defaultdict(set)
    spelt: dict[str, str] = {}
    for name in full:
        folder = joined(top, name)
        subs = [sub for sub in tree.inside[folder] if tree.below.get(joined(folder, sub))]
        held[name] = {sub.casefold() for sub in subs}
        for sub in subs:
            seen[sub.casefold()].add(name)
            spelt.setdefault(sub.casefold(), sub)
    again = sorted(sub for sub, holders in seen.items() if len(holders) > 1)
    words = [sub for sub in again if not any(sign.isdigit() for sign in sub)]
    in_all = all(len(one & {*words}) > 1 for one in held.values())
    if in_all and not {_plain(sub) for sub in words} <= NEUTRAL:
        return [spelt[sub] for sub in words]
    first, *others = held.values()
    identical = len(first) > 1 and all(one == first for one in others)
    return [spelt[sub] for sub in sorted(first)] if identical and not {_plain(sub) for sub in first} <= NEUTRAL else []


def _refuse_below(tree: Tree, top: str, below: Mapping[str, Sequence[str]]) -> NoReturn:
    """Refuse parts below classes, or several data sets side by side."""
    place = str(tree.root / top)
    some = [folder for found in below.values() for folder in found]
    if own := [name for name in below if _is_set(tree, joined(top, name))]:
        counts = " and ".join(str(tree.below[joined(top, name)]) for name in own)
        text = f"{shorten(own)} hold parts with class folders in them ({shorten(some, 3, 'more')}; {counts} images): "
        text += "each is a data set of its own"
        raise _refused(text, f"--data {shlex.quote(str(tree.root / joined(top, own[0])))}", place)
    text = f"folders of parts inside class folders: {shorten(some, 6, 'more')}; octc reads PART/CLASS/IMAGE"
    name, part = next(iter(below)), some[0].rpartition("/")[2]
    hint = (
        f"mkdir -p {_quoted(place, part)} && mv {shlex.quote(str(tree.root / some[0]))} {_quoted(place, f'{part}/{name}')}"
        "   (and so on for each class and part)"
    )
    raise _refused(text, hint, place)


def _is_set(tree: Tree, folder: str) -> bool:
    """Whether two parts in a folder contain folders of the same names, as those of a data set with classes do."""
    held = [set(tree.inside[joined(folder, name)]) for name in tree.inside[folder] if part_of(name)]
    return any(len(one & other) > 1 for one, other in combinations(held, 2))


def _quoted(place: str, name: str) -> str:
    return shlex.quote(str(Path(place) / name))


def _refused(text: str, hint: str, place: str) -> OctcError:
    return OctcError("OCT-E206", text, hint=hint, place=place)
