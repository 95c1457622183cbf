"""A diffusion model learns, keeps the average of its weights, and is the same after a break; its draws are seeded."""

import signal

import numpy as np
import pytest
import tensorflow as tf

from mvtec_tf.data.defect_patches import Bank
from mvtec_tf.errors import UserError
from mvtec_tf.keras_settings import keras
from mvtec_tf.networks import diffusion
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.stopping import Stopped
from mvtec_tf.training import callbacks, denoising
from mvtec_tf.training.settings import DiffusionSettings
from tests.support.tiny_network import in_place_of_the_denoiser, tiny_denoiser

SIDE = 8
SETTINGS = DiffusionSettings(
    epochs=3, steps_per_epoch=12, batch_size=8, average=0.9, learning_rate=3e-2, width=16, precision="float32"
)


@pytest.fixture(autouse=True)
def small():
    with in_place_of_the_denoiser():
        yield


@pytest.fixture(scope="module")
def patches():
    """Grey, with a bright square that the mask marks."""
    found = np.full((6, SIDE, SIDE, 4), (90, 90, 90, 0), np.uint8)
    for number, one in enumerate(found):
        one[number % 3 + 1 : number % 3 + 4, 2:5] = 255
    return found


def _train(path, patches):
    run = RunDirectory(path, "train", {}, {"fingerprint": "same"}, "")
    try:
        return denoising.train_denoiser(run, SETTINGS, patches), run
    finally:
        run.close()


def test_the_loss_falls_and_a_break_within_an_epoch_changes_no_bit(patches, tmp_path, monkeypatch):
    network, run = _train(tmp_path / "whole", patches)
    losses = [epoch["loss"] for epoch in run.record["history"]]
    assert losses[-1] < 0.8 * losses[0]
    done, ended = [], callbacks.Progress.on_train_batch_end

    def stop(self, batch, logs=None):
        ended(self, batch, logs)
        done.append(batch)
        if len(done) == SETTINGS.steps_per_epoch + 5:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(callbacks.Progress, "on_train_batch_end", stop)
    with pytest.raises(Stopped):
        _train(tmp_path / "stopped", patches)
    resumed, after = _train(tmp_path / "stopped", patches)
    assert after.record["history"] == run.record["history"]
    for one, other in zip(resumed.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # What is kept is the average of the weights, which checkpoints have as they are.
    last = tiny_denoiser(SIDE, 4)
    last.load_weights(sorted((tmp_path / "whole" / "checkpoints").glob("epoch_*"))[-1] / "network.weights.h5")
    assert any((one != other).any() for one, other in zip(last.get_weights(), network.get_weights(), strict=True))


def test_drawn_patches_are_those_of_their_seed_and_empty_masks_are_no_patches(patches):
    keras.utils.set_random_seed(0)
    network, learnt = tiny_denoiser(SIDE, 4), Bank(patches, np.array([0.25] * 6, np.float32), [("p", "g", "c")])
    first, again, other = (denoising.drawn(network, learnt, 5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.patches, again.patches)
    assert (first.patches != other.patches).any()
    assert first.patches.shape == (5, SIDE, SIDE, 4)
    assert first.sources == learnt.sources
    assert (first.patches[..., 3] == 255).any(axis=(1, 2)).all()
    # What it has learnt from is grey.
    assert not np.ptp(first.patches[..., :3], axis=-1).any()
    shares = tf.constant(diffusion.alpha_bars(), tf.float32)

    def black(given, training):
        """Says that all is noise but for a black patch with a black mask."""
        share = tf.gather(shares, given[1])[:, None, None, None]
        return diffusion.velocity(-1.0, (given[0] + share**0.5) / (1 - share) ** 0.5, share)

    with pytest.raises(UserError, match=r"Of 20 patches that the model drew, 0 have a defect .* Train it longer"):
        denoising.drawn(black, learnt, 5, 1)
