"""Defects are named by heads that scikit-learn agrees with, and judged by figures that it agrees with."""

import json

import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.defect_types import Call, assess_types, judge_types
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.heads.base import as_tensors, by_ops
from mvtec_tf.heads.defect_types import NEVER, PerCategoryTypeHead, TypeHead
from mvtec_tf.heads.file import load_head, save_head
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.frozen import FrozenFeatures
from mvtec_tf.heads.settings import HeadSettings

REFERENCES = {
    "logistic": LogisticRegression(class_weight="balanced", max_iter=5000),
    "linear_svm": LinearSVC(class_weight="balanced", dual=True, max_iter=200_000, random_state=0),
}


@pytest.fixture
def data():
    """90 images of four types that differ in one feature each."""
    rng = np.random.default_rng(0)
    types = np.repeat(["good", "scratch", "bent", "stain"], [45, 20, 15, 10])
    features = rng.normal(size=(90, 6)) * [1, 5, 1, 20, 1, 1]
    for number, name in enumerate(["scratch", "bent", "stain"]):
        features[types == name, number] += 8 if number != 1 else 25
    return features.astype(np.float32), types


@pytest.mark.parametrize("kind", sorted(REFERENCES))
@pytest.mark.parametrize("defects", [1, 3])
def test_scores_are_scikit_learns(data, kind, defects):
    features, types = data
    kept = np.isin(types, ["good", "bent", "scratch", "stain"][: defects + 1])
    features, types = features[kept], types[kept]
    classes = ["good", *sorted(set(types) - {"good"})]
    numbers = np.array([classes.index(name) for name in types])
    expected = make_pipeline(StandardScaler(), REFERENCES[kind]).fit(features, numbers).decision_function(features)
    head = TypeHead(kind).fit(features, types)
    found = by_ops(head.type_scores, features, head.arrays())
    assert head.classes_ == tuple(classes)
    if defects == 1:
        np.testing.assert_allclose(head.decision_function(features), expected, atol=1e-3)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-3)
        np.testing.assert_allclose(
            head.decision_function(features), expected[:, 1:].max(axis=1) - expected[:, 0], atol=1e-3
        )


def test_an_image_is_named_in_the_words_of_its_own_category(data):
    features, types = data
    other = np.where(types == "bent", "torn", types)
    both = FrozenFeatures(np.concatenate([features, features + 300]))
    categories = np.repeat(["cap", "nut"], 90)
    heads = {"cap": TypeHead(), "nut": TypeHead()}
    head = PerCategoryTypeHead(heads).fit(both, np.concatenate([types, other]), categories)
    assert head.types == ("good", "bent", "scratch", "stain", "torn")
    arrays = {name: tf.constant(value) for name, value in head.arrays().items()}
    scores = head.type_scores(as_tensors(both), arrays).numpy()
    assert (scores[:90, 4] == NEVER).all()
    assert (scores[90:, 1] == NEVER).all()
    named = np.array(head.types)[scores.argmax(axis=1)]
    assert np.mean(named == np.concatenate([types, other])) > 0.9
    np.testing.assert_allclose(head.decision_function(both)[:90], heads["cap"].decision_function(features), atol=1e-4)
    assert ((head.decision_function(both) > 0) == (named != "good")).all()


def test_a_head_that_names_defects_is_saved_without_pickle_and_read_back_as_it_was(data, tmp_path):
    features, types = data
    head = PerCategoryTypeHead({"cap": TypeHead()}).fit(features, types, np.full(90, "cap"))
    save_head(tmp_path / "head.npz", head, HeadSettings("logistic"), {"encoder": "e"})
    again = load_head(tmp_path / "head.npz", {"encoder": "e"})
    assert again.types == head.types
    tensors = as_tensors(FrozenFeatures(features))
    scores = [
        one.type_scores(tensors, {name: tf.constant(value) for name, value in one.arrays().items()})
        for one in (head, again)
    ]
    np.testing.assert_array_equal(*scores)


def test_labels_without_a_defect_or_without_good_images_are_refused(data):
    features, types = data
    for only in ("good", "stain"):
        with pytest.raises(UserError, match=f"found only {only}"):
            TypeHead().fit(features[types == only], types[types == only])


def test_types_are_calibrated_on_scores_of_held_out_images(data):
    features, types = data
    records = [
        Record(f"cap/test/{name}/{i}.png", "", "cap", name, int(name != "good"), "test", str(i))
        for i, name in enumerate(types)
    ]
    probe = fit_probe(TypeHead, features, records, seed=0, of_types=True)
    assert probe.head.types == ("good", "bent", "scratch", "stain")
    assert len(probe.calibrate) == 90
    assert probe.head.gives_probability
    inside = probe.head.decision_function(features)
    assert not np.allclose(inside, probe.calibrate_scores)
    assert np.corrcoef(inside, probe.calibrate_scores)[0, 1] > 0.9


@pytest.fixture
def calls():
    rng = np.random.default_rng(1)
    found = []
    for category, names in (("cap", ["good", "bent", "rust"]), ("nut", ["good", "bent"])):
        for i in range(60):
            shown = names[int(rng.integers(len(names)))]
            known = [name for name in names if name != "rust"]
            called = shown if shown in known and rng.random() < 0.8 else known[int(rng.integers(len(known)))]
            found.append(Call(f"{category}/{i}.png", category, f"{category}{i // 2}", shown, called))
    return found


LABELLED = {"cap": ("good", "bent"), "nut": ("good", "bent")}


def test_macro_f1_and_confusion_matrix_are_scikit_learns(calls):
    categories, macro = assess_types(calls, LABELLED, Bootstrap(200))
    values = []
    for category, found in categories.items():
        own = [call for call in calls if call.category == category]
        shown, called = [call.defect for call in own], [call.called for call in own]
        np.testing.assert_array_equal(found.matrix, confusion_matrix(shown, called, labels=found.types))
        expected = f1_score(shown, called, labels=found.types, average="macro", zero_division=0)
        assert found.macro_f1.value == pytest.approx(expected)
        assert found.macro_f1.low < expected < found.macro_f1.high
        values.append(expected)
    assert macro.value == pytest.approx(np.mean(values))
    assert macro.low < macro.value < macro.high
    assert categories["cap"].f1["rust"].value == 0


def test_the_interval_is_that_of_a_plain_bootstrap(calls):
    """Groups drawn with replacement within category, label being constant in none: a loop, not the matrix product."""
    own = [call for call in calls if call.category == "nut"]
    own = [Call(call.path, call.category, "", call.defect, call.called) for call in own]
    _, macro = assess_types(own, LABELLED, Bootstrap(4000))
    rng = np.random.default_rng(5)
    strata = [[c for c in own if c.defect == "good"], [c for c in own if c.defect != "good"]]
    values = []
    for _ in range(1000):
        drawn = [stratum[i] for stratum in strata for i in rng.integers(len(stratum), size=len(stratum))]
        values.append(f1_score([c.defect for c in drawn], [c.called for c in drawn], average="macro"))
    np.testing.assert_allclose([macro.low, macro.high], np.quantile(values, [0.025, 0.975]), atol=0.03)


def test_the_run_gets_a_table_json_a_page_and_a_picture_a_category(calls, tmp_path):
    document = judge_types(calls, LABELLED, tmp_path, "Types <of> things", Bootstrap(50))
    assert json.loads((tmp_path / "defect_types.json").read_text()) == document
    assert len((tmp_path / "defect_types.csv").read_text().splitlines()) == 121
    page = (tmp_path / "defect_types.html").read_text()
    assert "Types &lt;of&gt; things" in page
    assert "cap: not among the labels and so never called: rust" in page
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "defect_types_01.png",
        "defect_types_02.png",
    ]


def test_a_call_that_no_label_allows_is_an_error(calls):
    with pytest.raises(ValueError, match="no label named"):
        assess_types([*calls, Call("cap/x.png", "cap", "", "good", "oracle")], LABELLED, Bootstrap(0))
