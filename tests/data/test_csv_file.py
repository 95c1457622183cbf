"""A CSV list of photographs gives the same records as a folder, or a message that names the lines."""

import pytest

from mvtec_tf.data import protocol
from mvtec_tf.data.formats import scan as records
from mvtec_tf.errors import UserError
from mvtec_tf.exploration.survey import explore


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked into by the scanner")
    return path


@pytest.fixture
def table(tmp_path):
    """Writes labels.csv beside forty good and six defective images; `rows` may add to the usual ones."""
    for number in range(40):
        _image(tmp_path / "images" / f"g{number:02d}.png")
    for number in range(6):
        _image(tmp_path / "images" / f"d{number}.jpg")

    def write(text=None, encoding="utf-8", name="labels.csv"):
        if text is None:
            lines = [f"images/g{number:02d}.png,good" for number in range(40)]
            text = "\n".join(["path,label", *lines, *(f"images/d{number}.jpg,1" for number in range(6))]) + "\n"
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return write


def test_path_and_label_are_enough(table):
    said = []
    found = records.scan([table(name="cap.csv")], say=said.append)
    assert len(found) == 46
    assert {record.category for record in found} == {"cap"}
    assert [record.path for record in found] == sorted(record.path for record in found)
    defective = [record for record in found if record.label]
    assert {(record.defect, record.split) for record in defective} == {("defective", "test")}
    assert {record.split for record in found if not record.label} == {"train", "test"}
    assert "of 40" in said[0]
    protocol.clean(found, None, 0)


def test_every_column_is_read(table):
    path = table(
        "path,label,category,defect,mask,group,split\n"
        "images/g00.png,0,cap,,,,train\n"
        "images/g01.png,GOOD,cap,good,,p7,test\n"
        "images/d0.jpg,Defective,cap,bent,images/g02.png,p7,test\n"
        "images/g03.png,0,nut,,,p7,train\n"
    )
    found = {record.path: record for record in records.scan([path])}
    assert set(found) == {"cap/images/g00.png", "cap/images/g01.png", "cap/images/d0.jpg", "nut/images/g03.png"}
    bent = found["cap/images/d0.jpg"]
    assert (bent.defect, bent.label, bent.split, bent.group) == ("bent", 1, "test", "cap/p7")
    assert bent.mask.endswith("images/g02.png")
    assert found["cap/images/g01.png"].group == "cap/p7"
    assert found["cap/images/g00.png"].group == "cap/images/g00.png"
    assert found["nut/images/g03.png"].group == "nut/p7"


def test_lines_without_a_category_among_others_are_told_which_one_they_got(table):
    header, lines = "path,label,category", ["images/g00.png,0,cap", "images/g01.png,0,cap", "images/g02.png,0,"]
    said = []
    records.scan([table("\n".join([header, *lines, "images/g03.png,0,"]))], say=said.append)
    (sentence,) = [one for one in said if "without a category" in one]
    assert sentence.endswith("lines without a category, and the one that was taken: labels (2).")
    said.clear()
    records.scan([table("\n".join([header, *(line.replace("cap", "") for line in lines)]))], say=said.append)
    assert not any("without a category" in one for one in said)


def test_a_list_of_an_mvtec_folder_gives_the_very_records_of_the_folder(toy):
    expected = records.scan([toy])
    lines = ["path,label,category,defect,mask,split"]
    for record in expected:
        mask = record.mask.removeprefix(f"{toy}/")
        lines.append(f"{record.path},{record.label},{record.category},{record.defect},{mask},{record.split}")
    path = toy / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    try:
        found = records.scan([path])
    finally:
        path.unlink()
    assert sorted(found, key=lambda record: record.path) == sorted(expected, key=lambda record: record.path)
    assert records.fingerprint(found) == records.fingerprint(sorted(expected, key=lambda record: record.path))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\nimages/g00.png,0\n\nimages/Maß 1.png,1\n", "utf-8-sig"),
        ("path;label\r\nimages/g00.png;0\r\nimages/Maß 1.png;1\r\n", "utf-8"),
        ("label\tpath\n0\timages/g00.png\n1\timages\\Maß 1.png\n", "utf-8"),
        ('path,label\n"images/g00.png", good\n"images/./Maß 1.png",defective\n', "utf-8"),
    ],
)
def test_what_spreadsheets_save_is_read(table, tmp_path, text, encoding):
    _image(tmp_path / "images" / "Maß 1.png")
    found = {record.path: record.label for record in records.scan([table(text, encoding)])}
    assert found == {"labels/images/g00.png": 0, "labels/images/Maß 1.png": 1}


def test_images_may_lie_elsewhere_and_are_named_by_their_folder_and_file_name(table, tmp_path):
    _image(tmp_path / "more" / "x.png")
    (tmp_path / "lists").mkdir()
    path = table(
        f"path,label\n../images/g00.png,0\n{tmp_path / 'more' / 'x.png'},0\n../images/d0.jpg,1\n", name="lists/a.csv"
    )
    found = records.scan([path])
    assert [record.path for record in found] == ["a/images/d0.jpg", "a/images/g00.png", "a/more/x.png"]


def test_the_fingerprint_follows_what_only_the_list_says(table):
    header = "path,label,defect,group,split\n"
    lists = [
        header + "images/g00.png,0,,,train\nimages/g01.png,0,,,test\nimages/d0.jpg,1,bent,,test\n",
        header + "images/g00.png,0,,,test\nimages/g01.png,0,,,train\nimages/d0.jpg,1,bent,,test\n",
        header + "images/g00.png,0,,,train\nimages/g01.png,0,,,test\nimages/d0.jpg,1,torn,,test\n",
        header + "images/g00.png,0,,p,train\nimages/g01.png,0,,,test\nimages/d0.jpg,1,bent,,test\n",
    ]
    assert len({records.fingerprint(records.scan([table(text)])) for text in lists}) == len(lists)


def test_the_exploration_takes_listed_images_and_masks_for_what_they_are(table, tmp_path):
    """All in one folder, as many tools write them."""
    path = table("path,label,mask\nimages/g00.png,0,\nimages/d0.jpg,1,images/g01.png\n")
    for image in (tmp_path / "images").glob("[gd]*"):
        if image.name not in ("g00.png", "g01.png", "d0.jpg"):
            image.unlink()
    _image(tmp_path / "images" / "d1.jpg")
    found = explore(records.scan([path]))
    assert found.ignored == (str(tmp_path / "images" / "d1.jpg"),)
    assert [file for file, _ in found.orphan_masks] == [str(tmp_path / "images" / "d1.jpg")]


def test_several_lists_and_folders_are_read_together_but_no_category_twice(table, tmp_path):
    first, second = table(name="cap.csv"), table(name="nut.csv")
    _image(tmp_path / "data" / "bolt" / "train" / "good" / "0.png")
    found = records.scan([first, second, tmp_path / "data"])
    assert {record.category for record in found} == {"cap", "nut", "bolt"}
    assert {record.category for record in records.scan([first, second], ["nut"])} == {"nut"}
    (tmp_path / "sub").mkdir()
    again = table("path,label\n../images/g00.png,0\n", name="sub/cap.csv")
    with pytest.raises(UserError, match=r"found twice, in .*cap\.csv and in .*sub/cap\.csv"):
        records.scan([first, again])


def test_columns_that_mean_nothing_are_named(table):
    said = []
    records.scan([table("path,label,operator\nimages/g00.png,0,a\nimages/g01.png,0,a\n")], say=said.append)
    assert "not used: operator" in said[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("images/none.png,0,,,,", "line 2: path images/none.png: no such file"),
        (",0,,,,", "line 2: path is empty"),
        ("images/g00.png,fine,,,,", "line 2: label is 'fine', expected 0 or good, 1 or defective"),
        ("images/g00.png,,,,,", "line 2: label is ''"),
        ("labels.csv,0,,,,", "line 2: labels.csv: expected an image"),
        ("images/g00.png,0,bent,,,", "line 2: label says good, defect says 'bent'"),
        ("images/d0.jpg,1,good,,,", "line 2: label says defective, defect says 'good'"),
        ("images/d0.jpg,1,a/b,,,", "line 2: defect is 'a/b'"),
        ("images/d0.jpg,1,,none.png,,", "line 2: mask none.png: no such file"),
        ("images/g00.png,0,,,,later", "line 2: split is 'later', expected train, test"),
        ("images/d0.jpg,1,,,,val", "line 2: a defective image with the split val"),
        ("images/d0.jpg,1,,,,train", "line 2: a defective image with the split train"),
        ("images/g00.png,0,,,,\nimages/../images/g00.png,0,,,,", "g00.png stands in line 2 already"),
        ("images/g00.png,0,,", "line 2: 4 cells, but the header has 6 columns"),
        ('images/g00.png,"0,,,,', "not readable as CSV"),
        ("images/g00.png,0,,,,test\nimages/g01.png,0,,,,", "line 3: split is empty"),
        ("images/g00.png,0,,,,test", "no good images of category 'labels' are for training"),
        ("images/d0.jpg,1,,,,", "no good images of category 'labels' in it"),
        ("images/g00.png,0,,,7,\nimages/d0.jpg,1,,,7,", "because group joins them with a defective one"),
        ("", "no images in it"),
    ],
)
def test_a_wrong_line_is_named_with_what_was_expected(table, rows, message):
    path = table(f"path,label,defect,mask,group,split\n{rows}\n")
    with pytest.raises(UserError) as caught:
        records.scan([path])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns path,label"),
        (
            b"file,label\na.png,0\n",
            "line 1: no column path; found file,label; expected the columns path,label. Rename file to path?",
        ),
        (b"path,label,label\na.png,0,0\n", "the column 'label' stands there twice"),
        ("path,label\nimages/g00.png,0\nMaß.png,1\n".encode("latin-1"), "line 3: not UTF-8"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, content, message):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        records.scan([tmp_path / "labels.csv"])
    assert message in str(caught.value)


def test_of_many_wrong_lines_the_first_are_listed_and_all_are_counted(table):
    with pytest.raises(UserError, match=r"30 wrong line\(s\)") as caught:
        records.scan([table("path,label\n" + "".join(f"none{number}.png,0\n" for number in range(30)))])
    assert str(caught.value).count("no such file") == 5
    assert "and 25 more lines" in str(caught.value)


def test_two_files_are_never_given_one_name(table, tmp_path):
    places = ("monday/images/0.png", "tuesday/images/0.png", "tuesday/images/1.png", "tuesday/2.png")
    for place in places:
        _image(tmp_path / place)
    text = "path,label,category\n" + "".join(f"{place},0,cap\n" for place in places)
    found = {record.path for record in records.scan([table(text)])}
    assert found == {"cap/monday/images/0.png", "cap/tuesday/images/0.png", "cap/images/1.png", "cap/tuesday/2.png"}


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv: expected a folder or a \.csv file, found nothing"):
        records.scan([tmp_path / "nowhere.csv"])
