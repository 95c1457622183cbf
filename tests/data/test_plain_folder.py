"""A folder `good/` and a folder `defective/` are enough: the good images for testing are chosen by their names."""

import unicodedata

import pytest

from mvtec_tf.data import protocol
from mvtec_tf.data.formats import division
from mvtec_tf.data.formats import scan as records
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.exploration.survey import explore


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked into by the scanner")


def _fill(folder, good=40, defects=("bent", "bent", "", "")):
    for number in range(good):
        _image(folder / "good" / f"{number:03d}.png")
    for number, defect in enumerate(defects):
        _image(folder / "defective" / defect / f"{number}.jpg")
    return folder


@pytest.fixture
def cap(tmp_path):
    return _fill(tmp_path / "data" / "cap")


def test_loose_photographs_a_spreadsheet_and_days_taken_for_kinds_of_parts_are_told_what_to_do(tmp_path):
    _image(tmp_path / "loose" / "IMG_1.JPG")
    with pytest.raises(UserError, match=r"good parts into .*loose/good/ and defective ones into .*loose/defective/"):
        records.scan([tmp_path / "loose"])
    (tmp_path / "line.xlsx").touch()
    with pytest.raises(UserError, match="CSV UTF-8"):
        records.scan([tmp_path / "line.xlsx"])
    for names, are_days in (
        (("2026-03-01", "2026-03-02"), True),
        (("01.03.26", "02.03.2026"), True),
        (("20260301", "cap"), False),
        (("4711-01", "4711-02"), False),
    ):
        root, said = tmp_path / "-".join(names), []
        for name in names:
            _fill(root / name, good=2)
        assert len({record.category for record in records.scan([root], say=said.append)}) == 2
        assert (f"good/{names[0]}/, defective/{names[0]}/" in "".join(said)) == are_days, names


def test_a_list_that_keeps_every_good_image_for_training_is_told_that_some_are_tested_with(tmp_path):
    lines = ["path,label,split", *(f"{number}.png,0,train" for number in range(30)), "30.png,1,test"]
    for number in range(31):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "cap.csv").write_text("\n".join(lines))
    said = []
    found = records.scan([tmp_path / "cap.csv"], say=said.append)
    tests = sum(record.split == "test" and not record.label for record in found)
    assert 0 < tests < 30
    assert f"Against what their source says, {tests} of the 30 are kept for testing" in "\n".join(said)


def test_test_folders_without_a_good_one_are_named_as_what_they_were_taken_for(tmp_path):
    for place in ("train/good", "test/chip", "test/tadellos"):
        for number in range(9):
            _image(tmp_path / "cap" / place / f"{number}.png")
    said = []
    records.scan([tmp_path], say=said.append)
    assert "no good test images were found. All test images were taken for defects, of the types chip, tad" in said[-1]


@pytest.mark.parametrize("names", [("GOOD", "DEFECTIVE"), ("good", "defective")])
def test_a_plain_folder_of_few_good_images_says_nothing_that_they_are_kept_against(tmp_path, names):
    good, defective = names
    for number in range(8):
        _image(tmp_path / "cap" / good / f"b{number}.png")
    _image(tmp_path / "cap" / defective / "0.png")
    said = []
    found = records.scan([tmp_path], say=said.append)
    tests = sum(record.split == "test" and not record.label for record in found)
    assert tests > 0
    assert f"so {tests} of 8 are, chosen by their names" in "".join(said)
    assert "Against" not in "".join(said)


def _splits(found):
    return {record.path: record.split for record in found}


def test_good_and_defective_images_become_records_with_their_types(cap):
    _image(cap / "good" / "second shift" / "Größe 1.png")
    found = {record.path: record for record in records.scan([cap])}
    assert len(found) == 45
    assert found["cap/good/second shift/Größe 1.png"].label == 0
    bent, plain = found["cap/defective/bent/0.jpg"], found["cap/defective/2.jpg"]
    assert (bent.defect, bent.label, bent.split) == ("bent", 1, "test")
    assert (plain.defect, plain.label, plain.split) == ("defective", 1, "test")


def test_masks_are_found_where_the_mvtec_layout_has_them(cap):
    _image(cap / "ground_truth" / "bent" / "0_mask.png")
    found = {record.path: record for record in records.scan([cap])}
    assert found["cap/defective/bent/0.jpg"].mask.endswith("ground_truth/bent/0_mask.png")
    assert found["cap/defective/bent/1.jpg"].mask == ""


def test_plain_and_mvtec_categories_stand_side_by_side(cap):
    _image(cap.parent / "nut" / "train" / "good" / "0.png")
    assert {record.category for record in records.scan([cap.parent])} == {"cap", "nut"}


def test_the_protocol_gets_good_and_defective_test_images_from_it(cap):
    cut = protocol.clean(records.scan([cap]), None, 0)
    assert {record.label for record in cut.labelled} == {record.label for record in cut.evaluate} == {0, 1}
    assert len(cut.train_good) > 20


def test_what_was_decided_is_said(cap):
    said = []
    found = records.scan([cap], say=said.append)
    tests = sum(record.split == "test" for record in found if not record.label)
    (sentence,) = said
    assert f"{tests} of 40" in sentence
    assert "4 defective" in sentence


def test_a_new_photograph_moves_no_other(cap):
    before = _splits(records.scan([cap]))
    for name in ("0000.png", "new.png", "zzz.png"):
        _image(cap / "good" / name)
    after = _splits(records.scan([cap]))
    assert {path: after[path] for path in before} == before


def test_a_renamed_category_keeps_its_test_images(cap):
    before = list(_splits(records.scan([cap])).values())
    assert list(_splits(records.scan([cap.rename(cap.with_name("lid"))])).values()) == before


def test_the_choice_is_the_same_on_every_machine_and_forever():
    """Fixed values: another choice would silently change what published figures were measured on."""
    names = [f"good/{number:03d}.png" for number in range(20)]
    found = division.divide([Record(f"cap/{name}", "", "cap", "good", 0, "", f"cap/{name}") for name in names])
    assert [int(record.path[9:12]) for record in found if record.split == "test"] == [0, 5, 6, 7, 8, 15]


def test_a_name_is_on_one_side_however_its_umlauts_are_written():
    sides = set()
    for number in range(20):
        for form in ("NFC", "NFD"):
            name = unicodedata.normalize(form, f"cap/good/ä{number}.png")
            (record,) = division.divide([Record(name, "", "cap", "good", 0, "", name)])
            sides.add((number, record.split))
    assert len(sides) == 20


def test_about_the_promised_share_is_for_testing():
    names = [f"cap/good/IMG_{number}.jpg" for number in range(4000)]
    found = division.divide([Record(name, "", "cap", "good", 0, "", name) for name in names])
    assert 0.28 < sum(record.split == "test" for record in found) / 4000 < 0.32


def test_an_object_goes_to_one_side_with_all_its_photographs(cap):
    lines = [f"good/{number:03d}.png,part {number // 4}" for number in range(36)]
    lines += ["good/039.png,dropped", "defective/2.jpg,dropped"]
    (cap / "groups.csv").write_text("\n".join(["path,group", *lines]) + "\n")
    found = records.scan([cap])
    sides = {}
    for record in found:
        sides.setdefault(record.group, set()).add(record.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert sides["cap/dropped"] == {"test"}
    assert {"train"} in sides.values()
    protocol.clean(found, None, 0)


def test_a_groups_file_that_names_no_image_is_refused(cap):
    (cap / "groups.csv").write_text("path,group\ngood/none.png,a\n")
    with pytest.raises(UserError, match=r"groups\.csv.*good/none\.png"):
        records.scan([cap])


def test_good_images_alone_can_be_scanned_but_not_judged(tmp_path):
    said = []
    found = records.scan([_fill(tmp_path / "cap", defects=())], say=said.append)
    assert {record.split for record in found} == {"train", "test"}
    assert said[0].endswith("(about 30 %, the same in every run).")
    with pytest.raises(UserError, match="no defective test image"):
        protocol.clean(found, None, 0)


@pytest.mark.parametrize("good", ["missing", "empty", "other files"])
def test_a_category_without_good_images_is_refused_and_says_what_is_there(cap, good):
    for image in (cap / "good").iterdir():
        image.unlink()
    if good == "missing":
        (cap / "good").rmdir()
    elif good == "other files":
        (cap / "good" / "scan.tif").write_bytes(b"")
    words = {"missing": "no such folder", "empty": "it is empty", "other files": r"scan\.tif"}
    with pytest.raises(UserError, match=f"no good images in .*{words[good]}"):
        records.scan([cap])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("scratched/0.png", r"scratched/ \(1\) are not part of the plain layout"),
        ("defective/bent/left/0.png", "too deep"),
        ("defective/good/0.png", "among the defective ones"),
        ("train/good/0.png", "two layouts at once"),
    ],
)
def test_a_folder_that_could_be_misread_is_refused(cap, file, message):
    _image(cap / file)
    with pytest.raises(UserError, match=message):
        records.scan([cap])


def test_one_half_of_an_mvtec_category_is_not_taken_for_a_plain_one(tmp_path):
    for half in ("train", "test"):
        _image(tmp_path / "cap" / half / "good" / "0.png")
        with pytest.raises(UserError, match="Name the folder above it"):
            records.scan([tmp_path / "cap" / half])


def test_a_folder_of_something_else_says_what_it_holds(tmp_path):
    for name in ("ok", "odd", "labels.csv"):
        _image(tmp_path / name / "0.png") if "." not in name else _image(tmp_path / name)
    with pytest.raises(UserError, match=r"labels\.csv, odd/, ok/.*ok would be good/") as caught:
        records.scan([tmp_path])
    assert f"name {tmp_path / 'labels.csv'}" in str(caught.value)


def test_files_that_are_no_images_are_listed_by_the_exploration(cap):
    (cap / "good" / "scan.tif").write_bytes(b"")
    (cap / "groups.csv").write_text("path,group\n")
    found = explore(records.scan([cap]))
    assert found.ignored == (str(cap / "good" / "scan.tif"),)
