"""One reader for every list and table: what Windows, Excel and a shell write is read, or file and line are named."""

import os
import pathlib
import re
import unicodedata

import pytest

from mvtec_tf.data.csv_table import CsvTable
from mvtec_tf.data.formats import scan as records
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.serving import inputs

_LINES = {
    "plain": lambda text: text.encode(),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16 LE with a mark": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16 BE with a mark": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 LE": lambda text: text.replace("ö", "o").encode("utf-16-le"),
    "UTF-16 BE": lambda text: text.replace("ö", "o").encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "NFD": lambda text: unicodedata.normalize("NFD", text).encode(),
}
_TABLES = _LINES | {
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "sep=;": lambda text: ("sep=;\r\n" + text.replace(",", ";")).encode("utf-16"),
    '"sep=|"': lambda text: ('"sep=|"\n' + text.replace(",", "|")).encode(),
    "quoted": lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text).encode(),
    "capitals in the header": lambda text: (text.split("\n", 1)[0].title() + "\n" + text.split("\n", 1)[1]).encode(),
    "backslashes": lambda text: text.replace("/", "\\").encode(),
    "./": lambda text: text.replace("good/", "./good//").replace("defective/", "./defective/./").encode(),
}
_LISTS = (*_LINES, "quoted", "backslashes", "./")


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not looked into")
    return path


@pytest.fixture
def cap(tmp_path):
    """Forty good images and three defective ones, on a disk that writes umlauts as two code points or as one."""
    for number in range(40):
        _image(tmp_path / "cap" / "good" / f"{number:02d}.png")
    for name in ("0.png", "1.png", unicodedata.normalize("NFD", "größe.png"), "grose.png", "groe.png", "große.png"):
        _image(tmp_path / "cap" / "defective" / name)
    return tmp_path / "cap"


def _umlaut(form):
    return "defective/groe.png" if form in ("UTF-16 LE", "UTF-16 BE") else "defective/größe.png"


def _text(form, text):
    return _TABLES[form](text if "16" not in form or "mark" in form else text.replace("größe", "groe"))


@pytest.mark.parametrize("form", _TABLES)
def test_a_list_of_images_is_read(cap, form):
    text = "path,label\ngood/00.png,0\ngood/01.png,0\ngood/02.png,0\ndefective/größe.png,1\n"
    (cap / "cap.csv").write_bytes(_text(form, text))
    found = {record.path for record in records.scan([cap / "cap.csv"])}
    assert found == {f"cap/good/0{number}.png" for number in range(3)} | {f"cap/{_umlaut(form)}"}


@pytest.mark.parametrize("form", _TABLES)
def test_a_table_of_groups_is_read(cap, form):
    (cap / "groups.csv").write_bytes(_text(form, "path,group\ngood/00.png,a\ndefective/größe.png,a\n"))
    found = {record.path for record in records.scan([cap]) if record.group == "cap/a"}
    assert found == {"cap/good/00.png", f"cap/{_umlaut(form)}"}


@pytest.mark.parametrize("form", sorted(set(_TABLES) - {"backslashes", "./"}))
def test_a_table_of_predictions_is_read(tmp_path, form):
    header = "path,category,defect,label,split,score"
    text = f"{header}\ncap/good/00.png,cap,good,0,evaluate,0.1\ncap/defective/größe.png,cap,chip,1,evaluate,0.9\n"
    (tmp_path / "table.csv").write_bytes(_text(form, text))
    found = read_predictions(tmp_path / "table.csv")
    assert found.path.tolist() == ["cap/good/00.png", f"cap/{_umlaut(form)}"]
    assert found.score.tolist() == [0.1, 0.9]


@pytest.mark.parametrize("form", _TABLES)
def test_a_list_for_predict_is_read_with_or_without_columns(cap, form, monkeypatch):
    bare = _text(form, "good/00.png\ngood/01.png\ndefective/größe.png\n") if form in _LISTS else b""
    table = _text(form, "path,label\ngood/00.png,0\ngood/01.png,0\ndefective/größe.png,1\n")
    wanted = [cap / "good" / "00.png", cap / "good" / "01.png", cap / _umlaut(form)]
    names = [unicodedata.normalize("NFC", str(path)) for path in wanted]
    for content in filter(None, (bare, table)):
        (cap / "list").write_bytes(content)
        for here in (cap, cap.parent):
            monkeypatch.chdir(here)
            found = inputs.read_list(str(cap / "list"))
            assert all(os.path.isfile(file) for file in found)
            assert [unicodedata.normalize("NFC", os.path.abspath(file)) for file in found] == names


def test_lines_of_a_shell_are_taken_to_the_byte(tmp_path, monkeypatch):
    names = [b"a b.png", b"c\xf6.png", b"back\\slash.png", 'ü\x85"quoted.png'.encode()]
    for name in names:
        pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for end in (b"\n", b"\0"):
        (tmp_path / "list").write_bytes(end.join(names) + end)
        assert [os.fsencode(name) for name in inputs.read_list("list")] == names


def test_a_list_of_an_old_windows_program_finds_its_files(tmp_path, monkeypatch):
    _image(tmp_path / "Größe" / "1.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_bytes('"Größe\\1.png"\r\nGröße\\none.png\r\n'.encode("cp1252"))
    found = inputs.read_list("list")
    assert found[0] == "Größe/1.png"
    assert not os.path.exists(found[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\ngood/00.png,0\ndefective/größe.png,1\n".encode("cp1252"), r"line 3: not UTF-8 \(byte 0xf6.*'ö'"),
        (b"path,label\ngood/00.png,0\ngood/0\x001.png,0\n", "line 3: a NUL byte"),
        (b"path,label\ngood/00.png,0\n" + b"\0" * 512, "line 3: a NUL byte"),
        (b"PK\x03\x04" + b"\0" * 99, "an Excel or OpenDocument workbook"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 99, "an old Excel workbook"),
        (b"\xff\xfep\0a\0t", "begins as UTF-16 and is not"),
        (b"sep=;\npath;label\ngood/00.png;0;\n", "line 3: 3 cells"),
    ],
)
def test_what_is_no_text_is_named(cap, content, message):
    readers = {"cap.csv": lambda file: records.scan([file]), "t.csv": lambda file: CsvTable(file, ("path",))}
    for name, read in readers.items():
        (cap / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            list(read(cap / name))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("Good/00.PNG", r"no such file, but there is good/00\.png"),
        ("C:\\line\\good\\00.png", "a path of Windows"),
        ("good/99.png", r"no such file\. Paths are relative to"),
    ],
)
def test_a_path_that_is_nearly_one_is_refused_with_the_right_one(cap, written, message):
    (cap / "cap.csv").write_text(f"path,label\n{written},0\n")
    with pytest.raises(UserError, match=message):
        records.scan([cap / "cap.csv"])
