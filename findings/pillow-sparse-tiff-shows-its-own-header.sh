#!/usr/bin/env bash
# Pillow 13.0.0: a strip of a TIFF that is nowhere in the file shows the first bytes of that file as its pixels.
#
# Guess, written down before the run: strips of a sparse TIFF (GDAL's SPARSE_OK: place 0 and size 0, nothing is stored) are
# black, or an error; one that is not compressed is read like one that is.
#
# Seen on 2026-12-02: of 64 x 64 pixels in two strips, the second of place and size 0, tifffile 2026.3.3 gives zeros below.
# Pillow gives the file from its first byte on ("II*" and what follows) where nothing is compressed, without a warning, and
# refuses the same page in deflate. A size that is smaller than the pixels is not looked at either: what lies behind the
# strip is shown. Compare places and sizes of plain strips with the size of the page before you trust it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow==13.0.0 tifffile==2026.3.3
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import io
import struct
import numpy as np
import tifffile
from PIL import Image

scan = (np.arange(64 * 64) % 199 + 50).astype(np.uint8).reshape(64, 64)


def page(compression: str | None, change) -> bytes:
    """Two strips; change: (places, sizes) of the strips -> others."""
    stored = io.BytesIO()
    tifffile.imwrite(stored, scan, photometric="minisblack", rowsperstrip=32, compression=compression)
    data = bytearray(stored.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tags = [file.pages[0].tags[code] for code in (273, 279)]
        for tag, values in zip(tags, change(*(list(tag.value) for tag in tags)), strict=True):
            letter = {3: "H", 4: "I"}[int(tag.dtype)]
            struct.pack_into(f"<2{letter}", data, tag.valueoffset, *values)
    return bytes(data)


def sparse(places, sizes):
    return [places[0], 0], [sizes[0], 0]


plain, deflated = page(None, sparse), page("zlib", sparse)
for name, data in (("plain", plain), ("deflate", deflated)):
    right = tifffile.imread(io.BytesIO(data))
    assert np.array_equal(right[:32], scan[:32]) and not right[32:].any(), "tifffile changed"
    try:
        seen = np.asarray(Image.open(io.BytesIO(data)))
        header = seen[32:].tobytes() == data[: 32 * 64]
        print(f"{name}: Pillow's second half is the beginning of the file: {header}; its first bytes: {seen[32, :4].tobytes()}")
        assert name == "plain" and header, "the behaviour changed"
    except OSError as error:
        print(f"{name}: Pillow refuses it: {error}")
        assert name == "deflate", "the behaviour changed"

seen = np.asarray(Image.open(io.BytesIO(page(None, lambda places, sizes: (places, [sizes[0], 64])))))
print("a second strip of 64 bytes, of 2048 pixels: shown whole:", np.array_equal(seen, scan))
assert np.array_equal(seen, scan), "the behaviour changed"
PY
