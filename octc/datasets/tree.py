"""One walk for every command that reads a folder of images: what is an image by its name, what is left out and why, and which
folders could not be entered. Nothing is decoded here."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from octc.core.errors import OctcError, combined, shorten
from octc.core.files import closed_folder
from octc.imaging.decode import SUFFIXES

HIDDEN, DEBRIS, THUMBNAIL = "hidden", "debris", "thumbnail"
LINK, LOST, SPECIAL, BARE = "link to a folder", "link that leads nowhere", "no regular file", "no ending"
AGAIN = "link to a folder that is read already"
COPY = "the same tree again"
# What systems, file servers and editors leave in folders of people, in lower case. None of it is a class or an image.
LITTER = frozenset({
    "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder", "icon\r",  # macOS
    "$recycle.bin", "recycler", "recycled", "recycle.bin", "system volume information", "desktop.ini", "ehthumbs.db",
    "ehthumbs_vista.db", "thumbs.db", "$av_asw", "msocache", "config.msi", "indexervolumeguid", "wpsettings.dat",  # Windows
    "lost+found", "nohup.out",  # Linux
    "@eadir", "@recycle", "@recycle bin", "@recently-snapshot", "@tmp", "@sharebin", "#recycle", "#snapshot", "~snapshot",
    "recycle bin", "recyclebin", "recycle",  # file servers
    "__pycache__", "_gsdata_", "lightroom previews.lrdata", "zbthumbnail.info", "picasa.ini", "pspbrwse.jbf",  # programs
})  # fmt: skip
LITTER_NAME = re.compile(
    r"(?:found\.\d{3}|\$recycle\.bin.*|.+@syno(?:eastream|resource)|~\$.*|.*\.(?:tmp|part|crdownload))", re.I | re.DOTALL
)
THUMB = re.compile(r"(?:.*[\W_])?(?:thumb|thumbs|thumbnail|thumbnails)(?:[\W_].*)?", re.I | re.DOTALL)
# Files beside the images of a data set that nobody takes for one of them.
DOCUMENTS = frozenset({
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".md", ".rst", ".html", ".htm", ".pdf", ".doc", ".docx", ".odt", ".rtf",
    ".xls", ".xlsx", ".ods", ".ppt", ".pptx", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".py", ".ipynb", ".sh", ".bat",
    ".ps1", ".r", ".m", ".bib", ".tex", ".md5", ".sha1", ".sha256", ".sha512", ".url", ".lnk", ".css", ".js", ".db", ".sqlite",
})  # fmt: skip
PAPERS = frozenset(
    {"readme", "license", "licence", "copying", "notice", "authors", "changelog", "makefile", "sha256sums", "md5sums"}
)
ENDING = re.compile(r"\.[A-Za-z0-9_-]{1,12}")


@dataclass(frozen=True)
class Left:
    """What was not taken: its path below the root (a folder's ends with "/"), and why, in one or two words."""

    path: str
    why: str

    def __fspath__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Tree:
    """A folder that was walked through. Paths are relative to `root`, with forward slashes; "" is the root itself.

    Attributes:
        images: files with the ending of an image, folder by folder: those of a folder in order of their names, then its
            sub-folders.
        inside: folder -> names of the folders in it, sorted; litter and links are not among them.
        below: folder -> how many images it and its sub-folders hold.
        left: files and folders that were not taken.
        links: every link that is not litter. Links to folders are followed where that was asked for.
        closed: folders that could not be read (to their end), and what the system said.
        allowed: where links may lead, resolved; the root is among them.
    """

    root: Path
    images: tuple[str, ...]
    inside: Mapping[str, tuple[str, ...]]
    below: Mapping[str, int]
    left: tuple[Left, ...]
    links: tuple[str, ...]
    closed: tuple[tuple[str, str], ...]
    allowed: tuple[Path, ...] = ()

    def check_link(self, path: str) -> None:
        """Refuse a path that leads out of where links may lead, or nowhere (OctcError E205)."""
        whole = self.root / path
        target = _target(whole)
        if _leads_into(target, self.allowed) and (whole.exists() or whole.suffix.lower() not in SUFFIXES):
            return
        hint = "copy the file into the data set"
        if target is not None and whole.exists():
            place = target if target.is_dir() else target.parent
            hint += f", or allow its place: --follow-links {shlex.quote(str(place))}"
        raise OctcError("OCT-E205", "link leaves the data set, or leads nowhere", hint=hint, place=str(whole))

    def without(self, folder: str, why: str) -> Tree:
        """The same walk, but a folder was left out."""
        inside = {
            place: tuple(name for name in names if joined(place, name) != folder)
            for place, names in self.inside.items()
            if not is_under(place, folder)
        }
        images = tuple(path for path in self.images if not is_under(path, folder))
        left = (*(one for one in self.left if not is_under(one.path.rstrip("/"), folder)), Left(f"{folder}/", why))
        links = tuple(path for path in self.links if not is_under(path, folder))
        return replace(self, images=images, inside=inside, below=_below(images), left=left, links=links)

    def under(self, folder: str) -> Iterator[str]:
        """The images of a folder and of its sub-folders."""
        return (path for path in self.images if is_under(path, folder))

    def folders_under(self, folder: str) -> Iterator[str]:
        """Every folder below another one."""
        return (path for path in self.inside if path != folder and is_under(path, folder))

    def left_under(self, folder: str) -> list[Left]:
        """What was not taken of a folder."""
        return [one for one in self.left if is_under(one.path, folder)]


def is_under(path: str, folder: str) -> bool:
    """Whether a path lies in a folder (which lies in itself); both relative to one root."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def joined(folder: str, name: str) -> str:
    """A name in a folder, relative to the root that both are of."""
    return f"{folder}/{name}" if folder else name


def is_folder(path: Path) -> bool:
    """Whether a folder is there (OctcError E231 where the system does not let that be seen: no permission, a loop, ...)."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise closed_error(path, [(".", str(error.strerror))]) from error
    except ValueError:  # a zero byte in the name
        return False


def has_file(path: Path) -> bool:
    """Whether a file is there and may be seen; unlike `Path.is_file` it never raises."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def has_folder(path: Path) -> bool:
    """Whether a folder is there and may be seen; unlike `Path.is_dir` it never raises."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def names_in(folder: Path) -> list[str]:
    """Names in a folder, sorted, as far as it can be read: for telling what a folder is, before it is walked through."""
    return [entry.name for entry in _entries(folder)[0]]


def _target(path: Path) -> Path | None:
    """Where a path leads in the end; None for a circle."""
    try:
        return path.resolve(strict=False)
    except (OSError, RuntimeError):
        return None


def _leads_into(target: Path | None, allowed: Sequence[Path]) -> bool:
    return target is not None and any(target.is_relative_to(folder) for folder in allowed)


def scan_tree(root: Path, links: Sequence[Path] | None = None, starts: Sequence[str] = ("",)) -> Tree:
    """Walk a folder to its end. A folder that cannot be read is noted in `closed`, and the walk goes on.

    Args:
        links: folders that links to folders may lead into, beside the root; None: they are not followed. They are followed
            last, and no folder is read twice, so that a circle ends where it closes.
        starts: folders below the root, relative to it, that are walked through instead of all of it.
    """
    walk = _Walk(root, tuple(one for one in map(_target, (root, *(links or ()))) if one is not None), links is not None)
    waiting, linked = list(reversed(starts)), deque[str]()
    while waiting or linked:
        if waiting:
            folders, later = walk.enter(waiting.pop())
            waiting += reversed(folders)
            linked += later
        elif walk.follows(path := linked.popleft()):
            waiting.append(path)
    return walk.tree()


@dataclass
class _Walk:
    """What a walk has found so far."""

    root: Path
    allowed: tuple[Path, ...]
    follow: bool
    images: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    inside: dict[str, list[str]] = field(default_factory=dict)
    seen: set[Path | None] = field(default_factory=set)

    def enter(self, folder: str) -> tuple[list[str], list[str]]:
        """Take what lies in a folder. Gives its sub-folders, and the links to folders that are to be followed."""
        if self.follow and (real := _target(self.root / folder)) in self.seen:
            self.left.append(Left(f"{folder}/", AGAIN))
            return [], []
        if self.follow:
            self.seen.add(real)
        self.inside[folder] = []
        if folder:
            parent, _, name = folder.rpartition("/")
            self.inside.setdefault(parent, []).append(name)
        folders: list[str] = []
        later: list[str] = []
        entries, failure = _entries(self.root / folder if folder else self.root)
        if failure:
            self.closed.append((folder or ".", failure))
        for entry in entries:
            path = joined(folder, entry.name)
            kind, why = _sort(entry)
            if kind == "folder":
                folders.append(path)
            elif kind == "image":
                self.images.append(path)
            elif why == LINK and self.follow:
                later.append(path)
            else:
                self.left.append(Left(path + ("/" if kind == "left folder" else ""), why))
            if why not in (HIDDEN, DEBRIS, THUMBNAIL) and entry.is_symlink():
                self.links.append(path)
        return folders, later

    def follows(self, path: str) -> bool:
        """Whether a link to a folder is to be walked through; else it is left out, and why."""
        target = _target(self.root / path)
        if _leads_into(target, self.allowed) and target not in self.seen:
            return True
        self.left.append(Left(f"{path}/", AGAIN if target in self.seen else LINK))
        return False

    def tree(self) -> Tree:
        """All of it."""
        below = _below(self.images)
        inside = {folder: tuple(sorted(names)) for folder, names in self.inside.items()}
        lists = tuple(self.images), inside, below, tuple(self.left), tuple(self.links), tuple(self.closed)
        return Tree(self.root, *lists, self.allowed)


def _below(images: Iterable[str]) -> Counter[str]:
    """Folder -> how many images it and its sub-folders hold."""
    below: Counter[str] = Counter()
    for image in images:
        folder = image
        while folder:
            folder = folder.rpartition("/")[0]
            below[folder] += 1
    return below


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], str]:
    """The entries of a folder by name, as many as could be read, and why not all of them ("" if they are all)."""
    found: list[os.DirEntry[str]] = []
    why = ""
    try:
        with os.scandir(folder) as entries:
            found.extend(entries)
    except OSError as error:
        why = error.strerror or str(error)
    return sorted(found, key=lambda entry: entry.name), why


def scan_images(folder: Path) -> tuple[list[Path], str]:
    """The images in a folder, without its sub-folders, and why they may not be all ("" if they are)."""
    entries, why = _entries(folder)
    return [folder / entry.name for entry in entries if _sort(entry)[0] == "image"], why


def scan_folder(folder: Path) -> tuple[list[str], list[Left], list[str], str]:
    """One folder alone: names of its images, the rest that is no litter, names of its folders, and why these may not be all."""
    entries, why = _entries(folder)
    images: list[str] = []
    others: list[Left] = []
    folders: list[str] = []
    for entry in entries:
        kind, reason = _sort(entry)
        if kind == "folder":
            folders.append(entry.name)
        elif kind == "image":
            images.append(entry.name)
        elif reason not in (HIDDEN, DEBRIS, THUMBNAIL):
            others.append(Left(entry.name, reason))
    return images, others, folders, why


def _sort(entry: os.DirEntry[str]) -> tuple[str, str]:
    """("folder" | "image", "") of what is taken, ("left" | "left folder", why) of the rest."""
    try:
        folder = entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where nothing may be seen
        folder = False
    if why := litter(entry.name):
        return "left folder" if folder else "left", why
    if folder:
        return ("left folder", LINK) if entry.is_symlink() else ("folder", "")
    suffix = PurePosixPath(entry.name).suffix.lower()
    try:
        regular = entry.is_file() or stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # an image by its name stays one: whoever reads it says why it cannot be read
        if suffix not in SUFFIXES and entry.is_symlink():
            return "left", LOST
        regular = True
    if suffix not in SUFFIXES:
        return "left", suffix if ENDING.fullmatch(suffix) else BARE
    return ("image", "") if regular else ("left", SPECIAL)


def litter(name: str) -> str:
    """Why a file or folder of this name is no part of a data set ("" where nothing says so)."""
    low = name.casefold()
    if name.startswith("."):
        return HIDDEN
    if low in LITTER or LITTER_NAME.fullmatch(low):
        return DEBRIS
    return THUMBNAIL if THUMB.fullmatch(PurePosixPath(low).stem) else ""


def closed_error(root: Path, closed: Sequence[tuple[str, str]]) -> OctcError:
    """E231 of the folders below `root` that could not be read, one error for each."""
    errors = [closed_folder(root if folder == "." else root / folder, why) for folder, why in closed]
    return combined(errors)


def open_tree(root: Path, links: Sequence[Path] | None = None, starts: Sequence[str] = ("",)) -> Tree:
    """`scan_tree` of a folder that must be there and readable to its last sub-folder.

    Raises:
        OctcError: E230 no folder, E231 folders that cannot be read, all of them named.
    """
    if not is_folder(root):
        raise OctcError("OCT-E230", f"no folder at {root}", hint="--data DIR", place=str(root))
    tree = scan_tree(root, links, starts)
    if tree.closed:
        raise closed_error(root, tree.closed)
    return tree


def scan_words(words: Sequence[str], also: Callable[[Path], bool] | None = None) -> tuple[list[Path], list[Left]]:
    """Files and folders that were named -> the files to read, in order, and what the folders hold besides.

    A file that is named itself is always taken. A folder that cannot be read is among the files: reading it says why (E231), so
    that it is counted and named like a file that cannot be read.

    Args:
        also: of a file in a folder that has no image's ending, whether it is taken too.

    Raises:
        OctcError: E201 a folder without an image.
    """
    paths: list[Path] = []
    left: list[Left] = []
    for word in words:
        folder = Path(word)
        if not has_folder(folder):  # also where the system does not let that be seen: reading it says why
            paths.append(folder)
            continue
        tree = scan_tree(folder)
        more = [
            one
            for one in tree.left
            if also is not None and one.why not in (HIDDEN, DEBRIS, THUMBNAIL) and also(folder / one.path)
        ]
        left_here = [one for one in tree.left if one not in more]
        found = [*sorted([*tree.images, *(one.path for one in more)] if more else tree.images, key=_as_walked)]
        found += [name for name, _ in tree.closed]
        if not found:
            text = "no image in this folder" + (f"; left out: {words_left(tree.left)}" if tree.left else "")
            hint = "images end in .png, .jpg, .tif, .bmp or .webp; an artifact holds artifact.json"
            raise OctcError("OCT-E201", text, hint=hint, place=word)
        paths += [folder / name for name in found]
        left += [Left(str(folder / one.path) + ("/" if one.path.endswith("/") else ""), one.why) for one in left_here]
    return paths, left


def _as_walked(path: str) -> tuple[tuple[bool, str], ...]:
    """The order of a walk: the files of a folder by name, then its sub-folders."""
    parts = path.split("/")
    return tuple((place < len(parts) - 1, part) for place, part in enumerate(parts))


def may_be_image(left: Left) -> bool:
    """Whether somebody could miss what was left out: not so for litter and documents."""
    if left.why == BARE:
        return left.path.rpartition("/")[2].casefold() not in PAPERS
    return left.why not in (HIDDEN, DEBRIS, THUMBNAIL, COPY, *DOCUMENTS)


def count_left(left: Iterable[Left]) -> dict[str, int]:
    """Why -> how many, the most frequent first."""
    counts = Counter(one.why for one in left)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def words_left(left: Sequence[Left], most: int = 5) -> str:
    """What was left out in one line: how many of each kind, and the first of them by name. "nothing" for nothing."""
    if not left:
        return "nothing"
    counts = ", ".join(f"{count} {why}" for why, count in count_left(left).items())
    named = shorten([one.path.replace("\n", "\\n") for one in left], most)
    return f"{counts} ({named})"
