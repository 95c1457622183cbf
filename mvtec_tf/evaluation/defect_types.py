"""Whether the defect was named rightly: confusion matrix and macro F1 of a table of calls.

Apart from the two-class judgement, whose table knows scores and no names. A type belongs to its
category: a "scratch" on a bottle and one on a screw are two types.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mvtec_tf import files
from mvtec_tf.data.record import GOOD
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation import metrics
from mvtec_tf.evaluation.intervals import Bootstrap, Resampling, mean_of, with_interval
from mvtec_tf.evaluation.metrics import Confusion, Metric
from mvtec_tf.evaluation.report import canvas, page
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.report.page import Column, Pictures, Section, Table

JSON_FILE = "defect_types.json"
CSV_FILE = "defect_types.csv"
REPORT_FILE = "defect_types.html"
_KIND = "defect_types"
_READING = (
    "A row holds the images of one type, a column what they were called; the darker a field, the larger its share of "
    "the row. A model that knows the types is dark from the upper left to the lower right."
)


@dataclasses.dataclass(frozen=True)
class Call:
    """One evaluated image.

    Attributes:
      path, category, group: as in a table of predictions.
      defect: what it shows, "good" or the defect's name.
      called: what the model named.
    """

    path: str
    category: str
    group: str
    defect: str
    called: str


_COLUMNS = tuple(field.name for field in dataclasses.fields(Call))


@dataclasses.dataclass(frozen=True, eq=False)
class CategoryTypes:
    """One category's figures.

    Attributes:
      types: "good" first, of labels, images and calls alike.
      labelled: those that were among the labels.
      matrix: int [T, T], rows what is shown, columns what was called.
      f1: of each type that an image shows.
      macro_f1: their mean.
    """

    types: tuple[str, ...]
    labelled: tuple[str, ...]
    matrix: np.ndarray
    f1: Mapping[str, Metric]
    macro_f1: Metric

    def as_json(self) -> dict[str, Any]:
        """The form in `defect_types.json`."""
        return {
            "types": list(self.types),
            "labelled_types": list(self.labelled),
            "confusion_matrix": self.matrix.tolist(),
            "f1": {name: metric.as_json() for name, metric in self.f1.items()},
            "macro_f1": self.macro_f1.as_json(),
        }


def judge_types(
    calls: Sequence[Call],
    labelled: Mapping[str, Sequence[str]],
    out_dir: files.PathLike,
    title: str,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """Writes `defect_types.csv`, `.json`, `.html` and a picture of each category's confusion matrix.

    A type that no label named cannot be called; its images count as mistakes, with an F1 of 0.

    Args:
      calls: of the evaluated images.
      labelled: category -> the types among the labels.
      out_dir: made if missing.
      title: of the page.
      bootstrap: of the 95 % intervals.

    Returns:
      The content of `defect_types.json`.

    Raises:
      ValueError: there are no calls, or a type was called that was not among the labels.
    """
    categories, macro = assess_types(calls, labelled, bootstrap or Bootstrap())
    pictures = [_picture(name, number, found) for number, (name, found) in enumerate(categories.items(), 1)]
    sentences = list(_sentences(categories, macro))
    document = {
        "title": title,
        "images": len(calls),
        "macro_f1": macro.as_json(),
        "categories": {name: found.as_json() for name, found in categories.items()},
        "summary": " ".join(sentences),
    }
    out_dir = pathlib.Path(out_dir)
    for picture in pictures:
        files.write_bytes(out_dir / "figures" / picture.file_name, picture.png)
    files.write_csv(out_dir / CSV_FILE, _COLUMNS, map(dataclasses.astuple, calls))
    files.write_json(out_dir / JSON_FILE, document)
    files.write_text(out_dir / REPORT_FILE, _page(title, categories, sentences, pictures))
    return document


def assess_types(
    calls: Sequence[Call], labelled: Mapping[str, Sequence[str]], bootstrap: Bootstrap
) -> tuple[dict[str, CategoryTypes], Metric]:
    """(category -> its figures, the mean macro F1 over categories). Args and errors as in `judge_types`."""
    if not calls:
        raise ValueError("there are no calls to judge.")
    # Of any category: an image that is taken for another category's gets a name from there.
    known = {name for names in labelled.values() for name in names}
    strangers = {call.called for call in calls} - known
    if strangers:
        raise ValueError(f"types were called that no label named. Received: {sorted(strangers)}.")
    resampling = Resampling(
        [call.path for call in calls],
        [call.category for call in calls],
        [call.group for call in calls],
        [int(call.defect != GOOD) for call in calls],
        bootstrap,
    )
    chunks = list(resampling.chunks()) if len(resampling) else []
    weights = np.concatenate(chunks) if chunks else np.empty((0, len(calls)))
    found, resampled = {}, []
    for category in sorted({call.category for call in calls}):
        rows = np.array([call.category == category for call in calls])
        own = [call for call in calls if call.category == category]
        figures, macro = _category(own, tuple(labelled[category]), weights[:, rows], resampling.units[rows])
        found[category] = figures
        resampled.append(macro)
    mean = Metric(float(np.mean([figures.macro_f1.value for figures in found.values()])))
    return found, with_interval(mean, mean_of(resampled) if len(weights) else np.empty(0))


def _category(
    calls: Sequence[Call], labelled: tuple[str, ...], weights: np.ndarray, units: np.ndarray
) -> tuple[CategoryTypes, np.ndarray]:
    """The category's figures, and its macro F1 in every resample, float [R]; `weights` is float [R, N], `units` int [N]
    the object of each."""
    names = {name for call in calls for name in (call.defect, call.called)} | set(labelled)
    types = (GOOD, *sorted(names - {GOOD}))
    shown = np.array([[call.defect == name for name in types] for call in calls], float)
    called = np.array([[call.called == name for name in types] for call in calls], float)
    resampled, values = _f1(weights, shown, called), _f1(np.ones((1, len(calls))), shown, called)[0]
    there = ~np.isnan(values)
    f1 = {
        name: with_interval(
            Metric(float(values[i])), resampled[:, i], smaller=len(np.unique(units[shown[:, i] > 0]))
        )
        for i, name in enumerate(types)
        if there[i]
    }
    macro = mean_of(list(resampled[:, there].T)) if len(weights) else np.empty(0)
    mean = with_interval(Metric(float(values[there].mean())), macro)
    matrix = np.round(shown.T @ called).astype(int)
    return CategoryTypes(types, labelled, matrix, f1, mean), macro


def _f1(weights: np.ndarray, shown: np.ndarray, called: np.ndarray) -> np.ndarray:
    """F1 of each type in each resample, float [R, T], NaN of a type that no image shows; `weights` is float [R, N]."""
    hits = weights @ (shown * called)
    return metrics.f1(Confusion(tn=0, fp=weights @ called - hits, fn=weights @ shown - hits, tp=hits))


def _sentences(categories: Mapping[str, CategoryTypes], macro: Metric) -> Iterator[str]:
    over = f" as the mean over {len(categories)} categories" if len(categories) > 1 else ""
    yield f"Macro F1 over defect types, good among them, is {metrics.with_limits(macro)}{over} (1 is perfect)."
    for name, found in categories.items():
        unknown = [one for one in found.f1 if one not in found.labelled]
        if unknown:
            yield (
                f"{name}: not among the labels and so never called: {', '.join(unknown)}; that counts as mistakes."
            )


@canvas.own_style()
def _picture(category: str, number: int, found: CategoryTypes) -> Picture:
    figure = canvas.empty(1.2 + 0.34 * len(found.types))
    _draw(figure, found)
    wrong = int(found.matrix.sum() - np.trace(found.matrix))
    caption = (
        f"{category}: macro F1 {found.macro_f1.value:.3f}; {wrong} of {counted(found.matrix.sum(), 'image')} "
        "named wrongly."
    )
    file_name = f"{_KIND}_{number:02d}.png"
    alt = f"Confusion matrix. {caption}"
    return Picture(_KIND, category, file_name, canvas.png(figure), alt, caption, category, _READING)


def _draw(figure: Figure, found: CategoryTypes) -> None:
    """Counts, tinted by their share of the row."""
    count = len(found.types)
    axes = canvas.confusion_axes(figure, count)
    rows = found.matrix.sum(axis=1)
    for y, x in np.ndindex(count, count):
        share = found.matrix[y, x] / rows[y] if rows[y] else 0.0
        canvas.field(axes, x, y, share, canvas.GOOD_COLOUR if y == x else canvas.DEFECTIVE_COLOUR, 0.6)
        axes.text(x, y, f"{found.matrix[y, x]}", ha="center", va="center", fontsize=canvas.FONT, color=canvas.INK)
    names = [canvas.shortened(name, 18) for name in found.types]
    axes.set_xticks(range(count), names, fontsize=canvas.SMALL, color=canvas.INK, rotation=40, ha="right")
    axes.set_yticks(range(count), names, fontsize=canvas.SMALL, color=canvas.INK)
    axes.set_xlabel("called", fontsize=canvas.FONT, color=canvas.INK)
    axes.set_ylabel("is", fontsize=canvas.FONT, color=canvas.INK)


def _page(
    title: str, categories: Mapping[str, CategoryTypes], sentences: Sequence[str], pictures: Sequence[Picture]
) -> str:
    rows = []
    for category, found in categories.items():
        rows.append((category, "all types", str(found.matrix.sum()), found.macro_f1))
        shown = dict(zip(found.types, found.matrix.sum(axis=1), strict=True))
        rows += [("", name, str(shown[name]), metric) for name, metric in found.f1.items()]
    sections = [
        Section("Confusion matrices", [Pictures(pictures, large=True)]),
        Section("F1 by type", [Table(("Category", Column("Type", "left"), "Images", "F1"), rows)]),
    ]
    return page.html(title, sentences, sections)
