"""Pixels are decoded once and alike everywhere; batches are a function of seed and position."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mvtec_tf.data import input_pipeline
from mvtec_tf.data.decoding import image_store, pixels
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError


def _record(path):
    return Record(str(path), str(path), "cap", "good", 0, "train", str(path))


def _batches(count=10, batch_size=4, seed=7, **kwargs):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    labels = np.arange(count) % 5 == 0
    settings = {"first_epoch": 0, "epochs": 3} | kwargs
    dataset = input_pipeline.training_batches(
        images, labels.astype(int), batch_size, seed, lambda x, y, s: (x[:, 0, 0, 0], y, s), **settings
    )
    return [tuple(part.numpy() for part in batch) for batch in dataset]


def _drawn(batches):
    return np.concatenate([batch[0] for batch in batches])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_grey_and_colour_files_become_three_channels_of_uint8(kind, mode):
    pattern = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pattern).convert(mode).save(file, kind)
    image = pixels.decode_and_resize(tf.constant(file.getvalue()), 32)
    assert image.shape == (32, 32, 3)
    assert image.dtype == tf.uint8
    if mode == "L":
        assert np.ptp(image.numpy().astype(int), axis=-1).max() == 0


def test_the_resize_is_antialiased_like_pillow():
    pattern = np.random.default_rng(1).integers(0, 255, (96, 96, 3), np.uint8)
    ours = pixels.resize(tf.constant(pattern), 24).numpy().astype(int)
    pillow = np.asarray(Image.fromarray(pattern).resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - pillow).max() <= 1


def test_an_image_of_the_wanted_size_is_left_as_it_is():
    pattern = np.random.default_rng(1).integers(0, 255, (24, 24, 3), np.uint8)
    np.testing.assert_array_equal(pixels.resize(tf.constant(pattern), 24), pattern)


def test_memory_and_disk_cache_hold_the_same_pixels_and_decode_once(toy_records, tmp_path, monkeypatch):
    records = toy_records[:9]
    in_memory = ImageStore(48).load(records)
    on_disk = ImageStore(48, str(tmp_path)).load(records)
    np.testing.assert_array_equal(in_memory, on_disk)
    np.testing.assert_array_equal(in_memory[3], pixels.decode_and_resize(tf.io.read_file(records[3].file), 48))

    def never(*_):
        raise AssertionError("decoded a second time")

    monkeypatch.setattr(image_store, "_each", never)
    np.testing.assert_array_equal(ImageStore(48, str(tmp_path)).load(records), in_memory)


def test_the_disk_cache_notices_changed_files_and_sizes(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (20, 20), (10, 0, 0)).save(file)
    cache = str(tmp_path / "cache")
    assert ImageStore(16, cache).load([_record(file)])[0, 0, 0, 0] == 10
    Image.new("RGB", (20, 20), (99, 0, 0)).save(file)
    os.utime(file, ns=(1, 1))
    assert ImageStore(16, cache).load([_record(file)])[0, 0, 0, 0] == 99
    assert ImageStore(8, cache).load([_record(file)]).shape == (1, 8, 8, 3)


def test_a_file_that_is_no_image_is_named(tmp_path, toy_records):
    bad = tmp_path / "no image.png"
    bad.write_bytes(b"hello")
    with pytest.raises(UserError, match=r"no image\.png"):
        ImageStore(32).load([*toy_records[:3], _record(bad)])


def test_a_broken_file_leaves_no_cache_behind(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"hello")
    with pytest.raises(UserError):
        ImageStore(32, str(tmp_path / "cache")).load([_record(bad)])
    assert list((tmp_path / "cache").iterdir()) == []


def test_every_pass_draws_every_image_once():
    drawn = _drawn(_batches(count=12, batch_size=4))
    for number in range(3):
        assert sorted(drawn[12 * number : 12 * (number + 1)]) == list(range(12))
    assert list(drawn[:12]) != list(drawn[12:24])


def test_a_resumed_run_sees_the_batches_it_would_have_seen():
    for balanced in (False, True):
        whole = _batches(passes_per_epoch=2, balanced=balanced)
        for first_step, left in ((0, 5), (3, 2)):
            rest = _batches(passes_per_epoch=2, balanced=balanced, first_epoch=2, first_step=first_step)
            assert len(rest) == left
            for a, b in zip(whole[-left:], rest, strict=True):
                for x, y in zip(a, b, strict=True):
                    np.testing.assert_array_equal(x, y)


def test_seeds_of_augmentation_never_repeat_in_a_run():
    seeds = np.concatenate([batch[2] for batch in _batches(passes_per_epoch=2)])
    assert len(np.unique(seeds, axis=0)) == len(seeds)


def test_another_seed_draws_in_another_order():
    assert list(_drawn(_batches(seed=1))) != list(_drawn(_batches(seed=2)))


def test_balanced_sampling_draws_both_classes_alike_and_none_twice_before_all():
    batches = _batches(count=20, batch_size=4, epochs=4, balanced=True)
    labels = np.concatenate([batch[1] for batch in batches])
    assert labels.mean() == 0.5
    defective = _drawn(batches)[labels == 1]
    for start in range(0, len(defective) - 3, 4):
        assert sorted(defective[start : start + 4]) == [0, 5, 10, 15]


def test_a_memory_map_feeds_the_same_batches(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (6, 4, 4, 3), np.uint8)
    np.save(tmp_path / "x.npy", images)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    transform = lambda x, y, s: (x, y)  # noqa: E731
    pairs = [
        input_pipeline.training_batches(source, np.zeros(6, int), 3, 0, transform, epochs=1)
        for source in (images, mapped)
    ]
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
