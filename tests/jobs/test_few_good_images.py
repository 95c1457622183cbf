"""Hardly any good images, through all of `fit` with the recipe's head: a message that helps or a defined result."""

import json
import shutil

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mvtec_tf.errors import UserError
from mvtec_tf.jobs.fit import fit
from mvtec_tf.jobs.settings import FitSettings

pytestmark = pytest.mark.slow


def _line(root, toy, train):
    """A category with these good training images, four good and four defective test images."""
    for folder, files in {
        "train/good": train,
        "test/good": sorted((toy / "flange/test/good").iterdir())[:4],
        "test/chip": sorted((toy / "flange/test/chip").iterdir())[:4],
    }.items():
        (root / "flange" / folder).mkdir(parents=True)
        for number, file in enumerate(files):
            shutil.copy(file, root / "flange" / folder / f"{number}.png")
    return root / "flange"


def _fit(data, run, budget, encoder):
    return fit(
        FitSettings(
            data_dir=(str(data),),
            run_dir=str(run),
            encoder=str(encoder),
            head="fused",
            label_budget=budget,
        )
    )


def test_of_two_good_images_it_says_how_many_are_needed_and_what_makes_do_with_them(toy, small_encoder, tmp_path):
    data = _line(tmp_path, toy, sorted((toy / "flange/train/good").iterdir())[:2])
    with pytest.raises(UserError, match=r"needs good images of at least 3 objects, found 2 of 2.*patchcore"):
        _fit(data, tmp_path / "run", "0", small_encoder)
    assert not (tmp_path / "run" / "report.html").exists()


def test_one_good_training_image_and_labelled_good_ones_are_enough_and_the_threshold_warns(
    toy, small_encoder, tmp_path
):
    data = _line(tmp_path, toy, sorted((toy / "flange/train/good").iterdir())[:1])
    run = _fit(data, tmp_path / "run", "all", small_encoder)
    document = json.loads((run.path / "metrics.json").read_text())
    assert document["threshold"]["images"] == 5
    assert "chosen on only 3 good and 2 defective calibrate images" in document["threshold"]["warning"]


@pytest.mark.parametrize("budget", ["0", "all"])
def test_good_training_images_that_are_copies_of_one(budget, toy, small_encoder, tmp_path):
    first = sorted((toy / "flange/train/good").iterdir())[0]
    files = [tmp_path / f"{number}.png" for number in range(6)]
    for file in files:
        # The same pixels in other files: of exact copies one is used.
        told = PngInfo()
        told.add_text("number", file.stem)
        with Image.open(first) as image:
            image.save(file, pnginfo=told)
    data = _line(tmp_path, toy, files)
    if budget == "0":
        with pytest.raises(UserError, match="The features of all 6 images are the same numbers"):
            _fit(data, tmp_path / "run", budget, small_encoder)
        return
    document = json.loads((_fit(data, tmp_path / "run", budget, small_encoder).path / "metrics.json").read_text())
    assert document["threshold"]["value"] is not None
