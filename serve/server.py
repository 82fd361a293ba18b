"""The server: listens once all artifacts are checked, and shuts down without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.optional import need, need_wing
from octc.core.progress import LogReporter, Reporter
from octc.core.several import several
from octc.schemas.requests import GatewayOptions, ServeOptions
from octc.serve.doors import Doors, open_doors
from octc.serve.http.app import make_app
from octc.serve.http.predict import reloaded
from octc.serve.http.protocol import protocol_class
from octc.serve.logs import log
from octc.serve.rpc.server import start_rpc
from octc.serve.site import Site
from octc.serve.uploads import upload_root

CONNECTIONS = 1024  # maximum number of HTTP connections
BACKLOG = 128
GRACE = 30  # seconds to finish running requests at shutdown


def serve_artifacts(
    artifacts: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    options: ServeOptions | None = None,
    *,
    gateway: GatewayOptions | None = None,
    check: bool = False,
    environ: Mapping[str, str] = os.environ,
    reporter: Reporter | None = None,
) -> list[tuple[str, str]]:
    """Serve artifacts over HTTP and gRPC until SIGTERM or SIGINT; SIGHUP reads them again.

    Args:
        artifacts: folders of artifacts, or of runs (the artifact is then chosen as `octc predict` chooses). The first one
            answers requests that name no model.
        options: address, ports, threads, limits; None: `ServeOptions()`, on loopback only.
        gateway: receives volumes over DICOM or from a watched folder and sends reports of the first artifact; None: no gateway.
        check: return as soon as everything is ready, without serving.
        environ: its OCTC_SERVE_TOKEN is the clients' token, unless `options.token_file` is given.
        reporter: receives messages; None: the log `octc`.

    Returns: (name, version) of each artifact served at the end.

    Raises:
        OctcError: E901 the extra `serve` is not installed, E910 the address needs a token, E104 options, E906 an address or
            port that is taken; what `octc.load` raises for an artifact.

    >>> import octc
    >>> served = octc.serve(["artifacts/onnx-fp32"], octc.ServeOptions(port=0, http_only=True), check=True)
    >>> [name for name, version in served]
    ['onnx-fp32']
    """
    need_wing("serve")
    teller, options = reporter or LogReporter(), options or ServeOptions()
    doors = open_doors(options, environ, teller)
    with contextlib.ExitStack() as stack:
        hangup = stack.enter_context(_hangups_kept())
        root = stack.enter_context(upload_root(options.uploads))
        http = stack.enter_context(_listening(options.host, options.port))
        site = Site([Path(one) for one in several(artifacts)], options)
        stack.callback(site.close)
        for model in site.models:
            _tell(teller, model)
        if gateway is not None and (gateway.dicom is not None or gateway.watch is not None):
            from octc.serve.dicom.gateway import open_gateway

            opened = stack.enter_context(open_gateway(lambda: _answering(site), gateway, teller, environ))
            site.tell_faults(opened.faults)
        asyncio.run(_run(site, Doorway(doors, root, http, hangup, check), teller))
        return [(model.name, model.version) for model in site.models]


@dataclass(frozen=True)
class Doorway:
    """How clients connect. root: folder for uploads. http: the bound socket. hangup: set by a SIGHUP during the start. check:
    shut down immediately."""

    doors: Doors
    root: str
    http: socket.socket
    hangup: threading.Event
    check: bool = False


def _tell(reporter: Reporter, model: Any) -> None:
    golden = model.golden
    threads = f"{model.runtimes[0].facts['threads']} threads, {model.quickest.facts['threads']} for a lone request"
    reporter.say(
        f"  ✓ {model.name} {model.version}: {golden.images} golden images, delta over s {golden.delta_over_s:.1e} "
        f"(limit {golden.tolerance:g}); engines: {len(model.runtimes)} ({threads}), batches: {', '.join(map(str, model.sizes))}"
    )
    if not model.exact:
        reporter.say("    requests are not batched together: the last bits of the engine's outputs depend on the batch size")


@contextlib.contextmanager
def _answering(site: Site) -> Iterator[Any]:
    """The first artifact for one volume, kept open until the end of the context; after a reload it is the new one."""
    from octc.serve.dicom.answers import Answering
    from octc.serve.dicom.gateway import Answerer

    with site.use() as model:
        facts = model.quickest.facts
        engine = f"{facts['runtime']} {facts['version']}"
        watch = partial(site.watch, model)
        yield Answerer(Answering(model.artifact, model.sha256, engine), site.engine(model), watch)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket (OctcError E906: the address or port is not available)."""
    bound = False
    try:
        family, address = _address(host, port)
        with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as found:  # 0: Nagle stays on, 40 ms
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            bound = True
            yield found
    except OSError as error:
        if bound:
            raise
        raise _taken(host, port, error) from error


def _taken(host: str, port: int, error: OSError) -> OctcError:
    text = f"cannot listen at {host}, port {port}: {error.strerror}"
    hint = "--port with a free one (0: any), --host with an address of this machine"
    return OctcError("OCT-E906", text, hint=hint)


def _address(host: str, port: int) -> tuple[int, Any]:
    """Address family and address to bind; numeric addresses need no name resolution."""
    if host == "localhost":
        return socket.AF_INET, ("127.0.0.1", port)
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return family, address
    return (socket.AF_INET, (host, port)) if version == 4 else (socket.AF_INET6, (host, port, 0, 0))


async def _run(site: Site, way: Doorway, reporter: Reporter) -> None:
    """Serve until a signal stops the server."""
    stop = asyncio.Event()
    rpc = None if site.options.http_only else await start_rpc(site, way.doors)
    server = _http_server(make_app(site, way.doors, way.root), site, way.doors)
    with _signals(site, stop, way.hangup):
        running = asyncio.create_task(server.serve(sockets=[way.http]))
        while not server.started and not running.done():
            await asyncio.sleep(0.01)
        if running.done():  # it never listened
            if rpc is not None:
                await rpc.stop(0)
            await _not_listening(running, site)
        _ready(site, way, None if rpc is None else rpc.port, reporter)
        if way.check:
            stop.set()
        await asyncio.wait([running, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        log("stopping")
        server.should_exit = True
        if rpc is not None:
            await rpc.stop(GRACE)
        await running
    log("stopped")


async def _not_listening(running: asyncio.Task[None], site: Site) -> None:
    """Why a server ended before it was ready: two may bind one port as long as neither listens."""
    try:
        await running
    except OSError as error:
        raise _taken(site.options.host, site.options.port, error) from error


def _http_server(app: Any, site: Site, doors: Doors) -> Any:
    uvicorn = need("uvicorn")

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        """A server without signal handlers: this module handles signals."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    tls = {} if doors.cert is None else {"ssl_certfile": site.options.tls_cert, "ssl_keyfile": site.options.tls_key}
    return Server(
        uvicorn.Config(
            app,
            http=protocol_class(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=GRACE,
            **tls,
        )
    )


@contextlib.contextmanager
def _hangups_kept() -> Iterator[threading.Event]:
    """SIGHUP during the start or the shutdown does not end the process (in the main thread); the event says that it came.
    systemd takes an end by SIGHUP for a wanted one, and would not restart the server."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGHUP, lambda *_: came.set())
    try:
        yield came
    finally:
        signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def _signals(site: Site, stop: asyncio.Event, hangup: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT stop the server, SIGHUP reloads the artifacts; only in the main thread."""
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked = threading.Event()
    turn = threading.Lock()

    def again() -> None:
        def work() -> None:
            with turn, contextlib.suppress(OctcError):  # logged; the old artifacts stay in use
                asked.clear()
                reloaded(site, wait=True)

        if not asked.is_set():  # else the waiting reload will read the current files
            asked.set()
            loop.run_in_executor(None, work)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    kept = signal.getsignal(signal.SIGHUP)
    loop.add_signal_handler(signal.SIGHUP, again)
    if hangup.is_set():
        again()
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGHUP, kept)


def _ready(site: Site, way: Doorway, rpc: int | None, reporter: Reporter) -> None:
    host = f"[{site.options.host}]" if ":" in site.options.host else site.options.host
    address = f"{'http' if way.doors.cert is None else 'https'}://{host}:{way.http.getsockname()[1]}"
    grpc = None if rpc is None else f"{host}:{rpc}"
    log("ready", http=address, grpc=grpc, models=[f"{one.name} {one.version}" for one in site.models])
    reporter.say(f"page and REST: {address}" + ("" if grpc is None else f"; gRPC: {grpc}") + " (not a medical device)")
