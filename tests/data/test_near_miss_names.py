"""Names that are nearly right are taken with a word or refused with the right one, never passed over."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import mvtec_tf as mt
from mvtec_tf.data import known_images, protocol
from mvtec_tf.data.formats import scan as records
from mvtec_tf.data.record import IMAGE_SUFFIXES
from mvtec_tf.errors import UserError
from mvtec_tf.exploration.findings import findings
from mvtec_tf.exploration.survey import explore
from mvtec_tf.jobs import opening
from mvtec_tf.jobs.settings import BaselineSettings
from tests.conftest import run_binary

_GOOD = ("Good", "GOOD", "ok", "OK", "io", "i.O.", "Pass", "passed", "gut", "bon", "Buono")
_DEFECTIVE = ("Defective", "bad", "NG", "NOK", "n.i.O.", "Fail", "schlecht", "mauvais", "défectueux", "difettoso")


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked into by the scanner")
    return path


def _scan(*sources):
    said = []
    return records.scan(sources, say=said.append), "\n".join(said)


def _fill(folder, good, defective):
    for number in range(20):
        _image(folder / good / f"{number:02d}.png")
    for number in range(3):
        _image(folder / defective / f"{number}.png")
    return folder


@pytest.mark.parametrize("word", _GOOD)
def test_good_parts_are_never_a_defect_type_of_the_mvtec_layout(tmp_path, word):
    folder = _fill(tmp_path / "cap", f"train/{word}", "test/chip")
    _image(folder / "test" / word / "0.png")
    found, said = _scan(folder)
    assert {record.defect for record in found} == {"good", "chip"}
    assert all(record.label == (record.defect == "chip") for record in found)
    assert f"train/{word}/ as good" in said
    assert f"test/{word}/ as good" in said


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAIN", "test")])
def test_train_and_test_are_found_in_any_case(tmp_path, train, test):
    folder = _fill(tmp_path / "cap", f"{train}/good", f"{test}/chip")
    found, said = _scan(tmp_path)
    assert {record.split for record in found} == {"train", "test"}
    assert f"{train}/ as train/" in said
    (tmp_path / "cap" / test / "good").mkdir()
    with pytest.raises(UserError, match="Name the folder"):
        records.scan([folder / test])


@pytest.mark.parametrize("good", _GOOD)
def test_two_folders_may_be_called_by_common_words_for_good(tmp_path, good):
    found, said = _scan(_fill(tmp_path / "cap", good, "NG"))
    assert sum(record.label for record in found) == 3
    assert {record.defect for record in found} == {"good", "defective"}
    assert f"{good}/ as good/" in said
    assert "NG/ as defective/" in said


@pytest.mark.parametrize("defective", _DEFECTIVE)
def test_two_folders_may_be_called_by_common_words_for_defective(tmp_path, defective):
    found, said = _scan(_fill(tmp_path / "cap", "good", f"{defective}/chip"))
    assert {record.defect for record in found} == {"good", "chip"}
    assert f"{defective}/ as defective/" in said


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("defective/Good/0.png", "a folder 'Good' among the defective ones"),
        ("defective/OK/0.png", "a folder 'OK' among the defective ones"),
        ("good/NG/0.png", "a folder 'NG' among the good ones"),
        ("good/monday/bad/0.png", "a folder 'bad' among the good ones"),
        ("OK/0.png", "OK and good both say 'good'"),
        ("bad/0.png", "bad and defective both say 'defective'"),
        ("rework/0.png", r"rework/ \(1\) are not part"),
        ("0.png", r"0\.png are not part"),
        ("Test/good/0.png", "two layouts at once"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(tmp_path, extra, message):
    folder = _fill(tmp_path / "cap", "good", "defective")
    _image(folder / extra)
    with pytest.raises(UserError, match=message):
        records.scan([folder])


@pytest.mark.parametrize("extra", ["more/0.png", "OK/0.png", "0.png", "test2/chip/0.png"])
def test_images_beside_train_and_test_are_said_to_be_unread(tmp_path, extra):
    folder = _fill(tmp_path / "cap", "train/good", "test/chip")
    _image(folder / extra)
    _, said = _scan(folder)
    assert f"images that were not read: {extra.split('/')[0]}" in said


def test_categories_that_are_left_out_and_photographs_that_nothing_reads_are_said(tmp_path):
    folder = _fill(tmp_path / "cap", "train/good", "test/chip")
    _image(folder / "test" / "chip" / "0.tif")
    _image(tmp_path / "lid" / "ok" / "0.png")
    _, said = _scan(tmp_path)
    assert "no categories: lid/ (it holds ok/ (ok would be good/))" in said
    assert "not read: .tif (1)" in said


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_photograph_is_read_under_every_name_that_its_format_has(tmp_path, suffix):
    """Windows calls the JPEG files that a browser saves .jfif."""
    folder = _fill(tmp_path / "cap", "train/good", "test/chip")
    written = {".png": "PNG", ".bmp": "BMP"}.get(suffix, "JPEG")
    Image.new("RGB", (8, 8)).save(folder / "test" / "chip" / f"new{suffix}", written)
    found = records.scan([folder])
    assert f"cap/test/chip/new{suffix}" in {record.path for record in found}
    assert not [one for one in findings(explore(found)) if one.kind == "misnamed"]


@pytest.mark.parametrize("name", ["Groups.csv", "GROUPS.CSV", "groups.CSV"])
@pytest.mark.parametrize("parts", [("good", "defective"), ("train/good", "test/chip")])
def test_a_groups_file_is_read_in_any_case(tmp_path, name, parts):
    folder = _fill(tmp_path / "cap", *parts)
    (folder / name).write_text(f"path,group\n{parts[0]}/00.png,a\n{parts[0]}/01.png,a\n")
    found, said = _scan(folder)
    assert sum(record.group == "cap/a" for record in found) == 2
    assert f"{name}: read as groups.csv" in said


@pytest.mark.parametrize(
    "name",
    [
        *("group.csv", "groups.txt", "Groups.tsv", "groups.xlsx", "groups.csv.csv", "groups (1).csv", "my_Groups.csv"),
        "good/groups.csv",
    ],
)
def test_what_looks_like_a_groups_file_is_refused_with_the_right_name(tmp_path, name):
    folder = _fill(tmp_path / "cap", "good", "defective")
    (folder / name).write_text("path,group\n")
    with pytest.raises(UserError, match=f"belongs in {folder}/groups.csv"):
        records.scan([folder])


def test_a_second_groups_file_is_said_to_be_unread(tmp_path):
    folder = _fill(tmp_path / "cap", "good", "defective")
    for name in ("groups.csv", "groups_old.csv", "good/groups.csv"):
        (folder / name).write_text("path,group\ngood/00.png,a\n")
    assert _scan(folder)[1].count("not read, since groups.csv is there") == 2


def test_two_groups_files_of_one_name_are_refused(tmp_path):
    folder = _fill(tmp_path / "cap", "good", "defective")
    for name in ("groups.csv", "Groups.csv"):
        (folder / name).write_text("path,group\n")
    with pytest.raises(UserError, match=r"Groups\.csv and groups\.csv, of which only one"):
        records.scan([folder])


def test_a_groups_file_among_categories_or_beside_a_list_without_groups_is_refused(tmp_path):
    folder = _fill(tmp_path / "cap", "good", "defective")
    (tmp_path / "groups.csv").write_text("path,group\n")
    with pytest.raises(UserError, match="the folder of its category"):
        records.scan([tmp_path])
    table = tmp_path / "list.csv"
    lines = [f"{file.relative_to(tmp_path)},{int('def' in str(file))}" for file in folder.rglob("*.png")]
    table.write_text("path,label\n" + "\n".join(lines))
    with pytest.raises(UserError, match="in a column 'group'"):
        records.scan([table])


@pytest.mark.parametrize("column", ["groups", "Splits", "masks", "defects"])
def test_a_column_that_is_nearly_a_known_one_is_refused_with_the_right_name(tmp_path, column):
    _image(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text(f"path,label,{column}\n0.png,0,\n")
    with pytest.raises(UserError, match=f"Did you mean '{column.lower().rstrip('s')}'"):
        records.scan([tmp_path / "list.csv"])


def test_labels_and_columns_of_a_list_are_read_in_any_case_and_by_common_words(tmp_path):
    words = {f"{number}.png": word for number, word in enumerate((*_GOOD, *_DEFECTIVE, "0", "1"))}
    for name in words:
        _image(tmp_path / name)
    lines = [f"{name},{word},{'test' if word in (*_DEFECTIVE, '1') else 'Train'}" for name, word in words.items()]
    (tmp_path / "list.csv").write_text("Path,LABEL,Split\n" + "\n".join(lines))
    found, said = _scan(tmp_path / "list.csv")
    assert {record.path.split("/")[-1] for record in found if record.label} == {
        name for name, word in words.items() if word in (*_DEFECTIVE, "1")
    }
    assert "'NOK' as defective (1)" in said
    assert "'OK' as good (1)" in said


def _labelled(folder, labels):
    """A list of labels (good, defective) for the images of `folder`, all in folders that say so."""
    images = sorted(folder.rglob("*.png"))
    lines = [f"{image.relative_to(folder)},{labels[image.parent.name == 'NG']}\n" for image in images]
    (folder / "list.csv").write_text("path,label\n" + "".join(lines))
    return folder / "list.csv"


def test_labels_that_are_turned_round_are_refused_where_folders_say_so_and_believed_where_words_say_them(tmp_path):
    folder = _fill(tmp_path / "cap", "ok", "NG")
    assert "labels" not in _scan(_labelled(folder, (0, 1)))[1]
    with pytest.raises(UserError, match=r"23 labels say otherwise .* 0 for NG/.*; 0 as the folder.*turned round"):
        records.scan([_labelled(folder, (1, 0))])
    found, said = _scan(_labelled(folder, ("defective", "good")))
    assert (sum(record.label for record in found), "the list is believed" in said) == (20, True)
    # Some corrected labels are no list turned round.
    listed = _labelled(folder, (0, 1))
    listed.write_text(listed.read_text().replace("ok/00.png,0", "ok/00.png,1"))
    assert "1 label says otherwise than the folder's name, such as 1 for ok/00.png; the list" in _scan(listed)[1]


def test_a_product_may_be_called_by_a_word_for_good_or_defective(tmp_path):
    folder = _fill(tmp_path / "pass", "a", "b")
    listed = _labelled(folder, (0, 0))
    listed.write_text(re.sub(r"(a/1\d.png),0", r"\1,1", listed.read_text()).replace(",label", ",label,category"))
    listed.write_text(re.sub(r"(\.png,\d)", r"\1,pass", listed.read_text()))
    assert "otherwise" not in _scan(listed)[1]


def test_a_list_of_nearly_nothing_but_defects_is_said_to_be_perhaps_turned_round(tmp_path):
    folder = _fill(tmp_path / "cap", "a", "b")
    for labels, said in (((1, 0), True), ((0, 1), False), (("NG", "OK"), False)):
        listed = _labelled(folder, (labels[0], labels[0]))
        listed.write_text(re.sub(r"(b/\d.png),\w+", rf"\1,{labels[1]}", listed.read_text()))
        assert ("20 of 23 images are labelled 1" in _scan(listed)[1]) is said


@pytest.mark.parametrize("row", ["1,Good", "1,OK", "0,bent", "ng,io", "ok,ng"])
def test_a_label_that_contradicts_its_defect_type_is_refused(tmp_path, row):
    _image(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text(f"path,label,defect\n0.png,{row}\n")
    with pytest.raises(UserError, match=r"label says .*, defect says"):
        records.scan([tmp_path / "list.csv"])


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (("cap,,", "Cap,,"), "categories 'Cap' and 'cap'"),
        (("cap,bent,", "cap,Bent,"), "defect types of category 'cap' 'Bent' and 'bent'"),
        (("cap,,p7", "cap,,P7"), "groups of category 'cap' 'cap/P7' and 'cap/p7'"),
    ],
)
def test_names_that_differ_in_case_only_are_refused(tmp_path, rows, what):
    label = int("bent" in rows[0])
    lines = [f"{_image(tmp_path / f'{number}.png').name},{label},{row}" for number, row in enumerate(rows)]
    good = [f"{_image(tmp_path / f'good{number}.png').name},0,cap,," for number in range(9)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,category,defect,group", *lines, *good]))
    with pytest.raises(UserError, match=what):
        records.scan([tmp_path / "list.csv"])


def test_images_whose_names_differ_in_case_only_are_two(tmp_path):
    folder = _fill(tmp_path / "cap", "good", "defective")
    for name in ("a.png", "A.png", "a.PNG"):
        _image(folder / "good" / name)
    assert len(records.scan([folder])) == 26


def test_a_category_that_is_named_twice_is_read_once(tmp_path):
    folder = _fill(tmp_path / "cap", "good", "defective")
    assert records.scan([folder], ["cap", "cap"]) == records.scan([folder])


@pytest.mark.parametrize("junk", ["gone", "@eaDir/0.png", "._cap", "0.png"])
def test_what_lies_among_categories_is_said(tmp_path, junk):
    _fill(tmp_path / "cap", "good", "defective")
    (tmp_path / "gone").symlink_to("nowhere") if junk == "gone" else _image(tmp_path / junk)
    assert junk.split("/")[0][:2] in _scan(tmp_path)[1].split("\n")[0]


@pytest.mark.parametrize(
    "part", ["good", "good/monday", "defective", "defective/chip", "ground_truth", "ground_truth/chip"]
)
def test_a_part_of_a_plain_category_says_which_folder_to_name(tmp_path, part):
    folder = _fill(tmp_path / "cap", "good/monday", "defective/chip")
    _image(folder / "ground_truth" / "chip" / "0_mask.png")
    with pytest.raises(UserError, match=f"Name the folder of the category, {folder}\\."):
        records.scan([folder / part])


@pytest.mark.parametrize("part", ["train/good", "test/good", "test/chip", "ground_truth"])
def test_a_part_of_an_mvtec_category_says_which_folder_to_name(tmp_path, part):
    folder = _fill(tmp_path / "cap", "train/good", "test/chip")
    _image(folder / "test" / "good" / "0.png")
    _image(folder / "ground_truth" / "chip" / "0_mask.png")
    with pytest.raises(UserError, match=f"Name the folder of the category, {folder}\\."):
        records.scan([folder / part])


_SOUND_GOOD = (
    *("Einwandfrei", "Fehlerfrei", "no_defect", "non-defective", "good_images", "good1", "00_good", "良品", "0"),
    *("unbeschädigt", "sans défaut", "sin defectos", "senza difetti", "keine Fehler", "ohne Befund", "0 defects"),
    *("felfri", "годен", "dobrý", "golden_sample", "reference", "false alarms", "без дефектов", "bez_wad"),
)


@pytest.mark.parametrize("word", _SOUND_GOOD)
def test_a_name_that_sounds_good_is_no_type_of_defect_of_any_layout(tmp_path, word):
    mvtec = _fill(tmp_path / "mvtec", "train/good", f"test/{word}")
    plain = _fill(tmp_path / "plain", "good", f"defective/{word}")
    for folder, place in ((mvtec, "test/good"), (plain, "good")):
        with pytest.raises(UserError, match=f"If these images are good, they belong in {folder}/{place};"):
            records.scan([folder])
    _image(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text(f"path,label,defect\n0.png,1,{word}\n")
    with pytest.raises(UserError, match="sounds like good"):
        records.scan([tmp_path / "list.csv"])


@pytest.mark.parametrize(
    "word",
    [
        *("no_good", "not ok", "chip", "passivation", "ionised", "fine_scratch", "no_label", "ohne Schraube"),
        *("un_defaut", "defect_no_3", "10 defects", "Fehler_Los_7", "brak_sruby", "fault"),
    ],
)
def test_a_type_of_defect_may_hold_a_part_of_a_word_for_good(tmp_path, word):
    found, _ = _scan(_fill(tmp_path / "cap", "train/good", f"test/{word}"))
    assert {record.defect for record in found if record.label} == {word}


@pytest.mark.parametrize("twin", ["broken large", "broken-large", "Broken_Large", "broken_large ", "broken__large"])
def test_a_type_of_defect_that_is_spelt_twice_is_refused(tmp_path, twin):
    folder = _fill(tmp_path / "cap", "train/good", "test/broken_large")
    _image(folder / "test" / twin / "9.png")
    with pytest.raises(UserError, match=r"defect types of category 'cap' .* only\. Write both in one way"):
        records.scan([folder])


@pytest.mark.parametrize("word", ["nan", "NaN", "N/A", "none", "-", "?"])
@pytest.mark.parametrize("column", ["group", "category"])
def test_a_word_for_no_value_is_no_name(tmp_path, column, word):
    _image(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text(f"path,label,{column}\n0.png,0,{word}\n")
    with pytest.raises(UserError, match="Write nothing where there is none"):
        records.scan([tmp_path / "list.csv"])
    folder = _fill(tmp_path / "cap", "good", "defective")
    (folder / "groups.csv").write_text(f"path,group\ngood/00.png,{word}\ngood/01.png,{word}\n")
    with pytest.raises(UserError, match="is no object, but would join all"):
        records.scan([folder])


@pytest.mark.parametrize(
    "mask",
    [
        *("0_mask.png", "0_GT.png", "0_label.bmp", "0mask.png", "0.masks.png", "mask_0.png", "0_overlay.png"),
        *("0_Maske.png", "masque_0.png", "0-máscara.bmp"),
    ],
)
@pytest.mark.parametrize("parts", [("good", "defective"), ("train/good", "test/chip")])
def test_masks_that_lie_among_their_images_are_no_photographs(tmp_path, parts, mask):
    folder = _fill(tmp_path / "cap", *parts)
    _image(folder / parts[1] / mask)
    with pytest.raises(UserError, match=r"called as a mask of .*0\.png beside it \(1 such files\)"):
        records.scan([folder])
    lines = [f"{file.relative_to(tmp_path)},{int(file.match(f'{parts[1]}/*'))}" for file in folder.rglob("*.*")]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    with pytest.raises(UserError, match="called as a mask"):
        records.scan([tmp_path / "list.csv"])


def test_a_mask_that_has_the_name_of_its_photograph_is_no_photograph_and_another_photograph_is_one(tmp_path):
    folder = _fill(tmp_path / "cap", "good", "defective")
    twin = folder / "defective" / "0.bmp"
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(folder / "defective" / "0.png")
    Image.fromarray(255 - noise).save(twin)
    count = len(records.scan([folder]))
    for marked in (3, 0):
        Image.fromarray(np.where(np.arange(64).reshape(8, 8) < marked, 255, 0).astype(np.uint8)).save(twin)
        with pytest.raises(UserError, match=r"0\.bmp: called as a mask of .*0\.png beside it \(1 such files\)"):
            records.scan([folder])
    twin.unlink()
    assert len(records.scan([folder])) == count - 1


@pytest.mark.parametrize("word", ["1.23457E+11", "1,23457E+11", "unknown", "Unbekannt", "#REF!"])
def test_an_unknown_or_shortened_name_is_no_object(tmp_path, word):
    folder = _fill(tmp_path / "cap", "good", "defective")
    (folder / "groups.csv").write_text(f'path,group\ngood/00.png,"{word}"\n')
    with pytest.raises(UserError, match=r"groups\.csv, line 2: .* is no object, but would join all"):
        records.scan([folder])
    (folder / "list.csv").write_text(f'path,label,group\ngood/00.png,0,"{word}"\n')
    with pytest.raises(UserError, match="Write nothing where there is none"):
        records.scan([folder / "list.csv"])


@pytest.mark.parametrize(("word", "pattern"), [("0", "good/*.png"), ("lot7", "good/*.png"), ("lot7", "*.png")])
def test_one_object_on_all_good_images_is_said_with_the_table_that_says_so(tmp_path, word, pattern):
    folder = _fill(tmp_path / "cap", "good", "defective")
    lines = [f"{image.relative_to(folder)},{word}" for image in folder.rglob(pattern)]
    (folder / "groups.csv").write_text("\n".join(["path,group", *lines]))
    words = rf"groups\.csv, .*says that all 20 good images show one object, '{word}'"
    # By its name the object is for testing, as it is with a defective image in it.
    if word == "lot7":
        with pytest.raises(UserError, match=f"no good images are left for training.*{words}"):
            records.scan([folder])
        return
    found, said = _scan(folder)
    assert re.search(words, said)
    (listed,) = [one.items for one in findings(explore(found)) if one.kind == "one_object"]
    assert re.search(words, listed[0])
    with pytest.raises(UserError, match=r"no good test image is left.*by groups\.csv"):
        protocol.clean(found, None, 0)


@pytest.mark.parametrize("twins", [("1", "1.0"), ("5", "005"), ("7,0", "7")])
def test_a_number_of_an_object_that_is_written_in_two_ways_is_refused(tmp_path, twins):
    folder = _fill(tmp_path / "cap", "good", "defective")
    lines = [f'good/0{number}.png,"{twin}"' for number, twin in enumerate((*twins, "10", "100"))]
    (folder / "groups.csv").write_text("\n".join(["path,group", *lines]))
    with pytest.raises(UserError, match=r"groups of category 'cap' .* differ in .*zeros only"):
        records.scan([folder])


def test_a_folder_called_as_the_table_of_groups_is_refused(tmp_path):
    folder = _fill(tmp_path / "cap", "good", "defective")
    (folder / "Groups.csv").mkdir()
    with pytest.raises(UserError, match=r"Groups\.csv: expected a CSV file, found a folder"):
        records.scan([folder])


def test_a_list_may_be_called_group_and_stand_beside_another(tmp_path):
    for name in ("group_a.csv", "list.csv"):
        (tmp_path / name).write_text(f"path,label\n{_image(tmp_path / '0.png').name},0\n")
    assert len(records.scan([tmp_path / "list.csv"])) == 1


@pytest.mark.parametrize("mask", ["chip_mask/0.png", "chip-GT/0_mask.png", "mask_chip/0.bmp"])
@pytest.mark.parametrize("parts", [("good", "defective"), ("train/good", "test")])
def test_a_folder_of_masks_beside_that_of_their_images_is_no_type_of_defect(tmp_path, parts, mask):
    folder = _fill(tmp_path / "cap", parts[0], f"{parts[1]}/chip")
    _image(folder / parts[1] / mask)
    with pytest.raises(UserError, match=r"called as a mask of .*chip/0\.png"):
        records.scan([folder])


def test_an_image_with_the_longest_name_that_there_is_has_no_mask(tmp_path):
    folder = _fill(tmp_path / "cap", "train/good", "test/chip")
    name = _image(folder / "test" / "chip" / f"{'x' * 250}.png").name
    assert [record.mask for record in records.scan([folder]) if record.path.endswith(name)] == [""]


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_one_file_under_two_labels_or_twice_under_one_is_refused_also_where_the_link_is_hard(tmp_path, kind):
    folder = _fill(tmp_path / "cap", "good", "defective")
    for name in ("defective/again.png", "good/again.png"):
        (folder / name).hardlink_to(folder / "good" / "00.png")
        if kind == "list":
            line = f"cap/{name},{name.split('/')[0]}"
            (tmp_path / "list.csv").write_text(f"path,label\ncap/good/00.png,0\n{line}\n")
        with pytest.raises(UserError, match=r"are the same file, because of a link|stands in line 2 already"):
            records.scan([folder if kind == "folder" else tmp_path / "list.csv"])
        (folder / name).unlink()


def test_a_copy_under_both_labels_is_refused_by_every_job_and_one_under_another_name_is_left_out(toy, tmp_path):
    good = sorted((toy / "denim/train/good").iterdir())[:8]
    for name, source in {f"good/{file.name}": file for file in good}.items():
        (tmp_path / "cap" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cap" / name).write_bytes(source.read_bytes())
    for number, file in enumerate(sorted((toy / "denim/test").glob("[!g]*/*.png"))[:4]):
        (tmp_path / "cap/defective").mkdir(exist_ok=True)
        (tmp_path / f"cap/defective/{number}.png").write_bytes(file.read_bytes())
    asked = (f"--data_dir={tmp_path / 'cap'}", "--features=mean_brightness")
    (tmp_path / "cap/good/copy.png").write_bytes(good[0].read_bytes())
    said = run_binary("fit_baseline", *asked, f"--run_dir={tmp_path / 'said'}").stdout
    first, copy = re.search(r"Left out: 1 image: (\S+) \(an exact copy of (\S+)\)", said).groups()[::-1]
    assert {first, copy} == {"cap/good/copy.png", f"cap/good/{good[0].name}"}
    judged = (tmp_path / "said/predictions.csv").read_text()
    assert copy not in judged
    assert copy in (tmp_path / "said/report.html").read_text()
    (tmp_path / "cap/defective/copy.png").write_bytes(good[0].read_bytes())
    done = run_binary("fit_baseline", *asked, f"--run_dir={tmp_path / 'refused'}", check=False)
    assert done.returncode == 1
    assert "cap/defective/copy.png defective, but both files hold the same photograph" in done.stderr
    assert not (tmp_path / "refused").exists()


def test_a_test_image_that_is_a_training_image_too_is_not_judged(tmp_path, capsys):
    """Whatever their names, the one in train stays. Empty files, which are no photographs, are no copies."""
    for name in ("train/good/a.png", "train/good/z.png", "test/good/a.png", "test/good/b.png", "test/chip/a.png"):
        _image(tmp_path / "cap" / name).write_text(name)
    (tmp_path / "cap/test/good/a.png").write_text("train/good/z.png")
    for empty in ("test/good/b.png", "test/chip/a.png"):
        (tmp_path / "cap" / empty).write_text("")
    used, copies = opening.scan(BaselineSettings(data_dir=(str(tmp_path / "cap"),), run_dir=str(tmp_path / "run")))
    found = [(one.record.path, one.reason) for one in copies]
    assert found == [("cap/test/good/a.png", "an exact copy of cap/train/good/z.png")]
    assert len(used) == 4
    assert tuple(mt.scan(tmp_path / "cap")) == used
    assert "Left out: cap/test/good/a.png (an exact copy of cap/train/good/z.png)." in capsys.readouterr().out


def test_a_folder_of_photographs_in_a_format_that_is_not_read_is_refused_with_what_to_do(tmp_path):
    for name in ("good/0.tif", "good/1.TIFF", "defective/0.tif"):
        _image(tmp_path / "cap" / name)
    with pytest.raises(UserError, match=r"it holds 0\.tif, 1\.TIFF \(\.tif, \.tiff cannot be read: convert"):
        records.scan([tmp_path / "cap"])


@pytest.mark.parametrize(("good", "defective"), [("0,0", "1,0"), ("0.0", "1.0")])
def test_a_list_takes_decimals_of_0_and_1_and_the_words_of_folders_for_train_and_test(tmp_path, good, defective):
    folder = _fill(tmp_path / "cap", "a", "b")
    halves = ["Training"] * 15 + ["TestSet"] * 5
    rows = [f"cap/a/{file.name};{good};{half}" for file, half in zip((folder / "a").iterdir(), halves, strict=True)]
    rows += [f"cap/b/{file.name};{defective};TestSet" for file in sorted((folder / "b").iterdir())]
    (tmp_path / "list.csv").write_text("\n".join(["path;label;split", *rows]))
    found, said = _scan(tmp_path / "list.csv")
    assert Counter((one.label, one.split) for one in found) == {(0, "train"): 15, (0, "test"): 5, (1, "test"): 3}
    assert "splits that were read: 'TestSet' as test (8), 'Training' as train (15)." in said


@pytest.mark.parametrize("halves", [("Training", "Testing"), ("train_data", "TestSet"), ("training", "test")])
def test_other_words_for_train_and_test_are_taken_with_a_word(tmp_path, halves):
    train, test = halves
    folder = _fill(tmp_path / "cap", f"{train}/good", f"{test}/chip")
    _image(folder / test / "good" / "0.png")
    found, said = _scan(folder)
    assert {(record.split, record.defect) for record in found} == {
        ("train", "good"),
        ("test", "good"),
        ("test", "chip"),
    }
    assert f"{train}/ as train/" in said
    _image(folder / "train" / "good" / "0.png")
    with pytest.raises(UserError, match="both say 'train'"):
        records.scan([folder])


@pytest.mark.parametrize("third", ["val", "validation", "Validation", "val_set"])
def test_good_images_for_validation_are_trained_on_too_and_defective_ones_refused(tmp_path, third):
    folder = _fill(_fill(tmp_path / "cap", "train/good", "test/chip"), f"{third}/good", "test/chip")
    _image(folder / "test" / "good" / "0.png")
    found, said = _scan(folder)
    assert {record.split for record in found if record.path.startswith(f"cap/{third}/good/")} == {"train"}
    assert f"{third}/ as more good images of train/" in said
    image = next((folder / third / "good").iterdir())
    assert known_images.of_place(image).split == "train"
    _image(folder / third / "chip" / "0.png")
    with pytest.raises(UserError, match=rf"{third}/chip: defective images beside .*put them into test/chip/"):
        records.scan([folder])
    with pytest.raises(UserError, match="called as a part of a category"):
        records.scan([folder / third])


@pytest.mark.parametrize("half", ["Training", "Testing", "validation"])
def test_halves_with_good_and_defective_are_no_two_products(tmp_path, half):
    _fill(tmp_path / "cap", f"{half}/good", f"{half}/defective")
    with pytest.raises(UserError, match=r"called as a part of a category|no good training images|outside train/good"):
        records.scan([tmp_path / "cap"])


def test_a_folder_of_masks_in_one_half_is_said_or_refused(tmp_path):
    folder = _fill(tmp_path / "cap", "train/good", "test/chip")
    _image(folder / "train" / "ground_truth" / "chip" / "0_mask.png")
    assert "train/ground_truth" in _scan(folder)[1]
    _image(folder / "test" / "Ground_Truth" / "0_mask.png")
    with pytest.raises(UserError, match="masks among the images"):
        records.scan([folder])


@pytest.mark.parametrize("name", ["objects.csv", "gruppen.txt", "parts"])
def test_a_table_with_the_columns_of_groups_is_one_whatever_its_name(tmp_path, name):
    folder = _fill(tmp_path / "cap", "good", "defective")
    (folder / name).write_text("Path;Group\ngood/00.png;a\n")
    with pytest.raises(UserError, match=f"belongs in {folder}/groups.csv"):
        records.scan([folder])


@pytest.mark.parametrize(
    ("column", "known"),
    [
        *(("group_id", "group"), ("mask path", "mask"), ("Defect-Type", "defect")),
        *(("subset", "split"), ("Set", "split"), ("Serial Number", "group"), ("object", "group")),
    ],
)
def test_a_column_that_holds_the_name_of_a_known_one_or_another_word_for_it_is_refused(tmp_path, column, known):
    _image(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text(f"path,label,{column}\n0.png,0,\n")
    with pytest.raises(UserError, match=f"Did you mean '{known}'"):
        records.scan([tmp_path / "list.csv"])
