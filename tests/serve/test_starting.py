"""What comes while a server is opening its artifacts: another server at its port, a signal; and what a reload leaves behind."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import octc
from octc.core.errors import OctcError
from octc.core.progress import LogReporter
from octc.schemas.requests import ServeOptions
from octc.serve import models
from octc.serve.logs import start_log
from octc.serve.server import serve_artifacts
from octc.serve.site import Site
from octc.store.artifacts import artifact_sha256
from octc.store.rewriting import rewrite_details
from octc.store.runs import Run
from tests.tiny_artifacts import copied

OPTIONS = {"http_only": True, "instances": 1, "max_batch": 1}


class Opening(LogReporter):
    """Does something when the first artifact is open: the port is bound then, and nobody listens yet."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work: Callable[[], None] | None = work

    def say(self, text: str) -> None:
        if "golden images" in text and self._work is not None:
            self._work, work = None, self._work
            work()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    start_log(stream)
    yield stream
    start_log()


def events(log: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in log.getvalue().splitlines()]


def test_of_two_servers_that_start_at_one_port_the_later_one_says_so(run: Run, log: io.StringIO) -> None:
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        options = ServeOptions(port=other.getsockname()[1], **OPTIONS)
        with pytest.raises(OctcError) as caught:
            serve_artifacts(run.artifacts / "onnx-int8", options, environ={}, reporter=Opening(other.listen))
    assert caught.value.code == "OCT-E906"
    assert "ready" not in events(log)


def test_a_hangup_before_the_server_is_ready_reads_the_artifacts_again(run: Run, log: io.StringIO) -> None:
    """To systemd an end by SIGHUP is a wanted one: it would not start the server again."""
    before = signal.getsignal(signal.SIGHUP)
    opening = Opening(lambda: os.kill(os.getpid(), signal.SIGHUP))
    served = octc.serve(run.artifacts / "onnx-int8", ServeOptions(port=0, **OPTIONS), check=True, environ={}, reporter=opening)
    assert [name for name, _ in served] == ["onnx-int8"]
    assert events(log).count("reloaded") == 1
    assert signal.getsignal(signal.SIGHUP) is before


def test_artifacts_of_before_a_reload_are_let_go(run: Run) -> None:
    with closing(Site([run.artifacts / "onnx-int8"], ServeOptions(port=0, **OPTIONS))) as site:
        with site.use() as model:
            old = weakref.ref(model)
            site.reload()
        del model
        gc.collect()
        assert old() is None
        with site.use() as model:
            assert model in site.models


def test_a_model_is_called_by_what_was_opened_though_another_lies_there_by_then(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports and the monitor name the artifact that answered; while its batches are tried the folder may be replaced."""
    folder = copied(run, "onnx-int8", tmp_path)
    before, exact = artifact_sha256(folder), models._is_exact

    def meanwhile(*given: Any) -> bool:
        rewrite_details(folder, {"temperature": 1.5})
        return exact(*given)

    monkeypatch.setattr(models, "_is_exact", meanwhile)
    with closing(Site([folder], ServeOptions(port=0, **OPTIONS))) as site:
        (model,) = site.models
        assert (model.sha256, model.version) == (before, before[:12])
    assert artifact_sha256(folder) != before
