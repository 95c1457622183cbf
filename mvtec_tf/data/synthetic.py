"""Synthetic defects on good photographs, with their masks, for lines that have no defective part to show.

Five kinds, drawn on the part only where it lies before a uniform background:
  - `cutpaste`: a rectangle of 2 to 15 % of the image from another place of it, its colours slightly changed (Li et al.,
    "CutPaste", CVPR 2021, section 2.2);
  - `scar`: the same with a thin rectangle, turned by up to 45 degrees (there "CutPaste-Scar");
  - `perlin`: blobs of Perlin noise, filled by the same photograph from elsewhere with other colours, blended in
    (Zavrtanik et al., "DRAEM", ICCV 2021, section 3.1, which fills them from a set of textures; there the noise is cut
    at a fixed level, here where a drawn share of the part is left, so that no mask is empty);
  - `nsa`: a rectangle of another good image, from the part there, enlarged or reduced and blended in without a seam
    (Schlueter et al., "Natural synthetic anomalies", ECCV 2022, section 3.1: one rectangle, all of its gradients); its
    mask is where that has changed more than a grey level;
  - `generated`: a patch of a bank of defects, cut from labelled images or drawn by a model that learnt from such,
    turned, mirrored and blended in likewise.

Like `augment` a pure function of the images and one seed per image.
"""

import functools
import math

import tensorflow as tf

from mvtec_tf.data import augment, defect_patches, poisson
from mvtec_tf.data.augment_settings import DRAWN_DEFECTS

# Lengths in pixels are those of the papers' 256 px images.
_REFERENCE_SIDE = 256
_CUT_AREA, _CUT_ASPECT = (0.02, 0.15), 1 / 0.3
_SCAR_WIDTH, _SCAR_LENGTH, _SCAR_DEGREES = (2.0, 16.0), (10.0, 25.0), 45.0
_CUT_JITTER, _BLOB_JITTER = 0.1, 0.5
# Share of the part under blobs; cells of the noise along each side, powers of two up to this one; least opacity.
_BLOBS, _CELLS, _OPAQUE = (0.005, 0.1), 5, 0.2
# Half the height and width as shares of the side: an offset and a gamma-distributed share of shape 2, at most this; how
# much it is enlarged; and a mean change of more grey levels is seen (there the tolerance of the label).
_NSA_HALF, _NSA_GAMMA, _NSA_MOST = 0.03, 0.05, 0.2
_NSA_SCALES, _NSA_SCALE_SPREAD, _SEEN = (0.7, 1.3), 0.5, 1.0
# Pixels of a patch's side at least.
_LEAST_PATCH = 4
# A background: the image's rim, of a 32nd of its side, varies by less than this, and the part differs by more.
_RIM, _UNIFORM, _DIFFERENT = 32, 12.0, 20.0
# Less of the image is no part but dirt.
_LEAST_PART = 0.02
_STREAM = 3


def on_some(
    images: tf.Tensor,
    labels: tf.Tensor,
    seeds: tf.Tensor,
    share: float,
    kinds: tuple[str, ...] = DRAWN_DEFECTS,
    bank: defect_patches.Bank | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a defect on some of the good images, which are then labelled defective.

    Args:
      images: uint8 [B, S, S, 3], S known when the graph is built.
      labels: int [B], 0 = good.
      seeds: int32 or int64 [B, 2], one per image.
      share: probability of a good image to get one.
      kinds: kinds that are drawn, equally often. Of `nsa` the other image is the next good one of the batch.
      bank: patches of the kind `generated`.

    Returns:
      (images, labels), the same shapes and types.
    """
    drawn = augment.uniform(seeds, _STREAM, 1)[:, 0] < share
    chosen = tf.logical_and(drawn, labels == 0)
    others = images
    if "nsa" in kinds:
        good = tf.where(labels == 0)
        others = tf.tensor_scatter_nd_update(images, good, tf.gather_nd(images, tf.roll(good, -1, axis=0)))

    def draw(part: tf.Tensor, own: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        return with_defects(part, own, kinds, other, bank)[0]

    images = augment.change_where(chosen, draw, images, seeds, others)
    return images, tf.where(chosen, tf.ones_like(labels), labels)


def with_defects(
    images: tf.Tensor,
    seeds: tf.Tensor,
    kinds: tuple[str, ...] = DRAWN_DEFECTS,
    others: tf.Tensor | None = None,
    bank: defect_patches.Bank | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a defect of one of the kinds on every image.

    Args:
      images: uint8 [B, S, S, 3], S known when the graph is built.
      seeds: int32 or int64 [B, 2], one per image.
      kinds: kinds that are drawn, equally often.
      others: uint8 [B, S, S, 3], of which `nsa` takes its rectangles; None: the next image of the batch.
      bank: patches of the kind `generated`.

    Returns:
      uint8 [B, S, S, 3], and its masks, bool [B, S, S], none of them empty.
    """
    side = images.shape[1]
    draw = {"cutpaste": _cut, "scar": _scar, "perlin": _blobs}

    def one(given: tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image, other, seed, draws = given
        part = foreground(image)

        def drawn(kind: str) -> tuple[tf.Tensor, tf.Tensor]:
            if kind == "nsa":
                return _natural(image, part, draws[1:], other)
            if kind == "generated":
                return _of_bank(image, part, draws[1:], bank)
            return draw[kind](image, part, draws[1:], seed)

        branches = [functools.partial(drawn, kind) for kind in kinds]
        number = tf.cast(draws[0] * len(kinds), tf.int32)
        return tf.switch_case(number, branches) if len(kinds) > 1 else branches[0]()

    others = tf.roll(images, -1, axis=0) if others is None else others
    signature = (tf.TensorSpec((side, side, 3), tf.uint8), tf.TensorSpec((side, side), tf.bool))
    given = (images, others, seeds, augment.uniform(seeds, _STREAM + 1, 12))
    return tf.map_fn(one, given, fn_output_signature=signature)


def foreground(image: tf.Tensor) -> tf.Tensor:
    """Where the part is: what differs from a uniform rim, or everywhere if there is none.

    Args:
      image: uint8 [S, S, 3].

    Returns:
      bool [S, S].
    """
    pixels, side = tf.cast(image, tf.float32), image.shape[0]
    width = max(side // _RIM, 1)
    rows = tf.range(side)
    edge = tf.logical_or(rows < width, rows >= side - width)
    rim = tf.boolean_mask(pixels, tf.logical_or(edge[:, None], edge[None, :]))
    background, spread = tf.reduce_mean(rim, axis=0), tf.math.reduce_std(rim, axis=0)
    part = tf.reduce_any(tf.abs(pixels - background) > _DIFFERENT + 2 * spread, axis=2)
    told = tf.logical_and(
        tf.reduce_max(spread) < _UNIFORM, tf.reduce_mean(tf.cast(part, tf.float32)) >= _LEAST_PART
    )
    return tf.where(told, part, tf.ones_like(part))


def _cut(image: tf.Tensor, part: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    side = float(image.shape[0])
    area = side * side * _between(draws[0], _CUT_AREA)
    aspect = tf.exp(augment.spread(draws[1], math.log(_CUT_ASPECT)))
    half = tf.minimum(tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)]) / 2, side / 2)
    return _pasted(image, part, draws[2:], half, tf.constant(0.0))


def _scar(image: tf.Tensor, part: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    scale = image.shape[0] / _REFERENCE_SIDE
    width, length = _between(draws[0], _SCAR_WIDTH), _between(draws[1], _SCAR_LENGTH)
    half = tf.maximum(tf.stack([length, width]) * scale / 2, 0.5)
    return _pasted(image, part, draws[2:], half, augment.spread(draws[8], math.radians(_SCAR_DEGREES)))


def _pasted(
    image: tf.Tensor, part: tf.Tensor, draws: tf.Tensor, half: tf.Tensor, angle: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a rectangle from elsewhere onto the part.

    Args:
      image: uint8 [S, S, 3].
      part: bool [S, S].
      draws: float32 [at least 6] in [0, 1).
      half: float32 [2], half the height and width.
      angle: float32 scalar, radians.
    """
    centre = _place(part, draws[0])
    rows, columns = _grid(image.shape[0])
    down, right = rows - centre[0], columns - centre[1]
    along = tf.cos(angle) * down + tf.sin(angle) * right
    across = tf.cos(angle) * right - tf.sin(angle) * down
    inside = tf.logical_and(tf.abs(along) <= half[0], tf.abs(across) <= half[1])
    mask = tf.logical_and(inside, part)
    content = _elsewhere(image, part, centre, draws[1], draws[2:6], _CUT_JITTER)
    return tf.where(mask[..., None], content, image), mask


def _blobs(image: tf.Tensor, part: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    cells = tf.pow(2.0, tf.floor(1 + draws[0:2] * _CELLS))
    noise = _perlin(image.shape[0], cells, seed)
    within = tf.boolean_mask(noise, part)
    low, high = (math.log(bound) for bound in _BLOBS)
    share = tf.exp(_between(draws[2], (low, high)))
    count = tf.maximum(tf.cast(share * tf.cast(tf.size(within), tf.float32), tf.int32), 1)
    mask = tf.logical_and(noise >= tf.math.top_k(within, count).values[-1], part)
    content = _elsewhere(image, part, _place(part, draws[3]), draws[4], draws[5:9], _BLOB_JITTER)
    opacity = _between(draws[9], (_OPAQUE, 1.0))
    blended = opacity * tf.cast(content, tf.float32) + (1 - opacity) * tf.cast(image, tf.float32)
    return tf.where(mask[..., None], tf.cast(tf.round(blended), tf.uint8), image), mask


def _natural(
    image: tf.Tensor, part: tf.Tensor, draws: tf.Tensor, other: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    side = image.shape[0]
    # The sum of two exponential draws has a gamma distribution of shape 2.
    gamma = -_NSA_GAMMA * tf.reduce_sum(tf.math.log(1 - draws[:4]) * [[1, 1, 0, 0], [0, 0, 1, 1]], axis=1)
    scale = tf.clip_by_value(1 + _NSA_SCALE_SPREAD * tf.math.ndtri(tf.maximum(draws[4], 1e-6)), *_NSA_SCALES)
    half = tf.maximum(side * tf.minimum(_NSA_HALF + gamma, _NSA_MOST) * scale, 1.0)
    their_part = foreground(other)
    # Two pixels from the edge, so that the other image says the gradients of that place at any scale.
    centre, theirs = _place(part, draws[5]), tf.clip_by_value(_place(their_part, draws[6]), 2.0, side - 3.0)
    # A box of the other image so that both places meet when it is brought to the size of the whole.
    start = (theirs - centre / scale) / (side - 1)
    box = tf.concat([start, start + 1 / scale], axis=0)[None]
    content = augment.crop(other[None], box)[0]
    region = part & (augment.crop(tf.cast(their_part, tf.uint8)[None, ..., None] * 255, box)[0, ..., 0] > 127)
    at_centre = tf.ones_like(part)
    for lines, here, there, reach in zip(_grid(side), *map(tf.unstack, (centre, theirs, half)), strict=True):
        away = lines - here
        known = (there * scale + away >= 1) & (there * scale + away <= (side - 1) * scale - 1)
        region &= known & (tf.abs(away) <= reach)
        at_centre &= away == 0
    region |= at_centre
    return _seen(image, tf.numpy_function(poisson.clone, [image, content, region], tf.uint8), region)


def _of_bank(
    image: tf.Tensor, part: tf.Tensor, draws: tf.Tensor, bank: defect_patches.Bank
) -> tuple[tf.Tensor, tf.Tensor]:
    which = tf.cast(draws[0] * len(bank), tf.int32)
    side = tf.maximum(tf.cast(tf.round(tf.constant(bank.sides)[which] * image.shape[0]), tf.int32), _LEAST_PATCH)
    place, turn = tf.cast(_place(part, draws[1]), tf.int32), tf.cast(draws[2] * 8, tf.int32)
    given = [image, part, tf.constant(bank.patches)[which], side, turn, place, draws[3]]
    return _seen(image, *tf.numpy_function(defect_patches.pasted, given, [tf.uint8, tf.bool]))


def _seen(image: tf.Tensor, blended: tf.Tensor, region: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The image with what was blended into a region, and where that is seen; where nothing is, the whole region."""
    blended, region = tf.ensure_shape(blended, image.shape), tf.ensure_shape(region, image.shape[:2])
    change = tf.reduce_mean(tf.abs(tf.cast(blended, tf.float32) - tf.cast(image, tf.float32)), axis=2)
    mask = tf.where(tf.reduce_any(change > _SEEN), change > _SEEN, region)
    return tf.where(mask[..., None], blended, image), mask


def _elsewhere(
    image: tf.Tensor, part: tf.Tensor, centre: tf.Tensor, draw: tf.Tensor, factors: tf.Tensor, strength: float
) -> tf.Tensor:
    """The image moved so that another place of the part comes to lie at `centre`, its colours changed."""
    moved = tf.roll(image, tf.cast(centre - _place(part, draw), tf.int32), axis=[0, 1])
    brightness, contrast, saturation, hue = (augment.spread(factors[i], strength) for i in range(4))
    multiplied = (1.0 + one[None] for one in (brightness, contrast, saturation))
    return augment.jitter(moved[None], *multiplied, hue[None] / 2)[0]


def _place(part: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    """float32 [2], row and column of a pixel of the part."""
    places = tf.where(part)
    return tf.cast(places[tf.cast(draw * tf.cast(tf.shape(places)[0], tf.float32), tf.int32)], tf.float32)


def _perlin(side: int, cells: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Perlin's noise (Perlin, "Improving noise", SIGGRAPH 2002): float32 [S, S].

    Args:
      side: S.
      cells: float32 [2], cells down and across, at most 2 ** _CELLS.
      seed: int [2].
    """
    table = 2**_CELLS + 1
    own = tf.random.experimental.stateless_fold_in(seed, tf.constant(_STREAM, tf.int64), alg="philox")
    angles = 2 * math.pi * tf.random.stateless_uniform((table, table), own, alg="philox")
    rows, columns = (one * count / side for one, count in zip(_grid(side), tf.unstack(cells), strict=True))
    top, left = tf.floor(rows), tf.floor(columns)

    def towards(down: int, right: int) -> tf.Tensor:
        """The gradient at a corner of the cell, times the way there."""
        corner = tf.cast(tf.stack([top + down, left + right], axis=2), tf.int32)
        angle = tf.gather_nd(angles, corner)
        return tf.sin(angle) * (rows - top - down) + tf.cos(angle) * (columns - left - right)

    down, right = (t * t * t * (t * (t * 6 - 15) + 10) for t in (rows - top, columns - left))
    upper = towards(0, 0) + right * (towards(0, 1) - towards(0, 0))
    lower = towards(1, 0) + right * (towards(1, 1) - towards(1, 0))
    return upper + down * (lower - upper)


def _grid(side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Row and column of every pixel, float32 [S, S] each."""
    rows = tf.range(side, dtype=tf.float32)
    return tuple(tf.meshgrid(rows, rows, indexing="ij"))


def _between(draw: tf.Tensor, bounds: tuple[float, float]) -> tf.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * draw
