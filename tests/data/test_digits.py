"""The embedded digits: the file that was published, its parts, and what the properties say."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lecturecode.data import Digits, digits

module = sys.modules["lecturecode.data.digits"]  # the attribute of that name is the function
FILE = Path(module.__file__).with_name("digits.npz")
SIZES = {"training": 1200, "validation": 300, "test": 297}


@pytest.fixture
def arrays():
    with np.load(FILE, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_the_file_is_the_published_one_and_small():
    raw = FILE.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == module.SHA256
    assert len(raw) < 50_000


def test_the_file_holds_levels_labels_and_three_parts(arrays):
    assert set(arrays) == {"levels", "labels", *SIZES}
    assert arrays["levels"].shape == (1797, 64)
    assert arrays["levels"].dtype == np.uint8
    assert arrays["levels"].max() == 16
    assert sorted(set(arrays["labels"].tolist())) == list(range(10))


def test_the_digits_are_those_of_the_repository(arrays):
    """Facts of the UCI test file: how many images there are of each digit, the first line, the sum of all levels."""
    assert np.bincount(arrays["labels"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert arrays["labels"][:10].tolist() == list(range(10))
    assert arrays["levels"][0, :8].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert int(arrays["levels"].astype(np.int64).sum()) == 561718


def test_parts_are_the_stated_shuffle(arrays):
    order = np.random.Generator(np.random.PCG64(5429)).permutation(1797)
    for part, rows in zip(SIZES, np.split(order, [1200, 1500]), strict=True):
        assert np.array_equal(arrays[part], rows)


def test_parts_are_disjoint_and_complete(arrays):
    together = np.concatenate([arrays[part] for part in SIZES])
    assert sorted(together.tolist()) == list(range(1797))


@pytest.mark.parametrize("part", SIZES)
def test_a_part(part, arrays):
    found = digits(part)
    assert len(found) == SIZES[part]
    assert (found.levels.shape, found.levels.dtype) == ((SIZES[part], 64), torch.uint8)
    assert (found.labels.shape, found.labels.dtype) == ((SIZES[part],), torch.int64)
    assert np.array_equal(found.levels.numpy(), arrays["levels"][arrays[part]])
    assert np.array_equal(found.labels.numpy(), arrays["labels"][arrays[part]])


@pytest.mark.parametrize("part", SIZES)
def test_grey_and_binary(part):
    found = digits(part)
    assert found.grey.dtype == found.binary.dtype == torch.float32
    assert torch.equal(found.grey * 16, found.levels.float())
    assert torch.equal(found.binary, (found.grey >= 0.5).float())
    assert set(found.binary.unique().tolist()) == {0.0, 1.0}


def test_only_picks_images_with_their_labels():
    found = digits("test")
    threes = found.only(found.labels == 3)
    assert isinstance(threes, Digits)
    assert set(threes.labels.tolist()) == {3}
    assert torch.equal(threes.levels, found.levels[found.labels == 3])
    assert sum(len(found.only(found.labels == k)) for k in range(10)) == len(found)


def test_what_is_changed_in_one_copy_stays_there():
    first = digits("test")
    first.levels.zero_()
    first.labels.zero_()
    assert digits("test").levels.sum() > 0
    assert digits("test").labels.sum() > 0


def test_another_part_is_refused():
    with pytest.raises(ValueError, match="part is 'train'; the digits have the parts training, validation, test"):
        digits("train")


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:100] + b"x" + raw[101:], lambda raw: b""])
def test_a_damaged_file_is_refused(damage, tmp_path, monkeypatch):
    (tmp_path / "digits.npz").write_bytes(damage(FILE.read_bytes()))
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    module._read.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"digits\.npz has the checksum .{12}…, not c9e7aa4bb5de…; install"):
            digits("test")
    finally:
        module._read.cache_clear()
