"""For every test: no network (here and in its children), few threads that wait quietly, no configuration of this user."""

from __future__ import annotations

import atexit
import fcntl
import gc
import io
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

gc.disable()  # while the tests are imported, and torch, timm and the engines with them
for variable in [name for name in os.environ if name.startswith("OCTC_") and not name.startswith("OCTC_TEST_")]:
    del os.environ[variable]
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# octc takes a thread for each processor, and so does the other process of the tests: a thread that waits must not turn round
# and round meanwhile (a training of seven seconds took thirty)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if signal.getsignal(signal.SIGINT) != signal.default_int_handler:  # a shell starts what it puts behind itself without it
    signal.signal(signal.SIGINT, signal.default_int_handler)
# modules of this house are compiled once, not by every process that a test starts
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# nobody pulls the plug here, and a test writes a hundred small files
os.fsync = lambda _: None
# a server of the standard library (pynetdicom's are such) looks twice a second whether it is to end
socketserver.BaseServer.serve_forever.__defaults__ = (0.02,)
os.environ.pop("NO_COLOR", None)
os.environ.pop("COLUMNS", None)

from octc.core.offline import go_offline, refused_attempts  # noqa: E402  (the threads are set before numpy is imported)
from octc.core.telemetry import SWITCHES  # noqa: E402
from tests.exporter import EXPORTS  # noqa: E402

THREADS = int(os.environ["OMP_NUM_THREADS"])
ROOT = Path(__file__).resolve().parent.parent
if EXPORTS not in os.environ:  # of this run of the tests: the workers and every process of them have it too
    os.environ[EXPORTS] = tempfile.mkdtemp(prefix="octc-exports-")
    atexit.register(shutil.rmtree, os.environ[EXPORTS], ignore_errors=True)
go_offline()  # children inherit OCTC_OFFLINE=1: every `octc` that a test starts runs under the guard too
FRESH = dict(os.environ)


# the longest files, slow tests included, the longest first: two processes that begin with them end together
LONGEST = (
    "house/test_benchmarks.py", "house/test_nothing_is_sent.py", "packaging/test_extras.py", "export/test_trt_oracle.py",
    "packaging/test_wheel.py", "export/test_ptq.py", "cli/test_train_folds.py", "train/test_baselines.py",
    "cli/test_retnet_ways.py", "cli/test_moved_images.py", "cli/test_unknown_patients.py", "cli/test_train_faults.py",
    "cli/test_train_stopped.py", "house/test_own_data_page.py", "cli/test_volume_run.py", "compress/test_qat.py",
    "archive/test_archive.py", "export/test_imports.py", "cli/test_doctor.py", "cli/test_bench.py", "export/test_pipeline.py",
    "serve/dicom/test_gateway.py", "serve/test_abuse.py", "cli/test_report.py", "examples/test_examples.py",
    "bench/test_bench_flow.py", "cli/test_processors.py", "cli/test_export.py", "train/test_loop.py", "cli/test_main.py",
    "cli/test_train_resume.py", "export/test_own_network.py", "cli/test_analyze.py", "cli/test_predict_rows.py",
    "cli/test_verify.py", "cli/test_verify_device.py", "bench/test_public_jobs.py", "cli/test_terminals.py",
    "cli/test_data.py", "export/test_request.py", "house/test_readme.py", "cli/test_train.py", "cli/test_verify_faults.py",
    "export/test_fp16.py", "bench/test_bench_faults.py", "cli/test_weights.py", "cli/test_predict.py",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Half a million objects of the libraries stay as long as the tests run: Python's collector went through all of them after
    every few tests, which was half of the processor time of the small ones."""
    gc.collect()
    gc.freeze()
    gc.enable()
    if "torch.onnx" in sys.modules:
        from tests.exporter import install

        install()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {str(ROOT / "tests" / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """What a fixture of a file makes goes with it, as `tmp_path` goes with a test that passed (pyproject.toml): all that the
    tests write is ten gigabytes, and the disk of a small machine is full of it."""
    if fixturedef.scope not in {"module", "class"}:
        return (yield)
    place = request.getfixturevalue("tmp_path_factory").getbasetemp()
    before = set(place.iterdir())

    def clear() -> None:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)

    made: set[Path] = set()
    fixturedef.addfinalizer(clear)  # the first that is added is the last that is called
    try:
        return (yield)
    finally:
        made |= {path for path in place.iterdir() if path not in before and path.is_dir() and not path.is_symlink()}


@pytest.fixture(autouse=True)
def _nothing_reaches_the_network(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """C11: a test during which anything asked for the network fails, even if the code swallowed the refusal."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-configuration"))
    monkeypatch.setenv("OCTC_COMPILED", "off")  # what a test compiles is kept where the test says so
    before = refused_attempts()
    yield
    assert refused_attempts() == before, "something asked for the network"


@pytest.fixture(autouse=True)
def _torch_keeps_its_threads() -> Iterator[None]:
    """Sums of floats depend on their number: what a test left behind changed the bits of trainings in the files after it."""
    yield
    torch = sys.modules.get("torch")
    if torch is None or torch.get_num_threads() == THREADS:
        return
    left = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    assert left == THREADS, "this test, or a fixture of it, left torch with other threads"


@pytest.fixture(autouse=True)
def _int8_is_timed_in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export times what it wrote for a second; here it makes the fewest pairs of calls."""
    if "octc.export.int8_speed" in sys.modules:
        monkeypatch.setattr("octc.export.int8_speed.SECONDS", 0.0)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of pytest-xdist have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def warm(shared: Path) -> tuple[str, ...]:
    """`python` in a process of its own that starts at once (tests/warm.py); such an `octc` and `python` lie in `shared`/bin."""
    program, line = str(ROOT / "tests" / "warm.py"), shared / "octc.socket"
    words = (sys.executable, "-SEs", program, str(line))
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    with (shared / "warm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not line.exists():
            log = (shared / "warm.log").open("wb")
            with log:
                command = [sys.executable, program, "serve", str(line), str(owner)]
                subprocess.run(command, env=FRESH, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=300, check=True)
            (shared / "bin").mkdir()
            for name, more in (("octc", "-m octc.cli._app.main "), ("python", "")):
                (shared / "bin" / name).write_text(f'#!/bin/sh\nexec {" ".join(words)} {more}"$@"\n')
                (shared / "bin" / name).chmod(0o755)
    return words


# read by what octc itself asks for, and so the same in a process whose libraries were imported before they were set
LATE = (
    "OCTC_", "HOME", "COLUMNS", "NO_COLOR", "HTTPS_PROXY", "XDG_CONFIG_HOME", "PATH", "PYTEST_", "TORCHINDUCTOR_CACHE_DIR",
    "WARM_PYTHON", "KMP_", "RAY_",  # the last are set by scikit-learn and Ray as they are imported
    *SWITCHES,  # by octc itself, in every process
)  # fmt: skip
Octc = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def octc(tmp_path: Path, request: pytest.FixtureRequest) -> Octc:
    """Run `octc WORDS...` as a process of its own, in tmp_path; stdout and stderr as text.

    With a variable that something may read when it is imported, the process is a fresh interpreter. In a file that says
    `HERE = True` it is this process, unless `process` or anything of `subprocess.run` is asked for, or such a variable.
    """
    here = getattr(request.module, "HERE", False)

    def run(
        *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, process: bool = False, **more: object
    ) -> subprocess.CompletedProcess[str]:
        given = {**os.environ, **(env or {})}
        changed = [name for name in {*given, *FRESH} if given.get(name) != FRESH.get(name)]
        plain = all(name.startswith(LATE) for name in changed)
        if here and plain and not process and not more:
            return _called([str(word) for word in words], cwd or tmp_path, given)
        asked = plain and "preexec_fn" not in more  # which a process that is forked elsewhere never runs
        python = request.getfixturevalue("warm") if asked else (sys.executable,)
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [*python, "-m", "octc.cli._app.main", *map(str, words)],
            cwd=cwd or tmp_path,
            env=given,
            text=True,
            encoding="utf-8",
            capture_output=True,
            check=False,
            **{"timeout": 300, **more},
        )

    return run


def _called(words: list[str], place: Path, given: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The command in this process, with streams as a pipe has them; folder and variables are put back."""
    from octc.cli._app.main import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before, here = dict(os.environ), Path.cwd()
    try:
        os.chdir(place)
        os.environ.update(given)
        with redirect_stdout(out), redirect_stderr(err):
            code = main(words)
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(words, code, *texts)


@pytest.fixture
def forks(warm: tuple[str, ...], shared: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Python whose processes are forked, and what an `octc` of this test takes for those that it starts itself."""
    program = str(shared / "bin" / "python")
    monkeypatch.setenv("WARM_PYTHON", program)
    return program


@pytest.fixture(scope="session")
def ucsd() -> Path:
    """The real images, where they are on this machine."""
    root = Path(os.environ.get("OCTC_TEST_UCSD") or ROOT.parent / "shared" / "data" / "ucsd")
    if not root.is_dir():
        pytest.skip("the real images are not here (OCTC_TEST_UCSD)")
    return root
