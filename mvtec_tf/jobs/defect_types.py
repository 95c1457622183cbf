"""The steps of fit_probe `task`=defect_type: a head that names the defect, judged twice.

Once like every other head, by how well its score parts good from defective; and by the names.
"""

import numpy as np

from mvtec_tf.evaluation import defect_types
from mvtec_tf.evaluation.defect_types import Call
from mvtec_tf.evaluation.rows import rows
from mvtec_tf.features.probe_graph import TYPE_SCORES, Probe, write_probe
from mvtec_tf.graphs import saved_model, scoring
from mvtec_tf.heads.defect_types import PerCategoryTypeHead, TypeHead
from mvtec_tf.heads.file import save_head
from mvtec_tf.heads.fitting import fit_probe
from mvtec_tf.heads.settings import SCORE_UNITS, HeadSettings
from mvtec_tf.jobs import judging
from mvtec_tf.jobs import probe as probe_steps
from mvtec_tf.jobs.probe_features import Features
from mvtec_tf.jobs.settings import FitSettings
from mvtec_tf.run_directory import RunDirectory


def fit_and_judge_types(
    run: RunDirectory, settings: FitSettings, features: Features, kind: HeadSettings
) -> None:
    """Fits the head on the types of train_good and labelled, exports it, and judges the exported graph."""
    cut, records = features.cut, features.fit_records

    def make() -> TypeHead:
        return TypeHead(kind.name, kind.c, kind.seed)

    with run.timed("fit"):
        probe = fit_probe(make, features.fit_rows, records, kind.seed, of_types=True)
    for warning in probe.warnings:
        print(f"Note: {warning}", flush=True)
    head = probe.head
    save_head(run.path / "head.npz", head, kind, features.key.as_json(), features.tiled)
    if not run.saved_model.exists():
        graph = Probe(features.encoder, features.settings, head)
        write_probe(run.saved_model, graph, {"run": run.record["settings"], "head": kind.name})
    with run.timed("score"):
        signature = saved_model.load(run.saved_model).signatures["serving_default"]
        served = scoring.run_signature(signature, [record.file for record in cut.evaluate], 32, "scored")
    scores = head.decision_function(features.frozen)
    probe_steps.check_roads(served["anomaly_score"], scores[len(records) :])
    table = [
        *probe_steps.rows_of(head, records, "fit", scores[: len(records)]),
        *probe_steps.rows_of(head, [records[i] for i in probe.calibrate], "calibrate", probe.calibrate_scores),
        *rows(cut.evaluate, "evaluate", served["anomaly_score"], served.get("probability")),
    ]
    run.note(score_unit=SCORE_UNITS[kind.name])
    run.note(labels_used=len(cut.labelled), labelled_defects=sum(record.label for record in cut.labelled))
    labels = " ".join([probe_steps.labels_note(cut), *probe.warnings])
    title = f"Frozen encoder with a {kind.name} head that names the defect"
    names = (
        f"{defect_types.REPORT_FILE} in this folder says how often the defect was named rightly. An image is named "
        "after its highest score, and so may be called good there and still reach the threshold here."
    )
    notes = [("Labels", labels), ("Names of defects", names)]
    judging.judge_run(run, settings, table, title, notes, evaluated=cut.evaluate)
    _judge_names(run, features, head, served[TYPE_SCORES], title)


def _judge_names(
    run: RunDirectory, features: Features, head: PerCategoryTypeHead, scores: np.ndarray, title: str
) -> None:
    called = [head.types[number] for number in scores.argmax(axis=1)]
    calls = [
        Call(record.path, record.category, record.group, record.defect, name)
        for record, name in zip(features.cut.evaluate, called, strict=True)
    ]
    labelled = {category: own.classes_ for category, own in head.heads.items()}
    print(defect_types.judge_types(calls, labelled, run.path, title)["summary"], flush=True)
