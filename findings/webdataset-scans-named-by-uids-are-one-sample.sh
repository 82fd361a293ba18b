#!/usr/bin/env bash
# webdataset 1.0.2: a shard of scans that are named by their DICOM UIDs is one single sample.
#
# Guess, written down before the run: TarWriter with the SOP Instance UID as __key__, a picture and a class writes one sample a scan, and
# WebDataset reads as many; or the writer refuses a key with dots.
#
# Seen on 2026-12-01: five scans are written without a word and read as one sample with the key "1", which has ten fields named like
# "2.276.0.75.2.2.42.100.png" and no field "png" or "cls". Everything behind the first dot of a name is taken for the extension,
# and files that follow each other with the same rest are one sample. All UIDs begin with "1." or "2.". to_tuple("png", "cls")
# over such a shard ends in an error, or with a handler that skips what cannot be used in no sample at all: beside shards with
# other names, these scans are missing from the training and nothing says so. Put other characters in place of the dots.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 pillow==13.0.0 braceexpand==0.1.7 PyYAML==6.0.4 webdataset==1.0.2
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import numpy as np
import webdataset as wds


def keys(names, file):
    with wds.TarWriter(file) as shard:
        for number, name in enumerate(names):
            shard.write({"__key__": name, "png": np.full((4, 4, 3), number / 9, np.float32), "cls": number % 4})
    samples = list(wds.WebDataset(file, shardshuffle=False))
    usable = list(wds.WebDataset(file, shardshuffle=False).to_tuple("png", "cls", handler=wds.ignore_and_continue))
    print(file, "samples", [sample["__key__"] for sample in samples], "with png and cls:", len(usable), sorted(samples[0])[:4])
    return [sample["__key__"] for sample in samples], len(usable)


assert keys([f"scan-{number}" for number in range(5)], "plain.tar") == ([f"scan-{number}" for number in range(5)], 5)
uids = [f"1.2.276.0.75.2.2.42.{number}" for number in range(100, 105)]
assert keys(uids, "uids.tar") == (["1"], 0), "the behaviour changed"
PY
