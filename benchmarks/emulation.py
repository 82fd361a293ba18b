"""The table of docs/edge-cpus.md: golden images and a sample of artifacts under emulated processors, beside this machine.

    sh benchmarks/arm64_root.sh DIR
    PATH=DIR/bin:$PATH python benchmarks/emulation.py ARTIFACT... --root DIR/arm64 --sample PICTURES

Answers only: emulation says nothing of speed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from octc.bench.parity.emulate import NATIVE, emulate, names_of
from octc.core.progress import LogReporter
from octc.schemas.verify import FleetRow

HEAD = (
    "| artifact | processor | engine | golden labels that differ | of the sample "
    "| largest difference of a logit, of their range | begins at |"
)


def cells(artifact: str, row: FleetRow) -> str:
    engine = " ".join(str(row.engine[key]) for key in ("runtime", "version", "cpu_isa") if key in row.engine)
    if row.delta_over_s is None:
        return f"| {artifact} | {row.box} | {engine} | | | | {row.short} |"
    begins = "rounding only" if row.first_layer is None else f"`{row.first_layer}` ({row.first_error:.1e})"
    short = "" if row.short is None else f"; SHORT: {row.short}"
    labels = f"{row.golden_labels} of {row.golden_images}"
    sample = "" if row.images is None else f"{row.labels} of {row.images}"
    return f"| {artifact} | {row.box} | {engine} | {labels} | {sample} | {row.delta_over_s:.1e} | {begins}{short} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--processors", default="cortex-a72,neoverse-n1,x86-64-v3")
    parser.add_argument("--sample", type=Path, help="pictures that every processor answers too")
    given = parser.parse_args()
    sys.stdout.write(HEAD + "\n" + "| --- " * 7 + "|\n")
    for folder in given.artifacts:
        found = emulate(folder, names_of(given.processors), given.root, LogReporter(), sample=given.sample)
        for row in found.rows:
            if row.box != NATIVE:
                sys.stdout.write(cells(found.artifact, row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
