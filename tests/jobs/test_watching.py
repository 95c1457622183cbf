"""A pretraining is watched by heads on the labelled budget; the encoder that is kept is the best by held-out scores."""

import json
import shutil

import numpy as np
import pytest

from mvtec_tf.data import protocol
from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.errors import LeakError, UsageError
from mvtec_tf.features.feature_graph import FeatureGraph, InMemory
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.files import sha256
from mvtec_tf.graphs import saved_model
from mvtec_tf.jobs import encoders, pretrain
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks.backbone import build_backbone
from mvtec_tf.serving.truth import Truth
from mvtec_tf.training.callbacks import KeepBestOnline
from tests.support.in_process import run_in_process
from tests.support.tiny_network import in_place_of_resnet10


def _watched(tmp_path, values, trained=True):
    """The callback after a training whose heads said `values`, the first of them at the start; and its epochs' logs."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, name="dense")])
    said = iter(values)
    online = KeepBestOnline(tmp_path / "kept.weights.h5", network, lambda: {"head": next(said)}, "head", trained)
    network.set_weights([np.zeros((1, 1))])
    online.on_train_begin()
    # A training that is resumed within an epoch begins twice.
    online.on_train_begin()
    logs = [{} for _ in values[1:]]
    for epoch, own in enumerate(logs):
        network.set_weights([np.full((1, 1), epoch + 1.0)])
        online.on_epoch_end(epoch, own)
    network.load_weights(online.file)
    return online, logs, float(network.get_weights()[0][0, 0])


@pytest.mark.parametrize(
    ("values", "trained", "kept"),
    [
        ((0.7, 0.6, 0.9, 0.9), True, 2),
        # As good as the start is no reason to leave it.
        ((0.9, 0.9, 0.8), True, 0),
        ((0.7, 0.9), False, 0),
    ],
)
def test_the_best_weights_are_kept_and_those_of_the_start_take_part(tmp_path, values, trained, kept):
    online, logs, weights = _watched(tmp_path, values, trained)
    assert (online.best_epoch, weights) == (kept, kept)
    assert [own["head"] for own in logs] == list(values[1:])
    assert [own["head_above_start"] for own in logs] == pytest.approx([value - values[0] for value in values[1:]])


def test_a_resumed_training_remembers_its_start_and_its_best(tmp_path):
    before, _, _ = _watched(tmp_path, (0.7, 0.9))
    after = KeepBestOnline(before.file, before._network, lambda: {"head": 0.8}, "head", True)
    after.restore(json.loads(json.dumps(before.state())))
    after.on_train_begin()
    after.on_epoch_end(1, {})
    assert (after.start, after.best, after.best_epoch) == ({"head": 0.7}, 0.9, 1)


@pytest.mark.slow
def test_features_in_memory_are_those_of_the_export(tmp_path):
    with in_place_of_resnet10():
        backbone = build_backbone("resnet10", 32)
    saved_model.write_encoder(tmp_path / "encoder", backbone, {"run": {}, "pretrain_images": []})
    settings = RECIPES[FEW_LABELS].settings(backbone.middle_stages)
    images = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
    ours = InMemory(backbone.model, settings).of(images)
    theirs = FeatureGraph(tmp_path / "encoder", settings).features(images)
    np.testing.assert_allclose(ours.pooled, theirs.pooled, atol=1e-4)
    for name, values in theirs.maps.items():
        np.testing.assert_allclose(ours.maps[name], values, atol=1e-2, rtol=2e-3)


def test_a_single_labelled_defective_object_cannot_watch():
    records = [Record(f"{row}", f"{row}", "part", "scratch", 1, "test", "one object") for row in range(3)]
    with pytest.raises(UsageError, match="1 defective object of category 'part' is labelled"):
        pretrain.heads_on([], np.zeros((0, 8, 8, 3), np.uint8), records, np.zeros((3, 8, 8, 3), np.uint8), 0)


@pytest.mark.slow
def test_a_watched_pretraining_keeps_the_best_encoder_and_its_labelled_images_are_never_evaluated(toy, tmp_path):
    asked = (f"--data_dir={toy / 'flange'}", f"--run_dir={tmp_path / 'run'}", "--weights=none", "--backbone=resnet10")
    small = ("--image_size=32", "--epochs=2", "--projection_hidden=8", "--projection_dimensions=4", "--batch_size=8")
    with in_place_of_resnet10():
        done = run_in_process("train_simclr", *asked, *small, "--label_budget=0.3", "--keep=best_online")
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        curves = [own["online_fused"] for own in record["history"]]
        best = int(np.argmax([record["online"]["start"]["online_fused"], *curves]))
        assert record["online"]["kept_epoch"] == best
        assert "start  online_fused" in done.stdout
        assert record["online"]["words"] in done.stdout
    encoder = tmp_path / "run" / "saved_model"
    records = scan.scan([toy / "flange"])
    encoders.check_pretraining(encoder, protocol.clean(records, 0.3, seed=0).evaluate)
    with pytest.raises(LeakError):
        encoders.check_pretraining(encoder, protocol.clean(records, 0.3, seed=1).evaluate)


@pytest.mark.slow
def test_an_encoder_that_was_told_labels_is_known_by_it_and_saw_the_labelled_images(toy, tmp_path):
    data = shutil.copytree(toy / "flange", tmp_path / "flange")
    bad = next((data / "test" / "good").iterdir())
    bad.write_bytes(bad.read_bytes()[:200])
    asked = (f"--data_dir={data}", f"--run_dir={tmp_path / 'run'}", "--weights=none", "--backbone=resnet10")
    small = ("--image_size=32", "--epochs=1", "--projection_hidden=8", "--projection_dimensions=4", "--batch_size=8")
    with in_place_of_resnet10():
        done = run_in_process(
            "train_simclr", *asked, *small, "--method=supcon", "--label_budget=0.3", "--on_bad_image=skip"
        )
    assert done.stdout.count(bad.name) == 1
    # As `fit` leaves it out, before it cuts.
    bad.unlink()
    encoder = tmp_path / "run" / "saved_model"
    assert encoders.was_told_labels(encoder)
    cut = protocol.clean(scan.scan([data]), 0.3, seed=0)
    seen = {record.path for record in cut.fit}
    assert encoders.pretrained_paths(encoder, cut.fit) == seen
    assert json.loads((tmp_path / "run" / "run.json").read_text())["labels_used"] == len(cut.labelled)
    assert not encoders.labels_besides(encoder, cut.labelled)
    assert encoders.labels_besides(encoder, ()) == {record.path: record.label for record in cut.labelled}
    shutil.copytree(data, tmp_path / "renamed")
    renamed = scan.scan([tmp_path / "renamed"])
    with pytest.raises(LeakError, match="needs the names of folders and the `seed`=0 of its run: leak"):
        encoders.check_pretraining(encoder, protocol.clean(renamed, 0.3, seed=0).evaluate)
    assert encoders.pretrained_paths(encoder, renamed) == {path.replace("flange/", "renamed/", 1) for path in seen}
    grid = ("--heads=logistic", "--recipe=none", "--seeds=1", "--budgets=0,0.3", f"--run_dir={tmp_path / 'grid'}")
    done = run_in_process("label_efficiency", asked[0], f"--encoders={encoder}", *grid, check=False)
    assert f"has used the labels of {len(cut.labelled)} test images that --budgets=0 does not buy" in done.stderr
    done = run_in_process("fit_probe", asked[0], f"--encoder={encoder}", f"--run_dir={tmp_path / 'fit'}")
    record = json.loads((tmp_path / "fit" / "run.json").read_text())
    assert (record["labels_used"], record["labelled_defects"]) == (len(cut.labelled), int(cut.fit_labels.sum()))
    assert "which this `label_budget` does not buy" in done.stdout
    # And who is asked about such images by an export says that they are no new ones.
    extra = tmp_path / "export" / saved_model.EXTRA
    shutil.copytree(tmp_path / "fit" / "saved_model" / saved_model.EXTRA, extra)
    for name in ("predictions.csv", "images.csv"):
        shutil.copy(tmp_path / "fit" / name, extra)
    truth = Truth(export=extra.parent)
    for record in (*cut.labelled, *cut.evaluate):
        file = tmp_path / "renamed" / record.path.removeprefix("flange/")
        for place in (record.file, str(file)):
            assert (truth.of(place, sha256(place)).split == "evaluate") is (record in cut.evaluate)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--keep=best_online",), "--label_budget=0 watches nothing"),
        (("--label_budget=0.1", "--epochs=0"), "trains nothing that could be watched"),
        (("--method=supcon",), "--method=supcon learns from labels"),
        (("--method=supcon", "--label_budget=0.1", "--keep=best_online"), "no score of a labelled image is held out"),
        (("--label_budget=0.1", "--protocol=study"), "--protocol=study knows no labels in pretraining"),
    ],
)
def test_what_would_watch_nothing_is_refused(tmp_path, given, message):
    done = run_in_process("train_simclr", f"--data_dir={tmp_path}", f"--run_dir={tmp_path / 'r'}", *given, check=False)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
