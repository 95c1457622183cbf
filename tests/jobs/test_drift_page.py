"""Drift drawn over time: parts in the order that is asked for, what has moved since when, and clear words otherwise."""

import csv

import numpy as np
import pytest
from PIL import ExifTags, Image

from mvtec_tf import drift
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.jobs.drift import draw_drift
from mvtec_tf.jobs.settings import DriftSettings


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


def test_one_part_and_parts_all_alike_are_drawn(tmp_path):
    one = _write(tmp_path / "one.csv", ["a.png"], np.zeros((1, 5)))
    assert draw_drift(DriftSettings(table=one, out=str(tmp_path / "one"))).alarms == []
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
