"""Patches of labelled defects are learnt and drawn, reach a training, and never come from an evaluated image."""

import shutil
from unittest import mock

import pytest
from PIL import Image

from mvtec_tf.data import defect_patches
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.jobs import checks
from mvtec_tf.jobs import generate_defects as job
from mvtec_tf.jobs.settings import GenerateSettings, TrainClassifierSettings
from tests.support.in_process import run_in_process
from tests.support.tiny_network import in_place_of_resnet10, in_place_of_the_denoiser

pytestmark = pytest.mark.slow
SMALL = ("--image_size=64", "--width=8", "--epochs=1", "--steps_per_epoch=2", "--batch_size=4", "--patches=3")


@pytest.fixture(scope="module")
def generated(toy, tmp_path_factory):
    run = tmp_path_factory.mktemp("generated") / "run"
    with in_place_of_the_denoiser():
        run_in_process("generate_defects", f"--data_dir={toy / 'flange'}", f"--run_dir={run}", *SMALL)
    return run


def test_the_run_holds_what_it_has_drawn_and_what_that_was_learnt_from(generated, toy):
    drawn, cut = (defect_patches.read(generated / f"{name}.npz") for name in ("defect_patches", "cut_patches"))
    assert drawn.patches.shape == (3, 64, 64, 4)
    assert drawn.sources == cut.sources
    assert len(cut) >= 8 * len(cut.sources)
    assert Image.open(generated / "defect_patches.png").size == (12 * 64, 8 * 64 + 4)
    assert (generated / "denoiser.keras").stat().st_size > 0
    again = run_in_process("generate_defects", f"--data_dir={toy / 'flange'}", f"--run_dir={generated}", *SMALL)
    assert "nothing to do" in again.stdout


def test_a_run_whose_masks_were_drawn_anew_is_another_one(toy, tmp_path):
    data, run = shutil.copytree(toy / "flange", tmp_path / "flange"), tmp_path / "run"
    stopped = mock.patch.object(job.denoising, "train_denoiser", side_effect=KeyboardInterrupt)
    settings = GenerateSettings(data_dir=(str(data),), run_dir=str(run), image_size=64)
    with stopped, pytest.raises(KeyboardInterrupt):
        job.generate_defects(settings)
    for mask in (data / "ground_truth").rglob("*.png"):
        Image.open(mask).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(mask)
    with pytest.raises(UserError, match="other files that it reads are not the same"):
        job.generate_defects(settings)


@pytest.mark.parametrize(
    ("other", "why"),
    [("--seed=1", "evaluated image(s) were seen before"), ("--label_budget=0", "used that are not counted")],
)
def test_a_training_refuses_patches_of_images_that_it_judges_or_whose_labels_it_does_not_buy(
    generated, toy, tmp_path, other, why
):
    done = run_in_process(
        "train_cnn", f"--data_dir={toy}", "--categories=flange", "--backbone=resnet10", "--weights=none", other,
        "--image_size=32", "--synthetic_defects=0.5", "--synthetic_kinds=generated", f"--run_dir={tmp_path / 'run'}",
        f"--defect_patches={generated / 'defect_patches.npz'}", check=False,
    )  # fmt: skip
    assert done.returncode == 1
    said = done.stderr.replace("`", "")
    assert "which needs the --seed, --label_budget and --validation_share of this training" in said
    assert why in said
    assert not (tmp_path / "run").exists()


def test_a_training_with_the_same_seed_and_budget_blends_them_in(generated, toy, tmp_path):
    with in_place_of_resnet10():
        run_in_process(
            "train_cnn", f"--data_dir={toy}", "--categories=flange", "--backbone=resnet10", "--weights=none",
            "--image_size=32", "--epochs=1", "--batch_size=8", "--synthetic_defects=0.5",
            "--synthetic_kinds=scar,generated", f"--run_dir={tmp_path / 'run'}",
            f"--defect_patches={generated / 'defect_patches.npz'}",
        )  # fmt: skip
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Good images with drawn defects were fitted as defective ones." in report


def test_defects_without_masks_and_budgets_without_defects_are_refused(toy, tmp_path):
    for label, folder in (("good", "good"), ("defective", "scratch")):
        (tmp_path / "flange" / label).mkdir(parents=True)
        source = next(one for one in (toy / "flange" / "test").iterdir() if (one.name == "good") == (folder == "good"))
        for file in source.iterdir():
            (tmp_path / "flange" / label / file.name).write_bytes(file.read_bytes())
    done = run_in_process(
        "generate_defects", f"--data_dir={tmp_path / 'flange'}", f"--run_dir={tmp_path / 'run'}", *SMALL, check=False
    )
    assert done.returncode == 1
    assert "patches are cut around masks" in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()
    common = {"data_dir": ("x",), "run_dir": "y"}
    with pytest.raises(UsageError, match="`label_budget`=0 buys no labelled defect"):
        checks.of_generating(GenerateSettings(**common, label_budget="0"))
    with pytest.raises(UsageError, match="expected a multiple of 8"):
        checks.of_generating(GenerateSettings(**common, width=12))
    for asked in ({"synthetic_kinds": ("generated",)}, {"defect_patches": "x.npz"}):
        with pytest.raises(UsageError, match="`defect_patches` and `synthetic_kinds`=generated go together"):
            checks.of_training(TrainClassifierSettings(**common, synthetic_defects=0.5, **asked))
