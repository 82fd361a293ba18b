"""Fuzz the readers of volumes: altered bytes must end in a coded error or in frames, in bounded memory and time.

    pip install atheris
    python benchmarks/fuzz_volumes.py FORMAT [--seconds N] [--corpus DIR]

FORMAT: dicom, vol, xml, e2e, fda, fds, bioptigen, tiff or manifest. The corpus begins with drawn eyes in that format; what
atheris keeps of it lies in the folder, and stat::number_of_executed_units says how many inputs were tried. A finding ends the
run with its trace.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["octc.volumes"]):
    from octc.core.errors import OctcError
    from octc.datasets.synthetic import volumes as synthetic
    from octc.volumes import read_volume, read_volumes
    from octc.volumes.writing import JPEG_2000, RLE, write_opt, write_pictures

FORMATS = (*synthetic.WRITERS, "xml", "manifest")
MOST = 1 << 16  # bytes of an input


def seeds(kind: str, folder: Path) -> None:
    """Files of a format to begin with, and beside them what they name."""
    drawn = replace(synthetic.draw_eye_volume("CNV", 1, "L", frames=2, size=(64, 48)), patient="P")
    if kind == "xml":
        synthetic.write_xml(drawn, folder)
    elif kind == "manifest":
        synthetic.write_dicom(drawn, folder.parent / "seed.dcm")
        write_pictures(read_volume(folder.parent / "seed.dcm"), folder, force=True)
    else:
        ending, write = synthetic.WRITERS[kind]
        write(drawn, folder / f"seed{ending}")
    if kind == "dicom":
        volume = read_volume(folder / "seed.dcm")
        for name, syntax in (("rle", RLE), ("jpeg2000", JPEG_2000)):
            write_opt(volume, folder / f"{name}.dcm", syntax=syntax)
    if kind == "e2e":
        (folder / "both.e2e").write_bytes(synthetic.e2e_bytes([drawn, drawn]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        corpus = asked.corpus or Path(temporary) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        seeds(asked.format, corpus)
        place = Path(temporary) / ("volume.json" if asked.format == "manifest" else "input")
        for picture in (*corpus.glob("*.bmp"), *corpus.glob("*.png")):
            shutil.move(picture, place.parent / picture.name)

        def one(data: bytes) -> None:
            place.write_bytes(data)
            try:
                for volume in read_volumes(place, allow_cut=bool(len(data) % 2)):
                    for index in range(min(volume.frames, 2)):
                        volume.frame(index)
            except OctcError:
                return

        limits = [f"-max_total_time={asked.seconds}", f"-max_len={MOST}", "-timeout=20", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", "-verbosity=0", str(corpus)], one)
        atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
