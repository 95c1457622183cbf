"""What a report shows beside its table: the worst mistakes, heat maps and photographs, within 8 MB."""

import base64
import dataclasses
import html
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.evaluation import image_files
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.localisation import heatmaps, pixel_section
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.report import gallery, page, photographs
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.judge import Extras, judge, judge_again, predictions_of
from mvtec_tf.evaluation.report.page import Pictures, Section
from mvtec_tf.evaluation.table import Predictions, Row, write_predictions
from mvtec_tf.evaluation.thresholds import Rule
from mvtec_tf.files import replacing
from mvtec_tf.jobs.judge import heat_maps
from tests.conftest import run_binary


def _picture(index, size):
    return Picture("kind", "", f"kind_{index:02d}_x.jpg", bytes(size), f"picture {index}", f"caption {index}")


def _section(sizes, title="A title"):
    shown = [_picture(i, size) for i, size in enumerate(sizes)]
    return Section(title, ["lead", Section("group", ["reading", Pictures(shown)])], spare=True)


def test_pictures_without_room_are_left_out_from_the_end_and_that_is_said():
    one = _section([30_000] * 5)
    words = len(page.html("title", [], [Section("A title")]))
    text = page.html("title", [], [one], most=words + 3 * len(one.pictures[0].base64) + 5_000)
    assert "caption 2" in text
    assert "caption 3" not in text
    assert "2 pictures of this section are left out here" in text
    whole = page.html("title", [], [one])
    assert "caption 4" in whole
    assert "left out" not in whole


def test_words_are_never_left_out_and_a_later_section_gets_no_room_that_an_earlier_one_lacked():
    later = Section("Another title", ["lead", Pictures([_picture(9, 10)])], spare=True)
    text = page.html("title", [], [_section([30_000] * 5), later], most=1)
    assert text.count("lead") == 2
    assert "<img" not in text
    assert "Another title" in text


def test_a_report_with_far_too_many_photographs_stays_below_8_megabytes(
    tmp_path, toy_records, monkeypatch, fine_pictures
):
    noise = np.random.default_rng(0).integers(0, 255, (800, 900, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=95)
    assert len(buffer.getvalue()) > 500_000
    monkeypatch.setattr(photographs, "panes", lambda *_: buffer.getvalue())
    table = _evaluate(toy_records)
    files = image_files.from_records(toy_records, table, "toy")
    judge(_turned_round(table), tmp_path, 0.5, extras=Extras(files), bootstrap=Bootstrap(0))
    text = (tmp_path / "report.html").read_bytes()
    assert 7_000_000 < len(text) <= 8_000_000
    assert b"are left out here" in text
    # They are not lost.
    assert len(list((tmp_path / "figures").glob("mistake_*.jpg"))) == 2 * gallery.MOST


@pytest.mark.parametrize("name", ["x" * 251, "\u00e4" * 125, "a/" * 20 + "b" * 251])
def test_a_mistake_on_a_photograph_with_the_longest_name_is_shown_all_the_same(name, tmp_path):
    path, place = f"cap/{name}.png", tmp_path / "cap" / f"{name}.png"
    place.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(place)
    rows = [Row(path, "cap", "good", 0, "evaluate", 1.0), Row("b", "cap", "chip", 1, "evaluate", 0.9)]
    table = Predictions.from_rows(rows)
    files = {path: image_files.ImageFiles(str(place)), "b": image_files.ImageFiles()}
    judge(table, tmp_path / "out", 0.5, extras=Extras(files), bootstrap=Bootstrap(0))
    (picture,) = (tmp_path / "out" / "figures").glob("mistake_*.jpg")
    assert len(picture.name) < 200


def test_the_longest_name_can_be_written_in_one_step(tmp_path):
    for suffix in (".png", ".npy", ".weights.h5"):
        for letter in ("x", "\u00e4"):
            name = letter * ((255 - len(suffix)) // len(letter.encode())) + suffix
            with replacing(tmp_path / name) as temporary:
                assert temporary.name.endswith(suffix)
                temporary.write_text("whole")
            assert (tmp_path / name).read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 6


def _evaluate(records, score=lambda record: float(record.label)):
    test = [record for record in records if record.split == "test"]
    rows = [Row(one.path, one.category, one.defect, one.label, "evaluate", score(one)) for one in test]
    return Predictions.from_rows(rows)


def _turned_round(table):
    table.score[:] = 1 - table.label + np.arange(len(table)) / 1000
    return table


def _mistakes():
    """Scores against a threshold of 0: two misses, three false alarms."""
    found = [("a", 1, -0.5), ("b", 1, -2), ("c", 1, 3), ("d", 0, 1), ("e", 0, 4), ("f", 0, 2), ("g", 0, -9)]
    return Predictions.from_rows(
        Row(f"{name}.png", "bottle", "crack" if label else "good", label, "evaluate", score)
        for name, label, score in found
    )


def test_the_most_confident_mistakes_come_first_by_their_distance_from_the_threshold():
    table = _mistakes()
    one = gallery.section(assess(table, 0.0), table, {}, ())
    assert [found["path"] for found in one.document["misses"]["most_confident"]] == ["b.png", "a.png"]
    assert [found["path"] for found in one.document["false_alarms"]["most_confident"]] == ["e.png", "f.png", "d.png"]
    assert one.document["false_alarms"]["count"] == 3
    assert one.document["misses"]["most_confident"][0] == {
        **{"path": "b.png", "category": "bottle", "defect": "crack", "score": -2.0, "threshold": 0.0}
    }
    text = page.html("title", [], [one])
    assert text.index("b.png") < text.index("a.png") < text.index("e.png")


def test_mistakes_are_measured_from_each_categorys_own_threshold():
    rows = []
    for category, base in (("bottle", 0.0), ("screw", 100.0)):
        for split in ("calibrate", "evaluate"):
            rows += [Row(f"{category}/{split}/g{i}", category, "good", 0, split, base - 1) for i in range(4)]
            rows += [Row(f"{category}/{split}/d{i}", category, "crack", 1, split, base + 1) for i in range(4)]
    rows.append(Row("bottle/far", "bottle", "crack", 1, "evaluate", -3.0))
    rows.append(Row("screw/near", "screw", "crack", 1, "evaluate", 99.0))
    predictions = Predictions.from_rows(rows)
    judged = assess(predictions, rule=Rule(per="category"))
    found = gallery.section(judged, predictions.part("evaluate"), {}, ()).document["misses"]["most_confident"]
    assert [one["path"] for one in found] == ["bottle/far", "screw/near"]


def test_without_mistakes_or_a_threshold_the_gallery_says_so():
    table = _mistakes()
    assert "called rightly" in gallery.section(assess(table.select([2, 6]), 0.0), table.select([2, 6]), {}, ()).notes[0]
    assert "None can be named, because" in gallery.section(assess(table), table, {}, ()).notes[0]


@pytest.fixture(scope="module")
def shown(toy_records, tmp_path_factory):
    """A judged table with images, masks and two folders of heat maps: (folder, document, table)."""
    out = tmp_path_factory.mktemp("shown")
    table = _evaluate(toy_records, lambda record: record.label + 1.5 * (sum(map(ord, record.path)) % 7) / 7)
    files = image_files.from_records(toy_records, table, "toy")
    rng = np.random.default_rng(0)
    for path in table.path:
        heatmaps.write(out / "a", path, rng.random((8, 8)))
        mask = image_files.read_mask(files[path]) if files[path].mask else np.zeros((64, 64))
        heatmaps.write(out / "b", path, mask)
    maps = tuple(HeatMaps(out / name, name) for name in "ab")
    write_predictions(out / "predictions.csv", table)
    asked = {"costs": Costs(3, 1), "bootstrap": Bootstrap(50, 3), "extras": Extras(files, maps)}
    document = judge(table, out, 1.2, "T", [("N", "O")], **asked)
    return out, document, table


def test_heat_maps_are_judged_and_shown_with_masks(shown):
    out, document, _ = shown
    assert set(document["pixels"]) == {"a", "b"}
    assert document["pixels"]["b"]["overall"]["pointing_game"]["value"] == 1
    assert document["pixels"]["a"]["overall"]["pixel_auroc"]["value"] == pytest.approx(0.5, abs=0.1)
    assert "oftener than chance" in document["pixels"]["b"]["summary"]
    text = html.unescape((out / "report.html").read_text())
    for words in ("Where the heat maps point", "a map that says nothing", "b, by category", "outlined in pink"):
        assert words in text
    assert "of another size than" not in text


def test_without_a_mask_nothing_is_said_of_its_outline(shown, toy_records):
    _, _, table = shown
    files = image_files.from_records([dataclasses.replace(one, mask="") for one in toy_records], table, "toy")
    made = gallery.section(assess(table, 1.2, bootstrap=Bootstrap(0)), table.part("evaluate"), files, ())
    assert made.pictures
    assert not [block.blocks[0] for block in made.blocks[1:] if "pink" in block.blocks[0]]


def test_names_of_settings_are_set_as_code_and_the_rest_is_escaped():
    text = page.html("T", ["Give it as `data_dir`, <b>."], [Section("S", ["See `out`."], ["No `tsne`."])])
    expected = ("<code>data_dir</code>, &lt;b&gt;.", "<p>See <code>out</code>.</p>", "<li>No <code>tsne</code>.</li>")
    for words in expected:
        assert words in text


def test_every_photograph_of_the_report_is_a_jpeg_in_the_folder_of_figures(shown):
    out, _, _ = shown
    text = (out / "report.html").read_text()
    embedded = [base64.b64decode(data) for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", text)]
    files = {path.read_bytes() for path in (out / "figures").glob("*.jpg")}
    assert len(embedded) > 10
    assert set(embedded) == files
    widths = {Image.open(io.BytesIO(content)).size[0] for content in files}
    # One photograph and two maps of 64 pixels in the examples; one map beside each mistake.
    assert widths == {3 * 64 + 2 * 6, 2 * 64 + 6}


def test_judging_again_with_nothing_more_to_show_gives_the_same_figures_and_no_photographs(shown, tmp_path):
    out, document, _ = shown
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    again_document = judge_again(copy, Extras(), "unused")
    assert {k: v for k, v in document.items() if k != "pixels"} == again_document
    assert not list((copy / "figures").glob("*.jpg"))
    assert "<h1>T</h1>" in (copy / "report.html").read_text()


def test_a_judgement_of_an_older_version_is_repeated_by_what_it_says(shown, tmp_path):
    _, document, table = shown
    write_predictions(tmp_path / "predictions.csv", table)
    (tmp_path / "metrics.json").write_text(json.dumps({k: v for k, v in document.items() if k != "asked"}))
    again_document = judge_again(tmp_path, Extras(), "A title")
    assert again_document["overall"] == document["overall"]
    assert again_document["asked"]["title"] == "A title"


def test_a_folder_without_a_judgement_is_refused(tmp_path):
    with pytest.raises(UserError, match="not judged yet"):
        judge_again(tmp_path, Extras(), "A title")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        predictions_of(tmp_path)


def test_examples_are_spread_over_defects_and_scores_and_do_not_depend_on_the_order_of_rows():
    rows = [Row(f"{d}{i}.png", "bottle", d, 1, "evaluate", float(i)) for d in ("crack", "dent") for i in range(9)]
    table = Predictions.from_rows(rows)
    chosen = {table.path[row] for row in pixel_section.spread(table, np.arange(18), 6)}
    assert chosen == {"crack0.png", "crack4.png", "crack8.png", "dent0.png", "dent4.png", "dent8.png"}
    shuffled = Predictions.from_rows(rows[::-1])
    assert {shuffled.path[row] for row in pixel_section.spread(shuffled, np.arange(18), 6)} == chosen
    assert len(pixel_section.spread(table, np.arange(18), 1)) == 1
    assert pixel_section.spread(table, np.arange(0), 6) == []


def test_the_hottest_place_is_coloured_and_the_coldest_shows_the_photograph():
    image = Image.new("RGB", (40, 40), (120, 120, 120))
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 5
    pixels = np.asarray(photographs.heated(image, heat)).astype(int)
    assert (pixels[30:, 30:] == 120).all()
    assert np.ptp(pixels[0, 0]) > 100
    assert (np.asarray(photographs.heated(image, np.full((4, 4), 3, np.float32))) == 120).all()


def test_the_outline_lies_around_the_mask_and_not_on_it():
    mask = np.zeros((80, 80), bool)
    mask[30:50, 30:50] = True
    pixels = np.asarray(photographs.outlined(Image.new("RGB", (80, 80), "white"), mask, 2))
    marked = (pixels == (255, 0, 200)).all(-1)
    assert marked.sum() > 100
    assert not (marked & mask).any()


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"x\.png"):
        photographs.panes("x.png", ImageFiles(str(tmp_path / "x.png")), ())


def test_heat_maps_may_be_named_and_two_of_one_name_are_refused(tmp_path):
    for name in ("a", "b=c"):
        (tmp_path / name).mkdir()
    found = heat_maps([f"Mine={tmp_path / 'a'}", str(tmp_path / "a"), str(tmp_path / "b=c")])
    assert [maps.name for maps in found] == ["Mine", "a", "b=c"]
    with pytest.raises(UsageError, match="called 'a'"):
        heat_maps([str(tmp_path / "a"), f"a={tmp_path / 'a'}"])


def test_evaluate_measures_heat_maps_of_any_model_against_masks(shown, toy, tmp_path):
    out, document, _ = shown
    common = (f"--predictions={out / 'predictions.csv'}", "--threshold=1.2", "--resamples=50", "--seed=3")
    given = (*common, f"--out={tmp_path / 'out'}", f"--data_dir={toy}", f"--heatmaps=b={out / 'b'}")
    run_binary("evaluate", *given)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["pixels"]["b"] == document["pixels"]["b"]
    wrong = run_binary("evaluate", *common, f"--out={tmp_path / 'no'}", f"--heatmaps={out / 'b'}", check=False)
    assert wrong.returncode == 2
    assert "--data_dir, or --masks" in wrong.stderr
    (out / "a" / f"{next(iter(_paths(out)))}.npy").rename(tmp_path / "away.npy")
    missing = run_binary(
        "evaluate", *common, f"--out={tmp_path / 'no'}", f"--data_dir={toy}", f"--heatmaps={out / 'a'}", check=False
    )
    assert missing.returncode == 1
    assert "no heat map of 1 of the" in missing.stderr
    assert not (tmp_path / "no").exists()


def _paths(out):
    return [line.split(",")[0] for line in (out / "predictions.csv").read_text().splitlines()[1:]]
