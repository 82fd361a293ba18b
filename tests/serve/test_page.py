"""The page in a real Chromium: upload, slider, heat map, error, what a screen reader is given, widths and colours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octc.datasets.synthetic.volumes import write_volumes
from tests.browser import chromium
from tests.serve.process import Serving, serving
from tests.tiny_artifacts import ruled_artifact

WIDTHS = (360, 800, 1440)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Seen:
    """A page, what its console said, and what it asked for."""

    def __init__(self, browser: Any, server: Serving, width: int = 1000, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(server.http)
        self.page.wait_for_selector("#card dt")

    def upload(self, *files: Path) -> None:
        self.page.set_input_files("#file", [str(path) for path in files])
        names = ", ".join(path.name for path in files)
        self.page.locator("#status", has_text=f"Done: {names}").wait_for(timeout=60_000)

    def text(self, place: str) -> str:
        return str(self.page.text_content(place))


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("volumes") / "clinic"
    write_volumes(place, ("dicom",), patients=1, frames=5)
    return next(place.glob("*.dcm"))


def test_an_image(browser: Any, server: Serving, pictures: list[Path]) -> None:
    seen = Seen(browser, server)
    assert "Not a medical device" in seen.text("header")
    seen.upload(pictures[0])
    assert seen.text("#label") in ("bright", "dark", "lying", "upright")
    assert seen.page.locator("#probabilities tbody tr").count() == 4
    assert "calibration" in seen.text("#calibration").lower()
    assert seen.page.evaluate("document.querySelector('#preview').naturalWidth") > 0
    seen.page.click("#map-button")
    seen.page.wait_for_selector("#map-figure:not([hidden])", timeout=60_000)
    seen.page.locator("#map").evaluate("picture => picture.decode()")
    assert "Occlusion" in seen.page.get_attribute("#map", "alt")
    assert pictures[0].name in seen.text("#recent tbody tr")
    seen.page.select_option("#model", "1")
    assert "openvino-int8" in seen.text("#card")
    seen.upload(pictures[-1])
    assert seen.page.locator("#recent tbody tr").count() == 2
    assert seen.said == []
    assert all(address.startswith((server.http, "data:")) for address in seen.asked)
    seen.page.close()


def test_who_is_to_decide_is_said(
    browser: Any, warm: tuple[str, ...], pictures: list[Path], volume: Path, tmp_path: Path
) -> None:
    with serving(warm, ruled_artifact(tmp_path / "ruled", "image", "eye")) as server:
        seen = Seen(browser, server)
        assert "lying is answered from a probability of 0.0500 on" in seen.text("#card")
        seen.upload(next(path for path in pictures if path.parent.name == "lying"))
        assert seen.page.is_visible("#refer")
        assert "the set has 2 classes" in seen.text("#refer")
        assert "lying, upright" in seen.text("#rules")
        assert "Operating points reached: lying" in seen.text("#rules")
        seen.upload(volume)
        assert "A person is to decide: no answer for the eye" in seen.text("#eyes .warning")
        assert seen.said == []
        seen.page.close()


def test_a_volume_by_keyboard(browser: Any, server: Serving, volume: Path) -> None:
    seen = Seen(browser, server)
    seen.upload(volume)
    assert "eye" in seen.text("#eyes").lower()
    assert "B-scan 1 (1 of 5)" in seen.text("#scan-title")
    first = seen.page.get_attribute("#preview", "src")
    seen.page.focus("#slider")
    for _ in range(3):
        seen.page.keyboard.press("ArrowRight")
    assert "B-scan 4 (4 of 5)" in seen.text("#scan-title")
    assert seen.text("#slider-value") == "4 of 5"
    assert seen.page.get_attribute("#slider", "aria-valuetext").startswith("4 of 5: ")
    assert seen.page.get_attribute("#preview", "src") != first
    seen.page.keyboard.press("Home")
    assert "B-scan 1" in seen.text("#scan-title")
    if seen.page.is_visible("#unlike"):  # drawn eyes are unlike the patterns that this network learned from
        assert "unlike the training images" in seen.text("#unlike")
        assert seen.text("#label") == "No label"
    assert seen.said == []
    seen.page.close()


def test_what_cannot_be_read_is_said(browser: Any, server: Serving, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    seen = Seen(browser, server)
    seen.upload(tmp_path / "broken.png")
    assert seen.text("#label") == "No answer"
    assert "OCT-E202" in seen.text("#notes")
    assert not seen.page.is_visible("#map-button")
    assert seen.said == []
    (tmp_path / "empty.png").write_bytes(b"")
    seen.page.route("**/v1/predict*", lambda route: route.abort())
    seen.page.set_input_files("#file", str(tmp_path / "empty.png"))
    seen.page.wait_for_selector("#error:not([hidden])")
    assert "cannot be reached" in seen.text("#error")
    seen.page.close()


def test_a_name_is_text(browser: Any, server: Serving, pictures: list[Path], tmp_path: Path) -> None:
    place = Path(shutil.copy(pictures[0], tmp_path / "<img src=x onerror=alert(1)>.png"))
    seen = Seen(browser, server)
    seen.upload(place)
    assert "<img src=x" in seen.text("#result-file")
    assert seen.page.locator("#result-file img").count() == 0
    assert seen.said == []
    seen.page.close()


def test_what_a_screen_reader_is_given(browser: Any, server: Serving, volume: Path) -> None:
    seen = Seen(browser, server)
    seen.upload(volume)
    tree = seen.page.locator("body").aria_snapshot()
    for part in (
        "- banner:", "- main:", '- heading "octc retinal OCT classifier" [level=1]', '- combobox "Network"',
        'Choose an OCT image or volume, or drop it here', '- slider "B-scan"', "- status:", '- heading "Prediction" [level=2]',
        '- table "Probability of each class":', '- columnheader "Class"', "- note: Not a medical device",
    ):  # fmt: skip
        assert part in tree, tree
    unnamed = seen.page.evaluate(
        "[...document.querySelectorAll('img,input,select,button')].filter(e => e.offsetParent && !(e.alt || e.labels?.length "
        "|| e.textContent.trim())).length"
    )
    assert unnamed == 0
    order = []
    seen.page.evaluate("document.activeElement.blur()")
    for _ in range(14):
        seen.page.keyboard.press("Tab")
        order.append(seen.page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"model", "file", "slider"} <= set(order)
    seen.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths_and_colours(scheme: str, browser: Any, server: Serving, volume: Path) -> None:
    for width in WIDTHS:
        seen = Seen(browser, server, width, scheme)
        seen.upload(volume)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        ratios = seen.page.evaluate(CONTRAST)
        assert min(ratios) >= 4.5, ratios  # WCAG 2.2, AA
        assert seen.said == []
        seen.page.close()


CONTRAST = """() => {
  const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const under = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!c.startsWith('rgba(0, 0, 0, 0')) return c; } return 'rgb(255, 255, 255)'; };
  return [...document.querySelectorAll('h1,h2,p,td,th,dt,dd,button,label,a')].filter((e) => e.offsetParent).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(under(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
}"""
