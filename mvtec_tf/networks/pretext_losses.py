"""Losses of learning from two views without other images to compare with, and what tells that it has collapsed."""

import tensorflow as tf

# Weight of what lies off the diagonal (Barlow Twins, section 2.1, found best at 5e-3).
_OFF_DIAGONAL = 5e-3
# Weights of likeness, spread and covariance (VICReg, section 4.2), and the spread that is wanted.
_LIKENESS, _SPREAD, _COVARIANCE, _WANTED = 25.0, 25.0, 1.0, 1.0
_TINY = 1e-4


def negative_cosine(
    predicted: tuple[tf.Tensor, tf.Tensor], projected: tuple[tf.Tensor, tf.Tensor]
) -> tf.Tensor:
    """Minus the mean cosine of each view's prediction and the other view's projection, which gets no gradient.

    L = -(cos(p_a, stop(z_b)) + cos(p_b, stop(z_a))) / 2: SimSiam (Chen and He, CVPR 2021, equation 4). Of a target's
    projections, 2 + 2 L is BYOL's loss (Grill et al., NeurIPS 2020, equation 2), halved for the two views.

    Args:
      predicted: [N, D] each, of both views.
      projected: likewise.

    Returns:
      float32 scalar in [-1, 1].
    """
    first, second = (
        _unit(p) * _unit(tf.stop_gradient(z)) for p, z in zip(predicted, reversed(projected), strict=True)
    )
    return -tf.reduce_mean(tf.reduce_sum(first + second, axis=1)) / 2


def barlow_twins(z_a: tf.Tensor, z_b: tf.Tensor) -> tf.Tensor:
    """Distance of the cross-correlation matrix of both views from the identity (Zbontar et al., ICML 2021, equation 1).

    L = sum_i (1 - C_ii)^2 + 0.005 sum_{i != j} C_ij^2, C_ij the correlation over the batch of feature i of the first
    views with feature j of the second.

    Args:
      z_a, z_b: [N, D], projections of the first and the second views; N at least 2.

    Returns:
      float32 scalar.
    """
    first, second = (_standardised(tf.cast(z, tf.float32)) for z in (z_a, z_b))
    correlation = tf.matmul(first, second, transpose_a=True) / tf.cast(tf.shape(first)[0], tf.float32)
    diagonal = tf.linalg.diag_part(correlation)
    off = tf.reduce_sum(tf.square(correlation)) - tf.reduce_sum(tf.square(diagonal))
    return tf.reduce_sum(tf.square(1 - diagonal)) + _OFF_DIAGONAL * off


def vicreg(z_a: tf.Tensor, z_b: tf.Tensor) -> tf.Tensor:
    """Variance, invariance, covariance (Bardes, Ponce and LeCun, ICLR 2022, equations 1 to 6).

    L = 25 s + 25 (v_a + v_b) + c_a + c_b: s is the mean squared distance of the views (each difference over D), v the
    mean over features of max(0, 1 - sqrt(variance + 1e-4)), c the sum of the squared covariances of different features
    over D.

    Args:
      z_a, z_b: [N, D], projections of the first and the second views; N at least 2.

    Returns:
      float32 scalar.
    """
    z_a, z_b = tf.cast(z_a, tf.float32), tf.cast(z_b, tf.float32)
    loss = _LIKENESS * tf.reduce_mean(tf.square(z_a - z_b))
    for z in (z_a, z_b):
        count, width = (tf.cast(size, tf.float32) for size in tf.unstack(tf.shape(z)))
        centred = z - tf.reduce_mean(z, axis=0)
        covariance = tf.matmul(centred, centred, transpose_a=True) / (count - 1)
        variance = tf.linalg.diag_part(covariance)
        off = tf.reduce_sum(tf.square(covariance)) - tf.reduce_sum(tf.square(variance))
        loss += _SPREAD * tf.reduce_mean(tf.nn.relu(_WANTED - tf.sqrt(variance + _TINY))) + _COVARIANCE * off / width
    return loss


def deviation(z: tf.Tensor) -> tf.Tensor:
    """The mean over features of the standard deviation of unit vectors, by that of evenly spread ones, 1 / sqrt(D).

    About 1 where the projections fill the sphere, 0 where all are one vector (SimSiam, section 4.1).

    Args:
      z: [N, D].

    Returns:
      float32 scalar.
    """
    width = tf.cast(tf.shape(z)[1], tf.float32)
    return tf.reduce_mean(tf.math.reduce_std(_unit(z), axis=0)) * tf.sqrt(width)


def effective_rank(z: tf.Tensor) -> tf.Tensor:
    """The exponential of the entropy of the singular values, as shares of their sum (Roy and Vetterli, EUSIPCO 2007;
    of embeddings: Garrido et al., "RankMe", ICML 2023, equation 1): how many directions the vectors fill.

    Args:
      z: [N, D].

    Returns:
      float32 scalar from 1 to min(N, D).
    """
    z = tf.cast(z, tf.float32)
    # The op fails on what is no number or overflows; that a training has diverged is for the loss to say.
    z = tf.where(tf.math.is_finite(z), z, 0.0)
    z /= tf.maximum(tf.reduce_max(tf.abs(z)), 1e-12)
    # The eigenvalues of the small matrix of products are the squares.
    values = tf.sqrt(tf.maximum(tf.linalg.eigvalsh(tf.matmul(z, z, transpose_b=True)), 0.0))
    shares = values / tf.maximum(tf.reduce_sum(values), 1e-12)
    return tf.exp(-tf.reduce_sum(tf.math.xlogy(shares, shares)))


def _unit(z: tf.Tensor) -> tf.Tensor:
    # The epsilon keeps a vector of zeros, and its gradient, at zero instead of NaN.
    return tf.math.l2_normalize(tf.cast(z, tf.float32), axis=1, epsilon=1e-12)


def _standardised(z: tf.Tensor) -> tf.Tensor:
    centred = z - tf.reduce_mean(z, axis=0)
    return centred / tf.sqrt(tf.reduce_mean(tf.square(centred), axis=0) + 1e-12)
