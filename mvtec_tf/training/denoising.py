"""Training a denoising-diffusion model of patches, and drawing patches from it; see `networks.diffusion`."""

import functools

import numpy as np
import tensorflow as tf

from mvtec_tf.data import augment, input_pipeline
from mvtec_tf.data.defect_patches import Bank
from mvtec_tf.data.words import counted
from mvtec_tf.errors import UserError
from mvtec_tf.files import speaker
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import diffusion
from mvtec_tf.networks.backbone import Backbone
from mvtec_tf.networks.copies import in_float32
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.training import loop
from mvtec_tf.training.schedules import AdamW, WarmupCosine
from mvtec_tf.training.settings import DiffusionSettings

_STREAM = 11
_WARMUP = 0.05
# Steps of a drawing, patches at a time, and draws for each that is wanted: some have no defect on their mask.
_SAMPLING_STEPS, _AT_ONCE, _MOST_DRAWS = 50, 50, 4


class AveragedAdamW(AdamW):
    """AdamW with a moving average of the weights, which they become when that is asked for: Keras does so at the end of
    each call of `fit`, and an epoch that is resumed within is one of its own."""

    def finalize_variable_values(self, var_list: list) -> None:
        """Keras' hook."""

    def take_average(self, weights: list) -> None:
        """Makes the weights their moving average."""
        super().finalize_variable_values(weights)


def train_denoiser(run: RunDirectory, settings: DiffusionSettings, patches: np.ndarray) -> keras.Model:
    """Trains, or goes on training.

    Args:
      run: checkpoints, logs and facts go there.
      settings: of the training.
      patches: uint8 [N, P, P, 4].

    Returns:
      The network of `diffusion.build_denoiser`, with the averaged weights, in float32.
    """
    passes = -(-settings.steps_per_epoch * settings.batch_size // len(patches))
    steps = input_pipeline.steps_per_epoch(len(patches), settings.batch_size, passes)
    network, _, jit = loop.build(run, settings, functools.partial(_network_of, settings, patches.shape), len(patches))
    total = steps * settings.epochs
    optimizer = AveragedAdamW(
        WarmupCosine(settings.learning_rate, round(_WARMUP * total), total),
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
        use_ema=True,
        ema_momentum=settings.average,
    )
    model = keras.Model(network.inputs, network.outputs, name="training")
    model.compile(optimizer, "mse", jit_compile=jit)
    if not run.resumed:
        loop.log_images(run, {"patches": patches[:16, ..., :3], "masks": patches[:16, ..., 3:]})
    of_run = functools.partial(batches, patches, settings, passes)
    run.note(history=loop.run_epochs(run, model, network, of_run, settings, steps, []))
    optimizer.take_average(network.trainable_variables)
    return in_float32(network)


def _network_of(settings: DiffusionSettings, shape: tuple[int, ...]) -> tuple[keras.Model, Backbone, dict[str, str]]:
    network = diffusion.build_denoiser(shape[1], shape[3], settings.width)
    facts = {"weights": "weights: random.", "size": f"denoiser: {network.count_params():,} numbers."}
    return network, Backbone(network, (), None), facts


def batches(
    patches: np.ndarray, settings: DiffusionSettings, passes: int, first_epoch: int = 0, first_step: int = 0
) -> tf.data.Dataset:
    """((noised patches, steps), velocity) from a step of an epoch to the run's end, turned and mirrored at random."""
    shares = tf.constant(diffusion.alpha_bars(), tf.float32)

    def normal(seed: tf.Tensor) -> tf.Tensor:
        own = tf.random.experimental.stateless_fold_in(seed, tf.constant(_STREAM, tf.int64), alg="philox")
        return tf.random.stateless_normal(patches.shape[1:], own, alg="philox")

    def transform(batch: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor) -> tuple:
        across, down, turned, step = tf.unstack(augment.uniform(seeds, _STREAM + 1, 4), axis=1)
        for draw, change in ((across, tf.image.flip_left_right), (down, tf.image.flip_up_down), (turned, _transposed)):
            batch = augment.change_where(draw < 0.5, change, batch)
        steps = 1 + tf.cast(step * diffusion.STEPS, tf.int32)
        noise = tf.map_fn(normal, seeds, fn_output_signature=tf.TensorSpec(patches.shape[1:], tf.float32))
        share, clean = tf.gather(shares, steps)[:, None, None, None], tf.cast(batch, tf.float32) / 127.5 - 1
        return (diffusion.noised(clean, noise, share), steps), diffusion.velocity(clean, noise, share)

    more = {"first_epoch": first_epoch, "first_step": first_step, "passes_per_epoch": passes}
    return loop.batches_of(patches, np.zeros(len(patches), np.int64), settings, transform, **more)


def _transposed(images: tf.Tensor) -> tf.Tensor:
    return tf.transpose(images, (0, 2, 1, 3))


def drawn(network: keras.Model, learnt: Bank, count: int, seed: int) -> Bank:
    """Patches that the model draws, each with a defect on its mask, as large as one of those that it has learnt from.

    Args:
      network: of `train_denoiser`.
      learnt: what it has learnt from.
      count: how many.
      seed: random seed of the noise and the sizes.

    Raises:
      UserError: nearly all have an empty mask.
    """
    rng, speak, found, at_once = np.random.default_rng([seed, _STREAM]), speaker(), [], min(count, _AT_ONCE)

    # What is left of the noise has a colour, which on grey photographs would tell a drawn defect.
    shares, grey = diffusion.alpha_bars(), not np.ptp(learnt.patches[..., :3], axis=-1).any()

    @tf.function(autograph=False, reduce_retracing=True)
    def predict(patches: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        return network([patches, steps], training=False)

    def noise_in(patches: np.ndarray, step: int) -> np.ndarray:
        said = predict(tf.constant(patches, tf.float32), tf.fill([len(patches)], step)).numpy()
        return diffusion.noise_of(patches, said.astype(np.float64), shares[step])

    for tried in range(at_once, _MOST_DRAWS * count + at_once, at_once):
        noise = rng.standard_normal((at_once, *learnt.patches.shape[1:]))
        patches = np.rint((diffusion.ddim(noise_in, noise, _SAMPLING_STEPS) + 1) * 127.5).astype(np.uint8)
        if grey:
            patches[..., :3] = np.rint(patches[..., :3].mean(axis=-1, keepdims=True))
        patches[..., 3] = np.where(patches[..., 3] > 127, 255, 0)
        found += list(patches[patches[..., 3].any(axis=(1, 2))])
        speak(f"drew {counted(tried, 'patch', 'patches')}, {len(found)} with a defect on the mask")
        if len(found) >= count:
            sides = rng.choice(learnt.sides, count)
            return Bank(np.array(found[:count]), sides, learnt.sources)
    raise UserError(
        f"Of {tried} patches that the model drew, {len(found)} have a defect on their mask, and {count} were asked "
        "for: it has not learnt the masks. Train it longer (`epochs`), or label more defects."
    )
