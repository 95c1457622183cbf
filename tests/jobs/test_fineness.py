"""A defect that is smaller than what the head's patches can show is told, with what is fine enough."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.data.record import Record
from mvtec_tf.errors import UsageError
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.fit import fineness_note
from mvtec_tf.jobs.settings import FitSettings


def _note(tmp_path, pixels, sizes, cells=(56, 56), tiles=(1, 1)):
    records = []
    for number, size in enumerate(sizes):
        Image.new("L", size).save(tmp_path / f"{number}.png")
        records.append(Record(str(number), str(tmp_path / f"{number}.png"), "cap", "good", 0, "train", str(number)))
    key = SimpleNamespace(tiles=tiles, image_size=(8 * cells[0], 8 * cells[1]))
    maps = {"fine": np.zeros((1, *cells, 2)), "coarse": np.zeros((1, cells[0] // 2, cells[1] // 2, 2))}
    return fineness_note(pixels, records, SimpleNamespace(frozen=SimpleNamespace(maps=maps), key=key))


def test_sixteen_pixels_of_a_photograph_as_large_as_the_network_sees_it_are_two_patches_and_enough(tmp_path):
    enough = "A defect of 16 px covers 2 of the finest patches along one side; 2 are enough."
    assert _note(tmp_path, 16, [(448, 448)]) == enough


def test_of_a_long_part_each_side_is_set_against_its_own_patches(tmp_path):
    """896 x 224 px (width, height) on 112 x 28 patches."""
    assert "covers 1 of" in _note(tmp_path, 8, [(896, 224)], (28, 112))


def test_of_photographs_of_several_sizes_the_largest_and_its_longer_side_count(tmp_path):
    """1792 px on 56 patches: 16 px are half a patch, and four times as many patches are needed."""
    text = _note(tmp_path, 16, [(448, 448), (1792, 900)])
    assert "covers 0.5 of the finest patches" in text
    assert "`tiles`=4x4 or `image_size`=1792" in text


def test_tiles_that_are_there_already_are_multiplied(tmp_path):
    """Two by two tiles of 448 px: 112 patches a side; 8 px of 1792 are half a patch."""
    assert "`tiles`=8x8 or `image_size`=1792" in _note(tmp_path, 8, [(1792, 1792)], (112, 112), (2, 2))


@pytest.mark.parametrize("more", [{"head": "logistic"}, {"protocol": "study", "label_budget": "0.1"}])
def test_a_head_without_patches_refuses_the_question(more):
    said = FitSettings(data_dir=("x",), run_dir="run", weights="none", smallest_defect=9.0, **more)
    with pytest.raises(UsageError, match="`smallest_defect`=9: is compared with the patches of a head"):
        checks.of_fit(said)
