"""Decoded images are kept where a changed file or setting never meets them, and bad ones are remembered with them."""

import os

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.data.decoding import image_store
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError

SIZE = 8


@pytest.fixture
def records(tmp_path):
    """Five images of one colour each, and two that are none in between."""
    (tmp_path / "data").mkdir()
    found = []
    for number in range(7):
        file = tmp_path / "data" / f"Prüfling {number}.png"
        if number in (1, 4):
            file.write_bytes(b"" if number == 1 else b"no image")
        else:
            Image.new("RGB", (20, 30), (10 * number, 0, 0)).save(file)
        found.append(Record(f"cap/{file.name}", str(file), "cap", "good", 0, "train", file.name))
    return tuple(found)


@pytest.fixture
def decoded(monkeypatch):
    """Files whose content was decoded, in order."""
    seen = []
    each = image_store._each

    def counting(records, compute):
        for record, result in each(records, compute):
            seen.append(record.file)
            yield record, result

    monkeypatch.setattr(image_store, "_each", counting)
    return seen


def _reds(images):
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_good_and_bad_are_told_apart_and_every_file_is_decoded_once(records, decoded, tmp_path, where):
    store = ImageStore(SIZE, "memory" if where == "memory" else str(tmp_path / "cache"))
    good, bad = store.readable(records)
    assert [record.path for record in good] == [f"cap/Prüfling {number}.png" for number in (0, 2, 3, 5, 6)]
    assert [one.record for one in bad] == [records[1], records[4]]
    assert "an empty file" in bad[0].reason
    assert "something else" in bad[1].reason
    assert _reds(store.load(good[3:])) == [50, 60]
    assert _reds(store.load(good[2::-1])) == [30, 20, 0]
    assert decoded == [record.file for record in records]


def test_a_second_run_with_another_cut_decodes_nothing(records, decoded, tmp_path):
    cache = str(tmp_path / "cache")
    first = ImageStore(SIZE, cache)
    good, bad = first.readable(records)
    first.load(good[:2])
    decoded.clear()
    second = ImageStore(SIZE, cache)
    assert second.readable(records) == (good, bad)
    images = second.load(good[1:4])
    assert isinstance(images, np.memmap)
    assert _reds(images) == [20, 30, 50]
    assert decoded == []


def test_an_image_that_was_handed_over_is_decoded_again_when_it_is_asked_for_again(records, decoded):
    store = ImageStore(SIZE)
    good, _ = store.readable(records)
    assert _reds(store.load(good)) == _reds(store.load(good)) == [0, 20, 30, 50, 60]
    assert len(decoded) == len(records) + len(good)


def test_a_bad_image_is_named_when_it_is_loaded_whatever_is_cached(records, tmp_path):
    cache = str(tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(UserError, match=r"Prüfling 1\.png: expected a PNG, JPEG or BMP image, found an empty file"):
            ImageStore(SIZE, cache).load(records[:3])
    ImageStore(SIZE, cache).readable(records)
    with pytest.raises(UserError, match=r"(?s)Prüfling 1\.png: .*Prüfling 4\.png: .*2 of 7 images cannot be used"):
        ImageStore(SIZE, cache).load(records)


def test_a_repaired_image_is_seen(records, tmp_path):
    store = ImageStore(SIZE, str(tmp_path / "cache"))
    assert len(store.readable(records)[1]) == 2
    for number in (1, 4):
        Image.new("RGB", (20, 30), (10 * number, 0, 0)).save(records[number].file)
    good, bad = store.readable(records)
    assert bad == ()
    assert _reds(store.load(good)) == [0, 10, 20, 30, 40, 50, 60]


def test_a_file_of_the_same_size_whose_time_was_set_back_is_decoded_anew(records, tmp_path):
    cache, file = str(tmp_path / "cache"), records[0].file
    Image.new("RGB", (20, 30), (10, 0, 0)).save(file, "BMP")
    assert _reds(ImageStore(SIZE, cache).load(records[:1])) == [10]
    before = os.stat(file)
    Image.new("RGB", (20, 30), (99, 0, 0)).save(file, "BMP")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(file)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert _reds(ImageStore(SIZE, cache).load(records[:1])) == [99]


def test_another_setting_has_a_cache_of_its_own(records, decoded, tmp_path, monkeypatch):
    cache, good = str(tmp_path / "cache"), records[2:4]
    ImageStore(SIZE, cache).load(good)
    assert ImageStore(SIZE + 1, cache).load(good).shape == (2, 9, 9, 3)
    with pytest.raises(UserError, match="`max_pixels` allows 599"):
        ImageStore(SIZE, cache, max_pixels=599).load(good)
    ImageStore(SIZE, cache, max_pixels=600).load(good)
    monkeypatch.setattr(image_store.pixels, "PIXELS_VERSION", 10**6)
    ImageStore(SIZE, cache).load(good)
    assert len(decoded) == 4 * 2 + 1
    decoded.clear()
    ImageStore(SIZE, cache).load(good)
    assert decoded == []


def test_the_cache_is_a_plain_array_file_of_the_good_images(records, tmp_path):
    ImageStore(SIZE, str(tmp_path / "cache")).readable(records)
    (file,) = (tmp_path / "cache").glob("*.npy")
    assert np.load(file, allow_pickle=False).shape == (5, SIZE, SIZE, 3)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".npy", ".json"}


def test_a_check_alone_finds_what_a_store_finds(records):
    assert image_store.check(records, 10**8) == ImageStore(SIZE).readable(records)


def test_names_need_not_be_utf8(tmp_path):
    folder = os.fsencode(tmp_path)
    file = os.fsdecode(os.path.join(folder, b"caf\xe9 1.png"))
    Image.new("RGB", (9, 9), (77, 0, 0)).save(file)
    record = Record("cap/1.png", file, "cap", "good", 0, "train", "1")
    assert _reds(ImageStore(SIZE).load([record])) == [77]
