"""How many images are run at once where memory is short: halved where nobody asked, an error where somebody did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.machine import memory
from octc.machine.memory import check_space, group_limit_mib, limit_words, spare_space
from octc.runtimes.room import Batch

IMAGES = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)


class Narrow:
    """A runtime that has room for so many images at once. how: what its engine raises where there is none."""

    def __init__(self, room: int, how: type[BaseException] = MemoryError) -> None:
        self.room, self.how, self.calls = room, how, []  # type: ignore[var-annotated]

    def __call__(self, images: Any) -> Any:
        self.calls.append(len(images))
        if len(images) > self.room:
            if self.how is OctcError:
                raise OctcError("OCT-E904", "memory is exhausted", hint="-", why="bad allocation")
            raise self.how
        return images.reshape(len(images), 1).astype(np.float32)


@pytest.mark.parametrize("how", [MemoryError, OctcError])
def test_a_number_that_nobody_asked_for_is_halved_until_it_fits_and_every_answer_is_there(how: type[BaseException]) -> None:
    told: list[tuple[str, str]] = []
    batch, model = Batch(warn=lambda *words: told.append(words)), Narrow(3, how)
    found = batch.run(model, IMAGES)
    assert found.ravel().tolist() == list(range(20))
    assert (batch.size, batch.tried) == (2, [8, 4])
    assert [code for code, _ in told] == ["OCT-W904", "OCT-W904"]
    assert "8 images at once, which nobody asked for: 4" in told[0][1]
    assert batch.to_json() == {"images": 2, "asked": False, "too_large": [8, 4]}
    batch.run(model, IMAGES)
    assert max(model.calls[-10:]) == 2  # it stays so


class Static(Narrow):
    """An engine with a static shape: fewer images are filled up."""

    def __init__(self, room: int, size: int) -> None:
        super().__init__(room)
        self.size = size

    def resize(self, batch: int) -> None:
        self.size = batch

    def __call__(self, images: Any) -> Any:
        filled = np.resize(images, (self.size, 1, 1, 1))
        return super().__call__(filled)[: len(images)]


def test_an_engine_with_a_static_shape_takes_the_smaller_one_too() -> None:
    batch, model = Batch(), Static(3, 8)
    assert batch.run(model, IMAGES).ravel().tolist() == list(range(20))
    assert (batch.size, model.size, model.calls[-1]) == (2, 2, 2)


def test_a_number_that_was_asked_for_and_one_image_that_does_not_fit_are_errors_that_say_what_would() -> None:
    with pytest.raises(OctcError, match="by 8 images at once") as caught:
        Batch(8, asked=True).run(Narrow(4), IMAGES)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E904", 4)
    assert "--batch 4" in caught.value.hint
    with pytest.raises(OctcError, match="by one image") as caught:
        Batch().run(Narrow(0), IMAGES)
    assert "ulimit -v" in caught.value.hint


def test_any_other_error_stays_what_it_is() -> None:
    def broken(_images: Any) -> Any:
        raise OctcError("OCT-E502", "frozen", hint="-")

    with pytest.raises(OctcError, match="frozen"):
        Batch().run(broken, IMAGES)


def group(root: Path, limit: str, peak_kib: int) -> Path:
    """A machine whose control group has a limit of memory."""
    for name, text in {
        "proc/self/cgroup": "0::/box/inner\n", "sys/fs/cgroup/box/memory.max": limit,
        "sys/fs/cgroup/box/inner/memory.max": "max\n", "proc/self/status": f"VmHWM:\t  {peak_kib} kB\n",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_control_groups_limit_is_looked_at_before_the_system_ends_the_process(tmp_path: Path) -> None:
    root = group(tmp_path, f"{512 << 20}\n", 200 << 10)
    assert group_limit_mib(root) == 512
    assert "memory limited to 512 MiB by the control group" in limit_words(root)

    def heavy(images: Any) -> Any:  # one image more takes 60 MiB more
        group(tmp_path, f"{512 << 20}\n", (200 + 60 * len(images)) << 10)
        return np.zeros((len(images), 2), np.float32)

    told: list[tuple[str, str]] = []
    batch = Batch(warn=lambda *words: told.append(words))
    assert (batch.first(root), Batch(asked=True).first(root), Batch().first(tmp_path / "free")) == (1, 8, 8)
    batch.fit(heavy, Preprocess(32), root)
    assert batch.size == 4  # 200 + 4 x 60 of 460
    assert "512 MiB" in told[0][1]
    for more in (Batch(8, asked=True), Batch(1)):
        more.fit(heavy, Preprocess(32), root)
        assert not more.tried
    free = Batch()
    free.fit(heavy, Preprocess(32), group(tmp_path / "free", "max\n", 1))
    assert (free.size, group_limit_mib(tmp_path / "free"), group_limit_mib(tmp_path / "nothing")) == (8, None, None)


def test_too_little_address_space_is_refused_before_a_library_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "space_limit_mib", lambda: 250.0)
    with pytest.raises(OctcError, match="at least 320 MiB are needed") as caught:
        check_space()
    assert caught.value.code == "OCT-E906"
    assert caught.value.hint.startswith("ulimit -v 409600 ")
    monkeypatch.setattr(memory, "space_limit_mib", lambda: 400.0)
    check_space()
    monkeypatch.setattr(memory, "EARLY", ("numpy", "a_library_that_is_not_installed"))
    check_space()
    environ: dict[str, str] = {}
    monkeypatch.setattr(
        memory.ctypes, "CDLL", lambda _name: (_ for _ in ()).throw(OSError())
    )  # of this process nothing changes
    assert spare_space(environ)
    assert environ == {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    monkeypatch.setattr(memory, "space_limit_mib", lambda: None)
    assert not spare_space({})
