"""An image that cannot be used stops a job with its name, or is left out, counted and listed; never half of either."""

import json
import shutil

import pytest
from PIL import Image

from mvtec_tf.data.record import MAX_PIXELS
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.run_directory import read_run
from tests.conftest import run_binary
from tests.support.tiny_network import in_place_of_resnet10

PROBE = ("--weights=none", "--backbone=resnet10", "--image_size=32", "--label_budget=0.25")


@pytest.fixture
def spoilt(toy, tmp_path):
    """One category with three images that cannot be used: (folder, their names in every table)."""
    source = sorted(path for path in toy.iterdir() if path.is_dir())[0]
    category = tmp_path / "Größe M" / source.name
    shutil.copytree(source, category)
    defective = sorted(path for path in (category / "test").iterdir() if path.name != "good")[0]
    whole = (defective / "000.png").read_bytes()
    (defective / "001.png").write_bytes(whole[: len(whole) // 2])
    (category / "train" / "good" / "Prüfling  3.png").write_bytes(b"")
    (category / "test" / "good" / "002.png").write_text("<html>404</html>")
    names = (f"test/{defective.name}/001.png", "test/good/002.png", "train/good/Prüfling  3.png")
    return category, {f"{source.name}/{name}" for name in names}


@pytest.mark.parametrize(
    ("name", "flags"),
    [("train_cnn", ("--weights=none", "--backbone=resnet10", "--image_size=32")), ("fit_probe", PROBE)],
)
def test_a_bad_image_stops_the_job_is_named_and_leaves_nothing_behind(name, flags, spoilt, tmp_path):
    folder, _ = spoilt
    run_dir = tmp_path / "run"
    done = run_binary(name, f"--data_dir={folder}", f"--run_dir={run_dir}", *flags, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{folder}/train/good/Prüfling  3.png: expected a PNG, JPEG or BMP image, found an empty file" in done.stderr
    assert "--on_bad_image=skip" in done.stderr
    if name == "train_cnn":  # it looks at all images before it begins
        assert "002.png: expected a PNG, JPEG or BMP image, found a text (HTML, SVG or XML)." in done.stderr
        assert "001.png: a truncated or damaged PNG image." in done.stderr
        assert "3 of " in done.stderr
    assert not run_dir.exists()


def test_bad_images_are_left_out_before_the_cut_counted_and_listed(spoilt, tmp_path):
    folder, bad = spoilt
    run_dir = tmp_path / "run"
    flags = (f"--data_dir={folder}", f"--run_dir={run_dir}", "--image_size=32", "--on_bad_image=skip")
    done = run_binary("fit_baseline", *flags)
    assert "Left out: 3 images: " in done.stdout
    record = read_run(run_dir)
    assert {item["path"] for item in record["skipped_images"]} == bad
    report = (run_dir / "report.html").read_text()
    for item in record["skipped_images"]:
        assert f"{item['path']} ({item['reason']})" in done.stdout
        assert item["path"] in report
    assert "Images left out" in report
    assert record["data"]["images"] == len(list(folder.glob("t*/*/*.png"))) - 3
    assert not bad & set(read_predictions(run_dir / "predictions.csv").path)

    # The same data without these files is the same run; with one of them repaired it is another.
    assert "finished" in run_binary("fit_baseline", *flags).stdout
    Image.open(folder / "train" / "good" / "000.png").rotate(180).save(folder / "train" / "good" / "Prüfling  3.png")
    other = run_binary("fit_baseline", *flags, check=False)
    assert other.returncode == 1
    assert "the images, their labels or other files that it reads are not the same" in other.stderr


def test_a_probe_leaves_bad_images_out_too(spoilt, tmp_path):
    folder, bad = spoilt
    run_dir = tmp_path / "run"
    with in_place_of_resnet10():
        run_binary("fit_probe", f"--data_dir={folder}", f"--run_dir={run_dir}", *PROBE, "--on_bad_image=skip")
    assert {item["path"] for item in read_run(run_dir)["skipped_images"]} == bad
    assert not bad & set(read_predictions(run_dir / "predictions.csv").path)
    card = json.loads((run_dir / "saved_model" / "assets.extra" / "mvtec_tf.json").read_text())
    assert card["max_pixels"] == MAX_PIXELS
