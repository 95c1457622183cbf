"""Judging what no network is needed for: a head on mean brightness or on 16 x 16 grey pixels."""

import numpy as np

from mvtec_tf.data import protocol
from mvtec_tf.data.decoding.image_store import ImageStore
from mvtec_tf.data.protocol import Cut
from mvtec_tf.evaluation import shift
from mvtec_tf.features import baselines
from mvtec_tf.features.baselines import Baseline, write_baseline
from mvtec_tf.graphs import scoring
from mvtec_tf.heads.distance import Mahalanobis
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.linear import Logistic
from mvtec_tf.heads.settings import SCORE_UNITS
from mvtec_tf.jobs import judging, opening
from mvtec_tf.jobs.settings import BaselineSettings
from mvtec_tf.run_directory import RunDirectory


def fit_baseline(settings: BaselineSettings) -> RunDirectory:
    """Fits, exports and judges the baseline.

    Returns:
      The finished run.

    Raises:
      UsageError: settings contradict each other.
      UserError: images cannot be used.
    """
    settings.check_threshold()
    budget = protocol.parse_budget(settings.label_budget)
    store = ImageStore(settings.image_size, max_pixels=settings.max_pixels)
    records, skipped = opening.usable(settings, opening.scan(settings), store.readable)
    cut = protocol.clean(records, budget, settings.seed)
    with opening.opened("fit_baseline", settings, records, skipped) as run:
        if not run.finished:
            _fit_and_judge(run, settings, store, cut)
            judging.finish(run)
        return run


def _fit_and_judge(run: RunDirectory, settings: BaselineSettings, store: ImageStore, cut: Cut) -> None:
    fit = cut.fit
    features = getattr(baselines, settings.features)(store.load((*fit, *cut.evaluate))).astype(np.float32)
    make, name = (Logistic, "logistic") if cut.labelled else (Mahalanobis, "mahalanobis")
    with run.timed("fit"):
        fitted, line = judging.on_line(fit_probe(make, features[: len(fit)], fit, settings.seed), cut)
    if not run.saved_model.exists():
        side = baselines.SIDES[settings.features]
        graph = Baseline(side, fitted.head, settings.image_size, settings.max_pixels)
        write_baseline(run.saved_model, graph, {"run": run.record["settings"], "head": name})
    store.forget()
    with run.timed("score"):
        served = scoring.score_files(run.saved_model, [record.file for record in cut.evaluate])
    judging.check_roads(served.score, fitted.head.decision_function(features[len(fit) :]))
    table = judging.table_of(fitted, cut, features[: len(fit)], served.score, served.probability)
    judging.note_labels(run, cut.labelled, SCORE_UNITS[name])
    words = {"logistic": "Logistic regression on", "mahalanobis": "Mahalanobis distance of"}[name]
    title = f"{words} {settings.features.replace('_', ' ')}"
    notes = [("Labels", judging.labels_note(cut)), *judging.note_line(run, line)]
    basis = shift.basis(line)
    judging.judge_run(run, settings, table, title, notes, evaluated=cut.evaluate, basis=basis, calibrate=fit)
