"""Files and folders that are whole or not there, whatever ends the process that writes them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octc.core import files
from octc.core.errors import OctcError
from octc.core.files import (
    TEMPORARY,
    at_free_name,
    canonical_json,
    entries,
    publishing,
    read_json,
    replacing,
    sha256_bytes,
    sha256_file,
    stamped,
    write_bytes,
    write_json,
)  # fmt: skip
from octc.store.runs import artifact_folders, scan_runs


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sums(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_a_stamped_name_is_one_that_nothing_has(tmp_path: Path) -> None:
    made = []
    for _ in range(3):
        made.append(stamped(tmp_path, "word"))
        made[-1].mkdir()
    assert len({path.name for path in made}) == 3
    assert all(path.name.startswith("word-2") for path in made)


def test_of_two_reports_of_one_second_each_has_a_name_of_its_own(tmp_path: Path) -> None:
    """The one that ended later was refused (E106) after all of its work, for a name that nobody had given."""
    tries = []

    def write(folder: Path) -> str:
        with publishing(folder) as new:
            write_bytes(new / "page.html", b"mine")
            if not tries:
                folder.mkdir()  # by another process, while this one writes
                (folder / "page.html").write_bytes(b"theirs")
            tries.append(folder)
        return "written"

    path, word = at_free_name(lambda: stamped(tmp_path, "report"), write)
    assert (word, (path / "page.html").read_bytes()) == ("written", b"mine")
    assert (len(tries), (tries[0] / "page.html").read_bytes()) == (2, b"theirs")


def test_entries_of_a_folder_that_cannot_be_read_are_not_missing(tmp_path: Path) -> None:
    """A loop of links, because root reads what permissions forbid."""
    (tmp_path / "b").write_text("")
    (tmp_path / "a").mkdir()
    assert entries(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert entries(tmp_path / "none") == entries(tmp_path / "b") == []
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    for scan in (entries, scan_runs, artifact_folders):
        with pytest.raises(OctcError) as caught:
            scan(tmp_path / "one")
        assert (caught.value.code, caught.value.exit_code) == ("OCT-E231", 3)
        assert caught.value.place == str(tmp_path / "one")


def test_one_spelling_of_json() -> None:
    assert canonical_json({"b": 1, "a": ["é", None]}) == '{"a":["é",null],"b":1}'.encode()
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
    assert canonical_json("\udcff")  # a file name with a stray byte
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_replacing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.txt"
    write_bytes(path, b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            assert path.read_bytes() == b"old"
            assert temporary.parent == path.parent
            assert temporary.name.startswith(TEMPORARY)
            raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"):
        fail()
    assert path.read_bytes() == b"old"
    assert names(path.parent) == ["a.txt"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_json_round_trip_and_what_json_has_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"name": "眼\udce9", "numbers": [1, 2.5, None]}
    write_json(path, value)
    assert read_json(path) == value
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"x": float("inf")})
    assert read_json(path) == value
    assert names(tmp_path) == ["a.json"]


def test_publishing_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "out" / "artifact"
    with publishing(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("1")
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "1"
    assert names(target.parent) == ["artifact"]


def test_what_another_process_published_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "report"

    def written() -> None:
        with publishing(target) as mine:
            (mine / "a").write_text("mine")
            target.mkdir()
            (target / "a").write_text("theirs")

    with pytest.raises(OctcError) as caught:
        written()
    assert (caught.value.code, (target / "a").read_text(), names(tmp_path)) == ("OCT-E106", "theirs", ["report"])


def test_x14_an_output_that_exists_is_refused_and_force_swaps(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    with publishing(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(OctcError) as caught, publishing(target):
        pass
    assert caught.value.code == "OCT-E106"
    assert "--force" in caught.value.hint
    with publishing(target, force=True) as folder:
        (folder / "b").write_text("new")
        assert (target / "a").read_text() == "old"
    assert names(target) == ["b"]
    assert names(tmp_path) == ["artifact"]


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path: Path, force: bool) -> None:
    target = tmp_path / "artifact"
    if force:
        with publishing(target) as folder:
            (folder / "a").write_text("old")

    def fail() -> None:
        with publishing(target, force=force) as folder:
            (folder / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == (["artifact"] if force else [])
    assert not force or (target / "a").read_text() == "old"


WRITER = """
import sys, time
from pathlib import Path
from octc.core.files import {kind}
with {kind}(Path({target!r}), **{more!r}) as place:
    inside = place / "a" if {kind!r} == "publishing" else place
    inside.write_bytes(b"half")
    Path({target!r} + ".started").touch()
    time.sleep(60)
"""


@pytest.mark.parametrize(("kind", "more"), [("replacing", {}), ("publishing", {"force": True})])
def test_a_killed_writer_leaves_the_old_one_intact_and_the_next_one_succeeds(
    kind: str, more: dict[str, bool], tmp_path: Path
) -> None:
    target = tmp_path / "thing"
    if kind == "publishing":
        target.mkdir()
        (target / "a").write_text("old")
    else:
        target.write_text("old")
    writer = subprocess.Popen([sys.executable, "-c", WRITER.format(kind=kind, target=str(target), more=more)])
    end = time.monotonic() + 30
    while not Path(f"{target}.started").exists() and time.monotonic() < end:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait(30)
    old = (target / "a" if kind == "publishing" else target).read_text()
    assert old == "old"
    left = [name for name in names(tmp_path) if name not in ("thing", "thing.started")]
    assert all(name.startswith(TEMPORARY) for name in left)  # which every scan passes over
    if kind == "publishing":
        with publishing(target, force=True) as folder:
            (folder / "a").write_text("new")
        assert (target / "a").read_text() == "new"
    else:
        write_bytes(target, b"new")
        assert target.read_text() == "new"


ENDS = """
import os, signal
from pathlib import Path
from octc.core import files
target = Path({target!r})
def killed(*_): os.kill(os.getpid(), signal.SIGKILL)
if {exchange}:
    Path.rename = killed  # the folder is never without its name
else:
    files._exchanged = lambda *_: False
files.{function} = killed
with files.publishing(target, force=True) as folder:
    (folder / "a").write_text("new")
"""


@pytest.mark.parametrize(
    ("function", "exchange", "there"), [("sync_folder", True, "new"), ("sync_folder", False, "new"), ("_remove", True, "old")]
)
def test_a_folder_that_is_replaced_is_the_old_or_the_new_one_whenever_its_writer_is_killed(
    function: str, exchange: bool, there: str, tmp_path: Path
) -> None:
    probe = tmp_path / "probe"
    for name in ("one", "other"):
        (probe / name).mkdir(parents=True)
    if exchange and not files._exchanged(probe / "one", probe / "other"):
        pytest.skip("this file system cannot exchange two folders (renameat2)")
    target = tmp_path / "here" / "artifact"
    target.mkdir(parents=True)
    (target / "a").write_text("old")
    script = ENDS.format(target=str(target), function=function, exchange=exchange)
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert (target / "a").read_text() == there
    files.remove_leftovers(target.parent)
    assert names(target.parent) == ["artifact"]
    assert (target / "a").read_text() == there


@pytest.mark.parametrize("exchange", [True, False])
def test_a_link_that_is_replaced_by_a_folder_is_gone_and_what_it_names_stays(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchanged", lambda *_: False)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text("old")
    (tmp_path / "artifact").symlink_to("elsewhere")
    with publishing(tmp_path / "artifact", force=True) as folder:
        (folder / "a").write_text("new")
    assert names(tmp_path) == ["artifact", "elsewhere"]
    assert (tmp_path / "artifact" / "a").read_text() == "new"
    assert (tmp_path / "elsewhere" / "a").read_text() == "old"


def test_a_link_to_nothing_is_an_output_that_exists(tmp_path: Path) -> None:
    link = tmp_path / "artifact"
    link.symlink_to("not-there")
    with pytest.raises(OctcError) as caught, publishing(link):
        pass
    assert caught.value.code == "OCT-E106"
    for exchange in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not exchange:
                patch.setattr(files, "_exchanged", lambda *_: False)
            with publishing(link, force=True) as folder:
                (folder / "a").write_text("new")
        assert names(tmp_path) == ["artifact"]
        assert (link / "a").read_text() == "new"


def test_no_file_takes_the_place_of_a_device_or_a_pipe(tmp_path: Path) -> None:
    """As root in a container this is /dev/null, or the pipe behind /dev/stdout."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name in ("pipe", "link", "null"):
        with pytest.raises(OctcError) as caught:
            write_bytes(tmp_path / name, b"new")
        assert (caught.value.code, caught.value.place) == ("OCT-E109", str(tmp_path / name))
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").readlink() == Path("pipe")
    assert names(tmp_path) == ["link", "null", "pipe"]


@pytest.mark.parametrize("bound", [False, True])
def test_a_folder_where_a_disk_is_mounted_is_refused_and_stays_as_it_is(bound: bool, tmp_path: Path) -> None:
    """bound: a part of this very disk, which is seen when the folder should take its name."""
    place = tmp_path / "volume"
    place.mkdir()
    (tmp_path / "real").mkdir()
    mount = ["mount", "--bind", str(tmp_path / "real")] if bound else ["mount", "-t", "tmpfs", "tmpfs"]
    if subprocess.run([*mount, str(place)], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small file system")
    try:
        (place / "kept").touch()
        with pytest.raises(OctcError) as caught, publishing(place, force=True) as folder:
            (folder / "a").touch()
        assert (caught.value.code, str(place / "octc") in caught.value.hint) == ("OCT-E109", True)
        assert names(place) == ["kept"]
        assert names(tmp_path) == ["real", "volume"]
        with publishing(place / "octc") as folder:
            (folder / "a").touch()
        assert names(place / "octc") == ["a"]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_what_octc_writes_is_plain_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": 1})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "é" in text
    assert json.loads(text) == {"é": 1}
