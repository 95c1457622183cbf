"""A denoising-diffusion model: its noise, its sampler and its network against what the papers say."""

import keras
import numpy as np
import pytest

from mvtec_tf.networks import diffusion


def test_noise_in_one_go_has_the_moments_of_noise_step_by_step():
    steps, rng = 40, np.random.default_rng(0)
    shares = diffusion.alpha_bars(steps)
    x = np.full(200_000, 0.7)
    for step in range(1, steps + 1):
        beta = 1 - shares[step] / shares[step - 1]
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.standard_normal(len(x))
        if step in (1, 10, 25, steps):
            at_once = diffusion.noised(0.7, rng.standard_normal(len(x)), shares[step])
            assert x.mean() == pytest.approx(0.7 * np.sqrt(shares[step]), abs=0.01)
            assert x.var() == pytest.approx(1 - shares[step], abs=0.01)
            assert (at_once.mean(), at_once.var()) == pytest.approx((x.mean(), x.var()), abs=0.015)


def test_the_schedule_is_the_papers_cosine_and_its_last_step_is_kept_from_a_share_of_one():
    shares = diffusion.alpha_bars()
    angle = (np.arange(1000) / 1000 + 0.008) / 1.008 * np.pi / 2
    np.testing.assert_allclose(shares[:-1], np.cos(angle) ** 2 / np.cos(angle[0]) ** 2, rtol=1e-9)
    assert shares[0] == 1
    assert shares[-1] / shares[-2] == pytest.approx(1e-3)
    assert (np.diff(shares) < 0).all()


def test_the_sampler_undoes_noise_that_it_is_told():
    rng = np.random.default_rng(1)
    clean, noise = rng.uniform(-1, 1, (3, 4, 4, 2)), rng.standard_normal((3, 4, 4, 2))
    found = diffusion.ddim(lambda x, step: noise, diffusion.noised(clean, noise, diffusion.alpha_bars()[-1]), 20)
    np.testing.assert_allclose(found, clean, atol=1e-6)


def test_the_velocity_says_the_noise():
    clean, noise, share = 0.3, -1.2, 0.4
    noisy, velocity = (one(clean, noise, share) for one in (diffusion.noised, diffusion.velocity))
    assert diffusion.noise_of(noisy, velocity, share) == pytest.approx(noise)


def test_patches_that_the_best_denoiser_of_a_gaussian_draws_are_of_that_gaussian():
    mean, spread, shares = 0.2, 0.1, diffusion.alpha_bars()

    def predict(x, step):
        share = shares[step]
        return np.sqrt(1 - share) * (x - np.sqrt(share) * mean) / (share * spread**2 + 1 - share)

    found = diffusion.ddim(predict, np.random.default_rng(2).standard_normal(20_000), 200)
    assert found.mean() == pytest.approx(mean, abs=0.005)
    assert found.std() == pytest.approx(spread, rel=0.05)


def test_the_network_says_nothing_at_first_knows_the_step_and_comes_back_from_its_file(tmp_path):
    network = diffusion.build_denoiser(16, 4, 8)
    rng = np.random.default_rng(3)
    patches, steps = rng.standard_normal((2, 16, 16, 4)).astype(np.float32), np.array([3, 900], np.int32)
    np.testing.assert_array_equal(network([patches, steps]), np.zeros((2, 16, 16, 4)))
    network.set_weights([rng.normal(0, 0.3, weight.shape) for weight in network.get_weights()])
    said = network([patches, steps]).numpy()
    assert np.abs(network([patches, steps[::-1]]).numpy() - said).max() > 1e-3
    network.save(tmp_path / "network.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "network.keras")([patches, steps]), said)
    embedded = diffusion.StepEmbedding(6)(steps).numpy()
    expected = [[part(step / 10000 ** (k / 3)) for part in (np.sin, np.cos) for k in range(3)] for step in steps]
    np.testing.assert_allclose(embedded, expected, atol=1e-4)
