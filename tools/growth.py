"""How time and memory grow with the number of images: each stage at each size, in a process of its own.

Example:
  python -m tools.growth --out=results/growth

The images are JPEGs of 64 px of the toy factory, each file with another comment, so that no two hold the same bytes.
Heads are fitted with their out-of-fold scores on drawn features, 64 numbers and two small maps an image, one image in
ten defective.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from mvtec_tf.bin import entry
from mvtec_tf.errors import UsageError, UserError
from mvtec_tf.heads.settings import HEADS
from mvtec_tf.ownership import Owned

_FIT = "fit "
_STAGES = ("scan", "protocol", "cache", "features", *(f"{_FIT}{name}" for name in HEADS))
_SIDE, _DIFFERENT, _ENCODER = 32, 64, "encoder"
# The choice of a patch memory takes as long whatever the images are: with a tenth of the default one sees the rest.
_MEMORY = {"memory_bank": 500, "coreset_candidates": 5_000}
_WIDTH, _MAPS = 64, {"first": (8, 8, 16), "second": (4, 4, 32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrowthSettings:
    """What is measured.

    Attributes:
      out: new folder for the images, costs.json and growth.svg.
      sizes: numbers of images, ascending.
      stages: only these; default: all.
      limit: seconds after which a stage is ended, and larger sizes of it are left out.
      seed: random seed of everything that is drawn.
    """

    out: str
    sizes: tuple[str, ...] = ("1000", "10000", "100000")
    stages: tuple[str, ...] = _STAGES
    limit: float = dataclasses.field(default=900.0, metadata={"above": 0})
    seed: int = dataclasses.field(default=0, metadata={"least": 0})

    def check(self) -> None:
        """Raises UsageError for settings that make no sense."""
        if unknown := [name for name in self.stages if name not in _STAGES]:
            raise UsageError(f"`stages`: unknown: {', '.join(unknown)}. Known are {', '.join(_STAGES)}.")
        if not all(size.isdigit() and int(size) >= 100 for size in self.sizes):
            raise UsageError(f"`sizes`={','.join(self.sizes)}: expected numbers of images of 100 or more.")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one stage took at one size.

    Attributes:
      stage: of _STAGES.
      images: how many.
      wall_seconds, cpu_seconds: of the stage alone; the CPU's are of all cores together. None: it was ended.
      peak_mb: largest resident memory of the process, with all that it has loaded.
    """

    stage: str
    images: int
    wall_seconds: float | None
    cpu_seconds: float | None
    peak_mb: float


def main(asked: GrowthSettings) -> None:
    """Measures what is asked for, and writes the costs and their chart.

    Raises:
      UserError: a stage failed.
    """
    from mvtec_tf import files

    out, costs = pathlib.Path(asked.out), []
    with Owned(asked.out, "`out`"):
        for size in map(int, asked.sizes):
            if set(asked.stages) & {"scan", "protocol", "cache", "features"}:
                draw(out / "images" / str(size), size, asked.seed)
            for stage in asked.stages:
                if any(cost.stage == stage and cost.wall_seconds is None for cost in costs):
                    continue
                costs.append(_measured(stage, size, out, asked))
                print(_line(costs[-1]), flush=True)
                document = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "seed": asked.seed}
                files.write_json(out / "costs.json", document | {"costs": [dataclasses.asdict(one) for one in costs]})
        _write_chart(out / "growth.svg", costs)
    print(out / "costs.json")


def draw(folder: pathlib.Path, images: int, seed: int) -> None:
    """Writes so many JPEGs in the MVTec layout, unless they are there: 60 % to train on, 20 % of each kind to test."""
    from PIL import Image

    from mvtec_tf.data.toy.factory import write_toy_factory

    if folder.exists():
        return
    drawn = folder.with_name("drawn")
    if not drawn.exists():
        write_toy_factory(drawn, seed=seed, image_size=64, train_good=_DIFFERENT, test_good=1, per_defect=1,
                          products=("flange",))
    contents = []
    for file in sorted((drawn / "flange" / "train" / "good").iterdir()):
        buffer = io.BytesIO()
        Image.open(file).convert("RGB").save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    parts = (("train/good", 6), ("test/good", 2), ("test/scratch", 2))
    places = list(itertools.chain.from_iterable([name] * share for name, share in parts))
    for name in set(places):
        (folder / "part" / name).mkdir(parents=True)
    for number in range(images):
        content, comment = contents[number % len(contents)], str(number).encode()
        # Behind the start of the image (2 bytes): marker, length with its own two bytes, text.
        marked = content[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + content[2:]
        (folder / "part" / places[number % len(places)] / f"{number:06}.jpg").write_bytes(marked)


def one(stage: str, images: int, out: str, seed: int, answer: str) -> None:
    """Does one stage and writes what it took to `answer`, a JSON file: the work of one process."""
    from mvtec_tf.label_efficiency.cell import PeakMemory

    with contextlib.redirect_stdout(io.StringIO()):
        work = _prepared(stage, images, pathlib.Path(out), seed)
        peak, wall, cpu = PeakMemory(), time.perf_counter(), time.process_time()
        work()
    facts = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    pathlib.Path(answer).write_text(json.dumps(facts | {"peak_mb": peak.megabytes()}), encoding="utf-8")


def _prepared(stage: str, images: int, out: pathlib.Path, seed: int) -> Callable[[], Any]:
    """What the stage does, with everything before it done."""
    from mvtec_tf.data import protocol
    from mvtec_tf.data.formats import scan

    folder = out / "images" / str(images)
    if stage == "scan":
        return lambda: scan.fingerprint(scan.scan([folder]))
    if stage.startswith(_FIT):
        return _fit(stage.removeprefix(_FIT), images, seed)
    records = scan.scan([folder])
    if stage == "protocol":

        def cut() -> None:
            found = protocol.clean(records, 0.1, seed)
            protocol.folds([*found.labelled, *found.train_good], 5, seed)

        return cut
    if stage == "cache":
        from mvtec_tf.data.decoding.image_store import ImageStore

        store = ImageStore(_SIDE, str(out / f"cache_{images}"))
        return lambda: store.load(store.readable(records)[0])
    return _features(records, images, out)


def _features(records: Sequence[Any], images: int, out: pathlib.Path) -> Callable[[], Any]:
    from mvtec_tf.features.extract import extract
    from mvtec_tf.features.feature_graph import FeatureSettings
    from mvtec_tf.graphs import saved_model
    from mvtec_tf.networks.backbone import build_backbone

    encoder = out / _ENCODER
    if not encoder.exists():
        backbone = build_backbone("resnet10", _SIDE)
        card = {"run": {"backbone": "resnet10", "image_size": _SIDE}, "pretrain_images": [], "weights": "none"}
        saved_model.write_encoder(encoder, backbone, card)
    settings = FeatureSettings(tuple(saved_model.read_card(encoder)["middle_stages"]))
    return lambda: extract(encoder, records, settings, out / f"features_{images}")


def _fit(name: str, images: int, seed: int) -> Callable[[], Any]:
    import numpy as np

    from mvtec_tf.data.record import Record
    from mvtec_tf.heads.fitting import fit_probe
    from mvtec_tf.heads.frozen import FrozenFeatures
    from mvtec_tf.heads.make import make_head
    from mvtec_tf.heads.settings import HeadSettings
    from tools.patch_memory import DrawnMaps

    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 10 == 9
    pooled = (rng.normal(size=(images, _WIDTH)) + 0.5 * labels[:, None]).astype(np.float32)
    maps = {layer: DrawnMaps(images, shape, seed) for layer, shape in _MAPS.items()}
    records = [
        Record(f"{number}", f"{number}", "part", "chip" if bad else "good", int(bad), "test", f"{number}")
        for number, bad in enumerate(labels)
    ]
    features = FrozenFeatures(pooled, maps, image_size=(_SIDE, _SIDE))
    settings = HeadSettings(name, seed=seed, **_MEMORY)
    return lambda: fit_probe(lambda: make_head(settings), features, records, seed)


def _measured(stage: str, images: int, out: pathlib.Path, asked: GrowthSettings) -> Cost:
    answer = out / "answer.json"
    answer.unlink(missing_ok=True)
    code = f"from tools import growth; growth.one({stage!r}, {images}, {str(out)!r}, {asked.seed}, {str(answer)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        said = process.communicate(timeout=asked.limit)[1]
    except subprocess.TimeoutExpired:
        status = pathlib.Path(f"/proc/{process.pid}/status")
        peak = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        process.kill()
        process.communicate()
        return Cost(stage, images, None, None, int(peak[0]) / 1024)
    if process.returncode:
        raise UserError(f"{stage} of {images} images ended with status {process.returncode}: {said[-2000:]}")
    return Cost(stage, images, **json.loads(answer.read_text(encoding="utf-8")))


def _line(cost: Cost) -> str:
    took = "ended at the limit"
    if cost.wall_seconds is not None:
        took = f"{cost.wall_seconds:8.1f} s  {cost.cpu_seconds:8.1f} CPU s"
    return f"{cost.stage:24} {cost.images:8,}  {took}  {cost.peak_mb:6.0f} MB"


def _write_chart(file: pathlib.Path, costs: Sequence[Cost]) -> None:
    """Draws processor time and memory over the number of images, a line for each stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    marks = itertools.cycle("osv^D*")
    seconds, memory = figure.subplots(1, 2)
    for stage, mark in zip(dict.fromkeys(cost.stage for cost in costs), marks, strict=False):
        own = [cost for cost in costs if cost.stage == stage and cost.cpu_seconds is not None]
        sizes = [cost.images for cost in own]
        seconds.loglog(sizes, [cost.cpu_seconds for cost in own], marker=mark, label=stage)
        memory.loglog(sizes, [cost.peak_mb for cost in own], marker=mark, label=stage)
    for axes, title in ((seconds, "seconds of processor"), (memory, "largest memory, MB")):
        axes.set(xlabel="images", title=title)
        axes.grid(alpha=0.3)
    low, high = memory.get_ylim()
    memory.set_ylim(min(low, 100), max(high, 10_000))
    figure.legend(*seconds.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(file)


if __name__ == "__main__":
    entry.run(main, GrowthSettings, GrowthSettings.check)
