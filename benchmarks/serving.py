"""What serving costs beside the engine, and beside other servers of the same file: latency, throughput, overload, a long run.

    python benchmarks/serving.py ARTIFACT IMAGE [--rounds 5] [--seconds 4] [--others PYTHON | --alone]
    python benchmarks/serving.py ARTIFACT IMAGE --alone --rounds 0 --overload 20 --soak 600

ARTIFACT is an ONNX artifact, IMAGE an image that it can answer. The servers listen at loopback and stand side by side; one
is asked at a time, in turns (ABBA), beside the engine in this process with the threads that the server gives a lone request:

- `overhead_ms`: the median answer time of one client with the prepared tensor (KServe v2, raw bytes), less that of the engine;
- `of_offline`: images a second of eight clients with the prepared tensor, over those of the engine alone at the best of the
  batches that `octc bench --scenario offline` tries;
- `file_vs_*`: images a second of eight clients that upload the image as it is, over those of a plain FastAPI server
  (an `async def` that opens the upload with Pillow, resizes it, runs onnxruntime; `fastapi_threads`: a `def`, which FastAPI
  runs in threads) and of LitServe with its defaults; `tensor_vs_*`: the same with the prepared tensor, to them as JSON
  (`fastapi_raw`: as bytes that an `async def` reshapes, which no tutorial does and which is the least that a server can do).

The other servers live in a virtual environment that is made for the run and goes with it, or in --others PYTHON, which has
fastapi, litserve, python-multipart, pillow and onnxruntime. Ratios are medians over the rounds, each of neighbours in time.
--overload N: requests for N seconds at four times the rate that was answered; --soak N: eight clients for N seconds, with
tensors, files and gRPC, the server's memory once a second. Prints one JSON line, and what it does on stderr.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import pickle
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from octc.bench.timing.measure import OFFLINE_BATCHES
from octc.imaging.decode import read_image
from octc.runtimes.base import Runtime
from octc.runtimes.registry import open_runtime
from octc.schemas.requests import ServeOptions
from octc.serve.models import share_of
from octc.store.artifacts import Artifact, read_artifact

CLIENTS = 8
TIMES = 4  # the capacity, for --overload
PATIENCE = 30.0  # seconds that a client waits for an answer
PACKAGES = ("fastapi", "litserve", "python-multipart", "pillow", "uvicorn[standard]")
KINDS = ("fastapi", "fastapi_threads", "fastapi_raw", "litserve")

COMMON = """
import io, json, sys
from pathlib import Path
import numpy as np, onnxruntime
from PIL import Image
folder, port = Path(sys.argv[1]), int(sys.argv[2])
manifest = json.loads((folder / "artifact.json").read_text())
classes, pre = manifest["classes"], manifest["preprocess"]
size, mode = pre["size"], "L" if pre["channels"] == 1 else "RGB"
def prepare(data):
    array = np.asarray(Image.open(io.BytesIO(data)).convert(mode).resize((size, size)), np.uint8)
    return array[None, None] if array.ndim == 2 else array.transpose(2, 0, 1)[None].copy()
def answer(logits):
    levels = np.exp(logits[0] - logits[0].max())
    return {"label": classes[int(levels.argmax())], "probabilities": (levels / levels.sum()).tolist()}
"""
FASTAPI = (
    COMMON
    + """
import uvicorn
from fastapi import FastAPI, File, Request, UploadFile
from pydantic import BaseModel
app = FastAPI()
session = onnxruntime.InferenceSession(str(folder / manifest["main_file"]))
name = session.get_inputs()[0].name
class Tensor(BaseModel):
    data: list
@app.post("/predict")
async def predict(file: UploadFile = File(...)):
    return answer(session.run(None, {name: prepare(await file.read())})[0])
@app.post("/predict_threads")
def predict_threads(file: UploadFile = File(...)):
    return answer(session.run(None, {name: prepare(file.file.read())})[0])
@app.post("/tensor")
async def tensor(item: Tensor):
    return answer(session.run(None, {name: np.array(item.data, np.uint8)})[0])
@app.post("/raw")
async def raw(request: Request):
    return answer(session.run(None, {name: np.frombuffer(await request.body(), np.uint8).reshape(1, -1, size, size)})[0])
@app.post("/tensor_threads")
def tensor_threads(item: Tensor):
    return answer(session.run(None, {name: np.array(item.data, np.uint8)})[0])
uvicorn.run(app, host="127.0.0.1", port=port)
"""
)
LITSERVE = (
    COMMON
    + """
import base64
import litserve
class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.session = onnxruntime.InferenceSession(str(folder / manifest["main_file"]))
        self.name = self.session.get_inputs()[0].name
    def decode_request(self, request):
        if "image" in request:
            return prepare(base64.b64decode(request["image"]))
        return np.array(request["data"], np.uint8)
    def predict(self, batch):
        return self.session.run(None, {self.name: batch})[0]
    def encode_response(self, logits):
        return answer(logits)
if __name__ == "__main__":
    litserve.LitServer(Classifier()).run(host="127.0.0.1", port=port, generate_client_file=False)
"""
)


Ask = Callable[..., tuple["Counts", float]]  # name of LOOPS, targets, further arguments


@dataclass(frozen=True)
class Target:
    """Where a request goes, and its bytes."""

    port: int
    data: bytes


@dataclass
class Counts:
    """What clients saw: answers by status (0: the connection ended before an answer), times of the answers of 200, s."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    unkind: int = 0  # refusals without Retry-After or without a reason

    def add(self, other: Counts) -> None:
        self.statuses.update(other.statuses)
        self.seconds += other.seconds
        self.unkind += other.unkind


def http(path: str, body: bytes, kind: str, **headers: str | int) -> bytes:
    """A POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def form(path: str, data: bytes, name: str) -> bytes:
    """A POST request with a file in a form."""
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return http(path, head + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")


def kserve(name: str, images: np.ndarray) -> bytes:
    """A POST request for inference with the tensor as bytes; the logits come as bytes too."""
    one = {"name": "image", "shape": images.shape, "datatype": "UINT8", "parameters": {"binary_data_size": images.nbytes}}
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [one], "outputs": outputs}).encode()
    body = head + images.tobytes()
    path = f"/v2/models/{name}/infer"
    return http(path, body, "application/octet-stream", Inference_Header_Content_Length=len(head))


class Line:
    """One client: a connection that is kept while the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, data: bytes) -> tuple[int, bytes]:
        """(status, head); status 0 where the connection ended before an answer."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before the body was read: the answer may be here
                self._socket.sendall(data)
            head, status = self._answer()
        except OSError:
            head, status = b"", 0
        if not status or b"connection: close" in head.lower():
            self.close()
        return status, head

    def _answer(self) -> tuple[bytes, int]:
        assert self._socket is not None
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := self._socket.recv(65536)):
                return b"", 0
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        left = length - len(body)
        while left > 0 and (more := self._socket.recv(min(left, 65536))):
            left -= len(more)
        return head, int(head.split(b" ", 2)[1])

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def ask_until(targets: Sequence[Target], end: float, found: Counts) -> None:
    """One client, request after request, the targets in turn."""
    lines = {target.port: Line(target.port) for target in targets}
    number = 0
    while time.monotonic() < end:
        target = targets[number % len(targets)]
        begun = time.perf_counter()
        status, _ = lines[target.port].ask(target.data)
        found.statuses[status] += 1
        if status == 200:
            found.seconds.append(time.perf_counter() - begun)
        number += 1
    for line in lines.values():
        line.close()


def closed_loop(targets: Sequence[Target], clients: int, seconds: float) -> tuple[Counts, float]:
    """So many clients at once, each asks when it has its answer; what they saw, and how long it took."""
    parts = [Counts() for _ in range(clients)]
    begun = time.monotonic()
    threads = [threading.Thread(target=ask_until, args=(targets, begun + seconds, part)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Counts()
    for part in parts:
        found.add(part)
    return found, time.monotonic() - begun


def open_loop(targets: Sequence[Target], rate: float, seconds: float, lines: int) -> tuple[Counts, float]:
    """Requests at a rate, whether they are answered or not, on at most so many connections at once."""
    count, lock, total = int(rate * seconds), threading.Lock(), Counts()
    numbers = iter(range(count))
    begun = time.monotonic()

    def work() -> None:
        line = Line(targets[0].port)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            start = time.perf_counter()
            status, head = line.ask(targets[0].data)
            spent = time.perf_counter() - start
            with lock:
                total.statuses[status] += 1
                total.seconds += [spent] if status == 200 else []
                total.unkind += status == 429 and b"retry-after:" not in head.lower()
        line.close()

    threads = [threading.Thread(target=work) for _ in range(lines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total, time.monotonic() - begun


LOOPS = {"closed": closed_loop, "open": open_loop}


@contextmanager
def client_process() -> Iterator[Ask]:
    """A process for the clients, whose work takes no time of this interpreter's lock: calls of LOOPS by name."""
    words = [sys.executable, str(Path(__file__).resolve()), "clients"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    pipes = process.stdin, process.stdout

    def ask(loop: str, targets: Any, *more: Any) -> tuple[Counts, float]:
        pickle.dump((loop, [(one.port, one.data) for one in targets], more), pipes[0])
        pipes[0].flush()
        statuses, seconds, unkind, spent = pickle.load(pipes[1])
        return Counts(Counter(statuses), seconds, unkind), spent

    with process:
        yield ask
        process.stdin.close()


def answer_asks() -> None:
    """The other end of `client_process`."""
    while True:
        try:
            loop, targets, more = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        found, spent = LOOPS[loop]([Target(*one) for one in targets], *more)
        pickle.dump((dict(found.statuses), found.seconds, found.unkind, spent), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def tell(text: str) -> None:
    sys.stderr.write(text + "\n")


@contextmanager
def running(words: list[str], port: int, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a process group of its own, from when it listens; its output goes to a file."""
    with (place / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=place, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{words[:3]} does not listen: {(place / f'{port}.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def own_python(place: Path) -> str:
    """An interpreter with the other servers."""
    tell("a virtual environment for the other servers ...")
    venv.create(place / "venv", with_pip=True)
    python = str(place / "venv/bin/python")
    words = [*PACKAGES, f"onnxruntime=={version('onnxruntime')}", f"numpy=={np.__version__}"]
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *words], check=True, stdout=sys.stderr)
    return python


@dataclass(frozen=True)
class Stage:
    """What is measured: the engine in this process, the servers by what is sent to them.

    rest: pid of `octc serve`. requests: kind -> target. grpc: its port.
    """

    artifact: Artifact
    runtime: Runtime
    images: np.ndarray
    pid: int
    requests: dict[str, Target]
    grpc: int


@contextmanager
def stage(chosen: argparse.Namespace, place: Path) -> Iterator[Stage]:
    """All servers, each warm."""
    artifact = read_artifact(chosen.artifact)
    images = artifact.preprocess.prepare(read_image(chosen.image).image)[:1]
    data, name = chosen.image.read_bytes(), chosen.image.name
    port, rpc = free_port(), free_port()
    words = [sys.executable, "-m", "octc.cli._app.main", "serve", str(chosen.artifact), "--port", str(port)]
    requests = {
        "tensor": Target(port, kserve(artifact.name, images)),
        "file": Target(port, form("/v1/predict", data, name)),
    }
    as_json = json.dumps({"data": images.tolist()}).encode()
    with ExitStack() as stack:
        octc = stack.enter_context(running([*words, "--grpc-port", str(rpc)], port, place))
        if not chosen.alone:
            python = chosen.others or own_python(place)
            for title, text in (("plain", FASTAPI), ("lit", LITSERVE)):
                (place / f"{title}_server.py").write_text(text)
            fast, lit = free_port(), free_port()
            for title, other in (("plain", fast), ("lit", lit)):
                stack.enter_context(running([python, f"{title}_server.py", str(chosen.artifact), str(other)], other, place))
            picture = json.dumps({"image": base64.b64encode(data).decode()}).encode()
            kind = "application/json"
            requests |= {
                "file_fastapi": Target(fast, form("/predict", data, name)),
                "file_fastapi_threads": Target(fast, form("/predict_threads", data, name)),
                "file_litserve": Target(lit, http("/predict", picture, kind)),
                "tensor_fastapi": Target(fast, http("/tensor", as_json, kind)),
                "tensor_fastapi_threads": Target(fast, http("/tensor_threads", as_json, kind)),
                "tensor_fastapi_raw": Target(fast, http("/raw", images.tobytes(), "application/octet-stream")),
                "tensor_litserve": Target(lit, http("/predict", as_json, kind)),
            }
        runtime = open_runtime(chosen.artifact, artifact, threads=share_of(ServeOptions()).alone)
        for key, target in requests.items():
            statuses = closed_loop([target], 2, 1.0)[0].statuses
            if set(statuses) != {200}:
                sys.exit(f"{key}: {dict(statuses)}; {(place / f'{target.port}.log').read_text()[-2000:]}")
        yield Stage(artifact, runtime, images, octc.pid, requests, rpc)
        runtime.close()


def engine_rate(stage: Stage, batch: int, seconds: float) -> float:
    """Images a second of the engine in this process."""
    images, count = np.repeat(stage.images, batch, 0), 0
    begun = time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        stage.runtime(images)
        count += batch
    return count / spent


def engine_seconds(stage: Stage, count: int) -> list[float]:
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        stage.runtime(stage.images)
        found.append(time.perf_counter() - begun)
    return found


def latency(stage: Stage, ask: Ask, rounds: int, seconds: float) -> dict[str, float]:
    """Milliseconds of an answer to one client, and of the engine in this process, in turns."""
    served, alone, over = [], [], []
    for _ in range(4 * rounds):
        found, _ = ask("closed", [stage.requests["tensor"]], 1, seconds / 4)
        pair = statistics.median(found.seconds), statistics.median(engine_seconds(stage, max(10, len(found.seconds))))
        served.append(pair[0])
        alone.append(pair[1])
        over.append(pair[0] - pair[1])
    values = {"served_p50_ms": served, "engine_p50_ms": alone, "overhead_ms": over}
    return {name: round(1000 * statistics.median(one), 3) for name, one in values.items()}


def throughput(stage: Stage, ask: Ask, rounds: int, seconds: float) -> dict[str, Any]:
    """Images a second of every kind, in turns, and ratios within each round."""
    rates = {batch: engine_rate(stage, batch, 0.5) for batch in OFFLINE_BATCHES}
    best = max(rates, key=rates.__getitem__)
    found: dict[str, list[float]] = {kind: [] for kind in ("offline", *stage.requests)}
    for number in range(rounds):
        for kind in list(found) if number % 2 == 0 else list(found)[::-1]:
            found[kind].append(engine_rate(stage, best, seconds) if kind == "offline" else _asked(stage, ask, kind, seconds))
        tell(f"round {number + 1}: " + ", ".join(f"{kind} {one[-1]:.1f}" for kind, one in found.items()))
    ratios = {"of_offline": _ratio(found["tensor"], found["offline"])}
    for form_ in ("file", "tensor"):
        for kind in KINDS:
            if f"{form_}_{kind}" in found:
                ratios[f"{form_}_vs_{kind}"] = _ratio(found[form_], found[f"{form_}_{kind}"])
    return {
        **ratios,
        "offline_batch": best,
        **{f"{kind}_images_s": round(statistics.median(one), 1) for kind, one in found.items()},
    }


def _asked(stage: Stage, ask: Ask, kind: str, seconds: float) -> float:
    found, spent = ask("closed", [stage.requests[kind]], CLIENTS, seconds)
    if set(found.statuses) != {200}:
        sys.exit(f"{kind}: {dict(found.statuses)}")
    return found.statuses[200] / float(spent)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(ours, theirs, strict=True)), 3)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


class Watch:
    """Resident memory of a process, once a second; leaving it ends it."""

    def __init__(self, pid: int) -> None:
        self.seen: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(pid,))

    def _look(self, pid: int) -> None:
        while not self._over.wait(1.0):
            self.seen.append(resident_mb(pid))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def overload(stage: Stage, ask: Ask, seconds: float) -> dict[str, Any]:
    """Four times what was answered, whether it is answered or not; and whether the server answers as before afterwards."""
    target = stage.requests["tensor"]
    before, spent = ask("closed", [target], CLIENTS, 5.0)
    rate = TIMES * before.statuses[200] / spent
    with Watch(stage.pid) as watch:
        found, took = ask("open", [target], rate, seconds, 512)
    after, spent_after = ask("closed", [target], CLIENTS, 5.0)
    return {
        "overload_rate_s": round(rate, 1),
        "overload_sent_s": round(sum(found.statuses.values()) / took, 1),
        "overload_statuses": {str(status): count for status, count in sorted(found.statuses.items())},
        "overload_unkind": found.unkind,
        "overload_answered_of_capacity": round(found.statuses[200] / took / (before.statuses[200] / spent), 3),
        "overload_p50_ms": round(1000 * statistics.median(found.seconds), 1) if found.seconds else None,
        "overload_memory_mb": round(max(watch.seen) - watch.seen[0], 1) if watch.seen else None,
        "after_overload_statuses": {str(status): count for status, count in after.statuses.items()},
        "after_overload_of_before": round(after.statuses[200] / spent_after / (before.statuses[200] / spent), 3),
    }


def soak(stage: Stage, ask: Ask, seconds: float) -> dict[str, Any]:
    """Eight clients with tensors and files, one with gRPC: requests that had no answer of 200, growth of memory.

    The growth is that of the median of the last tenth over the median of the second tenth: the first one warms up.
    """
    over = threading.Event()
    rpcs: Counter[str] = Counter()
    thread = threading.Thread(target=_rpc, args=(stage, over, rpcs))
    thread.start()
    targets = [stage.requests[kind] for kind in ("tensor", "tensor", "tensor", "file")]
    with Watch(stage.pid) as watch:
        found, spent = ask("closed", targets, CLIENTS, seconds)
    over.set()
    thread.join()
    tenth = max(1, len(watch.seen) // 10)
    growth = statistics.median(watch.seen[-tenth:]) - statistics.median(watch.seen[tenth : 2 * tenth] or watch.seen)
    sent = sum(found.statuses.values()) + sum(rpcs.values())
    return {
        "soak_s": round(spent, 1),
        "soak_requests": sent,
        "soak_lost": sent - found.statuses[200] - rpcs["OK"],
        "soak_memory_growth_mb": round(growth, 1),
        "soak_memory_mb": round(watch.seen[-1], 1),
    }


def _rpc(stage: Stage, over: threading.Event, counts: Counter[str]) -> None:
    import tritonclient.grpc

    client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{stage.grpc}")
    one = tritonclient.grpc.InferInput("image", list(stage.images.shape), "UINT8")
    one.set_data_from_numpy(stage.images)
    while not over.wait(0.05):
        try:
            client.infer(stage.artifact.name, [one])
            counts["OK"] += 1
        except tritonclient.grpc.InferenceServerException as error:
            counts[str(error.status())] += 1
    client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="0: neither latency nor throughput")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each kind in a round")
    parser.add_argument("--others", help="an interpreter that has the other servers")
    parser.add_argument("--alone", action="store_true", help="without other servers")
    parser.add_argument("--overload", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS")
    chosen = parser.parse_args()
    chosen.artifact, chosen.image = chosen.artifact.resolve(), chosen.image.resolve()
    share = share_of(ServeOptions())
    result: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="octc-") as name,
        stage(chosen, Path(name)) as found,
        client_process() as ask,
    ):
        if chosen.rounds:
            result |= latency(found, ask, chosen.rounds, chosen.seconds)
            result |= throughput(found, ask, chosen.rounds, chosen.seconds)
        if chosen.overload:
            result |= overload(found, ask, chosen.overload)
        if chosen.soak:
            result |= soak(found, ask, chosen.soak)
        facts = found.runtime.facts
    conditions = {
        "engine": f"{facts['runtime']} {facts['version']}",
        "engines": share.lanes,
        "threads": [share.threads, share.alone],
        "clients": CLIENTS,
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "load": round(os.getloadavg()[1], 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    }
    sys.stdout.write(json.dumps({**result, **conditions}) + "\n")


if __name__ == "__main__":
    answer_asks() if sys.argv[1:] == ["clients"] else main()
