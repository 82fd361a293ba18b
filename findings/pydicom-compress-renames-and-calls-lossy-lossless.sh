#!/usr/bin/env bash
# pydicom 3.0.2: lossless compress() gives the object another identity, and lossy compress() leaves "not lossy" in it.
#
# Guess, written down before the run: Dataset.compress with a lossless transfer syntax, and decompress, keep the SOP Instance UID
# (the pixels are the same: PS3.3 C.7.6.1.1.5 and PS3.4 ask for another one after lossy compression only); with JPEG-LS
# near-lossless the object gets a new UID and Lossy Image Compression 01.
#
# Seen on 2026-11-30: a new UID at each compress and each decompress, lossless ones too (generate_instance_uid is on by default), so
# a report, a segmentation or a label table that names the scan finds it no more, and the same scan counts twice. With
# jls_error=3 the pixels are up to 3 off and Lossy Image Compression is still 00: the object states that no lossy compression
# was ever applied. Pass generate_instance_uid=False where nothing is lost, and write Lossy Image Compression, Ratio and Method
# where something is (both are type 1 of an OPT object or depend on one).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 pydicom==3.0.2 pyjpegls==1.5.1
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    JPEGLSNearLossless,
    OphthalmicTomographyImageStorage,
    RLELossless,
    generate_uid,
)

scan = np.random.default_rng(0).normal(600, 200, (3, 64, 80)).clip(0, 4095).astype(np.uint16)


def made():
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = OphthalmicTomographyImageStorage, generate_uid()
    ds.NumberOfFrames, ds.Rows, ds.Columns = scan.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.LossyImageCompression = "00"
    ds.PixelData = scan.tobytes()
    return ds


for syntax, options, error in ((RLELossless, {}, 0), (JPEGLSLossless, {}, 0), (JPEGLSNearLossless, {"jls_error": 3}, 3)):
    ds = made()
    uids = [ds.SOPInstanceUID]
    ds.compress(syntax, **options)
    uids.append(ds.SOPInstanceUID)
    off = int(np.abs(ds.pixel_array.astype(int) - scan).max())
    ds.decompress()
    uids.append(ds.SOPInstanceUID)
    lossy = [ds.LossyImageCompression, ds.get("LossyImageCompressionRatio"), ds.get("LossyImageCompressionMethod")]
    print(f"{syntax.name}: off by {off}, UIDs of 3 that differ: {len(set(uids))}, lossy, ratio, method: {lossy}")
    assert off == error
    assert len(set(uids)) == 3 and lossy == ["00", None, None], "the behaviour changed"
kept = made()
before = kept.SOPInstanceUID
kept.compress(RLELossless, generate_instance_uid=False)
assert kept.SOPInstanceUID == before
PY
