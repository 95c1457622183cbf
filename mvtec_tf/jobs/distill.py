"""A small student of a judged model: asked, trained, judged, made smaller, judged again, set beside its teacher."""

import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Sequence

import numpy as np

from mvtec_tf.data import protocol
from mvtec_tf.data.protocol import Cut
from mvtec_tf.data.record import Record
from mvtec_tf.data.words import counted
from mvtec_tf.evaluation.comparison import distilled
from mvtec_tf.evaluation.comparison.distilled import Form
from mvtec_tf.evaluation.image_files import ImageFiles
from mvtec_tf.evaluation.localisation import heatmaps
from mvtec_tf.evaluation.localisation.heatmaps import HeatMaps
from mvtec_tf.evaluation.table import Row, rows
from mvtec_tf.features.reference import Reference, Usual
from mvtec_tf.features.student_graph import write_student
from mvtec_tf.files import new_directory, speaker
from mvtec_tf.graphs import plain, saved_model, scoring
from mvtec_tf.graphs.signatures import HEAT_MAP, IMAGE_STATISTICS
from mvtec_tf.graphs.thresholded import SCORE
from mvtec_tf.heads.settings import FUSED, SCORE_UNITS
from mvtec_tf.jobs import checks, encoders, judging, opening, student_head, teacher, unlabelled
from mvtec_tf.jobs.settings import DistilRunSettings
from mvtec_tf.jobs.student_head import HeldOut, Parts
from mvtec_tf.jobs.teacher import Teacher
from mvtec_tf.networks import student
from mvtec_tf.networks.backbone import EMBEDDING
from mvtec_tf.run_directory import RunDirectory
from mvtec_tf.serving import exchange, smaller, speed
from mvtec_tf.serving import export as export_lib
from mvtec_tf.training.distil import Questions, backbone_of, train_student

# The device's folder in that of a form, RUN/int8/litert/model.tflite.
DEVICE = "litert"
_OF_THRESHOLD = ("threshold_method", "target_recall", "target_specificity", "cost_miss", "cost_false_alarm")
# Questions by whose values the steps of int8 are chosen.
_CALIBRATING = 200


def distill(settings: DistilRunSettings) -> RunDirectory:
    """Trains, judges and shrinks a student, or goes on where a stopped call left off.

    Returns:
      The finished run.

    Raises:
      UsageError: settings contradict each other.
      UserError: the teacher or the images cannot be used, or a form cannot be written.
    """
    checks.of_distilling(settings)
    smaller.require(settings.forms)
    known = teacher.opened(settings.teacher)
    records, skipped = opening.usable_by_file(settings, opening.scan(settings), settings.max_pixels)
    good, labelled, evaluate = known.parts(records)
    fit, held = protocol.hold_out(good, settings.validation_share, settings.seed, frozenset((0,)))
    parts = Parts(fit, held, labelled, evaluate)
    cut = Cut(tuple(good), tuple(labelled), tuple(evaluate))
    recent, left_out = unlabelled.find(settings.unlabelled, cut, settings.max_pixels, settings.on_bad_image)
    # Before anything is asked: a wrong name or file is found out now.
    backbone = backbone_of(settings)
    results = (*opening.RESULTS, distilled.PAGE, *(f"{form}/{DEVICE}/model.tflite" for form in settings.forms))
    beside = (*recent, str(known.model / "saved_model.pb"), str(known.folder / "predictions.csv"))
    used = [*good, *labelled, *evaluate]
    left_out, sources = (*skipped, *left_out), {"teacher": known.digest}
    with opening.opened("distill", settings, used, left_out, results, beside, sources) as run:
        if not run.finished:
            besides = encoders.labels_besides(known.model, labelled)
            judging.note_labels(run, labelled, SCORE_UNITS[FUSED], besides)
            print(parts.note + judging.of_encoder(besides), flush=True)
            others = [Record(path, path, fit[0].category, "", 0, "", path) for path in recent]
            asked = teacher.asked(run, settings, known, student.grid_of(backbone), fit, others)
            if not run.saved_model.exists():
                with run.timed("train"):
                    network = train_student(run, settings, asked, backbone)
                with run.timed("fit"):
                    judge = student_head.fit(run, settings, network, backbone.middle_stages, asked, parts)
                card = {"run": run.record["settings"]}
                card["pretrain_images"] = encoders.images_besides(known.model, [*good, *labelled])
                write_student(run.saved_model, network, judge, card, settings.max_pixels)
            _judge(run, settings, known, parts, asked)
            print(f"Beside its teacher: {run.path / distilled.PAGE}")
            judging.finish(run)
        return run


def _judge(
    run: RunDirectory, settings: DistilRunSettings, known: Teacher, parts: Parts, asked: Questions
) -> None:
    """Judges the student and its forms, and sets all beside the teacher."""
    said = settings
    if all(getattr(settings, name) is None for name in _OF_THRESHOLD):
        said = dataclasses.replace(settings, **{name: known.settings.get(name) for name in _OF_THRESHOLD})
    held_out = HeldOut.read(run, parts)
    table = []
    for split, part in (("fit", parts.used), ("calibrate", held_out.records), ("evaluate", parts.evaluate)):
        said_of = scoring.score_files(run.saved_model, [one.file for one in part]).score
        table += rows(part, split, held_out.scores(said_of) if split == "calibrate" else said_of)
    title = f"Student {settings.backbone} of {known.path.name}"
    notes = [("Images", parts.note)]
    of_good = {"evaluated": parts.evaluate, "calibrate": held_out.records}
    judging.judge_run(run, said, table, title, notes, **of_good)
    forms = [Form("teacher", known.folder, _maps(known.model, parts.evaluate, run.path / "teacher"))]
    forms.append(Form("student", run.path, _maps(run.saved_model, parts.evaluate, run.path)))
    models = {"teacher": str(known.model), "student": str(run.saved_model)}
    # The teacher's files for other runtimes, of which the fastest counts.
    files = [known.folder / name / form.files[0] for name, form in exchange.FORMS.items()]
    models |= {f"teacher, {file.parent.name}": str(file) for file in files if file.is_file()}
    for kind in settings.forms:
        with run.timed(kind):
            forms.append(_write_form(run, said, kind, parts.evaluate, held_out, asked, title, notes))
        models[kind] = str(run.path / kind / DEVICE / "model.tflite")
    images = {record.path: ImageFiles(record.file, record.mask) for record in parts.evaluate}
    seconds = _speeds(models, [record.file for record in parts.evaluate], settings.speed_images)
    megabytes = {name: _megabytes(one) for name, one in models.items()}
    distilled.write(run.path, forms, images, seconds, megabytes, parts.note)


def _maps(model: pathlib.Path, records: Sequence[Record], folder: pathlib.Path) -> HeatMaps:
    judging.write_heat_maps(model, records, folder / "heatmaps")
    return HeatMaps(folder / "heatmaps", "heat map")


def _write_form(
    run: RunDirectory,
    settings: DistilRunSettings,
    kind: str,
    evaluate: Sequence[Record],
    held_out: HeldOut,
    asked: Questions,
    title: str,
    notes: Sequence[tuple[str, str]],
) -> Form:
    """Writes one form of the student with a threshold of its own, and judges it."""
    card = saved_model.read_card(run.saved_model) | {"name": f"{run.path.resolve().name}_{kind}", "version": 1}
    chosen = np.random.default_rng(settings.seed).permutation(len(asked))[:_CALIBRATING]
    good = [asked.images[row][None] for row in np.sort(chosen)]
    maps, folder = run.path / kind / "heatmaps", run.path / kind / DEVICE
    with tempfile.TemporaryDirectory() as temporary:
        scratch = pathlib.Path(temporary)
        said = plain.of_export(saved_model.load(run.saved_model), card["image_size"])
        bare = smaller.write(scratch / "bare", kind, said, card, good)
        calibrate = held_out.records
        answers = _answers(bare, [*calibrate, *evaluate])
        count = len(calibrate)
        for record, answer in zip(evaluate, answers[count:], strict=True):
            heatmaps.write(maps, record.path, answer[HEAT_MAP][0])
        scores = np.array([answer[SCORE][0] for answer in answers])
        held = held_out.scores(scores[:count])
        table: list[Row] = [*rows(calibrate, "calibrate", held), *rows(evaluate, "evaluate", scores[count:])]
        judging.judge_run(run, settings, table, f"{title}, {kind}", notes, part=kind, evaluated=evaluate)
        thresholds = export_lib.thresholds_of(run.path / kind, None)
        usual = _usual(calibrate, answers[:count], held)
        export_lib.write_thresholded(scratch / "model", run.saved_model, card, thresholds, usual)
        said = plain.of_export(saved_model.load(scratch / "model"), card["image_size"])
        if folder.exists():
            shutil.rmtree(folder)
        with new_directory(folder) as directory:
            whole = smaller.write(directory, kind, said, card | {"threshold": thresholds.value}, good)
            for record, answer in list(zip(calibrate, answers, strict=False))[:8]:
                served = whole.of_pixels(whole.pixels(pathlib.Path(record.file).read_bytes()))[SCORE]
                if not np.allclose(served, answer[SCORE], rtol=1e-4, atol=1e-4):
                    raise RuntimeError(f"{kind} with its threshold gives {served} for {record.path}, without {answer}.")
    return Form(kind, run.path / kind, HeatMaps(maps, "heat map"))


def _answers(model: exchange.ExchangeModel, records: Sequence[Record]) -> list[dict[str, np.ndarray]]:
    found, speak = [], speaker()
    for number, record in enumerate(records, 1):
        found.append(model.of_pixels(model.pixels(pathlib.Path(record.file).read_bytes())))
        speak(f"asked the form {number} of {counted(len(records), 'image')}")
    return found


def _usual(
    records: Sequence[Record], answers: Sequence[dict[str, np.ndarray]], held_out: np.ndarray
) -> Usual | None:
    """What the form answers to good images, with their held-out scores [N]; None of too few."""
    good = [row for row, record in enumerate(records) if not record.label]
    statistics, embedding = (
        np.concatenate([answers[row][name] for row in good]) for name in (IMAGE_STATISTICS, EMBEDDING)
    )
    objects = np.array([records[row].group for row in good])
    found = Reference.of(statistics, embedding, held_out[good], np.zeros(len(good), np.int64), objects)
    return found and Usual(found)


def _speeds(models: dict[str, str], images: Sequence[str], count: int) -> dict[str, dict[int, dict[str, float]]]:
    """name -> threads -> see `speed.measured`; empty where no image is to be measured."""
    wanted = np.resize(np.array(images, object), count).tolist()
    if count and not speed.CAN_MEASURE:
        print("Speed is not measured: this system binds no process to cores.", flush=True)
        count = 0
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name, model in models.items() if count else ():
        found[name] = {threads: speed.measured(model, wanted, threads) for threads in (1, 2)}
        clock, processor = (found[name][1][key] for key in ("rate", "processor"))
        told = f"{clock:.1f} images a second of the clock, {processor:.1f} of the processor, on one thread"
        print(f"{name}: {told}.", flush=True)
    return found


def _megabytes(model: str) -> float:
    path = pathlib.Path(model)
    parts = path.rglob("*") if path.is_dir() else [path, *path.parent.glob(f"{path.stem}.bin")]
    return sum(file.stat().st_size for file in parts if file.is_file()) / 1e6
