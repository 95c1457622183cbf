"""Drawn defects on crops of one photograph."""

import numpy as np
import pytest
from PIL import Image

from tools.surface_set import KINDS, Surface


def _surface(seed=0):
    values = np.random.default_rng(0).integers(60, 200, (400, 500, 3)).astype(np.uint8)
    return Surface(values, Image.new("RGB", (50, 50), (0, 255, 0)), seed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_changes_its_mask_and_hardly_anything_far_from_it(kind):
    # Of the same seed the crop without a defect is the same, as it is drawn first.
    good = _surface().good().astype(int)
    image, mask = _surface().defective(kind)
    change = np.abs(image.astype(int) - good).max(axis=2)
    assert 0 < mask.mean() < 0.1
    assert change[mask].mean() > 10
    rows, columns = np.nonzero(mask)
    change[max(rows.min() - 12, 0) : rows.max() + 13, max(columns.min() - 12, 0) : columns.max() + 13] = 0
    assert change.max() <= 1


def test_crops_differ_and_come_again_with_the_seed():
    surface, again = _surface(), _surface()
    first, second = surface.good(), surface.good()
    assert np.abs(first.astype(int) - second).mean() > 10
    np.testing.assert_array_equal(first, again.good())
    np.testing.assert_array_equal(second, again.good())
