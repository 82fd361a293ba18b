"""The image cache, and batches that every process and every resume sees alike (T22)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard

from octc.core.errors import OctcError, Several
from octc.datasets.base import Sample
from octc.datasets.layouts.folders import scan_folder
from octc.imaging.decode import read_image
from octc.imaging.preprocess import Preprocess
from octc.train.batches.images import EpochBatches, ImageSet, cached_images, eval_batches
from tests.tiny_run import write_patterns

PRE = Preprocess(32)


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Path, list[Sample]]:
    write_patterns(tmp_path / "set", patients=2, images=2)
    return tmp_path / "set", list(scan_folder(tmp_path / "set", None).items)


def test_cache_holds_exactly_what_the_house_decodes(tmp_path: Path, samples: tuple[Path, list[Sample]]) -> None:
    root, items = samples
    seen: list[tuple[int, int]] = []
    images = cached_images(tmp_path / "cache", root, items, PRE, lambda done, total: seen.append((done, total)))
    assert images.shape == (16, 1, 32, 32)
    for image, sample in zip(images, items, strict=True):
        assert np.array_equal(image, PRE.prepare(read_image(root / sample.path).image)[0])
    assert seen == [(i + 1, 16) for i in range(16)]
    assert not images.flags.writeable


def test_cache_is_made_once_per_content_order_and_preprocessing(tmp_path: Path, samples: tuple[Path, list[Sample]]) -> None:
    root, items = samples
    folder = tmp_path / "cache"
    cached_images(folder, root, items, PRE)
    (made,) = folder.iterdir()
    before = made.stat().st_mtime_ns
    cached_images(folder, root, items, PRE)
    assert made.stat().st_mtime_ns == before
    turned = cached_images(folder, root, items[::-1], PRE)
    assert np.array_equal(turned[::-1], cached_images(folder, root, items, PRE))
    cached_images(folder, root, items, Preprocess(16))
    cached_images(folder, root, items[:4], PRE)
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("left", [0, 1, 60, 5000, -1])
def test_a_cache_that_is_damaged_is_made_again(tmp_path: Path, samples: tuple[Path, list[Sample]], left: int) -> None:
    """Cut off at nothing, within its head, within its images; the archive of arrays that another program wrote there."""
    root, items = samples
    whole = np.array(cached_images(tmp_path / "cache", root, items, PRE))
    (made,) = (tmp_path / "cache").iterdir()
    made.write_bytes(made.read_bytes()[:left] if left >= 0 else b"PK\x03\x04" + bytes(100))
    assert np.array_equal(cached_images(tmp_path / "cache", root, items, PRE), whole)
    assert list((tmp_path / "cache").iterdir()) == [made]


def test_unreadable_images_are_all_named_and_leave_no_cache(tmp_path: Path, samples: tuple[Path, list[Sample]]) -> None:
    root, items = samples
    (root / items[3].path).write_bytes(b"")
    (root / items[9].path).write_bytes((root / items[9].path).read_bytes()[:300])
    with pytest.raises(Several) as caught:
        cached_images(tmp_path / "cache", root, items, PRE)
    assert [error.code for error in caught.value.errors] == ["OCT-E201", "OCT-E201"]
    assert [Path(str(error.place)).name for error in caught.value.errors] == [
        Path(items[3].path).name,
        Path(items[9].path).name,
    ]
    assert list((tmp_path / "cache").iterdir()) == []


FULL = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from octc.datasets.layouts.folders import scan_folder
from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.train.batches.images import cached_images
root = Path(sys.argv[1])
try:
    cached_images(root.parent / "cache", root, scan_folder(root, None).items, Preprocess(32))
except OctcError as error:
    print(error.code, list((root.parent / "cache").iterdir()))
"""


def test_no_room_for_the_cache_is_an_error_before_decoding(samples: tuple[Path, list[Sample]]) -> None:
    """A limit on the size of files stands for the full disk: without reserving room the process would die of SIGBUS."""
    run = subprocess.run([sys.executable, "-c", FULL, str(samples[0])], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "OCT-E904 []"), run.stderr


def test_cache_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path, samples: tuple[Path, list[Sample]]) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OctcError) as caught:
        cached_images(tmp_path / "cache", samples[0], samples[1], PRE)
    assert caught.value.code == "OCT-E904"
    assert caught.value.place == str(tmp_path / "cache")


def batches(count: int, batch: int, epoch: int = 0, seed: int = 0, processes: int = 1) -> list[list[int]]:
    sampler = EpochBatches(count, batch, seed, processes)
    sampler.epoch = epoch
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


def test_an_epoch_visits_each_image_at_most_once_in_an_order_of_seed_and_epoch() -> None:
    found = batches(50, 8)
    assert [len(b) for b in found] == [8] * 6
    flat = [i for b in found for i in b]
    assert len(set(flat)) == 48
    assert found == batches(50, 8)
    assert found != batches(50, 8, epoch=1)
    assert found != batches(50, 8, seed=1)
    left_out = {frozenset(set(range(50)) - {i for b in batches(50, 8, epoch=e) for i in b}) for e in range(8)}
    assert len(left_out) > 4  # not always the same ones


@pytest.mark.parametrize("count", [1, 2, 7, 15, 16, 17])
def test_t22_never_a_batch_of_another_size_and_never_none(count: int) -> None:
    """A last batch of one image would stop a BatchNorm; a batch larger than the set is the set."""
    sizes = {len(b) for b in batches(count, 16)}
    assert sizes == {min(count, 16)}


@pytest.mark.parametrize(("count", "batch", "processes"), [(40, 8, 2), (41, 8, 3), (10, 8, 2), (5, 16, 5), (30, 16, 4)])
def test_processes_share_an_epoch_without_overlap_and_in_equal_steps(count: int, batch: int, processes: int) -> None:
    shares = [list(BatchSamplerShard(EpochBatches(count, batch, 0, processes), processes, rank)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert shares[0]
    flat = [i for share in shares for b in share for i in b]
    assert len(flat) == len(set(flat))


def test_fewer_images_than_processes_are_refused() -> None:
    with pytest.raises(OctcError) as caught:
        EpochBatches(3, 8, 0, 4)
    assert caught.value.code == "OCT-E104"


def test_image_set_and_evaluation_give_back_the_pictures_in_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4)).astype(np.uint8)
    picture, label, index = ImageSet(images, list(range(10)))[7]
    assert torch.equal(picture, torch.from_numpy(images[7]))
    assert (label, index) == (7, 7)
    chunks = list(eval_batches(images, 4))
    assert [len(c) for c in chunks] == [4, 4, 2]
    assert np.array_equal(torch.cat(chunks).numpy(), images)


def test_cache_that_was_cut_off_is_not_taken_for_images(tmp_path: Path, samples: tuple[Path, list[Sample]]) -> None:
    root, items = samples
    images = np.array(cached_images(tmp_path / "cache", root, items, PRE))
    (path,) = (tmp_path / "cache").iterdir()
    os.truncate(path, path.stat().st_size - 500)
    assert np.array_equal(cached_images(tmp_path / "cache", root, items, PRE), images)
