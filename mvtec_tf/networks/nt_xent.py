"""The contrastive loss of SimCLR."""

import tensorflow as tf


def nt_xent(z_a: tf.Tensor, z_b: tf.Tensor, temperature: float) -> tf.Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al., ICML 2020, equation 1), the mean over 2N views.

    For view i with partner j, among the 2N views of a batch of N images:

        loss_i = -log( exp(cos(z_i, z_j) / temperature) / sum_{k != i} exp(cos(z_i, z_k) / temperature) )

    Computed in float32, whatever the precision of the projections. The negatives are those of one replica.

    Args:
      z_a: [N, D], projections of the first views; their lengths do not matter.
      z_b: [N, D], projections of the second views, in the same order.
      temperature: positive; the smaller, the more the nearest negatives weigh.

    Returns:
      float32 scalar; 0 if N = 1, where there are no negatives.
    """
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"temperature must be positive. Received: {temperature}")
    similarity, partner = _similarities(z_a, z_b)  # [2N, 2N], [2N]
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=partner, logits=similarity / temperature)
    return tf.reduce_mean(cross_entropy)


def contrastive_accuracy(z_a: tf.Tensor, z_b: tf.Tensor) -> tf.Tensor:
    """Share of the 2N views whose partner is nearer, by cosine, than every other view.

    A tie is a miss: a collapsed network, which gives the same vector to every image, scores 0.

    Args:
      z_a: [N, D], projections of the first views.
      z_b: [N, D], projections of the second views, in the same order.

    Returns:
      float32 scalar in [0, 1].
    """
    similarity, partner = _similarities(z_a, z_b)
    is_partner = tf.one_hot(partner, tf.shape(similarity)[1], on_value=True, off_value=False)
    to_partner = tf.reduce_max(tf.where(is_partner, similarity, similarity.dtype.min), axis=1)
    to_nearest_other = tf.reduce_max(tf.where(is_partner, similarity.dtype.min, similarity), axis=1)
    return tf.reduce_mean(tf.cast(to_partner > to_nearest_other, tf.float32))


def _similarities(z_a: tf.Tensor, z_b: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cosines between all views, float32 [2N, 2N], and the index of each view's partner, int32 [2N]."""
    z = tf.cast(tf.concat([z_a, z_b], axis=0), tf.float32)
    # The epsilon keeps a vector of zeros, and its gradient, at zero instead of NaN.
    z = tf.math.l2_normalize(z, axis=1, epsilon=1e-12)
    similarity = tf.matmul(z, z, transpose_b=True)
    # A view is no candidate for its own partner. Finite, as infinity times a gradient of zero is NaN;
    # far below any cosine over any temperature, so that its exponential is exactly zero.
    similarity = tf.linalg.set_diag(similarity, tf.fill(tf.shape(similarity)[:1], -1e9))
    count = tf.shape(z)[0]
    partner = tf.math.floormod(tf.range(count) + count // 2, count)
    return similarity, partner
