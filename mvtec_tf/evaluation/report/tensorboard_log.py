"""A judgement as a TensorBoard log: the scalars of `metrics.json`, precision-recall curves, pictures, hyperparameters.

Everything is in one event file beside those of the training, so that a run directory is one run of TensorBoard:
beyond 40 runs it selects none, and shows blank charts. The limits, and the classifiers that do not look, are scalars
too; the dashboard "Custom Scalars" draws them as bands and beside the model's. Written with TensorBoard's own
records: TensorFlow is not needed for it and not imported.
"""

import hashlib
import io
import json
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.pr_curve import metadata as pr_curve
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from mvtec_tf import files
from mvtec_tf.evaluation import metrics, trivial
from mvtec_tf.evaluation.assessment import Assessment
from mvtec_tf.evaluation.metrics import Metric
from mvtec_tf.evaluation.report.canvas import Picture
from mvtec_tf.evaluation.scope import Scope

# One name: a second judgement of the same folder replaces the first. TensorBoard reads the files of a run in the order
# of their names and never turns back, so this one comes behind those of the training, which have the time in theirs.
EVENTS = "events.out.tfevents.9999999999.evaluation"
LIMITS = ("low", "high")
# First words of tags. TensorBoard sorts by them: learning curves first.
CURVES = "curves"
OWN, LIMIT, TRIVIAL = "evaluation", "evaluation_limits", "evaluation_trivial"
_BANDS = ("roc_auc", "balanced_accuracy", "f1", "recall", "specificity")
_THRESHOLDS = 101
# A figure stands at two steps, because TensorBoard draws the band of a single one as wide as nothing.
_STEPS = (0, 1)


def write(
    folder: files.PathLike,
    judged: Assessment,
    sentences: Sequence[str],
    pictures: Iterable[Picture],
    settings: Mapping[str, Any] | None = None,
    part: str = "",
) -> None:
    """Writes the log, one event file.

    Args:
      folder: the folder of a run of TensorBoard.
      judged: the figures.
      sentences: the answer in plain words.
      pictures: see `figures.pictures`.
      settings: hyperparameters; None: none are logged.
      part: name of a second model that was judged in the same run; its tags begin with it.
    """
    both = {f"categories/{name}" if name else place: found for (place, name), found in judged.places.items()}
    own = {place: figures for place, (figures, _) in both.items()}
    values = [*_scalars(own, "value", OWN), *_counts(judged)]
    for side in LIMITS:
        values += _scalars(own, side, f"{LIMIT}/{side}")
    for name in trivial.CLASSIFIERS:
        values += _scalars({place: idle[name] for place, (_, idle) in both.items()}, "value", f"{TRIVIAL}/{name}")
    scopes = (judged.overall, *judged.categories.values())
    values += [_pr_curve(scope) for scope in scopes if scope.metrics["roc_auc"].value is not None]
    values += [_image(picture) for picture in pictures]
    values.append(_text("summary", "\n\n".join(sentences)))
    for value in values if part else ():
        value.tag = f"{part}/{value.tag}"
    # Both belong to the run as a whole, and to its main model.
    if not part:
        values.append(_layout())
        values += _hparams(settings) if settings else ()
    write_events(pathlib.Path(folder) / f"{EVENTS}_{part}".rstrip("_"), values, time.time())


def _scalars(places: Mapping[str, Mapping[str, Metric]], which: str, tag: str) -> Iterator[Summary.Value]:
    """`value`, `low` or `high` of each metric that has it, with the names of `metrics.json` behind `tag`."""
    for place, found in places.items():
        for name, metric in found.items():
            if (number := getattr(metric, which)) is not None:
                yield Summary.Value(tag=f"{tag}/{place}/{name}", simple_value=number)


def _counts(judged: Assessment) -> Iterator[Summary.Value]:
    scopes = {"overall": judged.overall} | {f"categories/{name}": each for name, each in judged.categories.items()}
    for place, scope in scopes.items():
        for name in ("tn", "fp", "fn", "tp") if scope.counts else ():
            yield Summary.Value(tag=f"evaluation_counts/{place}/{name}", simple_value=getattr(scope.counts, name))
        if scope.threshold.value is not None:
            yield Summary.Value(tag=f"threshold/{place}", simple_value=scope.threshold.value)


def _pr_curve(scope: Scope) -> Summary.Value:
    """The curve at thresholds that are spread evenly over 0..1, the only ones that the dashboard knows.

    Of scores that are no probability it is drawn over the share of images that score lower.
    """
    if scope.probabilities is not None:
        places, words = scope.probabilities, "Thresholds are probabilities of being defective."
    else:
        # Ranks keep the order, ties included, and spread the thresholds over the images.
        ranks = np.searchsorted(np.sort(scope.scores), scope.scores)
        places, words = ranks / max(1, len(ranks) - 1), "Thresholds are shares of the images that score lower."
    thresholds = np.linspace(0, 1, _THRESHOLDS)
    points = metrics.curve(scope.labels, places)
    # Of descending places: how many reach each threshold.
    reached = np.searchsorted(-points.thresholds, -thresholds, side="right")
    tp, fp = (np.append(0, counts)[reached] for counts in (points.tp, points.fp))
    tn, fn = scope.good - fp, scope.defective - tp
    precision = np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), 1.0)
    table = np.stack([tp, fp, tn, fn, precision, tp / scope.defective]).astype(np.float32)
    tag = f"pr_curve/categories/{scope.name}" if scope.name else "pr_curve/overall"
    return Summary.Value(
        tag=tag,
        metadata=pr_curve.create_summary_metadata(tag, words, _THRESHOLDS),
        tensor=tensor_util.make_tensor_proto(table),
    )


def _layout() -> Summary.Value:
    """What the dashboard "Custom Scalars" shows: learning curves, then each metric's band, then the trivial ones."""
    curves = [
        _lines("loss", [rf"^{CURVES}/(val_)?loss$"]),
        _lines("validation", [rf"^{CURVES}/val_(f1|roc_auc|specificity)$"]),
        _lines("learning rate", [rf"^{CURVES}/learning_rate$"]),
    ]
    bands = [layout_pb2.Chart(title=name, margin=_band(name)) for name in _BANDS]
    beside = [_lines(name, [f"^{OWN}/overall/{name}$", f"^{TRIVIAL}/[a-z_]+/overall/{name}$"]) for name in _BANDS]
    categories = [
        layout_pb2.Category(title="Learning curves", chart=curves),
        layout_pb2.Category(title="95 % intervals", chart=bands),
        layout_pb2.Category(title="Beside classifiers that do not look", chart=beside),
    ]
    return Summary.Value(
        tag=custom_scalar.CONFIG_SUMMARY_TAG,
        metadata=custom_scalar.create_summary_metadata(),
        tensor=tensor_util.make_tensor_proto(layout_pb2.Layout(category=categories).SerializeToString()),
    )


def _band(name: str) -> layout_pb2.MarginChartContent:
    low, high = (f"{LIMIT}/{side}/overall/{name}" for side in LIMITS)
    series = layout_pb2.MarginChartContent.Series(value=f"{OWN}/overall/{name}", lower=low, upper=high)
    return layout_pb2.MarginChartContent(series=[series])


def _lines(title: str, tags: Sequence[str]) -> layout_pb2.Chart:
    return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))


def _image(picture: Picture) -> Summary.Value:
    width, height = Image.open(io.BytesIO(picture.png)).size
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=picture.png)
    return Summary.Value(tag=f"figures/{pathlib.PurePath(picture.file_name).stem}", image=image)


def _text(tag: str, words: str) -> Summary.Value:
    return Summary.Value(
        tag=tag,
        metadata=text.create_summary_metadata(display_name=tag, description=""),
        tensor=tensor_util.make_tensor_proto(np.array(words.encode(), object)),
    )


def _hparams(settings: Mapping[str, Any]) -> Iterable[Summary.Value]:
    # The plugin knows numbers, truth values and strings only.
    plain = {
        name: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for name, value in settings.items()
    }
    trial = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return hparams.hparams_pb(plain, trial_id=trial, start_time_secs=0).value


def write_events(path: pathlib.Path, values: Iterable[Summary.Value], now: float) -> None:
    """Writes an event file; `now` in seconds since 1970."""
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        version = event_pb2.Event(wall_time=now, file_version="brain.Event:2")
        events = (
            event_pb2.Event(wall_time=now, step=step, summary=Summary(value=[value]))
            for value in values
            for step in (_STEPS if value.HasField("simple_value") else _STEPS[:1])
        )
        for event in (version, *events):
            writer.write(event.SerializeToString())
