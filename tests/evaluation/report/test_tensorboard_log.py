"""TensorBoard shows what `metrics.json` says, read back by TensorBoard's own readers."""

import re
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.report import tensorboard_log
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions, Row

SETTINGS = {"learning_rate": 0.1, "balanced": True, "backbone": "resnet10", "categories": ["a", "b"], "threshold": None}


def _table(probabilities=False):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        label, category, split = i % 2, ("bottle", "screw")[i // 2 % 2], ("evaluate", "calibrate")[i >= 80]
        score = float(np.round(rng.normal(label), 1))
        probability = float(1 / (1 + np.exp(-score))) if probabilities else None
        rows.append(Row(f"{i}.png", category, ("good", "crack")[label], label, split, score, "", probability))
    return Predictions.from_rows(rows)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(document, folder of the log, folder of the report)"""
    out = tmp_path_factory.mktemp("judged")
    log = out / "tensorboard" / "evaluation"
    provenance = {"settings": SETTINGS}
    document = judge(_table(), out, provenance=provenance, bootstrap=Bootstrap(30), tensorboard=log)
    return document, log, out


def _read(folder):
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    found.Reload()
    return found


def _scalars(folder):
    """tag -> value; TensorBoard reads single-valued scalars as tensors of the scalars plugin."""
    found = _read(folder)
    return {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}


def _flat(document, which):
    places = {"overall": document["overall"], "mean_over_categories": document["mean_over_categories"]}
    places |= {f"categories/{name}": found for name, found in document["categories"].items()}
    return {
        f"{place}/{name}": metric[which]
        for place, found in places.items()
        for name, metric in found.items()
        if metric[which] is not None
    }


def test_the_scalars_are_those_of_metrics_json_with_limits_and_trivial_classifiers_in_the_same_run(judged):
    document, log, _ = judged
    values = _scalars(log)
    own = _flat(document, "value")
    assert len(own) > 50
    for tag, value in own.items():
        assert values[f"evaluation/{tag}"] == pytest.approx(value, rel=1e-6), tag
    for name, count in document["confusion"]["overall"].items():
        assert values[f"evaluation_counts/overall/{name}"] == count
    assert values["threshold/overall"] == pytest.approx(document["threshold"]["value"], rel=1e-6)
    for side in ("low", "high"):
        assert _below(values, f"evaluation_limits/{side}/") == pytest.approx(_flat(document, side), rel=1e-6)
    for classifier, found in document["trivial"].items():
        trivial = _below(values, f"evaluation_trivial/{classifier}/")
        assert trivial == pytest.approx(_flat(found, "value"), rel=1e-6)
    assert {path.parent for path in log.rglob("*tfevents*")} == {log}


def _below(values, tag):
    return {name.removeprefix(tag): value for name, value in values.items() if name.startswith(tag)}


def test_custom_scalars_show_bands_and_the_trivial_ones_by_tags_that_exist_learning_curves_first(judged):
    _, log, _ = judged
    found, values = _read(log), _scalars(log)
    (content,) = tensor_util.make_ndarray(found.Tensors("custom_scalars__config__")[0].tensor_proto).reshape(-1)
    layout = layout_pb2.Layout.FromString(content)
    assert [category.title.split()[0] for category in layout.category] == ["Learning", "95", "Beside"]
    for chart in layout.category[1].chart:
        (series,) = chart.margin.series
        assert values[series.lower] <= values[series.value] <= values[series.upper]
        # Between one step and itself there would be no band to see.
        assert [event.step for event in found.Scalars(series.lower)] == [0, 1]
    for chart in layout.category[2].chart:
        shown = [tag for tag in values if any(re.search(pattern, tag) for pattern in chart.multiline.tag)]
        assert len(shown) == 4, chart
    assert min([*values, "curves/loss"]) == "curves/loss"


def test_a_second_model_of_a_run_is_in_the_same_run_of_tensorboard_beside_the_first(tmp_path):
    for threshold, part in ((0.0, ""), (9.0, "study_head")):
        judged = assess(_table(), threshold, bootstrap=Bootstrap(0))
        tensorboard_log.write(tmp_path, judged, [], [], {"seed": 0}, part)
    values = _scalars(tmp_path)
    assert (values["threshold/overall"], values["study_head/threshold/overall"]) == (0.0, 9.0)
    assert len(list(tmp_path.glob("*tfevents*"))) == 2


def test_the_log_is_read_after_those_of_the_training_whenever_they_were_written():
    assert tensorboard_log.EVENTS > "events.out.tfevents.9999999998.host.1.0.v2"


def test_the_pictures_of_the_report_are_its_images(judged):
    _, log, out = judged
    found = _read(log)
    names = {path.stem: path.read_bytes() for path in (out / "figures").iterdir()}
    assert {"confusion_matrix", "roc", "precision_recall"} <= set(names)
    assert {tag.removeprefix("figures/") for tag in found.Tags()["images"]} == set(names)
    for name, content in names.items():
        assert found.Images(f"figures/{name}")[0].encoded_image_string == content


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_precision_recall_curve_has_the_counts_of_each_threshold(tmp_path, probabilities):
    table = _table(probabilities)
    tensorboard_log.write(tmp_path / "log", assess(table, bootstrap=Bootstrap(0)), [], [])
    found = tensor_util.make_ndarray(_read(tmp_path / "log").Tensors("pr_curve/categories/screw")[0].tensor_proto)
    part = table.part("evaluate").select(table.part("evaluate").category == "screw")
    places = part.probability
    if not probabilities:
        places = np.array([(part.score < score).mean() for score in part.score]) * len(part) / (len(part) - 1)
    for index, threshold in enumerate(np.linspace(0, 1, 101)):
        called = places >= threshold
        tn, fp, fn, tp = sklearn_metrics.confusion_matrix(part.label, called, labels=(0, 1)).ravel()
        recall = sklearn_metrics.recall_score(part.label, called)
        precision = sklearn_metrics.precision_score(part.label, called, zero_division=1.0)
        np.testing.assert_allclose(found[:, index], [tp, fp, tn, fn, precision, recall], rtol=1e-6)


def test_the_settings_of_the_run_are_its_hyperparameters_and_the_answer_its_text(judged):
    document, log, _ = judged
    found = _read(log)
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["learning_rate"].number_value == 0.1
    assert settings["balanced"].bool_value is True
    assert settings["backbone"].string_value == "resnet10"
    assert settings["categories"].string_value == '["a", "b"]'
    assert settings["threshold"].string_value == "null"
    (words,) = tensor_util.make_ndarray(found.Tensors("summary")[0].tensor_proto).reshape(-1)
    assert words.decode().split("\n\n")[0] in document["summary"]


def test_a_second_judgement_replaces_the_log_of_the_first(tmp_path):
    for threshold in (0.0, 9.0):
        tensorboard_log.write(tmp_path / "log", assess(_table(), threshold, bootstrap=Bootstrap(0)), [], [])
    assert [path.name for path in (tmp_path / "log").glob("*tfevents*")] == [tensorboard_log.EVENTS]
    assert _scalars(tmp_path / "log")["threshold/overall"] == 9.0


def test_a_log_is_written_without_tensorflow(tmp_path):
    code = (
        "import sys; from mvtec_tf.evaluation import assessment, table\n"
        "from mvtec_tf.evaluation.report import tensorboard_log\n"
        "rows = [table.Row(f'{i}', 'c', ('good', 'x')[i % 2], i % 2, 'evaluate', i) for i in range(8)]\n"
        "judged = assessment.assess(table.Predictions.from_rows(rows), 3.5)\n"
        "tensorboard_log.write('log', judged, ['Fine.'], [], {'seed': 0})\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
