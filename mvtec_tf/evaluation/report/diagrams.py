"""What a run did, drawn from its own record: its workflow, the way of its pixels, its network.

A record is the content of `run.json`, with the "part" of the run if it is of a second model in it.
What it does not say is not drawn; of a table of somebody else's model there is no record, and so
no diagram.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyBboxPatch

from mvtec_tf.data import leaks
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation.report import canvas, summary
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.thresholds import Chosen

Record = Mapping[str, Any]
# (images, defective images) of each split of the table of predictions.
Splits = Mapping[str, tuple[int, int]]
SUPERVISED, PROBE, BASELINE = "train_cnn", "fit_probe", "fit_baseline"
# A head's layers that only matter while it is trained, or do no more than bend a number.
_MINOR = ("Dropout", "ReLU")
# Heads that look at each position of the maps, not at their average; and those that may look at both.
_OF_POSITIONS = ("padim", "patchcore")
_FUSED, _HYBRID = "fused", "hybrid"
STUDY_HEAD = "study_head"
CAPTIONS = {
    "diagram_workflow": (
        "Which images this run used for what. Orange boxes learn or choose something from images; only the images of "
        "the last box are judged."
    ),
    "diagram_data": "What happens to the pixels of an image, as this run's settings say.",
    "diagram_architecture": (
        "The network from the image to the score: output shape (height x width x channels) and weights of each block. "
        "Orange blocks were trained in this run, white ones were frozen."
    ),
}
DATA, STEP, TRAINED, ANSWER = "data", "step", "trained", "answer"
# Fill and edge; the kinds differ in lightness too, not in hue alone.
_COLOURS = {
    DATA: ("#e8f1f8", canvas.GOOD_COLOUR),
    STEP: ("#ffffff", "#767676"),
    TRAINED: ("#fbe3d3", canvas.DEFECTIVE_COLOUR),
    ANSWER: ("#e6e6e6", canvas.INK),
}
# Boxes stand below each other, joined by arrows, narrow enough for a phone. In inches.
_LINE, _PAD, _GAP = 0.155, 0.075, 0.2
_MARGIN = 0.12
# The size at which letters are measured, in points: large enough that rounding to pixels is nothing.
_EM = 100


@dataclasses.dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
      kind: "data" (images or numbers), "step" (something fixed is done), "trained" (something is
        learnt or chosen from images here) or "answer".
      title: in bold.
      lines: below it.
    """

    kind: str
    title: str
    lines: tuple[str, ...] = ()


def pictures(record: Record | None, splits: Splits, threshold: Chosen) -> Iterator[Picture]:
    """The diagrams that this record allows.

    Args:
      record: what the run recorded of itself; None: there is none.
      splits: how many images each split of its table has, and how many defective ones.
      threshold: what it was judged by.
    """
    if not record or record.get("binary") not in (SUPERVISED, PROBE, BASELINE):
        return
    for kind, (title, boxes_of) in KINDS.items():
        if boxes := boxes_of(record, splits, threshold):
            content, alt = canvas.png(draw(boxes)), f"{title}: {in_words(boxes)}"
            yield Picture(kind, "", f"{kind}.png", content, alt, CAPTIONS[kind], title)


def workflow(record: Record, splits: Splits, threshold: Chosen) -> list[Box]:
    """Which images were used for what, from the folder to the verdict."""
    settings = record["settings"]
    boxes = [_data(record), _cut(record, splits)]
    fit = f"{_images(splits, leaks.FIT)} fit it"
    if record["binary"] == SUPERVISED:
        stop = f"{_images(splits, leaks.CALIBRATE)} stop the training"
        boxes.append(Box(TRAINED, f"Train {settings['backbone']} with a classifying head", (fit, stop)))
    elif record["binary"] == PROBE:
        boxes += [_encoder(record), Box(TRAINED, f"Fit a head: {_head(record)}", (fit,))]
    else:
        seen = str(settings["features"]).replace("_", " ")
        labelled = splits.get(leaks.FIT, (0, 0))[1]
        head = "logistic regression on" if labelled else "Gaussian of good images to"
        boxes.append(Box(TRAINED, f"Fit a {head} {seen}", (fit,)))
    boxes.append(_threshold(splits, threshold))
    judged = f"{_images(splits, leaks.EVALUATE)}, scored once"
    return [*boxes, Box(ANSWER, "Judge: figures, intervals, report", (judged,))]


def data_pipeline(record: Record, splits: Splits, threshold: Chosen) -> list[Box]:
    """What happens to the pixels of an image on the way into the network."""
    settings = record["settings"]
    size = record.get("encoder", {}).get("image_size") or settings["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    resized = f"RGB, bilinear with antialiasing to {height} x {width} (height x width), rounded to uint8"
    boxes = [
        Box(DATA, "Image file", ("PNG, JPEG or BMP, of any size",)),
        Box(STEP, "Decode and resize", (resized,)),
    ]
    if record["binary"] == SUPERVISED:
        boxes.append(Box(STEP, "Keep every decoded image", ("in memory or in a file; each is decoded once",)))
        boxes.append(_draw(settings))
        boxes.append(Box(STEP, "Augment each image anew (training only)", _augmentation(settings)))
        boxes.append(Box(STEP, "Scale as the backbone expects, inside the network"))
    elif record["binary"] == PROBE:
        layers = ", ".join(record.get("encoder", {}).get("layers", [])) or "the two stages before the last"
        boxes.append(Box(STEP, "Frozen encoder, once for each image, no augmentation", (f"outputs of {layers}",)))
        boxes.append(Box(STEP, f"{_pooling(record)}, keep as features"))
    else:
        boxes.append(Box(STEP, f"Reduce to {str(settings['features']).replace('_', ' ')}"))
    into = {SUPERVISED: "Into the network", PROBE: "Into the head", BASELINE: "Into the regression"}[record["binary"]]
    same = "judged images go the same way, but for what is for training only"
    if record["binary"] != BASELINE:
        same += "; it lies inside the exported graph"
    return [*boxes, Box(DATA, into, (same,))]


def architecture(record: Record, splits: Splits, threshold: Chosen) -> list[Box]:
    """The blocks of the network, with what is trained; empty where the record holds none."""
    blocks = [block for block in record.get("architecture", []) if block["kind"] not in _MINOR]
    if not blocks:
        return []
    if record["binary"] == PROBE:
        # What lies behind the last layer that makes the features is never computed.
        used = [index for index, block in enumerate(blocks) if block["name"] in record["encoder"]["layers"]]
        blocks = blocks[: max(used, default=len(blocks)) + 1]
    boxes = [_block(block) for block in blocks]
    if record["binary"] == PROBE:
        layers = ", ".join(record["encoder"]["layers"])
        boxes.append(Box(STEP, _pooling(record), (layers,)))
        boxes.append(Box(TRAINED, f"Head: {_head(record)}", ("fitted here",)))
    # Runs of older versions do not say it.
    unit = record.get("score_unit", "the higher, the more defective")
    return [*boxes, Box(ANSWER, "Score", (unit,))]


KINDS: Mapping[str, tuple[str, Callable[[Record, Splits, Chosen], list[Box]]]] = {
    "diagram_workflow": ("Workflow", workflow),
    "diagram_data": ("Data pipeline", data_pipeline),
    "diagram_architecture": ("Architecture", architecture),
}


def _data(record: Record) -> Box:
    data = record["data"]
    categories = ", ".join(data["categories"][:4]) + (", ..." if len(data["categories"]) > 4 else "")
    words = (
        f"{counted(data['images'], 'image')} of {counted(len(data['categories']), 'category', 'categories')} "
        f"({categories})"
    )
    return Box(DATA, "Folder of images", (words, f"fingerprint {data['fingerprint'][:12]}"))


def _cut(record: Record, splits: Splits) -> Box:
    settings, used = record["settings"], record.get("labels_used")
    lines = [] if used is None else [
        f"{counted(used, 'label')} of test images used (budget: {settings['label_budget']})"
    ]
    lines.append(f"{_images(splits, leaks.EVALUATE)} to be judged")
    return Box(STEP, f"Protocol {settings['protocol']}, seed {settings['seed']}", tuple(lines))


def _encoder(record: Record) -> Box:
    encoder = record.get("encoder", {})
    settings = encoder.get("settings", {})
    backbone = settings.get("backbone") or record["settings"].get("backbone", "")
    weights = settings.get("weights") or record["settings"].get("weights")
    start = f"started from weights: {str(weights).rsplit('/', 1)[-1]}" if weights else ""
    seen = encoder.get("pretrain_images", 0)
    if not seen:
        return Box(STEP, f"Frozen encoder: {backbone}, not pretrained here", tuple(filter(None, [start])))
    words = f"on {counted(seen, 'good image')}, no labels; {settings.get('epochs', '?')} epochs"
    return Box(TRAINED, f"Encoder: {backbone}, pretrained, then frozen", tuple(filter(None, [words, start])))


def _head(record: Record) -> str:
    settings = record["settings"]
    if settings.get("protocol") == "study" or record.get("part") == STUDY_HEAD:
        return "the original study's"
    return str(settings.get("head", "")).replace("_", " ")


def _pooling(record: Record) -> str:
    head = _head(record)
    made_of = record["settings"].get("hybrid_of", ()) if head == _HYBRID else (head,)
    positions = any(name in (*_OF_POSITIONS, _FUSED) for name in made_of)
    averages = any(name not in _OF_POSITIONS for name in made_of)
    if positions and averages:
        return "Average over the image, keep every position too, join"
    return "Keep every position, join" if positions else "Average over the image, join"


def _threshold(splits: Splits, threshold: Chosen) -> Box:
    whole = threshold.whole
    if whole.value is None:
        return Box(STEP, "No threshold", (whole.reason,))
    if threshold.categories:
        values = f"{len(threshold.categories)} thresholds, one of each category"
    else:
        values = summary.number(whole.value)
    if not whole.images:
        return Box(STEP, f"Threshold {values}", (whole.reason,))
    return Box(
        TRAINED, f"Choose the threshold: {values}", (f"{whole.method} on {_images(splits, leaks.CALIBRATE)}",)
    )


def _draw(settings: Record) -> Box:
    order = "good and defective equally often" if settings.get("balanced_sampling") else "shuffled anew each pass"
    words = (f"{order}, seed {settings['seed']}",)
    return Box(STEP, f"Draw batches of {settings['batch_size']} (training only)", words)


def _augmentation(settings: Record) -> tuple[str, ...]:
    """The strengths, several to a line."""
    prefix = "augment_"
    words = [
        f"{name.removeprefix(prefix).replace('_', ' ')} {value:g}"
        for name, value in sorted(settings.items())
        if name.startswith(prefix)
    ]
    return (", ".join(words),) if words else ()


def _block(block: Mapping[str, Any]) -> Box:
    shape = " x ".join(str(length) for length in block["shape"])
    if block["kind"] == "image":
        return Box(DATA, f"Image {shape}, uint8")
    title = f"Stage to {block['name']}" if block["kind"] == "stage" else f"{block['kind']} ({block['name']})"
    weights = f"{block['parameters']:,} weights" if block["parameters"] else "no weights"
    trained = bool(block["trained"])
    state = ", trained" if trained else ", frozen" if block["parameters"] else ""
    return Box(TRAINED if trained else STEP, title, (f"{shape}; {weights}{state}",))


def _images(splits: Splits, split: str) -> str:
    images, defective = splits.get(split, (0, 0))
    return f"{counted(images, 'image')} ({defective:,} defective)"


@canvas.own_style()
def draw(boxes: Sequence[Box]) -> Figure:
    """The boxes from top to bottom, in a figure of the common width that is as high as they need."""
    texts = [(_wrapped([box.title], "bold"), _wrapped(box.lines, "normal")) for box in boxes]
    heights = [_LINE * (len(title) + len(lines)) + 2 * _PAD for title, lines in texts]
    whole = sum(heights) + _GAP * (len(boxes) - 1) + 0.06
    figure = Figure(figsize=(canvas.WIDTH, whole), dpi=canvas.DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, canvas.WIDTH)
    axes.set_ylim(whole, 0)
    axes.set_axis_off()
    top = 0.03
    for index, (box, (title, lines), height) in enumerate(zip(boxes, texts, heights, strict=True)):
        fill, edge = _COLOURS[box.kind]
        style = {"boxstyle": "round,pad=0,rounding_size=0.05", "facecolor": fill, "edgecolor": edge, "linewidth": 1}
        axes.add_patch(FancyBboxPatch((0.04, top), canvas.WIDTH - 0.08, height, **style))
        for row, text in enumerate([*title, *lines]):
            weight = "bold" if row < len(title) else "normal"
            where = top + _PAD + _LINE * (row + 0.5)
            font = {"fontsize": canvas.SMALL, "fontweight": weight, "color": canvas.INK}
            axes.text(_MARGIN, where, text.replace("$", r"\$"), va="center", **font)
        top += height
        if index + 1 < len(boxes):
            arrow = {"arrowstyle": "-|>", "color": "#595959", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
            middle = canvas.WIDTH / 2
            axes.annotate("", (middle, top + _GAP), (middle, top), arrowprops=arrow)
            top += _GAP
    return figure


def in_words(boxes: Sequence[Box]) -> str:
    """The same as text, for those who cannot see it."""
    return "; then ".join(": ".join(text for text in (box.title, ", ".join(box.lines)) if text) for box in boxes) + "."


def _wrapped(lines: Sequence[str], weight: str) -> list[str]:
    """The lines cut at blanks, or within a word that is wider than a box, so that each piece fits into one."""
    pieces = []
    for line in lines:
        piece = ""
        for word in line.split():
            if piece and not _fits(f"{piece} {word}", weight):
                pieces.append(piece)
                piece = ""
            piece = f"{piece} {word}" if piece else word
            while not _fits(piece, weight):
                cut = next(length for length in range(len(piece) - 1, 0, -1) if _fits(piece[:length], weight))
                pieces.append(piece[:cut])
                piece = piece[cut:]
        pieces.append(piece)
    return pieces


def _fits(text: str, weight: str) -> bool:
    points = sum(_advance(letter, weight) for letter in text) * canvas.SMALL / _EM
    return points <= (canvas.WIDTH - 2 * _MARGIN) * 72


# At most as many letters as there are in the alphabets of those who name categories.
@functools.lru_cache(4096)
def _advance(letter: str, weight: str) -> float:
    """How far a letter takes the pen at a size of `_EM` points, in points."""
    font = get_font(findfont(FontProperties(weight=weight)))
    font.set_size(_EM, 72)
    return font.load_char(ord(letter)).linearHoriAdvance / 65536
