"""Augmentation: the same pixels for the same seed everywhere, and each change what it claims to be."""

import colorsys
import functools
import hashlib
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from mvtec_tf.data import augment
from mvtec_tf.data.augment import ClassifierAugmentation, ContrastiveAugmentation, augment_classifier, two_views
from mvtec_tf.errors import UserError

CLASSIFIER_OFF = {
    "horizontal_flip": 0.0,
    "vertical_flip": 0.0,
    "rotation_probability": 0.0,
    "jitter_probability": 0.0,
    "blur_probability": 0.0,
}
CONTRASTIVE_OFF = {
    "crop_area_min": 1.0,
    "crop_aspect_max": 1.0,
    "horizontal_flip": 0.0,
    "jitter_probability": 0.0,
    "grey_probability": 0.0,
    "blur_probability": 0.0,
}


def photographs(count: int, side: int) -> np.ndarray:
    """uint8 [count, side, side, 3]: coloured noise, rough and smooth, without symmetry."""
    rng = np.random.default_rng(count * 1000 + side)
    fine = rng.integers(0, 256, (count, side, side, 3))
    coarse = rng.integers(0, 256, (count, side // 4, side // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.round(0.3 * fine + 0.7 * coarse).astype(np.uint8)


def seeds_of(count: int) -> np.ndarray:
    return np.stack([np.full(count, 3), np.arange(count)], axis=1).astype(np.int64)


@functools.cache
def graph(kind: str, side: int, strengths: tuple[tuple[str, float], ...]) -> Callable[..., tf.Tensor]:
    """A graph for any batch size: its loop over the images is much faster than the eager one."""
    if kind == "classifier":
        config = ClassifierAugmentation(**dict(strengths))
        changed = functools.partial(augment_classifier, config=config)
    else:
        changed = functools.partial(two_views, config=ContrastiveAugmentation(**dict(strengths)))
    images, seeds = tf.TensorSpec((None, side, side, 3), tf.uint8), tf.TensorSpec((None, 2), tf.int64)
    return tf.function(lambda i, s: changed(i, s), input_signature=(images, seeds))


def classifier_images(images: np.ndarray, seeds: np.ndarray, **strengths: float) -> np.ndarray:
    return graph("classifier", images.shape[1], tuple(sorted(strengths.items())))(images, seeds).numpy()


def views(images: np.ndarray, seeds: np.ndarray, **strengths: float) -> np.ndarray:
    """Both views side by side in the channels, so that one array can be compared."""
    pair = graph("contrastive", images.shape[1], tuple(sorted(strengths.items())))(images, seeds)
    return tf.concat(pair, axis=-1).numpy()


ROADS = pytest.mark.parametrize("road", [classifier_images, views])


def digest() -> str:
    images, seeds = photographs(8, 24), seeds_of(8)
    both = classifier_images(images, seeds), views(images, seeds)
    return hashlib.sha256(b"".join(each.tobytes() for each in both)).hexdigest()


def same_pixels(found: np.ndarray, expected: np.ndarray, levels: float) -> None:
    difference = np.abs(np.asarray(found, float) - np.asarray(expected, float))
    assert difference.max() <= levels


# The same pixels for the same seed.


def test_another_process_gives_the_same_pixels_whatever_its_precision_and_global_seed():
    program = """
import keras, tensorflow as tf
keras.config.set_dtype_policy("mixed_bfloat16")
tf.random.set_seed(123)
from tests.data import test_augment
print(test_augment.digest())
"""
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    assert process.stdout.split()[-1] == digest()


@ROADS
def test_the_global_random_state_has_no_say(road):
    images, seeds = photographs(4, 24), seeds_of(4)
    keras.utils.set_random_seed(1)
    first = road(images, seeds)
    keras.utils.set_random_seed(2)
    tf.random.uniform((3,))
    assert np.array_equal(first, road(images, seeds))


@ROADS
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(road):
    images, seeds = photographs(37, 24), seeds_of(37)
    together = road(images, seeds)
    alone = np.concatenate([road(images[i : i + 1], seeds[i : i + 1]) for i in range(37)])
    assert np.array_equal(together, alone)
    order = np.random.default_rng(0).permutation(37)[:19]
    assert np.array_equal(together[order], road(images[order], seeds[order]))


def test_a_rotation_does_not_depend_on_the_place_in_the_batch():
    # Large images and many: a cosine that is off in its last bit moves one byte in 50,000.
    images = tf.constant(photographs(64, 224))
    radians = tf.constant(np.random.default_rng(0).uniform(-0.5, 0.5, 64), tf.float32)
    signature = tf.TensorSpec((None, 224, 224, 3), tf.uint8), tf.TensorSpec((None,), tf.float32)
    rotate = tf.function(augment.rotate, input_signature=signature)
    alone = tf.concat([rotate(images[i : i + 1], radians[i : i + 1]) for i in range(64)], axis=0)
    assert np.array_equal(rotate(images, radians), alone)


@ROADS
def test_other_seeds_give_other_images(road):
    image = photographs(1, 24).repeat(40, axis=0)
    different = {each.tobytes() for each in road(image, seeds_of(40))}
    # The classifier leaves one image in seventeen as it is.
    assert len(different) >= 32


def test_the_two_views_are_drawn_apart():
    images, seeds = photographs(40, 24), seeds_of(40)
    pair = views(images, seeds)
    assert (pair[..., :3] != pair[..., 3:]).any(axis=(1, 2, 3)).all()


def test_the_last_short_batch_of_a_dataset_equals_the_direct_call():
    images, seeds = photographs(10, 24), seeds_of(10)
    config = ClassifierAugmentation()
    dataset = tf.data.Dataset.from_tensor_slices((images, seeds)).batch(4)
    dataset = dataset.map(lambda i, s: augment_classifier(i, s, config), num_parallel_calls=2)
    batches = list(dataset.as_numpy_iterator())
    assert dataset.element_spec == tf.TensorSpec((None, 24, 24, 3), tf.uint8)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert np.array_equal(np.concatenate(batches), augment_classifier(images, seeds, config))


def test_views_of_a_dataset_equal_the_direct_call():
    images, seeds = photographs(6, 24), seeds_of(6)
    dataset = tf.data.Dataset.from_tensor_slices((images, seeds)).batch(4)
    dataset = dataset.map(lambda i, s: two_views(i, s, ContrastiveAugmentation()))
    batches = list(dataset.as_numpy_iterator())
    view_a, view_b = two_views(images, seeds, ContrastiveAugmentation())
    assert np.array_equal(np.concatenate([batch[0] for batch in batches]), view_a)
    assert np.array_equal(np.concatenate([batch[1] for batch in batches]), view_b)


# Nothing happens when nothing is asked for.


@ROADS
def test_probability_zero_is_the_identity(road):
    images = photographs(30, 24)
    off = CLASSIFIER_OFF if road is classifier_images else CONTRASTIVE_OFF
    found = road(images, seeds_of(30), **off)
    assert found.dtype == np.uint8
    assert np.array_equal(found[..., :3], images)
    assert np.array_equal(found[..., -3:], images)


def test_strength_zero_is_the_identity_at_probability_one():
    images, seeds = photographs(30, 24), seeds_of(30)
    none = dict.fromkeys(("brightness", "contrast", "saturation", "hue", "horizontal_flip"), 0.0)
    changed = classifier_images(
        images, seeds, **none, vertical_flip=0.0, rotation_degrees=0.0, rotation_probability=1.0,
        jitter_probability=1.0, blur_probability=0.0,
    )  # fmt: skip
    assert np.array_equal(changed, images)
    pair = views(
        images, seeds, **none, crop_area_min=1.0, crop_aspect_max=1.0, jitter_probability=1.0, grey_probability=0.0,
        blur_probability=1.0, blur_sigma_min=0.0, blur_sigma_max=0.0,
    )  # fmt: skip
    assert np.array_equal(pair, np.concatenate([images, images], axis=-1))


# As often and as strong as configured.


@pytest.mark.parametrize("name", CLASSIFIER_OFF)
def test_the_classifiers_changes_come_as_often_as_configured(name):
    images = photographs(1, 8).repeat(1000, axis=0)
    # On eight pixels the usual blurs round to nothing.
    visible = {"blur_kernel_min": 101, "blur_kernel_max": 101}
    found = classifier_images(images, seeds_of(1000), **{**CLASSIFIER_OFF, **visible, name: 0.3})
    share = np.mean((found != images).any(axis=(1, 2, 3)))
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 1000))


@pytest.mark.parametrize("name", [name for name in CONTRASTIVE_OFF if not name.startswith("crop")])
def test_the_views_changes_come_as_often_as_configured(name):
    images = photographs(1, 8).repeat(1000, axis=0)
    # On eight pixels the mildest blurs round to nothing.
    found = views(images, seeds_of(1000), **{**CONTRASTIVE_OFF, name: 0.3, "blur_sigma_min": 20, "blur_sigma_max": 20})
    changed = np.stack([(each != images).any(axis=(1, 2, 3)) for each in (found[..., :3], found[..., 3:])])
    assert changed.mean(axis=1) == pytest.approx([0.3, 0.3], abs=4 * math.sqrt(0.3 * 0.7 / 1000))
    # Drawn apart: both views change in 0.3 * 0.3 of the images.
    assert changed.all(axis=0).mean() == pytest.approx(0.09, abs=4 * math.sqrt(0.09 * 0.91 / 1000))


def test_brightness_is_spread_evenly_over_its_range():
    images = np.full((500, 4, 4, 3), 200, np.uint8)
    only = {**CLASSIFIER_OFF, "jitter_probability": 1.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    factors = classifier_images(images, seeds_of(500), **only)[:, 0, 0, 0] / 200
    assert factors.min() == pytest.approx(0.8, abs=0.01)
    assert factors.max() == pytest.approx(1.2, abs=0.01)
    assert factors.mean() == pytest.approx(1.0, abs=4 * 0.2 / math.sqrt(3 * 500))


def test_rotations_are_spread_evenly_over_both_directions():
    # A dot far from the centre tells by how much its image was turned.
    side, radius = 65, 28
    images = np.zeros((300, side, side, 3), np.uint8)
    images[:, 32, 32 + radius] = 255
    found = classifier_images(images, seeds_of(300), **{**CLASSIFIER_OFF, "rotation_probability": 1.0}).astype(float)
    mass = found[..., 0] * (np.hypot(*(np.mgrid[:side, :side] - 32)) < radius + 2)
    rows = (mass.sum(axis=2) @ np.arange(side)) / mass.sum(axis=(1, 2))
    columns = (mass.sum(axis=1) @ np.arange(side)) / mass.sum(axis=(1, 2))
    degrees = np.degrees(np.arctan2(32 - rows, columns - 32))
    assert degrees.min() == pytest.approx(-30, abs=1)
    assert degrees.max() == pytest.approx(30, abs=1)
    assert degrees.mean() == pytest.approx(0, abs=4 * 30 / math.sqrt(3 * 300))


def test_crops_keep_to_their_area_and_aspect_and_inside_the_image():
    uniforms = np.random.default_rng(1).random((1000, 40), np.float32)
    draw_all = tf.function(lambda u: tf.map_fn(lambda each: augment.crop_box(each, area_min=0.6, aspect_max=4 / 3), u))
    boxes = draw_all(uniforms).numpy()
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-6
    area, aspect = height * width, width / height
    assert area.min() == pytest.approx(0.6, abs=0.01)
    assert area.max() > 0.95
    assert aspect.min() == pytest.approx(3 / 4, abs=0.01)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.01)
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.03)
    # Places are spread: the free margin is used from one end to the other.
    assert np.median(boxes[:, 0] / np.maximum(1 - height, 1e-6)) == pytest.approx(0.5, abs=0.05)


def test_a_crop_that_never_fits_is_the_whole_image():
    # The full area at the widest aspect is wider than the image in all ten attempts.
    never = np.concatenate([np.full(20, 0.999, np.float32), np.full(20, 0.5, np.float32)])
    assert augment.crop_box(tf.constant(never), area_min=0.6, aspect_max=4 / 3).numpy().tolist() == [0, 0, 1, 1]


def test_a_blur_covers_the_same_part_of_the_object_at_every_size():
    spreads = []
    for side in (112, 224, 448):
        image = np.zeros((1, side + 1 - side % 2, side + 1 - side % 2, 3), np.uint8)
        line = image.shape[1] // 2
        image[:, :, line] = 255
        found = augment.blur(tf.constant(image), tf.constant([3.0]), tf.constant([9.0]), 9.0).numpy()[0, line, :, 0]
        place = np.arange(len(found)) - line
        spreads.append(math.sqrt((found * place**2.0).sum() / found.sum()) / side)
    assert spreads == pytest.approx([3.0 / 224] * 3, rel=0.05)


def test_the_classifiers_kernels_are_three_five_or_seven_wide():
    # A bright line on black shows the kernel itself; 225 is the nearest odd side to 224.
    images = np.zeros((60, 225, 225, 3), np.uint8)
    images[:, :, 112] = 255
    found = classifier_images(images, seeds_of(60), **{**CLASSIFIER_OFF, "blur_probability": 1.0})
    widths = (found[:, 112, :, 0] > 0).sum(axis=1)
    assert set(widths) == {3, 5, 7}
    assert min(np.bincount(widths)[[3, 5, 7]]) >= 10


# Each change against an independent computation.


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return photographs(1, 32)[0]


def jittered(image: np.ndarray, **factors: float) -> np.ndarray:
    neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    return augment.jitter(image[None], **{k: tf.constant([v]) for k, v in {**neutral, **factors}.items()}).numpy()[0]


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.4])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_brightness_contrast_and_saturation_are_pillows(photograph, name, enhance, factor):
    expected = np.asarray(enhance(Image.fromarray(photograph)).enhance(factor))
    # Pillow cuts its results off instead of rounding them, and rounds the grey it blends with.
    same_pixels(jittered(photograph, **{name: factor}), expected, levels=1)


@pytest.mark.parametrize("shift", [-0.1, -0.45, 0.07, 0.5])
def test_hue_is_shifted_around_the_colour_circle(photograph, shift):
    def shifted(pixel: np.ndarray) -> np.ndarray:
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        return np.array(colorsys.hsv_to_rgb((h + shift) % 1.0, s, v)) * 255

    same_pixels(jittered(photograph, hue=shift), np.apply_along_axis(shifted, -1, photograph), levels=0.51)


def test_jitter_applies_all_four_in_the_documented_order(photograph):
    x = np.clip(np.round(photograph * 1.25), 0, 255)
    luma = np.array([0.299, 0.587, 0.114])
    x = np.clip(0.75 * x + 0.25 * (x @ luma).mean(), 0, 255)
    x = np.clip(1.2 * x - 0.2 * (x @ luma)[..., None], 0, 255)
    found = jittered(photograph, brightness=1.25, contrast=0.75, saturation=1.2)
    same_pixels(found, x, levels=0.51)


def test_grey_is_the_luma_in_all_channels(photograph):
    expected = np.asarray(Image.fromarray(photograph).convert("L"))[..., None].repeat(3, axis=-1)
    same_pixels(augment.to_grey(tf.constant(photograph[None])).numpy()[0], expected, levels=1)
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    assert np.array_equal(augment.to_grey(tf.constant(grey)).numpy(), grey)


@pytest.mark.parametrize(("sigma", "half_width"), [(0.8, 1.0), (1.4, 3.0), (2.0, 6.0)])
def test_blur_is_a_gaussian_sum_with_a_reflected_edge(sigma, half_width):
    image = photographs(1, 224)[0]
    found = augment.blur(image[None], tf.constant([sigma]), tf.constant([half_width]), 6.0).numpy()[0]
    reach = int(half_width)
    kernel = np.array([math.exp(-(d**2) / (2 * sigma**2)) for d in range(-reach, reach + 1)])
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    padded = np.pad(image.astype(float), [(reach, reach), (reach, reach), (0, 0)], mode="reflect")
    for row, column in [(0, 0), (0, 223), (5, 7), (100, 50), (223, 111), (222, 1)]:
        window = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        same_pixels(found[row, column], (kernel[..., None] * window).sum(axis=(0, 1)), levels=0.51)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_by_quarter_turns_is_exact(photograph, quarters):
    found = augment.rotate(tf.constant(photograph[None]), tf.constant([quarters * math.pi / 2])).numpy()[0]
    # The turn's matrix is off by 1e-7, a pixel at the rim may therefore mix in a hair of its neighbour.
    same_pixels(found, np.rot90(photograph, quarters), levels=1)


def test_rotation_is_bilinear_about_the_centre_with_a_reflected_rim(photograph):
    radians, side = math.radians(25.0), 32
    found = augment.rotate(tf.constant(photograph[None]), tf.constant([radians])).numpy()[0]
    padded = np.pad(photograph.astype(float), [(side, side), (side, side), (0, 0)], mode="symmetric")
    middle = (side - 1) / 2
    for row, column in [(0, 0), (0, 31), (31, 0), (15, 16), (9, 20), (31, 31), (16, 3)]:
        x, y = column - middle, row - middle
        source_x = math.cos(radians) * x - math.sin(radians) * y + middle + side
        source_y = math.sin(radians) * x + math.cos(radians) * y + middle + side
        left, top = math.floor(source_x), math.floor(source_y)
        across, down = source_x - left, source_y - top
        upper = (1 - across) * padded[top, left] + across * padded[top, left + 1]
        lower = (1 - across) * padded[top + 1, left] + across * padded[top + 1, left + 1]
        same_pixels(found[row, column], (1 - down) * upper + down * lower, levels=0.52)


def test_flips_are_exact(photograph):
    image, seeds = photograph[None], seeds_of(1)
    found = classifier_images(image, seeds, **{**CLASSIFIER_OFF, "horizontal_flip": 1.0})[0]
    assert np.array_equal(found, photograph[:, ::-1])
    found = classifier_images(image, seeds, **{**CLASSIFIER_OFF, "vertical_flip": 1.0})[0]
    assert np.array_equal(found, photograph[::-1])


def test_a_crop_of_everything_is_the_identity_and_of_a_corner_an_enlargement(photograph):
    image = tf.constant(photograph[None])
    assert np.array_equal(augment.crop(image, tf.constant([[0.0, 0.0, 1.0, 1.0]]))[0], photograph)
    found = augment.crop(image, tf.constant([[0.0, 0.0, 0.5, 0.5]])).numpy()[0]
    # Every second target pixel falls on a source pixel, the others half-way between two.
    same_pixels(found[::2, ::2], photograph[:16, :16], levels=0)
    between = (photograph[:16, :15].astype(float) + photograph[:16, 1:16]) / 2
    same_pixels(found[::2, 1:-1:2], between, levels=0.51)


# Wrong use.


@pytest.mark.parametrize(
    ("config", "strengths", "named"),
    [
        (ClassifierAugmentation, {"hue": 0.6}, "hue is 0.6"),
        (ClassifierAugmentation, {"vertical_flip": -0.1}, "vertical_flip"),
        (ClassifierAugmentation, {"blur_kernel_max": 8}, "odd"),
        (ClassifierAugmentation, {"blur_kernel_min": 9}, "blur_kernel_min is 9"),
        (ClassifierAugmentation, {"brightness": math.nan}, "brightness is nan"),
        (ContrastiveAugmentation, {"crop_area_min": 0.0}, "crop_area_min"),
        (ContrastiveAugmentation, {"blur_sigma_min": 3.0}, "blur_sigma_min is 3.0"),
    ],
)
def test_a_strength_out_of_range_is_named(config, strengths, named):
    with pytest.raises(UserError, match=named):
        config(**strengths)


@pytest.mark.parametrize("images", [np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 9, 3), np.uint8)])
def test_other_images_than_square_bytes_are_refused(images):
    with pytest.raises(ValueError, match="Received"):
        augment_classifier(images, seeds_of(1), ClassifierAugmentation())
