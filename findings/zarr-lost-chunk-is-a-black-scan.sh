#!/usr/bin/env bash
# zarr 3.1.6: a B-scan whose file was lost is read as a black one.
#
# Guess, written down before the run: reading a volume of which one chunk file is missing (a copy that broke off, a wrong filter of
# rsync, an object store that lost one) is an error.
#
# Seen on 2026-12-01: the B-scan reads as zeros, without an exception or a warning; a chunk file that is cut short does raise. A chunk
# that was never written and one that is gone are the same thing in this format, and all-zero chunks are not written at all by
# default, so that the files alone cannot tell them apart. A classifier answers for the black scan, with a steady probability.
# Write with config={"write_empty_chunks": True}; then nchunks_initialized must equal nchunks, and this can be checked.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 zarr==3.1.6
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
from pathlib import Path

import numpy as np
import zarr

scans = np.ones((5, 8, 8), np.uint8) * np.arange(5, dtype=np.uint8)[:, None, None]


def written(name, **config):
    volume = zarr.create_array(name, shape=scans.shape, chunks=(1, 8, 8), dtype="uint8", **config)
    volume[:] = scans
    return zarr.open_array(name, mode="r")


volume = written("a.zarr")
print("as written", volume[:, 0, 0].tolist(), "chunk files", volume.nchunks_initialized, "of", volume.nchunks)
assert volume.nchunks_initialized == 4
Path("a.zarr/c/3/0/0").unlink()
volume = zarr.open_array("a.zarr", mode="r")
print("one file lost", volume[:, 0, 0].tolist(), "chunk files", volume.nchunks_initialized)
assert volume[:, 0, 0].tolist() == [0, 1, 2, 0, 4], "the behaviour changed"
assert not volume[3].any(), "the behaviour changed"
Path("a.zarr/c/2/0/0").write_bytes(Path("a.zarr/c/2/0/0").read_bytes()[:5])
try:
    zarr.open_array("a.zarr", mode="r")[2]
except Exception as error:
    print("cut short:", type(error).__name__)
else:
    raise AssertionError("a chunk that is cut short raises no more")
whole = written("b.zarr", config={"write_empty_chunks": True})
assert whole.nchunks_initialized == whole.nchunks == 5
PY
