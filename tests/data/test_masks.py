"""A mask is two levels in the frame of the upright image; whatever is none is left out by name, everywhere alike."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mvtec_tf.data import masks
from mvtec_tf.data.formats import scan as records
from mvtec_tf.data.formats import tfds_builder as builder
from mvtec_tf.data.masks import MaskError
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import image_files
from mvtec_tf.evaluation.table import Predictions, Row
from mvtec_tf.exploration.findings import findings
from mvtec_tf.exploration.survey import explore
from mvtec_tf.jobs import judge
from mvtec_tf.jobs.settings import JudgeSettings
from tests.support import image_samples

HEIGHT, WIDTH = 60, 90
ORIENTATION = 0x0112


def _defect():
    """bool [60, 90]: a disc and a scratch one pixel wide, clear of the border."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return ((y - 24) ** 2 + (x - 30) ** 2 < 150) | ((x == 70) & (y > 10) & (y < 50))


def _grey(low=0, high=255):
    return Image.fromarray(np.where(_defect(), high, low).astype(np.uint8))


def _painted(background, foreground, mode):
    values = np.where(_defect()[..., None], np.uint8(foreground), np.uint8(background))
    return Image.fromarray(values.astype(np.uint8), mode)


def _photo(width=WIDTH, height=HEIGHT, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(60, 190, (height, width, 3), np.uint8))


def _saved(image, suffix=".png", **options):
    buffer = io.BytesIO()
    image.save(buffer, {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF"}[suffix], **options)
    return buffer.getvalue()


def _noisy(sigma):
    values = np.asarray(_grey(), float) + np.random.default_rng(0).normal(0, sigma, (HEIGHT, WIDTH))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _palette():
    image = Image.fromarray(_defect().astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


def _overlay():
    photo = np.asarray(_photo()).copy()
    photo[_defect()] = (255, 0, 0)
    return Image.fromarray(photo)


def _classes(values=(0, 1, 2)):
    found = np.full((HEIGHT, WIDTH), values[0], np.uint8)
    found[_defect()] = values[1]
    found[50:55, 5:9] = values[2]
    return Image.fromarray(found)


MASKS = {
    "0 and 255": _saved(_grey()),
    "0 and 1": _saved(_grey(0, 1)),
    "grey and white": _saved(_grey(90, 200)),
    "1 bit": _saved(_grey().convert("1")),
    "16 bits": _saved(Image.fromarray(np.where(_defect(), 65535, 0).astype(np.uint16))),
    "16 bits, 0 and 1": _saved(Image.fromarray(np.where(_defect(), 1, 0).astype(np.uint16))),
    "palette of black and white": _saved(_palette()),
    "three equal channels": _saved(_grey().convert("RGB")),
    "opaque": _saved(_grey().convert("RGBA")),
    "bmp": _saved(_grey(), ".bmp"),
    "tiff of floats": _saved(Image.fromarray(_defect().astype(np.float32)), ".tif"),
    **{f"jpeg of quality {quality}": _saved(_grey(), ".jpg", quality=quality) for quality in (50, 75, 95)},
    "jpeg in colour": _saved(_grey().convert("RGB"), ".jpg", quality=75),
    "jpeg, saved as png again": _saved(Image.open(io.BytesIO(_saved(_grey(), ".jpg", quality=75)))),
}
# A scratch that is blurred away has no edge any more.
_SOFT = "edges are soft|no edge is near"
NONE = {
    "noise": (_saved(_noisy(12)), masks.NO_MASK, "grey values.*though no edge is near"),
    "noise in a jpeg": (_saved(_noisy(20), ".jpg", quality=90), masks.NO_MASK, "grey values"),
    "soft edges": (_saved(_grey().filter(ImageFilter.GaussianBlur(2))), masks.NO_MASK, _SOFT),
    "soft edges in a jpeg": (
        _saved(_grey().filter(ImageFilter.GaussianBlur(3)), ".jpg"),
        masks.NO_MASK,
        _SOFT,
    ),
    "inverted": (_saved(_grey(255, 0)), masks.INVERTED, r"marks 9\d% of the image.*inverted"),
    "inverted in a jpeg": (_saved(_grey(255, 0), ".jpg"), masks.INVERTED, "inverted"),
    "the defect transparent": (_saved(_painted((0, 0, 0, 255), (255, 255, 255, 0), "RGBA")), masks.NO_MASK, "transpar"),
    "the rest transparent": (_saved(_painted((0, 0, 0, 0), (255, 0, 0, 128), "RGBA")), masks.NO_MASK, "transparent"),
    "grey with alpha": (_saved(_painted((0, 0), (255, 255), "LA")), masks.NO_MASK, "transparent"),
    "transparent everywhere": (_saved(_painted((0, 0, 0, 0), (255, 255, 255, 0), "RGBA")), masks.NO_MASK, "everywhere"),
    "a transparent grey": (_saved(_grey(), transparency=0), masks.NO_MASK, "transparent"),
    "blue only": (_saved(_painted((0, 0, 0), (0, 0, 255), "RGB")), masks.NO_MASK, "colour"),
    "blue of level one": (_saved(_painted((0, 0, 0), (0, 0, 1), "RGB")), masks.NO_MASK, "colour"),
    "red in a jpeg": (_saved(_painted((0, 0, 0), (255, 0, 0), "RGB"), ".jpg"), masks.NO_MASK, "colour"),
    "an overlay": (_saved(_overlay()), masks.NO_MASK, "colour"),
    "a grey overlay": (_saved(_overlay().convert("L")), masks.NO_MASK, "grey values"),
    "the photograph itself": (_saved(_photo()), masks.NO_MASK, "colour"),
    "classes": (_saved(_classes()), masks.NO_MASK, r"\(0, 1, 2\)"),
    "classes far apart": (_saved(_classes((0, 255, 128))), masks.NO_MASK, r"\(0, 128, 255\)"),
    "empty": (_saved(_grey(0, 0)), masks.EMPTY, "is empty"),
    "full": (_saved(_grey(255, 255)), masks.FULL, "every pixel"),
    "another size": (
        _saved(_grey().resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.NEAREST)),
        masks.OTHER_SIZE,
        "45 x 30.*90 x 60",
    ),
    "cut": (_saved(_grey())[:60], masks.UNREADABLE, "cannot be"),
    "text": (b"no image", masks.UNREADABLE, "no image of a known format"),
}


def _data(root, mask, image=None):
    """A category of two good images and a defective one, with this mask."""
    files = {
        "train/good/0.png": _saved(_photo(seed=1)),
        "test/good/0.png": _saved(_photo(seed=2)),
        "test/dent/000.png": image or _saved(_photo()),
        "ground_truth/dent/000_mask.png": mask,
    }
    for name, content in files.items():
        _put(root / "bolt" / name, content)
    return records.scan([root])


def _put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _files(found):
    """What evaluate knows of the defective images."""
    rows = [record for record in found if record.label]
    column = {name: np.array([getattr(one, name) for one in rows], object) for name in ("path", "category", "defect")}
    table = Predictions(
        **column,
        label=np.ones(len(rows), np.int64),
        split=np.array(["evaluate"] * len(rows), object),
        score=np.zeros(len(rows)),
        group=column["path"],
        probability=None,
    )
    return image_files.from_records(found, table, "here")


@pytest.mark.parametrize("name", MASKS)
def test_two_levels_are_a_mask_whatever_the_file(tmp_path, name):
    found = _data(tmp_path, MASKS[name])
    (record,) = (record for record in found if record.label)
    (look,) = explore(found).masks
    assert look.state == "ok", look.reason
    (files,) = _files(found).values()
    mask = image_files.read_mask(files)
    assert mask.shape == (HEIGHT, WIDTH)
    # JPEG moves an edge by a pixel in a few places.
    assert np.mean(mask != _defect()) <= (0.002 if "jpeg" in name else 0)
    np.testing.assert_array_equal(builder._mask(record, "", mask.shape)[..., 0], np.where(mask, 255, 0))


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_mask_is_left_out_by_name_by_exploration_evaluation_and_the_builder_alike(tmp_path, name):
    content, state, words = NONE[name]
    found = _data(tmp_path, content)
    (record,) = (record for record in found if record.label)
    (look,) = explore(found).masks
    assert look.state == state
    (files,) = _files(found).values()
    with pytest.raises(MaskError, match=words) as caught:
        image_files.read_mask(files)
    assert str(caught.value) == look.reason
    with pytest.raises(UserError, match=words) as caught:
        builder._mask(record, "", (HEIGHT, WIDTH))
    assert record.mask in str(caught.value)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_mask_in_the_frame_of_the_upright_image_is_used_and_one_in_the_stored_frame_left_out(tmp_path, orientation):
    """A photograph that Exif turns by a quarter is compared as it is seen; by a half, nothing but a look can tell."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    sideways = orientation != 3
    stored = _photo(*((HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT)))
    for kind in (".jpg", ".png"):
        image = _saved(stored, kind, exif=exif)
        found = _data(tmp_path / kind, MASKS["0 and 255"], image)
        (files,) = _files(found).values()
        assert image_files.image_size(files.image) == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(image_files.read_mask(files), _defect())
        explored = explore(found)
        assert explored.masks[0].state == "ok"
        named = [one.items for one in findings(explored) if one.kind == "masks_of_turned_images"]
        assert named == ([] if sideways else [("bolt/test/dent/000.png: 90 x 60",)])
        if sideways:
            found = _data(tmp_path / kind, _saved(_grey().rotate(90, expand=True)), image)
            assert explore(found).masks[0].state == masks.OTHER_SIZE
            with pytest.raises(MaskError, match=r"60 x 90.*90 x 60, seen upright: one of them is turned by a quarter"):
                image_files.read_mask(files)


@pytest.mark.parametrize("name", ["png turned 6", "png turned, said behind the pixels", "jpeg turned 6<", "png colour"])
def test_the_size_of_an_image_is_that_of_its_decoded_pixels(tmp_path, name):
    import tensorflow as tf

    from mvtec_tf.data.decoding import pixels

    content = (image_samples.jpegs() | image_samples.good())[name][0]
    (tmp_path / "image").write_bytes(content)
    decoded = pixels.decode(tf.constant(content)).shape[:2]
    assert image_files.image_size(str(tmp_path / "image")) == tuple(decoded)


def test_a_mask_that_two_images_claim_is_nobodys_and_both_are_named(tmp_path):
    found = _data(tmp_path, MASKS["0 and 255"])
    _put(tmp_path / "bolt/test/dent/000.jpg", _saved(_photo(), ".jpg"))
    said = []
    found = records.scan([tmp_path], say=said.append)
    (shared,) = [sentence for sentence in said if "one mask for two" in sentence]
    assert "bolt/test/dent/000.jpg and bolt/test/dent/000.png" in shared
    states = {mask.record.path: (mask.state, mask.reason) for mask in explore(found).masks}
    assert {path[-3:]: state for path, (state, _) in states.items()} == {"png": masks.SHARED, "jpg": masks.SHARED}
    assert "claimed by bolt/test/dent/000.jpg too" in states["bolt/test/dent/000.png"][1]
    for path, files in _files(found).items():
        with pytest.raises(MaskError, match="claimed by") as caught:
            image_files.read_mask(files)
        assert str(caught.value) == states[path][1]


def test_masks_of_a_folder_that_no_row_of_the_table_claims_are_named(tmp_path):
    names = ["cap/test/chip/0.png", "cap/test/chip/1.png", "cap/test/good/0.png"]
    table = Predictions.from_rows(
        [
            Row(names[0], "cap", "chip", 1, "evaluate", 0.5),
            Row(names[1], "cap", "chip", 1, "calibrate", 0.5),
            Row(names[2], "cap", "good", 0, "evaluate", 0.5),
        ]
    )
    for name in (*names, "cap/test/chip/2_mask.png", "cap/test/chip/0_mask.png", "cap/notes.txt", "cap/._3.png"):
        _put(tmp_path / name, _saved(_photo(), ".png"))
    (sentence,) = image_files.unclaimed(tmp_path, table)
    unclaimed = ("cap/test/chip/0.png", "cap/test/chip/2_mask.png")
    assert sentence.endswith(f"2 files are the mask of no image of the table: {', '.join(unclaimed)}.")
    settings = JudgeSettings(predictions="", out="", masks=str(tmp_path), heatmaps=(str(tmp_path),))
    assert judge.extras(settings, table).about_files == (sentence,)
    for name in unclaimed:
        (tmp_path / name).unlink()
    assert image_files.unclaimed(tmp_path, table) == []


def test_photographs_of_one_object_may_share_a_mask(tmp_path):
    _data(tmp_path, MASKS["0 and 255"])
    _put(tmp_path / "bolt/test/dent/000.jpg", _saved(_photo(), ".jpg"))
    _put(tmp_path / "bolt/groups.csv", b"path,group\ntest/dent/000.png,a\ntest/dent/000.jpg,a\n")
    assert {mask.state for mask in explore(records.scan([tmp_path])).masks} == {"ok"}


@pytest.mark.parametrize(
    "name",
    [
        "ground_truth/Dent/001_mask.png",
        "Ground_Truth/dent/001_mask.png",
        "ground-truth/dent/001_mask.png",
        "masks/dent/001.bmp",
        "ground_truth/001_mask.png",
        "ground_truth/dent/deeper/001_mask.png",
        "ground_truth/scratch/001_mask.png",
        "test/ground_truth/Dent/001_mask.png",
        "test/ground_truth/dent/001_MASK.png",
        "train/ground_truth/dent/001_mask.png",
    ],
)
def test_a_mask_that_no_image_claims_is_reported_with_the_name_it_should_have(tmp_path, name):
    _data(tmp_path, MASKS["0 and 255"])
    _put(tmp_path / "bolt/test/dent/001.png", _saved(_photo(seed=5)))
    _put(tmp_path / "bolt" / name, MASKS["0 and 255"])
    _put(tmp_path / "bolt/ground_truth/dent/Thumbs.db", b"")
    found = records.scan([tmp_path])
    file = tmp_path / "bolt" / name
    ((unclaimed, why),) = masks.unclaimed(found)
    assert unclaimed == str(file)
    assert "ground_truth/" in why
    if name.lower().split("/")[-2] == "dent" and "deeper" not in name:
        assert "ground_truth/dent/001_mask.png" in why
    listed = [one.items for one in findings(explore(found)) if one.kind == "masks_without_image"]
    assert listed == [(f"{file}: {why}",)]
    assert str(file) in masks.sentences([(unclaimed, why)])[0]


@pytest.mark.parametrize(
    "name",
    [
        "ground_truth/dent/001_mask.PNG",
        "ground_truth/dent/001.png",
        "ground_truth/dent/001.bmp",
        "ground_truth/dent/001/0.png",
        "Ground_Truth/dent/001_mask.png",
        "test/ground_truth/dent/001_mask.png",
    ],
)
def test_a_mask_is_found_where_other_data_sets_than_mvtec_ad_have_it(tmp_path, name):
    _data(tmp_path, MASKS["0 and 255"])
    (tmp_path / "bolt/ground_truth/dent/000_mask.png").unlink()
    (tmp_path / "bolt/ground_truth/dent").rmdir()
    (tmp_path / "bolt/ground_truth").rmdir()
    _put(tmp_path / "bolt/test/dent/001.png", _saved(_photo(seed=5)))
    _put(tmp_path / "bolt" / name, MASKS["0 and 255"])
    found = records.scan([tmp_path])
    assert {record.path: record.mask for record in found if record.label} == {
        "bolt/test/dent/000.png": "",
        "bolt/test/dent/001.png": str(tmp_path / "bolt" / name),
    }
    assert masks.unclaimed(found) == ()


def test_of_a_mask_in_several_files_none_is_used_and_each_says_so(tmp_path):
    """MVTec LOCO has one for each place where something is missing: any one alone would mark a part of the defect."""
    _data(tmp_path, MASKS["0 and 255"])
    _put(tmp_path / "bolt/test/dent/001.png", _saved(_photo(seed=5)))
    for number in (0, 1):
        _put(tmp_path / f"bolt/ground_truth/dent/001/{number}.png", MASKS["0 and 255"])
    found = records.scan([tmp_path])
    assert [record.mask for record in found if record.path.endswith("dent/001.png")] == [""]
    for _, why in masks.unclaimed(found):
        assert "one of 2 masks of bolt/test/dent/001.png; join them into ground_truth/dent/001_mask.png" in why


@pytest.mark.parametrize("folder", ["masks", "Mask", "gt"])
@pytest.mark.parametrize("parts", ["train/good test", "good defective", "train/good train"])
def test_a_type_of_defect_that_is_a_folder_of_masks_is_none_and_one_of_photographs_is(tmp_path, parts, folder):
    _put(tmp_path / "cap" / parts.split()[0] / "0.png", _saved(_photo()))
    place = tmp_path / "cap" / parts.split()[1] / folder
    for number in range(2):
        _put(place / f"00{number}.png", _saved(_grey()))
    with pytest.raises(UserError, match=f"{folder}: masks among the images"):
        records.scan([tmp_path])
    if parts != "train/good train":
        _put(place / "001.png", _saved(_photo(seed=5)))
        assert {record.defect for record in records.scan([tmp_path])} == {"good", folder}


def test_a_good_image_may_have_a_black_mask_and_no_other(tmp_path):
    _data(tmp_path, MASKS["0 and 255"])
    good = tmp_path / "bolt/ground_truth/good/0_mask.png"
    _put(good, _saved(_grey(0, 0)))
    assert [mask.state for mask in explore(records.scan([tmp_path])).masks] == ["ok"]
    _put(good, _saved(_grey()))
    found = explore(records.scan([tmp_path]))
    assert (str(good) in item for one in findings(found) if one.kind == "masks_on_a_good_image" for item in one.items)
    assert masks.CONTRADICTS in {mask.state for mask in found.masks}


def test_the_builder_says_what_is_wrong_with_a_file_and_not_where_in_a_graph(tmp_path):
    file = tmp_path / "0.png"
    file.write_bytes(_saved(_photo())[:200])
    record = Record("bolt/train/good/0.png", str(file), "bolt", "good", 0, "train", "0")
    with pytest.raises(UserError, match=r"0\.png: a truncated or damaged PNG image\. ") as caught:
        builder._example(record, "")
    assert "Graph execution" not in str(caught.value)
