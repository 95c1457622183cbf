"""How soon drift is noticed, and how often where there is none: the toy factory with a lamp, a lens and a fixture.

  mvtec-tf toy --out=TOY --products=mesh --image_size=128 --train_good=200
  mvtec-tf fit --data_dir=TOY/mesh --weights=FILE --image_size=128 --label_budget=0 --head=mahalanobis --run_dir=RUN
  mvtec-tf export --run=RUN --name=mesh --saved_models=MODELS
  python -m tools.drift_benchmark --model=MODELS/mesh

Drawing and scoring every part of every run would take hours: `distinct` good parts that nothing was fitted on are drawn
once, and once more with each change, and a run draws its parts from these with replacement.
"""

import dataclasses
import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter

from mvtec_tf import drift
from mvtec_tf.bin import entry
from mvtec_tf.data.toy import factory
from mvtec_tf.graphs.loading import newest
from mvtec_tf.serving.client import LocalModel
from mvtec_tf.serving.drifting import read_reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """What is measured.

    Attributes:
      model: export of a model of the product.
      product: product of the toy factory.
      image_size: side of the photographs in pixels.
      distinct: distinct parts.
      runs: runs of each change, and of none.
      unchanged: parts of a run without a change.
      change_at: part from which on a change is there.
      drift_alarm: probability of a false alarm, a part.
      seed: random seed of the parts and of the runs.
    """

    model: str
    product: str = "mesh"
    image_size: int = 128
    distinct: int = 600
    runs: int = 20
    unchanged: int = 5000
    change_at: int = 500
    drift_alarm: float = drift.ALARM
    seed: int = 1


def turned(image: Image.Image, degrees: float) -> Image.Image:
    """The photograph of the part turned by so much; what comes in at the corners is the part's own, mirrored."""
    pixels = np.asarray(image)
    margin = pixels.shape[0] // 4
    wide = Image.fromarray(np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="reflect"))
    box = (margin, margin, margin + image.width, margin + image.height)
    return wide.rotate(degrees, Image.Resampling.BICUBIC).crop(box)


CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda image: image,
    "lamp dimmed by 20 %": lambda image: image.point(lambda value: round(0.8 * value)),
    "focus off by one pixel": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "part turned by 5 degrees": lambda image: turned(image, 5),
}


def statistics(asked: DriftSettings) -> dict[str, np.ndarray]:
    """change -> float [distinct, 5], of the same parts."""
    model, found = LocalModel(newest(asked.model)), {name: [] for name in CHANGES}
    for index in range(asked.distinct):
        # The category's own good parts begin at index 0 of another seed.
        drawn = factory.photograph(
            asked.product, "test", factory.GOOD, index, seed=asked.seed, image_size=asked.image_size
        )
        encoded = []
        for change in CHANGES.values():
            encoded.append(io.BytesIO())
            change(Image.fromarray(drawn.image)).save(encoded[-1], "PNG")
        answer = model("serving_default", [one.getvalue() for one in encoded])
        for number, rows in enumerate(found.values()):
            rows.append([answer[name][number] for name in drift.COLUMNS])
    return {name: np.array(rows, np.float64) for name, rows in found.items()}


def main(asked: DriftSettings) -> None:
    """Prints a table."""
    found, reference = statistics(asked), read_reference(newest(asked.model))
    rng = np.random.default_rng(asked.seed)
    print(f"{len(reference)} held-out good training images; {asked.distinct} distinct parts of each kind")
    print("| change | runs with an alarm | of them after the change, within 100 parts | parts until then | moved |")
    print("|---|---|---|---|---|")
    for name, values in found.items():
        delays, moved = [], set()
        for _ in range(asked.runs):
            detector = drift.Detector(reference, asked.drift_alarm)
            before = asked.unchanged if name == "none" else asked.change_at - 1
            stream = found["none"][rng.integers(0, asked.distinct, before)]
            if name != "none":
                stream = np.concatenate([stream, values[rng.integers(0, asked.distinct, 100)]])
            for part in stream.tolist():
                detector.add(part)
            if detector.alarms:
                delays.append(detector.alarms[0].raised - asked.change_at + 1)
                moved |= {alarm.statistic for alarm in detector.alarms}
        intime = sum(delay > 0 for delay in delays)
        late = f"{np.median(delays):.0f} (most {max(delays)})" if delays else "-"
        counted = ("-", "-") if name == "none" else (f"{intime} of {asked.runs}", late)
        print(f"| {name} | {len(delays)} of {asked.runs} | {' | '.join(counted)} | {', '.join(sorted(moved)) or '-'} |")


if __name__ == "__main__":
    entry.run(main, DriftSettings)
