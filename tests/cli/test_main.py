"""The door: help, unknown words, streams, exit codes, JSON, signals, pipes, encodings. Processes of their own."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Optional, Union, get_args

import pytest
import typer

from octc.cli._app.commands import COMMANDS, COMMON, GROUPS, bounded, plain_hint
from octc.cli._app.main import main
from octc.core.errors import OctcError, Several
from octc.datasets.synthetic.bscans import write_phantoms

HEAVY = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript", "openvino", "scipy", "accelerate", "safetensors")
Octc = Callable[..., "subprocess.CompletedProcess[str]"]


def shared(**given: object) -> dict[str, object]:
    return {**{key: default for key, (_, default) in COMMON.items()}, **given}


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["--version"], ["--version", "--json"], ["train", "--help"], ["list", "--help"]]
)
def test_help_and_version_import_no_heavy_library(words: list[str]) -> None:
    code = (
        f"import sys; from octc.cli._app.main import main; code = main({words!r}); print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.split(".")[0] for name in re.findall(r"'([^']+)'", done.stderr)}
    assert "octc" in loaded
    assert not loaded & {*HEAVY, *(() if "list" in words else ("numpy", "PIL", "rich"))}


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_verb_has_help_with_the_common_options(entry: object, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(entry.name)  # type: ignore[attr-defined]
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--json", "--quiet", "--verbose", "--no-color", "--offline", "--config", "--run-dir", "--data"):
        assert option in text
    assert f"octc {name}" in text


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    for entry in COMMANDS:
        assert entry.name.split()[0] in text
    for group in GROUPS:
        assert main([group]) == 2
        text = capsys.readouterr().out
        assert all(e.name.split()[1] in text for e in COMMANDS if e.name.startswith(group + " "))


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["lst"], "`list`"),
        (["verfy", "x"], "`verify`"),
        (["data", "chek"], "`check`"),
        (["list", "--jsn"], "`--json`"),
        (["list", "--run-dri=x"], "`--run-dir`"),
    ],
)
def test_an_unknown_word_gets_the_nearest_one(words: list[str], near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error[OCT-E101]: ")
    assert f"did you mean {near}" in err


@pytest.mark.parametrize(
    "words", [["lst", "--json"], ["list", "--jsn", "--json"], ["list", "nonsense", "--json"], ["list", "a", "b", "--json"]]
)
def test_json_is_one_document_on_failure_too(words: list[str], octc: Octc) -> None:
    done = octc(*words)
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["schema_version"] == "1.0"
    assert document["status"] == "error"
    assert document["exit_code"] == 2
    assert document["error"]["code"] in ("OCT-E101", "OCT-E104")
    assert document["error"]["help"]
    assert set(document) >= {"command", "run_id", "data", "warnings"}
    assert document["error"]["code"] in done.stderr


def test_options_without_a_value_may_stand_before_the_verb(octc: Octc) -> None:
    done = octc("--json", "-q", "list", "recipes")
    assert done.returncode == 0
    assert json.loads(done.stdout)["command"] == "list"


@pytest.mark.parametrize("words", [
    "data split . --seed", "data split . --folds", "data phantom out --seed", "train teacher --dataset folder --epochs",
    "train teacher --dataset folder --seed", "eval --maps", "verify --seed", "bench --batch", "bench --min-queries",
    "predict a b --threads", "compare a.csv b.csv --seed",
])  # fmt: skip
def test_a_number_of_more_than_64_bits_is_refused_before_any_work(words: str, octc: Octc) -> None:
    done = octc(*words.split(), str(1 << 63), "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "OCT-E104"), done.stderr
    assert words.rsplit(maxsplit=1)[-1] in done.stderr


def test_a_bad_value_names_the_option(octc: Octc) -> None:
    done = octc("data", "phantom", "--seed", "many")
    assert done.returncode == 2
    assert "error[OCT-E104]" in done.stderr
    assert "--seed" in done.stderr
    assert "Traceback" not in done.stderr


def raising(error: BaseException) -> Callable[[object], int]:
    def work(_session: object) -> int:
        patient_name = "a secret that is in a local variable"
        assert patient_name
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (OctcError("OCT-E107", "no such run", hint="octc list runs"), 2, "error"),
        (OctcError("OCT-E704", "inferior", hint="--keep-fp"), 1, "gate_failed"),
        (OctcError("OCT-E230", "not found", hint="--data"), 3, "error"),
        (MemoryError(), 4, "error"),
        (OSError(28, "No space left on device", "x.bin"), 4, "error"),
        (PermissionError(13, "Permission denied", "runs"), 2, "error"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("a bug"), 70, "error"),
    ],
)
def test_exit_codes_and_status(error: BaseException, code: int, status: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bounded("list", shared(json=True), raising(error)) == code
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["status"], document["exit_code"]) == (status, code)
    assert (document["error"] is None) == (code == 130)
    assert "Traceback" not in err


def test_a_name_that_is_too_long_is_a_wrong_value(octc: Octc, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "set", 4, 4, 0, size=(96, 96))
    done = octc("data", "split", str(tmp_path / "set"), "-o", "e" * 300)
    assert (done.returncode, "OCT-E104" in done.stderr) == (2, True), done.stderr


def test_an_internal_error_leaves_a_trace_without_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    assert bounded("list", shared(), raising(ValueError("a bug"))) == 70
    err = capsys.readouterr().err
    assert "error[OCT-E999]" in err
    path = Path(re.search(r"--> (\S+)", err)[1])  # type: ignore[index]
    trace = path.read_text()
    path.unlink()
    assert "ValueError: a bug" in trace
    assert "raising" in trace or "work" in trace
    assert "a secret" not in trace.replace('patient_name = "a secret', "")
    assert bounded("list", shared(verbose=2), raising(ValueError("a bug"))) == 70
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    Path(re.search(r"--> (\S+)", err)[1]).unlink()  # type: ignore[index]


def test_several_errors_are_all_listed_and_the_worst_gives_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    first = OctcError("OCT-E107", "one", hint="a")
    second = OctcError("OCT-E901", "two", hint="b")
    assert bounded("list", shared(json=True), raising(Several([first, second]))) == 4
    out, err = capsys.readouterr()
    assert [one["code"] for one in json.loads(out)["error"]["all"]] == ["OCT-E107", "OCT-E901"]
    assert "error[OCT-E107]: one" in err
    assert "error[OCT-E901]: two" in err


def test_json_numbers_are_finite(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    def work(session: object) -> int:
        session.report({"a": float("nan"), "b": np.float32("inf"), "c": np.arange(3), "d": Path("x"), 5: (1, 2.5)})  # type: ignore[attr-defined]
        return 0

    assert bounded("list", shared(json=True), work) == 0  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out)["data"] == {"a": None, "b": None, "c": [0, 1, 2], "d": "x", "5": [1, 2.5]}


def _drawing(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """A real command in the middle of its work: drawing more phantoms than it can."""
    command = [sys.executable, "-m", "octc.cli._app.main", "data", "phantom", "many", "--images", "5000", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and not any(tmp_path.rglob("*.jpeg")):
        time.sleep(0.02)
    assert process.poll() is None
    return process


@pytest.fixture
def hang_up() -> Iterator[None]:
    """SIGHUP as in a terminal, also where these tests were started with nohup: children inherit that it is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_with_their_code_and_nothing_half_written(tmp_path: Path, number: int, code: int) -> None:
    process = _drawing(tmp_path, "--json")
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code
    document = json.loads(out)
    assert (document["status"], document["exit_code"]) == ("interrupted", code)
    assert "Traceback" not in err
    assert not (tmp_path / "many" / "CellData").exists()


@pytest.mark.usefixtures("hang_up")
def test_a_terminal_that_goes_away_ends_a_command_in_order(tmp_path: Path) -> None:
    """As where a connection is lost: SIGHUP comes, and the bar cannot be drawn any more."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        words = ["-m", "octc.cli._app.main", "data", "phantom", "many", "--images", "5000"]
        os.execv(sys.executable, [sys.executable, *words])
    end = time.monotonic() + 60
    while time.monotonic() < end and not any(tmp_path.rglob("*.jpeg")):
        time.sleep(0.02)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert not any(tmp_path.rglob("*.jpeg"))


def test_a_hang_up_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As `nohup octc ...` begins."""
    begin = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-m", "octc.cli._app.main", "data", "phantom", "few", "--images", "60"]
    process = subprocess.Popen([sys.executable, "-c", begin, *command], cwd=tmp_path, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and not any(tmp_path.rglob("*.jpeg")):
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0


def test_p03_a_closed_pipe_and_a_closed_stdin_end_quietly(tmp_path: Path) -> None:
    for words in ("list", "list --json", "--help", "list --help"):
        command = f"{sys.executable} -m octc.cli._app.main {words} <&- | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (0, 141)
        assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", ["list", "list --json", "--version"])
def test_a_full_disk_behind_stdout_is_an_error_not_a_traceback(words: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m octc.cli._app.main {words} >/dev/full"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "error[OCT-E904]" in done.stderr
    assert "Traceback" not in done.stderr


CLOSED = [
    (words, ">&-") for words in ("list", "list --json", "--version", "--help", "config show", "train --help", "explain E705")
]


@pytest.mark.parametrize(("words", "where"), [*CLOSED, ("list", "1</dev/null")])
def test_a_closed_stdout_is_an_error_before_any_work(words: str, where: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m octc.cli._app.main {words} {where}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("error[OCT-E907]")) == (4, 1), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_a_stderr_that_cannot_be_written_stops_nothing(where: str, tmp_path: Path) -> None:
    for words, code in (("list models", 0), ("lst", 2), ("data phantom --images 1 --patients 1 x --json", None)):
        command = f"{sys.executable} -m octc.cli._app.main {words} {where}"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in ((0, 2) if code is None else (code,))
        assert done.stdout or words == "lst"


ENCODINGS = [("ascii", {"LANG": "C"}), ("cp1252", {"NO_COLOR": "1"}), ("latin-1", {}), ("utf-8", {"NO_COLOR": "1"})]


@pytest.mark.parametrize(("encoding", "more"), ENCODINGS, ids=[name for name, _ in ENCODINGS])
@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "nonsense"]], ids=" ".join)
def test_c04_any_encoding_and_forty_columns(words: list[str], encoding: str, more: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r-0001-student-x"
    run.mkdir(parents=True)
    head = {
        "id": run.name,
        "kind": "studént → ✓",
        "dataset": "[red]日本[/red]",
        "created": "now",
        "status": "done",
        "stages": [],
    }
    (run / "run.json").write_text(json.dumps(head))
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "COLUMNS": "40", **more}
    command = [sys.executable, "-m", "octc.cli._app.main", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == (2 if "nonsense" in words else 0)
    text = (done.stdout + done.stderr).decode(encoding)
    assert "Traceback" not in text
    assert "\033" not in text
    if words == ["list"]:
        assert max(map(len, done.stdout.decode(encoding).splitlines())) <= 60
        assert "[red]" in re.sub(r"\s", "", text)  # a name is never taken for markup


def test_c04_colour_only_on_a_terminal(tmp_path: Path) -> None:
    def on_terminal(**environment: str) -> str:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "octc.cli._app.main", "lst"]
        full = {**os.environ, "TERM": "xterm", **environment}
        process = subprocess.Popen(command, cwd=tmp_path, env=full, stdout=slave, stderr=slave, stdin=slave)
        os.close(slave)
        text = b""
        try:
            while block := os.read(master, 4096):
                text += block
        except OSError:  # the other end is closed
            pass
        os.close(master)
        assert process.wait(60) == 2
        return text.decode()

    assert "\033[1;31merror" in on_terminal()
    assert "\033" not in on_terminal(NO_COLOR="1")
    assert "\033" not in on_terminal(TERM="dumb")


def test_completion_offers_the_options_of_a_verb(tmp_path: Path) -> None:
    environment = {**os.environ, "_OCTC_COMPLETE": "complete_bash", "COMP_WORDS": "octc list --o", "COMP_CWORD": "2"}
    code = "import sys; sys.argv = ['octc']; from octc.cli._app.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["--offline"]


def test_options_keep_what_is_said_of_them_where_python_makes_them_optional() -> None:
    """Python 3.10 does so where the default is None: an argument became an option, and its help was lost."""
    said = Annotated[str | None, typer.Argument(help="a run")]
    for kind in (said, Optional[said], Union[said, None]):  # noqa: UP007, UP045  (as get_type_hints of 3.10 writes them)
        assert get_args(plain_hint(kind))[1].help == "a run"
    assert plain_hint(str | None) == (str | None)
    assert plain_hint(int) is int
