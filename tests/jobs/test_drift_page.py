"""Drift drawn over time: parts in the order that is asked for, what has moved since when, and clear words otherwise."""

import csv
import re

import numpy as np
import pytest
from PIL import ExifTags, Image

from mvtec_tf import drift
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.jobs.drift import draw_drift
from mvtec_tf.jobs.settings import DriftSettings
from mvtec_tf.serving.drifting import Line


def _write(file, names, parts):
    with file.open("w", newline="") as content:
        writer = csv.writer(content)
        writer.writerow(["path", "verdict", *drift.COLUMNS])
        writer.writerows([name, "good", *part] for name, part in zip(names, parts, strict=True))
    return str(file)


@pytest.fixture
def moved():
    """[300, 5]: brightness falls with part 201."""
    parts = np.random.default_rng(0).normal(size=(300, 5))
    parts[200:, 0] -= 4
    return parts


def test_what_has_moved_is_drawn_named_and_listed(moved, tmp_path, capsys):
    table = _write(tmp_path / "t.csv", [f"{i}.png" for i in range(300)], moved)
    draw_drift(DriftSettings(table=table, out=str(tmp_path / "out")))
    said = capsys.readouterr().out
    assert "Drift, in standard deviations of the training images: brightness -" in said
    assert "since part 201 (200.png)" in said
    with (tmp_path / "out" / "drift.csv").open() as content:
        (row,) = csv.DictReader(content)
    assert (row["statistic"], row["since_part"], row["since_path"]) == ("brightness", "201", "200.png")
    assert float(row["standard_deviations"]) == pytest.approx(-4, abs=0.3)
    page = (tmp_path / "out" / "drift.html").read_text()
    assert "201 (200.png)" in page
    assert page.count("data:image/png") == len(drift.STATISTICS)
    assert sorted(path.name for path in (tmp_path / "out" / "figures").iterdir()) == sorted(
        f"drift_{name}.png" for name in drift.STATISTICS
    )


def test_a_list_gives_shuffled_parts_their_order(moved, tmp_path):
    mixed = np.random.default_rng(1).permutation(300)
    (tmp_path / "parts").mkdir()
    names = [f"{tmp_path}/parts/{i}.png" for i in mixed]
    for name in names:
        open(name, "w").close()
    table = _write(tmp_path / "t.csv", names, moved[mixed])
    times = tmp_path / "times.csv"
    times.write_text("path,minute\n" + "".join(f"parts/{i}.png,{i}\n" for i in range(300)))
    settings = {"table": table, "out": str(tmp_path / "out")}
    line = draw_drift(DriftSettings(**settings, list=str(times), column="minute"))
    assert line.names == [f"{tmp_path}/parts/{i}.png" for i in range(300)]
    assert [alarm.since for alarm in line.alarms] == [201]
    # In no order, the change is spread over all parts, and there is no beginning to be found.
    assert draw_drift(DriftSettings(**settings)).alarms == []
    times.write_text("path,minute\nparts/0.png,1\n")
    with pytest.raises(UserError, match=r"299 of 300 parts, .*have no time in the column minute of the list"):
        draw_drift(DriftSettings(**settings, list=str(times), column="minute"))


def test_exif_gives_the_order_and_a_photograph_without_a_time_is_named(tmp_path):
    names = []
    for number, second in enumerate((3, 1, 2)):
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"2026:01:01 00:00:0{second}"
        names.append(str(tmp_path / f"{number}.jpg"))
        Image.new("RGB", (8, 8)).save(names[-1], exif=exif)
    table = _write(tmp_path / "t.csv", names, np.zeros((3, 5)))
    line = draw_drift(DriftSettings(table=table, out=str(tmp_path / "out"), order="exif"))
    assert line.names == [names[1], names[2], names[0]]
    assert draw_drift(DriftSettings(table=table, out=str(tmp_path / "out"), order="name")).names == names
    Image.new("RGB", (8, 8)).save(names[1])
    with pytest.raises(UserError, match=r"1 of 3 parts, .*1.jpg first, have no time in its Exif data"):
        draw_drift(DriftSettings(table=table, out=str(tmp_path / "out"), order="exif"))
    for blank in ("0000:00:00 00:00:00", "    :  :     :  :  "):
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = blank
        Image.new("RGB", (8, 8)).save(names[1], exif=exif)
        with pytest.raises(UserError, match=r"1.jpg, Exif data: found '.*:.*' after times as 2026:10:25"):
            draw_drift(DriftSettings(table=table, out=str(tmp_path / "out"), order="exif"))
    (tmp_path / "2.jpg").unlink()
    with pytest.raises(UserError, match=r"2.jpg: cannot be read"):
        draw_drift(DriftSettings(table=table, out=str(tmp_path / "out"), order="exif"))


def test_a_table_of_a_model_of_before_is_refused_with_the_reason_and_one_of_something_else_too(tmp_path):
    table = _write(tmp_path / "t.csv", ["a.png"], [[""] * 5])
    with pytest.raises(UserError, match=r"nothing to draw. Drift was not looked for"):
        draw_drift(DriftSettings(table=table, out=str(tmp_path / "out")))
    empty = _write(tmp_path / "e.csv", [], [])
    with pytest.raises(UserError, match=r"nothing to draw. It has 0 rows"):
        draw_drift(DriftSettings(table=empty, out=str(tmp_path / "out")))
    (tmp_path / "other.csv").write_text("path,score\na.png,1\n")
    with pytest.raises(UserError, match="no column verdict, z_brightness"):
        draw_drift(DriftSettings(table=str(tmp_path / "other.csv"), out=str(tmp_path / "out")))
    words = _write(tmp_path / "w.csv", ["a.png"], [["much"] * 5])
    with pytest.raises(UserError, match=r"a\.png: expected numbers in z_brightness, .* found much"):
        draw_drift(DriftSettings(table=words, out=str(tmp_path / "out")))
    with pytest.raises(UserError, match="nowhere: no SavedModel"):
        draw_drift(DriftSettings(table=empty, model=str(tmp_path / "nowhere"), out=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "drift.html").exists()


def _of_times(tmp_path, cells, separator=","):
    """What `drift` makes of parts 0.png, 1.png, ... with a list that has these times."""
    table = _write(tmp_path / "t.csv", [f"{i}.png" for i in range(len(cells))], np.zeros((len(cells), 5)))
    with (tmp_path / "times.csv").open("w", newline="") as content:
        csv.writer(content, delimiter=separator).writerows(
            [("path", "time"), *((f"{i}.png", cell) for i, cell in enumerate(cells))]
        )
    line = draw_drift(DriftSettings(table=table, out=str(tmp_path / "out"), list=str(tmp_path / "times.csv")))
    return [int(name.removesuffix(".png")) for name in line.names], line.summary()


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (("9:00", "10:05", "8:59"), "times of day (hours, minutes)"),
        (("9:00:00", "10:05:00.5", "8:59:59"), "times of day (hours, minutes, seconds)"),
        (("9:00 AM", "1:05 pm", "12:59 AM"), "times of day (AM, PM)"),
        (("25.10.2026 06:00", "1.11.2026 5:00:30", "30.9.2026 07:00"), "times as 25.10.2026 06:00"),
        (("25.10.2026", "01.11.2026", "30.09.2026"), "dates as 25.10.2026"),
        (("2026/10/25 6:00", "2026/11/1 5:00", "2026/9/30 7:00"), "times as 2026/10/25 06:00"),
        (("2026-10-25T06:00", "2026-11-01 05:00:00.5", "20260930T070000"), "ISO 8601 times"),
        (("2026-10-25T06:00Z", "2026-10-25T06:30-01:00", "2026-10-25T06:59+02:00"), "ISO 8601 times with a zone"),
        (("2026-10-25", "2026-11-01", "2026-09-30"), "ISO 8601 dates"),
        (("9", "10.5", "-8e1"), "numbers"),
        (("1761375600000000001", "1761375600000000002", "1761375600000000000"), "numbers"),
        (("9,5", "10", "-8,25"), "numbers with a decimal comma"),
        # All with thousandths or all in thousands: the order is the same.
        (("9,500", "10,250", "8,125"), "numbers with a decimal comma"),
    ],
)
@pytest.mark.parametrize("separator", [",", ";"])
def test_times_and_numbers_as_people_write_them_are_set_in_their_order(cells, form, separator, tmp_path):
    order, said = _of_times(tmp_path, cells, separator)
    assert order == [2, 0, 1]
    assert f"by the column time of {tmp_path}/times.csv ({form})" in said


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (("abc", "abc"), "line 2, column time: found 'abc'. Expected one value for each part, all of one form: "),
        (("1", "nan", "2"), "line 3, column time: found 'nan' after numbers such as '1'. Expected one"),
        (("1", "2", "n/a"), "line 4, column time: found 'n/a' after numbers such as '2'. Expected one"),
        (("1", "inf"), "line 3, column time: found 'inf' after numbers"),
        (("1", "1_000"), "line 3, column time: found '1_000' after numbers"),
        (("1.5", "2,5"), "line 3, column time: found '2,5' after numbers such as '1.5'"),
        (("8:59", "1:00:05"), "line 3, column time: found '1:00:05' after times of day"),
        (("8:59", "25:00"), "line 3, column time: found '25:00' after times of day"),
        (("8:59", "25.10.2026 06:00"), "line 3, column time: found '25.10.2026 06:00' after times of day"),
        (("2026-10-25", "2026-10-25T06:00"), "line 3, column time: found '2026-10-25T06:00' after ISO 8601 dates"),
        (("2026-10-25T06:00", "2026-10-25"), "line 3, column time: found '2026-10-25' after ISO 8601 times"),
        (("2026-10-25T06:00", "2026-10-25T06:00Z"), "line 3, column time: found '2026-10-25T06:00Z' after"),
        (("10/11/2026", "11/11/2026"), "line 2, column time: found '10/11/2026'. Expected one"),
        (("25.10.26", "26.10.26"), "line 2, column time: found '25.10.26'. Expected one"),
        (("999", "1,250"), "line 3, column time: found '1,250' beside '999', which may be 1.250 or 1250"),
        (("8:59", "8:59", "8:59"), "line 2, column time: all 3 parts say '8:59', which is no order"),
        (("7", "7.0"), "line 2, column time: all 2 parts say '7', which is no order"),
    ],
)
def test_what_is_in_no_sure_order_is_refused_with_its_line(cells, words, tmp_path):
    with pytest.raises(UserError, match=re.escape(f"times.csv, {words}")):
        _of_times(tmp_path, cells)
    assert not (tmp_path / "out" / "drift.html").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_path_with_two_times_is_refused_however_it_is_written(there, tmp_path):
    name = str(tmp_path / "a.png") if there else "a.png"
    if there:
        (tmp_path / "a.png").touch()
    table = _write(tmp_path / "t.csv", [name], np.zeros((1, 5)))
    settings = DriftSettings(table=table, out=str(tmp_path / "out"), list=str(tmp_path / "times.csv"))
    (tmp_path / "times.csv").write_text("path,time\na.png,8:59\n./a.png,8:59\n")
    assert draw_drift(settings).names == [name]
    (tmp_path / "times.csv").write_text("path,time\na.png,8:59\nb.png,9:00\n./a.png,9:01\n")
    with pytest.raises(UserError, match=r"line 4: \./a\.png has '9:01' in the column time, and '8:59' in line 2. Keep"):
        draw_drift(settings)


def test_a_table_that_a_german_spreadsheet_saved_is_refused_for_its_commas(tmp_path):
    (tmp_path / "t.csv").write_text(f"path;verdict;{';'.join(drift.COLUMNS)}\na.png;good;-0,5;1,25;0;0;1\n")
    with pytest.raises(UserError, match=r"found -0,5; 1,25; 0; 0; 1. A spreadsheet has written decimal commas"):
        draw_drift(DriftSettings(table=str(tmp_path / "t.csv"), out=str(tmp_path / "out")))


@pytest.mark.parametrize("reference", [None, np.random.default_rng(0).normal(size=(100, 5))])
def test_of_fewer_parts_than_any_alarm_needs_nothing_is_said(reference):
    fewest = drift.fewest(reference)
    parts = np.arange(1.0, fewest + 1)[:, None] * 100 + np.zeros((1, 5))
    line = Line(reference)
    assert line.add(_rows(parts[:-1])) == []
    assert f"cannot be known of fewer than {fewest} parts ({fewest - 1} parts by" in line.summary()
    assert line.add(_rows(parts[-1:])) or Line(reference).add(_rows(-parts))
    quiet = Line(reference)
    quiet.add(_rows(np.random.default_rng(1).normal(size=(fewest, 5))))
    assert quiet.summary().startswith("No drift: ")


@pytest.mark.parametrize(
    ("moves", "verdict", "is_said"), [(4, "defective", True), (4, "good", False), (0, "defective", False)]
)
def test_defects_are_named_as_what_moves_score_and_distance_by_themselves(moved, moves, verdict, is_said):
    moved[200:, 3:] += moves
    line = Line(np.random.default_rng(1).normal(size=(100, 5)))
    line.add([*_rows(moved[:200]), *_rows(moved[200:], verdict)])
    assert ("100 of them were called defective, which alone moves distance and score" in line.summary()) == is_said
    assert "brightness -" in line.summary()


def _rows(parts, verdict="good"):
    return [{"path": "a.png", "verdict": verdict, **dict(zip(drift.COLUMNS, part, strict=True))} for part in parts]


def test_one_part_and_parts_all_alike_are_drawn(tmp_path):
    one = _write(tmp_path / "one.csv", ["a.png"], np.zeros((1, 5)))
    assert draw_drift(DriftSettings(table=one, out=str(tmp_path / "one"))).alarms == []
    page = (tmp_path / "one" / "drift.html").read_text()
    assert "(1 part by their order in the table" in page
    assert "That cannot be known of so few parts." in page
    assert not re.search("has not moved|Nothing has moved", page)
    alike = _write(tmp_path / "alike.csv", [f"{i}.png" for i in range(200)], np.ones((200, 5)))
    assert draw_drift(DriftSettings(table=alike, out=str(tmp_path / "alike"))).alarms == []
    assert (tmp_path / "alike" / "drift.html").is_file()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "either `table`"),
        ({"table": "t.csv", "folder": "f", "model": "m"}, "either `table`"),
        ({"folder": "f"}, "needs a `model`"),
        ({"table": "t.csv", "list": "l.csv", "order": "exif"}, "`order`"),
        ({"table": "t.csv", "column": "minute"}, "`column`"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        DriftSettings(out="out", **settings).check()


def test_a_folder_that_is_not_there_is_no_photograph(tmp_path):
    with pytest.raises(UserError, match="expected a folder of photographs"):
        draw_drift(DriftSettings(folder=str(tmp_path / "new"), model="any", out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
