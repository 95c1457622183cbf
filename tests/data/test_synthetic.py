"""Drawn defects: where they lie, what they leave alone, and that a seed says all of it."""

import re

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.data import poisson, synthetic
from mvtec_tf.data.augment_settings import SYNTHETIC_DEFECTS
from mvtec_tf.data.defect_patches import Bank
from mvtec_tf.errors import UsageError
from mvtec_tf.jobs import checks
from mvtec_tf.jobs.settings import TrainClassifierSettings
from tests.support.in_process import run_in_process
from tests.support.tiny_network import in_place_of_resnet10

SIDE, COUNT = 64, 8
_PATCH = np.random.default_rng(2).integers(0, 256, (16, 16, 4)).astype(np.uint8)
_PATCH[..., 3] = 0
_PATCH[4:9, 5:12, 3] = 255
BANK = Bank(np.stack([_PATCH, _PATCH.swapaxes(0, 1)]), np.array([0.25, 0.5], np.float32), [("elsewhere", "", "c")])


@pytest.fixture(scope="module")
def textures():
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def seeds():
    return np.stack([np.arange(COUNT), np.full(COUNT, 3)], axis=1)


@pytest.fixture(scope="module")
def drawn(textures, seeds):
    """kind -> (images, masks)."""
    draw = tf.function(synthetic.with_defects)
    return {kind: [one.numpy() for one in draw(textures, seeds, (kind,), None, BANK)] for kind in SYNTHETIC_DEFECTS}


@pytest.mark.parametrize("kind", SYNTHETIC_DEFECTS)
def test_a_defect_is_there_and_the_rest_keeps_every_bit(textures, drawn, kind):
    images, masks = drawn[kind]
    assert images.dtype == np.uint8
    for before, after, mask in zip(textures, images, masks, strict=True):
        assert mask.any()
        np.testing.assert_array_equal(before[~mask], after[~mask])
        assert (before[mask] != after[mask]).any()


def test_cuts_scars_and_blobs_have_the_papers_sizes(drawn):
    shares = {kind: masks.mean(axis=(1, 2)) for kind, (_, masks) in drawn.items()}
    # A cut at the edge of the image lies partly outside; pixels are whole.
    assert shares["cutpaste"].max() <= 0.17
    assert np.median(shares["cutpaste"]) > 0.02
    # 2 x 10 to 16 x 25 pixels of 256 x 256.
    assert shares["scar"].max() <= 2 * 16 * 25 / 256**2
    assert shares["perlin"].min() >= 0.005 * 0.9
    assert shares["perlin"].max() <= 0.1 * 1.1
    # Half of a side is 3 to 20 % of the image's, by at most 1.3.
    assert np.median(shares["nsa"]) > 0.01
    assert shares["nsa"].max() <= (0.4 * 1.3 + 1 / SIDE) ** 2


def test_a_blended_patch_solves_poissons_equation():
    """Against dense equations, written down pixel by pixel: a region with a hole, two parts, and three edges."""
    rng = np.random.default_rng(4)
    image, source = (rng.integers(100, 140, (9, 8, 3)).astype(np.uint8) for _ in range(2))
    region = np.zeros((9, 8), bool)
    region[1:6, :4] = region[6:, 5:] = True
    region[3, 2] = False
    pixels = [tuple(place) for place in np.argwhere(region)]
    matrix, right = np.zeros((len(pixels),) * 2), np.zeros((len(pixels), 3))
    for row, (y, x) in enumerate(pixels):
        for other in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= other[0] < 9 and 0 <= other[1] < 8):
                continue
            matrix[row, row] += 1
            right[row] += source[y, x].astype(float) - source[other]
            if region[other]:
                matrix[row, pixels.index(other)] -= 1
            else:
                right[row] += image[other]
    expected = image.copy()
    expected[region] = np.rint(np.linalg.solve(matrix, right))
    np.testing.assert_array_equal(poisson.clone(image, source, region), expected)
    # What differs by a constant only leaves no trace.
    np.testing.assert_array_equal(poisson.clone(image, image - 30, region), image)


def test_a_blended_patch_is_one_of_the_other_image(seeds):
    flat = np.full((COUNT, SIDE, SIDE, 3), 120, np.uint8)
    stripes = np.where(np.arange(SIDE)[:, None, None] % 6 < 3, 90, 150) * np.ones((1, SIDE, 1, 3))
    others = np.broadcast_to(stripes, flat.shape).astype(np.uint8)
    images, masks = synthetic.with_defects(tf.constant(flat), tf.constant(seeds), ("nsa",), tf.constant(others))
    for image, mask in zip(images.numpy(), masks.numpy(), strict=True):
        assert (image[~mask] == 120).all()
        # Stripes lie across: a line of them is even but where it fades at the patch's sides.
        assert image[mask].astype(int).std() > 3
    alone, masks = synthetic.with_defects(tf.constant(flat[:1]), tf.constant(seeds[:1]), ("nsa",))
    assert masks.numpy().any()
    np.testing.assert_array_equal(alone, flat[:1])


def test_one_seed_gives_the_same_pixels_in_another_batch(textures, seeds):
    others = textures[::-1]
    given = [tf.constant(textures), tf.constant(seeds), SYNTHETIC_DEFECTS, tf.constant(others), BANK]
    whole = synthetic.with_defects(*given)
    draw = tf.function(synthetic.with_defects)
    part = draw(textures[3:5], seeds[3:5], SYNTHETIC_DEFECTS, others[3:5], BANK)
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[3:5], other)
    other = draw(textures[3:5], seeds[4:6], SYNTHETIC_DEFECTS, others[3:5], BANK)
    assert (other[1].numpy() != part[1].numpy()).any()


def test_a_part_before_a_uniform_background_is_where_defects_lie(seeds):
    rng = np.random.default_rng(1)
    part = np.zeros((SIDE, SIDE), bool)
    part[20:50, 15:40] = True
    images = np.where(part[..., None], rng.integers(0, 100, (COUNT, SIDE, SIDE, 3)), 230).astype(np.uint8)
    np.testing.assert_array_equal(synthetic.foreground(tf.constant(images[0])).numpy(), part)
    for kind in SYNTHETIC_DEFECTS:
        _, masks = synthetic.with_defects(tf.constant(images), tf.constant(seeds), (kind,), None, BANK)
        assert not (masks.numpy() & ~part).any()


SLOPE = np.arange(SIDE * SIDE * 3).reshape(SIDE, SIDE, 3) % 256


@pytest.mark.parametrize("image", [np.full((SIDE, SIDE, 3), 90), SLOPE])
def test_without_a_part_before_a_background_all_of_the_image_is_part(image):
    assert synthetic.foreground(tf.constant(image.astype(np.uint8))).numpy().all()


def test_perlins_noise_is_that_of_a_loop_over_pixels():
    cells, seed = np.array([4, 2]), np.array([5, 6])
    noise = synthetic._perlin(SIDE, tf.constant(cells, tf.float32), tf.constant(seed)).numpy()
    own = tf.random.experimental.stateless_fold_in(seed, tf.constant(synthetic._STREAM, tf.int64), alg="philox")
    side = 2**synthetic._CELLS + 1
    angles = 2 * np.pi * tf.random.stateless_uniform((side, side), own, alg="philox").numpy()

    def fade(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    for row, column in [(0, 0), (16, 32), (3, 5), (40, 63), (63, 1)]:
        y, x = row * cells[0] / SIDE, column * cells[1] / SIDE
        top, left = int(y), int(x)
        value = 0.0
        for down in (0, 1):
            for right in (0, 1):
                angle = angles[top + down, left + right]
                dot = np.sin(angle) * (y - top - down) + np.cos(angle) * (x - left - right)
                weights = [fade(t) if far else 1 - fade(t) for t, far in ((y - top, down), (x - left, right))]
                value += weights[0] * weights[1] * dot
        assert noise[row, column] == pytest.approx(value, abs=1e-5)
    # The papers' noise is zero on its lattice.
    np.testing.assert_allclose(noise[::16, ::32], 0.0, atol=1e-6)


def test_only_good_images_get_one_and_then_count_as_defective(textures):
    count = 100
    images = tf.constant(np.repeat(textures[:1], count, axis=0))
    labels = tf.constant(np.arange(count) % 2)
    seeds = tf.constant(np.stack([np.arange(count), np.zeros(count)], axis=1).astype(np.int64))
    changed, after = tf.function(synthetic.on_some)(images, labels, seeds, 0.3, SYNTHETIC_DEFECTS, BANK)
    touched = (changed.numpy() != images.numpy()).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(touched, after.numpy() != labels.numpy())
    assert not touched[labels.numpy() == 1].any()
    assert touched[labels.numpy() == 0].mean() == pytest.approx(0.3, abs=0.15)


@pytest.mark.parametrize(("asked", "said"), [
    ({"synthetic_defects": 0.5, "synthetic_kinds": ("scar", "rust")}, "`synthetic_kinds`=scar,rust: no 'rust'; there"),
    ({"synthetic_defects": 0.5, "synthetic_kinds": ()}, "none is named"),
    ({"synthetic_kinds": ("nsa",)}, "`synthetic_defects`=0 draws none"),
])  # fmt: skip
def test_kinds_that_are_not_there_or_never_drawn_are_refused(asked, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        checks.of_training(TrainClassifierSettings(data_dir=("x",), run_dir="y", **asked))


@pytest.mark.slow
def test_the_network_is_trained_without_any_real_defect(toy, tmp_path):
    asked = (
        f"--data_dir={toy}", "--categories=flange", "--backbone=resnet10", "--weights=none", "--image_size=32",
        "--epochs=1", "--batch_size=8", "--label_budget=0",
    )
    refused = run_in_process("train_cnn", *asked, f"--run_dir={tmp_path / 'without'}", check=False)
    assert refused.returncode == 1
    assert "`--synthetic_defects`=0.5" in refused.stderr.replace("--synthetic_defects=", "`--synthetic_defects`=")
    both = run_in_process(
        "train_cnn", *asked, f"--run_dir={tmp_path / 'run'}", "--synthetic_defects=0.5", "--balanced_sampling",
        check=False,
    )
    assert both.returncode == 2
    assert "--balanced_sampling draws by the labels on file" in both.stderr.replace("`", "")
    with in_place_of_resnet10():
        done = run_in_process(
            "train_cnn", *asked, f"--run_dir={tmp_path / 'run'}", "--synthetic_defects=0.5",
            "--synthetic_kinds=scar,nsa",
        )  # fmt: skip
    assert "No validation image is defective" in done.stdout
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Good images with drawn defects were fitted as defective ones." in report
