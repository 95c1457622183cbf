"""Classifiers that do not look at the image: what every figure has to be compared with."""

from collections.abc import Callable, Mapping

import numpy as np

from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.metrics import Confusion, Costs, Metric
from mvtec_tf.evaluation.sample import measure

ALWAYS_DEFECTIVE = "always_defective"
ALWAYS_GOOD = "always_good"
CHANCE = "chance"


def always_defective(labels: np.ndarray, costs: Costs) -> dict[str, Metric]:
    """The metrics of calling every image defective, with certainty.

    Args:
      labels: [N] of 0 and 1.
      costs: of wrong calls.
    """
    return measure(labels, np.zeros(len(labels)), 0.0, probabilities=np.ones(len(labels)), costs=costs)


def always_good(labels: np.ndarray, costs: Costs) -> dict[str, Metric]:
    """The metrics of calling no image defective, with certainty. Args as in `always_defective`."""
    return measure(labels, np.zeros(len(labels)), 1.0, probabilities=np.zeros(len(labels)), costs=costs)


def chance(labels: np.ndarray, costs: Costs) -> dict[str, Metric]:
    """The metrics of a coin: each image called defective with probability 1/2, ranked at random.

    Those of its expected counts, not means over throws. Args as in `always_defective`.
    """
    defective = int(np.sum(labels))
    good = len(labels) - defective
    # Half of each class is called either way; all counts doubled, which changes no figure.
    found = metrics.of_counts(Confusion(tn=good, fp=good, fn=defective, tp=defective), costs)
    constant = measure(labels, np.zeros(len(labels)), None, probabilities=np.full(len(labels), 0.5))
    ranking = {name: constant[name] for name in metrics.RANKING}
    if ranking["roc_auc"].value is not None:
        # A random ranking finds as large a share of the defects as it stops of the good images.
        at_random = {"roc_auc": 0.5, "pr_auc": defective / len(labels)}
        at_random |= {name: 0.05 for name in ("recall_at_95_specificity", "specificity_at_95_recall")}
        at_random |= {name: 0.01 for name in ("recall_at_99_specificity", "specificity_at_99_recall")}
        ranking = {name: Metric(at_random[name]) for name in ranking}
    return constant | ranking | found


# In the order of the report.
CLASSIFIERS: Mapping[str, Callable[[np.ndarray, Costs], dict[str, Metric]]] = {
    ALWAYS_DEFECTIVE: always_defective,
    ALWAYS_GOOD: always_good,
    CHANCE: chance,
}
