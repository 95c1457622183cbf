"""Exploration: what of a data set is found, by name, and what is not mistaken for a finding."""

import re
import struct

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageEnhance, ImageOps
from sklearn.metrics import roc_auc_score

from mvtec_tf.data import pillow_images
from mvtec_tf.data.formats import scan as records
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.exploration import copy_candidates, copy_registration, duplicates
from mvtec_tf.exploration import findings as explore_findings
from mvtec_tf.exploration import images as explore_images
from mvtec_tf.exploration.images import look
from mvtec_tf.exploration.report import sentences
from mvtec_tf.exploration.survey import explore
from tests.support import image_samples
from tools import duplicates_benchmark

SIDE = 96


def _photo(seed, width=SIDE, height=SIDE):
    """A part of its own: the same disc as every other one, with its own scratches and grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    grey = np.where((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.16, 90.0, 190.0)
    for _ in range(12):
        a, b, slope = rng.uniform(0.1, 0.9, 3)
        grey -= 60.0 * np.exp(-(((y - b) - (slope - 0.5) * (x - a)) ** 2) / 2e-4)
    grey += rng.normal(0.0, 6.0, grey.shape)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")


def _save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def _mask(width=SIDE, height=SIDE, filled=True, top=0):
    pixels = np.zeros((height, width), np.uint8)
    if filled:
        pixels[top : top + height // 4, : width // 2] = 255
    return Image.fromarray(pixels)


def _bolt(root, train=12, good=10, defective=10):
    """A category in order: every image a part of its own, every mask an eighth of its image."""
    for i in range(train):
        _save(root / f"bolt/train/good/{i:03d}.png", _photo(i))
    for i in range(good):
        _save(root / f"bolt/test/good/{i:03d}.png", _photo(100 + i))
    for i in range(defective):
        _save(root / f"bolt/test/dent/{i:03d}.png", _photo(200 + i))
        _save(root / f"bolt/ground_truth/dent/{i:03d}_mask.png", _mask(top=i))
    return root


def _found(root):
    return explore(records.scan([root]))


def _pairs(found):
    return {(pair.first.path, pair.second.path): pair for pair in found.duplicates}


def _finding(found, kind):
    (one,) = [one for one in explore_findings.findings(found) if one.kind == kind]
    return one


def test_a_data_set_in_order_has_no_findings(tmp_path):
    found = _found(_bolt(tmp_path))
    assert explore_findings.findings(found) == []
    assert len(found.looks) == 32
    assert {mask.area for mask in found.masks} == {0.125}


def test_different_toy_images_are_not_called_duplicates(toy_records):
    found = explore(toy_records)
    assert len(found.looks) == len(toy_records)
    assert found.duplicates == ()


def test_a_copy_of_a_training_image_in_test_is_a_leak_by_name(tmp_path):
    root = _bolt(tmp_path)
    content = (root / "bolt/train/good/003.png").read_bytes()
    (root / "bolt/test/good/copied.png").write_bytes(content)
    found = _found(root)
    pair = _pairs(found)["bolt/train/good/003.png", "bolt/test/good/copied.png"]
    assert (pair.kind, pair.relation, pair.leaks) == ("same file", "train and test", True)
    leak = _finding(found, "duplicates_train_and_test")
    assert leak.title == "1 test image is in train too"
    assert leak.items == ("bolt/train/good/003.png and bolt/test/good/copied.png (same file)",)


def test_the_same_pixels_in_another_file_are_found(tmp_path):
    root = _bolt(tmp_path)
    _save(root / "bolt/test/good/stored.bmp", Image.open(root / "bolt/train/good/003.png"))
    pair = _pairs(_found(root))["bolt/train/good/003.png", "bolt/test/good/stored.bmp"]
    assert pair.kind == "same pixels"
    assert pair.leaks


def test_of_aligned_parts_only_candidates_that_differ_less_than_the_others_are_opened(monkeypatch):
    search = copy_candidates._Search.__new__(copy_candidates._Search)
    search._shrunk, search._small = np.zeros((9, 64, 64)), range(copy_candidates._MANY)
    monkeypatch.setattr(copy_registration, "register", lambda copies, originals, windows: windows)

    def opened(**found):
        """Of originals by how far they stand out and what they differ by, those that are opened."""
        names = list(found)
        whole = np.array(copy_registration.WHOLE)
        search._found = [[copy_candidates.Candidate(0, i, whole, found[name][0]) for i, name in enumerate(names)]]
        search._left = lambda query, other, window: found[names[other]][1]
        return {names[one.original] for one in search.likeliest(0)}

    alike = {"a": (4.9, 1.1), "b": (5.1, 0.9), "c": (4.2, 1.0)}
    assert opened(**alike) == set()
    assert opened(**alike, copy=(4.4, 0.4)) == {"copy"}
    assert opened(**alike, copy=(8.0, 1.2)) == {"copy"}
    assert opened(alone=(4.4, 1.2)) == {"alone"}
    assert opened() == set()
    search._small = range(36)
    assert opened(**alike) == {"a", "b", "c"}


@pytest.mark.slow
def test_changed_copies_of_aligned_parts_are_found_and_nothing_else(tmp_path):
    """Parts on black that differ in their noise and a faint texture only, as they come from a fixture."""
    duplicates_benchmark.draw_pills(tmp_path / "set", 36, side=320, texture=1.5)
    alone, results, wrong = duplicates_benchmark.measure(records.scan([tmp_path / "set"]), sample=2)
    assert (alone, wrong) == ([], [])
    # Cropped, halved and then stored as JPEG 75 a copy keeps little beside the outlines, which every part has.
    lost = {kind for kind, (found, made) in results.items() if found < made}
    assert lost <= {"crop 10 %, half, JPEG 75"}


def test_changed_copies_of_photographs_are_found_and_nothing_else(real_data):
    brushes = records.scan([real_data / "mvtec_ad_448_jpeg/toothbrush"])[::2]
    screws = records.scan([real_data / "mvtec_ad_448/screw"])[::8]
    alone, results, wrong = duplicates_benchmark.measure([*brushes, *screws], sample=1)
    assert (alone, wrong) == ([], [])
    assert [kind for kind, (found, made) in results.items() if found < made] == []


@pytest.mark.parametrize("settings", [{}, {"background": 255.0}, {"noise": 0.0}, {"texture": 0.0}])
def test_aligned_parts_before_a_removed_background_are_no_duplicates(tmp_path, settings):
    duplicates_benchmark.draw_pills(tmp_path, 40, side=192, **settings)
    assert _found(tmp_path).duplicates == ()


@pytest.mark.parametrize(
    "again",
    [
        lambda grey, noise: grey + noise,
        lambda grey, noise: ImageEnhance.Brightness(Image.fromarray(grey.astype(np.uint8))).enhance(1.1),
        lambda grey, noise: np.roll(grey, 2, 0) + noise,
    ],
    ids=["under the same light", "brighter", "moved a little"],
)
def test_another_photograph_of_one_part_is_no_duplicate(tmp_path, again):
    """It belongs in groups.csv, but it is not the same photograph."""
    root = _bolt(tmp_path)
    part = np.asarray(_photo(3).convert("L"), np.float32)
    noise = np.random.default_rng(9).normal(0.0, 6.0, part.shape)
    image = again(part, noise)
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    _save(root / "bolt/test/good/again.png", image)
    assert _found(root).duplicates == ()


def test_no_finding_advises_to_remove_what_is_only_similar(tmp_path):
    root = _bolt(tmp_path)
    _save(root / "bolt/test/good/copy.jpg", _photo(4), quality=80)
    _save(root / "bolt/test/dent/copy.jpg", _photo(104), quality=80)
    for one in explore_findings.findings(_found(root)):
        assert "remove" not in one.text.lower(), one.kind


def test_several_changed_copies_are_found_and_no_other_pair(tmp_path):
    root = _bolt(tmp_path)
    for i in (0, 5, 11):
        _save(root / f"bolt/test/good/changed{i:02d}.jpg", _photo(i), quality=80)
    whole = {(f"bolt/train/good/{i:03d}.png", f"bolt/test/good/changed{i:02d}.jpg") for i in (0, 5, 11)}
    assert set(_pairs(_found(root))) == whole


def test_declared_groups_are_no_leak_and_undeclared_ones_are(tmp_path):
    root = _bolt(tmp_path)
    for i in (1, 2):
        _save(root / f"bolt/test/good/again{i}.jpg", _photo(100 + i), quality=85)
    (root / "bolt/groups.csv").write_text("path,group\ntest/good/001.png,part\ntest/good/again1.jpg,part\n")
    found = _found(root)
    pairs = _pairs(found)
    assert pairs["bolt/test/good/001.png", "bolt/test/good/again1.jpg"].relation == "one group"
    assert pairs["bolt/test/good/002.png", "bolt/test/good/again2.jpg"].relation == "across groups"
    listed = _finding(found, "duplicates_across_groups").items
    assert listed == ("bolt/test/good/002.png and bolt/test/good/again2.jpg (changed copy)",)


def test_a_group_in_train_and_test_is_named(tmp_path):
    root = _bolt(tmp_path)
    (root / "bolt/groups.csv").write_text("path,group\ntrain/good/001.png,part\ntest/good/001.png,part\n")
    assert _finding(_found(root), "groups_in_train_and_test").items == ("bolt/part",)


def test_one_photograph_with_both_labels_is_named(tmp_path):
    root = _bolt(tmp_path)
    (root / "bolt/test/good/good.png").write_bytes((root / "bolt/test/dent/004.png").read_bytes())
    (item,) = _finding(_found(root), "contradicting_labels").items
    assert item == "bolt/test/dent/004.png and bolt/test/good/good.png (same file)"


def test_many_copies_are_each_named_once(tmp_path):
    root = _bolt(tmp_path)
    for i in range(30):
        _save(root / f"bolt/test/good/copy{i:02d}.png", _photo(4))
    pairs = _found(root).duplicates
    assert len(pairs) == 30
    assert {pair.first.path for pair in pairs} == {"bolt/train/good/004.png"}


def test_unreadable_files_are_listed_with_their_reason_and_the_rest_is_looked_at(tmp_path):
    root = _bolt(tmp_path)
    (root / "bolt/train/good/empty.png").write_bytes(b"")
    (root / "bolt/train/good/text.png").write_text("no image")
    whole = (root / "bolt/train/good/000.png").read_bytes()
    (root / "bolt/train/good/half.png").write_bytes(whole[: len(whole) // 2])
    found = _found(root)
    reasons = {one.record.path: one.reason for one in found.unreadable}
    assert reasons["bolt/train/good/empty.png"] == "the file is empty"
    assert "no image" in reasons["bolt/train/good/text.png"]
    assert "truncated PNG" in reasons["bolt/train/good/half.png"]
    assert len(found.looks) == 32
    assert _finding(found, "unreadable").title == "3 image files cannot be read"


def test_unusable_masks_are_named_each_by_what_is_wrong(tmp_path):
    root = _bolt(tmp_path)
    masks = root / "bolt/ground_truth/dent"
    _save(masks / "000_mask.png", _mask(filled=False))
    _save(masks / "001_mask.png", _mask(SIDE * 2, SIDE))
    (masks / "002_mask.png").unlink()
    (masks / "003_mask.png").write_bytes(b"\x89PNG")
    _save(masks / "004_mask.png", Image.new("L", (SIDE, SIDE), 1))
    _save(masks / "099_mask.png", _mask())
    found = _found(root)
    states = {mask.record.path[-7:-4]: mask.state for mask in found.masks}
    assert [states[f"{i:03d}"] for i in range(6)] == ["empty", "other size", "missing", "unreadable", "full", "ok"]
    (item,) = _finding(found, "masks_other_size").items
    assert item == "bolt/test/dent/001.png: its mask has 192 x 96 pixels, the image 96 x 96"
    (orphan,) = _finding(found, "masks_without_image").items
    assert "099_mask.png: no image has it" in orphan


def test_masks_of_the_same_pixels_on_two_parts_are_said_and_may_be_right(tmp_path):
    root = _bolt(tmp_path)
    masks = root / "bolt/ground_truth/dent"
    # The same pixels in another file; and on two views of one object, of which that is no wonder.
    _save(masks / "003_mask.png", _mask(top=1).convert("RGB"))
    _save(masks / "006_mask.png", _mask(top=5))
    (root / "bolt/groups.csv").write_text("path,group\ntest/dent/005.png,a\ntest/dent/006.png,a\n")
    (finding,) = explore_findings.findings(_found(root))
    assert finding.kind == "masks_alike"
    assert finding.items == ("bolt/test/dent/001.png and bolt/test/dent/003.png",)
    assert "nothing is wrong" in finding.text


def test_a_category_without_masks_lacks_none(tmp_path):
    root = _bolt(tmp_path)
    for file in (root / "bolt/ground_truth/dent").iterdir():
        file.unlink()
    found = _found(root)
    assert found.masks == ()
    assert explore_findings.findings(found) == []


def test_small_classes_are_named(tmp_path):
    found = _found(_bolt(tmp_path, good=1, defective=0))
    finding = _finding(found, "small_classes")
    assert finding.items == ("bolt: 1 good test image", "bolt: 0 defective images")
    assert "label budget 0" in finding.text
    some = _finding(_found(_bolt(tmp_path / "some", good=1, defective=1)), "small_classes")
    assert "label budget" not in some.text


def test_light_that_gives_the_label_away_is_said(tmp_path):
    root = _bolt(tmp_path)
    for i in range(10):
        _save(root / f"bolt/test/good/{i:03d}.png", ImageEnhance.Brightness(_photo(100 + i)).enhance(0.8))
    found = _found(root)
    assert "bolt: brightness alone, ROC-AUC 1.000" in _finding(found, "telling_brightness").items


def test_another_lamp_over_all_test_images_is_found(tmp_path):
    root = _bolt(tmp_path)
    for file in root.glob("bolt/test/*/*.png"):
        pixels = np.asarray(Image.open(file), np.float32) * 1.1
        _save(file, Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    found = _found(root)
    assert "bolt: brightness alone, ROC-AUC 1.000" in _finding(found, "other_light").items
    assert "telling_brightness" not in {one.kind for one in explore_findings.findings(found)}


def test_a_format_that_gives_the_label_away_is_said(tmp_path):
    root = _bolt(tmp_path)
    for i in range(10):
        (root / f"bolt/test/dent/{i:03d}.png").unlink()
        _save(root / f"bolt/test/dent/{i:03d}.jpg", _photo(200 + i), quality=95)
    (item,) = _finding(_found(root), "telling_storage").items
    assert item == "bolt: format of good PNG; of defective JPEG"


def test_files_that_are_no_images_for_the_scanner_are_not_passed_over_in_silence(tmp_path):
    root = _bolt(tmp_path)
    _save(root / "bolt/test/good/scan.tif", _photo(50))
    (root / "bolt/test/good/.hidden").write_text("")
    _save(root / "bolt/test/good/renamed.dat", _photo(51), format="PNG")
    (root / "bolt/test/good/more.zip").write_bytes(b"")
    (root / "bolt/test/good/note.txt").write_text("Lamp changed on Monday.")
    found = _found(root)
    names = [item.rpartition("/")[2] for item in _finding(found, "ignored").items]
    assert names == ["more.zip", "renamed.dat", "scan.tif"]
    # A note is counted, and needs no attention.
    assert "1 other file among them" in sentences(found, [])[0]


def test_content_counts_and_not_the_name(tmp_path):
    root = _bolt(tmp_path)
    _save(root / "bolt/train/good/jpeg.png", _photo(50), format="JPEG")
    _save(root / "bolt/train/good/tiff.png", _photo(51), format="TIFF")
    found = _found(root)
    assert _finding(found, "misnamed").items == ("bolt/train/good/jpeg.png: JPEG",)
    assert _finding(found, "undecodable").items == ("bolt/train/good/tiff.png: TIFF, mode RGB",)


def test_blank_images_are_named_and_are_not_everybodys_duplicate(tmp_path):
    root = _bolt(tmp_path)
    _save(root / "bolt/train/good/white.png", Image.new("RGB", (SIDE, SIDE), "white"))
    _save(root / "bolt/train/good/black.png", Image.new("L", (SIDE, SIDE), 0))
    found = _found(root)
    assert [item.split(":")[0][-9:] for item in _finding(found, "blank").items] == ["black.png", "white.png"]
    assert found.duplicates == ()


def _dim(rng, spot):
    """A part of one shape as a camera of 12 bits stores it in the low ones of 16: some levels of 8 bits."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    grey = 2600 + 900 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.12) + 150 * np.sin(25 * x)
    grey = grey * rng.uniform(0.97, 1.03) + rng.normal(0, 60, grey.shape)
    if spot:
        across, down = rng.uniform(0.25, 0.75, 2)
        grey[(x - across) ** 2 + (y - down) ** 2 < 0.005] -= 900
    return Image.fromarray(grey.astype(np.uint16))


def test_12_bits_in_the_low_ones_of_16_are_said_and_are_neither_blank_nor_each_others_copies(tmp_path):
    rng = np.random.default_rng(2)
    for i in range(40):
        _save(tmp_path / f"cap/{'defective' if i % 2 else 'good'}/{i:03d}.png", _dim(rng, i % 2))
    found = _found(tmp_path)
    assert found.duplicates == ()
    kinds = {one.kind: one for one in explore_findings.findings(found)}
    assert "blank" not in kinds
    assert len(kinds["few_levels"].items) == 40
    assert "of 256 grey levels" in kinds["few_levels"].items[0]


def _modes():
    ramp = np.tile(np.linspace(0, 255, 64), (48, 1))
    grey = Image.fromarray(ramp.round().astype(np.uint8))
    deep = Image.fromarray((ramp.round() * 257).astype(np.uint16))
    return {"L": grey, "RGB": grey.convert("RGB"), "P": grey.convert("P"), "RGBA": grey.convert("RGBA"), "I;16": deep}


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "I;16"])
def test_every_mode_is_named_and_has_the_same_brightness(tmp_path, mode):
    image = _modes()[mode]
    _save(tmp_path / "bolt/train/good/0.png", image)
    (record,) = records.scan([tmp_path])
    found, _ = explore_images.look(record)
    expected = np.asarray(_modes()["L"], np.float64)
    assert (found.mode, found.width, found.height) == (mode, 64, 48)
    assert found.brightness == pytest.approx(expected.mean(), abs=0.01)
    assert found.contrast == pytest.approx(expected.std(), abs=0.01)


def test_a_dim_16_bit_image_stays_dim(tmp_path):
    """Its white is 65535, not its own brightest pixel."""
    pixels = np.full((32, 32), 6553, np.uint16)
    _save(tmp_path / "bolt/train/good/0.png", Image.fromarray(pixels))
    (record,) = records.scan([tmp_path])
    assert explore_images.look(record)[0].brightness == pytest.approx(25.5, abs=0.01)


def test_telling_is_the_roc_auc():
    rng = np.random.default_rng(0)
    good, defective = rng.integers(0, 9, 40), rng.integers(3, 12, 25)
    expected = roc_auc_score([0] * 40 + [1] * 25, [*good, *defective])
    assert explore_findings.telling(good, defective) == pytest.approx(expected, abs=1e-12)
    assert explore_findings.telling([], defective) is None


def test_highest_rate_is_the_one_of_a_binomial_without_an_error():
    from scipy.stats import binom

    for images in (1, 10, 213):
        assert binom.pmf(0, images, explore_findings.highest_rate(images)) == pytest.approx(0.05)


def test_a_folder_that_changes_meanwhile_is_an_error_that_names_the_file(tmp_path):
    root = _bolt(tmp_path)
    copy = root / "bolt/test/good/changed.jpg"
    _save(copy, _photo(3), quality=85)
    looks, small = zip(*(explore_images.look(r) for r in records.scan([root])), strict=True)
    copy.unlink()
    with pytest.raises(UserError, match=re.escape(str(copy))):
        duplicates.find(looks, small)


@pytest.mark.parametrize(
    "name", ["jpeg turned 6<", "jpeg turned 3>", "png turned 8", "png turned, said behind the pixels"]
)
def test_an_image_is_looked_at_upright(tmp_path, name):
    content = (image_samples.jpegs() | image_samples.good())[name][0]
    file = tmp_path / "bolt" / "train" / "good" / "0.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    found, _ = look(Record("bolt/train/good/0.png", str(file), "bolt", "good", 0, "train", "0"))
    assert (found.height, found.width) == upright.shape[:2]
    np.testing.assert_array_equal(np.asarray(pillow_images.read_rgb(file)), upright)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gif", "GIF"),
        ("bmp of two planes", "BMP: .*2 colour planes"),
        ("bmp whose pixels begin in its palette", "BMP: .*its pixels begin at byte"),
        ("bmp colour", "BMP"),
        ("bmp palette of 4 bits", "BMP"),
        ("bmp of black and white in 8 bits", "BMP"),
        ("jpeg with a second picture", "JPEG"),
    ],
)
def test_a_format_that_training_refuses_is_told_from_one_it_takes(tmp_path, name, kind):
    content = (image_samples.refused() | image_samples.good() | image_samples.jpegs())[name][0]
    (tmp_path / "0").write_bytes(content)
    found, _ = look(Record("bolt/train/good/0.png", str(tmp_path / "0"), "bolt", "good", 0, "train", "0"))
    assert re.fullmatch(kind + ".*" * (":" in kind), found.format)
    assert (found.format in explore_images.DECODABLE_FORMATS) == (name not in image_samples.refused())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bmp run-length coded", "run-length coding"),
        ("bmp of 16 bits", "16 bits"),
        ("jpeg of 12 bits", "12 bits a colour"),
        ("jpeg lossless", "lossless"),
        ("jpeg cut", "truncated JPEG"),
        ("jpeg without its end", "truncated JPEG"),
        ("png without its last byte", "truncated PNG"),
    ],
)
def test_a_mask_of_a_kind_that_training_refuses_is_refused_with_its_words(tmp_path, name, words):
    (tmp_path / "0").write_bytes(image_samples.refused()[name][0])
    with pytest.raises(pillow_images.UnreadableImageError, match=words):
        pillow_images.read_stored(tmp_path / "0")


def test_a_postscript_file_under_an_images_name_is_not_run(tmp_path, monkeypatch):
    Image.new("RGB", (20, 10)).save(tmp_path / "0.eps")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    (tmp_path / "0.eps").rename(tmp_path / "0.png")
    with pytest.raises(pillow_images.UnreadableImageError, match="PostScript"):
        pillow_images.read_stored(tmp_path / "0.png")


@pytest.mark.parametrize("name", [name for name in image_samples.good() if name.startswith("bmp")])
def test_every_bmp_is_looked_at_as_training_sees_it(tmp_path, name):
    content, expected = image_samples.good()[name]
    (tmp_path / "0.bmp").write_bytes(content)
    np.testing.assert_array_equal(np.asarray(pillow_images.read_rgb(tmp_path / "0.bmp")), expected)


def test_an_image_larger_than_training_takes_is_unreadable(tmp_path):
    file = tmp_path / "0.png"
    header = struct.pack(">IIBBBBB", 10_000, 10_001, 8, 2, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + image_samples.png_chunk(b"IHDR", header) + image_samples.png_chunk(b"IDAT", b"")
    )
    with pytest.raises(pillow_images.UnreadableImageError, match="10000 x 10001 pixels, 100010000 in all"):
        pillow_images.read_rgb(file)
