"""The questions that this project was begun with, answered from runs: what few labels can do, and what they cannot.

The original study asked whether self-supervised learning with at most 10 % of the labels reaches
an F1 of 75 %, and how that compares with a supervised network that has all of them. Each answer
here is a figure with its interval, or says which runs are missing for it.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mvtec_tf.evaluation import intervals, scope, trivial
from mvtec_tf.evaluation.comparison import compare as comparison
from mvtec_tf.evaluation.comparison.compare import ALL, Comparison
from mvtec_tf.evaluation.comparison.contenders import Method
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.report import summary
from mvtec_tf.study import answers as study_answers
from mvtec_tf.study import roles
from mvtec_tf.study.answers import MARK_F1, MARK_SHARE, Answer, Finding, Mark
from mvtec_tf.study.roles import BASELINE, label_share, role


@dataclasses.dataclass(frozen=True)
class Study:
    """What the runs say.

    Attributes:
      compared: all of them on the same images.
      answers: to the three questions.
      marks: of each method that the mark is about.
      always_defective_f1: what calling everything defective gets on the same images.
      mark: the sentences on the mark.
      limits: what these runs cannot show, a sentence each.
    """

    compared: Comparison
    answers: tuple[Answer, ...]
    marks: tuple[Mark, ...]
    always_defective_f1: float | None
    mark: tuple[str, ...]
    limits: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The content of `study.json`."""
        return {
            "questions": [
                {
                    "question": answer.question,
                    "answer": " ".join(answer.text),
                    "findings": [_finding(each) for each in answer.findings],
                }
                for answer in self.answers
            ],
            "mark": {
                "f1": MARK_F1,
                "label_share": MARK_SHARE,
                "methods": [dataclasses.asdict(each) | {"f1": each.f1.as_json()} for each in self.marks],
                "always_defective_f1": self.always_defective_f1,
                "always_defective_meets_it": study_answers.always_meets(self.always_defective_f1),
                "answer": " ".join(self.mark),
            },
            "limits": list(self.limits),
            "methods": {
                each.method.name: {
                    "role": role(each.method),
                    "labels_used": each.method.labels_used,
                    "label_share": label_share(each.method),
                    "verdict": each.verdict,
                    "runs": [{"source": run.source, "record": run.record} for run in each.method.runs],
                }
                for each in self.compared.standings
            },
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """The content of `study.csv`: one row of each figure that an answer rests on."""
        for number, answer in enumerate(self.answers, 1):
            for each in answer.findings:
                yield {"question": number} | _finding(each)


def study(methods: Sequence[Method], costs: Costs | None = None, bootstrap: Bootstrap | None = None) -> Study:
    """Answers the questions from methods on the same images.

    Args:
      methods: see `contenders.read_methods`.
      costs, bootstrap: see `comparison.compare`.
    """
    compared = comparison.compare(roles.arrange(methods), costs, bootstrap)
    always = compared.standings[0].scopes[0].trivial[trivial.ALWAYS_DEFECTIVE]["f1"].value
    marks = tuple(study_answers.mark_of(each) for each in study_answers.few_labels(compared))
    return Study(
        compared=compared,
        answers=study_answers.answers(compared),
        marks=marks,
        always_defective_f1=always,
        mark=study_answers.on_the_mark(marks, always),
        limits=tuple(_limits(compared)),
    )


def _limits(compared: Comparison) -> Iterator[str]:
    """What these very runs cannot show."""
    first, whole = compared.standings[0], compared.standings[0].scopes[0]
    single = [each.method.name for each in compared.standings if len(each.method.runs) == 1]
    if single:
        yield (
            f"One run each of {', '.join(single)}: their intervals cover which images were evaluated, not another draw "
            "of labels, another cut or another training."
        )
    if compared.groups == whole.images and len(first.method.runs) == 1:
        yield (
            "No two images are recorded as showing the same object. If some do, the intervals are too narrow and a "
            "leak between the parts would not be seen."
        )
    if not compared.bootstrap.resamples:
        yield "No intervals were asked for."
    few = min(whole.good, whole.defective)
    if few < 100:
        widest = 196 * (0.25 / few) ** 0.5 if few else 100
        yield (
            f"{whole.good:,} good and {whole.defective:,} defective images were evaluated: a share of {few:,} images "
            f"is known to +-{widest:.0f} percentage points at worst."
        )
    for each in compared.standings:
        if role(each.method) == BASELINE and each.verdict in (scope.BETTER, scope.MIXED):
            yield (
                f"{each.method.name} tells good from defective without any network (balanced accuracy "
                f"{summary.with_limits(each.figures[ALL]['balanced_accuracy'])}): what it sees, such as the light, "
                "differs between the good and the defective images of this set, and a model may rest on that."
            )
        if each.method.leak:
            yield each.method.leak.sentence(f"The figures of {each.method.name}")
    yield (
        f"All figures are of {len(compared.categories)} categories ({', '.join(compared.categories)}) at their share "
        "of defects, which is rarely that of a production line; other products are another question."
    )


def _finding(each: Finding) -> dict[str, Any]:
    figure: Mapping[str, Any] = each.figure.as_json()
    return {
        "method": each.method,
        "metric": each.metric,
        "against": each.against,
        "value": figure["value"],
        "low": figure["low"],
        "high": figure["high"],
        "level": None if figure["low"] is None else intervals.LEVEL,
    }
