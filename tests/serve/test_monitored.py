"""`octc serve --monitor`: uploads and volumes from a folder come into the store that `octc monitor` reads, each once."""

from __future__ import annotations

import shutil
from pathlib import Path

import octc
from octc.datasets.synthetic.volumes import write_volumes
from octc.imaging.input_statistics import ORDER
from octc.store.monitor_store import open_store
from octc.store.runs import Run
from tests.serve.dicom.peers import until
from tests.serve.process import serving


def test_what_a_server_answers_is_watched(warm: tuple[str, ...], run: Run, pictures: list[Path], tmp_path: Path) -> None:
    artifact, store, drop = run.artifacts / "onnx-int8", tmp_path / "box.sqlite", tmp_path / "drop"
    write_volumes(tmp_path / "clinic", ("dicom",), patients=1, frames=3)
    volumes = sorted((tmp_path / "clinic").glob("*.dcm"))
    drop.mkdir()
    words = ("--monitor", store, "--watch", drop, "--spool", tmp_path / "spool", "--report-to", tmp_path / "reports")
    with serving(warm, artifact, *words) as found, found.client() as client:
        for path in (*pictures[:5], *pictures[:2], volumes[0]):  # two of them twice
            assert client.post("/v1/predict", files={"file": (path.name, path.read_bytes())}).status_code == 200
        shutil.copy(volumes[0], drop / "again.dcm")  # the same bytes by another door
        shutil.copy(volumes[1], drop / "other.dcm")
        until(lambda: len(list((tmp_path / "reports").glob("*.dcm"))) == 2)
    report = octc.monitor(artifact, store, options=octc.MonitorOptions(replay=False))
    assert report.eyes == 5 + 2
    with open_store(store) as kept:
        rows = kept.seen(report.artifact_sha256)
    assert all(set(ORDER) <= set(row.sketch) for row in rows)
    assert not any(path.stem.encode() in store.read_bytes() for path in (*pictures[:5], *volumes))
