"""Draw the pictures of the page of `octc serve` that docs/serving.md shows, with an eye that octc drew.

    python benchmarks/page_pictures.py ARTIFACT -o docs

Serves ARTIFACT at loopback, opens the page in a real Chromium, uploads a drawn volume of a right eye, asks for the heat map
of a B-scan, and photographs the page light and dark, at 1200 and at 360 pixels. ARTIFACT is one of `sh benchmarks/demo.sh`:
another network says of drawn eyes, rightly, that they are unlike its training images.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from octc.core.files import parse_json
from octc.datasets.synthetic.volumes import draw_eye_volume
from octc.volumes.writing import Scan, opt_object, save

SHOTS = {"light": (1200, "light"), "dark": (1200, "dark"), "narrow": (360, "light"), "narrow-dark": (360, "dark")}
QUALITY = 60  # of WebP


def volume(folder: Path, label: str, patient: int) -> Path:
    """A drawn right eye as a DICOM object."""
    eye = draw_eye_volume(label, patient, "R", frames=7, size=(512, 384))
    scan = Scan(
        list(eye.frames), laterality="R", spacing=eye.spacing, acquired="2026-02-03T09:30:00", device="drawn", seed="page"
    )
    path = folder / "SYN-right-eye.dcm"
    save(opt_object(scan), path)
    return path


def photographed(page: Any, path: Path, file: Path, width: int) -> None:
    """The page with its answer for a volume, as a small picture."""
    page.set_input_files("#file", str(file))
    page.locator("#status", has_text="Done").wait_for(timeout=120_000)
    page.focus("#slider")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.click("#map-button")
    page.wait_for_selector("#map-figure:not([hidden])", timeout=120_000)
    page.locator("#map").evaluate("picture => picture.decode()")
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    data = page.screenshot(full_page=True)
    Image.open(io.BytesIO(data)).convert("RGB").save(path, quality=QUALITY, method=6)
    sys.stdout.write(f"{path}: {width} px, {path.stat().st_size // 1024} KiB\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs"))
    parser.add_argument("--label", default="CNV", help="class of the drawn eye")
    parser.add_argument("--patient", type=int, default=5, help="number of the drawn eye")
    chosen = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here (Debian: apt-get install chromium)")
    words = [sys.executable, "-m", "octc.cli._app.main", "serve", chosen.artifact, "--port", "0", "--http-only"]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        ready = next(parse_json(line) for line in server.stderr if line.startswith("{"))
        with tempfile.TemporaryDirectory(prefix="octc-") as folder, sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            file = volume(Path(folder), chosen.label, chosen.patient)
            for name, (width, scheme) in SHOTS.items():
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page.goto(ready["http"])
                page.wait_for_selector("#card dt")
                photographed(page, chosen.out / f"page-{name}.webp", file, width)
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    main()
