"""Fitting a light head on a frozen encoder with few labels or none, and judging it on images that nobody has seen."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from mvtec_tf.data import known_images, pillow_images, protocol
from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import TEST, Record
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation import defect_types, shift
from mvtec_tf.evaluation.defect_types import Call
from mvtec_tf.evaluation.report import suspects as report_suspects
from mvtec_tf.evaluation.table import rows
from mvtec_tf.features.probe_graph import TYPE_SCORES, Probe, write_probe
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.graphs.signatures import SERVING_DEFAULT
from mvtec_tf.heads.base import by_ops
from mvtec_tf.heads.by_category import PerCategoryHead
from mvtec_tf.heads.defect_types import PerCategoryTypeHead, TypeHead
from mvtec_tf.heads.file import save_head
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.frozen import frozen
from mvtec_tf.heads.linear import StudyHead
from mvtec_tf.heads.make import make_head
from mvtec_tf.heads.probability import Platt
from mvtec_tf.heads.settings import PLAIN_LOG_ODDS, SCORE_UNITS, HeadSettings
from mvtec_tf.jobs import checks, encoders, judging, opening, probe_features, recipes, suspects, unlabelled
from mvtec_tf.jobs.probe_features import Features
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.networks.backbone import EMBEDDING
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.study import protocol as study

# Of fewer cells a defect shares every one of them with what is around it.
_FINE_ENOUGH = 2.0
# Of the images that the head's own arrays score, so many are scored by the exported graph too.
_CHECKED = 8
# The likelier class is called, which is a threshold of 0 on the log-odds.
_LIKELIER = 0.0
_ONE_CLASS = (
    "As in the literature: all good training images, no label, and all test images are judged. The threshold comes "
    "from held-out good training images, while published figures at a threshold often choose it on the test images; "
    "ROC-AUC and the figures of heat maps need none and can be compared, at the same images, backbone and size."
)
_TAUGHT = (
    "The encoder was trained with labels, those of good training images too, so that no score of what it was shown is "
    "held out: threshold and probability rest on images that look easier to tell than new ones are."
)
_NAMES = (
    f"{defect_types.REPORT_FILE} in this folder says how often the defect was named rightly. An image is named "
    "after its highest score, and so may be called good there and still reach the threshold here."
)


def fit(said: FitSettings) -> RunDirectory:
    """Fits, exports and judges a head, or goes on where a stopped call left off.

    Args:
      said: what is asked for; what is left unsaid is the recipe's, the encoder's, or the default.

    Returns:
      The finished run.

    Raises:
      UsageError: settings contradict each other.
      UserError: images, encoder or features cannot be used.
    """
    settings, head, budget = checks.of_fit(said)
    maps = head.needs_maps
    named = None if settings.encoder is None else encoders.resolve_encoder(settings.encoder)
    limit = encoders.max_pixels(settings.max_pixels, [] if named is None else [named])
    records, skipped = opening.usable_by_file(settings, opening.scan(settings), limit)
    labels_used = None
    if settings.is_study:
        cut, labels_used = study.probe_cut(records, budget, settings.seed, settings.allow_leak)
    elif settings.is_one_class:
        cut = protocol.one_class(records)
    else:
        cut = protocol.clean(records, budget, settings.seed)
    recent, left_out = unlabelled.find(settings.unlabelled, cut, limit, settings.on_bad_image)
    # Before the run directory is made: a wrong name leaves nothing behind.
    encoder, store = probe_features.find_source(named, settings.features, maps)
    if encoder is not None:
        card = saved_model.read_card(encoder)
        if store is None:
            settings = recipes.settled(settings, said, card, f"`encoder`={settings.encoder}")
        else:
            recipes.check_store(settings, settings.features, store.key, not card["pretrain_images"])
            settings = recipes.settled(settings, said, card, f"`features`={settings.features}", store.key)
    # The study's head is kept in its graph alone.
    results = opening.RESULTS if settings.is_study else (*opening.RESULTS, "head.npz")
    with opening.opened("fit_probe", settings, records, (*skipped, *left_out), results, recent) as run:
        if run.finished:
            return run
        if encoder is None:
            encoder, words = encoders.encoder_of(settings, run.path / "encoder", records)
            run.note(network={"weights": words})
        wanted = functools.partial(recipes.feature_settings, settings, maps=maps)
        end = settings.is_study or settings.study_head
        features = probe_features.of_cut(run, encoder, store, cut, wanted, end)
        if settings.is_study:
            _fit_and_judge_by_the_study(run, settings, features, labels_used)
        else:
            _fit_and_judge(run, settings, features, head, recent)
            if settings.study_head and cut.labelled:
                _fit_and_judge_study_head(run, settings, features)
        judging.finish(run)
        return run


def _fit_and_judge(
    run: RunDirectory, settings: FitSettings, features: Features, kind: HeadSettings, recent: Sequence[str]
) -> None:
    """Fits the head on train_good and labelled, exports it, and judges the exported graph.

    A head that names defects is judged twice: once like every other one, by how well its score parts good from
    defective; and by the names. The threshold rests on the files `recent` where they score higher, see `unlabelled`.
    """
    cut, of_types = features.cut, settings.task == "defect_type"

    def make() -> Any:
        return TypeHead(kind.name, kind.head_c, kind.seed) if of_types else make_head(kind, features.tiled)

    print(f"Fitting the head {kind.name}, and again for held-out scores ...", flush=True)
    with run.timed("fit"):
        fitted, line = judging.on_line(fit_probe(make, features.frozen, cut.fit, kind.seed, of_types), cut)
    head = fitted.head
    save_head(run.path / "head.npz", head, kind, features.key.as_json(), features.tiled)
    for warning in fitted.warnings:
        print(f"Note: {warning}", flush=True)
    if not run.saved_model.exists():
        print("Writing the graph ...", flush=True)
        graph = Probe(features.encoder, features.key, head)
        card = {"run": run.record["settings"], "head": kind.name}
        card["pretrain_images"] = encoders.images_besides(features.encoder, cut.fit)
        write_probe(run.saved_model, graph, card)
    print(f"Scoring {counted(len(cut.evaluate) + len(recent), 'image')} by the graph ...", flush=True)
    with run.timed("score"):
        signature = saved_model.load(run.saved_model).signatures[SERVING_DEFAULT]
        served = scoring.run_signature(signature, [record.file for record in cut.evaluate], "scored")
        newest = scoring.run_signature(signature, recent, "scored")["anomaly_score"] if recent else np.empty(0)
        checked = np.unique(np.linspace(0, len(cut.fit) - 1, _CHECKED).astype(int))
        again = scoring.run_signature(signature, [cut.fit[i].file for i in checked], "checked")["anomaly_score"]
    moved, basis = unlabelled.moved(run, newest, [cut.fit[i] for i in fitted.calibrate], fitted)
    judging.check_roads(again, head.decision_function(features.frozen.select(checked)), features.precision)
    known = () if of_types else encoders.pretrained_paths(features.encoder, cut.fit)
    table = judging.table_of(moved, cut, features.frozen, served["anomaly_score"], served.get("probability"), known)
    besides = encoders.labels_besides(features.encoder, cut.labelled)
    judging.note_labels(run, cut.labelled, SCORE_UNITS[kind.name], besides)
    notes = [("Labels", " ".join([judging.labels_note(cut, besides), *fitted.warnings]))]
    if besides:
        print(f"Note:{judging.of_encoder(besides)}", flush=True)
    title = f"Frozen encoder with a {kind.name} head"
    if settings.is_one_class:
        notes.insert(0, ("Protocol one_class", one_class_note(cut.evaluate)))
    if of_types:
        title += " that names the defect"
        notes.append(("Names of defects", _NAMES))
    if encoders.was_told_labels(features.encoder):
        notes.append(("Labels of the encoder", _TAUGHT))
        print(f"Note: {_TAUGHT}", flush=True)
    notes += judging.note_line(run, line)
    if settings.smallest_defect is not None:
        notes.append(("Smallest defect", fineness_note(settings.smallest_defect, cut.train_good, features)))
        print(notes[-1][1], flush=True)
    maps, basis = _heat_maps(run, settings, cut), basis or shift.basis(line)
    found = suspects.find(cut.fit, features.frozen.pooled, kind.seed)
    report_suspects.write(run.path / report_suspects.FILE, found)
    more = [report_suspects.section(found)]
    judging.judge_run(
        run,
        settings,
        table,
        title,
        notes,
        evaluated=cut.evaluate,
        heat_maps=maps,
        basis=basis,
        more=more,
        calibrate=cut.fit,
        embedded=(features.frozen.pooled, by_ops(head.choose, frozen(features.frozen.pooled), head.arrays())),
    )
    if of_types:
        _judge_names(run, cut, head, served[TYPE_SCORES], title)


def _judge_names(run: RunDirectory, cut: Cut, head: PerCategoryTypeHead, scores: np.ndarray, title: str) -> None:
    called = [head.types[number] for number in scores.argmax(axis=1)]
    calls = [
        Call(record.path, record.category, record.group, record.defect, name)
        for record, name in zip(cut.evaluate, called, strict=True)
    ]
    labelled = {category: own.classes_ for category, own in head.heads.items()}
    print(defect_types.judge_types(calls, labelled, run.path, title)["summary"], flush=True)


def _heat_maps(run: RunDirectory, settings: FitSettings, cut: Cut) -> pathlib.Path | None:
    """Writes the heat maps of the evaluated images, if they are wanted; their folder, if there are masks to compare."""
    masks, folder = any(record.mask for record in cut.evaluate), run.path / "heatmaps"
    if not settings.heatmaps and not (settings.is_one_class and masks):
        return None
    with run.timed("heat_maps"):
        judging.write_heat_maps(run.saved_model, cut.evaluate, folder)
    return folder if masks else None


def one_class_note(evaluate: Sequence[Record]) -> str:
    """What the protocol did, and whether its good test images are the source's own, as published ones are."""
    good = [record for record in evaluate if not record.label]
    places = [known_images.of_place(record.file) for record in good]
    if not (others := sum(place is not None and place.split != TEST for place in places)):
        return _ONE_CLASS
    return (
        f"{_ONE_CLASS} But {others} of the {counted(len(good), 'good test image')} here lie in no folder {TEST}/: they "
        "were kept for testing by their names, or by a list. No published figure is of these images."
    )


def fineness_note(pixels: float, photographs: Sequence[Record], features: Features) -> str:
    """How many patches a defect covers along one side, where they are coarsest, and what would be fine enough.

    Args:
      pixels: width of the defect in the photographs.
      photographs: as they are on the disk.
      features: with maps.
    """
    height, width = next(iter(features.frozen.maps.values())).shape[1:3]
    sizes = {pillow_images.upright_size(record.file) for record in photographs}
    cells = pixels * min(min(width / across, height / down) for down, across in sizes)
    text = f"A defect of {pixels:g} px covers {cells:.2g} of the finest patches along one side"
    if cells >= _FINE_ENOUGH:
        return f"{text}; {_FINE_ENOUGH:g} are enough."
    times = math.ceil(_FINE_ENOUGH / cells - 1e-9)
    rows, columns = (times * count for count in features.key.tiles)
    side = times * round(math.sqrt(math.prod(features.key.image_size) / math.prod(features.key.tiles)))
    return (
        f"{text}, and of fewer than {_FINE_ENOUGH:g} most is averaged away, so it may be missed at any threshold. Fine "
        f"enough are `tiles`={rows}x{columns} or `image_size`={side}, without the recipe (`head`=patchcore), or "
        "photographs cropped to the part."
    )


def _fit_and_judge_study_head(run: RunDirectory, settings: FitSettings, features: Features) -> None:
    """Fits the study's head on the labelled images alone and reports it, in a folder of the run."""
    head = _study_head(features, settings.seed)
    scores = head.decision_function(features.embedding[len(features.cut.train_good) :])
    besides = encoders.labels_besides(features.encoder, features.cut.labelled)
    notes = [("Head", _study_head_note(head, features)), ("Labels", judging.labels_note(features.cut, besides))]
    title = "The original study's head"
    judging.judge_run(
        run,
        settings,
        _study_table(features, scores),
        title,
        notes,
        threshold=_LIKELIER,
        part="study_head",
        evaluated=features.cut.evaluate,
    )


def _fit_and_judge_by_the_study(
    run: RunDirectory, settings: FitSettings, features: Features, labels_used: int
) -> None:
    """Fits the study's head, exports it and judges the export on all test images, labelled ones included."""
    cut, besides = features.cut, encoders.labels_besides(features.encoder, features.cut.labelled)
    head = _study_head(features, settings.seed)
    if not run.saved_model.exists():
        seen = dataclasses.replace(features.key, layers=(EMBEDDING,), maps=False)
        # Its score is a log-odds, and its probability is reported as it is: not calibrated.
        graph = Probe(
            features.encoder, seen, PerCategoryHead.of_one(head, features.embedding.shape[1], Platt(1.0, 0.0))
        )
        write_probe(run.saved_model, graph, {"run": run.record["settings"], "head": "study"})
    with run.timed("score"):
        served = scoring.score_files(run.saved_model, [record.file for record in cut.evaluate])
    scores = head.decision_function(features.embedding[len(cut.train_good) :])
    judging.check_roads(served.score, scores[len(cut.labelled) :], features.precision)
    note = (
        f"The protocol of the original study: {labels_used} test images were labelled, {len(cut.labelled)} of them "
        f"fitted, and all {len(cut.evaluate)} test images evaluated, the labelled ones among them."
        f"{judging.of_encoder(besides)}"
    )
    print(note, flush=True)
    notes = [("Head", _study_head_note(head, features)), ("Labels", note)]
    run.note(score_unit=PLAIN_LOG_ODDS, labels_used=labels_used + len(besides))
    judging.judge_run(
        run,
        settings,
        _study_table(features, np.concatenate([scores[: len(cut.labelled)], served.score])),
        "The original study, repeated",
        notes,
        threshold=_LIKELIER,
        allow_leak=True,
        evaluated=cut.evaluate,
    )


def _study_head(features: Features, seed: int) -> StudyHead:
    first, last = len(features.cut.train_good), len(features.cut.fit)
    labels = np.array([record.label for record in features.cut.labelled])
    return StudyHead(seed).fit(features.embedding[first:last], labels)


def _study_table(features: Features, scores: np.ndarray) -> list:
    """Rows of the labelled and of the evaluated images, whose scores, log-odds, come in this order."""
    labelled, evaluate = features.cut.labelled, features.cut.evaluate
    probabilities, count = expit(np.asarray(scores, np.float64)), len(labelled)
    return [
        *rows(labelled, "fit", scores[:count], probabilities[:count]),
        *rows(evaluate, "evaluate", scores[count:], probabilities[count:]),
    ]


def _study_head_note(head: StudyHead, features: Features) -> str:
    return (
        f"The study's own head on the encoder's last output: {head.epochs} epochs of Adam at {head.learning_rate:g} in "
        f"batches of {head.batch_size} on {len(features.cut.labelled)} labelled images, no good training images, and "
        "the likelier class as its call (a threshold of 0 on the log-odds). So few steps hardly move it from its "
        "random start; it is reported as it is."
    )
