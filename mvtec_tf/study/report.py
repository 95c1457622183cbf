"""The page of methodology and findings, written from the records of runs: what few labels can do, and what they cannot.

The original study asked whether self-supervised learning with at most 10 % of the labels reaches
an F1 of 75 %, and how that compares with a supervised network that has all of them. Each answer
here is a figure with its interval, or says which runs are missing for it.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import intervals, metrics, scope, trivial
from mvtec_tf.evaluation.comparison import compare as comparison
from mvtec_tf.evaluation.comparison import pictures as comparison_figures
from mvtec_tf.evaluation.comparison import report
from mvtec_tf.evaluation.comparison.compare import ALL, Comparison, Standing
from mvtec_tf.evaluation.comparison.contenders import Method
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.report import diagrams, page
from mvtec_tf.evaluation.report.page import Cell, Column, Listing, Pictures, Section, Table
from mvtec_tf.evaluation.report.summary import METRIC_TEXTS
from mvtec_tf.study import answers as study_answers
from mvtec_tf.study.answers import BASELINE, MARK_F1, MARK_SHARE, SHOWN, Answer, Finding, Mark, label_share, role

JSON_FILE, CSV_FILE, PAGE_FILE = "study.json", "study.csv", "study.html"
_COLUMNS = ("question", "method", "metric", "against", "value", "low", "high", "level")
# Of the settings, those that say what was done; a run's own report has all of them.
_TOLD = ("backbone", "image_size", "weights", "head", "features", "epochs", "batch_size", "learning_rate")
_PROTOCOLS = {
    "clean": (
        "Per category and seed, whole groups of the test images are cut once into a pool and an evaluation part, "
        "stratified by defect type. Labels are bought from the pool only, and every label that is used for fitting, "
        "early stopping, choice or a threshold counts. Good training images are open to every method and never judged."
    ),
    "one_class": (
        "As in the literature: fitted on all good training images without any label, judged on all test images. The "
        "threshold comes from held-out good training images, not from the test images."
    ),
    "study": (
        "The original study's protocol: labelled images are among the evaluated ones, so its figures are no evidence."
    ),
}


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
    compared = comparison.compare(study_answers.arrange(methods), costs, bootstrap)
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


def write(
    methods: Sequence[Method],
    out_dir: files.PathLike,
    title: str = "Comparison",
    costs: Costs | None = None,
    bootstrap: Bootstrap | None = None,
) -> Study:
    """Answers the questions and writes `study.json`, `study.csv` and, last, `study.html`.

    Args:
      methods: see `contenders.read_methods`; each of them runs, not bare tables.
      out_dir: made if missing.
      title: of the page.
      costs, bootstrap: see `comparison.compare`.

    Raises:
      UserError: a method is a bare table, which does not say how it was made.
    """
    for run in (run for method in methods for run in method.runs):
        if run.record is None:
            raise UserError(
                f"`study`: {run.source} is no run directory (no run.json with it), so nothing says how it was made. "
                "Name run directories, or compare without `study`."
            )
    found = study(methods, costs, bootstrap)
    out_dir = pathlib.Path(out_dir)
    files.write_json(out_dir / JSON_FILE, found.as_json())
    files.write_csv(out_dir / CSV_FILE, _COLUMNS, ([row[name] for name in _COLUMNS] for row in found.rows()))
    files.write_text(out_dir / PAGE_FILE, render(found, title))
    return found


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
                f"{metrics.with_limits(each.figures[ALL]['balanced_accuracy'])}): what it sees, such as the light, "
                "differs between the good and the defective images of this set, and a model may rest on that."
            )
        if each.method.leak:
            yield each.method.leak.sentence(f"The figures of {each.method.name}")
    yield (
        f"All figures are of {len(compared.categories)} categories ({', '.join(compared.categories)}) at their share "
        "of defects, which is rarely that of a production line; other products are another question."
    )


def _finding(each: Finding) -> dict[str, Any]:
    figure = each.figure
    return {
        "method": each.method,
        "metric": each.metric,
        "against": each.against,
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "level": None if figure.low is None else intervals.LEVEL,
    }


def sentences(found: Study) -> list[str]:
    """The answers and what is to be said on the mark, one text each; the first three are the answers."""
    return [*(" ".join(answer.text) for answer in found.answers), *found.mark]


def render(found: Study, title: str) -> str:
    """The whole page as HTML."""
    compared = found.compared
    leaks = any(each.method.leak for each in compared.standings)
    questions = [
        Section(f"{number}. {answer.question}", [*answer.text, _findings(answer.findings)])
        for number, answer in enumerate(found.answers, 1)
    ]
    sections = [
        Section("The three questions", questions),
        _mark(found),
        Section("Pictures", [Pictures(list(comparison_figures.pictures(compared)), large=True)]),
        Section("What these runs cannot show", [Listing(found.limits, "plain")]),
        _methodology(found),
        *(_made(each) for each in compared.standings),
    ]
    return page.html(f"{title}: methodology and findings", sentences(found), sections, "leak" if leaks else "")


def _findings(findings: Sequence[Finding]) -> Table | None:
    """The figures of an answer: a column of each metric, a row of each method or difference."""
    known = [each for each in findings if each.metric in METRIC_TEXTS]
    if not known:
        return None
    names = [name for name in SHOWN if any(each.metric == name for each in known)]
    rows = []
    for method, against in dict.fromkeys((each.method, each.against) for each in known):
        own = {each.metric: each.figure for each in known if (each.method, each.against) == (method, against)}
        cells = (Cell(own.get(name, ""), sign="+" if against else "") for name in names)
        rows.append([Cell(method, f"difference from {against}" if against else ""), *cells])
    return Table(["", *(METRIC_TEXTS[name][0] for name in names)], rows)


def _mark(found: Study) -> Section:
    rows = [[each.method, f"{100 * each.share:g} %", each.f1, each.verdict] for each in found.marks]
    always = found.always_defective_f1
    if always is not None:
        verdict = "met" if study_answers.always_meets(always) else "missed"
        rows.append(["always defective", "none", f"{always:.3f}", verdict])
    table = Table(("Method", "Labels allowed", "F1", "F1 of 75 % with 10 %"), rows)
    return Section("The study's mark", [*(text[:1].upper() + text[1:] for text in found.mark), table])


def _methodology(found: Study) -> Section:
    compared = found.compared
    records = [run.record for each in compared.standings for run in each.method.runs]
    protocols = sorted({record["settings"].get("protocol", "") for record in records} & set(_PROTOCOLS))
    fingerprints = {(record["data"]["fingerprint"][:12], record["data"]["images"]) for record in records}
    data = "; ".join(f"{images:,} images, fingerprint {mark}" for mark, images in sorted(fingerprints))
    whole = compared.standings[0].scopes[0]
    texts = [
        f"Data: {data}; categories {', '.join(compared.categories)}. {whole.images:,} images were evaluated, "
        f"{whole.defective:,} of them defective, the same for all methods.",
        *(f"Protocol {name}: {_PROTOCOLS[name]}" for name in protocols),
        f"{page.resampled(compared.bootstrap, compared.groups)}, the same draws for all methods, so that a difference "
        "has an interval of its own.",
    ]
    told = Column("What it is", "words"), Column("Labels used", "left"), Column("Seeds", "left"), "F1"
    columns = ("Method", *told, "Balanced accuracy", Column("Settings", "words"))
    return Section("Methodology", [*texts, Table(columns, [_method_row(each) for each in compared.standings])])


def _method_row(each: Standing) -> tuple[str, ...]:
    settings = each.method.runs[0].record["settings"]
    told = ", ".join(f"{name}={_short(settings[name])}" for name in _TOLD if settings.get(name) not in (None, "", []))
    seeds = ", ".join(str(run.record["settings"].get("seed", "?")) for run in each.method.runs)
    share = label_share(each.method)
    allowed = "" if share is None else f" (at most {100 * share:g} %)"
    figures = (metrics.with_limits(each.figures[ALL][name]) for name in ("f1", "balanced_accuracy"))
    return each.method.name, role(each.method), report.labels(each) + allowed, seeds, *figures, told


def _short(value: object) -> str:
    """A setting as it is printed; of a file its name alone."""
    return str(value).rsplit("/", 1)[-1]


def _made(each: Standing) -> Section | None:
    """Diagrams of a method's first run, by its own record."""
    run = each.method.runs[0]
    drawn = list(diagrams.pictures(run.record, run.splits, run.threshold))
    return page.diagrams(drawn, f"How {each.method.name} was made")
