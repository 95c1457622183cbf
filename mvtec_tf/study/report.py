"""The page of methodology and findings, written from the records of runs."""

import pathlib
from collections.abc import Sequence

from mvtec_tf import files
from mvtec_tf.errors import UserError
from mvtec_tf.evaluation.comparison import pictures as comparison_figures
from mvtec_tf.evaluation.comparison import report
from mvtec_tf.evaluation.comparison.compare import ALL, Standing
from mvtec_tf.evaluation.comparison.contenders import Method
from mvtec_tf.evaluation.intervals import Bootstrap
from mvtec_tf.evaluation.metrics import Costs
from mvtec_tf.evaluation.report import diagrams, page, summary
from mvtec_tf.evaluation.report.page import Cell, Column, Listing, Pictures, Section, Table
from mvtec_tf.evaluation.report.summary import METRIC_TEXTS
from mvtec_tf.study import answers as study_answers
from mvtec_tf.study import questions as study
from mvtec_tf.study.answers import SHOWN, Finding
from mvtec_tf.study.questions import Study
from mvtec_tf.study.roles import label_share, role

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
        "The literature's: fitted on all good training images without any label, judged on all test images. The "
        "threshold comes from held-out good training images, not from the test images."
    ),
    "study": (
        "The original study's protocol: labelled images are among the evaluated ones, so its figures are no evidence."
    ),
}


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
    found = study.study(methods, costs, bootstrap)
    out_dir = pathlib.Path(out_dir)
    files.write_json(out_dir / JSON_FILE, found.as_json())
    files.write_csv(out_dir / CSV_FILE, _COLUMNS, ([row[name] for name in _COLUMNS] for row in found.rows()))
    files.write_text(out_dir / PAGE_FILE, render(found, title))
    return found


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
    figures = (summary.with_limits(each.figures[ALL][name]) for name in ("f1", "balanced_accuracy"))
    return each.method.name, role(each.method), report.labels(each) + allowed, seeds, *figures, told


def _short(value: object) -> str:
    """A setting as it is printed; of a file its name alone."""
    return str(value).rsplit("/", 1)[-1]


def _made(each: Standing) -> Section | None:
    """Diagrams of a method's first run, by its own record."""
    run = each.method.runs[0]
    drawn = list(diagrams.pictures(run.record, run.splits, run.threshold))
    return page.diagrams(drawn, f"How {each.method.name} was made")
