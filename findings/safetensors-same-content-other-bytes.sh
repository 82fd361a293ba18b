#!/usr/bin/env bash
# safetensors 0.8.0: saving the same tensors with the same metadata gives other bytes each time.
#
# Guess, written down before the run: save() of the same tensors and the same metadata is deterministic (without
# metadata it is, and tensors are sorted), so the SHA-256 of a file names its content.
#
# Seen on 2026-11-29: 20 saves in one process with eight metadata keys gave 20 different digests; the keys of
# __metadata__ are written in the random order of a hash map. With no metadata, or one key, there is one digest. So a
# digest of the file is no name for a network: hash the tensors and the sorted metadata, or keep one metadata key that
# holds a document.
#
# Source: safetensors/safetensors issue 584 and pull request 790, both open.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import hashlib
import numpy as np
from safetensors.numpy import load, save

tensors = {name: np.arange(4, dtype=np.float32) for name in "abcdef"}


def digests(metadata):
    return len({hashlib.sha256(save(tensors, metadata)).hexdigest() for _ in range(20)})


none, one, eight = digests(None), digests({"a": "1"}), digests({name: "1" for name in "abcdefgh"})
print("digests of 20 saves: no metadata", none, "one key", one, "eight keys", eight)
assert all(np.array_equal(load(save(tensors, {"a": "1"}))[name], tensors[name]) for name in tensors)
assert none == 1 and one == 1
assert eight > 1, "the behaviour changed"
EOF
