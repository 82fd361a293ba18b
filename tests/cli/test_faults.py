"""What the machine lacks is said by its name, ends with 4 and blames no file: disks, memory, temporary folders, limits."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from octc.cli._app.errors import sort_error
from octc.cli._app.main import main
from octc.core.errors import OctcError, Several
from octc.core.faults import FAULTS, fault_of
from octc.core.files import publishing, replacing, write_json
from octc.datasets.image_facts import read_facts
from octc.datasets.layouts.folders import scan_folder
from octc.imaging.decode import read_image
from octc.runtimes.base import broken
from octc.store.artifacts import read_artifact
from octc.store.find import find_artifacts
from octc.store.runs import Run, create_run, owning
from tests.tiny_artifacts import copied, shared_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


def failing(number: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("name", [name for fault in FAULTS for name in fault.errors])
def test_every_errno_of_the_table_ends_with_4_wherever_it_came_from(name: str) -> None:
    bare = OSError(getattr(errno, name), os.strerror(getattr(errno, name)), "some/file")
    try:
        try:
            raise bare
        except OSError as error:
            raise OctcError("OCT-E502", "artifact damaged", hint="make it again", place="artifact") from error
    except OctcError as wrapped:
        for error in (bare, wrapped, Several([wrapped, wrapped])):
            sorted_ = sort_error(error, "predict")
            assert sorted_.exit_code == 4
            assert sorted_.place == "some/file"
            assert "again" not in sorted_.hint


# said by the libraries themselves under `ulimit -v`, on full and on read-only disks
SENTENCES = (
    ("OCT-E904", RuntimeError("Exception from src/inference/src/cpp/core.cpp:117:\nstd::bad_alloc")),
    (
        "OCT-E904",
        RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer"),
    ),
    (
        "OCT-E904",
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    ),
    ("OCT-E904", ImportError("libscipy_openblas.so: failed to map segment from shared object")),
    ("OCT-E904", RuntimeError("I/O error: Cannot allocate memory (os error 12)")),
    ("OCT-E904", RuntimeError("I/O error: No space left on device (os error 28)")),
    ("OCT-E904", sqlite3.OperationalError("database or disk is full")),
    ("OCT-E906", sqlite3.OperationalError("disk I/O error")),
    ("OCT-E904", MemoryError()),
    ("OCT-E906", RuntimeError("can't start new thread")),
    ("OCT-E906", FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/nowhere']")),
)


@pytest.mark.parametrize(("code", "error"), SENTENCES)
def test_what_libraries_say_is_known(code: str, error: Exception, made: Run) -> None:
    found = sort_error(error, "predict")
    assert (found.code, found.exit_code) == (code, 4)
    assert broken(read_artifact(made.artifacts / "onnx-int8"), error).code == code


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Unsupported operator"), FileNotFoundError(errno.ENOENT, "No such file", "No space left on device"),
     ImportError("libgomp.so.1: cannot allocate memory in static TLS block"), PermissionError(errno.EACCES, "denied")],
)  # fmt: skip
def test_other_failures_are_none_of_it(error: Exception) -> None:
    assert fault_of(error) is None


def test_too_large_an_array_is_memory() -> None:
    with pytest.raises(MemoryError) as caught:
        np.zeros(1 << 60, np.uint8)
    assert sort_error(caught.value, "eval").code == "OCT-E904"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_an_artifact_is_not_blamed(number: int, made: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", failing(number))
    with pytest.raises(OctcError) as caught:
        read_artifact(made.artifacts / "onnx-int8")
    assert caught.value.exit_code == 4
    assert caught.value.place == str(made.artifacts / "onnx-int8" / "artifact.json")


def test_an_image_is_not_blamed(made: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    image = next((made.path.parent.parent / "patterns" / "dark").iterdir())
    monkeypatch.setattr(Path, "read_bytes", failing(errno.EMFILE))
    with pytest.raises(OctcError) as caught:
        read_image(image)
    assert caught.value.exit_code == 4


def test_another_artifact_does_not_answer_where_the_newest_cannot_be_read(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged artifact is passed over, and said; a disk that does not read is no word about an artifact."""
    damaged = copied(made, "onnx-int8", tmp_path)
    copied(made, "onnx-fp32", tmp_path)
    whole = Path.read_bytes
    broken_disk = failing(errno.EIO)
    monkeypatch.setattr(Path, "read_bytes", lambda path: broken_disk() if damaged in path.parents else whole(path))
    with pytest.raises(OctcError) as caught:
        find_artifacts(str(tmp_path), tmp_path, {})
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E906", 4)
    monkeypatch.undo()
    (damaged / "artifact.json").write_text("{")
    found, words = find_artifacts(str(tmp_path), tmp_path, {})
    assert [one.artifact.name for one in found] == ["onnx-fp32"]
    assert "OCT-E502" in words


def test_an_image_counts_as_unreadable_only_where_the_disk_reads_it(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
    (tmp_path / "set" / "a" / "A-1-0.png").write_bytes(b"no picture")
    shutil.copy(next((made.path.parent.parent / "patterns" / "dark").iterdir()), tmp_path / "set" / "b" / "B-2-0.png")
    items = scan_folder(tmp_path / "set", None).items
    assert [one.failure and one.failure[0] for one in read_facts(tmp_path / "set", items)] == ["OCT-E202", None]
    monkeypatch.setattr(Path, "read_bytes", failing(errno.EMFILE))
    with pytest.raises(OctcError) as caught:
        read_facts(tmp_path / "set", items)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E906", 4)


def test_a_write_that_names_no_file_is_about_the_file_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_bytes", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space") as caught:
        write_json(tmp_path / "run.json", {})
    found = sort_error(caught.value, "train")
    assert (found.code, found.place) == ("OCT-E904", str(tmp_path / "run.json"))


def test_a_folder_that_is_moved_while_it_is_written_to_is_named(tmp_path: Path) -> None:
    """No mistake in octc (70): somebody renamed the run."""
    run = create_run(tmp_path / "runs", "student", "folder")

    def write() -> None:
        with replacing(run.path / "records" / "test.npz") as temporary:
            run.path.rename(tmp_path / "runs" / "moved")
            temporary.write_bytes(b"whole")

    with pytest.raises(FileNotFoundError) as caught:
        write()
    found = sort_error(caught.value, "verify")
    assert (found.code, found.exit_code) == ("OCT-E109", 2)
    assert str(run.path) in found.message
    assert "records" not in found.message
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "absent.json").read_bytes()  # its folder is there: whoever reads it says what is missing, or octc is wrong
    assert sort_error(caught.value, "verify").code == "OCT-E999"


def test_a_working_folder_that_was_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd gone && rmdir ../gone && exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "octc.cli._app.main", "list", "runs", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["help"][:3]) == ("OCT-E109", "cd ")


def test_a_write_into_a_folder_that_never_got_its_name_is_about_its_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary folder is gone when the error is read."""

    def write() -> None:
        with publishing(tmp_path / "report") as new:
            write_json(new / "figures" / "a.json", {})

    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space") as caught:
        write()
    found = sort_error(caught.value, "report")
    assert (found.code, found.place) == ("OCT-E904", str(tmp_path / "report" / "figures" / "a.json"))
    assert list(tmp_path.iterdir()) == []


def test_where_no_trace_can_be_written_the_hint_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", failing(errno.EROFS))
    found = sort_error(RuntimeError("an error of octc"), "list")
    assert (found.code, found.place) == ("OCT-E999", None)
    assert "-vv" in found.hint


def in_namespace() -> list[str]:
    """Words before a command that gives it mounts of its own; the test is skipped where that is not allowed."""
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    pytest.skip("no mount namespaces here (unshare -m)")


def octc_after(script: str, place: Path, *words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`octc` behind a piece of shell, in mounts of its own."""
    command = [*in_namespace(), "sh", "-ec", f'{script}\nexec "$@"', "sh", sys.executable, "-B", "-m", "octc.cli._app.main"]
    return subprocess.run(
        [*command, *map(str, words)], cwd=place, env={**os.environ, "XDG_CONFIG_HOME": str(place), **environ},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def error_of(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 4, (done.returncode, done.stdout[-1500:], done.stderr[-1500:])
    error: dict[str, str] = json.loads(done.stdout)["error"]
    return error


def small(place: Path, folder: str, options: str) -> str:
    """A file system of its own kind on a folder."""
    (place / folder).mkdir(exist_ok=True)
    return f"mount -t tmpfs -o {options} none '{place / folder}'"


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    mount = small(tmp_path, "runs", "ro")
    for words in (("data", "phantom", "runs/drawn", "--images", "4"), ("config", "init", "runs/octc.toml")):
        error = error_of(octc_after(mount, tmp_path, *words, "--json"))
        assert error["code"] == "OCT-E906"
        assert "runs" in error["path"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    mount = small(tmp_path, "runs", "size=64k")
    error = error_of(octc_after(mount, tmp_path, "data", "phantom", "runs/drawn", "--images", "40", "--json"))
    assert error["code"] == "OCT-E904"
    assert "runs" in error["path"]


PRECISION = """
import sys
from pathlib import Path
from octc.core.errors import OctcError
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import read_artifact
runtime = open_runtime(Path(sys.argv[1]), read_artifact(Path(sys.argv[1])))
try:
    print(runtime.precision_found())
except OctcError as error:
    print(error.code, error.place)
"""


def test_a_full_temporary_folder_is_no_fault_of_the_artifact(made: Run, tmp_path: Path) -> None:
    """ONNX Runtime writes its graph there, and says of a full disk that the file cannot be serialised."""
    for size, told in (("size=16k", "OCT-E904"), ("size=16m", "int8")):
        script = f'{small(tmp_path, "tmp", size)}\nexec "$@"'
        words = [sys.executable, "-c", PRECISION, str(made.artifacts / "onnx-int8")]
        done = subprocess.run(
            [*in_namespace(), "sh", "-ec", script, "sh", *words], env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert told in done.stdout, done.stdout + done.stderr
        assert told == "int8" or str(tmp_path / "tmp") in done.stdout


def test_a_monitors_store_on_a_full_or_read_only_disk_is_named(made: Run, tmp_path: Path) -> None:
    artifact = copied(made, "onnx-int8", tmp_path)
    patterns = made.path.parent.parent / "patterns" / "dark"
    for options, code in (("size=16k", "OCT-E904"), ("ro", "OCT-E906")):
        mount = small(tmp_path, "box", options)
        words = ("predict", artifact, patterns, "--monitor", "box/box.sqlite", "--json")
        error = error_of(octc_after(mount, tmp_path, *words))
        assert error["code"] == code
        assert "box.sqlite" in error["path"]


def test_a_run_folder_on_a_read_only_file_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", failing(errno.EROFS))
    with pytest.raises(OctcError) as caught:
        create_run(tmp_path / "runs", "teacher", "folder")
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E906", 4)
    monkeypatch.undo()
    run = create_run(tmp_path / "runs", "teacher", "folder")
    monkeypatch.setattr(os, "open", failing(errno.EROFS))
    with pytest.raises(OctcError) as caught, owning(run):
        pass
    assert caught.value.exit_code == 4


def test_no_usable_temporary_folder_is_named(made: Run, tmp_path: Path) -> None:
    for name in ("onnx-fp32", "onnx-int8"):
        copied(made, name, tmp_path)
    no_room = "\n".join(f"[ ! -d {folder} ] || mount -t tmpfs -o ro none {folder}" for folder in ("/var/tmp", "/usr/tmp"))
    # the artifact's own folder can be written, the one that octc is called in cannot
    (tmp_path / "here").mkdir()
    locked = "mount -t tmpfs -o ro none /mnt/here\ncd /mnt/here"
    # the folder of the test lies under /tmp: it is bound elsewhere before /tmp is covered
    mounts = f"mount --bind '{tmp_path}' /mnt\n{no_room}\nmount -t tmpfs -o ro none /tmp\n{locked}"
    for words in (("bench", "../onnx-fp32", "--quick", "--vs", "none"), ("doctor",)):
        error = error_of(octc_after(mounts, tmp_path, *words, "--json", TMPDIR="/nowhere"))
        assert error["code"] == ("OCT-E905" if words == ("doctor",) else "OCT-E906")
        assert words == ("doctor",) or "TMPDIR" in error["help"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8"])
def test_too_little_address_space_is_never_a_damaged_artifact(name: str, made: Run) -> None:
    patterns = made.path.parent.parent / "patterns" / "dark"
    codes = []
    for kib in (200_000, 300_000, 450_000):
        script = f'ulimit -v {kib}; exec "$@"'
        words = ["predict", str(made.artifacts / name), str(patterns), "--threads", "1", "--json"]
        done = subprocess.run(
            ["sh", "-c", script, "sh", sys.executable, "-m", "octc.cli._app.main", *words],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        codes.append(done.returncode)
        if done.returncode:
            assert error_of(done)["code"] in ("OCT-E904", "OCT-E906")
    assert codes[0] == 4


def test_a_command_in_this_process_ends_with_4(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(made, "onnx-int8", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("octc.runtimes.onnxrt.check_batch", failing(errno.EMFILE))
    assert main(["predict", str(place), str(made.path.parent.parent / "patterns" / "dark"), "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "OCT-E906"
