"""TensorFlow Datasets hands out the scanner's records, pixel for pixel."""

import dataclasses
import hashlib
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from mvtec_tf.data.decoding import pixels
from mvtec_tf.data.formats import mvtec_archive, tfds_builder
from mvtec_tf.data.formats import scan as records
from mvtec_tf.errors import UserError


def _prepare(name, manual_dir, data_dir):
    config = tfds.download.DownloadConfig(manual_dir=str(manual_dir))
    made = tfds.builder(name, data_dir=str(data_dir))
    made.download_and_prepare(download_dir=str(pathlib.Path(data_dir) / "downloads"), download_config=config)
    return made


def _examples(data_dir, name="mvtec_ad/folder"):
    """path -> example, of both splits, by `tfds.load` from what was prepared."""
    found = tfds.load(name, data_dir=str(data_dir), download=False)
    return {
        example["path"].decode(): example | {"of": split}
        for split, part in found.items()
        for example in tfds.as_numpy(part)
    }


def _assert_same(examples, expected):
    """Every field of every record, and every pixel of its image and mask."""
    assert set(examples) == {record.path for record in expected}
    for record in expected:
        example = examples[record.path]
        for field in ("category", "defect", "group", "split"):
            assert example[field].decode() == getattr(record, field)
        assert example["label"] == record.label
        assert example["of"] == record.split
        np.testing.assert_array_equal(example["image"], pixels.decode(tf.io.read_file(record.file)))
        assert example["has_mask"] == bool(record.mask)
        assert example["mask"].any() == bool(record.mask)
        if record.mask:
            np.testing.assert_array_equal(example["mask"][..., 0] > 0, np.asarray(Image.open(record.mask)) > 0)


@pytest.fixture(scope="module")
def prepared(toy, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("prepared")
    return _prepare("mvtec_ad/folder", toy, data_dir), data_dir


def test_the_toy_factory_comes_back_record_for_record_and_pixel_for_pixel(prepared, toy_records):
    _assert_same(_examples(prepared[1]), toy_records)


def test_its_images_are_what_pillow_reads_from_the_files(prepared, toy_records):
    examples = _examples(prepared[1])
    for record in toy_records[::7]:
        pillow = np.asarray(Image.open(record.file).convert("RGB"))
        np.testing.assert_array_equal(examples[record.path]["image"], pillow)


def test_what_was_prepared_says_of_which_images_it_is(prepared, toy_records):
    info = tfds.builder("mvtec_ad/folder", data_dir=str(prepared[1])).info
    assert info.metadata["fingerprint"] == records.fingerprint(toy_records)
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        split: sum(record.split == split for record in toy_records) for split in ("train", "test")
    }
    assert "bergmann2019mvtec" in info.citation
    assert str(info.version) == "1.0.0"


def test_tfds_build_prepares_the_same(toy, toy_records, prepared, tmp_path):
    """The code of the command `tfds build`, without its sister commands, which need apache_beam."""
    script = (
        "import simple_parsing, sys\n"
        "from tensorflow_datasets.scripts.cli import build\n"
        "parser = simple_parsing.ArgumentParser()\n"
        "parser.add_arguments(build.Args, dest='args')\n"
        "parser.parse_args().args.execute()\n"
    )
    flags = ("--imports=mvtec_tf.data.formats.tfds_builder", f"--manual_dir={toy}", f"--data_dir={tmp_path}")
    command = [sys.executable, "-c", script, "mvtec_ad/folder", *flags]
    root = pathlib.Path(tfds_builder.__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    built = tfds.builder("mvtec_ad/folder", data_dir=str(tmp_path)).info
    assert built.metadata["fingerprint"] == records.fingerprint(toy_records)
    ours, theirs = _examples(prepared[1]), _examples(tmp_path)
    assert set(ours) == set(theirs)
    for path in list(ours)[::9]:
        np.testing.assert_array_equal(ours[path]["image"], theirs[path]["image"])


@pytest.fixture
def original(toy, tmp_path, monkeypatch):
    """One category of the toy factory as an archive that stands in for the original one."""
    path = tmp_path / "by hand" / mvtec_archive.FILE
    path.parent.mkdir()
    category = next(iter(records.scan([toy]))).category
    with tarfile.open(path, "w:xz", preset=0) as tar:
        tar.add(toy / category, category)
    monkeypatch.setattr(tfds_builder.MvtecAd, "archive_sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path, records.scan([toy], [category])


def test_the_original_archive_is_read_from_manual_dir(original, tmp_path):
    path, expected = original
    _prepare("mvtec_ad/original", path.parent, tmp_path / "prepared")
    _assert_same(_examples(tmp_path / "prepared", "mvtec_ad/original"), expected)
    assert [file.name for file in path.parent.iterdir()] == [mvtec_archive.FILE]


def test_the_original_archive_is_downloaded_if_it_is_not_there(original, tmp_path, monkeypatch):
    path, expected = original
    monkeypatch.setattr(tfds_builder.MvtecAd, "archive_urls", [path.as_uri()])
    made = _prepare("mvtec_ad/original", tmp_path / "nowhere", tmp_path / "prepared")
    assert made.info.metadata["fingerprint"] == records.fingerprint(expected)


def test_another_archive_is_refused_and_nothing_is_prepared(original, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_builder.MvtecAd, "archive_sha256", mvtec_archive.SHA256)
    with pytest.raises(UserError, match="not the original archive"):
        _prepare("mvtec_ad/original", original[0].parent, tmp_path / "prepared")
    assert not list((tmp_path / "prepared").rglob("*.tfrecord*"))
    assert not list((tmp_path / "prepared").rglob("*.png"))


def test_good_images_alone_odd_formats_and_names_and_a_list_are_handed_out_too(tmp_path):
    """BMP with a palette, grey and rotated JPEG: stored as they are only if every reader sees the same in them."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    folder = tmp_path / "Größe M"
    (folder / "Bilder").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(folder / "Bilder" / "a b.png")
    noise.convert("L").save(folder / "Bilder" / "grau.jpg")
    noise.save(folder / "Bilder" / "gedreht.jpg", exif=exif)
    noise.quantize(16).save(folder / "Bilder" / "Palette.bmp")
    lines = [f"Bilder/{file.name},good,train" for file in (folder / "Bilder").iterdir()]
    (folder / "Liste.csv").write_text("\n".join(["path,label,split", *lines]) + "\n", encoding="utf-8")
    made = _prepare("mvtec_ad/folder", folder, tmp_path / "prepared")
    found = records.scan([folder / "Liste.csv"])
    assert set(made.info.splits) == {record.split for record in found}
    examples = _examples(tmp_path / "prepared")
    _assert_same(examples, found)
    assert examples["Liste/Bilder/gedreht.jpg"]["image"].shape == (30, 20, 3)
    palette = np.asarray(Image.open(folder / "Bilder" / "Palette.bmp").convert("RGB"))
    np.testing.assert_array_equal(examples["Liste/Bilder/Palette.bmp"]["image"], palette)


@pytest.mark.parametrize("name", ["list.csv", "LIST.CSV"])
def test_the_list_in_a_manual_dir_is_found_beside_what_other_programs_left(tmp_path, name):
    for file in (name, f"._{name}", ".~lock.list.csv"):
        (tmp_path / file).write_text("path,label\n")
    assert tfds_builder._source(tmp_path) == tmp_path / name


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "cap" / "good").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "cap" / "good" / f"{number}.png").write_bytes(b"hello")
    with pytest.raises(UserError, match=r"good/\d\.png: expected a PNG, JPEG or BMP image, found something else"):
        _prepare("mvtec_ad/folder", tmp_path / "cap", tmp_path / "prepared")


def test_real_bottles_come_back_pixel_for_pixel(real_data, tmp_path):
    """Grey values of real photographs, 292 of them; masks as well."""
    folder = real_data / "mvtec_ad_448" / "bottle"
    _prepare("mvtec_ad/folder", folder, tmp_path)
    expected = records.scan([folder])
    _assert_same(_examples(tmp_path), expected)
    assert sum(dataclasses.asdict(record)["mask"] != "" for record in expected) == 63
