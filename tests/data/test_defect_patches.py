"""Patches of defects: where they are cut, which file is refused, and what of them reaches an image."""

import re

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.data import defect_patches
from mvtec_tf.data.defect_patches import Bank
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError

SIDE = 128
SOURCE = [("a/test/b/000.png", "a/test/b/000.png", "a")]


def _record(tmp_path, name, mask=None, group=""):
    """An image with a bright defect where its mask is."""
    image = np.full((SIDE, SIDE, 3), 100, np.uint8)
    if mask is not None:
        image[mask > 0] = 200
        Image.fromarray(mask).save(tmp_path / f"{name}_mask.png")
    Image.fromarray(image).save(tmp_path / f"{name}.png")
    file = str(tmp_path / f"{name}.png")
    return Record(
        f"a/test/b/{name}.png", file, "a", "b", 1, "test", group or file,
        str(tmp_path / f"{name}_mask.png") if mask is not None else "",
    ), image  # fmt: skip


def _mask(*places):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for rows, columns in places:
        mask[slice(*rows), slice(*columns)] = 255
    return mask


def test_each_defect_lies_whole_in_its_patches_with_what_is_around_it(tmp_path):
    record, image = _record(tmp_path, "000", _mask(((2, 12), (100, 106)), ((30, 110), (40, 50))))
    bank, unused = defect_patches.cut([record], image[None], seed=0)
    assert not unused
    assert bank.patches.shape == (16, 64, 64, 4)
    # The larger first: 80 pixels, and half as much around them; the other in 64 pixels as they are.
    np.testing.assert_allclose(bank.sides, [120 / SIDE] * 8 + [0.5] * 8)
    on = bank.patches[..., 3] == 255
    assert set(np.unique(bank.patches[..., 3])) == {0, 255}
    assert (on[8:].sum(axis=(1, 2)) >= 60).all()
    np.testing.assert_array_equal(on[8:], bank.patches[8:, ..., 0] == 200)
    # At other places in each.
    assert len({tuple(np.argwhere(one)[0]) for one in on[8:]}) > 2
    again, _ = defect_patches.cut([record], image[None], seed=0)
    np.testing.assert_array_equal(again.patches, bank.patches)


def test_images_without_a_mask_are_left_out_and_said_and_none_at_all_is_refused(tmp_path):
    good, image = _record(tmp_path, "000", _mask(((10, 20), (10, 20))))
    empty, without = _record(tmp_path, "001", _mask())[0], _record(tmp_path, "002")[0]
    bank, unused = defect_patches.cut([good, empty, without], np.stack([image] * 3), 0)
    assert [one[0] for one in bank.sources] == [good.path]
    assert unused == [(empty.path, "its mask is empty: no pixel of it is set"), (without.path, "it has no mask")]
    with pytest.raises(UserError, match=r"No mask of 2 labelled defective images can be used \(a/test/b/001.png"):
        defect_patches.cut([empty, without], np.stack([image] * 2), 0)


def test_a_bank_comes_back_from_its_file_and_another_file_is_refused_by_what_is_in_it(tmp_path):
    patches, sides = np.zeros((2, 16, 16, 4), np.uint8), np.array([0.5, 0.25], np.float32)
    patches[:, 4:9, 4:9] = 255
    file = tmp_path / "bank.npz"
    Bank(patches, sides, SOURCE).write(file)
    found = defect_patches.read(file)
    np.testing.assert_array_equal(found.patches, patches)
    np.testing.assert_array_equal(found.sides, sides)
    assert found.sources == SOURCE
    text = tmp_path / "text.npz"
    text.write_text("no array")
    wrong = {
        "no such file": tmp_path / "not.npz",
        "no file of patches": text,
        "patches are uint8 [2, 16, 12, 4], expected uint8 [N, P, P, 4]": Bank(patches[:, :, :12], sides, SOURCE),
        "sides must be 2 shares": Bank(patches, sides * 9, SOURCE),
        "1 mask of 2 without a defect": Bank(patches * np.array([1, 0], np.uint8)[:, None, None, None], sides, SOURCE),
    }
    for words, one in wrong.items():
        if isinstance(one, Bank):
            one.write(file)
        with pytest.raises(UserError, match=re.escape(words)):
            defect_patches.read(file if isinstance(one, Bank) else one)


@pytest.mark.parametrize("turn", [0, 3, 6])
def test_a_patch_is_blended_where_its_defect_lies_on_the_part(turn):
    image = np.full((40, 40, 3), 100, np.uint8)
    part = np.zeros((40, 40), bool)
    part[:, 5:30] = True
    patch = np.full((16, 16, 4), (60, 60, 60, 0), np.uint8)
    # An upright stroke, 80 levels above what is around it.
    patch[3:13, 7:9] = (140, 140, 140, 255)
    found, region = defect_patches.pasted(image, part, patch, 16, turn, np.array([20, 6]), 0.0)
    np.testing.assert_array_equal(found[~region], image[~region])
    assert not (region & ~part).any()
    assert region[20, 6]
    # The step of the patch reaches the image, whatever grey either has.
    stroke = (found[..., 0] > 150) & region
    rows, columns = (int(np.ptp(one)) + 1 for one in np.nonzero(stroke))
    assert (rows, columns) == ((10, 2) if turn % 2 == 0 else (2, 10))
