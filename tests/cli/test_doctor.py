"""`octc doctor` as a process: real libraries, a real conflict of versions, a real damaged artifact, the guard itself."""

from __future__ import annotations

import getpass
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.cli.doctor import SIGNS
from octc.core.errors import OctcError
from octc.core.targets import TARGETS
from octc.imaging.preprocess import Preprocess
from octc.runtimes.doctor import DoctorOptions, _engine, examine
from octc.runtimes.probe import answer, ask, smallest_onnx
from octc.store.artifacts import Artifact, write_manifest
from octc.store.runs import create_run

Octc = Callable[..., "subprocess.CompletedProcess[str]"]
GROUPS = [
    "Python and packages", "CPU", "Memory and disk", "GPU", "Runtimes", "Sensors", "Data", "Network", "Telemetry",
]  # fmt: skip


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def checks(done: subprocess.CompletedProcess[str], state: str) -> list[str]:
    return [check["text"] for check in document(done)["data"]["checks"] if check["state"] == state]


def distribution(folder: Path, name: str, version: str, *lines: str) -> dict[str, str]:
    """A package's metadata as pip leaves it, and the environment in which Python sees it first."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]) + "\n")
    return {"PYTHONPATH": str(folder)}


def test_groups_signs_and_the_last_line(octc: Octc) -> None:
    done = octc("doctor", process=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ") and " · " not in line] == GROUPS
    body = [line for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert all(line[2] in SIGNS.values() and line[3] == " " for line in body)
    counts = {name: sum(line[2] == sign for line in body) for name, sign in SIGNS.items()}
    assert lines[-1] == f"{counts['ok']} ok · {counts['warning']} warnings · {counts['problem']} problems"
    assert done.returncode == (4 if counts["problem"] else 0)
    assert any("numpy" in line for line in body)
    answered = ("onnxruntime", "reads ONNX up to opset")
    slow = ("onnxruntime: no answer within",)  # on a machine that is busy with something else; the probe has a test of its own
    assert any(all(word in line for word in words) for line in body for words in (answered, slow))


@pytest.mark.usefixtures("forks")
def test_json_is_the_same(octc: Octc) -> None:
    done = octc("doctor", "--json")
    data = document(done)["data"]
    assert list(dict.fromkeys(check["group"] for check in data["checks"])) == GROUPS
    for state in SIGNS:
        assert data["counts"][state] == sum(check["state"] == state for check in data["checks"])
    told = [check for check in data["checks"] if check["state"] in ("warning", "problem")]
    assert all(check["hint"] and check["hint"] == check["mend"] for check in told)
    assert done.returncode == document(done)["exit_code"] == (4 if data["counts"]["problem"] else 0)


@pytest.mark.usefixtures("forks")
def test_a_machine_that_is_not_the_target_is_a_problem_and_ends_with_4(octc: Octc) -> None:
    done = octc("doctor", "--target", "jetson", "--json")
    assert done.returncode == 4
    assert any("not a Jetson" in text for text in checks(done, "problem"))
    error = document(done)["error"]
    assert error["code"] == "OCT-E905"
    assert "not a Jetson" in error["why"]
    assert error["help"]
    shown = octc("doctor", "--target", "jetson")
    assert "✗ this is" in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith("problems")
    assert "error[OCT-E905]" in shown.stderr


def test_an_unknown_target_is_refused(octc: Octc) -> None:
    done = octc("doctor", "--target", "raspberry")
    assert done.returncode == 2
    assert all(repr(name) in done.stderr for name in ("x86", "jetson", "gpu", "tensorrt"))


def test_c10_versions_that_cannot_live_together(octc: Octc, tmp_path: Path) -> None:
    env = distribution(
        tmp_path / "site", "nvidia-modelopt", "0.11.0", "Requires-Dist: numpy<1.20", "Requires-Dist: absent-package>=3"
    )
    done = octc("doctor", env=env)
    assert done.returncode == 4
    text = " ".join(done.stdout.split())
    assert "nvidia-modelopt 0.11.0 needs numpy<1.20" in text
    assert "octc 0.1.0 needs numpy>=1.26" in text
    assert "keep nvidia-modelopt in an environment of its own" in text
    assert "absent-package is not installed; nvidia-modelopt 0.11.0 needs absent-package>=3" in text
    assert "pip install 'absent-package>=3'" in text
    assert {check["code"] for check in document(octc("doctor", "--json", env=env))["data"]["checks"] if check["code"]} >= {
        "OCT-E902"
    }


def test_a_library_too_old_for_octc_is_a_conflict(octc: Octc, tmp_path: Path) -> None:
    done = octc("doctor", env=distribution(tmp_path / "site", "onnxruntime", "1.2.0"))
    assert done.returncode == 4
    assert "onnxruntime 1.2.0 is installed; octc 0.1.0 needs onnxruntime>=1.20" in done.stdout
    assert "→ pip install 'onnxruntime>=1.20'" in done.stdout


def test_two_packages_with_the_same_module_overwrite_each_other(octc: Octc, tmp_path: Path) -> None:
    done = octc("doctor", "--json", env=distribution(tmp_path / "site", "onnxruntime-gpu", "1.99"))
    assert any("onnxruntime and onnxruntime-gpu overwrite each other" in text for text in checks(done, "warning"))


def test_a_library_that_does_not_start_is_a_problem_with_its_last_words(octc: Octc, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "onnxruntime.py").write_text("raise ImportError('libcudnn.so.9 is missing')\n")
    done = octc("doctor", "--json", env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 4
    assert any(
        "onnxruntime is installed and does not start" in t and "libcudnn.so.9 is missing" in t for t in checks(done, "problem")
    )


def test_a_library_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start = time.monotonic()
    assert ask("onnx", 1.0) == {"slow": "no answer within 1 s"}
    assert time.monotonic() - start < 20
    assert (
        _engine("Runtimes", TARGETS["onnx"], {"slow": "no answer within 1 s"}).state == "warning"
    )  # a busy machine is no broken one


def test_what_onnxruntime_reads_is_tried_not_looked_up(capsys: pytest.CaptureFixture[str]) -> None:
    import onnx
    import onnxruntime

    answer("onnx")
    said = json.loads(capsys.readouterr().out)
    assert said["version"] == onnxruntime.__version__
    assert "CPUExecutionProvider" in said["devices"]
    for ir, opset, fits in ((8, said["opset"], True), (8, said["opset"] + 1, False), (said["ir"] + 1, 13, False)):
        model = smallest_onnx(ir, opset)
        onnx.load_model_from_string(model)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception:
            assert not fits
        else:
            assert fits
    onnx.checker.check_model(smallest_onnx(8, 13))


def put_artifact(run_dir: Path) -> Path:
    """A finished student run with one artifact whose files are sound."""
    run = create_run(run_dir, "student", "phantom", split_digest="abcdef0123456789")
    run.update(status="done")
    folder = run.artifacts / "onnx-fp32"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(smallest_onnx(8, 13))
    artifact = Artifact(
        name="onnx-fp32", role="student", model="m", target="onnx", precision="fp32", classes=("a", "b"),
        preprocess=Preprocess(32), lineage={"run": run.id}, main_file="model.onnx",
    )  # fmt: skip
    write_manifest(folder, artifact)
    return folder


@pytest.mark.usefixtures("forks")
def test_artifacts_that_run_here_and_damaged_ones(octc: Octc, tmp_path: Path) -> None:
    folder = put_artifact(tmp_path / "runs")
    done = octc("doctor", "--json")
    assert any(text == "artifact onnx-fp32 runs here" for text in checks(done, "ok"))
    (folder / "model.onnx").write_bytes(b"\0" * (folder / "model.onnx").stat().st_size)
    done = octc("doctor", "--json")
    assert done.returncode == 4
    assert any("model.onnx does not match its sha256" in text for text in checks(done, "problem"))


@pytest.mark.usefixtures("forks")
def test_data_sets_and_the_split_of_the_newest_run(octc: Octc, tmp_path: Path) -> None:
    assert octc("data", "phantom", "--images", "2").returncode == 0
    put_artifact(tmp_path / "runs")
    assert "phantom: ./Dataset/phantom, split abcdef012345 of r-0001-student-phantom" in octc("doctor").stdout


def test_offline_proves_the_guard(octc: Octc) -> None:
    done = octc("doctor", "--offline", "--json", process=True)
    value = document(done)
    assert any("tried under --offline and refused (OCT-E990)" in text for text in checks(done, "ok"))
    assert value["offline"] == {"requested": True, "refused_attempts": 1}


def test_a_guard_that_does_not_refuse_is_a_problem(tmp_path: Path) -> None:
    """The proof can fail: with the guard switched off, and an address of this machine in place of the one elsewhere."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        code = (
            f"import octc.runtimes.doctor as d; d.ELSEWHERE = {listening.getsockname()!r}\n"
            "import sys; from octc.cli._app.main import main; sys.exit(main(['doctor', '--offline', '--json']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 4
    assert any("not refused" in text for text in checks(done, "problem"))


@pytest.mark.usefixtures("forks")
def test_proxies_by_name_only_and_nothing_about_the_user(octc: Octc, tmp_path: Path) -> None:
    done = octc("doctor", env={"HTTPS_PROXY": "http://somebody:secret@proxy.example:3128"})
    assert "HTTPS_PROXY" in done.stdout
    put_artifact(tmp_path / "elsewhere")
    more = octc("doctor", "--run-dir", tmp_path / "elsewhere", "--data", tmp_path)
    for word in ("secret", "somebody", "proxy.example", str(tmp_path), str(Path.home()) + "/", socket.gethostname()):
        assert word not in done.stdout + done.stderr + more.stdout + more.stderr
    if len(getpass.getuser()) > 4:  # a name like "root" is a word as well
        assert getpass.getuser() not in done.stdout + done.stderr


def test_it_changes_nothing_and_takes_less_than_five_seconds(tmp_path: Path) -> None:
    """Of a processor's time: how long that takes beside other work says nothing of octc; a minute at the most all the same."""
    put_artifact(tmp_path / "runs")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "octc.cli._app.main", "doctor"]  # a fork is no child that is counted here
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime < 5
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_forty_columns_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "COLUMNS": "40", "LANG": "C"}
    command = [sys.executable, "-m", "octc.cli._app.main", "doctor"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
    text = done.stdout.decode(encoding)
    assert max(map(len, text.splitlines())) <= 43  # a sign may become a word of four letters
    assert ("  ok Python" if encoding == "ascii" else "  ✓ Python") in text


def test_the_library_examines_this_machine_without_a_command(tmp_path: Path) -> None:
    found = examine(DoctorOptions(run_dir=tmp_path))
    assert list(dict.fromkeys(check.group for check in found)) == GROUPS
    assert any(check.text.startswith("onnxruntime ") and check.state == "ok" for check in found)
    with pytest.raises(OctcError) as caught:
        examine(DoctorOptions(target="mainframe"))
    assert caught.value.code == "OCT-E104"
