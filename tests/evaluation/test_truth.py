"""A row says of an image what somebody has said of it, and nothing that a folder's name merely sounds like."""

import csv
import dataclasses
import hashlib
import json
import pathlib
import shutil

import pytest

from mvtec_tf.data import known_images
from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import recorded
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.serving import batch
from mvtec_tf.serving.batch import COLUMNS, Judge
from mvtec_tf.serving.client import BadImageError
from mvtec_tf.serving.journal import Journal
from mvtec_tf.serving.truth import Facts, Truth


class _Fake:
    """A model to which every image but an empty one is defective."""

    name = "fake"

    def __call__(self, signature, images):
        if b"torn" in images:
            raise BadImageError("torn")
        return {name: [1.0] * len(images) for name in ("anomaly_score", "threshold", "label")}


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def _photograph(root, *names):
    """Files with contents of their own."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"photograph {name}")


def _judged(files, out, truth=None, relative_to="", called="m/1"):
    judge = Judge(_Fake(), truth, str(relative_to), called=called)
    partial = out.with_name(f".{out.name}.partial")
    asked = {judge.name(str(file)) for file in files}
    with batch.finished_as(out, partial, called, out.suffix, asked) as table:
        tally = batch.judge_files(judge, [str(file) for file in files], table, 4)
    return tally, _rows(out)


def _rows(out):
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text().splitlines()]
    with out.open(newline="") as content:
        return list(csv.DictReader(content))


@pytest.mark.parametrize(
    "name",
    [
        "test/monday/1.png",
        "srv/test/monday/1.png",
        "train/monday/1.png",
        "part/train/chip/1.png",
        "monday/good/1.png",
        "defective/1.png",
        "good/1.png",
        "part/ground_truth/chip/1_mask.png",
        "test/good",
    ],
)
def test_a_folder_that_only_sounds_like_a_layout_says_nothing(tmp_path, name):
    _photograph(tmp_path, name)
    assert Truth().of(str(tmp_path / name), _digest(b"x")) == Facts()


@pytest.mark.parametrize(
    ("beside", "name", "category", "defect"),
    [
        ("p/train/good/0.png", "p/test/chip/1.png", "p", "chip"),
        ("p/test/good/0.png", "p/test/chip/1.png", "p", "chip"),
        ("p/train/good/0.png", "p/train/good/1.png", "p", "good"),
        ("p/Train/OK/0.png", "p/Test/OK/1.png", "p", "good"),
        ("p/good/0.png", "p/defective/1.png", "p", "defective"),
        ("p/good/0.png", "p/defective/chip/1.png", "p", "chip"),
        ("p/defective/0.png", "p/good/monday/1.png", "p", "good"),
        ("p/OK/0.png", "p/NG/chip/1.png", "p", "chip"),
    ],
)
def test_a_layout_beyond_doubt_says_what_the_scanner_says(tmp_path, beside, name, category, defect):
    _photograph(tmp_path, beside, name)
    found = Truth().of(str(tmp_path / name), _digest(b"x"))
    assert (found.category, found.defect, found.label) == (category, defect, int(defect != "good"))
    # Nobody knows what the model was made with.
    assert found.split == ""


@pytest.mark.parametrize(
    "name", ["p/train/chip/1.png", "p/test/a/b/1.png", "p/test/1.png", "p/ground_truth/chip/1.png"]
)
def test_what_does_not_belong_into_a_layout_says_nothing(tmp_path, name):
    _photograph(tmp_path, "p/train/good/0.png", name)
    assert Truth().of(str(tmp_path / name), _digest(b"x")) == Facts()


def test_what_places_say_is_what_the_scanner_says(toy, toy_records):
    for record in toy_records:
        found = known_images.of_place(record.file)
        assert found == dataclasses.replace(record, file=found.file, group="", mask="", split=found.split)


@pytest.fixture
def plain(tmp_path):
    """A plain category and an export that knows its images; (folder, records, export)."""
    root = tmp_path / "line" / "flange"
    _photograph(root, *(f"good/{i}.png" for i in range(8)), *(f"defective/chip/{i}.png" for i in range(4)))
    (root / "groups.csv").write_text("path,group\ndefective/chip/0.png,one\ndefective/chip/1.png,one\n")
    records = scan.scan([root])
    extra = tmp_path / "flange" / "1" / "assets.extra"
    extra.mkdir(parents=True)
    known_images.write(extra / known_images.FILE, records)
    uses = {"fit": records[:3], "calibrate": records[2:5], "evaluate": records[5:7]}
    with (extra / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "split", "group"))
        writer.writerows((one.path, split, one.group) for split, part in uses.items() for one in part)
    return root, records, extra.parent


def test_an_export_knows_its_images_by_content_wherever_they_lie(plain, tmp_path):
    _, records, export = plain
    truth = Truth(export=export)
    for i, record in enumerate(records):
        copy = tmp_path / f"{i}.jpg"
        shutil.copyfile(record.file, copy)
        found = truth.of(str(copy), _digest(copy.read_bytes()))
        assert (found.category, found.defect, found.label) == (record.category, record.defect, record.label)
    splits = [truth.of("elsewhere.png", _digest(pathlib.Path(record.file).read_bytes())).split for record in records]
    # The first four are defective; the first two show one object.
    assert splits[:7] == ["fit", "fit", "fit", "calibrate", "calibrate", "evaluate", "evaluate"]
    assert set(splits[7:]) == {"evaluate"}
    assert truth.of("elsewhere.png", _digest(b"another photograph")) == Facts()


def test_a_name_that_is_used_again_is_another_image(plain):
    _, records, export = plain
    file = pathlib.Path(records[0].file)
    file.write_text("a photograph of another day")
    assert Truth(export=export).of(str(file), _digest(file.read_bytes())).split == "evaluate"
    # An export of an older version knows no more than names.
    (export / "assets.extra" / known_images.FILE).unlink()
    old = Truth(export=export)
    assert not old.knows_contents
    assert old.of(str(file), _digest(file.read_bytes())).split == "fit"


def test_another_photograph_of_an_object_that_was_fitted_is_no_new_one(plain):
    root, _, export = plain
    _photograph(root, "defective/chip/9.png")
    with (root / "groups.csv").open("a") as file:
        file.write("defective/chip/9.png,one\n")
    truth = Truth(scan.scan([root]), export)
    file = root / "defective" / "chip" / "9.png"
    assert truth.of(str(file), _digest(file.read_bytes())).split == "fit"


def test_records_are_believed_before_folders_and_name_the_images(tmp_path):
    _photograph(tmp_path, "p/train/good/0.png", "p/test/chip/1.png", "p/test/good/2.png")
    lines = ["path,label,category", "p/train/good/0.png,0,cap", "p/test/chip/1.png,0,cap", "p/test/good/2.png,1,cap"]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    records = scan.scan([tmp_path / "list.csv"])
    truth = Truth(records)
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "p" / "test" / "good" / "2.png")
    for file, label in ((tmp_path / "p" / "test" / "chip" / "1.png", 0), (link, 1)):
        assert truth.of(str(file), _digest(b"x")).label == label
        assert truth.name(str(file)) in {record.path for record in records}
    _, rows = _judged([link, tmp_path / "p" / "test" / "chip" / "1.png"], tmp_path / "t.csv", truth)
    assert {row["path"] for row in rows} <= {record.path for record in records}


@pytest.mark.parametrize("form", [".csv", ".jsonl"])
def test_evaluate_reads_what_predict_writes_of_anything(plain, tmp_path, form):
    root, records, export = plain
    _photograph(tmp_path, "unknown.png")
    (root / "defective" / "chip" / "8.png").write_text("torn")
    (tmp_path / "torn.png").write_text("torn")
    files = [*root.rglob("*.png"), tmp_path / "unknown.png", tmp_path / "torn.png", tmp_path / "missing.png"]
    # Two spellings of one path.
    files.append(f"{tmp_path}/./unknown.png")
    out = tmp_path / f"t{form}"
    tally, rows = _judged(files, out, Truth(export=export), tmp_path)
    assert len(rows) == len(files) - 1
    bad = {"line/flange/defective/chip/8.png", "torn.png", "missing.png"}
    assert {row["path"] for row in rows if row["error"]} == bad
    table = read_predictions(out)
    assert len(table) == len(records)
    assert sorted(set(table.split)) == ["calibrate", "evaluate", "fit"]
    assert len(table.left_out) == 4
    assert recorded.of_table(out, table).threshold.whole.value == 1.0
    words = batch.summary(tally, 1.0, [], 4)
    assert "3 of these were used to fit this model, 2 of these were used to choose its threshold" in words


def test_a_finished_table_gets_the_rows_of_new_files_and_none_of_another_model(tmp_path):
    _photograph(tmp_path, "a.png", "b.png", "c.png")
    out = tmp_path / "t.csv"
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    _, first = _judged(files, out)
    before = out.read_bytes()
    tally, again = _judged(files, out)
    assert (again, tally.verdicts.total(), out.read_bytes()) == (first, 0, before)
    tally, more = _judged([*files, tmp_path / "c.png"], out)
    assert (tally.verdicts.total(), more[:2], len(more)) == (1, first, 3)
    with pytest.raises(UserError, match="of the model m/1, not m/2"):
        _judged(files, out, called="m/2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png", "t.csv"]


@pytest.mark.parametrize("form", [".csv", ".jsonl"])
def test_a_file_whose_contents_have_changed_is_judged_anew_and_said(tmp_path, capsys, form):
    _photograph(tmp_path, "a.png", "b,\u00e4.png", "c.png")
    (tmp_path / "d.png").write_text("torn")
    out = tmp_path / f"t{form}"
    files = [tmp_path / name for name in ("a.png", "b,\u00e4.png", "c.png", "d.png")]
    _, first = _judged(files, out)
    (tmp_path / "b,\u00e4.png").write_text("another photograph")
    (tmp_path / "d.png").write_text("whole now")
    (tmp_path / "c.png").unlink()
    capsys.readouterr()
    tally, again = _judged(files, out)
    said = capsys.readouterr().out
    assert "2 images of the table with other contents now, or of which something else is known: judged" in said
    assert "1 image of the table cannot be read now; what was said of it stays" in said
    assert tally.verdicts.total() == 2
    assert [row["path"] for row in again] == [str(file) for file in (files[0], files[2], files[1], files[3])]
    assert [again[0], again[1]] == [first[0], first[2]]
    assert [row["sha256"] for row in again[2:]] == [_digest(file.read_bytes()) for file in (files[1], files[3])]
    assert again[3]["error"] == "" != first[3]["error"]
    assert _judged(files, out)[0].verdicts.total() == 0


def test_a_row_with_a_label_that_has_been_corrected_since_is_made_anew(tmp_path):
    _photograph(tmp_path, "a.png")
    file, out = tmp_path / "a.png", tmp_path / "t.csv"
    for label in (0, 1):
        record = Record("p/a.png", str(file), "p", "chip" if label else "good", label, "test", "p/a.png")
        _, rows = _judged([file], out, Truth([record]))
        assert [row["label"] for row in rows] == [str(label)]


def test_a_call_that_was_killed_before_it_judged_a_changed_file_is_gone_on_with(tmp_path):
    _photograph(tmp_path, "a.png", "b.png")
    files, out = [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "t.csv"
    _judged(files, out)
    files[0].write_text("another photograph")
    partial = tmp_path / ".t.csv.partial"
    partial.write_bytes(out.read_bytes())
    with Journal(partial, COLUMNS, ".csv") as table:
        table.remove({str(files[0])})
        assert list(table.names) == [str(files[1])]
        # It is still this process' own.
        with pytest.raises(UserError, match="another process"):
            Journal(partial, COLUMNS, ".csv")
    _, rows = _judged(files, out)
    assert [row["path"] for row in rows] == [str(files[1]), str(files[0])]


def test_a_table_that_another_call_finished_meanwhile_loses_no_row(tmp_path):
    _photograph(tmp_path, "a.png", "b.png")
    out = tmp_path / "t.csv"
    row = dict.fromkeys(COLUMNS, "") | {"path": "x.png", "model": "m/1"}
    with Journal(tmp_path / ".t.csv.partial", COLUMNS, ".csv") as interrupted:
        interrupted.append([row])
    with Journal(out, COLUMNS, ".csv") as finished:
        finished.append([row | {"path": "y.png"}])
    with pytest.raises(UserError, match="another call"):
        _judged([tmp_path / "a.png"], out)
    assert [one["path"] for one in _rows(out)] == ["y.png"]


def test_a_list_of_images_that_is_none_is_named(tmp_path):
    known_images.write(tmp_path / "images.csv", [])
    assert known_images.read(tmp_path / "images.csv") == {}
    file = tmp_path / "photo.png"
    file.write_bytes(b"x")
    record = Record("p/photo.png", str(file), "p", "good", 0, "train", "p/photo.png")
    known_images.write(tmp_path / "images.csv", [record])
    (same,) = known_images.read(tmp_path / "images.csv").values()
    assert same == [dataclasses.replace(record, file="")]
    text = (tmp_path / "images.csv").read_text()
    (tmp_path / "images.csv").write_text(text.replace("good,0", "good,no"))
    with pytest.raises(UserError, match="line 2: label 'no'"):
        known_images.read(tmp_path / "images.csv")
