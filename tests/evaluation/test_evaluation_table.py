"""A table of predictions is read whole or refused with a message that says where and why."""

import numpy as np
import pytest

from mvtec_tf.errors import LeakError, UserError
from mvtec_tf.evaluation.table import Predictions, Row, read_predictions, write_predictions

HEADER = "path,category,defect,label,split,score"
GOOD_ROW = "bottle/0.png,bottle,good,0,evaluate,0.25"
BAD_ROW = "bottle/1.png,bottle,crack,1,evaluate,0.75"


def _file(tmp_path, *lines, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def _rows():
    return [
        Row("a b,c.png", "böttle", "good", 0, "evaluate", 0.1, "part 1", 0.0),
        Row('d"e.png', "böttle", "crack", 1, "evaluate", float(np.float32(0.1)), "", None),
        Row("f.png", "screw", "", 1, "fit", -1e-30, "", 1.0),
    ]


def test_columns_have_the_types_that_metrics_expect(tmp_path):
    found = read_predictions(_file(tmp_path, HEADER, GOOD_ROW, BAD_ROW))
    assert found.path.tolist() == ["bottle/0.png", "bottle/1.png"]
    assert found.label.tolist() == [0, 1]
    assert found.score.tolist() == [0.25, 0.75]
    assert found.score.dtype == np.float64
    assert found.group.tolist() == ["", ""]
    assert np.isnan(found.probability).all()
    assert found.categories() == ("bottle",)


def test_a_written_table_reads_back_exactly_the_same(tmp_path):
    predictions = Predictions.from_rows(_rows())
    write_predictions(tmp_path / "x.csv", predictions)
    assert list(read_predictions(tmp_path / "x.csv").rows()) == _rows()


def test_the_same_table_gives_the_same_bytes_and_no_empty_optional_columns(tmp_path):
    plain = [Row("a", "c", "good", 0, "evaluate", 1.0), Row("b", "c", "good", 0, "evaluate", 0.1)]
    for name in ("x.csv", "y.csv"):
        write_predictions(tmp_path / name, Predictions.from_rows(plain))
    content = (tmp_path / "x.csv").read_bytes()
    assert content == (tmp_path / "y.csv").read_bytes()
    assert content == f"{HEADER}\na,c,good,0,evaluate,1.0\nb,c,good,0,evaluate,0.1\n".encode()


def test_float32_and_float64_scores_survive_the_file(tmp_path):
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=200) * 10.0 ** rng.integers(-100, 38, 200), rng.normal(size=200).astype(np.float32)):
        rows = [Row(f"{i}", "c", "good", 0, "evaluate", float(value)) for i, value in enumerate(values)]
        write_predictions(tmp_path / "x.csv", Predictions.from_rows(rows))
        np.testing.assert_array_equal(read_predictions(tmp_path / "x.csv").score.astype(values.dtype), values)


def test_other_columns_are_ignored_and_named_and_columns_may_come_in_any_order(tmp_path):
    path = _file(tmp_path, "operator,score,split,label,defect,category,path", "Kim,1.5,evaluate,1,crack,bottle,a.png")
    found = read_predictions(path)
    assert found.ignored_columns == ("operator",)
    assert list(found.rows()) == [Row("a.png", "bottle", "crack", 1, "evaluate", 1.5)]


@pytest.mark.parametrize(("good", "bad"), [("gut", "schlecht"), ("OK", "nok"), ("bon", "mauvais"), ("0.0", "1,0")])
def test_labels_are_read_by_the_words_that_folders_are_called_by(tmp_path, good, bad):
    rows = (GOOD_ROW.replace(",0,", f",{good},"), BAD_ROW.replace(",1,", f',"{bad}",'))
    found = read_predictions(_file(tmp_path, HEADER, *rows))
    assert found.label.tolist() == [0, 1]
    assert found.labels_read == ("" if good == "0.0" else f"{good!r} as good (1), {bad!r} as defective (1)")


def test_of_a_table_of_labels_and_scores_alone_every_row_is_judged_and_it_is_said(tmp_path):
    found = read_predictions(_file(tmp_path, "path,label,score", "a.png,good,0.25", "b.png,1,0.75"))
    assert [tuple(getattr(found, name)) for name in ("category", "defect", "split")] == [
        ("parts", "parts"),
        ("good", "defective"),
        ("evaluate", "evaluate"),
    ]
    assert found.columns_unsaid.count("no column") == 3
    assert "every row is judged" in found.columns_unsaid


def test_spreadsheet_files_with_byte_order_mark_and_crlf_are_read(tmp_path):
    path = _file(tmp_path, HEADER + "\r", GOOD_ROW + "\r", BAD_ROW + "\r", "\r", encoding="utf-8-sig")
    assert len(read_predictions(path)) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the file is empty"),
        ([HEADER], "no predictions in it"),
        (["path,category,label,split", "a,b,0,fit"], "line 1: no column score; found path,category,label"),
        (["path,label,score,subset", "a,0,1,fit"], "a column 'subset'. Did you mean 'split'"),
        ([HEADER + ",score", GOOD_ROW + ",1"], "the column 'score' stands there twice"),
        ([HEADER, GOOD_ROW, "bottle,1.png,bottle,crack,1,evaluate,0.7"], "line 3: 7 cells, but the header has 6"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace(",1,", ",2,")], "line 3: label '2'"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace(",1,", ",perhaps,")], "line 3: label 'perhaps'.*0 or good"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace(",1,", ",,")], "line 3: label ''"),
        ([HEADER, GOOD_ROW.replace(",0,", ",1,")], "line 2: label 1.* turned round"),
        ([HEADER, GOOD_ROW.replace("good,0,", "OK,1,")], "line 2: label 1.* turned round"),
        ([HEADER, BAD_ROW.replace(",1,", ",0,")], "line 2: label 0.* turned round"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("0.75", "nan")], "line 3: score nan"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("0.75", "inf")], "line 3: score inf"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("0.75", "-1e39")], r"line 3: score -1e\+39"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("0.75", "high")], "line 3: score 'high' is not a number"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("0.75", "")], "line 3: score '' is not a number"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("0.75", '"0,75"')], "line 3: score '0,75'.*decimal point"),
        ([HEADER + ",probability", GOOD_ROW + ",1.5"], "line 2: probability 1.5"),
        ([HEADER + ",probability", GOOD_ROW + ",-0.1"], "line 2: probability -0.1"),
        ([HEADER + ",probability", GOOD_ROW + ",likely"], "line 2: probability 'likely' is not a number"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("evaluate", "test")], "line 3: split 'test'.*pretrain, fit, calibrate"),
        ([HEADER, GOOD_ROW, GOOD_ROW], "line 3: 'bottle/0.png' is in the split 'evaluate' a second time.* line 2"),
        ([HEADER, GOOD_ROW, "./" + GOOD_ROW], "line 3: './bottle/0.png' is in the split 'evaluate' a second time"),
        ([HEADER, "a,c,good,0,fit,0", "a,c,crack,1,calibrate,0", BAD_ROW], "line 3: 'a' has the label 1, but 0"),
        ([HEADER, "a,c,good,0,fit,0", "a,d,good,0,calibrate,0", BAD_ROW], "line 3: 'a' has the category 'd', but 'c'"),
        ([HEADER, ",c,good,0,evaluate,0"], "line 2: path ''"),
        ([HEADER, "a,,good,0,evaluate,0"], "line 2: category ''"),
        ([HEADER, "a,c,good,0,fit,0", "b,c,good,0,calibrate,0"], "the split 'evaluate', found only calibrate, fit"),
        ([HEADER, 'a,c,"good,0,evaluate,0'], "line 2: not readable as CSV"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("crack", "no_defect")], "line 3: defect 'no_defect'.* sounds like good"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("crack", "N/A")], "line 3: defect 'N/A'.* Write nothing"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace(",bottle,", ",nan,")], "line 3: category 'nan'"),
        ([HEADER + ",group", GOOD_ROW + ",-", BAD_ROW + ",-"], "line 2: group '-'"),
        ([HEADER + ",group", GOOD_ROW + ",p 1", BAD_ROW + ",p 1 "], "groups of category 'bottle' 'p 1' and 'p 1 '"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace(",bottle,", ",Bottle,")], "categories 'Bottle' and 'bottle' differ"),
        ([HEADER, GOOD_ROW, BAD_ROW, "2.png,bottle,Crack ,1,evaluate,0.7"], "'Crack ' and 'crack'"),
        ([HEADER, GOOD_ROW, BAD_ROW.replace("0.75", "7_5")], "line 3: score '7_5' is not a number"),
    ],
)
def test_a_wrong_table_is_refused_with_file_and_line(tmp_path, lines, message):
    path = _file(tmp_path, *lines)
    with pytest.raises(UserError, match=message) as error:
        read_predictions(path)
    assert str(error.value).startswith(str(path))


def test_the_line_is_right_after_a_value_that_spans_lines(tmp_path):
    path = _file(tmp_path, HEADER, '"two\nlines.png",c,good,0,evaluate,0', "a,c,good,0,evaluate,nan")
    with pytest.raises(UserError, match="line 4: score nan"):
        read_predictions(path)


def test_several_wrong_values_are_counted(tmp_path):
    path = _file(tmp_path, HEADER, *(f"{i},c,good,0,evaluate,nan" for i in range(5)))
    with pytest.raises(UserError, match=r"line 2: score nan \(and 4 more such rows\)"):
        read_predictions(path)


def test_a_file_that_is_not_utf8_is_refused_with_the_line(tmp_path):
    path = _file(tmp_path, HEADER, GOOD_ROW, BAD_ROW.replace("crack", "Riß"), encoding="latin-1")
    with pytest.raises(UserError, match="line 3: not UTF-8"):
        read_predictions(path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_missing_file_and_a_folder_are_refused(tmp_path, make):
    make(tmp_path / "table.csv")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "predictions.csv").touch()
    with pytest.raises(UserError, match=r"found a folder\. CSV files in it: predictions\.csv\."):
        read_predictions(tmp_path / "run")
    with pytest.raises(UserError, match=r"table\.csv: expected a CSV file"):
        read_predictions(tmp_path / "table.csv")


def test_a_leak_in_a_table_names_the_images(tmp_path):
    path = _file(tmp_path, HEADER + ",group", GOOD_ROW + ",part 1", BAD_ROW + ",", "x.png,bottle,good,0,fit,0,part 1")
    with pytest.raises(LeakError, match=r"table\.csv: leak(?s:.*)bottle/0\.png.*'part 1'.*x\.png in fit"):
        read_predictions(path)


def test_a_table_that_cannot_be_judged_is_not_written(tmp_path):
    rows = [Row("a", "c", "good", 0, "evaluate", float("nan"))]
    with pytest.raises(UserError, match=r"x\.csv, row 0: score nan"):
        write_predictions(tmp_path / "x.csv", Predictions.from_rows(rows))
    assert not (tmp_path / "x.csv").exists()


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="one length"):
        Predictions.from_columns(["a"], ["c"], ["good"], [0], ["evaluate"], [0.0, 1.0])
