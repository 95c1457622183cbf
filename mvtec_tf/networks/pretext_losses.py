"""Losses of learning from two views.

Contrastive ones: of whole images (SimCLR), with their labels (SupCon), and of their patches (DenseCL); those without
other images to compare with, and what tells that these have collapsed.
"""

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
