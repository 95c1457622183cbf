"""The figures of growth are of images that differ, and of stages that were done."""

import json

import numpy as np
from PIL import Image

from mvtec_tf.data.formats import scan
from tools import growth


def test_images_differ_in_bytes_where_they_are_drawn_again_and_a_stage_says_what_it_took(tmp_path):
    growth.draw(tmp_path / "images" / "100", 100, seed=0)
    records = scan.scan([tmp_path / "images" / "100"])
    assert len(records) == 100
    assert sum(record.label for record in records) == 20
    by_number = {record.file[-10:]: record.file for record in records}
    first, again = (by_number[f"{number:06}.jpg"] for number in (3, 3 + growth._DIFFERENT))
    with open(first, "rb") as one, open(again, "rb") as other:
        assert one.read() != other.read()
    np.testing.assert_array_equal(Image.open(first), Image.open(again))

    growth.one("protocol", 100, str(tmp_path), 0, str(tmp_path / "answer.json"))
    cost = growth.Cost("protocol", 100, **json.loads((tmp_path / "answer.json").read_text()))
    assert cost.peak_mb > 1
    growth._write_chart(tmp_path / "growth.svg", [cost])
    assert (tmp_path / "growth.svg").stat().st_size > 5000
