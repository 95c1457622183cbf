"""A folder of photographs becomes one record an image, or a clear message."""

import dataclasses
import pathlib
import shutil

import pytest

from mvtec_tf.data.formats import scan as records
from mvtec_tf.errors import UserError


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked into by the scanner")


@pytest.fixture
def category(tmp_path):
    folder = tmp_path / "data" / "cap"
    for name in ("train/good/0.png", "train/good/1.png", "test/good/0.png", "test/dent/0.png", "test/dent/1.JPG"):
        _image(folder / name)
    _image(folder / "ground_truth/dent/0_mask.png")
    return folder


def test_a_category_folder_and_its_parent_give_the_same_records(category):
    assert records.scan([category]) == records.scan([category.parent])


def test_every_image_is_one_record_with_label_defect_and_mask(category):
    found = {record.path: record for record in records.scan([category])}
    assert len(found) == 5
    dent = found["cap/test/dent/0.png"]
    assert (dent.category, dent.defect, dent.label, dent.split) == ("cap", "dent", 1, "test")
    assert dent.mask.endswith("ground_truth/dent/0_mask.png")
    assert found["cap/test/dent/1.JPG"].mask == ""
    assert found["cap/train/good/1.png"].label == 0


def test_an_image_without_a_group_is_a_group_of_its_own(category):
    groups = [record.group for record in records.scan([category])]
    assert len(set(groups)) == len(groups)


def test_groups_csv_joins_photographs_of_one_object(category):
    (category / "groups.csv").write_text("path,group\ntest/dent/0.png,a\ntest/dent/1.JPG,a\n")
    groups = {record.path: record.group for record in records.scan([category])}
    assert groups["cap/test/dent/0.png"] == groups["cap/test/dent/1.JPG"] == "cap/a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,group\ntest/none/0.png,a\n", "no images of this category"),
        ("file,group\ntest/dent/0.png,a\n", "expected the columns path,group"),
        ("path,group\ntest/dent/0.png,a\ntest/dent/0.png,b\n", "twice"),
        ("path,group\ntest/dent/0.png,\n", "must both be given"),
    ],
)
def test_a_wrong_groups_csv_is_refused_by_name(category, text, message):
    (category / "groups.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        records.scan([category])
    assert "groups.csv" in str(caught.value)


def test_several_folders_and_a_choice_of_categories(category):
    second = category.parent.parent / "more" / "nut"
    shutil.copytree(category, second)
    assert {record.category for record in records.scan([category, second])} == {"cap", "nut"}
    assert {record.category for record in records.scan([category, second], ["nut"])} == {"nut"}
    with pytest.raises(UserError, match="bolt"):
        records.scan([category], ["bolt"])


def test_two_folders_of_one_name_are_refused(category):
    shutil.copytree(category, category.parent.parent / "more" / "cap")
    with pytest.raises(UserError, match="found twice"):
        records.scan([category.parent, category.parent.parent / "more"])


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_a_category_says_what_was_expected(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="Expected the MVTec layout") as caught:
        records.scan([tmp_path / name])
    assert str(tmp_path / name) in str(caught.value)


def test_a_category_without_good_training_images_is_refused(category):
    shutil.rmtree(category / "train")
    with pytest.raises(UserError, match="no good training images"):
        records.scan([category])


def test_defective_images_below_train_are_refused(category):
    _image(category / "train/dent/9.png")
    with pytest.raises(UserError, match="outside train/good"):
        records.scan([category])


def test_the_fingerprint_follows_contents_and_labels_not_places(category, tmp_path):
    before = records.fingerprint(records.scan([category]))
    moved = shutil.copytree(category, tmp_path / "elsewhere" / "cap")
    assert records.fingerprint(records.scan([moved])) == before
    pathlib.Path(moved, "test/dent/0.png").write_bytes(b"another picture")
    assert records.fingerprint(records.scan([moved])) != before
    relabelled = [dataclasses.replace(record, label=0) for record in records.scan([category])]
    assert records.fingerprint(relabelled) != before
