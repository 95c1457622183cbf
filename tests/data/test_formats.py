"""Every kind of image file gives the same pixels and the same score on every road, or is refused by name on all."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.data.decoding import image_store, pixels
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.record import Record
from mvtec_tf.errors import UserError
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.networks.classifier import log_odds
from tests.support import image_samples, small_run

GOOD, JPEGS, REFUSED = image_samples.good(), image_samples.jpegs(), image_samples.refused()

# A process with TensorFlow alone: each file by itself, then the good ones together, and its memory at the end.
_STRANGER = """
import json, resource, sys
sys.path[:] = [p for p in sys.path if p not in ("", sys.argv[1])]
sys.modules["mvtec_tf"] = None
import tensorflow as tf
jobs = json.load(open(sys.argv[2]))
serve = tf.saved_model.load(jobs["model"]).signatures["serving_default"]
read = lambda files: tf.constant([open(f, "rb").read() for f in files])
def ask(file):
    try:
        return float(serve(image_bytes=read([file]))["anomaly_score"][0])
    except tf.errors.InvalidArgumentError as error:
        return error.message
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answers = {name: ask(file) for name, file in jobs["files"].items()}
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
batch = serve(image_bytes=read(jobs["batch"]))["anomaly_score"].numpy().tolist()
json.dump({"answers": answers, "batch": batch, "grown_kb": grown}, open(sys.argv[3], "w"))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """name -> file."""
    folder = tmp_path_factory.mktemp("files")
    named = {}
    for name, (content, _) in (GOOD | JPEGS | REFUSED).items():
        suffix = ".jpg" if "jpeg" in name else ".bmp" if name.startswith("bmp") else ".png"
        named[name] = folder / f"{name.replace('/', '_')}{suffix}"
        named[name].write_bytes(content)
    return named


@pytest.fixture(scope="module")
def network():
    return small_run.small_classifier()


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "saved_model"
    saved_model.write_classifier(path, network, {"run": {}})
    return path


@pytest.fixture(scope="module")
def signature(model):
    return saved_model.load(model).signatures["serving_default"]


@pytest.fixture(scope="module")
def scored(model, files):
    """name -> score, of one call."""
    names = [*GOOD, *JPEGS]
    scores = scoring.score_files(model, [str(files[name]) for name in names], batch_size=7)
    return dict(zip(names, scores.score, strict=True))


@pytest.fixture(scope="module")
def loaded(files):
    """name -> pixels, of one call."""
    names = [*GOOD, *JPEGS]
    images = ImageStore(small_run.SIZE).load([_record(files[name]) for name in names])
    return dict(zip(names, images, strict=True))


@pytest.fixture(scope="module")
def stranger(model, files, tmp_path_factory):
    """Answers of a process without this package."""
    folder = tmp_path_factory.mktemp("stranger")
    script, questions, answers = (folder / name for name in ("ask.py", "questions.json", "answers.json"))
    script.write_text(_STRANGER)
    jobs = {"model": str(model), "files": {name: str(file) for name, file in files.items()}}
    questions.write_text(json.dumps(jobs | {"batch": [str(files[name]) for name in GOOD]}))
    root = pathlib.Path(saved_model.__file__).parents[2]
    subprocess.run([sys.executable, script, root, questions, answers], check=True, cwd=folder, capture_output=True)
    return json.loads(answers.read_text())


@pytest.fixture(scope="module")
def verdicts(files):
    """(store, readable names, name -> reason) of all files in one pass."""
    store = image_store.ImageStore(small_run.SIZE)
    names = {str(file): name for name, file in files.items()}
    good, bad = store.readable([_record(file) for file in files.values()])
    return store, [names[one.file] for one in good], {names[one.record.file]: one.reason for one in bad}


def _record(file):
    return Record(str(file), str(file), "cap", "good", 0, "train", str(file))


def _expected(name):
    if name in GOOD:
        return GOOD[name][1]
    content, orientation = JPEGS[name]
    bare = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    return image_samples.turned(bare, orientation) if orientation != 1 else bare


@pytest.mark.parametrize("name", [*GOOD, *JPEGS])
def test_a_format_gives_the_same_pixels_and_score_on_every_road(name, files, network, loaded, scored):
    expected = _expected(name)
    np.testing.assert_array_equal(pixels.decode(tf.constant(files[name].read_bytes())), expected)
    resized = pixels.resize(tf.constant(expected), small_run.SIZE).numpy()
    np.testing.assert_array_equal(loaded[name], resized)
    score = float(log_odds(network(resized[None], training=False))[0])
    assert scored[name] == pytest.approx(score, abs=1e-5)


def test_a_truncated_jpeg_is_refused_before_libjpeg_writes_to_stderr(capfd):
    for name in [name for name, (_, words) in REFUSED.items() if words == "a truncated JPEG image"]:
        with pytest.raises(tf.errors.InvalidArgumentError, match="its end is missing"):
            pixels.decode(tf.constant(REFUSED[name][0]))
        assert "JPEG" not in capfd.readouterr().err, name


@pytest.mark.slow
def test_a_process_without_this_package_answers_and_refuses_alike_also_in_one_batch(stranger, scored):
    answers = stranger["answers"]
    assert {name: answers[name] for name in scored} == pytest.approx(scored, abs=1e-5)
    np.testing.assert_allclose(stranger["batch"], [answers[name] for name in GOOD], atol=1e-5)
    for name, (_, words) in REFUSED.items():
        # TensorFlow's own words for damage, ours for the rest.
        plain = r"Invalid (PNG|JPEG)|jpeg::Uncompress failed"
        assert re.search(plain if words.startswith("a truncated or damaged") else words, answers[name]), name
    # 60,000 x 60,000 pixels, which a header claims, would take 10 GB.
    assert stranger["grown_kb"] < 500_000


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_by_name_on_every_road(name, files, signature, verdicts):
    words = REFUSED[name][1]
    assert re.search(words, verdicts[2][name])
    with pytest.raises(UserError, match=f"{re.escape(str(files[name]))}: .*{words}"):
        scoring.run_signature(signature, [str(files["png colour"]), str(files[name])], "scored")


def test_loading_stops_at_the_first_bad_file_and_names_it(files):
    names = ["png colour", "jpeg cut", "text"]
    with pytest.raises(UserError, match=f"{re.escape(str(files['jpeg cut']))}: a truncated JPEG image"):
        ImageStore(small_run.SIZE).load([_record(files[name]) for name in names])


def test_one_pass_tells_the_good_from_the_bad_and_keeps_the_good_ones_pixels(files, verdicts, loaded, monkeypatch):
    store, good, bad = verdicts
    assert good == [*GOOD, *JPEGS]
    assert list(bad) == list(REFUSED)
    decode = image_store._each
    monkeypatch.setattr(image_store, "_each", lambda some, how: decode(some, how) if not some else pytest.fail("again"))
    kept = store.load([_record(files[name]) for name in GOOD])
    np.testing.assert_array_equal(kept, np.stack([loaded[name] for name in GOOD]))


def test_a_graph_has_the_limit_of_pixels_it_was_written_with(network, files, tmp_path):
    limit = image_samples.HEIGHT * image_samples.WIDTH - 1
    saved_model.write_classifier(tmp_path / "m", network, {"run": {}}, max_pixels=limit)
    assert saved_model.read_card(tmp_path / "m")["max_pixels"] == limit
    signatures = saved_model.load(tmp_path / "m").signatures
    for signature in ("serving_default", "embed", "explain"):
        scoring.run_signature(signatures[signature], [str(files["png of one pixel"])], "scored", 1)
        for name in ("png colour", "jpeg colour", "bmp colour"):
            words = f"{files[name].name}: .*50 x 37 pixels, 1850 in all; `max_pixels` allows 1849"
            with pytest.raises(UserError, match=words):
                scoring.run_signature(signatures[signature], [str(files[name])], "scored", 1)


def test_damage_anywhere_is_an_error_or_an_image_but_never_a_crash():
    """Cut and changed bytes at random places; the ops of the decoder see what no camera writes."""
    rng = np.random.default_rng(0)
    answers = []
    names = ("png palette of 16", "png of 16 bits turned", "jpeg turned 6<", "bmp palette of 4 bits", "bmp red last")
    for name in names:
        content = (GOOD | JPEGS)[name][0]
        for number in range(12):
            damaged = bytearray(content[: rng.integers(1, len(content)) if number % 2 else len(content)])
            for place in rng.integers(0, len(damaged), 3):
                damaged[place] = rng.integers(0, 256)
            answers.append(_pixels_or_error(bytes(damaged)))
    assert {type(answer) for answer in answers} == {tuple, tf.errors.InvalidArgumentError}


def _pixels_or_error(content):
    try:
        return tuple(pixels.decode(tf.constant(content), 10_000_000).shape)
    except tf.errors.InvalidArgumentError as error:
        return error
