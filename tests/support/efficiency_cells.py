"""Made-up cells of a label-efficiency grid, for tests of what is made of them."""

import numpy as np

from mvtec_tf.data.record import Record
from mvtec_tf.label_efficiency.cell import CellResult
from mvtec_tf.label_efficiency.grid import make_grid

HEADS = {"auto": 0.97, "logistic": 0.93, "mahalanobis": 0.95}


def records(category="cap", good=20, defective=30, train=12):
    """Names of images without files."""
    kinds = [("train", "good", train), ("test", "good", good), ("test", "bent", defective)]
    return [
        Record(path, path, category, defect, int(defect != "good"), split, path)
        for split, defect, count in kinds
        for path in (f"{category}/{split}/{defect}/{number:03d}.png" for number in range(count))
    ]


def grid(categories=("cap", "nut"), budgets=("0", "0.1", "10d"), seeds=range(4), encoders=("start",)):
    """Of all heads."""
    images = [record for category in categories for record in records(category)]
    methods = [(encoder, head) for encoder in encoders for head in HEADS]
    return make_grid(images, methods, budgets, seeds, {})


def result(cell, cut):
    """Figures that depend on the cell alone: noise of the draw, common to all heads, and a little of the head's own;
    those of `auto` lie a step above the others."""
    rng = np.random.default_rng([cell.seed, cell.category == "cap"])
    common, own = 0.01 * rng.normal(), 0.001 * rng.normal(size=3)[list(HEADS).index(cell.head)]
    level = HEADS[cell.head] + common + own - (0.02 if cell.budget == "0" else 0)
    names = ("roc_auc", "pr_auc", "balanced_accuracy", "f1", "recall", "specificity")
    return CellResult(
        cell=cell,
        labelled_images=len(cut.labelled),
        labelled_defects=sum(record.label for record in cut.labelled),
        evaluated_images=len(cut.evaluate),
        evaluated_defects=sum(record.label for record in cut.evaluate),
        pool_images=25,
        metrics={name: float(min(1, level + 0.001 * number)) for number, name in enumerate(names)},
        always_defective_f1=0.75,
        threshold=1.5,
        threshold_method="youden",
        fit_seconds=0.5,
        peak_mb=1000.0,
    )


def results(of_grid):
    """One of each cell."""
    return {cell: result(cell, of_grid.cut(cell)) for cell in of_grid.cells}
