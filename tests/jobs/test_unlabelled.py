"""Photographs without labels raise a threshold that no label was bought for; what they cannot say is said."""

import dataclasses
import json
import pathlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mvtec_tf.data import protocol
from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.errors import LeakError, UsageError, UserError
from mvtec_tf.evaluation import recorded, shift, thresholds
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.table import Predictions, read_predictions, rows
from mvtec_tf.evaluation.thresholds import choose_threshold
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES
from mvtec_tf.heads.fitting import FittedProbe
from mvtec_tf.jobs import checks, unlabelled
from mvtec_tf.jobs.fit import fit
from mvtec_tf.jobs.settings import FitSettings
from tests.support.tiny_network import in_place_of_resnet10

PIXELS = 10**6


def _write(folder, count, seed=0):
    """So many photographs of noise, each another; the folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def _cut(root):
    _write(root / "cap/train/good", 4, 1), _write(root / "cap/test/good", 4, 2), _write(root / "cap/test/chip", 4, 3)
    return protocol.clean(scan.scan([root / "cap"]), 0.0, 0)


def _held_out(scores):
    """A head's out-of-fold scores of good training images, and these."""
    images = [Record(f"cap/train/good/{i}", "", "cap", "good", 0, "train", str(i)) for i in range(len(scores))]
    head = SimpleNamespace(calibrate=lambda calibrations: None)
    return images, FittedProbe(head, np.arange(len(scores)), np.asarray(scores, np.float32))


def _moved(held_out, recent):
    noted = {}
    images, fitted = _held_out(held_out)
    found, basis = unlabelled.moved(SimpleNamespace(note=noted.update), np.asarray(recent, float), images, fitted)
    return found.calibrate_scores, basis, noted.get("unlabelled")


@pytest.mark.parametrize("more", [{"label_budget": "0.1"}, {}, {"protocol": "one_class"}, {"label_budget": "3d"}])
def test_with_labels_and_with_other_protocols_it_is_refused(more):
    said = FitSettings(data_dir=("x",), run_dir="run", weights="none", recipe="few_labels", unlabelled="new", **more)
    with pytest.raises(UsageError, match=r"`unlabelled`=new: goes with `protocol`=clean and `label_budget`=0"):
        checks.of_fit(said)
    checks.of_fit(dataclasses.replace(said, label_budget="0", protocol="clean"))


def test_a_folder_is_looked_through_as_by_predict_and_copies_count_once(tmp_path):
    folder = _write(tmp_path / "new/monday", 10)
    shutil.copy(folder / "3.png", tmp_path / "new/again.png")
    with Image.open(folder / "4.png") as image:
        image.save(folder / "4.bmp")
    found, left_out = unlabelled.find(str(tmp_path / "new"), _cut(tmp_path / "line"), PIXELS)
    assert (len(found), left_out) == (10, ())
    assert unlabelled.find(None, _cut(tmp_path / "other"), PIXELS) == ((), ())


def test_a_bad_photograph_is_left_out_and_listed_where_that_is_asked_for(tmp_path, capsys):
    cut, folder = _cut(tmp_path / "line"), _write(tmp_path / "new", 11)
    (folder / "5.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"5\.png: .* leave it out \(in a run: `on_bad_image`=skip\)"):
        unlabelled.find(str(folder), cut, PIXELS)
    capsys.readouterr()
    found, (left_out,) = unlabelled.find(str(folder), cut, PIXELS, "skip")
    assert (len(found), left_out.record.file) == (10, str(folder / "5.png"))
    assert f"Left out: 1 image: {folder / '5.png'} (" in capsys.readouterr().out
    (folder / "6.png").write_bytes(b"no image either")
    with pytest.raises(UserError, match="9 photographs of different contents, and at least 10"):
        unlabelled.find(str(folder), cut, PIXELS, "skip")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "expected a folder of photographs, found nothing"),
        ("a file", "expected a folder of photographs, found a file"),
        ("empty", "0 photographs of different contents, and at least 10 are needed"),
        ("copies", "1 photograph of different contents, and at least 10 are needed"),
        ("damaged", "5.png"),
    ],
)
def test_a_folder_that_says_nothing_is_refused_with_what_was_found(what, words, tmp_path):
    folder = tmp_path / "new"
    if what == "a file":
        folder.write_text("x")
    elif what != "nothing":
        _write(folder, 10 if what == "damaged" else 0)
    if what == "copies":
        _write(tmp_path / "one", 1)
        [shutil.copy(tmp_path / "one/0.png", folder / f"{i}.png") for i in range(12)]
    elif what == "damaged":
        (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:60])
    with pytest.raises(UserError, match=words):
        unlabelled.find(str(folder), _cut(tmp_path / "line"), PIXELS)


@pytest.mark.parametrize(
    ("part", "error", "words"), [("evaluate", LeakError, "is evaluated"), ("fit", UserError, "was fitted on")]
)
@pytest.mark.parametrize("name", ["renamed.png", "stored_anew.png", "stored_anew.bmp"])
def test_images_of_the_run_under_other_names_are_refused_by_their_contents(part, error, words, name, tmp_path):
    cut, folder = _cut(tmp_path / "line"), _write(tmp_path / "new", 10)
    record = getattr(cut, part)[0]
    if name == "renamed.png":
        shutil.copy(record.file, folder / name)
    else:
        with Image.open(record.file) as image:
            image.save(folder / name, **({"compress_level": 1} if name.endswith("png") else {}))
    with pytest.raises(error, match=rf"{name} is the image {record.path}, which {words}"):
        unlabelled.find(str(folder), cut, PIXELS)


def test_an_image_of_the_run_that_cannot_be_read_is_left_to_the_fit_to_name(tmp_path):
    cut, folder = _cut(tmp_path / "line"), _write(tmp_path / "new", 10)
    pathlib.Path(cut.evaluate[0].file).write_bytes(b"no image")
    assert len(unlabelled.find(str(folder), cut, PIXELS)[0]) == 10


def test_of_several_categories_nothing_says_which_a_photograph_shows(tmp_path):
    cut, folder = _cut(tmp_path / "line"), _write(tmp_path / "new", 10)
    other = dataclasses.replace(cut.train_good[0], category="nut")
    with pytest.raises(UserError, match="nothing says which of the 2 categories"):
        unlabelled.find(str(folder), dataclasses.replace(cut, train_good=(*cut.train_good, other)), PIXELS)


@pytest.mark.parametrize("defective", [0, 4])
def test_under_another_lamp_the_promise_is_kept_also_if_a_fifth_of_the_photographs_are_defective(defective):
    rng = np.random.default_rng(0)
    passed, before = [], []
    for _ in range(100):
        held_out, new = rng.normal(size=80), rng.normal(2, 1, 300)
        recent = np.concatenate([rng.normal(2, 1, 20 - defective), rng.normal(8, 1, defective)])
        scores, _, _ = _moved(held_out, recent)
        cuts = [choose_threshold(np.zeros(80, int), each).value for each in (held_out, scores)]
        before.append(np.mean(new < cuts[0]))
        passed.append(np.mean(new < cuts[1]))
    assert np.mean(before) < 0.5
    assert 0.93 < np.mean(passed) < 0.985


def test_a_fifth_of_defects_alone_is_no_shift_and_without_one_the_threshold_is_left():
    rng = np.random.default_rng(1)
    said = []
    for _ in range(100):
        held_out = rng.normal(size=80)
        scores, basis, noted = _moved(held_out, np.concatenate([rng.normal(size=40), rng.normal(8, 1, 10)]))
        said.append(noted["raised_by"] > 0)
        assert np.array_equal(scores, held_out.astype(np.float32)) != said[-1]
        assert basis.endswith("so the threshold was left as it is.") != said[-1]
    assert np.mean(said) < 0.05


def test_photographs_that_score_lower_never_lower_a_threshold_that_promises_something():
    held_out = np.arange(50.0)
    scores, basis, noted = _moved(held_out, np.arange(20.0) - 60)
    np.testing.assert_array_equal(scores, held_out)
    assert noted["shown"]
    assert "score lower than the held-out good training images" in basis
    assert basis.endswith("so the threshold was left as it is.")


def test_of_a_folder_of_defects_alone_the_threshold_is_defined_and_what_cannot_be_known_is_said():
    scores, basis, _ = _moved(np.arange(50.0), np.arange(20.0) + 500)
    # The medians are 24.5 and 509.5.
    np.testing.assert_array_equal(scores, np.arange(50.0) + 485)
    assert "if more are, which no score can tell, defects pass" in basis
    assert "All of them score above every held-out good image: look at some" in basis


def test_the_test_counts_out_the_highest_fifth_and_the_size_is_that_of_all():
    held_out = np.arange(40.0)
    recent = np.concatenate([np.arange(16.0) * 2 + 10.5, [900.0] * 4])
    held = Predictions.from_rows(rows(_held_out(held_out)[0], "calibrate", held_out))
    found = shift.of_unlabelled(held, recent)
    expected = stats.mannwhitneyu(recent[:16], held_out, alternative="two-sided", method="asymptotic")
    assert (found.p, found.evaluated) == (pytest.approx(expected.pvalue), 20)
    assert found.difference == np.median(recent) - 19.5


@pytest.mark.slow
def test_a_run_on_images_of_several_sizes_rests_on_new_photographs_and_its_table_comes_to_the_same_threshold(
    toy, tmp_path, monkeypatch
):
    """Every second photograph is of another size and shape; those of today have stripes."""
    for number, file in enumerate(sorted((toy / "flange").rglob("*.png"))):
        target = tmp_path / "flange" / file.relative_to(toy / "flange")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.resize((80, 56) if number % 2 else image.size).save(target)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    for file in sorted((toy / "flange" / "train").rglob("*.png")):
        pixels = np.array(Image.open(file).convert("RGB"))
        pixels[::4] //= 2
        Image.fromarray(pixels).save(tmp_path / "new" / file.name)
    monkeypatch.setitem(RECIPES, FEW_LABELS, dataclasses.replace(RECIPES[FEW_LABELS], image_size=64))
    said = FitSettings(
        data_dir=(str(tmp_path / "flange"),),
        run_dir=str(tmp_path / "run"),
        weights="none",
        backbone="resnet10",
        recipe="few_labels",
        label_budget="0",
        unlabelled=str(tmp_path / "new"),
        on_bad_image="skip",
    )
    with in_place_of_resnet10():
        run = fit(said)
    document = json.loads((run.path / "metrics.json").read_text())
    assert "The threshold rests on 16 photographs without labels" in document["summary"]
    record = json.loads((run.path / "run.json").read_text())
    assert [one["path"] for one in record["skipped_images"]] == [str(tmp_path / "new" / "broken.png")]
    assert "broken.png" in (run.path / "report.html").read_text()
    assert fit(said).finished
    raised = record["unlabelled"]
    assert raised["raised_by"] == pytest.approx(raised["difference"])
    table = read_predictions(run.path / "predictions.csv")
    judging = recorded.of_table(run.path / "predictions.csv", table)
    chosen = thresholds.choose(table, ("flange",), judging.rule, Costs(), Bootstrap(0))
    assert chosen.whole.value == document["threshold"]["value"]
    assert judging.basis in document["summary"]
    # Another folder of photographs is another run.
    (tmp_path / "new" / "000.png").unlink()
    with pytest.raises(UserError, match="belongs to another run"):
        fit(said)
