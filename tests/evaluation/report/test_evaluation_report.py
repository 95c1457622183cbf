"""What a person reads: the answer in plain words, the figures behind it, and pictures that show it."""

import base64
import csv
import dataclasses
import html
import html.parser
import io
import json
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn_metrics

from mvtec_tf.errors import LeakError
from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.report import canvas, diagrams, summary
from mvtec_tf.evaluation.report import pictures as figures
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions, Row


def _rows(good, defective, split="evaluate", category="bottle"):
    return [
        Row(f"{category}/{split}/{label}/{i}.png", category, ("good", "crack")[label], label, split, float(score))
        for label, scores in enumerate((good, defective))
        for i, score in enumerate(scores)
    ]


def _table(good, defective, **kwargs):
    return Predictions.from_rows(_rows(good, defective, **kwargs))


def _calls(tn, fp, fn, tp):
    """A table of 0/1 scores with this confusion matrix at a threshold of 0.5."""
    return _table([0] * tn + [1] * fp, [0] * fn + [1] * tp)


def _sentences(predictions, threshold=None):
    return summary.sentences(assess(predictions, threshold))


def test_a_users_style_of_matplotlib_changes_no_picture():
    judged = assess(_calls(7, 2, 1, 5), 0.5, bootstrap=Bootstrap(20))
    box = diagrams.Box("data", "a title", ("a line",))
    drawn = []
    for style in ({}, {"axes.facecolor": "red", "font.size": 40, "xtick.major.size": 30, "text.usetex": True}):
        with matplotlib.rc_context(style):
            before = dict(matplotlib.rcParams)
            first = next(figures.pictures(judged)).png
            drawn.append((first, canvas.png(diagrams.draw([box]))))
            assert dict(matplotlib.rcParams) == before
    assert drawn[0] == drawn[1]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A judged table of three categories, one of them with good images only: (document, folder)."""
    rng = np.random.default_rng(0)
    rows = []
    for category, distance in (("bottle", 2.0), ("<screw> & 'co'", 1.0)):
        rows += _rows(rng.normal(size=30), rng.normal(distance, size=40), category=category)
        rows += _rows(rng.normal(size=10), rng.normal(distance, size=10), split="calibrate", category=category)
    rows += _rows(rng.normal(size=15), [], category="cable")
    out = tmp_path_factory.mktemp("judged") / "new" / "folder"
    document = judge(
        Predictions.from_rows(rows),
        out,
        title="A <script>alert(1)</script> title",
        notes=[("Photographs", "Taken on <line> 3.")],
        provenance={"versions": {"keras": "3.15"}, "seed": 0, "flags": ["--a=<b>"]},
    )
    return document, out


class _Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_a_model_that_calls_everything_defective_is_said_to_be_no_better_in_the_first_sentence():
    table = _rows([1.0] * 10, [1.0] * 40) + _rows([1.0] * 3, [1.0] * 3, split="calibrate")
    first = _sentences(Predictions.from_rows(table))[0]
    assert "this model is no better than calling every image defective" in first
    assert "it calls every image defective" in first


def test_a_high_f1_does_not_hide_that_nearly_every_good_image_is_stopped():
    # A published confusion matrix: an F1 of 84 % that calling everything defective gets as well.
    judged = assess(_calls(tn=5, fp=462, fn=8, tp=1250), 0.5)
    assert judged.overall.metrics["f1"].value == pytest.approx(0.8418, abs=5e-5)
    assert judged.overall.metrics["specificity"].value == pytest.approx(0.0107, abs=5e-5)
    first = summary.sentences(judged)[0]
    assert "no better than calling every image defective" in first
    assert "462 of 467 good images (98.9 %)" in first
    assert "F1 0.842 [0.839 to 0.844] against 0.843" in first
    last = summary.sentences(judged)[-1]
    assert "ROC-AUC is 0.502" in last
    assert "they are calls and no ranking" in last


# Published confusion matrices as (tn, fp, fn, tp) and their figures in per cent, to four digits.
_PUBLISHED = {
    (5, 462, 8, 1250): {
        **{"accuracy": 72.75, "precision": 73.01, "recall": 99.36, "f1": 84.18, "specificity": 1.071},
        **{"npv": 38.46, "fpr": 98.93, "fnr": 0.6359},
    },
    (596, 14, 43, 120): {
        **{"accuracy": 92.63, "precision": 89.55, "recall": 73.62, "f1": 80.81, "specificity": 97.70},
        **{"npv": 93.27, "fpr": 2.295, "fnr": 26.38},
    },
}


def test_the_report_of_the_published_matrices_says_first_which_model_is_no_better_and_which_is(tmp_path):
    first = {}
    for name, counts in zip(("SimCLR", "CNN"), _PUBLISHED, strict=True):
        table = _calls(**dict(zip(("tn", "fp", "fn", "tp"), counts, strict=True)))
        document = judge(table, tmp_path / name, 0.5, name, bootstrap=Bootstrap(100))
        page = (tmp_path / name / "report.html").read_text(encoding="utf-8")
        (box,) = re.findall('<section class="answer (\\w*)">(.*?)</section>', page)
        first[name] = (box[0], html.unescape(re.findall("<p>(.*?)</p>", box[1])[0]))
        assert len(re.findall("<p>", box[1])) == 3
        assert document["summary"].startswith(first[name][1])
        printed = {line.split()[0]: line.split()[1] for line in summary.text_table(document).splitlines()[1:]}
        for metric, percent in _PUBLISHED[counts].items():
            assert float(printed[metric]) == pytest.approx(percent / 100, abs=5.1e-5)
            assert f">{printed[metric]}<" in page
            assert re.fullmatch(r"\d\.\d{4}", printed[metric])
    kind, sentence = first["SimCLR"]
    assert kind == "no_better"
    assert sentence.startswith("At threshold 0.5 this model (SimCLR) is no better than calling every image defective")
    assert "462 of 467 good images (98.9 %)" in sentence
    kind, sentence = first["CNN"]
    assert kind == "better"
    assert "the model (CNN) missed 43 of 163 defective images (26.4 %," in sentence
    assert "falsely stopped 14 of 610 good images (2.3 %," in sentence


@pytest.mark.parametrize(("counts", "figures"), _PUBLISHED.items())
def test_published_confusion_matrices_give_their_published_figures_to_four_digits(counts, figures):
    judged = assess(_calls(**dict(zip(("tn", "fp", "fn", "tp"), counts, strict=True))), 0.5)
    for name, percent in figures.items():
        metric = judged.overall.metrics[name]
        assert float(f"{100 * metric.value:.4g}") == percent, name
        assert metric.low < metric.value < metric.high, name
    for name in ("roc_auc", "pr_auc"):
        assert "calls and no ranking" in judged.overall.metrics[name].note


def test_a_specificity_near_zero_is_no_better_even_if_its_f1_is_a_last_digit_higher():
    judged = assess(_calls(tn=40, fp=960, fn=0, tp=1000), 0.5)
    assert judged.overall.metrics["f1"].value > judged.overall.always_defective["f1"].value
    assert judged.overall.verdict == "no_better"


def test_a_model_that_calls_nothing_defective_is_no_better_either():
    assert "it calls no image defective" in _sentences(_calls(tn=10, fp=0, fn=10, tp=0), 0.5)[0]


def test_a_good_model_is_said_to_beat_calling_everything_defective_with_the_numbers_of_both():
    sentences = _sentences(_calls(tn=36, fp=4, fn=3, tp=38), 0.5)
    assert sentences[0].startswith(
        "At threshold 0.5 the model missed 3 of 41 defective images (7.3 %, 95 % interval 1.5 to 19.9 %) "
        "and falsely stopped 4 of 40 good images (10.0 %, 95 % interval "
    )
    assert sentences[1].startswith("It beats calling every image defective: balanced accuracy 0.913 [0.")
    assert "] against 0.500, F1 0.916 [" in sentences[1]
    assert sentences[2] == "That threshold was given, not chosen on calibrate rows."


@pytest.mark.parametrize("counts", [{"tn": 11, "fp": 1, "fn": 0, "tp": 9}, {"tn": 9, "fp": 0, "fn": 2, "tp": 60}])
def test_a_model_that_is_ahead_on_few_images_is_not_said_to_beat_anything_beyond_them(counts):
    judged = assess(_calls(**counts), 0.5)
    assert judged.overall.verdict == "better"
    text = " ".join(summary.sentences(judged))
    assert "It beats" not in text
    images, good, bad = (sum(counts[key] for key in keys) for keys in (counts, ("tn", "fp"), ("fn", "tp")))
    assert f"On these {images} images it beats calling every image defective" in text
    assert f"a single draw of {good} good and {bad} defective ones does not show it for others" in text


def test_one_probability_for_all_images_has_no_calibration_error_to_be_praised(tmp_path):
    labels = [0] * 30 + [1] * 10
    rows = [
        Row(f"a/{i}.png", "a", "x" if label else "good", label, "evaluate", float(i), probability=0.25)
        for i, label in enumerate(labels)
    ]
    document = judge(Predictions.from_rows(rows), tmp_path, 0.5)
    figure = document["overall"]["expected_calibration_error"]
    assert figure["value"] is None
    assert "every image has the same probability" in figure["reason"]
    assert document["overall"]["brier"]["value"] is not None
    page = (tmp_path / "report.html").read_text()
    assert "Reliability of the probability: no picture of all images, because every image has the same" in page
    assert "Calibration error" not in page


def test_a_careful_model_whose_f1_is_below_always_defective_is_not_called_useless():
    judged = assess(_calls(tn=95, fp=5, fn=120, tp=180), 0.5)
    assert judged.overall.verdict == "mixed"
    assert any("does not beat its F1" in sentence for sentence in summary.sentences(judged))


def test_a_threshold_that_was_chosen_says_on_how_many_images():
    table = _rows([0, 1], [2, 3]) + _rows([0] * 4, [1] * 3, split="calibrate")
    assert any("7 calibrate images, 3 of them defective" in text for text in _sentences(Predictions.from_rows(table)))


def test_without_calibrate_rows_figures_that_need_a_threshold_are_missing_with_the_reason(tmp_path):
    document = judge(_table([0.1, 0.2], [0.8, 0.9]), tmp_path)
    assert document["threshold"]["value"] is None
    assert document["confusion"]["overall"] is None
    for name in metrics.AT_THRESHOLD:
        assert document["overall"][name]["value"] is None
        assert "no calibrate rows" in document["overall"][name]["reason"]
    assert document["overall"]["roc_auc"]["value"] == 1.0
    assert document["trivial"]["always_defective"]["overall"]["f1"]["value"] == pytest.approx(2 / 3)
    assert document["summary"].startswith("There is no threshold")
    assert not (tmp_path / "figures" / "confusion_matrix.png").exists()
    assert "no picture of all images, because there is no threshold" in (tmp_path / "report.html").read_text()


def test_a_category_without_evaluate_rows_is_named_as_not_judged():
    table = _rows([0, 1], [2, 3]) + _rows([0], [1], split="calibrate", category="screw")
    judged = assess(Predictions.from_rows(table))
    assert judged.as_json()["not_judged"] == ["screw"]
    assert set(judged.categories) == {"bottle"}
    assert "Not judged, for want of evaluate rows: 1 of the categories (screw)." in summary.sentences(judged)


def test_scores_that_are_turned_round_are_remarked():
    assert "turned round?" in _sentences(_table([0.9, 0.8], [0.1, 0.2]), 0.5)[-1]


def test_a_category_without_skill_is_named_although_the_whole_looks_good():
    table = _rows([0] * 50, [1] * 50) + _rows([1] * 5, [1] * 5, category="screw")
    sentences = _sentences(Predictions.from_rows(table), 0.5)
    assert "In 1 of 2 categories (screw) it is no better than that." in sentences


@pytest.mark.parametrize(("good", "defective", "missing"), [([0, 1], [], "miss"), ([], [0, 1], "falsely stop")])
def test_with_one_class_only_the_summary_says_what_stays_unknown(good, defective, missing):
    assert re.search(rf"how many it would {missing} is unknown", _sentences(_table(good, defective), 0.5)[0])


def test_metrics_json_has_its_stable_form(three):
    document, out = three
    assert json.loads((out / "metrics.json").read_text()) == document
    blocks = {"overall", "categories", "mean_over_categories", "trivial"}
    assert set(document) >= blocks | {"threshold", "counts", "summary"}
    trivial = document["trivial"]["always_defective"]
    for block in (document, trivial):
        assert set(block["categories"]) == {"bottle", "<screw> & 'co'", "cable"}
        for found in (block["overall"], block["mean_over_categories"], *block["categories"].values()):
            assert set(found) == set(metrics.NAMES)
            for metric in found.values():
                assert {"value", "low", "high"} <= set(metric)
                assert (metric["value"] is None) == ("reason" in metric)
    assert document["threshold"]["method"] == "youden"
    assert document["counts"]["evaluate"] == {"images": 155, "defective": 80, "good": 75}
    assert document["counts"]["fit"]["images"] == 0


def test_metrics_csv_has_the_figures_of_metrics_json_one_a_row(three):
    document, out = three
    with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    blocks = {("overall", ""): document["overall"], ("mean_over_categories", ""): document["mean_over_categories"]}
    blocks |= {("category", name): found for name, found in document["categories"].items()}
    figures = [row for row in rows if row["scope"] != "defect"]
    assert len(figures) == len(blocks) * len(metrics.NAMES)
    for row in figures:
        metric = blocks[row["scope"], row["category"]][row["metric"]]
        for side in ("value", "low", "high"):
            assert row[side] == ("" if metric[side] is None else repr(metric[side]))
        assert row["note"] == metric.get("reason", metric.get("note", ""))
    (idle,) = (row["always_defective"] for row in rows if (row["scope"], row["metric"]) == ("overall", "f1"))
    assert float(idle) == document["trivial"]["always_defective"]["overall"]["f1"]["value"]
    defects = {(row["category"], row["defect"]): float(row["value"]) for row in rows if row["scope"] == "defect"}
    assert defects["bottle", "crack"] == document["defects"]["bottle"]["crack"]["recall"]["value"]
    assert set(defects) == {("bottle", "crack"), ("<screw> & 'co'", "crack")}


def test_the_mean_over_categories_is_that_of_the_categories_that_have_the_metric(three):
    document, _ = three
    each = {category: found["roc_auc"]["value"] for category, found in document["categories"].items()}
    assert each.pop("cable") is None
    values = list(each.values())
    assert document["mean_over_categories"]["roc_auc"]["value"] == pytest.approx(np.mean(values))
    assert "cable" in document["mean_over_categories"]["roc_auc"]["note"]


def test_fit_and_calibrate_rows_do_not_change_the_figures():
    evaluated = _rows([0, 1, 2], [1, 2, 3])
    others = _rows([9, 9], [-9, -9], split="fit") + _rows([5, 7], [-5, -7], split="calibrate")
    alone = assess(Predictions.from_rows(evaluated), 1.5).as_json()
    among = assess(Predictions.from_rows(evaluated + others), 1.5).as_json()
    # How many rows there are, and whether the good ones are alike, is of the other rows too.
    for name in ("counts", "shift"):
        assert alone.pop(name) != among.pop(name)
    assert alone == among


def test_a_leak_stops_the_judgement_before_anything_is_written(tmp_path):
    rows = [*_rows([0], [1]), Row("bottle/evaluate/1/0.png", "bottle", "crack", 1, "fit", 1.0)]
    with pytest.raises(LeakError, match=r"bottle/evaluate/1/0\.png"):
        judge(Predictions.from_rows(rows), tmp_path / "out", title="run 7")
    assert not (tmp_path / "out").exists()


def test_the_report_is_one_file_that_needs_nothing_else(three):
    _, out = three
    text = (out / "report.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert not re.search(r"https?:|@import|url\(", text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    embedded = {base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True) for source in sources}
    assert embedded == {path.read_bytes() for path in (out / "figures").iterdir()}


def test_every_picture_has_a_description_and_a_caption(three):
    _, out = three
    page = _Page((out / "report.html").read_text(encoding="utf-8"))
    descriptions = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert len(descriptions) == len([tag for tag, _ in page.tags if tag == "figcaption"]) == 17
    assert all(len(text) > 30 for text in descriptions)


def test_what_comes_from_the_data_and_the_caller_is_escaped(three):
    _, out = three
    text = (out / "report.html").read_text(encoding="utf-8")
    words = "".join(_Page(text).words)
    for raw in ("A <script>alert(1)</script> title", "<screw> & 'co'", "Taken on <line> 3.", "--a=<b>", "keras: 3.15"):
        assert raw in words
    assert "<script>" not in text


def test_the_report_begins_with_the_summary(three):
    document, out = three
    words = "".join(_Page((out / "report.html").read_text(encoding="utf-8")).words)
    positions = [words.index(sentence) for sentence in document["summary"].split(". ")]
    assert positions == sorted(positions)
    assert positions[-1] < words.index("Beside each figure")


def test_the_same_table_gives_the_same_bytes(tmp_path):
    table = _table(np.linspace(0, 1, 20), np.linspace(0.5, 1.5, 30))
    for name in ("a", "b"):
        judge(table, tmp_path / name, threshold=0.7)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_pictures_of_an_earlier_judgement_do_not_stay_and_other_files_do(tmp_path):
    judge(Predictions.from_rows(_rows([0, 1], [1, 2]) + _rows([0], [1], category="screw")), tmp_path, 0.5)
    assert (tmp_path / "figures" / "roc_02_screw.png").exists()
    (tmp_path / "figures" / "roc_of_mine.png").write_bytes(b"mine")
    judge(_table([0, 1], [1, 2]), tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"roc.png", "precision_recall.png", "score_histogram.png", "roc_of_mine.png"}


def test_pictures_are_not_blank_and_large_enough_to_read(fine_pictures):
    rows = [
        dataclasses.replace(row, probability=min(row.score / 3, 1))
        for category in ("bottle", "screw")
        for row in _rows([0, 1, 2], [1, 2, 3], category=category)
    ]
    drawn = {picture.kind: picture for picture in figures.pictures(assess(Predictions.from_rows(rows), 1.5))}
    assert set(drawn) == set(figures.KINDS)
    for picture in drawn.values():
        pixels = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))
        assert min(pixels.shape[:2]) >= 400
        assert (pixels[0, 0] == 255).all()
        assert 0.005 < (pixels < 200).any(axis=-1).mean() < 0.9


def test_categories_whose_names_look_alike_get_files_of_their_own(monkeypatch):
    monkeypatch.setattr(canvas, "png", lambda figure: b"")  # only the names are looked at here
    rows = [row for name in ("a b", "a/b", "ä", "../..") for row in _rows([0, 1], [1, 2], category=name)]
    names = [picture.file_name for picture in figures.pictures(assess(Predictions.from_rows(rows), 1.5))]
    assert len(set(names)) == len(names) == 25
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names)


def _line(kind, judged, label):
    figure, _ = figures.KINDS[kind].draw(judged.overall)
    return next(line.get_xydata() for line in figure.axes[0].get_lines() if line.get_label() == label)


def test_the_curves_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], (40, 60))
    scores = np.round(rng.normal(labels), 1)
    judged = assess(_table(scores[:40], scores[40:]), 0.5)
    x, y, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(_line("roc", judged, "model"), np.stack([x, y], 1), atol=1e-12)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    expected = np.stack([recall, precision], 1)[::-1]
    np.testing.assert_allclose(_line("precision_recall", judged, "model")[1:], expected[1:], atol=1e-12)
    calls = judged.overall.metrics
    np.testing.assert_allclose(_line("roc", judged, "at threshold"), [[calls["fpr"].value, calls["recall"].value]])
    np.testing.assert_allclose(_line("precision_recall", judged, "always defective")[:, 1], 0.6)


def test_of_very_many_categories_the_first_are_drawn_and_that_is_said():
    rows = [row for i in range(26) for row in _rows([0], [1], category=f"part {i:02d}")]
    sentences = figures.missing(assess(Predictions.from_rows(rows), 0.5))
    assert any("first 24 of 26 categories" in text for text in sentences)


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [([5.0] * 4, 5.0), ([5.0] * 4, -1e30), ([-3e38, 0, 1e-300, 3e38], 0.0), ([1e-300, 2e-300, 3e-300, 4e-300], 1e30)],
)
@pytest.mark.filterwarnings("error")
def test_extreme_scores_and_thresholds_can_be_drawn(scores, threshold):
    judged = assess(_table(scores[:2], scores[2:]), threshold)
    assert len(list(figures.pictures(judged))) == 5


def test_a_text_table_says_why_a_dash_stands_in_it_and_what_to_do(tmp_path):
    table = _table([0.1, 0.2, 0.3], [0.4, 0.9, 0.8])
    document = judge(table, tmp_path, None, "without calibrate rows", bootstrap=Bootstrap(0))
    lines = summary.text_table(document).splitlines()
    assert re.fullmatch(r"f1 +- +0\.6667", lines[4])
    why = "no threshold: there are no calibrate rows to choose a threshold on"
    way = "Add rows with the split 'calibrate', or name a threshold."
    assert lines[-1] == f"-: there is no such figure: {why}. {way}"


def test_the_text_table_has_every_metric_beside_always_defective(three):
    document, _ = three
    lines = summary.text_table(document).splitlines()
    # No image has a probability here, so there are no lines for what is made of it.
    assert [line.split()[0] for line in lines[1:]] == [n for n in metrics.NAMES if n not in metrics.OF_PROBABILITY]
    assert lines[0].split("  ")[-1] == "always defective"
    for line in lines[1:]:
        assert re.fullmatch(r"\w+ +(\d\.\d+ \[\d\.\d+ to \d\.\d+\] +[\d.-]+ *){2}", line), line
