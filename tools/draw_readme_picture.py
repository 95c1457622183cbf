"""Draws the README's picture: a good and a defective toy part, their heat maps and verdicts by an exported model.

python -m tools.draw_readme_picture MODEL RUN DATA

MODEL is an export (saved_models/NAME/VERSION) of the run directory RUN, DATA the toy factory's category that it was
judged on. Of its evaluated good and defective images those of the median score are shown, neither best nor worst.
"""

import io
import pathlib
import sys
from collections.abc import Mapping

import numpy as np
from PIL import Image

from mvtec_tf.data.pillow_images import read_rgb
from mvtec_tf.evaluation.table import read_predictions
from mvtec_tf.files import replacing
from mvtec_tf.graphs.scoring import explained

PICTURE = pathlib.Path(__file__).parents[1] / "docs" / "images" / "toy_verdicts.png"
_COLOURS = 256  # of the file: drawn parts need no more, and the picture stays small.


def median_images(run: pathlib.Path, data: pathlib.Path) -> list[pathlib.Path]:
    """The evaluated good and the evaluated defective image of the median score."""
    judged = read_predictions(run / "predictions.csv").part("evaluate")
    judged = judged.select(judged.category == data.name)
    chosen = []
    for label in (0, 1):
        own = np.flatnonzero(judged.label == label)
        place = own[np.argsort(judged.score[own], kind="stable")[len(own) // 2]]
        chosen.append(data.parent / judged.path[place])
    return chosen


def draw(images: list[pathlib.Path], answers: list[Mapping[str, np.ndarray]]) -> bytes:
    """The picture, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), dpi=100, layout="constrained")
    axes = figure.subplots(1, 4)
    hottest = max(float(answer["heat_map"].max()) for answer in answers)
    for place, (path, answer) in enumerate(zip(images, answers, strict=True)):
        photograph, heat = axes[2 * place : 2 * place + 2]
        photograph.imshow(read_rgb(path))
        heat.imshow(read_rgb(path))
        size = (0, photograph.get_xlim()[1], photograph.get_ylim()[0], 0)
        heat.imshow(answer["heat_map"], cmap="viridis", vmin=0, vmax=hottest, alpha=0.65, extent=size)
        photograph.set_title("a good part" if place == 0 else f"a defective part: {path.parent.name}", fontsize=10)
        verdict = "defective" if int(answer["label"]) else "good"
        heat.set_title(f"called {verdict}", fontsize=10, fontweight="bold")
        heat.set_xlabel(f"score {float(answer['anomaly_score']):.2f}, threshold {float(answer['threshold']):.2f}")
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    smaller = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


def main(model: str, run: str, data: str) -> None:
    """Writes the picture."""
    images = median_images(pathlib.Path(run), pathlib.Path(data))
    answers = list(explained(model, [str(path) for path in images]))
    with replacing(PICTURE) as file:
        file.write_bytes(draw(images, answers))
    print(PICTURE)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
