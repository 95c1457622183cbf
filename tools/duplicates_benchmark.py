"""Measures how many copies of photographs `explore_data` finds, and how many pairs it finds that are none.

python -m tools.duplicates_benchmark [--sample=20] [--drawn] [FOLDER ...]

Each folder is a data set. Copies of some of its photographs are added, each photograph copied once, and the share that
is found is printed by kind of change; so is every other pair, to be looked at by eye. --drawn measures sets of aligned
parts before a removed background likewise. --time=5000 draws that many and measures the time instead.
"""

import argparse
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from mvtec_tf.data.formats import scan
from mvtec_tf.data.record import Record
from mvtec_tf.exploration.duplicates import Pair
from mvtec_tf.exploration.survey import explore

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The image after storing it as JPEG."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content)


def resized(image: Image.Image, scale: float, resampling: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """The image at another size, at least one pixel wide and high."""
    width, height = (max(round(side * scale), 1) for side in image.size)
    return image.resize((width, height), resampling)


def cropped(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    """The image less that share of its width and of its height, taken from both sides at random."""
    width, height = (round(side * (1.0 - share)) for side in image.size)
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


CHANGES: Mapping[str, Change] = {
    "JPEG 75": lambda image, rng: jpeg(image, 75),
    "JPEG 90": lambda image, rng: jpeg(image, 90),
    "half, Lanczos": lambda image, rng: resized(image, 0.5),
    "half, box": lambda image, rng: resized(image, 0.5, Image.Resampling.BOX),
    "0.73, bilinear": lambda image, rng: resized(image, 0.73, Image.Resampling.BILINEAR),
    "crop 10 %": lambda image, rng: cropped(image, rng, 0.10),
    "crop 4 %": lambda image, rng: cropped(image, rng, 0.04),
    "half, JPEG 75": lambda image, rng: jpeg(resized(image, 0.5), 75),
    "crop 10 %, JPEG 75": lambda image, rng: jpeg(cropped(image, rng, 0.10), 75),
    "crop 10 %, half": lambda image, rng: resized(cropped(image, rng, 0.10), 0.5),
    "crop 10 %, half, JPEG 75": lambda image, rng: jpeg(resized(cropped(image, rng, 0.10), 0.5), 75),
    "crop 7 %, size as before, JPEG 85": lambda image, rng: jpeg(
        cropped(image, rng, 0.07).resize(image.size, Image.Resampling.BICUBIC), 85
    ),
}


def pill(seed: int, side: int = 448, background: float = 0.0, noise: float = 1.5, texture: float = 0.8) -> Image.Image:
    """Draws one of many aligned parts of one kind before a removed background.

    Args:
      seed: which part.
      side: of the image.
      background: grey value of what is no part.
      noise: standard deviation of the sensor's noise, grey levels.
      texture: standard deviation of the part's own texture, grey levels.
    """
    rng = np.random.default_rng([seed, 1])
    y, x = np.mgrid[:side, :side].astype(np.float32)
    centre = side / 2 + rng.normal(0.0, 0.3, 2)
    radius = np.hypot((x - centre[0]) / (0.36 * side), (y - centre[1]) / (0.24 * side))
    inside = np.clip((1.0 - radius) * 0.24 * side + 0.5, 0.0, 1.0)
    grey = 150.0 + 50.0 * np.sqrt(np.clip(1.0 - radius**2, 0.0, 1.0)) - 30.0 * np.exp(-(((x - centre[0]) / 4.0) ** 2))
    grain = rng.normal(0.0, 1.0, (side // 4 + 1, side // 4 + 1)).repeat(4, 0).repeat(4, 1)[:side, :side]
    grey = (grey + texture * grain) * rng.normal(1.0, 0.004) + noise * rng.normal(0.0, 1.0, grey.shape)
    grey = np.where(inside > 0.0, grey * inside + background * (1.0 - inside), background)
    return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))


def draw_pills(folder: pathlib.Path, count: int, **settings: float) -> None:
    """Writes that many aligned pills in the MVTec layout."""
    for i in range(count):
        where = ("train/good", "train/good", "test/good", "test/chip")[i % 4]
        file = folder / "pill" / where / f"{i:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pill(i, **settings).save(file)


def copies(records: Sequence[Record], folder: pathlib.Path, sample: int, seed: int = 0) -> dict[str, tuple[str, str]]:
    """Writes copies of up to `sample` photographs for each change; copy's file -> (change, original's file)."""
    rng = np.random.default_rng(seed)
    each = max(min(sample, len(records) // len(CHANGES)), 1)
    order = rng.permutation(len(records))
    made = {}
    for number, (name, change) in enumerate(CHANGES.items()):
        for place in order[number * each : (number + 1) * each]:
            with Image.open(records[place].file) as opened:
                image = opened.convert("L" if opened.mode in ("L", "I;16") else "RGB")
            changed = change(image, rng)
            is_jpeg = changed.format == "JPEG"
            file = folder / f"{number:02d}_{place:05d}.{'jpg' if is_jpeg else 'png'}"
            # A JPEG image goes to disk as it was encoded.
            file.write_bytes(changed.fp.getvalue()) if is_jpeg else changed.save(file)
            made[str(file)] = name, records[place].file
    return made


def measure(records: Sequence[Record], sample: int) -> tuple[list[Pair], dict[str, tuple[int, int]], list[Pair]]:
    """Searches a set with copies of some of its photographs.

    Returns:
      The pairs of the set's own photographs; (found, made) by change; and what was found of a copy with another
      photograph than its original.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = copies(records, pathlib.Path(folder), sample)
        category = records[0].category
        added = [Record(file, file, category, "good", 0, "test", file) for file in made]
        pairs = explore([*records, *added]).duplicates
    results = {name: [0, 0] for name, _ in made.values()}
    right = {frozenset((file, original)): name for file, (name, original) in made.items()}
    for name in right.values():
        results[name][1] += 1
    alone, wrong = [], []
    for pair in pairs:
        files = frozenset((pair.first.file, pair.second.file))
        if files in right:
            results[right[files]][0] += 1
        else:
            (wrong if files & made.keys() else alone).append(pair)
    return alone, {name: tuple(counts) for name, counts in results.items()}, wrong


def _print(name: str, records: Sequence[Record], sample: int) -> None:
    alone, results, wrong = measure(records, sample)
    found, made = (sum(counts[i] for counts in results.values()) for i in (0, 1))
    own = f"{len(records):,} photographs, {len(alone)} pairs of its own"
    print(f"{name}: {own}; of {made} copies {found} found", flush=True)
    for pair in alone:
        print(f"  {pair.first.path} and {pair.second.path}: {pair.kind}, {pair.difference:.2f}")
    print("  " + "; ".join(f"{change} {counts[0]}/{counts[1]}" for change, counts in results.items() if counts[1]))
    for pair in wrong:
        print(f"  WRONG {pair.first.path} and {pair.second.path}: {pair.difference:.2f}")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--sample", type=int, default=20, help="copies of each kind of change")
    parser.add_argument("--drawn", action="store_true", help="measure sets of drawn parts too")
    parser.add_argument("--time", type=int, default=0, help="draw so many aligned pills and measure the time only")
    options = parser.parse_args()
    for folder in options.folders:
        _print(folder, scan.scan([folder]), options.sample)
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        if options.time:
            draw_pills(root, options.time)
            begun, used = time.perf_counter(), time.process_time()
            pairs = explore(scan.scan([root])).duplicates
            print(
                f"{options.time:,} drawn photographs: {len(pairs)} pairs, {time.perf_counter() - begun:.0f} s, "
                f"{time.process_time() - used:.0f} s of processor time"
            )
            return
        if not options.drawn:
            return
        kinds = {
            "on black": {},
            "on white": {"background": 255.0},
            "without texture": {"texture": 0.0},
            "without noise": {"noise": 0.0},
            "without both": {"noise": 0.0, "texture": 0.0},
        }
        for kind, settings in kinds.items():
            draw_pills(root / kind, 240, **settings)
            _print(f"pills {kind}", scan.scan([root / kind]), options.sample)


if __name__ == "__main__":
    _main()
