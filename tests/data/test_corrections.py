"""Corrected labels: suspects.csv with its column label filled in gives a list that is read as the images with them."""

import pytest

from mvtec_tf.data.formats import scan as records
from mvtec_tf.data.formats.corrections import corrected, write_list
from mvtec_tf.errors import UserError

HEADER = "path,given,why,score,neighbour,label\n"
BENT, FINE = "cap/test/bent/000.png", "cap/test/good/001.png"


@pytest.fixture
def found(tmp_path):
    """Six images to train on, two of them of one object, and four good and four bent ones."""
    root = tmp_path / "my parts" / "cap"
    for folder, count in (("train/good", 6), ("test/good", 4), ("test/bent", 4), ("ground_truth/bent", 4)):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            name = f"{number:03d}{'_mask' if 'truth' in folder else ''}.png"
            (root / folder / name).write_bytes(f"{folder} {number}".encode())
    (root / "groups.csv").write_text("path,group\ntrain/good/000.png,part 1\ntrain/good/001.png,part 1\n")
    return records.scan([root])


def _table(tmp_path, *lines):
    path = tmp_path / "suspects.csv"
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return path


def test_the_list_is_read_as_the_corrected_images(found, tmp_path):
    train = "cap/train/good/000.png"
    table = _table(
        tmp_path,
        f"{BENT},defective,like good,2.1,{FINE},good",
        f"{train},good,unlike,3.2,,NOK",
        f"{FINE},good,unlike,1.0,,",
    )
    done, said = corrected(found, table)
    assert "2 of 2 labels" in said
    assert "2 images go to testing" in said
    (tmp_path / "elsewhere").mkdir()
    write_list(tmp_path / "elsewhere" / "corrected.csv", done)
    again = records.scan([tmp_path / "elsewhere" / "corrected.csv"])
    assert {one.path: one for one in again} == {one.path: one for one in done}
    now = {one.path: one for one in again}
    assert (now[BENT].label, now[BENT].defect, now[BENT].split, now[BENT].mask) == (0, "good", "test", "")
    assert (now[train].label, now[train].defect, now[train].split) == (1, "defective", "test")
    # The other photograph of that object goes with it.
    assert (now["cap/train/good/001.png"].label, now["cap/train/good/001.png"].split) == (0, "test")
    changed = {BENT, train, "cap/train/good/001.png"}
    assert {one for one in again if one.path not in changed} == {one for one in found if one.path not in changed}


def test_a_list_of_uncorrected_images_says_the_same_and_a_second_look_changes_nothing(found, tmp_path):
    done, said = corrected(found, _table(tmp_path, f"{BENT},good,why,1,,defective"))
    assert done == found
    assert "0 of 1 label in" in said


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((f"{BENT},defective,why,1,,",), "label is empty in every line"),
        ((f"{BENT},defective,why,1,,perhaps",), r"line 2: label is 'perhaps'"),
        (("cap/test/bent/999.png,defective,why,1,,good",), r"line 2: no image cap/test/bent/999.png"),
        ((f"{BENT},defective,why,1,,good", f"{BENT},defective,why,1,,bad"), r"line 3: .* another label in a line"),
        ((f"{BENT},defective,good",), "line 2: 3 cells"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_with_file_and_line(found, tmp_path, lines, words):
    with pytest.raises(UserError, match=words):
        corrected(found, _table(tmp_path, *lines))
