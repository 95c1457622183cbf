"""Which heads there are and what can be set of them; plain data, so that a command line needs no TensorFlow."""

import dataclasses

from mvtec_tf.errors import UsageError
from mvtec_tf.settings import check_all, field

# name -> what it is, for a command line.
HEADS = {
    "logistic": "logistic regression on global features",
    "linear_svm": "linear support vector machine on global features",
    "rbf_svm": "support vector machine with a Gaussian kernel on global features",
    "lda": "linear discriminant of global features with the good images' covariance",
    "mahalanobis": "distance of the global features to a Gaussian of the good images; needs no labels",
    "nearest_neighbours": "distance of the global features to the nearest good images; needs no labels",
    "padim": "distance of each patch to a Gaussian of its position in the good images; needs no labels",
    "patchcore": "distance of each patch to the nearest in a memory of good patches; needs no labels",
    "fused": "distance to the good images and deviations of patches from good ones, joined, plus ridge regression on "
    "the labels; also without labels; the head of the recipe few_labels",
    "hybrid": "the heads of `hybrid_of` weighed by a logistic regression",
}
LOG_ODDS = "log-odds of defective, both classes weighted alike"
# Of the supervised network's two logits, and of the study's head.
PLAIN_LOG_ODDS = "log-odds of defective"
# name -> the unit of its score, as diagrams, cards, reports and the README say it.
SCORE_UNITS = {
    "logistic": LOG_ODDS,
    "linear_svm": "signed distance from the separating plane, in margins",
    "rbf_svm": "signed distance from the separating surface, in margins",
    "lda": LOG_ODDS,
    "mahalanobis": "Mahalanobis distance from the good images",
    "nearest_neighbours": "distance from the nearest good images, in standard deviations of each feature",
    "padim": "largest Mahalanobis distance of a patch from those of good images at its place",
    "patchcore": "largest distance of a patch from the nearest good one, in standard deviations of each layer",
    "fused": "summed standard deviations of held-out good images",
    "hybrid": LOG_ODDS,
}
NEED_LABELS = frozenset({"logistic", "linear_svm", "rbf_svm", "lda", "hybrid"})
# The hybrid looks at patches if one of its heads does, see HeadSettings.needs_maps.
NEED_MAPS = frozenset({"padim", "patchcore", "fused", "hybrid"})
# field of HeadNumbers -> the heads that read it, alone or in the hybrid.
READ_BY = {
    "head_c": ("logistic", "linear_svm", "rbf_svm"),
    "neighbours": ("nearest_neighbours", "patchcore"),
    "memory_bank": ("patchcore",),
    "coreset_candidates": ("patchcore",),
    "padim_channels": ("padim",),
    "hybrid_of": ("hybrid",),
}
# Those that can be fitted to more than two classes.
TYPE_HEADS = ("logistic", "linear_svm")
# It learns from labels where there are any, and whole: what it is made of cannot be stacked once more.
FUSED = "fused"
LABEL_FREE = tuple(name for name in HEADS if name not in NEED_LABELS)
_STACKABLE = tuple(name for name in HEADS if name not in ("hybrid", FUSED))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadNumbers:
    """The numbers of every head.

    Attributes:
      head_c: inverse strength of the penalty of logistic regression and SVMs.
      neighbours: nearest images or patches whose distances are averaged.
      memory_bank: patches that patchcore keeps.
      coreset_candidates: random patches among which patchcore chooses its memory.
      padim_channels: random channels of a patch that padim looks at.
      hybrid_of: heads that the hybrid weighs.
    """

    head_c: float = field(1.0, above=0)
    neighbours: int = field(1, least=1)
    memory_bank: int = field(2000, least=1)
    coreset_candidates: int = field(50_000, least=1)
    padim_channels: int = field(100, least=1)
    hybrid_of: tuple[str, ...] = ("lda", "mahalanobis", "patchcore")

    def head_settings(self, name: str, seed: int) -> "HeadSettings":
        """The settings of the head `name`, with these numbers."""
        return HeadSettings(name, seed, **{number: getattr(self, number) for number in READ_BY})


@dataclasses.dataclass(frozen=True)
class HeadSettings(HeadNumbers):
    """One head and its numbers; those of other heads (`READ_BY`) are left aside.

    Attributes:
      name: a key of HEADS.
      seed: of everything that is drawn.
    """

    name: str
    seed: int = 0

    @property
    def needs_maps(self) -> bool:
        """Whether patch maps must be there."""
        names = self.hybrid_of if self.name == "hybrid" else (self.name,)
        return any(name in NEED_MAPS for name in names)

    def __post_init__(self) -> None:
        """Raises UsageError for a head that there is not, or a number that makes no sense."""
        if self.name == "auto":
            raise UsageError(
                "`head`=auto: there is no such head any more: choosing the weight of the labels was measured to be no "
                "better than a fixed weight. Use fused, or the recipe few_labels."
            )
        if self.name not in HEADS:
            raise UsageError(f"`head`={self.name}: unknown. Known are {', '.join(HEADS)}.")
        check_all(self)
        wrong = [name for name in self.hybrid_of if name not in _STACKABLE]
        if wrong or not self.hybrid_of or len(set(self.hybrid_of)) < len(self.hybrid_of):
            raise UsageError(
                f"`hybrid_of`={','.join(self.hybrid_of)}: expected different heads out of {', '.join(_STACKABLE)}."
            )


def check_budget(name: str, budget: object) -> None:
    """Raises UsageError where a head that needs labels gets none."""
    if budget == 0 and name in NEED_LABELS:
        raise UsageError(
            f"`label_budget`=0: `head`={name} needs labels. Use `recipe`=few_labels, or a head that needs none "
            f"({', '.join(LABEL_FREE)}), or raise the budget."
        )
