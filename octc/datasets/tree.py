"""One walk for every command that reads a folder of images: what is an image by its name, what is left out and why, and which
folders could not be entered. Nothing is decoded here."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from octc.core.errors import OctcError, Several, shorten
from octc.core.files import closed_folder
from octc.imaging.preprocess import SUFFIXES

HIDDEN, DEBRIS, THUMBNAIL = "hidden", "debris", "thumbnail"
LINK, LOST, SPECIAL, BARE = "link to a folder", "link that leads nowhere", "no regular file", "no ending"
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
        links: every link that is not litter. Links to folders are not followed.
        closed: folders that could not be read (to their end), and what the system said.
    """

    root: Path
    images: tuple[str, ...]
    inside: Mapping[str, tuple[str, ...]]
    below: Mapping[str, int]
    left: tuple[Left, ...]
    links: tuple[str, ...]
    closed: tuple[tuple[str, str], ...]

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


def scan_tree(root: Path) -> Tree:
    """Walk a folder to its end. A folder that cannot be read is noted in `closed`, and the walk goes on."""
    images: list[str] = []
    left: list[Left] = []
    links: list[str] = []
    closed: list[tuple[str, str]] = []
    inside: dict[str, tuple[str, ...]] = {}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        folders: list[str] = []
        entries, failure = _entries(root / folder if folder else root)
        if failure:
            closed.append((folder or ".", failure))
        for entry in entries:
            path = joined(folder, entry.name)
            kind, why = _sort(entry)
            if kind == "folder":
                folders.append(entry.name)
            elif kind == "image":
                images.append(path)
            else:
                left.append(Left(path + ("/" if kind == "left folder" else ""), why))
            if why not in (HIDDEN, DEBRIS, THUMBNAIL) and entry.is_symlink():
                links.append(path)
        inside[folder] = tuple(folders)
        waiting += [joined(folder, name) for name in reversed(folders)]
    below: Counter[str] = Counter()
    for image in images:
        folder = image
        while folder:
            folder = folder.rpartition("/")[0]
            below[folder] += 1
    return Tree(root, tuple(images), inside, below, tuple(left), tuple(links), tuple(closed))


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
    return errors[0] if len(errors) == 1 else Several(errors)


def open_tree(root: Path) -> Tree:
    """`scan_tree` of a folder that must be there and readable to its last sub-folder.

    Raises:
        OctcError: E230 no folder, E231 folders that cannot be read, all of them named.
    """
    if not is_folder(root):
        raise OctcError("OCT-E230", f"no folder at {root}", hint="--data DIR", place=str(root))
    tree = scan_tree(root)
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
            hint = "images end in .png, .jpg, .tif or .bmp; an artifact holds artifact.json"
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
    return left.why not in (HIDDEN, DEBRIS, THUMBNAIL, *DOCUMENTS)


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
