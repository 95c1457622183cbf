"""Diagrams say what the run's own record says, and every word of them lies inside its box."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch

from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.report import canvas, diagrams
from mvtec_tf.evaluation.report.diagrams import TRAINED, Box
from mvtec_tf.evaluation.report.judge import judge
from mvtec_tf.evaluation.table import Predictions, Row
from mvtec_tf.evaluation.thresholds import Chosen, Threshold, given

pytestmark = pytest.mark.usefixtures("fine_pictures")
DATA = {"images": 1230, "categories": ["bottle", "screw"], "fingerprint": "0123456789abcdef"}
SPLITS = {"pretrain": (529, 0), "fit": (553, 17), "calibrate": (553, 17), "evaluate": (121, 91)}
CHOSEN = Chosen(Threshold(-0.4891, "youden", "it has the best balanced accuracy", images=553, defects=17))
BLOCKS = [
    {"name": "image", "kind": "image", "shape": [224, 224, 3], "parameters": 0, "trained": 0},
    {"name": "conv4_block6_out", "kind": "stage", "shape": [14, 14, 1024], "parameters": 8589184, "trained": 0},
    {"name": "head_dropout", "kind": "Dropout", "shape": [1024], "parameters": 0, "trained": 0},
    {"name": "logits", "kind": "Dense", "shape": [2], "parameters": 2050, "trained": 2050},
]
CNN = {
    "binary": "train_cnn",
    "data": DATA,
    "labels_used": 122,
    "architecture": BLOCKS,
    "settings": {
        "backbone": "resnet50",
        "image_size": 224,
        "protocol": "clean",
        "seed": 3,
        "label_budget": "all",
        "batch_size": 64,
        "balanced_sampling": False,
        "augment_hue": 0.1,
        "augment_rotation_degrees": 30.0,
    },
}
PROBE = {
    "binary": "fit_probe",
    "data": DATA,
    "labels_used": 24,
    "architecture": BLOCKS[:2],
    "encoder": {
        "image_size": 448,
        "layers": ["conv3_block4_out", "conv4_block6_out"],
        "pretrain_images": 529,
        "settings": {"backbone": "resnet50", "weights": "/somewhere/weights.h5", "epochs": 7},
    },
    "settings": {"head": "logistic", "protocol": "clean", "seed": 0, "label_budget": "0.1", "image_size": 224},
}
BASELINE = {
    "binary": "fit_baseline",
    "data": DATA,
    "labels_used": 122,
    "settings": {"features": "grey_pixels", "protocol": "clean", "seed": 0, "label_budget": "all", "image_size": 64},
}


def _words(record, kind, threshold=CHOSEN):
    return diagrams.in_words(diagrams.KINDS[kind][1](record, SPLITS, threshold))


def test_the_workflow_says_which_images_were_used_for_what():
    words = _words(CNN, "diagram_workflow")
    for text in (
        "1,230 images of 2 categories (bottle, screw)",
        "Protocol clean, seed 3",
        "122 labels of test images used (budget: all)",
        "Train resnet50",
        "553 images (17 defective) stop the training",
        "Choose the threshold: -0.4891: youden on 553 images",
        "121 images (91 defective), scored once",
    ):
        assert text in words
    words = _words(PROBE, "diagram_workflow")
    assert "Encoder: resnet50, pretrained, then frozen: on 529 good images, no labels; 7 epochs" in words
    assert "weights.h5" in words
    assert "/somewhere" not in words
    assert "Fit a head: logistic" in words
    assert "Threshold 0.5: it was given" in _words(PROBE, "diagram_workflow", Chosen(given(0.5)))


def test_an_encoder_that_was_not_pretrained_is_not_said_to_be():
    record = PROBE | {"encoder": PROBE["encoder"] | {"pretrain_images": 0}}
    assert "Frozen encoder: resnet50, not pretrained here" in _words(record, "diagram_workflow")


def test_the_pipeline_has_the_size_and_the_strengths_of_the_settings():
    words = _words(CNN, "diagram_data")
    for text in ("224 x 224", "batches of 64", "shuffled anew each pass, seed 3", "hue 0.1, rotation degrees 30"):
        assert text in words
    assert "448 x 448" in _words(PROBE, "diagram_data")  # the encoder's size, not the flag's default
    assert "grey pixels" in _words(BASELINE, "diagram_data")


def test_the_architecture_marks_the_blocks_that_were_trained():
    boxes = diagrams.architecture(CNN, SPLITS, CHOSEN)
    assert [box.title for box in boxes if box.kind == TRAINED] == ["Dense (logits)"]
    words = diagrams.in_words(boxes)
    assert "Stage to conv4_block6_out: 14 x 14 x 1024; 8,589,184 weights, frozen" in words
    assert "Dropout" not in words
    assert "conv3_block4_out, conv4_block6_out" in _words(PROBE, "diagram_architecture")


def test_of_an_encoder_only_the_stages_that_make_the_features_are_drawn():
    stages = [BLOCKS[1] | {"name": name} for name in ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out")]
    words = _words(PROBE | {"architecture": [BLOCKS[0], *stages]}, "diagram_architecture")
    assert "Stage to conv4_block6_out" in words
    assert "conv5" not in words


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"head": "logistic"}, "Average over the image, join"),
        ({"head": "patchcore"}, "Keep every position, join"),
        ({"head": "fused"}, "Average over the image, keep every position too, join"),
        ({"head": "hybrid", "hybrid_of": ["lda", "mahalanobis"]}, "Average over the image, join"),
        ({"head": "hybrid", "hybrid_of": ["lda", "padim"]}, "Average over the image, keep every position too, join"),
    ],
)
def test_what_a_head_keeps_of_the_maps_is_drawn(head, words):
    record = PROBE | {"settings": PROBE["settings"] | head}
    assert words in _words(record, "diagram_data")
    assert words in _words(record, "diagram_architecture")


def test_a_baseline_without_labels_fits_a_gaussian():
    splits = SPLITS | {"fit": (529, 0)}
    words = diagrams.in_words(diagrams.workflow(BASELINE, splits, CHOSEN))
    assert "Fit a Gaussian of good images to grey pixels" in words
    assert "Fit a logistic regression on grey pixels" in _words(BASELINE, "diagram_workflow")


def test_without_a_record_nothing_is_drawn_and_what_it_does_not_say_neither(monkeypatch):
    monkeypatch.setattr(canvas, "png", lambda figure: b"")  # which are drawn is asked here, not what they look like
    assert not list(diagrams.pictures(None, SPLITS, CHOSEN))
    assert not list(diagrams.pictures({"binary": "somebody_elses"}, SPLITS, CHOSEN))
    drawn = diagrams.pictures({name: value for name, value in CNN.items() if name != "architecture"}, SPLITS, CHOSEN)
    assert [picture.kind for picture in drawn] == ["diagram_workflow", "diagram_data"]
    assert len(list(diagrams.pictures(BASELINE, SPLITS, CHOSEN))) == 2


@pytest.mark.parametrize("record", [CNN, PROBE, BASELINE])
def test_every_word_lies_inside_its_box(record):
    record = record | {"data": DATA | {"categories": ["a category with quite a long name", "metal_nut", "wide words"]}}
    for _, boxes_of in diagrams.KINDS.values():
        _check_words(boxes_of(record, SPLITS, CHOSEN))
    _check_words([Box("step", "W" * 30 + " " + "m" * 30, ("W" * 200,))])


def _check_words(boxes):
    if not boxes:
        return
    figure = diagrams.draw(boxes)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    patches = [patch.get_window_extent(renderer) for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    assert len(patches) == len(boxes)
    for text in axes.texts:
        if not text.get_text():
            continue  # an arrow
        word = text.get_window_extent(renderer)
        inside = [patch for patch in patches if patch.y0 <= word.y0 and word.y1 <= patch.y1]
        assert len(inside) == 1, text.get_text()
        assert inside[0].x0 < word.x0, text.get_text()
        assert word.x1 < inside[0].x1, text.get_text()


def test_the_report_of_a_run_has_its_diagrams_and_a_foreign_table_has_none(tmp_path):
    rows = [Row(f"{i}", "c", ("good", "x")[i % 2], i % 2, "evaluate", float(i)) for i in range(8)]
    table = Predictions.from_rows(rows)
    judge(table, tmp_path, 3.5, provenance=CNN, bootstrap=Bootstrap(0))
    page = (tmp_path / "report.html").read_text()
    assert "<h2>How it was made</h2>" in page
    for kind, (title, _) in diagrams.KINDS.items():
        assert (tmp_path / "figures" / f"{kind}.png").exists()
        assert f"<b>{title}</b>" in page
    judge(table, tmp_path, 3.5, bootstrap=Bootstrap(0))
    assert "How it was made" not in (tmp_path / "report.html").read_text()
    assert not list((tmp_path / "figures").glob("diagram_*"))
