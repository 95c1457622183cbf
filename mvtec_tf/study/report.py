"""The page of methodology and findings, written from the records of runs."""

import csv
import io
import os
import pathlib
from collections.abc import Sequence
from html import escape

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation import intervals
from mvtec_tf.evaluation.comparison import pictures as comparison_figures
from mvtec_tf.evaluation.comparison import summary as comparison_summary
from mvtec_tf.evaluation.comparison.compare import ALL, Standing
from mvtec_tf.evaluation.comparison.contenders import Method
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.report import diagrams, page, summary
from mvtec_tf.evaluation.report.page import METRIC_TEXTS
from mvtec_tf.study import answers as study_answers
from mvtec_tf.study import questions as study
from mvtec_tf.study.answers import SHOWN, Answer, Finding
from mvtec_tf.study.questions import Study
from mvtec_tf.study.roles import label_share, role

JSON_FILE, CSV_FILE, PAGE_FILE = "study.json", "study.csv", "study.html"
# Of the settings, those that say what was done; a run's own report has all of them.
_TOLD = ("backbone", "image_size", "weights", "head", "features", "epochs", "batch_size", "learning_rate")
_PROTOCOLS = {
    "clean": (
        "Per category and seed, whole groups of the test images are cut once into a pool and an evaluation part, "
        "stratified by defect type. Labels are bought from the pool only, and every label that is used for fitting, "
        "early stopping, choice or a threshold counts. Good training images are open to every method and never judged."
    ),
    "one_class": (
        "The literature's: fitted on all good training images without any label, judged on all test images. The "
        "threshold comes from held-out good training images, not from the test images."
    ),
    "study": (
        "The original study's protocol: labelled images are among the evaluated ones, so its figures are no evidence."
    ),
}


def write(
    methods: Sequence[Method],
    out_dir: str | os.PathLike[str],
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
    found = study.study(methods, costs, bootstrap)
    out_dir = pathlib.Path(out_dir)
    files.write_json(out_dir / JSON_FILE, found.as_json())
    files.write_text(out_dir / CSV_FILE, _csv(found))
    files.write_text(out_dir / PAGE_FILE, render(found, title))
    return found


def sentences(found: Study) -> list[str]:
    """The answers and what is to be said on the mark, one text each; the first three are the answers."""
    return [*(" ".join(answer.text) for answer in found.answers), *found.mark]


def render(found: Study, title: str) -> str:
    """The whole page as HTML; `title` is not escaped yet."""
    compared = found.compared
    leaks = any(each.method.leak for each in compared.standings)
    title = f"{title}: methodology and findings"
    body = [
        f"<h1>{escape(title)}</h1>",
        page.answer(sentences(found), "leak" if leaks else ""),
        "<section><h2>The three questions</h2>",
        *(_answer(number, answer) for number, answer in enumerate(found.answers, 1)),
        "</section>",
        _mark(found),
        _pictures(found),
        _listed("What these runs cannot show", found.limits),
        _methodology(found),
        *(_made(each) for each in compared.standings),
    ]
    return page.html(title, body)


def _answer(number: int, answer: Answer) -> str:
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in answer.text)
    return f"<h3>{number}. {escape(answer.question)}</h3>{text}{_findings(answer.findings)}"


def _findings(findings: Sequence[Finding]) -> str:
    """The figures of an answer: a column of each metric, a row of each method or difference."""
    known = [each for each in findings if each.metric in METRIC_TEXTS]
    if not known:
        return ""
    names = [name for name in SHOWN if any(each.metric == name for each in known)]
    footnotes, rows = page.Footnotes(), []
    for method, against in dict.fromkeys((each.method, each.against) for each in known):
        own = {each.metric: each.figure for each in known if (each.method, each.against) == (method, against)}
        cells = "".join(
            f"<td>{footnotes.cell(own[name], '+' if against else '')}</td>" if name in own else "<td></td>"
            for name in names
        )
        than = f'<span class="says">difference from {escape(against)}</span>' if against else ""
        rows.append(f'<tr><th scope="row"><span class="name">{escape(method)}</span>{than}</th>{cells}</tr>')
    head = page.heads(["", *(METRIC_TEXTS[name][0] for name in names)])
    return page.table(f"<tr>{head}</tr>", rows) + footnotes.html()


def _mark(found: Study) -> str:
    text = "".join(f"<p>{escape(sentence[:1].upper() + sentence[1:])}</p>" for sentence in found.mark)
    footnotes = page.Footnotes()
    rows = [
        f'<tr><th scope="row"><span class="name">{escape(each.method)}</span></th><td>{100 * each.share:g} %</td>'
        f"<td>{footnotes.cell(each.f1)}</td><td>{each.verdict}</td></tr>"
        for each in found.marks
    ]
    always = found.always_defective_f1
    if always is not None:
        verdict = "met" if study_answers.always_meets(always) else "missed"
        cells = f"<td>none</td><td>{always:.3f}</td><td>{verdict}</td>"
        rows.append(f'<tr><th scope="row">always defective</th>{cells}</tr>')
    head = page.heads(["Method", "Labels allowed", "F1", "F1 of 75 % with 10 %"])
    return f"<section><h2>The study's mark</h2>{text}{page.table(f'<tr>{head}</tr>', rows)}{footnotes.html()}</section>"


def _pictures(found: Study) -> str:
    panels = "".join(
        page.panel(picture, comparison_figures.KINDS[picture.kind][0])
        for picture in comparison_figures.pictures(found.compared)
    )
    return f'<section><h2>Pictures</h2><div class="panels large">{panels}</div></section>'


def _listed(heading: str, texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<section><h2>{escape(heading)}</h2><ul class="plain">{items}</ul></section>'


def _methodology(found: Study) -> str:
    compared = found.compared
    records = [run.record for each in compared.standings for run in each.method.runs]
    protocols = sorted({record["settings"].get("protocol", "") for record in records} & set(_PROTOCOLS))
    fingerprints = {(record["data"]["fingerprint"][:12], record["data"]["images"]) for record in records}
    data = "; ".join(f"{images:,} images, fingerprint {mark}" for mark, images in sorted(fingerprints))
    whole, bootstrap = compared.standings[0].scopes[0], compared.bootstrap
    texts = [
        f"Data: {data}; categories {', '.join(compared.categories)}. {whole.images:,} images were evaluated, "
        f"{whole.defective:,} of them defective, the same for all methods.",
        *(f"Protocol {name}: {_PROTOCOLS[name]}" for name in protocols),
        f"Intervals: {100 * intervals.LEVEL:g} %, from {bootstrap.resamples:,} resamples (seed {bootstrap.seed}) of "
        f"{compared.groups:,} groups of images, whole groups within each category and label, the same draws for all "
        "methods, so that a difference has an interval of its own.",
    ]
    rows = [_method_row(each) for each in compared.standings]
    head = page.heads(["Method", "What it is", "Labels used", "Seeds", "F1", "Balanced accuracy", "Settings"])
    text = "".join(f"<p>{escape(text)}</p>" for text in texts)
    return f"<section><h2>Methodology</h2>{text}{page.table(f'<tr>{head}</tr>', rows, 'told')}</section>"


def _method_row(each: Standing) -> str:
    settings = each.method.runs[0].record["settings"]
    told = ", ".join(f"{name}={_short(settings[name])}" for name in _TOLD if settings.get(name) not in (None, "", []))
    seeds = ", ".join(str(run.record["settings"].get("seed", "?")) for run in each.method.runs)
    share = label_share(each.method)
    allowed = "" if share is None else f" (at most {100 * share:g} %)"
    cells = (
        f'<td class="words">{escape(role(each.method))}</td>'
        f"<td>{escape(comparison_summary.labels(each))}{allowed}</td><td>{escape(seeds)}</td>"
        f"<td>{summary.with_limits(each.figures[ALL]['f1'])}</td>"
        f"<td>{summary.with_limits(each.figures[ALL]['balanced_accuracy'])}</td>"
        f'<td class="words">{escape(told)}</td>'
    )
    return f'<tr><th scope="row"><span class="name">{escape(each.method.name)}</span></th>{cells}</tr>'


def _short(value: object) -> str:
    """A setting as it is printed; of a file its name alone."""
    return str(value).rsplit("/", 1)[-1]


def _made(each: Standing) -> str:
    """Diagrams of a method's first run, by its own record."""
    run = each.method.runs[0]
    drawn = list(diagrams.pictures(run.record, run.splits, run.threshold))
    return page.diagrams(drawn, f"How {each.method.name} was made")


def _csv(found: Study) -> str:
    buffer = io.StringIO()
    columns = ("question", "method", "metric", "against", "value", "low", "high", "level")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found.rows())
    return buffer.getvalue()
