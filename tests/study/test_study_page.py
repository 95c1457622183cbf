"""The page of methodology and findings answers from the runs' records, and says so where they cannot answer."""

import csv
import dataclasses
import html
import json

import numpy as np
import pytest

from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.comparison.compare import ALL
from mvtec_tf.evaluation.comparison.contenders import read_methods
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.table import Predictions, Row, write_predictions
from mvtec_tf.study import report as study_report
from mvtec_tf.study.answers import MARK_F1
from mvtec_tf.study.report import study

DATA = {"images": 500, "categories": ["bottle", "screw"], "fingerprint": "f" * 64}
COMMON = {"protocol": "clean", "seed": 0, "image_size": 224}
CNN = {
    "binary": "train_cnn",
    "labels_used": 120,
    "settings": COMMON | {"backbone": "resnet50", "label_budget": "all", "batch_size": 64, "augment_hue": 0.1},
}
ENCODER = {
    "image_size": 224,
    "layers": ["conv3", "conv4"],
    "pretrain_images": 300,
    "settings": {"backbone": "resnet50", "epochs": 7},
}
PROBE = {
    "binary": "fit_probe",
    "labels_used": 24,
    "encoder": ENCODER,
    "settings": COMMON | {"head": "logistic", "label_budget": "0.1", "encoder": "results/simclr"},
}
STARTING = PROBE | {"encoder": ENCODER | {"pretrain_images": 0}, "settings": PROBE["settings"] | {"encoder": None}}
BASELINE = {
    "binary": "fit_baseline",
    "labels_used": 120,
    "settings": COMMON | {"features": "mean_brightness", "label_budget": "all"},
}


def _rows(seed, distance, defective=0.75, count=80, first=0):
    rng, rows = np.random.default_rng(seed), []
    for split, total in (("evaluate", count), ("calibrate", 40)):
        for i in range(first, first + total):
            label = int(i % 20 < 20 * defective)
            score = float(rng.normal(distance * label))
            rows.append(Row(f"{split}/{i}.png", ("bottle", "screw")[i % 2], ("good", "x")[label], label, split, score))
    return rows


def _run(path, record, seed=0, distance=2.0, allow_leak=False, table=None, **kwargs):
    """NAME=PATH of a finished run."""
    path.mkdir(parents=True)
    table = table or Predictions.from_rows(_rows(seed, distance, **kwargs))
    write_predictions(path / "predictions.csv", table, allow_leak)
    document = assess(table, bootstrap=Bootstrap(0), allow_leak=allow_leak).as_json()
    (path / "metrics.json").write_text(json.dumps(document))
    (path / "run.json").write_text(json.dumps({"data": DATA} | record))
    return f"{path.name}={path}"


def _studied(texts, resamples=100):
    return study(read_methods(texts), bootstrap=Bootstrap(resamples))


def test_the_supervised_network_is_what_the_others_are_measured_against_wherever_it_stands(tmp_path):
    found = _studied([_run(tmp_path / "probe", PROBE, 1), _run(tmp_path / "cnn", CNN, 2)])
    assert [each.method.name for each in found.compared.standings] == ["cnn", "probe"]
    difference = found.compared.standings[1].differences[ALL]["f1"]
    finding = next(each for each in found.answers[1].findings if each.metric == "f1")
    assert (finding.method, finding.against, finding.figure) == ("probe", "cnn", difference)


def test_another_head_on_the_encoder_says_nothing_of_what_pretraining_was_worth(tmp_path):
    patches = PROBE | {"settings": PROBE["settings"] | {"head": "patchcore"}}
    texts = [
        _run(tmp_path / "probe", PROBE, 2),
        _run(tmp_path / "patches", patches, 4, 0.0),
        _run(tmp_path / "starting", STARTING, 3),
    ]
    said = [text for text in _studied(texts).answers[0].text if text.startswith("Beside starting")]
    assert len(said) == 1
    assert "ROC-AUC of probe differs" in said[0]


def test_each_question_is_answered_with_figures_and_intervals(tmp_path):
    more = PROBE | {"labels_used": 60, "settings": PROBE["settings"] | {"label_budget": "0.25"}}
    texts = [
        _run(tmp_path / "cnn", CNN, 1, 6.0),
        _run(tmp_path / "probe", PROBE, 2, 1.0),
        _run(tmp_path / "starting", STARTING, 3, 6.0),
        _run(tmp_path / "more", more, 4, 6.0),
    ]
    found = _studied(texts)
    how_well, beside, which = found.answers
    probe = found.compared.standings[1]
    recall = probe.figures[ALL]["recall"]
    words = f"probe (24 labels) finds {100 * recall.value:.1f} % ({100 * recall.low:.1f} to {100 * recall.high:.1f} %)"
    assert how_well.text[0].startswith(words)
    assert not any("more (60 labels) finds" in text for text in how_well.text)  # 25 % are not few labels
    assert "Beside starting, whose encoder was not pretrained on these images" in how_well.text[1]
    assert "pretraining did harm" in how_well.text[1]
    assert ": cnn is better" in beside.text[0]
    assert beside.text[0].startswith("On the same images probe (24 labels) has a balanced accuracy of ")
    assert which.text[0].startswith("From 24 labels (probe) to 60 (more) balanced accuracy changes by +0.")
    assert "more labels help" in which.text[0]
    assert "several seeds" in which.text[1]
    for answer in found.answers:
        assert all(each.figure.low is not None for each in answer.findings if each.figure.value is not None)


def test_several_seeds_say_how_much_it_matters_which_images_are_labelled(tmp_path):
    runs = [_run(tmp_path / str(seed) / "probe", PROBE, seed).partition("=")[2] for seed in range(3)]
    cnns = [_run(tmp_path / str(seed) / "cnn", CNN, 10 + seed).partition("=")[2] for seed in range(3)]
    found = _studied([f"cnn={'+'.join(cnns)}", f"probe={'+'.join(runs)}"])
    spread = found.compared.standings[1].deviations[ALL]["balanced_accuracy"]
    assert any(f"of probe has a standard deviation of {spread:.3f}" in text for text in found.answers[2].text)
    assert not any("One run each" in text for text in found.limits)


def test_what_the_runs_cannot_answer_is_said_to_be_missing(tmp_path):
    found = _studied([_run(tmp_path / "a", STARTING, 1), _run(tmp_path / "b", BASELINE, 2)])
    texts = [" ".join(answer.text) for answer in found.answers]
    assert "runs of mvtec-tf fit with an `encoder` and a `label_budget` of at most 0.1 are missing" in texts[0]
    assert "runs of mvtec-tf train-cnn are missing" in texts[1]
    assert "runs of one method with different `label_budget` are missing" in texts[2]
    assert "cannot be told" in found.mark[0]
    alone = _studied([_run(tmp_path / "c", CNN, 1), _run(tmp_path / "d", BASELINE, 2)])
    assert "self-supervised runs with at most 10 % of the labels are missing" in alone.answers[1].text[0]


@pytest.mark.parametrize(
    ("defective", "distance", "verdict", "always_meets"),
    [(0.75, 9.0, "met", True), (0.75, -3.0, "missed", True), (0.3, 9.0, "met", False), (0.3, 0.0, "missed", False)],
)
def test_whether_the_mark_is_met_is_said_beside_whether_calling_everything_defective_meets_it(
    tmp_path, defective, distance, verdict, always_meets
):
    table = Predictions.from_rows(
        [row for row in _rows(5, distance, defective) if not (distance < 0 and row.split == "calibrate")]
    )
    if distance < 0:  # turned round, and a threshold chosen on images that were not
        good = [row for row in _rows(6, 9.0, defective) if row.split == "calibrate"]
        table = Predictions.from_rows([*table.rows(), *good])
    cnn = _run(tmp_path / "cnn", CNN, 2, defective=defective)
    found = _studied([_run(tmp_path / "probe", PROBE, table=table), cnn])
    (mark,) = found.marks
    assert mark.verdict == verdict
    assert (mark.f1.value >= MARK_F1) == (verdict == "met")
    document = found.as_json()["mark"]
    assert document["always_defective_meets_it"] is always_meets
    share = 2 * defective / (1 + defective)
    assert document["always_defective_f1"] == pytest.approx(share)
    assert (f"Calling every image defective meets it too: its F1 is {share:.3f}" in document["answer"]) == always_meets
    assert ("does not meet it here" in document["answer"]) != always_meets


def test_a_mark_that_lies_within_the_interval_is_not_surely_met(tmp_path):
    found = _studied([_run(tmp_path / "probe", PROBE, 3, 1.3, count=40), _run(tmp_path / "cnn", CNN, 2, count=40)], 200)
    (mark,) = found.marks
    assert mark.f1.low < MARK_F1 < mark.f1.high
    assert mark.verdict == ("met, but not surely" if mark.f1.value >= MARK_F1 else "missed, but not surely")


def test_a_method_that_had_seen_its_images_is_no_evidence_for_anything(tmp_path):
    rows = _rows(1, 9.0)
    seen = [dataclasses.replace(row, split="fit") for row in rows if row.split == "evaluate"]
    leaky = _run(tmp_path / "probe", PROBE, table=Predictions.from_rows([*rows, *seen]), allow_leak=True)
    found = _studied([leaky, _run(tmp_path / "cnn", CNN, 2, 0.5)])
    assert found.marks[0].verdict == "no evidence"
    assert "None of this is evidence" in found.answers[0].text[0]
    assert "which is no evidence" in found.answers[1].text[0]
    assert "is better" not in found.answers[1].text[0]
    assert any("The figures of probe are no evidence" in text for text in found.limits)


def test_a_baseline_that_does_well_is_named_as_a_warning(tmp_path):
    found = _studied([_run(tmp_path / "cnn", CNN, 1), _run(tmp_path / "bright", BASELINE, 2, 9.0)])
    assert any(text.startswith("bright tells good from defective without any network") for text in found.limits)


def test_the_page_and_its_tables_are_written_and_a_bare_table_is_refused(tmp_path):
    texts = [_run(tmp_path / "probe", PROBE, 1), _run(tmp_path / "cnn", CNN, 2)]
    found = study_report.write(read_methods(texts), tmp_path / "out", "Bottles & screws", bootstrap=Bootstrap(50))
    document = json.loads((tmp_path / "out" / "study.json").read_text())
    assert document == json.loads(json.dumps(found.as_json()))
    assert [len(each["findings"]) > 0 for each in document["questions"]] == [True, True, False]
    assert document["methods"]["probe"]["role"] == "self-supervised encoder with a head"
    assert document["methods"]["probe"]["label_share"] == 0.1
    assert document["methods"]["cnn"]["runs"][0]["record"]["settings"]["batch_size"] == 64
    with (tmp_path / "out" / "study.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["question"] for row in rows} == {"1", "2"}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)
    page = (tmp_path / "out" / "study.html").read_text()
    assert "Bottles &amp; screws: methodology and findings" in page
    for text in ("How probe was made", "How cnn was made", "Protocol clean", "meets it too", "fingerprint ffffffff"):
        assert text in page
    assert not {"http:", "https:", "<script", "<link"} & set(page.split())
    bare = f"bare={tmp_path / 'cnn' / 'predictions.csv'}"
    with pytest.raises(UserError, match="is no run directory"):
        study_report.write(read_methods([texts[0], bare]), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_diagrams_of_a_runs_second_model_are_of_that_model(tmp_path):
    text = _run(tmp_path / "probe", PROBE, 1)
    second = tmp_path / "probe" / "study_head"
    second.mkdir()
    for name in ("predictions.csv", "metrics.json"):
        (second / name).write_text((tmp_path / "probe" / name).read_text())
    methods = read_methods([text, f"head={second}"])
    assert methods[1].runs[0].record["part"] == "study_head"
    assert methods[1].labels_used == 24
    page = study_report.render(study(methods, bootstrap=Bootstrap(10)), "x")
    assert "Fit a head: logistic" in page
    assert "Fit a head: the original study's" in html.unescape(page)
