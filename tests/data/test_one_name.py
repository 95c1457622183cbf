"""A photograph has one name and one side, whoever names it, wherever its list lies and whatever its letters."""

import os
import pathlib
import subprocess
import sys
import unicodedata

import pytest

import mvtec_tf as mt
from mvtec_tf import settings
from mvtec_tf.app.settings import ServeSettings
from mvtec_tf.bin.define import PathsParser
from mvtec_tf.data.formats import scan as records
from mvtec_tf.errors import UserError


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(path))
    return path


def _list(table, images, form="path,label\n{path},{label}\n", relative=True):
    table.parent.mkdir(parents=True, exist_ok=True)
    header, line = form.split("\n")[:2]
    lines = [
        line.format(
            path=os.path.relpath(image, table.parent) if relative else image, label=int("good" not in str(image))
        )
        for image in images
    ]
    table.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return table


def _sides(source):
    return {record.path: (record.split, record.label) for record in records.scan([source])}


@pytest.fixture
def plain(tmp_path):
    folder = tmp_path / "line" / "pill"
    for number in range(50):
        _image(folder / "good" / ("monday" if number % 2 else "") / f"{number:02d}.png")
    for number in range(10):
        _image(folder / "defective" / "chip" / f"{number}.png")
    return folder


def _everywhere(folder, images, category):
    """Lists of the same images in, above, below and far from them, with relative and with absolute paths."""
    root = folder.parent.parent
    with_category = "path,label,category\n{path},{label}," + category + "\n"
    yield _list(folder / f"{category}.csv", images)
    yield _list(folder / "anything.csv", images, with_category)
    yield _list(folder.parent / "list.csv", images, with_category)
    yield _list(root / "other" / "place" / f"{category}.csv", images)
    yield _list(root / "far.csv", images, with_category, relative=False)
    (root / "linked").symlink_to(root / "other")
    yield _list(root / "linked" / "place" / "second.csv", images, with_category)


def test_a_folder_a_list_inside_it_and_lists_elsewhere_give_the_same_names_and_test_images(plain):
    expected = _sides(plain)
    for table in _everywhere(plain, sorted(plain.rglob("*.png")), "pill"):
        assert _sides(table) == expected, table
    assert sum(side == "test" for side, label in expected.values() if not label) not in (0, 50)
    # In a category's folder the category is the folder's, also where the list has another name.
    assert _sides(_list(plain.parent / "labels.csv", sorted(plain.rglob("*.png")))) == expected


def test_a_list_of_some_images_leaves_each_where_the_folder_has_it(plain):
    expected = _sides(plain)
    some = sorted((plain / "good" / "monday").glob("*.png"))
    assert _sides(_list(plain.parent / "a.csv", some)) == {
        path: side for path, side in expected.items() if path.startswith("pill/good/monday/")
    }


def test_images_in_no_layout_are_divided_alike_wherever_the_list_lies(tmp_path):
    folder = tmp_path / "line" / "shots"
    images = [_image(folder / day / f"good{number:02d}.png") for day in ("mo", "tu") for number in range(30)]
    found = [_sides(table) for table in _everywhere(folder, images, "pill")]
    assert all(one == found[0] for one in found)
    assert {path.count("/") for path in found[0]} == {2}
    assert not any(".." in path for path in found[0])
    # A new photograph moves no other.
    images.append(_image(tmp_path / "archive" / "we" / "good99.png"))
    more = _sides(_list(tmp_path / "pill.csv", images))
    assert {path: more[path] for path in found[0]} == found[0]


def test_an_mvtec_folder_and_lists_of_it_give_the_same_names(tmp_path):
    folder = tmp_path / "line" / "bottle"
    images = [_image(folder / "train" / "good" / f"{number}.png") for number in range(4)]
    images += [_image(folder / "test" / kind / "0.png") for kind in ("good", "broken", "ng")]
    names = {record.path for record in records.scan([folder])}
    for table in _everywhere(folder, images, "bottle"):
        assert {record.path for record in records.scan([table])} == names, table


def test_groups_are_divided_alike_in_a_folder_and_in_a_list(plain):
    images = sorted(plain.rglob("*.png"))
    rows = "".join(f"{image.relative_to(plain)},part {int(image.stem) // 4}\n" for image in images)
    (plain / "groups.csv").write_text(f"path,group\n{rows}")
    expected = {(record.path, record.split, record.group) for record in records.scan([plain])}
    table = plain.parent / "list.csv"
    lines = [f"pill/{row.split(',')[0]},{int('def' in row)},{row.split(',')[1]}\n" for row in rows.splitlines()]
    table.write_text("path,label,group\n" + "".join(lines))
    assert {(record.path, record.split, record.group) for record in records.scan([table])} == expected


def test_a_linked_category_has_the_name_of_the_link(plain):
    store = plain.rename(plain.parent.parent / "v3")
    plain.symlink_to(store)
    (plain.parent / "lid").symlink_to(plain.parent.parent / "lid store")
    _image(plain.parent.parent / "lid store" / "train" / "good" / "0.png")
    assert {record.category for record in records.scan([plain.parent])} == {"pill", "lid"}


def test_linked_defect_folders_are_read_and_their_masks_too(tmp_path):
    folder = tmp_path / "cap"
    for number in range(3):
        _image(folder / "train" / "good" / f"{number}.png")
        _image(tmp_path / "store" / f"{number}.png")
    _image(folder / "ground_truth" / "chip" / "0_mask.png")
    (folder / "test").mkdir()
    (folder / "test" / "chip").symlink_to(tmp_path / "store")
    (folder / "test" / "gone").symlink_to(tmp_path / "nowhere")
    _image(folder / "test" / ".ipynb_checkpoints" / "0.png")
    said = []
    found = records.scan([folder], say=said.append)
    assert {record.defect for record in found if record.label} == {"chip"}
    assert sum(record.label for record in found) == 3
    assert sum(bool(record.mask) for record in found) == 1
    assert any("test/gone" in sentence for sentence in said)
    assert any(".ipynb_checkpoints/" in sentence for sentence in said)


@pytest.mark.parametrize("link", ["good/again.png", "defective/chip/again.png"])
def test_one_photograph_under_two_names_is_refused(plain, link):
    (plain / link).symlink_to(plain / "good" / "00.png")
    with pytest.raises(UserError, match="are the same file, because of a link"):
        records.scan([plain])
    table = _list(plain.parent / "list.csv", [plain / "good" / "00.png", plain / link, plain / "good" / "02.png"])
    with pytest.raises(UserError, match="stands in line 2 already"):
        records.scan([table])


def test_two_names_of_one_category_folder_are_refused(plain):
    (plain.parent / "pill newest").symlink_to(plain)
    for named in ([plain.parent], [plain, plain.parent / "pill newest"]):
        with pytest.raises(UserError, match=r"pill and .*pill newest are the same folder"):
            records.scan(named)


def test_a_folder_that_cannot_be_read_stops_the_scanner(plain, monkeypatch):
    scan = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("monday"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"monday: cannot be read \(Permission denied\)"):
        records.scan([plain])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_umlauts_have_one_form_in_tables_whatever_the_disk_has(tmp_path, form):
    folder = tmp_path / "cap"
    for number in range(9):
        _image(folder / "good" / unicodedata.normalize(form, f"Größe {number}.png"))
    _image(folder / "defective" / unicodedata.normalize(form, "Spän") / "0.png")
    _image(folder / "defective" / unicodedata.normalize(form, "Spän") / unicodedata.normalize(form, "ä.png"))
    # A zip file of a Mac has one of two folders only.
    masks = folder / "ground_truth" / unicodedata.normalize("NFC", "Spän")
    for name in ("0_mask.png", "ä_mask.png"):
        _image(masks / unicodedata.normalize("NFC", name))
    found = records.scan([folder])
    assert {record.path for record in found if not record.label} == {f"cap/good/Größe {i}.png" for i in range(9)}
    assert [(record.defect, bool(record.mask)) for record in found if record.label] == [("Spän", True)] * 2
    assert all(pathlib.Path(record.file).is_file() for record in found)
    _image(folder / "good" / unicodedata.normalize("NFD" if form == "NFC" else "NFC", "Größe 1.png"))
    with pytest.raises(UserError, match="form of an umlaut only"):
        records.scan([folder])


@pytest.mark.parametrize("place", ["good/Gr\udcf6\udcdfe.png", "defective/Sp\udce4n/0.png"])
def test_a_name_in_latin_1_is_shown_with_what_to_do(plain, place):
    _image(plain / place)
    with pytest.raises(UserError, match=r"\\x.*: this name is not UTF-8.*convmv") as caught:
        records.scan([plain])
    str(caught.value).encode("ascii", "backslashreplace")
    with pytest.raises(UserError, match="this name is not UTF-8"):
        records.scan([plain.rename(plain.with_name("Gr\udcf6sse"))])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_the_terminal_cannot_show_stops_nothing(encoding):
    code = "from mvtec_tf.bin import entry; entry.run(lambda: print('Gr\\xf6\\xdfe \\u2192 \\udcf6'))"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.decode(encoding).endswith("\\udcf6\n")


def test_an_empty_name_is_not_the_folder_that_a_command_is_called_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in ("good", "defective"):
        (tmp_path / "cap" / part).mkdir(parents=True)
        (tmp_path / "cap" / part / "0.png").touch()
    assert PathsParser().parse("cap,") == ["cap", ""]
    for given in (("cap", ""), (" ",)):
        with pytest.raises(UserError, match="an empty name, which would be the folder that this is called from"):
            mt.scan(given)
        with pytest.raises(UserError, match="an empty name, which would be the folder that this is called from"):
            settings.check_all(ServeSettings(folders=given))


@pytest.mark.parametrize("name", ["a,b", "Größe, klein", "a,,b", ","])
def test_a_comma_in_a_folders_name_separates_nothing(tmp_path, name, monkeypatch):
    parse = PathsParser().parse
    (tmp_path / name).mkdir()
    (tmp_path / "other").mkdir()
    one, other = str(tmp_path / name), str(tmp_path / "other")
    assert parse(one) == [one]
    assert parse(f"{other},{one}") == [other, one]
    assert parse(f"{one}, {other}") == [one, other]
    assert parse(f'"{one}",{other}') == [one, other]
    assert parse(f"first={one},second={other}+{one},{other}") == [f"first={one}", f"second={other}+{one}", other]
    assert parse(f"{other},first={one}") == [other, f"first={one}"]
    assert parse(f"none,first={other},{one}") == ["none", f"first={other}", one]
    monkeypatch.chdir(tmp_path)
    assert parse(f"other,{name}") == ["other", name]
    assert parse("none,other") == ["none", "other"]
    assert parse("") == []
