"""The size that a network looks at follows the shape of the parts, at the same area."""

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.data.formats import scan
from mvtec_tf.data.part_shape import size_of_parts


def _folder(root, name, sizes):
    for number, (width, height) in enumerate(sizes):
        for part in ("train/good", "test/good", "test/crack"):
            (root / name / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((height, width), np.uint8)).save(root / name / part / f"{number}.png")
    return root / name


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (900, 900, 448),
        (700, 680, 448),  # rounded to multiples of 32
        (512, 384, (384, 512)),
        (230, 565, (704, 288)),
        (4096, 256, (128, 2048)),
        (103, 1272, (1568, 128)),
        (16, 4096, (3584, 32)),
    ],
)
def test_sides_are_those_of_the_parts_at_the_area_of_the_square(width, height, expected, tmp_path):
    records = scan.scan([_folder(tmp_path, "part", [(width, height)] * 3)])
    found = size_of_parts(records, 448)
    assert found == expected
    if found not in (448, (3584, 32)):  # no longer than eight times the side
        assert all(side % 32 == 0 for side in found)
        assert 0.6 < found[0] * found[1] / 448**2 < 1.6


def test_the_middle_shape_of_the_good_training_images_counts_and_an_unreadable_file_does_not(tmp_path):
    folder = _folder(tmp_path, "part", [(400, 200)] * 11 + [(100, 900)])
    (folder / "train" / "good" / "99.png").write_bytes(b"no image")
    (folder / "test" / "crack" / "0.png").write_bytes(b"no image")
    assert size_of_parts(scan.scan([folder]), 448) == (320, 640)


def test_two_views_of_one_part_lying_and_standing_are_looked_at_in_a_square(tmp_path):
    folder = _folder(tmp_path, "spindle", [(565, 230)] * 3 + [(322, 772)] * 4)
    assert size_of_parts(scan.scan([folder]), 448) == 448


def test_categories_without_a_shape_in_common_are_looked_at_in_a_square(tmp_path):
    _folder(tmp_path, "flat", [(400, 200)] * 2)
    _folder(tmp_path, "high", [(200, 400)] * 2)
    assert size_of_parts(scan.scan([tmp_path]), 448) == 448
    assert size_of_parts(scan.scan([tmp_path / "flat"]), 448) == (320, 640)
