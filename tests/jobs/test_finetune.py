"""Fine-tuning learns from labels what left-out objects confirm, or leaves the encoder as it was, and says which."""

import itertools
import json
import pathlib
import shutil
from unittest import mock

import numpy as np
import pytest

from mvtec_tf.data import protocol, synthetic
from mvtec_tf.data.decoding import image_store, pixels
from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.errors import LeakError, UsageError
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.graphs import rebuild, saved_model
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.jobs import encoders
from mvtec_tf.jobs import finetune as job
from mvtec_tf.jobs.settings import FinetuneRunSettings
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import Backbone, build_backbone
from mvtec_tf.networks.fold import fold_batch_norm
from mvtec_tf.networks.losses import MixedCrossEntropy
from mvtec_tf.networks.tuned import build_tuned
from mvtec_tf.training import finetune
from mvtec_tf.training.settings import FinetuneSettings
from tests.support.in_process import run_in_process
from tests.support.tiny_network import in_place_of_resnet10

POOLING = RECIPES[FEW_LABELS].pooling
SMALL = {"image_size": 32, "batch_size": 8, "backbone": "resnet10", "weights": "none", "label_budget": "0.3"}


def _records(defective_objects, good=12):
    records = [Record(f"g{row}", "", "part", "good", 0, "train", f"g{row}") for row in range(good)]
    return records + [Record(f"d{row}", "", "part", "hole", 1, "test", f"d{row}") for row in range(defective_objects)]


@pytest.fixture(scope="module")
def asked():
    """20 images of noise, those of defects lighter, and what the copies are told of them."""
    records = _records(6, good=14)
    images = np.random.default_rng(0).integers(0, 120, (20, 32, 32, 3), np.uint8)
    images[14:, 8:16, 8:16] += 100
    return job.Asked(records, images, job.folds_of(records, 0), 0), images


@pytest.fixture(scope="module")
def tuned(asked):
    """The network of two stages, with statistics of batch norm that are none of a fresh one, begun by the heads."""
    with in_place_of_resnet10():
        backbone = build_backbone("resnet10", 32)
    for layer in backbone.model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([one + 0.5 for one in layer.get_weights()])
    built = build_tuned(backbone, POOLING, asked[0].count + 1)
    return built, asked[0].watch(built)


def test_every_copy_starts_as_logistic_regression_on_what_it_sees(asked, tuned):
    shown, images = asked
    logits = tuned[0].network.predict(pixels.centre_brightness(images), verbose=0)
    features = job.InMemory(tuned[0].encoders[-1], job.RECIPE.settings(tuned[0].names[-1])).of(images)
    for told, own in zip(shown.targets.T, logits.T, strict=True):
        head = Logistic().fit(features.pooled[told >= 0], told[told >= 0])
        np.testing.assert_allclose(own, head.decision_function(features.pooled), atol=1e-3)


def test_no_copy_is_told_of_its_fold_and_the_last_is_told_all(asked):
    targets, labels = asked[0].targets, asked[0].labels
    assert (targets[:, -1] == labels).all()
    hidden = targets[:, :-1] < 0
    # Every image is hidden from one copy, defective ones from each.
    assert (hidden.sum(axis=1) == 1).all()
    assert (hidden[labels == 1].sum(axis=0) == 2).all()


def test_training_changes_the_last_stage_alone_and_no_statistics_of_batch_norm(asked, tuned):
    network = tuned[0].network
    model = finetune.compiled(tuned[0], FinetuneSettings(learning_rate=1e-3, epochs=8), 1, jit=False)
    before = {one.path: np.array(one) for one in network.weights}
    shown, images = asked
    wanted = np.concatenate([shown.targets, np.full((20, 1), 0.3)], axis=1).astype(np.float32)
    images = pixels.centre_brightness(images)
    losses = [float(model.train_on_batch(images, wanted)) for _ in range(8)]
    changed = {path for path, value in before.items() if not np.array_equal(value, dict_of(network)[path])}
    copies = [f"copy{number}_" for number in range(shown.count)] + [""]
    expected = {path for path in before if any(path.endswith(f"{copy}conv1/kernel") for copy in copies)}
    expected |= {path for path in before if path.startswith("head") and path.endswith(("kernel", "bias"))}
    assert (changed, len(expected)) == (expected, 3 * len(copies))
    assert losses[-1] < losses[0]


def dict_of(network):
    return {one.path: np.array(one) for one in network.weights}


def test_the_loss_is_that_of_a_double_loop_over_copies_and_pairs():
    rng = np.random.default_rng(0)
    targets, logits = rng.integers(-1, 2, (7, 3)), rng.normal(0, 2, (7, 3))
    share = rng.uniform(0, 0.5, 7) * (rng.random(7) < 0.6)
    total = 0.0
    for copy in range(3):
        losses = []
        for row in range(7):
            near = (row + 1) % 7
            if targets[row, copy] < 0 or (share[row] and targets[near, copy] < 0):
                continue
            logit = (1 - share[row]) * logits[row, copy] + share[row] * logits[near, copy]
            wanted = (1 - share[row]) * targets[row, copy] + (share[row] * targets[near, copy] if share[row] else 0)
            probability = 1 / (1 + np.exp(-logit))
            losses.append(-wanted * np.log(probability) - (1 - wanted) * np.log(1 - probability))
        total += np.mean(losses) if losses else 0.0
    found = MixedCrossEntropy()(np.concatenate([targets, share[:, None]], axis=1), logits)
    assert float(found) == pytest.approx(total, rel=1e-5)


def test_a_copy_that_must_not_see_an_image_does_not_see_its_drawn_defect():
    known = np.array([[0, 0, -1], [1, 1, 1], [0, -1, 0]])
    images, seeds = np.zeros((3, 16, 16, 3), np.uint8), np.zeros((3, 2), np.int64)
    drawn = mock.patch.object(synthetic, "on_some", lambda given, labels, *_: (given, np.array([1, 1, 0])))
    with drawn:
        _, wanted = finetune.transform(images, known, seeds, FinetuneSettings(mixup=0.0))
    np.testing.assert_array_equal(wanted, [[1, -1, 0], [1, 1, 0], [-1, 0, 0]])


def test_scores_are_ranked_within_a_fold():
    rng = np.random.default_rng(0)
    labels, folds, scores = rng.integers(0, 2, 30), rng.integers(-1, 3, 30), rng.normal(size=30).round(1)
    pairs = [
        (scores[bad] > scores[good]) + (scores[bad] == scores[good]) / 2
        for bad, good in itertools.product(np.flatnonzero(labels), np.flatnonzero(labels == 0))
        if folds[bad] == folds[good] >= 0
    ]
    assert job.ranked(labels, scores, folds) == pytest.approx(np.mean(pairs))


def test_pseudo_labels_are_those_that_the_head_is_sure_of_by_what_the_copy_sees(asked):
    shown, images = asked
    with in_place_of_resnet10():
        backbone = build_backbone("resnet10", 32)
    pixels, labels, targets = shown.with_pseudo_labels(backbone, images, 0.95)
    known = len(images)
    for found, there in ((pixels, images), (labels, shown.labels), (targets, shown.targets)):
        np.testing.assert_array_equal(found[:known], there)
    rows = [int(np.flatnonzero((images == one).all(axis=(1, 2, 3)))[0]) for one in pixels[known:]]
    whole = targets[known:, -1]
    # Of what its head was fitted on it is sure, and right.
    assert (whole >= 0).any()
    assert (whole == shown.labels[rows])[whole >= 0].all()
    np.testing.assert_array_equal(labels[known:], targets[known:].max(axis=1))
    assert set(np.unique(targets)) <= {-1, 0, 1}


def test_fewer_than_two_labelled_defective_objects_or_two_categories_are_refused():
    with pytest.raises(UsageError, match="1 defective object of category 'part' is labelled"):
        job.folds_of(_records(1), 0)
    other = Record("o", "", "other", "good", 0, "train", "o")
    with pytest.raises(UsageError, match="2 categories, and one network is fine-tuned on one"):
        job.folds_of([*_records(3), other], 0)


def test_a_network_of_one_stage_has_none_to_leave_as_it_is():
    with in_place_of_resnet10():
        backbone = build_backbone("resnet10", 32)
    with pytest.raises(UsageError, match="has one stage"):
        build_tuned(Backbone(backbone.model, backbone.stages[:1], None), POOLING, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--label_budget=0",), "--label_budget=0: fine-tuning learns from labelled defects"),
        (("--pseudo_labels=0.4",), "--pseudo_labels"),
        (("--pseudo_labels=0.9", "--label_budget=all"), "leaves no image without a label"),
        (("--mixup=0.6",), "--mixup"),
        (("--synthetic_defects=1",), "--synthetic_defects"),
        (("--encoder=run", "--image_size=64"), "an --encoder has its own"),
        (("--strategy=mirrored",), "on one device"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path, given, message):
    done = run_in_process("finetune", f"--data_dir={tmp_path}", f"--run_dir={tmp_path / 'r'}", *given, check=False)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_where_no_epoch_is_better_the_start_is_kept_and_said_and_no_evaluated_image_is_read(toy, tmp_path, capsys):
    records = scan.scan([toy / "flange"])
    evaluated = protocol.clean(records, 0.3, seed=0).evaluate
    data, names = tmp_path / "flange", {record.file for record in evaluated}
    shutil.copytree(toy / "flange", data)
    for number, name in enumerate(sorted(names)):
        (data / pathlib.Path(name).relative_to(toy / "flange")).write_bytes(b"no image %d" % number)
    more = {"epochs": 3, "patience": 1, "pseudo_labels": 0.6, "synthetic_defects": 0.0}
    asked = FinetuneRunSettings(data_dir=(str(data),), run_dir=str(tmp_path / "run"), **SMALL, **more)
    few = mock.patch.object(finetune, "_STEPS", 2)
    with in_place_of_resnet10(), few, mock.patch.object(job, "ranked", return_value=0.75):
        job.finetune(asked)
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["online"]["kept_epoch"], len(record["history"])) == (0, 1)
    assert record["online"]["words"] in said
    labels = [one.label for one in protocol.clean(records, 0.3, seed=0).labelled]
    assert (record["labels_used"], record["labelled_defects"]) == (len(labels), sum(labels))
    assert "No epoch was better: fine-tuning is not shown to help here." in said
    encoder = tmp_path / "run" / "saved_model"
    assert not encoders.was_told_labels(encoder)
    with in_place_of_resnet10():
        keras.utils.set_random_seed(0)
        start = fold_batch_norm(build_backbone("resnet10", 32).model).model
        kept = rebuild.encoder_of(encoder)
    for ours, theirs in zip(start.weights, kept.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    encoders.check_pretraining(encoder, evaluated)
    with pytest.raises(LeakError):
        encoders.check_pretraining(encoder, protocol.clean(records, 0.3, seed=1).evaluate)


def test_an_encoder_that_was_told_labels_is_no_start(small_encoder, tmp_path):
    encoder = shutil.copytree(small_encoder, tmp_path / "encoder")
    card = saved_model.read_card(encoder) | {"told_labels": True}
    (encoder / saved_model.EXTRA / saved_model.CARD).write_text(json.dumps(card))
    asked = FinetuneRunSettings(data_dir=("toy",), run_dir="run", encoder=str(encoder))
    with pytest.raises(UsageError, match="was trained with labels already"):
        job.finetune(asked)


def test_an_encoder_that_is_no_longer_the_start_is_known_to_have_been_told_labels_of_whole_images_as_fit_cuts_them(
    toy, tmp_path
):
    with in_place_of_resnet10():
        trained = build_backbone("resnet10", 32)
    data = shutil.copytree(toy / "flange", tmp_path / "flange")
    for bad in (next((data / "test" / "good").iterdir()), next((data / "train" / "good").iterdir())):
        bad.write_bytes(bad.read_bytes()[:200])
    asked = FinetuneRunSettings(data_dir=(str(data),), run_dir=str(tmp_path / "run"), on_bad_image="skip", **SMALL)
    with mock.patch.object(job.training, "finetune", return_value=(trained, 1)):
        run = job.finetune(asked)
    assert encoders.was_told_labels(run.saved_model)
    whole, _ = image_store.check(scan.scan([data]), asked.max_pixels)
    cut = protocol.clean(whole, 0.3, seed=0)
    assert encoders.pretrained_paths(run.saved_model, whole) == {record.path for record in cut.fit}
    assert len(run.record["skipped_images"]) == 2
