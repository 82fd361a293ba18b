"""What this machine can do, group by group, with a hint for the rest: `octc doctor` as a function. Changes nothing.

Nobody is contacted, and no line holds a host name, a user name or an absolute path.
"""

from __future__ import annotations

import codecs
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from octc.core.errors import OctcError
from octc.core.optional import EXTRAS, distribution_of, have, missing_modules, modules_of
from octc.core.targets import TARGETS as ENGINES
from octc.core.targets import Target, extras
from octc.core.telemetry import DEPENDENCIES
from octc.datasets.registry import DATASETS, find_root, named_root
from octc.machine.checks import (
    TARGETS,
    Check,
    check_cpu,
    check_engines,
    check_gpu,
    check_kind,
    check_memory,
    check_network,
    check_sensors,
    check_telemetry,
    gpu_users,
    seen_from,
)
from octc.machine.cpu import family_of, usable_threads
from octc.machine.host import read_gpus, read_machine, versions
from octc.machine.jetson import read_jetson
from octc.machine.package_conflicts import can_check, find_conflicts, same_module
from octc.runtimes.cpu_families import FAMILIES, family_with, lines_of
from octc.runtimes.probe import ask
from octc.runtimes.registry import why_not
from octc.runtimes.tensorrt.doctor import check_tensorrt, explain_log
from octc.store.find import find_artifacts
from octc.store.runs import read_runs

ELSEWHERE = ("192.0.2.1", 9)  # RFC 5737: an address that belongs to nobody; the guard refuses before anything is sent
MOST = 10  # artifacts that are listed
MOST_LOG = 8 << 20  # bytes of a log's beginning, and of its end


@dataclass(frozen=True)
class DoctorOptions:
    """How a machine is looked at.

    Attributes:
        target: "x86", "jetson", "gpu" or "tensorrt": what that kind of machine needs becomes a problem where it lacks.
        run_dir: where runs lie. data: root of the data sets, None: where each is looked for.
        offline: the guard against connections is on, and is tried.
        also: further extras of octc and the modules that each brings.
    """

    target: str | None = None
    run_dir: Path = Path("runs")
    data: str | None = None
    offline: bool = False
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def examine(options: DoctorOptions = DoctorOptions()) -> list[Check]:
    """Every check, as it looks from `options.target`, in groups.

    Raises:
        OctcError: E104 no such target.
    """
    if options.target is not None and options.target not in TARGETS:
        hint = f"one of: {', '.join(TARGETS)}"
        raise OctcError("OCT-E104", f"unknown target {options.target!r}", hint=hint, place="--target")
    return [seen_from(check, options.target) for check in _all_checks(options)]


def _all_checks(options: DoctorOptions) -> list[Check]:
    """Every group, in the order in which they are shown; those that wait for other programs wait together."""
    groups: tuple[Callable[[DoctorOptions], list[Check]], ...] = (
        _packages,
        _cpu,
        _memory,
        _gpu,
        _runtimes,
        _sensors,
        _data,
        _network,
        _telemetry,
    )
    with ThreadPoolExecutor(len(groups)) as pool:
        return [check for found in pool.map(lambda group: group(options), groups) for check in found]


def _packages(options: DoctorOptions) -> list[Check]:
    group, python = "Python and packages", platform.python_version()
    old = sys.version_info < (3, 10)
    found = [Check(group, "problem" if old else "ok", f"Python {python}", "install Python 3.10 or newer" if old else "")]
    core = versions(("octc", "numpy", "pillow", "scipy", "rich", "typer"))
    found.append(Check(group, "ok", ", ".join(f"{name} {number}" for name, number in core.items())))
    without = {EXTRAS[m]: f"no {one.title} artifact runs here" for one in ENGINES.values() for m in one.needs if m in EXTRAS}
    without |= {"train": "no training here; bench works", "export": "no export here; bench works"}
    for extra in extras():
        if lacking := missing_modules(extra):
            text = f"{', '.join(lacking)} not installed ({without.get(extra, f'extra {extra}')})"
            needed = ("gpu",) if extra == "train" else ()
            found.append(Check(group, "warning", text, f"pip install 'octc[{extra}]'", "OCT-E901", needed))
        else:
            known = versions(tuple(map(distribution_of, modules_of(extra))))
            found.append(Check(group, "ok", f"extra {extra}: {', '.join(f'{n} {v}' for n, v in known.items())}"))
    for extra, modules in {**options.also, "yaml": modules_of("yaml")}.items():
        lacking = [name for name in modules if not have(name)]
        text = f"extra {extra}: {', '.join(lacking)} not installed" if lacking else f"extra {extra}"
        hint = f"pip install 'octc[{extra}]'" if lacking else ""
        found.append(Check(group, "warning" if lacking else "ok", text, hint, "OCT-E901" if lacking else None))
    return [*found, *_conflicts(group)]


def _conflicts(group: str) -> list[Check]:
    if not can_check():
        return [Check(group, "info", "versions are not checked against each other: packaging is not installed", "pip check")]
    found = [Check(group, "problem", c.message(), c.hint(), "OCT-E902") for c in find_conflicts()]
    for names in same_module():
        text = f"{' and '.join(names)} overwrite each other"
        found.append(Check(group, "warning", text, f"pip uninstall {names[0]}, then install {names[1]} again", "OCT-E902"))
    return found or [Check(group, "ok", "installed versions fit each other")]


def _cpu(options: DoctorOptions) -> list[Check]:
    machine = read_machine(gpus=False)
    kind = check_kind(platform.machine(), options.target)
    found = [*kind, *check_cpu(machine, os.environ, usable_threads(machine.cpus))]
    name = family_with(machine.isa, family_of(platform.machine()))
    if name is not None:
        found.append(Check("CPU", "info", f"{FAMILIES[name].title}: {'; '.join(lines_of(name))}"))
    return found


def _memory(options: DoctorOptions) -> list[Check]:
    return check_memory(options.run_dir, os.environ, trains=have("torch"))


def _gpu(_options: DoctorOptions) -> list[Check]:
    gpus = read_gpus()
    others = gpu_users() if gpus else None
    return check_gpu(gpus, versions(("torch",)).get("torch"), others, read_jetson()["jetpack"])


def explained(log: Path) -> list[Check]:
    """Checks that explain what pip, Python or TensorRT wrote into a file ("-": stdin) when it failed, the verdict first.

    Raises:
        OctcError: E107 no such file, or nothing in it.
    """
    if str(log) != "-" and not log.is_file():
        raise OctcError("OCT-E107", f"no file {log}", hint="pip install ... 2>&1 | tee FILE", place="--log")
    if str(log) != "-":
        with log.open("rb") as stream:
            data = _ends(stream)
    else:
        data = b"" if sys.stdin is None else _ends(sys.stdin.buffer)
    if not data.strip(b"\0 \r\n\t"):
        raise OctcError("OCT-E107", f"nothing in {log}", hint="pip install ... 2>&1 | tee FILE", place="--log")
    return explain_log(_text_of(data))


def _ends(stream: BinaryIO) -> bytes:
    """The bytes of a stream; of a long one its beginning and its end."""
    head, tail = stream.read(MOST_LOG), b""
    while block := stream.read(1 << 20):
        tail = (tail + block)[-MOST_LOG:]
    return head + tail


def _text_of(data: bytes) -> str:
    """A log as text: UTF-16 as PowerShell writes it (also without a mark), else UTF-8 with whatever is not."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    sample = data[:4096]
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(sample) > 3 and sample[start::2].count(0) > 0.4 * len(sample) / 2 and sample[1 - start :: 2].count(0) == 0:
            return data.decode(name, errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def _runtimes(options: DoctorOptions) -> list[Check]:
    group, closer = "Runtimes", options.target in ("tensorrt", "jetson")
    asked = {n: one for n, one in ENGINES.items() if one.asks and have(one.library) and not (closer and n == "tensorrt")}
    found = []
    with ThreadPoolExecutor(len(ENGINES)) as pool:
        for name, said in zip(asked, pool.map(ask, asked), strict=True):
            found.append(_engine(group, asked[name], said))
    here = [one.library for one in asked.values()]
    found += check_engines(platform.machine(), here)
    if all(one.on_gpu for one in asked.values()):
        text = "no inference engine is installed: nothing can be measured or predicted here"
        found.append(Check(group, "problem", text, "pip install 'octc[ort]'", "OCT-E901", matters=("x86",)))
    if closer:
        found += check_tensorrt(os.environ)
    elif "tensorrt" not in here:
        tool = shutil.which("trtexec") is not None
        text = "TensorRT: trtexec is here, the Python module is not" if tool else "TensorRT not installed"
        hint = "pip install 'octc[tensorrt]'   (on a Jetson it is part of JetPack)"
        found.append(Check(group, "info", text, hint, "OCT-E903", needed=("tensorrt", "jetson")))
    return [*found, *_artifacts(options, group)]


def _engine(group: str, engine: Target, said: dict[str, Any]) -> Check:
    name = engine.library
    if "slow" in said:
        hint = "octc doctor again when this machine is less busy"
        return Check(group, "warning", f"{name}: {said['slow']}", hint, "OCT-E903", (), engine.machines)
    if "error" in said:
        hint = f"pip install --force-reinstall {name}"
        return Check(
            group, "problem", f"{name} is installed and does not start: {said['error']}", hint, "OCT-E903", (), engine.machines
        )
    reads = f", reads ONNX up to opset {said['opset']}, IR {said['ir']}" if said.get("opset") else ""
    devices = (
        f" ({', '.join(device.removesuffix('ExecutionProvider') for device in said['devices'])})" if said["devices"] else ""
    )
    return Check(group, "ok", f"{name} {said['version']}{devices}{reads}")


def _artifacts(options: DoctorOptions, group: str) -> list[Check]:
    """The artifacts that `octc bench` would take, and which of them run here."""
    try:
        founds, words = find_artifacts(None, options.run_dir, os.environ)
    except OctcError as error:
        if error.code == "OCT-E107":
            return [Check(group, "info", "no artifact here yet", "octc export, or copy one to ./artifacts")]
        return [Check(group, "problem", error.message, error.hint, error.code)]
    checks = []
    for found in founds[:MOST]:
        reason = why_not(found.artifact)
        text = f"artifact {found.artifact.name} {'runs here' if reason is None else 'does not run here: ' + reason}"
        checks.append(Check(group, "ok" if reason is None else "info", text))
    if len(founds) > MOST:
        checks.append(Check(group, "info", f"… and {len(founds) - MOST} more artifacts"))
    if "passed over: " in words:
        text = f"damaged: {words.partition('passed over: ')[2]}"
        checks.append(Check(group, "problem", text, "copy it again from where it was made", "OCT-E501"))
    return checks


def _sensors(_options: DoctorOptions) -> list[Check]:
    return check_sensors()


def _data(options: DoctorOptions) -> list[Check]:
    try:
        named_root({} if options.data else os.environ)
    except OctcError as error:
        return [Check("Data", "problem", error.message, error.hint, error.code)]
    found = []
    for name, spec in DATASETS.items():
        if spec.default_root is None:
            continue
        try:
            root = find_root(name, options.data, os.environ)
        except OctcError as error:
            found.append(Check("Data", "info", f"{name} not here", error.hint, error.code))
            continue
        place = spec.default_root if str(root) == spec.default_root.removeprefix("./") else "where --data or OCTC_DATA says"
        runs = read_runs(options.run_dir, dataset=name)
        digest = str(runs[0][1].get("split_digest") or "") if runs else ""
        split = f"split {digest[:12]} of {runs[0][0].id}" if digest else "no run on it yet"
        found.append(Check("Data", "ok", f"{name}: {place}, {split}", f"octc data check {name}"))
    return found


def _network(options: DoctorOptions) -> list[Check]:
    found = check_network(os.environ, offline=options.offline)
    return [*found, _proof()] if options.offline else found


def _proof() -> Check:
    """Try to connect under the guard. It must be refused."""
    try:
        socket.create_connection(ELSEWHERE, timeout=0.5).close()
    except OctcError as error:
        return Check("Network", "ok", f"a connection was tried under --offline and refused ({error.code})")
    except OSError:
        pass
    return Check("Network", "problem", "a connection was tried under --offline and not refused", "report this", "OCT-E990")


def _telemetry(_options: DoctorOptions) -> list[Check]:
    installed = versions(tuple(name for one in DEPENDENCIES for name in one.names))
    return check_telemetry(installed, os.environ, sys.modules, Path(os.environ.get("HOME") or os.devnull))
