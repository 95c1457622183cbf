"""Which pictures an assessment has: one small PNG per panel, so that a page can lay them out for its width."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

from matplotlib.figure import Figure

from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.report import canvas, panels
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.scope import Scope

# Pictures of more categories would make a report that no browser likes to open.
MOST_CATEGORIES = 24


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of picture.

    Attributes:
      title: in words.
      reading: what to look at in every picture of this kind.
      draw: draws a scope into an empty figure.
      describe: the caption of a scope's picture.
      missing: why a scope has no such picture, "" if it has.
      applies: whether such a picture of a scope would say anything that others do not.
      height: of the figure, in inches.
    """

    title: str
    reading: str
    draw: Callable[[Figure, Scope], None]
    describe: Callable[[Scope], str]
    missing: Callable[[Scope], str]
    applies: Callable[[Scope], bool] = lambda scope: True
    height: Callable[[Scope], float] = lambda scope: canvas.HEIGHT


def pictures(judged: Assessment) -> Iterator[Picture]:
    """All panels that can be drawn: of all images, then kind by kind of the categories.

    A single category is all images, and is drawn once. Of more than `MOST_CATEGORIES` categories
    the first are drawn.
    """
    for name, kind in KINDS.items():
        if kind.applies(judged.overall) and not kind.missing(judged.overall):
            yield _picture(name, judged.overall, f"{name}.png")
    scopes = list(judged.categories.values())[:MOST_CATEGORIES] if len(judged.categories) > 1 else []
    for name, kind in KINDS.items():
        for index, scope in enumerate(scopes, 1):
            if kind.applies(scope) and not kind.missing(scope):
                # Category names are free text; the number keeps two alike ones apart.
                file_name = f"{name}_{index:02d}_{re.sub('[^A-Za-z0-9-]+', '_', scope.name)}.png"
                yield _picture(name, scope, file_name)


def missing(judged: Assessment) -> list[str]:
    """Which pictures could not be drawn and why, a sentence each."""
    several = len(judged.categories) > 1
    scopes = [judged.overall, *list(judged.categories.values())[:MOST_CATEGORIES]] if several else [judged.overall]
    sentences = []
    for kind in KINDS.values():
        reasons = {scope.name: reason for scope in scopes if kind.applies(scope) and (reason := kind.missing(scope))}
        for reason in dict.fromkeys(reasons.values()):
            names = [name or "all images" for name, found in reasons.items() if found == reason]
            sentences.append(f"{kind.title}: no picture of {', '.join(names)}, because {reason}.")
    if several and len(judged.categories) > MOST_CATEGORIES:
        sentences.append(
            f"Pictures are shown of the first {MOST_CATEGORIES} of {len(judged.categories)} categories; "
            "the tables have all of them."
        )
    return sentences


def _picture(name: str, scope: Scope, file_name: str) -> Picture:
    kind = KINDS[name]
    figure = canvas.empty(kind.height(scope))
    kind.draw(figure, scope)
    caption = kind.describe(scope)
    subject = f"category {scope.name}" if scope.name else "all evaluated images"
    alt = f"{kind.title}, {subject}. {caption}"
    return Picture(name, scope.name, file_name, canvas.png(figure), alt, caption)


# In the order of the report; a kind that is added here is drawn, captioned and shown.
KINDS: Mapping[str, Kind] = {
    "confusion_matrix": Kind(
        "Confusion matrix",
        "Upper row: good images, lower row: defective ones; the darker a field, the larger its share of the row. "
        "A model that looks is dark from the upper left to the lower right. Dark only on the right means that "
        "everything is called defective.",
        panels.draw_confusion,
        panels.describe_confusion,
        panels.needs_calls,
    ),
    "roc": Kind(
        "ROC curve",
        "How many defects are found for how many good images falsely stopped, at every threshold. The nearer to the "
        "upper left corner, the better; on the dashed diagonal the score says nothing. The "
        "band holds 95 % of the resampled curves; the dot is the threshold used.",
        panels.draw_roc,
        panels.describe_roc,
        panels.needs_both_classes,
    ),
    "precision_recall": Kind(
        "Precision and recall",
        "How many of the stopped images are truly defective, for how many defects found. Only what lies above the "
        "dashed line is better than stopping everything. The band holds 95 % of the resampled curves; the dot is the "
        "threshold used.",
        panels.draw_pr,
        panels.describe_pr,
        panels.needs_both_classes,
    ),
    "score_histogram": Kind(
        "Scores by class",
        "How many images have which score, good ones above and defective ones below. The less the two overlap, the "
        "better. What lies right of the dashed threshold is called defective.",
        panels.draw_histogram,
        panels.describe_histogram,
        lambda scope: "",
    ),
    "recall_by_category": Kind(
        "Recall and specificity by category",
        "Both bars of a category should be long; the thin lines are 95 % intervals. A long orange bar beside a short "
        "blue one means that nearly everything of that category is called defective.",
        panels.draw_categories,
        panels.describe_categories,
        panels.needs_calls,
        applies=lambda scope: bool(scope.categories),
        height=panels.height_of_categories,
    ),
    "recall_by_defect": Kind(
        "Recall by defect type",
        "Which defects are found and which are overlooked, with 95 % intervals: few images of a type leave its bar "
        "nearly unknown.",
        panels.draw_defects,
        panels.describe_defects,
        panels.needs_defects,
        applies=lambda scope: not scope.categories,
        height=panels.height_of_defects,
    ),
    "reliability": Kind(
        "Reliability of the probability",
        "Of the images with about one probability, how many are defective. On the dashed line a probability means what "
        "it says; below it defects are cried too loud. The bars show how many images a point stands for.",
        panels.draw_reliability,
        panels.describe_reliability,
        panels.needs_probabilities,
    ),
}
