"""How well thresholds keep what they promise, before and since they rest on the line as it is, for `recipe_search`.

Each set is judged as it is and with the scores of all its test images raised by two standard deviations of held-out
good images, as another lamp might do.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mvtec_tf import conformal
from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import TEST, Record
from mvtec_tf.evaluation import shift
from mvtec_tf.evaluation.assessment import assess
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.table import Predictions, rows
from mvtec_tf.evaluation.thresholds import Rule
from mvtec_tf.features.recipe import FEW_LABELS, RECIPES

RAISED = 2.0
# Of the photographs without labels: half as many as may be.
DEFECTIVE = 0.1
# Objects that a threshold may have to rest on, and how.
FEW = (5, 10, 20, 30)
_CUTS = (conformal.order_statistic, conformal.prediction_limit)
_METRICS = ("balanced_accuracy", "specificity", "recall")
# Title -> what `figures` calls it; {} is "" or "raised ".
_COLUMNS = {
    False: {
        "specificity before": "{}specificity before",
        "recall": "{}recall before",
        "shift announced": "{}announced before",
        "specificity with photographs": "{}specificity now",
        "recall ": "{}recall now",
        "raised": "{}raised",
    },
    True: {
        "balanced accuracy before": "{}balanced_accuracy before",
        "now": "{}balanced_accuracy now",
        "specificity before": "{}specificity before",
        "now ": "{}specificity now",
        "shift announced now": "{}announced now",
        "raised": "{}raised",
    },
}


@dataclasses.dataclass(frozen=True)
class Draw:
    """What a head says in one draw.

    Attributes:
      cut: who is who.
      tests: all test images.
      scores: float [N], theirs.
      held_out: images with an out-of-fold score.
      held_out_scores: float [M], these.
      seed: random seed of which defective images are among the photographs without labels.
    """

    cut: Cut
    tests: Sequence[Record]
    scores: np.ndarray
    held_out: Sequence[Record]
    held_out_scores: np.ndarray
    seed: int

    def figures(self) -> dict[str, float]:
        """Name -> figure of the evaluated images; "announced" and "raised" are 0 or 1."""
        of_line = np.array([record.split == TEST for record in self.held_out], bool)
        by = RAISED * float(self.held_out_scores[~of_line].std())
        lamp = dataclasses.replace(self, scores=self.scores + by, held_out_scores=self.held_out_scores + by * of_line)
        return self._figures() | {f"lamp {name}": value for name, value in lamp._figures().items()}

    def _figures(self) -> dict[str, float]:
        if self.cut.labelled:
            moved, line = shift.on_line(self.held_out, self.held_out_scores)
            acted = any(one.raises for one in line.values())
        else:
            held = Predictions.from_rows(rows(self.held_out, "calibrate", self.held_out_scores))
            one = shift.of_unlabelled(held, self._photographs())
            acted = one.raises
            moved = self.held_out_scores + acted * one.difference
        return self._judged("before", self.held_out_scores) | self._judged("now", moved) | {"raised": float(acted)}

    def _judged(self, when: str, held_out_scores: np.ndarray) -> dict[str, float]:
        score_of = {record.path: score for record, score in zip(self.tests, self.scores, strict=True)}
        table = rows(self.held_out, "calibrate", held_out_scores)
        table += rows(self.cut.evaluate, "evaluate", np.array([score_of[one.path] for one in self.cut.evaluate]))
        rule = Rule(RECIPES[FEW_LABELS].threshold)
        judged = assess(Predictions.from_rows(table), rule=rule, bootstrap=Bootstrap(0))
        found = {f"{name} {when}": judged.overall.metrics[name].value for name in _METRICS}
        return found | {f"announced {when}": float(any(one.said for one in judged.shifts.values()))}

    def _photographs(self) -> np.ndarray:
        """Scores of the good images of the half that is not evaluated, and of a few of its defective ones."""
        evaluated = {record.path for record in self.cut.evaluate}
        kind = np.array([-1 if record.path in evaluated else record.label for record in self.tests])
        good, defective = np.flatnonzero(kind == 0), np.flatnonzero(kind == 1)
        few = round(DEFECTIVE / (1 - DEFECTIVE) * len(good))
        chosen = np.random.default_rng(self.seed).permutation(defective)[:few]
        return self.scores[np.concatenate([good, chosen])]


def of_few(scores: np.ndarray, objects: np.ndarray, draws: int = 400) -> dict[int, tuple[float, float]]:
    """Specificity where a threshold rests on few held-out good objects, judged on the others.

    Args:
      scores: float [N], of held-out good images.
      objects: int [N].
      draws: of the few.

    Returns:
      Number of objects -> by the order statistic, by the prediction limit, each in the mean of the draws.
    """
    names, mass, rng = np.unique(objects), conformal.masses(objects), np.random.default_rng(0)
    found = {}
    for few in (few for few in FEW if few + 3 <= len(names)):
        passed = []
        for _ in range(draws):
            known = np.isin(objects, rng.permutation(names)[:few])
            cuts = [cut(scores[known], mass[known], conformal.FALSE_ALARMS) for cut in _CUTS]
            passed.append([np.average(scores[~known] <= cut, weights=mass[~known]) for cut in cuts])
        found[few] = tuple(np.mean(passed, axis=0).tolist())
    return found


def table_of_few(sets: Sequence[str], found: Sequence[Mapping[int, tuple[float, float]]]) -> str:
    """Markdown of what `of_few` found of each set; the order statistic, then the prediction limit."""
    lines = [f"| set | {' | '.join(f'{few} objects' for few in FEW)} |", "|" + "---|" * (len(FEW) + 1)]
    for name, own in zip(sets, found, strict=True):
        cells = [", ".join(f"{value:.3f}" for value in own[few]) if few in own else "-" for few in FEW]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table(sets: Sequence[str], draws: Sequence[Sequence[Mapping[str, float]]], labelled: bool) -> str:
    """Markdown: the sets as they are, then with raised scores.

    Args:
      sets: their names.
      draws: what `Draw.figures` gives, draw by draw, one list a set.
      labelled: whether labels were bought.
    """
    columns = _COLUMNS[labelled]
    lines = [f"| set | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for prefix, words in (("", ""), ("lamp ", ", another lamp")):
        names = [name.format(prefix) for name in columns.values()]
        values = np.array([[np.mean([draw[name] for draw in own]) for name in names] for own in draws])
        for name, row in zip([*sets, "mean"], [*values, values.mean(axis=0)], strict=True):
            lines.append(f"| {name}{words} | {' | '.join(f'{value:.3f}' for value in row)} |")
    return "\n".join(lines)
