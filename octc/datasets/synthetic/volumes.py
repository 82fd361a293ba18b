"""Synthetic clinical files: synthetic eyes in vendors' formats, each with its own order, grey values and header.

The writers follow the same format descriptions as the readers (octc/volumes) but share no code with them: `struct`, field by
field. Tests read every format with octc's readers and, if one exists, with an independent reader.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import publishing, write_bytes
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom
from octc.volumes.source import EPOCH
from octc.volumes.writing import Scan, opt_object, save

UInt8 = npt.NDArray[np.uint8]
MARK = "octc-synthetic-volumes.json"  # marker: octc generated the folder and may replace it
OUTSIDE = np.finfo(np.float32).max


@dataclass(frozen=True)
class DrawnEye:
    """A synthetic volume: grey values as displayed, uint8 [B-scans, rows, columns], and the metadata of a device.

    spacing: mm (between B-scans, in depth, between A-scans). eye: "R" or "L".
    """

    frames: UInt8
    eye: str
    patient: str
    moment: datetime
    label: str
    spacing: tuple[float, float, float] = (0.12, 0.00387, 0.0117)


def draw_eye_volume(
    label: str, patient: int, eye: str, *, visit: int = 0, frames: int = 7, size: tuple[int, int] = (256, 192)
) -> DrawnEye:
    """Generate a volume of a class in CLASSES, of `size` (columns, rows), determined by the numbers given."""
    seed = patient * 4 + (eye == "L") * 2
    scans = [np.asarray(draw_phantom(label, seed, visit * 100 + index, size)) for index in range(frames)]
    moment = datetime(2026, 1 + visit % 12, 1 + patient % 28, 9, 30)
    return DrawnEye(np.stack(scans), eye, f"SYN-{patient:04d}", moment, label)


def reflectivity(grey: UInt8) -> npt.NDArray[np.float32]:
    """The reflectivity that a Heidelberg device stores for a displayed grey value: the inverse of its display curve."""
    return np.clip(np.exp(grey / 255.0 * 8.285 - 8.3) - 2.44e-4, 0, None).astype(np.float32)


def vol_bytes(drawn: DrawnEye) -> bytes:
    """A file in Heidelberg's RAW export format (.vol): float32 reflectivity; the outermost column is outside the scan."""
    count, rows, columns = drawn.frames.shape
    between, depth, across = drawn.spacing
    slo = np.full((64, 64), 90, np.uint8)
    header = struct.pack(
        "<12s3i3d2i2did4sQ2i16s16si24sdi24sd4i34s",
        b"HSF-OCT-103", columns, count, rows, across, between, depth, 64, 64, 0.11, 0.11, 30, 0.0,
        b"OD" if drawn.eye == "R" else b"OS", _ticks(drawn.moment), 3, 512, b"1", b"", 1, drawn.patient.encode(), 0.0, 1, b"",
        0.0, 0, 0, 0, 0, b"",
    )  # fmt: skip
    parts = [header.ljust(2048, b"\0"), slo.tobytes()]
    for index, frame in enumerate(drawn.frames):
        y = index * between
        scan = struct.pack("<12si4d2ifi6f", b"HSF-BS-103", 512, 0.0, y, columns * across, y, 0, 256, 30.0, 0, *([0.0] * 6))
        values = reflectivity(frame)
        values[:, -1] = OUTSIDE
        parts += [scan.ljust(512, b"\0"), values.astype("<f4").tobytes()]
    return b"".join(parts)


def _ticks(moment: datetime) -> int:
    return int((moment - EPOCH).total_seconds()) * 10_000_000


def fda_bytes(drawn: DrawnEye, *, compressed: bool = True) -> bytes:
    """A file in Topcon's `.fda` format: lossless 8-bit JPEG 2000, or motion-corrected uint16."""
    count, rows, columns = drawn.frames.shape
    chunks = _topcon_facts(drawn)
    if compressed:
        body = struct.pack("<B6I", 2, 0, 0, columns, rows, count, 0)
        for frame in drawn.frames:
            stream = io.BytesIO()
            Image.fromarray(frame).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
            body += struct.pack("<I", len(stream.getvalue())) + stream.getvalue()
        chunks.append((b"@IMG_JPEG", body))
    else:
        chunks.append((b"@IMG_MOT_COMP_03", _topcon_pixels(drawn, compensated=True)))
    return _topcon(b"FDA", chunks)


def fds_bytes(drawn: DrawnEye) -> bytes:
    """A file in Topcon's `.fds` format: uint16 as scanned."""
    return _topcon(b"FDS", [*_topcon_facts(drawn), (b"@IMG_SCAN_03", _topcon_pixels(drawn))])


def _topcon_pixels(drawn: DrawnEye, *, compensated: bool = False) -> bytes:
    """What is motion compensated has four positions before the size, and no mode."""
    count, rows, columns = drawn.frames.shape
    pixels = (drawn.frames.astype("<u2") * 257).tobytes()
    head = struct.pack("<B4IB", 0 if compensated else 2, columns, rows, 16, count, 0)
    return head + bytes(16 if compensated else 0) + struct.pack("<I", len(pixels)) + pixels


def _topcon_facts(drawn: DrawnEye) -> list[tuple[bytes, bytes]]:
    count, _, columns = drawn.frames.shape
    between, depth, across = drawn.spacing
    at = drawn.moment
    return [
        (b"@HW_INFO_03", b"SYNTHETIC".ljust(100, b"\0")),
        (b"@PATIENT_INFO_02", drawn.patient.encode().ljust(615, b"\0")),
        (
            b"@CAPTURE_INFO_02",
            struct.pack("<BBI100x6H", drawn.eye == "L", 2, 0, at.year, at.month, at.day, at.hour, at.minute, at.second),
        ),
        (b"@PARAM_SCAN_04", struct.pack("<3I5d2B", 0, 0, 0, columns * across, count * between, depth * 1000, 0, 0, 0, 0)),
    ]


def _topcon(kind: bytes, chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(bytes([len(name)]) + name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"FOCT" + kind + struct.pack("<2I", 1, 1001) + body + b"\0"


def e2e_bytes(eyes: Sequence[DrawnEye]) -> bytes:
    """A file in Heidelberg's `.e2e` format with several eyes: chunks, then one directory of them, B-scans in reverse order."""
    start = 36 + 52
    entries, body = [], b""

    def add(kind: int, series: int, position: int, index: int, data: bytes, patient: int = 7) -> None:
        nonlocal body
        at = start + len(body)
        chunk = struct.pack(
            "<12s5I3IiHHII", b"MDbData", 0, 0, at, len(data), 0, patient, 1, series, position, index, 0, kind, 0
        )
        entries.append(struct.pack("<4I3IiHHII", 1, at, len(data) + 60, 0, patient, 1, series, position, index, 0, kind, 0))
        body += chunk + data

    for series, drawn in enumerate(eyes):
        _, rows, columns = drawn.frames.shape
        name = b"".ljust(31 + 51 + 15, b"\0") + struct.pack("<I", 0) + b"F" + drawn.patient.encode().ljust(25, b"\0")
        add(9, series, -1, 0, name.ljust(131, b"\0"), 7 + series)
        add(11, series, -1, 0, bytes(14) + drawn.eye.encode() + bytes(12), 7 + series)
        for number, frame in reversed(list(enumerate(drawn.frames))):
            add(10004, series, 2 * number, 0, _e2e_scan(drawn, number), 7 + series)
            codes = ufloat16(reflectivity(frame))
            codes[:, -1] = 0xFFFF
            pixels = codes.astype("<u2").tobytes()
            head = struct.pack("<5I", len(pixels) + 20, 0x02200201, rows * columns, rows, columns)
            add(0x40000000, series, 2 * number, 1, head + pixels, 7 + series)
    at = start + len(body)
    version = struct.pack("<I20x", 100)
    main = b"MDbMDir".ljust(12, b"\0") + version + struct.pack("<4I", len(entries), at, 0, 0)
    directory = b"MDbDir".ljust(12, b"\0") + version + struct.pack("<4I", len(entries), at, 0, 0)
    return b"CMDb".ljust(12, b"\0") + version + main + body + directory + b"".join(entries)


def _e2e_scan(drawn: DrawnEye, number: int) -> bytes:
    count, rows, columns = drawn.frames.shape
    return struct.pack(
        "<3I4fI3fI2f5I2fIQIf",
        1, rows, columns, 0.0, 0.0, 0.0, 0.0, 0, 0.0, drawn.spacing[1], 0.0, 0, 0.0, 0.0, 0, columns, count, number, 3,
        0.0, 0.0, 0, _ticks(drawn.moment), 1, 0.8416,
    )  # fmt: skip


def ufloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Convert numbers in [0, 2) to Heidelberg's 16-bit floats: 6-bit exponent (bias 63), 10-bit mantissa."""
    fraction, exponent = np.frexp(np.maximum(values.astype(np.float64), 2.0**-63))  # fraction 0.5 to 1
    codes = (exponent - 1 + 63).astype(np.int64) * 1024 + np.rint((2 * fraction - 1) * 1024).astype(np.int64)
    held: npt.NDArray[np.uint16] = np.clip(codes, 0, 0xFFFE).astype(np.uint16)
    return held


def bioptigen_bytes(drawn: DrawnEye) -> bytes:
    """A file in Bioptigen's `.OCT` format: keyed fields, uint16, A-scan by A-scan."""
    count, rows, columns = drawn.frames.shape
    between, depth, across = drawn.spacing

    def whole(name: bytes, value: int) -> bytes:
        return _keyed(name, struct.pack("<I", value))

    def number(name: bytes, value: float) -> bytes:
        return _keyed(name, struct.pack("<d", value))

    header = b"".join(
        [
            _keyed(b"FRAMEHEADER", b""), whole(b"FRAMECOUNT", count), whole(b"LINECOUNT", columns), whole(b"LINELENGTH", rows),
            whole(b"SAMPLEFORMAT", 2), _keyed(b"DESCRIPTION", b"drawn\0"), whole(b"SCANTYPE", 1),
            number(b"SCANDEPTH", rows * depth), number(b"SCANLENGTH", columns * across),
            number(b"ELSCANLENGTH", count * between),
        ]
    )  # fmt: skip
    moment = drawn.moment
    when = struct.pack("<8H", moment.year, moment.month, 0, moment.day, moment.hour, moment.minute, moment.second, 0)
    body = b""
    for frame in drawn.frames:
        pixels = (frame.astype("<u2") * 257).T.tobytes()
        inner = _keyed(b"FRAMEDATETIME", when) + number(b"FRAMETIMESTAMP", 0.0) + whole(b"FRAMELINES", columns)
        body += _keyed(b"FRAMEDATA", b"") + inner + _keyed(b"FRAMESAMPLES", pixels) + struct.pack("<I", 0)
    return struct.pack("<IH", 0x1234F00D, 101) + header + struct.pack("<I", 0) + body


def _keyed(name: bytes, value: bytes) -> bytes:
    return struct.pack("<I", len(name)) + name + struct.pack("<I", len(value)) + value


def img_bytes(drawn: DrawnEye) -> bytes:
    """A file in Zeiss' `.img` format: uint8 without a header, each B-scan from the bottom up."""
    return drawn.frames[:, ::-1].tobytes()


def optovue_bytes(drawn: DrawnEye) -> bytes:
    """A file in Optovue's `.OCT` format: float32 without a header, A-scan by A-scan, from the bottom up."""
    return b"".join(frame[::-1].T.astype("<f4").tobytes() for frame in drawn.frames)


def write_xml(drawn: DrawnEye, folder: Path) -> Path:
    """Write Heidelberg's XML export with BMP images; returns the path of the XML file."""
    between, depth, across = drawn.spacing
    images = []
    for index, frame in enumerate(drawn.frames):
        name, y = f"{index:03d}.bmp", index * between
        Image.fromarray(frame).save(folder / name)
        ends = "".join(
            f"<{end}><Coord><X>{x}</X><Y>{y}</Y></Coord></{end}>"
            for end, x in (("Start", 0.0), ("End", frame.shape[1] * across))
        )
        images.append(
            "<Image><ImageType><Type>OCT</Type></ImageType><AcquisitionTime><Time>"
            f"<Hour>{drawn.moment.hour}</Hour><Minute>{drawn.moment.minute}</Minute><Second>0</Second></Time></AcquisitionTime>"
            f"<OphthalmicAcquisitionContext><Width>{frame.shape[1]}</Width><Height>{frame.shape[0]}</Height>"
            f"<ScaleX>{across}</ScaleX><ScaleY>{depth}</ScaleY><ImageQuality>30</ImageQuality>{ends}"
            f"</OphthalmicAcquisitionContext><ImageData><ExamURL>\\\\server\\share\\{name}</ExamURL></ImageData></Image>"
        )
    moment = drawn.moment
    text = (
        '<?xml version="1.0" encoding="utf-8"?><HEDX><BODY><Patient>'
        f"<PatientID>{escape(drawn.patient)}</PatientID><Study><StudyDate><Date><Year>{moment.year}</Year>"
        f"<Month>{moment.month}</Month><Day>{moment.day}</Day></Date></StudyDate><Series><Laterality>{drawn.eye}</Laterality>"
        f"{''.join(images)}</Series></Study></Patient></BODY></HEDX>"
    )
    path = folder / "export.xml"
    write_bytes(path, text.encode())
    return path


def write_tiff(drawn: DrawnEye, path: Path) -> None:
    """Write a TIFF with one page per B-scan."""
    first, *others = (Image.fromarray(frame) for frame in drawn.frames)
    first.save(path, "TIFF", save_all=True, append_images=others, compression="tiff_lzw")


def write_dicom(drawn: DrawnEye, path: Path) -> None:
    """Write a DICOM OPT object."""
    scan = Scan(
        frames=list(drawn.frames),
        laterality=drawn.eye,
        spacing=drawn.spacing,
        patient=drawn.patient,
        acquired=drawn.moment.isoformat(),
        device="Synthetic",
        seed=f"{drawn.patient}{drawn.eye}{drawn.moment}",
        written=drawn.moment.isoformat(),
    )
    save(opt_object(scan), path)


# format -> (extension, function that writes a synthetic eye to a path)
WRITERS: dict[str, tuple[str, Callable[[DrawnEye, Path], object]]] = {
    "dicom": (".dcm", write_dicom),
    "vol": (".vol", lambda drawn, path: path.write_bytes(vol_bytes(drawn))),
    "fda": (".fda", lambda drawn, path: path.write_bytes(fda_bytes(drawn))),
    "fds": (".fds", lambda drawn, path: path.write_bytes(fds_bytes(drawn))),
    "e2e": (".e2e", lambda drawn, path: path.write_bytes(e2e_bytes([drawn]))),
    "bioptigen": (".oct", lambda drawn, path: path.write_bytes(bioptigen_bytes(drawn))),
    "tiff": (".tif", write_tiff),
}


def write_volumes(
    root: Path,
    formats: Sequence[str],
    *,
    patients: int = 2,
    visits: int = 1,
    frames: int = 7,
    seed: int = 0,
    force: bool = False,
) -> list[tuple[Path, DrawnEye]]:
    """Generate volumes of `patients` per class, both eyes, `visits` each, with the formats in turn, and `volumes.csv`.

    Returns:
        (path relative to `root`, the synthetic volume in it) for each file.

    Raises:
        OctcError: E104 an unknown format; E106 `root` exists without `force`.
    """
    if not formats:
        raise OctcError("OCT-E104", "no format is named", hint=f"one of: {', '.join(WRITERS)}", place="--format")
    if root.exists() and any(root.iterdir()) and not (root / MARK).is_file():
        text = f"{root} was not drawn by octc, so --force does not replace it"
        raise OctcError("OCT-E106", text, hint="give another folder", place=str(root))
    for name in formats:
        if name not in WRITERS:
            raise OctcError("OCT-E104", f"format {name!r}", hint=f"one of: {', '.join(WRITERS)}", place="--format")
    made: list[tuple[Path, DrawnEye]] = []
    with publishing(root, force=force) as folder:
        rows = ["path,label,patient,eye"]
        for row, label in enumerate(CLASSES):
            for number in range(patients):
                for eye in ("R", "L"):
                    for visit in range(visits):
                        patient = seed * 1000 + row * patients + number
                        drawn = draw_eye_volume(label, patient, eye, visit=visit, frames=frames)
                        ending, write = WRITERS[formats[len(made) % len(formats)]]
                        name = f"{drawn.patient}-{eye}-{visit}{ending}"
                        write(drawn, folder / name)
                        made.append((Path(name), drawn))
                        rows.append(f"{name},{label},{drawn.patient},{eye}")
        write_bytes(folder / MARK, b"{}\n")
        write_bytes(folder / "volumes.csv", ("\n".join(rows) + "\n").encode())
    return made
