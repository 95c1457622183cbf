"""The whole line, through the commands that a user types, on the toy factory."""

import json
import pathlib
import resource
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mvtec_tf.data.decoding import pixels
from mvtec_tf.evaluation.comparison.contenders import read_methods
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.networks.backbone import build_backbone
from mvtec_tf.networks.classifier import build_classifier, log_odds
from mvtec_tf.run_directory import read_run
from mvtec_tf.study import report as study_report
from mvtec_tf.study.answers import SELF_SUPERVISED, SUPERVISED, role
from mvtec_tf.training import callbacks
from tests.conftest import run_binary

pytestmark = pytest.mark.slow

SMALL = ("--backbone=resnet10", "--weights=none", "--image_size=32", "--batch_size=16", "--precision=float32")
CNN = (*SMALL, "--epochs=3", "--trainable_stages=5", "--learning_rate=3e-3")
SIMCLR = (*SMALL, "--epochs=3", "--projection_hidden=32", "--projection_dimensions=16")

# What a process without this package does: TensorFlow alone, the files named on the command line.
_STRANGER = """
import json, sys
sys.path[:] = [p for p in sys.path if p not in ("", sys.argv[1])]
sys.modules["mvtec_tf"] = None
import tensorflow as tf
jobs = json.load(open(sys.argv[2]))
answers = []
models = {model: tf.saved_model.load(model, tags=["serve"]) for model, _ in jobs}
for model, files in jobs:
    out = models[model].signatures["serving_default"](image_bytes=tf.constant([open(f, "rb").read() for f in files]))
    answers.append({name: value.numpy().tolist() for name, value in out.items()})
json.dump(answers, open(sys.argv[3], "w"))
"""


@pytest.fixture(scope="module")
def runs(toy, tmp_path_factory):
    """A CNN, a SimCLR encoder, a probe on it, and all three exported."""
    root = tmp_path_factory.mktemp("runs")
    data = f"--data_dir={toy}"
    run_binary("train_cnn", data, f"--run_dir={root / 'cnn'}", *CNN)
    run_binary("train_simclr", data, f"--run_dir={root / 'simclr'}", *SIMCLR)
    probe = (f"--encoder={root / 'simclr'}", "--label_budget=0.25", "--study_head")
    run_binary("fit_probe", data, f"--run_dir={root / 'probe'}", *probe)
    for name in ("cnn", "simclr", "probe"):
        done = run_binary("export", f"--run={root / name}", f"--name={name}", f"--saved_models={root / 'saved_models'}")
        assert done.stdout.splitlines()[-1] == str(root / "saved_models" / name / "1")
    return root


@pytest.fixture(scope="module")
def four_roads(runs, toy, tmp_path_factory):
    """(seven files, size -> SavedModel and its network, trained and untrained)."""
    folder = tmp_path_factory.mktemp("roads")
    trained, untrained = _trained_network(runs / "cnn"), build_classifier(build_backbone("resnet10", 48))
    saved_model.write_classifier(folder / "untrained", untrained, {})
    models = {32: (runs / "cnn" / "saved_model", trained), 48: (folder / "untrained", untrained)}
    return _seven_files(toy, folder), models


@pytest.fixture(scope="module")
def evaluated(runs):
    """Model -> the evaluated rows of its table."""
    return {name: read_predictions(runs / name / "predictions.csv").part("evaluate") for name in ("cnn", "probe")}


@pytest.fixture(scope="module")
def strangers(runs, toy, four_roads, evaluated, tmp_path_factory):
    """(SavedModel, number of files) -> what a process without this package is answered, by name."""
    files, models = four_roads
    jobs = [(str(path), part) for path, _ in models.values() for part in (files, files[:1])]
    jobs += [
        (str(runs / "saved_models" / name / "1"), [str(pathlib.Path(toy) / path) for path in table.path[:7]])
        for name, table in evaluated.items()
    ]
    jobs.append((str(runs / "saved_models" / "simclr" / "1"), files[:1]))
    answers = _ask_a_stranger(jobs, tmp_path_factory.mktemp("stranger"))
    return {(model, len(part)): answer for (model, part), answer in zip(jobs, answers, strict=True)}


def _kill_in_the_third_epoch(*flags):
    """Starts a training that saves every step and kills it as soon as its second epoch is done."""
    command = [sys.executable, "-m", "mvtec_tf.bin.train_cnn", *flags, "--checkpoint_minutes=1e-9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/") and "done" in line:
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.read()
    assert process.returncode == -signal.SIGKILL


def _terminated(monkeypatch, *flags):
    """What a pretraining says that gets SIGTERM in the middle of its third epoch."""
    count = callbacks.Position.on_train_batch_end

    def step(position, batch, logs=None):
        count(position, batch, logs)
        if (position.epoch, position.step) == (2, 1):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.Position, "on_train_batch_end", step)
        patched.setattr(sys, "orig_argv", ["python", "-m", "mvtec_tf.bin.train_simclr", *flags])
        return run_binary("train_simclr", *flags, check=False)


def _on_a_full_disk(*flags):
    """What a pretraining says on a disk where event files and records find room, but no weights of 20 MB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        return run_binary("train_simclr", *flags, check=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_directory_has_its_form(runs):
    cnn = {path.name for path in (runs / "cnn").iterdir()}
    expected = {"flags.txt", "run.json", "tensorboard", "checkpoints", "predictions.csv", "metrics.json"}
    assert expected | {"figures", "report.html", "saved_model"} <= cnn
    record = read_run(runs / "cnn")
    assert record["status"] == "finished"
    assert record["labels_used"] == 26
    assert len(record["history"]) <= 3
    assert {path.name for path in (runs / "cnn" / "checkpoints").iterdir()} == {
        *("best.weights.h5", "epoch_0002", "epoch_0003")
    }


def test_runs_record_their_networks_and_are_drawn_compared_and_studied_from_their_records(runs, tmp_path):
    cnn, probe = read_run(runs / "cnn"), read_run(runs / "probe")
    assert cnn["architecture"][-1]["shape"] == [2]
    assert sum(block["trained"] for block in cnn["architecture"]) > 0
    assert probe["architecture"] == saved_model.read_card(runs / "simclr" / "saved_model")["architecture"]
    assert probe["encoder"]["pretrain_images"] == 32
    for name in ("cnn", "probe"):
        assert len(list((runs / name / "figures").glob("diagram_*.png"))) == 3
        assert list((runs / name / "tensorboard").glob("*tfevents*"))
    methods = read_methods([f"{name}={runs / name}" for name in ("probe", "cnn")])
    found = study_report.write(methods, tmp_path, bootstrap=Bootstrap(20))
    assert [each.method.name for each in found.compared.standings] == ["cnn", "probe"]
    assert [role(each.method) for each in found.compared.standings] == [SUPERVISED, SELF_SUPERVISED]
    assert "How probe was made" in (tmp_path / "study.html").read_text()


def test_tensorboard_gets_scalars_and_images(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name, parts in (("cnn", ("",)), ("probe", ("", "study_head/")), ("simclr", ())):
        # One folder with event files is one run, and beyond 40 of them TensorBoard shows blank charts.
        assert {path.parent for path in (runs / name).rglob("*tfevents*")} == {runs / name / "tensorboard"}
        tags = EventAccumulator(str(runs / name / "tensorboard")).Reload().Tags()
        assert {f"{part}evaluation/overall/f1" for part in parts} <= set(tags["scalars"])
        if name == "cnn":
            curves = {f"curves/{tag}" for tag in ("loss", "val_loss", "learning_rate", "val_f1", "val_roc_auc")}
            assert curves | {"augmented_training_batch", "training_images"} <= {*tags["tensors"], *tags["images"]}


def test_a_killed_cnn_resumes_to_the_very_predictions_of_a_whole_run(runs, toy, tmp_path):
    flags = (f"--data_dir={toy}", f"--run_dir={tmp_path / 'cnn'}", *CNN)
    _kill_in_the_third_epoch(*flags)
    resumed = run_binary("train_cnn", *flags).stdout
    assert "Resumed from the checkpoint after" in resumed
    assert "epoch 1/3" not in resumed
    for name in ("predictions.csv", "metrics.json"):
        assert (tmp_path / "cnn" / name).read_bytes() == (runs / "cnn" / name).read_bytes()
    assert read_run(tmp_path / "cnn")["history"] == read_run(runs / "cnn")["history"]


def test_a_simclr_survives_sigterm_and_then_a_full_disk_and_resumes_to_the_very_encoder_of_a_whole_run(
    runs, toy, tmp_path, monkeypatch
):
    (tmp_path / "Größe M").symlink_to(toy)
    run_dir = tmp_path / "simclr"
    flags = (f"--data_dir={tmp_path / 'Größe M'}", f"--run_dir={run_dir}", *SIMCLR)
    terminated = _terminated(monkeypatch, *flags)
    assert terminated.returncode == 128 + signal.SIGTERM
    last = terminated.stderr.splitlines()[-1]
    assert last.startswith(f"ERROR: Stopped by SIGTERM after step 1/2 of epoch 3/3, which is saved in {run_dir}")
    assert f"To go on: python -m mvtec_tf.bin.train_simclr '{flags[0]}' " in last
    kept = sorted((run_dir / "checkpoints").rglob("*"))

    full = _on_a_full_disk(*flags)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith(f"ERROR: --run_dir={run_dir}: a file in {run_dir}")
    assert "is larger than the system allows" in full.stderr
    assert "Traceback" not in terminated.stderr + full.stderr
    assert sorted((run_dir / "checkpoints").rglob("*")) == kept
    assert [path for path in tmp_path.rglob("*") if "partial" in path.name or "temp" in path.name] == []
    assert read_run(run_dir)["status"] == "running"

    assert "Resumed from the checkpoint after step 1/2" in run_binary("train_simclr", *flags).stdout
    image = tf.constant([next(pathlib.Path(toy).rglob("*.png")).read_bytes()])
    outputs = [
        saved_model.load(root / "simclr" / "saved_model").signatures["embed"](image_bytes=image)
        for root in (runs, tmp_path)
    ]
    for name, value in outputs[0].items():
        np.testing.assert_array_equal(value, outputs[1][name])


def test_a_finished_run_says_so_and_its_flagfile_repeats_it(runs):
    before = (runs / "cnn" / "predictions.csv").stat().st_mtime_ns
    again = run_binary("train_cnn", f"--flagfile={runs / 'cnn' / 'flags.txt'}")
    assert "finished" in again.stdout
    assert again.stdout.splitlines()[-1] == str(runs / "cnn")
    assert (runs / "cnn" / "predictions.csv").stat().st_mtime_ns == before


def test_another_recipe_in_the_same_directory_is_refused(runs, toy):
    done = run_binary("train_cnn", f"--data_dir={toy}", f"--run_dir={runs / 'cnn'}", *CNN, "--seed=5", check=False)
    assert done.returncode == 1
    assert "--seed: 0 there, 5 here" in done.stderr


def test_both_models_are_judged_on_the_same_images(runs):
    tables = [read_predictions(runs / name / "predictions.csv") for name in ("cnn", "probe", "probe/study_head")]
    paths = [set(table.part("evaluate").path) for table in tables]
    assert paths[0] == paths[1] == paths[2]
    assert len(paths[0]) == 26


def test_the_probe_calibrates_on_out_of_fold_scores(runs, toy):
    table = read_predictions(runs / "probe" / "predictions.csv")
    fit, calibrate = table.part("fit"), table.part("calibrate")
    assert set(calibrate.path) <= set(fit.path)
    assert calibrate.label.sum() > 1
    scores = dict(zip(fit.path, fit.score, strict=True))
    assert [scores[path] for path in calibrate.path] == calibrate.score.tolist()
    own = scoring.score_files(runs / "probe" / "saved_model", [str(toy / path) for path in calibrate.path]).score
    assert (np.abs(own - calibrate.score) > 1e-3).any()
    assert set(table.part("pretrain").label) == {0}


def test_the_study_head_is_reported_as_it_is(runs):
    assert (runs / "probe" / "study_head" / "report.html").is_file()
    metrics = json.loads((runs / "probe" / "study_head" / "metrics.json").read_text())
    assert metrics["threshold"]["value"] == 0.0
    assert metrics["summary"]


def test_the_same_bytes_give_the_same_scores_by_four_roads(four_roads, strangers):
    """In memory, the row of the table, the SavedModel here, and a process without this package; trained
    and untrained, two sizes, PNG and JPEG, grey and colour, batches of 1 and 7."""
    files, models = four_roads
    for size, (path, network) in models.items():
        images = np.stack([pixels.decode_and_resize(tf.io.read_file(file), size) for file in files])
        expected = log_odds(network(images, training=False)).numpy()
        serve = saved_model.load(path).signatures["serving_default"]
        here = serve(image_bytes=tf.constant([pathlib.Path(file).read_bytes() for file in files]))
        np.testing.assert_allclose(here["anomaly_score"], expected, atol=1e-5)
        np.testing.assert_allclose(strangers[str(path), 7]["anomaly_score"], expected, atol=1e-5)
        np.testing.assert_allclose(strangers[str(path), 1]["anomaly_score"], expected[:1], atol=1e-5)


def test_every_row_of_the_tables_is_what_the_exports_answer(runs, evaluated, strangers):
    for name, table in evaluated.items():
        answer = strangers[str(runs / "saved_models" / name / "1"), 7]
        np.testing.assert_allclose(answer["anomaly_score"], table.score[:7], atol=1e-5)
        np.testing.assert_allclose(answer["probability"], table.probability[:7], atol=1e-5)
        metrics = json.loads((runs / name / "metrics.json").read_text())
        np.testing.assert_allclose(answer["threshold"], metrics["threshold"]["value"], rtol=1e-6)
        calls = np.array(answer["anomaly_score"]) >= metrics["threshold"]["value"]
        assert answer["label"] == calls.astype(int).tolist()


def test_an_exported_encoder_is_what_the_run_keeps_without_this_package_too(runs, four_roads, strangers):
    image = tf.constant([pathlib.Path(four_roads[0][0]).read_bytes()])
    kept = saved_model.load(runs / "simclr" / "saved_model").signatures["embed"](image_bytes=image)
    answer = strangers[str(runs / "saved_models" / "simclr" / "1"), 1]
    for name, value in kept.items():
        np.testing.assert_allclose(answer[name], value, atol=1e-5)


def test_an_encoder_that_saw_an_evaluated_image_is_stopped_as_a_leak(runs, toy, tmp_path):
    table = read_predictions(runs / "probe" / "predictions.csv")
    guilty = str(table.part("evaluate").path[0])
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for item in (runs / "simclr" / "saved_model").iterdir():
        (encoder / item.name).symlink_to(item) if item.name != saved_model.EXTRA else None
    card = saved_model.read_card(runs / "simclr" / "saved_model")
    card["pretrain_images"].append({"path": guilty, "group": guilty, "category": guilty.split("/")[0]})
    (encoder / saved_model.EXTRA).mkdir()
    (encoder / saved_model.EXTRA / saved_model.CARD).write_text(json.dumps(card))
    flags = (f"--data_dir={toy}", f"--encoder={encoder}", f"--run_dir={tmp_path / 'run'}")
    done = run_binary("fit_probe", *flags, "--label_budget=0.25", check=False)
    assert done.returncode == 1
    assert guilty in done.stderr


def _trained_network(run):
    network = build_classifier(build_backbone("resnet10", 32))
    network.load_weights(run / "checkpoints" / "best.weights.h5")
    return keras.Model(network.inputs, network.outputs[0])


def _seven_files(toy, folder):
    """PNG and JPEG, grey and colour, of sizes that are not the network's."""
    sources = sorted(pathlib.Path(toy).rglob("test/*/*.png"))[:7]
    files = []
    for number, source in enumerate(sources):
        image = Image.open(source).resize((50 + 13 * number, 90)).convert("L" if number % 2 else "RGB")
        files.append(str(folder / f"{number}.{'jpg' if number % 3 else 'png'}"))
        image.save(files[-1])
    return files


def _ask_a_stranger(jobs, folder):
    script, questions, answers = (folder / name for name in ("ask.py", "questions.json", "answers.json"))
    script.write_text(_STRANGER)
    questions.write_text(json.dumps(jobs))
    package_root = pathlib.Path(saved_model.__file__).parents[2]
    subprocess.run(
        [sys.executable, script, package_root, questions, answers], check=True, cwd=folder, capture_output=True
    )
    return json.loads(answers.read_text())
