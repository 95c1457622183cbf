"""The contrastive losses: of whole images (SimCLR), with their labels (SupCon), and of their patches (DenseCL)."""

import tensorflow as tf


def nt_xent(z_a: tf.Tensor, z_b: tf.Tensor, temperature: float) -> tf.Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al., ICML 2020, equation 1), the mean over 2N views.

    For view i with partner j, among the 2N views of a batch of N images:

        loss_i = -log( exp(cos(z_i, z_j) / temperature) / sum_{k != i} exp(cos(z_i, z_k) / temperature) )

    Computed in float32, whatever the precision of the projections.

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


def supervised_nt_xent(
    z_a: tf.Tensor, z_b: tf.Tensor, labels: tf.Tensor | None, temperature: float
) -> tf.Tensor:
    """NT-Xent whose partners are all views of the same label (Khosla et al., "Supervised contrastive learning", NeurIPS
    2020, equation 2), the mean over the 2N views.

    For view i with the set P(i) of other views of its label:

        loss_i = mean_{p in P(i)} ( log sum_{k != i} exp(cos(z_i, z_k) / temperature) - cos(z_i, z_p) / temperature )

    Args:
      z_a: [N, D], projections of the first views.
      z_b: [N, D], projections of the second views, in the same order.
      labels: int [2N], of the first and, behind them, the second views; None: each image is alone, as in `nt_xent`.
      temperature: positive.

    Returns:
      float32 scalar.
    """
    if labels is None:
        return nt_xent(z_a, z_b, temperature)
    logits = _similarities(z_a, z_b)[0] / temperature
    partners = tf.linalg.set_diag(tf.cast(labels[:, None] == labels, tf.float32), tf.zeros(tf.shape(labels)))
    # A view's own logit is far below all others, and times zero it is nothing.
    left = tf.reduce_logsumexp(logits, axis=1, keepdims=True) - logits
    losses = tf.reduce_sum(partners * left, axis=1) / tf.reduce_sum(partners, axis=1)
    return tf.reduce_mean(losses)


def dense_nt_xent(
    patches: tuple[tf.Tensor, tf.Tensor], maps: tuple[tf.Tensor, tf.Tensor], temperature: float
) -> tf.Tensor:
    """NT-Xent of patches (DenseCL: Wang et al., CVPR 2021, equation 2), the mean over the patches of 2N views.

    The partner of a patch r is the patch r+ of the other view whose backbone feature is nearest by cosine (equation 4);
    the negatives are the averages t of the patches of all views of the other images:

        loss = -log( exp(r . r+ / temperature) / (exp(r . r+ / temperature) + sum_t exp(r . t / temperature)) )

    for unit vectors r and t. The paper's keys are those of a moving average and a queue; here, as in SimCLR, they are
    the batch's own.

    Args:
      patches: [N, h, w, D] each, projections of the patches of the first and the second views.
      maps: [N, h, w, C] each, the backbone's output at the same patches.
      temperature: positive.

    Returns:
      float32 scalar; 0 if N = 1, where there are no negatives.
    """
    first, second = (_unit_patches(one) for one in patches)
    cosines = tf.matmul(*(_unit_patches(one) for one in maps), transpose_b=True)  # [N, S, S]
    means = tf.concat([tf.reduce_mean(_unit_patches(one), axis=1) for one in patches], axis=0)
    means = tf.math.l2_normalize(means, axis=1, epsilon=1e-12)  # [2N, D]
    count = tf.shape(first)[0]
    own = tf.tile(tf.eye(count), [1, 2])[:, None, :] * -1e9  # [N, 1, 2N]
    losses = []
    for ours, theirs, nearness in ((first, second, cosines), (second, first, tf.linalg.matrix_transpose(cosines))):
        partner = tf.gather(theirs, tf.argmax(nearness, axis=2), batch_dims=1)
        positive = tf.reduce_sum(ours * partner, axis=2, keepdims=True)
        negative = tf.einsum("nsd,md->nsm", ours, means) + own
        logits = tf.concat([positive, negative], axis=2) / temperature
        losses.append(tf.reduce_mean(tf.reduce_logsumexp(logits, axis=2) - logits[..., 0]))
    return tf.add_n(losses) / 2


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


def _unit_patches(maps: tf.Tensor) -> tf.Tensor:
    """[N, h, w, D] -> float32 [N, h * w, D], unit vectors."""
    flat = tf.reshape(tf.cast(maps, tf.float32), [tf.shape(maps)[0], -1, maps.shape[-1]])
    return tf.math.l2_normalize(flat, axis=2, epsilon=1e-12)
