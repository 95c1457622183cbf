"""What kind of method a run is, and how many labels it may use, by its record."""

from collections.abc import Sequence

from mvtec_tf.evaluation.comparison.contenders import Method
from mvtec_tf.evaluation.report import diagrams

SUPERVISED, SELF_SUPERVISED, STARTING, BASELINE, UNKNOWN = (
    "supervised network",
    "self-supervised encoder with a head",
    "encoder as it came, with a head",
    "baseline without a network",
    "not recorded",
)


def role(method: Method) -> str:
    """What kind of method it is, by the record of its first run."""
    record = method.runs[0].record or {}
    binary = record.get("binary")
    if binary == diagrams.PROBE:
        return SELF_SUPERVISED if (record.get("encoder") or {}).get("pretrain_images") else STARTING
    return {diagrams.SUPERVISED: SUPERVISED, diagrams.BASELINE: BASELINE}.get(binary, UNKNOWN)


def label_share(method: Method) -> float | None:
    """The largest share of the test images whose labels one of its runs may use; None if a record says no number."""
    shares = []
    for run in method.runs:
        try:
            shares.append(float((run.record or {})["settings"]["label_budget"]))
        except (KeyError, ValueError):
            return None
    return max(shares)


def head(method: Method) -> tuple[object, ...]:
    """What was fitted on the encoder: two methods that differ in it do not show what the encoder is worth."""
    record = method.runs[0].record or {}
    return record.get("part"), record.get("settings", {}).get("head"), record.get("settings", {}).get("protocol")


def arrange(methods: Sequence[Method]) -> tuple[Method, ...]:
    """The supervised method with the most labels first, as the one that the others are measured against."""
    supervised = [method for method in methods if role(method) == SUPERVISED]
    if not supervised:
        return tuple(methods)
    first = max(supervised, key=lambda method: method.labels_used or 0)
    return (first, *(method for method in methods if method is not first))
