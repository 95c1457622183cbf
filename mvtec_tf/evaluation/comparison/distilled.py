"""The page of a student beside its teacher: size, speed, figures with paired intervals, and where verdicts differ."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvtec_tf import files
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation import image_files, intervals, metrics
from mvtec_tf.evaluation.comparison import report as comparison_report
from mvtec_tf.evaluation.comparison.compare import ALL, CATEGORY, Comparison, Place
from mvtec_tf.evaluation.comparison.contenders import Contender, read_methods
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.intervals import Bootstrap, Resampling
from mvtec_tf.evaluation.localisation import pixel_metrics
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.metrics import Costs, Metric
from mvtec_tf.evaluation.report import page, photographs
from mvtec_tf.evaluation.report.page import Cell, Column, Pictures, Section, Table
from mvtec_tf.evaluation.sample import Sample

PAGE, JSON_FILE, FOLDER = "distilled.html", "distilled.json", "comparison"
MOST = 24
_AREA, _RECALL = "ROC-AUC", "recall at the teacher's specificity"


@dataclasses.dataclass(frozen=True)
class Form:
    """The teacher, its student, or a form of it.

    Attributes:
      name: of it.
      folder: with its predictions.csv and metrics.json.
      maps: heat maps of the evaluated images.
    """

    name: str
    folder: pathlib.Path
    maps: HeatMaps


def write(
    run: pathlib.Path,
    forms: Sequence[Form],
    images: Mapping[str, ImageFiles],
    speeds: Mapping[str, Mapping[int, Mapping[str, float]]],
    megabytes: Mapping[str, float],
    about: str,
) -> dict[str, Any]:
    """Writes `distilled.json`, `distilled.html` and the whole comparison in `comparison/`.

    Args:
      run: where to.
      forms: the teacher first.
      images: of every evaluated image, by path.
      speeds: name -> threads -> see `serving.speed.measured`; empty: not measured.
      megabytes: name -> size of the model's files.
      about: who saw which images.

    Returns:
      The content of `distilled.json`.
    """
    methods = read_methods([f"{form.name}={form.folder}" for form in forms])
    bootstrap = Bootstrap()
    compared = comparison_report.write(methods, run / FOLDER, "A student beside its teacher", bootstrap=bootstrap)
    contenders = [method.runs[0] for method in methods]
    found = {form.name: _figures(compared, number, contenders, bootstrap) for number, form in enumerate(forms)}
    areas = _pixel_areas(contenders[0], forms, images, bootstrap)
    agreeing = {form.name: _agreement(contenders[0], one) for form, one in zip(forms, contenders, strict=True)}
    document = {
        "megabytes": dict(megabytes),
        "seconds": {name: {str(threads): dict(one) for threads, one in own.items()} for name, own in speeds.items()},
        "figures": {name: _as_json(own) for name, own in found.items()},
        "pixel_auroc": {name: metric.as_json() for name, metric in areas.items()},
        "agreement": {
            name: {"same": int(same.sum()), "images": len(same)} for name, same in agreeing.items() if same is not None
        },
    }
    answer = [_sentence(form.name, found, areas, agreeing, speeds, megabytes) for form in forms[1:]]
    sections = [
        _size_and_speed(speeds, megabytes),
        *(_of_place(place, found, forms) for place in found[forms[0].name]),
        _pixels(areas),
        _differing(contenders, forms, agreeing, images),
        Section("Who saw which images", [about]),
        page.how_sure(bootstrap, compared.groups, ", the same draws for the teacher and its students.", compared.costs),
    ]
    document["summary"] = " ".join(answer)
    files.write_json(run / JSON_FILE, document)
    files.write_text(run / PAGE, page.html("A student beside its teacher", answer, sections))
    print("\n".join(answer), flush=True)
    return document


def recall_at(first: Contender, each: Contender, bootstrap: Bootstrap, category: str = "") -> tuple[Metric, Metric]:
    """Recall of a ranking at the specificity that the first one reaches by its own threshold, and its difference from
    the first one's recall, on the same images in every resample.

    Args:
      first: calls by its threshold.
      each: whose ranking is cut where as many good images pass.
      bootstrap: of the intervals.
      category: of the images; "": all.
    """
    table, calls = first.evaluate, first.calls
    if calls is None:
        return (Metric(None, first.threshold.whole.reason),) * 2
    here = np.ones(len(table), bool) if not category else table.category == category
    table, called = table.select(here), calls[here]
    defective = table.label == 1
    if not 0 < defective.sum() < len(table):
        return (Metric(None, "there are no images of both kinds"),) * 2
    resampling = Resampling(table.path, table.category, table.group, table.label, bootstrap)
    ranking = Sample(table.label, each.evaluate.score[here], None, None, Costs())

    def values(weights: np.ndarray) -> np.ndarray:
        """[R, N] -> recall of both, [2, R]."""
        tp, fp = ranking.points(weights)
        stopped, found = weights @ (called & ~defective), weights @ (called & defective)
        allowed = (fp <= stopped[:, None] + 1e-9).sum(1) - 1
        return np.stack([metrics.share(one, tp[:, -1]) for one in (tp[np.arange(len(tp)), allowed], found)])

    value, own = values(np.ones((1, len(table))))[:, 0].tolist()
    drawn = np.concatenate([np.zeros((2, 0)), *(values(weights) for weights in resampling.chunks())], axis=1)
    drawn = resampling.varied(drawn)
    units = resampling.distinct(defective)
    return (
        intervals.with_interval(Metric(value), drawn[0], units),
        intervals.with_interval(
            Metric(value - own), drawn[0] - drawn[1], smaller=min(units, resampling.distinct(~defective))
        ),
    )


def _figures(
    compared: Comparison, number: int, contenders: Sequence[Contender], bootstrap: Bootstrap
) -> dict[Place, dict[str, tuple[Metric, Metric]]]:
    """Place -> figure -> its value and its difference from the teacher's."""
    standing, found = compared.standings[number], {}
    places = [ALL, *(place for place in compared.places if place[0] == CATEGORY)]
    for place in places:
        nothing = Metric(None, "it is the teacher's own")
        area = standing.differences[place]["roc_auc"] if standing.differences else nothing
        recall = recall_at(contenders[0], contenders[number], bootstrap, place[1])
        found[place] = {
            _AREA: (standing.figures[place]["roc_auc"], area),
            _RECALL: recall if number else (recall[0], nothing),
        }
    return found


def _as_json(found: Mapping[Place, Mapping[str, tuple[Metric, Metric]]]) -> dict[str, Any]:
    return {
        _name(place): {name: {"value": one.as_json(), "difference": two.as_json()} for name, (one, two) in own.items()}
        for place, own in found.items()
    }


def _pixel_areas(
    teacher: Contender, forms: Sequence[Form], images: Mapping[str, ImageFiles], bootstrap: Bootstrap
) -> dict[str, Metric]:
    if not image_files.categories_with_masks(teacher.evaluate, images):
        return {}
    measured = {form.name: pixel_metrics.measure(teacher.evaluate, images, form.maps, bootstrap) for form in forms}
    return {name: one.overall.metrics[pixel_metrics.AUROC] for name, one in measured.items()}


def _agreement(teacher: Contender, each: Contender) -> np.ndarray | None:
    """Bool [N], which images both call alike; None if one of them calls nothing."""
    return None if teacher.calls is None or each.calls is None else teacher.calls == each.calls


def _sentence(
    name: str,
    found: Mapping[str, Any],
    areas: Mapping[str, Metric],
    agreeing: Mapping[str, np.ndarray | None],
    speeds: Mapping[str, Any],
    megabytes: Mapping[str, float],
) -> str:
    area, difference = found[name][ALL][_AREA]
    text = f"{name}: {megabytes[name]:.1f} MB"
    if name in speeds:
        fastest = max(own[1]["processor"] for other, own in speeds.items() if other.startswith("teacher"))
        times = speeds[name][1]["processor"] / fastest
        text += f", {times:.1f} times as many images a processor second as the teacher's fastest form on one thread"
    text += f"; ROC-AUC {metrics.with_limits(area)}, {metrics.with_limits(difference, sign='+')} beside the teacher"
    if name in areas and areas[name].value is not None and areas["teacher"].value is not None:
        text += f"; pixel ROC-AUC {areas[name].value:.3f}, the teacher's {areas['teacher'].value:.3f}"
    if (same := agreeing[name]) is not None:
        text += f"; the teacher's verdict on {same.sum():,} of {counted(len(same), 'evaluated image')}"
    return f"{text}."


def _size_and_speed(
    speeds: Mapping[str, Mapping[int, Mapping[str, float]]], megabytes: Mapping[str, float]
) -> Section:
    columns: list[str | Column] = [Column("Form", "left"), "MB"]
    for threads in (1, 2) if speeds else ():
        where = counted(threads, "thread")
        columns += [Column("median, ms", below=where), Column("p95, ms", below=where)]
        columns += [Column("images/s", below=where), Column("images per processor second", below=where)]
    rows = []
    for name, size in megabytes.items():
        row = [name, f"{size:.1f}"]
        for own in speeds.get(name, {}).values():
            row += [f"{1000 * own[key]:.1f}" for key in ("median", "p95")]
            row += [f"{own[key]:.1f}" for key in ("rate", "processor")]
        rows.append(row)
    text = "One image after the other, each from its encoded file, in a process that may use so many cores. "
    text += "Beside the clock stand seconds of the processor, which other programs on the machine do not change."
    return Section("Size and speed", [text if speeds else "Speed was not measured.", Table(columns, rows)])


def _of_place(place: Place, found: Mapping[str, Any], forms: Sequence[Form]) -> Section:
    columns = [Column("Form", "left"), _AREA, "difference", _RECALL, "difference"]
    rows = []
    for form in forms:
        own = found[form.name][place]
        rows.append([form.name])
        for metric, difference in own.values():
            first = form is forms[0]
            rows[-1] += [metric, "" if first else Cell(difference, sign="+")]
    return Section(f"Figures: {_name(place)}", [Table(columns, rows)])


def _name(place: Place) -> str:
    return place[1] or "all images"


def _pixels(areas: Mapping[str, Metric]) -> Section | None:
    if not areas:
        return None
    rows = [[name, metric] for name, metric in areas.items()]
    return Section("Heat maps against the masks", [Table([Column("Form", "left"), "ROC-AUC of pixels"], rows)])


def _differing(
    contenders: Sequence[Contender],
    forms: Sequence[Form],
    agreeing: Mapping[str, np.ndarray | None],
    images: Mapping[str, ImageFiles],
) -> Section:
    """Photographs of images whose verdict is another one, each with the teacher's heat map and the student's."""
    blocks: list[Any] = []
    rows = []
    for form, one in list(zip(forms, contenders, strict=True))[1:]:
        same = agreeing[form.name]
        if same is None:
            continue
        other = np.flatnonzero(~same)
        rows.append([form.name, f"{same.sum():,}", f"{len(same):,}", str(len(other))])
        shown, calls = [], one.calls
        for number, row in enumerate(other[:MOST], 1):
            said = "the student calls it defective" if calls[row] else "the teacher calls it defective"
            maps = (forms[0].maps, form.maps)
            kind = f"differing_{form.name}"
            shown.append(photographs.picture(one.evaluate, row, images, maps, kind, number, said))
        if shown:
            reading = f"{len(shown)} of {len(other)}: the photograph, the teacher's heat map, the student's."
            blocks.append(Section(form.name, [reading, Pictures(shown)]))
    table = Table([Column("Form", "left"), "same verdict", "evaluated images", "other verdict"], rows)
    return Section("Where verdicts differ", [table, *blocks], spare=True)
